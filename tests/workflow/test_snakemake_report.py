"""`snakemake --report`: the figures with their captions."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .conftest import ROOT, Project

pytestmark = pytest.mark.workflow

CAPTIONS = ROOT / "workflow" / "report"


def test_every_caption_is_used_and_every_one_that_is_used_exists() -> None:
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    used = set(re.findall(r'caption="\.\./report/(\w+)\.rst"', text))
    assert used | {"workflow"} == {path.stem for path in CAPTIONS.glob("*.rst")}


def test_figures_come_with_their_captions(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    target = "results/GaussianMixture-smoke/eval.json"
    done = project.snakemake(target, "--report", "report.html", "--config", "preset=smoke", "seeds=[0]")
    assert done.returncode == 0, done.stderr + done.stdout
    page = (project.folder / "report.html").read_text()
    for path in ("success_modes.png", "trajectories.png"):
        assert f"results/GaussianMixture-smoke/{path}" in page
    for words in ("GaussianMixture: success against modes.", "GaussianMixture: trajectories before and after."):
        assert words in page
    assert "Figures of" in page


def test_without_results_there_is_no_report(project: Project) -> None:
    done = project.snakemake(
        "results/GaussianMixture-smoke/eval.json", "--report", "report.html", "--config", "preset=smoke"
    )
    assert done.returncode != 0
    assert not (project.folder / "report.html").exists()
