"""The stage `report`: a page, or one line and no page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.stages.report import report, summary
from tests.reporting.made_up import MadeUpRun
from tests.reporting.made_up_evidence import write_evidence
from tests.stages.small import QUIET

TASK = "GaussianMixture"


def make_config(**changes: Any) -> RunConfig:
    values = {
        "task": {"name": TASK},
        "seeds": (0, 1),
        "methods": ("dsrl", "dsrl-bmd"),
        "discover": {"form": "published"},  # nothing is taught
    }
    return RunConfig.model_validate(values | changes)


@pytest.fixture
def run(tmp_path: Path) -> MadeUpRun:
    return MadeUpRun(tmp_path, TASK, config=make_config())


def test_the_page_is_written_whole(run: MadeUpRun) -> None:
    output = run.layout.report(TASK)
    report(make_config(), layout=run.layout, output=output, reporter=QUIET)
    page = output.read_text()
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>")
    assert [path.name for path in output.parent.glob(".*")] == []  # nothing half-written is left


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1, 2)}, "holds no pretrained/seed2; make it with `snakemake"),
        ({"methods": ("dsrl", "dsrl-bmd", "res")}, "holds no res/seed0"),
        ({"discover": {"form": "coded"}}, "holds no taught/seed0"),
        ({"evaluate": {"tau": 0.7}}, "pretrained was evaluated under other settings than the present ones"),
        ({"finetune": {"iterations": 7}}, "dsrl was evaluated under other settings"),
    ],
)
def test_results_that_the_settings_do_not_ask_for_are_refused(
    run: MadeUpRun, changes: dict[str, Any], message: str
) -> None:
    output = run.layout.report(TASK)
    with pytest.raises(ArtifactError, match=message) as error:
        report(make_config(**changes), layout=run.layout, output=output, reporter=QUIET)
    assert str(run.layout.summary(TASK)) in str(error.value)
    assert "\n" not in str(error.value)
    assert not output.exists()


def test_a_policy_that_was_trained_otherwise_is_refused(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, TASK, config=make_config(), trained_under="other settings")
    with pytest.raises(ArtifactError, match=r"dsrl/seed0/run\.json: dsrl was trained under other settings"):
        report(make_config(), layout=run.layout, output=run.layout.report(TASK), reporter=QUIET)


def test_evidence_of_other_settings_is_refused(run: MadeUpRun) -> None:
    write_evidence(run)
    with pytest.raises(ArtifactError, match=r"compare\.json: was made under other settings"):
        report(make_config(), layout=run.layout, output=run.layout.report(TASK), reporter=QUIET)
    assert not run.layout.report(TASK).exists()


def test_an_old_page_stays_when_a_new_one_fails(run: MadeUpRun) -> None:
    output = run.layout.report(TASK)
    output.write_text("old")
    (run.folder / "dsrl" / "seed0" / "metrics.jsonl").write_text("")
    with pytest.raises(ArtifactError):
        report(make_config(), layout=run.layout, output=output, reporter=QUIET)
    assert output.read_text() == "old"


def test_summary_takes_all_tasks_with_results(run: MadeUpRun, tmp_path: Path) -> None:
    (tmp_path / "results" / "Unfinished").mkdir()
    assert run.layout.list_tasks() == [TASK]
    summary(layout=run.layout, output=run.layout.overview(), reporter=QUIET)
    assert TASK in run.layout.overview().read_text()


def test_summary_of_nothing_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(ArtifactError, match="no task has results"):
        summary(layout=layout, output=layout.overview(), reporter=QUIET)
    assert not layout.overview().exists()
