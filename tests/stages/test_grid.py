"""The stage `grid`, on made-up runs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from bmd_pipeline.config.overrides import configure_cell, list_cells
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.schemas import Grid
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.grid import grid
from tests.metrics.drawn import draw_episodes
from tests.stages.evaluations import write_evaluation

TASK = "GaussianMixture"
CONFIG = RunConfig.model_validate(
    {
        "task": {"name": TASK},
        "methods": ("dsrl", "dsrl-bmd"),
        "seeds": (0, 1),
        "compare": {"resamples": 200},
        "grid": {"weights": (0.0, 0.1), "num_modes": (4,)},
    }
)
SHARES = {"dsrl": [2000, 1, 1, 1], "dsrl-bmd/k4/weight-0": [1, 1, 0.001, 0.001], "dsrl-bmd/k4/weight-0.1": [1, 1, 1, 1]}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout, rng = Layout(tmp_path), np.random.default_rng(0)
    for cell in list_cells(CONFIG):
        for seed in CONFIG.seeds:
            part = draw_episodes(cell.method, seed, rates=[0.95] * 4, shares=SHARES[cell.key], n=200, rng=rng)
            path = layout.grid_run(TASK, cell.folder, seed) / "eval.json"
            path.parent.mkdir(parents=True)
            write_evaluation(configure_cell(CONFIG, cell), path, part)
    return layout


def test_every_cell_is_scored_over_its_seeds(layout: Layout) -> None:
    stream = io.StringIO()
    grid(CONFIG, layout=layout, output=layout.grid(TASK), reporter=Reporter("plain", stream=stream))
    document = Grid.model_validate_json(layout.grid(TASK).read_text())
    cells = {cell.folder: cell for cell in document.cells}
    assert list(cells) == ["dsrl", "grid/dsrl-bmd/k4/weight-0", "grid/dsrl-bmd/k4/weight-0.1"]
    assert (cells["dsrl"].num_modes, cells["dsrl"].weight) == (None, None)
    kept = [cell.metrics["mode_entropy"].mean.value for cell in document.cells]
    assert kept[0] < 0.3 < kept[1] < 0.9 < 1.3 < kept[2]
    assert all(len(cell.metrics["success_rate"].seeds) == 2 for cell in document.cells)
    assert "dsrl-bmd/k4/weight-0.1: success 0.9" in stream.getvalue()


def test_an_evaluation_of_another_cell_is_refused(layout: Layout) -> None:
    folder = layout.grid_run(TASK, "grid/dsrl-bmd/k4/weight-0", 1)
    other = layout.grid_run(TASK, "grid/dsrl-bmd/k4/weight-0.1", 1)
    (folder / "eval.json").write_bytes((other / "eval.json").read_bytes())
    with pytest.raises(ArtifactError, match="evaluated under other settings"):
        grid(CONFIG, layout=layout, output=layout.grid(TASK))
    assert not layout.grid(TASK).exists()
