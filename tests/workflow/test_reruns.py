"""From an empty folder to eval.json, and then: what reruns after one edit, and what doesn't."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import bmd_pipeline

from .conftest import TARGET, Project

pytestmark = pytest.mark.workflow

EVERYTHING = {"collect": 1, "pretrain": 1, "discover": 1, "finetune": 2, "evaluate": 4, "summarise": 1}
AFTER_POLICY = {rule: count for rule, count in EVERYTHING.items() if rule not in ("collect", "pretrain")}


def test_an_empty_folder_plans_everything(project: Project) -> None:
    assert project.plan() == EVERYTHING


def test_a_run_leaves_what_it_promises_and_a_second_finds_nothing_to_do(finished: Project) -> None:
    results = finished.folder / "results" / "GaussianMixture-smoke"
    policies = json.loads((results / "eval.json").read_text())["policies"]
    assert list(policies) == ["pretrained", "taught", "dppo", "dppo-bmd"]
    for output in ("policy", "modes/seed0", "dppo/seed0", "dppo-bmd/seed0"):
        assert json.loads((results / output / "run.json").read_text())["task"] == "GaussianMixture"
    logs = {path.name for path in (finished.folder / "logs" / "GaussianMixture-smoke").iterdir()}
    assert {"collect.log", "collect.tsv", "finetune-dppo-bmd-seed0.log", "evaluate-taught-seed0.log"} <= logs
    assert finished.plan() == {}


@pytest.mark.parametrize(
    ("setting", "reruns"),
    [
        ("finetune.regulariser.mi_weight=0.7", {"finetune": 1, "evaluate": 1, "summarise": 1}),
        ("finetune.iterations=3", {"finetune": 2, "evaluate": 2, "summarise": 1}),
        ("evaluate.tau=0.5", {"evaluate": 4, "summarise": 1}),
        ("discover.heldout_episodes=16", {"discover": 1, "finetune": 1, "evaluate": 2, "summarise": 1}),
        ("discover.teaching.steps=30", {"discover": 1, "finetune": 1, "evaluate": 2, "summarise": 1}),
        ("discover.form=published", {"discover": 1, "finetune": 1, "evaluate": 1, "summarise": 1}),  # nothing is taught
        ("finetune.denoiser.eta=0.5", {"finetune": 2, "evaluate": 2, "summarise": 1}),
        ("methods=[dppo, dppo-bmd, dsrl]", {"finetune": 1, "evaluate": 1, "summarise": 1}),
        ("pretrain.iterations=301", {**AFTER_POLICY, "pretrain": 1}),
        ("collect.num_episodes=24", EVERYTHING),
        ("seeds=[0, 5]", {"discover": 1, "finetune": 2, "evaluate": 4, "summarise": 1}),
        ("methods=[dppo]", {"summarise": 1}),
        ("execution.threads.finetune=2", {}),
        ("execution.mem_mb=3000", {}),
        ("execution.checkpoint_minutes=1", {}),
        ("execution.max_minutes=5", {}),
    ],
)
def test_a_setting_reruns_only_what_depends_on_it(finished: Project, setting: str, reruns: dict[str, int]) -> None:
    assert finished.plan(f'set=["{setting}"]') == reruns


def test_settings_of_one_method_rerun_that_method_alone(project: Project) -> None:
    """Fine-tuning of `dsrl` and `dsrl-bmd` reads nothing of what `dppo` trains by."""
    target = "results/GaussianMixture-smoke/dsrl/seed0/finetuned.safetensors"
    settings = ("methods=[dppo, dsrl]", "pretrain.iterations=20", "finetune.iterations=1")
    done = project.snakemake(
        *("--cores", "1", target, target.replace("dsrl", "dppo"), "--config", "preset=smoke", f"set={list(settings)}")
    )
    assert done.returncode == 0, done.stderr
    changed = [*settings, "finetune.denoiser.noise_floor=0.2"]
    assert project.plan(f"set={changed}", target=target) == {}
    assert project.plan(f"set={changed}", target=target.replace("dsrl", "dppo")) == {"finetune": 1}


def test_a_time_limit_reruns_nothing(finished: Project) -> None:
    done = finished.snakemake(
        *("--dry-run", "--cores", "2", TARGET, "--default-resources", "stop_margin=5"),
        *("--config", "preset=smoke", "seeds=[0]"),
    )
    assert "Nothing to be done" in done.stdout + done.stderr


def test_rewriting_the_settings_without_changing_them_reruns_nothing(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    for path in (project.folder / "config").rglob("*.yaml"):
        values = yaml.safe_load(path.read_text()) or {}
        path.write_text(f"# rewritten\n{yaml.safe_dump(dict(reversed(values.items())), default_flow_style=True)}")
    assert project.plan() == {}


def test_a_deleted_output_that_is_asked_for_is_made_again(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    (project.folder / "results/GaussianMixture-smoke/eval.json").unlink()
    assert project.plan() == {"summarise": 1}


def test_an_edit_inside_the_store_reaches_training(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    store = project.folder / "data/GaussianMixture-smoke/demos.zarr"
    chunk = next(path for path in store.rglob("*") if path.is_file() and "action" in path.parts and "c" in path.parts)
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for times in (None, (1, 1)):  # now, and older than the manifest, as `cp -p`, rsync or a backup leave it
        os.utime(chunk, times)
        assert project.plan() == {**AFTER_POLICY, "pretrain": 1}


def test_touching_the_store_without_changing_it_reruns_nothing(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    for path in (project.folder / "data/GaussianMixture-smoke/demos.zarr").rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            path.touch()
    assert project.plan() == {}


def test_code_reruns_its_stage_and_formatting_reruns_nothing(finished: Project, tmp_path: Path) -> None:
    package = tmp_path / "source" / "bmd_pipeline"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(bmd_pipeline.__file__).parent, package, ignore=ignored)
    module = package / "stages" / "finetune.py"
    module.write_text(f"# a comment\n{module.read_text()}\n\n")
    assert finished.plan(PYTHONPATH=str(package.parent)) == {}
    module.write_text(f"{module.read_text()}\nprint('edited', end='')\n")
    assert finished.plan(PYTHONPATH=str(package.parent)) == {"finetune": 2, "evaluate": 2, "summarise": 1}


def test_any_seed_method_and_file_is_a_target(project: Project) -> None:
    plan = project.plan(target="results/GaussianMixture-smoke/dsrl-bmd/seed77/eval.json")
    assert plan == {"collect": 1, "pretrain": 1, "discover": 1, "finetune": 1, "evaluate": 1}
    plan = project.plan(target="results/GaussianMixture-smoke/dsrl/seed77/run.json")
    assert plan == {"collect": 1, "pretrain": 1, "finetune": 1}
    assert project.plan(target="data/GaussianMixture-smoke/demos.zarr") == {"collect": 1}
    assert project.plan(target="results/GaussianMixture-smoke/pretrained/seed3/eval.json")["evaluate"] == 1
    plan = project.plan(target="results/GaussianMixture-smoke/taught/seed3/eval.json")
    assert plan == {"collect": 1, "pretrain": 1, "discover": 1, "evaluate": 1}
