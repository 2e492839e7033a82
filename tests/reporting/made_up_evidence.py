"""Made-up evidence beside made-up results: compare.json, verdict.json and grid.json."""

from __future__ import annotations

from typing import Any

from bmd_pipeline.metrics.schemas import Comparison, Grid, Validation, Verdict, write_document
from tests.reporting.made_up import MadeUpRun


def write_evidence(run: MadeUpRun) -> None:
    """Writes all documents where the page looks for them."""
    for path, document in (
        (run.layout.comparison(run.task), _make_comparison(run)),
        (run.layout.verdict(run.task), _make_verdict(run)),
        (run.layout.grid(run.task), make_grid(run)),
        (run.layout.validation(run.task), _make_validation(run)),
    ):
        write_document(path, document)


def _make_comparison(run: MadeUpRun) -> Comparison:
    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.04}

    names = (
        "success_rate",
        "mode_weighted_success",
        "present",
        "solved",
        "mode_entropy",
        "obeyed",
        "obeyed_worst",
        "episode_return",
    )
    score = {"mean": interval(0.8), "iqm": interval(0.81), "seeds": [0.8] * len(run.seeds)}
    cell = {
        "difference": interval(0.1),
        "probability_of_improvement": {"value": 1.0, "low": 0.9, "high": 1.0},
        "unit": "episodes",
        "by_seed": None,
        "by_episode": {"test": "made up", "low": 0.05, "high": 0.14, "p": 0.001, "p_holm": 0.004},
    }
    return Comparison.model_validate(
        {
            "schema_version": 3,
            "task": run.task,
            "config_hash": "compare-settings",
            "confidence": 0.95,
            "alpha": 0.05,
            "labelling": "way",
            "modes": list(run.modes),
            "tau": 0.8,
            "seeds": list(run.seeds),
            "episodes_per_seed": run.episodes,
            "policies": {
                policy: {"metrics": dict.fromkeys((*names, "mutual_information"), score)}
                for policy in ("pretrained", *run.methods)
            },
            "comparisons": [
                {"one": method, "other": "pretrained", "kind": "base", "metrics": dict.fromkeys(names, cell)}
                for method in run.methods
            ],
            "provenance": run.trace("compare", run.inputs).model_dump(),
        }
    )


def _make_verdict(run: MadeUpRun) -> Verdict:
    hypotheses = [
        {
            "hypothesis": f"H{number}",
            "metric": metric,
            "threshold": threshold,
            "one": 0.9,
            "other": 0.8,
            "difference": {"value": 0.1, "low": 0.05, "high": 0.14},
            "verdict": verdict,
            "unit": "episodes",
            "test": "made up",
            "p_above": 0.01,
            "p_above_holm": 0.03,
            "p_below": 0.9,
            "p_below_holm": 1.0,
        }
        for number, metric, threshold, verdict in (
            (1, "success_rate", -0.02, "supported"),
            (2, "solved", 0.0, "refuted"),
            (3, "mode_entropy", 0.0, "undecided"),
        )
    ]
    return Verdict.model_validate(
        {
            "schema_version": 3,
            "task": run.task,
            "config_hash": "verdict-settings",
            "confidence": 0.95,
            "alpha": 0.05,
            "tau": 0.8,
            "success_margin": 0.02,
            "family": 3,
            "labelling": "way",
            "modes": list(run.modes),
            "seeds": list(run.seeds),
            "episodes_per_seed": run.episodes,
            "min_seeds": 6,
            "pairs": [{"one": "dsrl-bmd", "other": "dsrl", "hypotheses": hypotheses}],
            "provenance": run.trace("verdict", run.inputs).model_dump(),
        }
    )


def make_grid(run: MadeUpRun) -> Grid:
    def score(value: float) -> dict[str, Any]:
        around = {"value": value, "low": 0.95 * value, "high": min(1.0, 1.03 * value)}
        return {"mean": around, "iqm": around, "seeds": [0.98 * value, min(1.0, 1.01 * value)]}

    axis = "finetune.regulariser.mi_weight"
    cells = []
    for weight in (0.0, 0.01, 0.1, 1.0, 10.0):
        success, solved = 0.97 if weight < 5 else 0.7, 0.3 if weight < 0.05 else 1.0
        names = ("success_rate", "present", "solved", "mode_entropy", "obeyed", "obeyed_worst")
        scores = {
            "folder": f"grid/mi_weight={weight:g}/dsrl-bmd",
            "metrics": {name: score(success if name == "success_rate" else solved) for name in names},
        }
        cells.append({"name": f"mi_weight={weight:g}", "changes": {axis: weight}, "methods": {"dsrl-bmd": scores}})
    return Grid.model_validate(
        {
            "schema_version": 3,
            "task": run.task,
            "config_hash": "grid-settings",
            "axis": axis,
            "confidence": 0.95,
            "alpha": 0.05,
            "labelling": "way",
            "modes": list(run.modes),
            "tau": 0.8,
            "seeds": [0, 1],
            "episodes_per_seed": run.episodes,
            "cells": cells,
            "provenance": run.trace("grid", {}).model_dump(),
        }
    )


def _make_validation(run: MadeUpRun) -> Validation:
    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": min(1.0, value + 0.04)}

    def one_hot(k: int) -> dict[str, float]:
        return {mode: float(m == k % len(run.modes)) for m, mode in enumerate(run.modes)}

    discovered = [
        {
            "seed": seed,
            "episodes": run.episodes,
            "success_rate": interval(0.7),
            "present": len(run.modes),
            "separation": {
                "recognised": interval(0.9),
                "chance": 0.3,
                "p": 0.0,
                "learned_from": 20,
                "confusion": [[5, 0], [1, 4]],
            },
            "truth": {"nmi": 0.871, "ari": 0.812, "purity": 0.933, "redundant": [[0, 3]], "missing": []},
            "codes": [
                {
                    "code": k,
                    "episodes": 10,
                    "success_rate": 0.7,
                    "recognised": 0.9,
                    "mode": run.modes[k % len(run.modes)],
                    "mode_shares": one_hot(k),
                }
                for k in range(4)
            ],
        }
        for seed in run.seeds
    ]
    policy = run.layout.policy(run.task) / "run.json"
    modes = {f"modes/seed{seed}": run.layout.modes(run.task, seed) / "run.json" for seed in run.seeds}
    return Validation.model_validate(
        {
            "schema_version": 3,
            "task": run.task,
            "config_hash": "validation-settings",
            "confidence": 0.95,
            "alpha": 0.05,
            "labelling": "way",
            "modes": list(run.modes),
            "features": ["x", "y"],
            "points": 12,
            "base": {
                "episodes": 2 * run.episodes,
                "success_rate": interval(0.7),
                "modes": "several",
                "paired": {"pairs": 20, "dip": 0.3, "p": 0.001},
                "mode_shares": one_hot(0),
            },
            "discovered": discovered,
            "provenance": run.trace("validation", {"policy": policy, **modes}).model_dump(),
        }
    )
