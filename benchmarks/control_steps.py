"""Figure: success, modes solved and obedience over control steps, from the snapshots of finished runs.

    python -m benchmarks.control_steps RUN:METHOD[:LABEL]... --task PushTShifted --output docs/results/NAME.png

RUN is a folder with `results/<Task>[-base<k>]/<METHOD>/seed<k>/`, each with the metrics.jsonl of a fine-tuning that
kept snapshots (`finetune.snapshot_interval`) and the curve.json that `bmd-pipeline curve` made of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bmd_pipeline.config.overrides import split_base
from bmd_pipeline.errors import ArtifactError, BMDError
from bmd_pipeline.io.files import read_json
from bmd_pipeline.io.layout import METRICS_FILE
from bmd_pipeline.io.logger import load_metrics
from bmd_pipeline.reporting.figures import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, house_style

COLOURS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY)
SCORES = {"success_rate": "success", "solved": "modes solved", "obeyed": "obeyed"}


@dataclass(frozen=True)
class Line:
    """One run: scores of its snapshots over the control steps that it had played by then."""

    steps: NDArray[np.float64]  # (num_snapshots,)
    scores: dict[str, NDArray[np.float64]]  # (num_snapshots,) by name
    total_modes: int


def load_line(curve: Path) -> Line:
    """Reads a curve.json and the metrics.jsonl beside it.

    Raises:
        ArtifactError: one is missing or damaged, or they don't fit each other.
    """
    points: list[dict[str, Any]] = read_json(curve, "curve")["points"]
    played = list(
        accumulate(float(row["rollout/control_steps"]) for row in load_metrics(curve.with_name(METRICS_FILE)))
    )
    if points[-1]["iteration"] > len(played):
        raise ArtifactError(f"{curve}: has snapshots that the log beside it does not know; make it again")
    return Line(
        steps=np.array([([0.0, *played])[point["iteration"]] for point in points]),
        scores={name: np.array([point[name]["mean"] for point in points]) for name in SCORES},
        total_modes=len(points[0]["mode_shares"]),
    )


def find_lines(root: Path, task: str, method: str) -> list[Line]:
    """The runs of a method below a folder, one per base policy and seed.

    Raises:
        ArtifactError: there are none, or a file is missing or damaged.
    """
    found = sorted(root.glob(f"results/*/{method}/seed*/curve.json"))
    lines = [load_line(path) for path in found if split_base(path.parts[-4])[0] == task]
    if not lines:
        raise ArtifactError(f"{root}: holds no curve.json of {method} on {task}; `bmd-pipeline curve` makes it")
    return lines


@house_style()
def plot_lines(groups: dict[str, list[Line]]) -> Figure:
    """A panel per score; thin lines are runs, thick ones their mean over the snapshots that all of them have."""
    figure = Figure(figsize=(8.6, 2.6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(SCORES)), SCORES.items(), strict=True):
        for colour, (label, lines) in zip(COLOURS, groups.items(), strict=False):
            for line in lines:
                axes.plot(line.steps / 1e6, line.scores[name], color=colour, linewidth=0.7, alpha=0.4)
            shared = min(len(line.steps) for line in lines)
            steps, scores = (
                np.mean([values[:shared] for values in kind], axis=0)
                for kind in ([line.steps for line in lines], [line.scores[name] for line in lines])
            )
            axes.plot(steps / 1e6, scores, color=colour, linewidth=1.6, label=label)
        total = next(iter(groups.values()))[0].total_modes
        axes.set_ylim((-0.04, 1.04) if name != "solved" else (-0.04 * total, 1.04 * total))
        axes.set_title(title)
        axes.set_xlabel("control steps, millions")
        axes.grid(visible=True, axis="y")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=6)
    return figure


def main() -> None:
    """Draws the figure; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN:METHOD[:LABEL]")
    parser.add_argument("--task", required=True)
    parser.add_argument("--output", required=True, type=Path)
    given = parser.parse_args()
    groups = {}
    try:
        for run in given.runs:
            root, method, label = [*run.split(":", 2), ""][:3]
            groups[label or method] = find_lines(Path(root), given.task, method)
        plot_lines(groups).savefig(given.output, dpi=130)
    except (BMDError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
