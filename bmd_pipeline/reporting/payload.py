"""What the page's scripts draw, as JSON values; texts in it are shown as text, never read as markup."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bmd_pipeline.config.schema import PRETRAINED, uses_modes
from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.schemas import Estimate, Evaluation, Score, Sweep, Validation
from bmd_pipeline.reporting.figures import method_style
from bmd_pipeline.reporting.sources import ReportSources
from bmd_pipeline.reporting.trajectories import NUM_POINTS, PlanarPath

# ---- Planar paths packed for the page: 16-bit coordinates in base64 beside plain columns ----

MAX_BYTES = 3_000_000
"""Bytes of coordinates that a page carries before base64, which adds a third."""

_LEVELS = 65535


def encode_planar(
    paths: Mapping[tuple[str, int], Sequence[PlanarPath]],
    episodes: Mapping[tuple[str, int], Episodes],
    modes: Sequence[str],
) -> dict[str, Any]:
    """Packs the paths of all policies and seeds.

    Where they would make the page too large, each policy and seed keeps its first ones.

    Args:
        paths: by policy and seed, the first of its episodes.
        episodes: their rows, for their lengths.
        modes: all modes of the task, in its order.

    Returns:
        JSON values: `groups` of (policy, seed, count, recorded), and per path its code, mode (-1: undecided), success
        and length in control steps; `xy` holds NUM_POINTS little-endian uint16 pairs per path, 0 to 65535 between
        `low` and `high`.
    """
    limit = max(1, MAX_BYTES // (4 * NUM_POINTS * len(paths)))
    kept = {key: list(group)[:limit] for key, group in paths.items()}
    chosen = [path for group in kept.values() for path in group]
    points = np.stack([path.xy for path in chosen]).astype(np.float64)  # (num_paths, NUM_POINTS, 2)
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    levels = np.rint((points - low) / np.maximum(high - low, 1e-12) * _LEVELS).astype("<u2")
    place = {mode: i for i, mode in enumerate(modes)}
    return {
        "groups": [
            {"policy": policy, "seed": seed, "count": len(group), "recorded": len(episodes[policy, seed])}
            for (policy, seed), group in kept.items()
        ],
        "points": NUM_POINTS,
        "low": low.tolist(),
        "high": high.tolist(),
        "code": [path.code for path in chosen],
        "mode": [-1 if path.mode is None else place[path.mode] for path in chosen],
        "success": [int(path.success) for path in chosen],
        "length": [int(steps) for key, group in kept.items() for steps in episodes[key].length[: len(group)]],
        "xy": base64.b64encode(levels.tobytes()).decode(),
    }


# ---- What the page's scripts draw, as JSON values. Texts in it are shown as text, never read as markup ----


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
