"""What the workflow refuses: one line, a failing status, and nothing started or written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from .conftest import Project

pytestmark = pytest.mark.workflow

TARGET = "results/GaussianMixture/eval.json"
RESULTS = "results/GaussianMixture-smoke"
SMOKE = f"{RESULTS}/eval.json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results/GausianMixture/eval.json"], "unknown task 'GausianMixture'; did you mean 'GaussianMixture'?"),
        (["results/GaussianMixture/dsr/seed0/eval.json"], "unknown method 'dsr'; did you mean 'dsrl'?"),
        (
            ["results/GaussianMixture/pretraind/seed0/eval.json"],
            "unknown method 'pretraind'; did you mean 'pretrained'?",
        ),
        (["results/GaussianMixture/dppo/seed2147483648/eval.json"], "seed must be <= 2147483647, got 2147483648"),
        (["results/GaussianMixture/dppo/seed0/curve.json"], "a curve needs snapshots: give `--config"),
        ([TARGET, "--config", "preset=smok"], "unknown preset 'smok'; did you mean 'smoke'?"),
        (
            [TARGET, "--config", "preset=smoke"],
            f"{TARGET} is another run's, and this run has the name smoke: ask for {SMOKE}",
        ),
        ([SMOKE], "unknown task 'GaussianMixture-smoke'; did you mean 'GaussianMixture'?; results/GaussianMixture-"),
        ([TARGET, "--config", "finetun=3"], "unknown setting finetun; did you mean 'finetune'?"),
        (
            [TARGET, "--config", "set=[finetune.ppo.gamma=2]"],
            "finetune.ppo.gamma must be <= 1.0, got 2 (--set finetune.ppo.gamma=2)",
        ),
        (
            ["data/PushT/demos.zarr", "--config", 'set=["discover.inference.features=[tun]"]'],
            "discover.inference.features: PushT has no track column 'tun'; it has ",
        ),
        ([SMOKE, "--config", "preset=smoke", 'set=["seeds=[0, 0]"]'], "seeds must not repeat, got [0, 0]"),
        (["data/GaussianMixture/demos.zarr", "--config", "set=[evaluate.tau=2]"], "evaluate.tau must be <= 1.0, got 2"),
    ],
)
def test_bad_settings_stop_before_any_job(project: Project, arguments: list[str], message: str) -> None:
    done = project.snakemake("--cores", "1", *arguments)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in done.stderr
    assert not (project.folder / "data").exists()
    assert not (project.folder / "results").exists()


def test_a_refusal_leaves_no_lock_behind(project: Project) -> None:
    assert project.snakemake("--cores", "1", TARGET, "--config", "preset=smok").returncode != 0
    again = project.snakemake("--cores", "1", "--dry-run", TARGET)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("name", ["x; touch pwned", "../../x", "$(touch pwned)", "x y", "`touch pwned`"])
def test_names_never_reach_a_shell(project: Project, name: str) -> None:
    done = project.snakemake("--cores", "1", f"results/{name}/eval.json")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not list(project.folder.parent.rglob("pwned"))


def test_values_reach_a_shell_as_one_word_each(project: Project) -> None:
    """A setting that only the stage itself can refuse travels through a rule's shell line."""
    hostile = ["$(touch pwned)", "x; touch pwned", "'; touch pwned; '", "`touch pwned`"]
    settings = project.folder / "mine.yaml"
    settings.write_text(json.dumps({"collect": {"behaviours": hostile}}))
    store = "data/GaussianMixture-smoke/demos.zarr"
    done = project.snakemake("--cores", "1", store, "--configfile", str(settings), "--config", "preset=smoke")
    assert done.returncode != 0
    log = (project.folder / "logs" / "GaussianMixture-smoke" / "collect.log").read_text()
    assert log.startswith("error: collect.behaviours: the expert shows no '$(touch pwned)'; it shows east, ")
    assert not list(project.folder.parent.rglob("pwned"))


def test_snakemakes_own_settings_file_makes_no_objects(project: Project) -> None:
    settings = project.folder / "mine.yaml"
    settings.write_text("seed: !!python/object/apply:os.system ['touch pwned']\n")
    done = project.snakemake("--cores", "1", TARGET, "--configfile", str(settings))
    assert done.returncode != 0
    assert not list(project.folder.parent.rglob("pwned"))


def test_what_snakemake_would_read_otherwise_is_refused_with_its_line(project: Project) -> None:
    settings = project.folder / "mine.yaml"
    settings.write_text("preset: smoke\nseed: 010\n")
    done = project.snakemake("--dry-run", "--cores", "1", TARGET, "--configfile", "mine.yaml")
    assert done.returncode != 0
    assert "mine.yaml:2:7: 010 would be read as int" in done.stdout + done.stderr


def test_a_failing_stage_says_why(project: Project) -> None:
    """One control step is too short for the expert, which the settings can't know."""
    store = "data/GaussianMixture-smoke/demos.zarr"
    done = project.snakemake("--cores", "1", store, "--config", "preset=smoke", "set=[task.env.horizon=1]")
    assert done.returncode != 0
    log = (project.folder / "logs" / "GaussianMixture-smoke" / "collect.log").read_text()
    assert log.splitlines()[-1].startswith("error: ")
    assert log.splitlines()[-1] in done.stdout + done.stderr
    assert not (project.folder / store).exists()


def test_before_a_rerun_one_line_says_what_it_replaces_and_nobodys_file_is(
    copy_of_finished: Callable[[], Project],
) -> None:
    project = copy_of_finished()
    target, picture = f"{RESULTS}/dppo/seed0/eval.json", project.folder / RESULTS / "dppo/seed0/trajectories.png"
    config = ("--config", "preset=smoke", "seeds=[0]", "set=[evaluate.episodes=40]")
    ours, document = picture.read_bytes(), (project.folder / target).read_bytes()
    (project.folder / target).unlink()
    picture.write_text("mine")
    done = project.snakemake("--cores", "1", target, *config)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"error: {RESULTS}/dppo/seed0/trajectories.png would be replaced")
    assert "Traceback" not in done.stderr
    assert picture.read_text() == "mine"
    picture.write_bytes(ours)
    (project.folder / target).write_bytes(document)
    done = project.snakemake("--cores", "1", target, *config)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^will be replaced: {RESULTS}/dppo/seed0; making it took \d+ s of CPU time$", done.stderr, re.M)
    assert "will be replaced" not in project.snakemake("--cores", "1", target, *config).stderr


def test_another_preset_replaces_a_runs_results_by_force_alone(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    target = f"{RESULTS}/modes/seed0/run.json"
    before = {path: path.read_bytes() for path in project.folder.glob("results/**/*") if path.is_file()}
    done = project.snakemake("--cores", "1", target, "--config", "preset=cpu", "run=smoke")
    assert done.returncode != 0
    assert " was made with preset smoke and would be replaced with preset cpu: " in done.stderr.splitlines()[-1]
    assert {path: path.read_bytes() for path in before} == before
