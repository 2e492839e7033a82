"""What the page's scripts draw, as JSON values. Texts in it are shown as text, never read as markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bmd_pipeline.config.schema import PRETRAINED, uses_modes
from bmd_pipeline.metrics.schemas import Estimate, Evaluation, Score, Sweep, Validation
from bmd_pipeline.reporting.page.encoding import encode_planar
from bmd_pipeline.reporting.page.sources import ReportSources
from bmd_pipeline.reporting.style import method_style


def make_payload(sources: ReportSources) -> dict[str, Any]:
    """Everything that the scripts of a task's page need; policies are named by their place in `policies`."""
    evaluation, book = sources.evaluation, sources.book
    place = {name: i for i, name in enumerate(evaluation.policies)}
    paths = encode_planar(sources.paths, sources.episodes, book.modes)
    for group in paths["groups"]:
        group["policy"] = place[group["policy"]]
    return {
        "policies": list_policies(evaluation, list(evaluation.policies)),
        "modes": list(book.modes),
        "axes": [axis.replace("_", " ") for axis in book.axes],
        "toScale": book.to_scale,
        "paths": paths,
        "curves": [
            {
                "policy": place[policy],
                "seed": seed,
                "stride": curves.stride,
                "step": curves.step,
                "values": curves.values,
                "targetKl": _target_kl(sources.tuned[policy, seed]),
            }
            for (policy, seed), curves in sources.curves.items()
        ],
        "pretraining": _describe_pretraining(sources),
        "codes": _list_codes(evaluation, list(book.modes)),
        "validation": _list_discovered(sources.evidence.validation),
        "sweep": _describe_sweep(sources.evidence.sweep, place),
    }


def list_policies(evaluation: Evaluation, order: Sequence[str]) -> list[dict[str, Any]]:
    """Success, modes and their spread of every policy, with the look of its method.

    Args:
        evaluation: an eval.json.
        order: all policies of the page; a policy's place in it is the number of its colour.
    """
    policies = []
    for name, block in evaluation.policies.items():
        style = method_style(name)
        total = block.solved.total
        policies.append(
            {
                "name": name,
                "index": order.index(name),
                "family": name.removesuffix("-bmd"),
                "base": name == PRETRAINED,
                "coded": uses_modes(name),
                "marker": style.marker,
                "filled": style.filled,
                "total": total,
                "tau": block.solved.tau,
                "success": _triple(block.success_rate),
                "present": _triple(block.present),
                "solved": _triple(block.solved),
                "obeyed": block.obeyed.mean,
                "spread": [round(math.exp(value), 4) for value in _triple(block.mode_entropy)],
                "seeds": [
                    {
                        "seed": row.seed,
                        "success": row.success_rate,
                        "present": row.present,
                        "solved": row.solved,
                        "obeyed": row.obeyed,
                        "spread": math.exp(row.mode_entropy),
                    }
                    for row in block.seeds
                ],
            }
        )
    return policies


def _list_codes(evaluation: Evaluation, modes: list[str]) -> list[dict[str, Any]]:
    """The code → mode matrix of each policy and seed."""
    matrices = []
    for i, block in enumerate(evaluation.policies.values()):
        for row in block.seeds:
            codes = [code for code in block.codes if code.seed == row.seed]
            if codes:
                cells = [
                    {
                        "code": code.code,
                        "episodes": code.episodes,
                        "success": code.success_rate,
                        "behaviour": code.behaviour,
                        "obeyed": code.obeyed,
                        "shares": [round(code.mode_shares.get(mode, 0.0), 4) for mode in modes],
                    }
                    for code in codes
                ]
                matrices.append({"policy": i, "seed": row.seed, "rows": cells})
    return matrices


def _list_discovered(validation: Validation | None) -> list[dict[str, Any]]:
    """The code → mode matrix of each discovery seed, before fine-tuning."""
    return [
        {
            "policy": None,
            "seed": one.seed,
            "rows": [
                {
                    "code": code.code,
                    "episodes": code.episodes,
                    "success": code.success_rate,
                    "shares": [round(share, 4) for share in code.mode_shares.values()],
                }
                for code in one.codes
            ],
        }
        for one in (validation.discovered if validation else ())
    ]


def _describe_pretraining(sources: ReportSources) -> dict[str, Any] | None:
    """Selection success over gradient steps, and the step whose weights were kept."""
    if sources.pretraining is None:
        return None
    return {
        "step": sources.pretraining.step,
        "success": sources.pretraining.values["selected"],
        "kept": (sources.base.get("kept") or {}).get("iteration"),
    }


def _describe_sweep(sweep: Sweep | None, place: dict[str, int]) -> dict[str, Any] | None:
    if sweep is None:
        return None
    return {
        "policy": place.get(sweep.method, -1),
        "total": sweep.total_modes,
        "successFloor": sweep.success_floor,
        "solvedFloor": sweep.solved_floor,
        "plateau": sweep.plateau.names if sweep.plateau else [],
        "points": [
            {
                "name": point.name,
                "controller": point.controller,
                "weight": point.weight,
                "holds": point.holds,
                "success": _describe_score(point.metrics["success_rate"]),
                "solved": _describe_score(point.metrics["solved"]),
                "obeyed": _describe_score(point.metrics["obeyed"]),
                "signs": {name: sign.model_dump() for name, sign in point.stability.items()},
            }
            for point in sweep.points
        ],
    }


def _describe_score(score: Score) -> dict[str, list[float]]:
    mean = score.mean
    return {"value": [mean.value, mean.low, mean.high], "seeds": score.seeds}


def _triple(estimate: Estimate) -> list[float]:
    return [estimate.mean, estimate.low, estimate.high]


def _target_kl(record: dict[str, Any]) -> float | None:
    target = record.get("config", {}).get("finetune", {}).get("ppo", {}).get("target_kl")
    return float(target) if target else None
