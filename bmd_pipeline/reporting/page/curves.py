"""Learning curves, as `metrics.jsonl` holds them, thinned to what a picture can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmd_pipeline.io.logger import load_metrics

MAX_POINTS = 200
"""Points of a curve on the page; longer logs are thinned."""

METRICS = {
    "success": "rollout/success_rate",
    "entropy": "losses/entropy",
    "kl": "losses/approx_kl",
    "mi_weight": "modes/mi_weight",
    "information": "modes/final_information",
    "selected": "select/success_rate",
}
"""What is drawn, and its name in the log."""

_UPDATES = ("entropy", "kl")
"""Say nothing of iterations that left the policy alone, as warming up the critic does."""

_PEAKS = ("kl",)
"""Thinned by their largest value: the mean would hide the spikes that they are drawn for."""

Value = float | None


@dataclass(frozen=True)
class Curves:
    """The curves of one run.

    Attributes:
        step: (num_points,) iteration, the last of those that a point stands for.
        values: (num_points,) per metric of `METRICS` that the log holds; None where there was nothing to measure.
        stride: iterations per point.
    """

    step: list[int]
    values: dict[str, list[Value]]
    stride: int


def load_curves(path: Path) -> Curves:
    """Reads and thins the log of a fine-tuning run.

    Raises:
        ArtifactError: it is missing, empty or damaged.
    """
    return _thin_rows(load_metrics(path), [name for name in METRICS if name != "selected"])


def load_pretraining(path: Path) -> Curves | None:
    """Reads the selection success of a pre-training's log; None where nothing was played.

    Raises:
        ArtifactError: it is empty or damaged.
    """
    rows = [row for row in load_metrics(path) if METRICS["selected"] in row] if path.is_file() else []
    return _thin_rows(rows, ["selected"]) if rows else None


def _thin_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Curves:
    stride = math.ceil(len(rows) / MAX_POINTS)
    chunks = [rows[start : start + stride] for start in range(0, len(rows), stride)]
    return Curves(
        step=[chunk[-1]["step"] for chunk in chunks],
        values={
            name: [_thin(name, [row.get(METRICS[name]) for row in chunk if _tells(name, row)]) for chunk in chunks]
            for name in names
            if any(METRICS[name] in row for row in rows)
        },
        stride=stride,
    )


def _tells(name: str, row: Mapping[str, object]) -> bool:
    return name not in _UPDATES or row.get("losses/policy_steps") != 0


def _thin(name: str, values: Sequence[object]) -> Value:
    finite = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not finite:
        return None
    value = max(finite) if name in _PEAKS else math.fsum(finite) / len(finite)
    return float(f"{value:.4g}")
