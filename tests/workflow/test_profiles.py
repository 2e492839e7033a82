"""Profiles, and the workflow's form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from bmd_pipeline.config.resources import READERS, usable_cores

from .conftest import BIN, ROOT, Project

pytestmark = pytest.mark.workflow

PROFILES = ROOT / "workflow" / "profiles"
TARGET = "results/GaussianMixture/eval.json"


def test_the_default_profile_is_picked_up_by_itself(project: Project) -> None:
    done = project.snakemake("--dry-run", "--cores", "1", TARGET)
    assert done.returncode == 0, done.stderr
    assert "profiles/default" in done.stderr


def test_more_jobs_than_cores_are_warned_of_where_they_would_run(project: Project) -> None:
    arguments = ("--dry-run", "--cores", "4096", TARGET)
    done = project.snakemake(*arguments)
    assert done.returncode == 0
    said = f"warning: --cores 4096, but there are {usable_cores()} for this process: "
    assert (done.stdout + done.stderr).count(said) == 1
    fitting = project.snakemake("--dry-run", "--cores", "1", TARGET)
    elsewhere = project.snakemake("--workflow-profile", "workflow/profiles/slurm", *arguments)
    assert elsewhere.returncode == 0
    assert "warning: --cores" not in fitting.stderr + elsewhere.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_starts_as_many_jobs_as_there_are_cores() -> None:
    def plan(*options: str) -> str:
        # as called by somebody, not by the `make test` that may run this
        own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        command = ["make", "--dry-run", "--no-print-directory", "run", f"VENV={sys.prefix}", *options]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=own,
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        )
        return done.stdout.splitlines()[-1].strip()

    assert plan() == "snakemake --cores 1 results/PushT/eval.json"
    assert plan("CORES=5").startswith("snakemake --cores 5 ")


@pytest.mark.parametrize("name", ["gpu", "paper", "slurm", "slurm-no-accounting"])
def test_each_profile_is_complete_by_itself(project: Project, name: str) -> None:
    done = project.snakemake(
        "--dry-run", "-p", "--workflow-profile", f"workflow/profiles/{name}", "--jobs", "2", TARGET
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    assert "profiles/default" not in text
    preset = name if name in ("gpu", "paper") else "cpu"
    assert set(re.findall(r"--preset (\w+)", text)) == {preset}


def test_jobs_ask_for_what_their_stage_takes(project: Project) -> None:
    asked = ask(project, "results/PushT/eval.json")
    memory = {rule: found["mem_mb"] for rule, found in asked.items()}
    trained = {"discover": 1800, "finetune": 1800, "evaluate": 1500}
    assert memory == {"collect": 2900, "pretrain": 2500, "summarise": 1000} | trained  # docs/cluster.md
    assert asked["finetune"]["runtime"] > asked["evaluate"]["runtime"] >= 10
    again = ask(project, "results/PushT/eval.json", "--attempt", "2")
    assert all(again[rule]["mem_mb"] == 2 * found["mem_mb"] for rule, found in asked.items())
    fixed = ("--config", "set=['execution.mem_mb=500','execution.runtime_minutes=7']")
    assert {tuple(found.values()) for found in ask(project, "results/PushT/eval.json", *fixed).values()} == {(500, 7)}


def test_what_would_start_over_gets_more_time_with_each_attempt(project: Project) -> None:
    names = ("modes/validation", "dsrl/seed0/curve", "videos/expert", "eval")
    first, *more = (f"results/Reach/{name}.json" for name in names)
    curved = ("--config", "set=[finetune.snapshot_interval=20]")
    once, again = ask(project, first, *more, *curved), ask(project, first, *more, "--attempt", "3", *curved)
    grown = {rule for rule, found in again.items() if found["runtime"] == 3 * once[rule]["runtime"]}
    assert grown == {"collect", "evaluate", "validation", "curve", "play", "summarise"}
    kept = {rule for rule, found in again.items() if found["runtime"] == once[rule]["runtime"]}
    assert kept == {"pretrain", "discover", "finetune"}


def ask(project: Project, target: str, *options: str) -> dict[str, dict[str, int]]:
    """Memory and minutes by rule, as a dry run tells them."""
    done = project.snakemake("--dry-run", "--workflow-profile", "workflow/profiles/slurm", target, *options)
    assert done.returncode == 0, done.stderr
    found = {}
    for rule, block in re.findall(r"rule (\w+):\n((?: {4,}.*\n)+)", done.stdout + done.stderr):
        numbers = re.search(r"mem_mb=(\d+).*runtime=(\d+)|runtime=(\d+).*mem_mb=(\d+)", block)
        assert numbers is not None, block
        memory, minutes = numbers[1] or numbers[4], numbers[2] or numbers[3]
        found[rule] = {"mem_mb": int(memory), "runtime": int(minutes)}
    return found


def test_only_a_profile_with_a_margin_sets_a_time_limit_and_all_wait_for_others(project: Project) -> None:
    asked = project.snakemake("--dry-run", "-p", "--workflow-profile", "workflow/profiles/slurm", TARGET)
    text, command = asked.stdout + asked.stderr, r"bmd-pipeline (\w+) .*"
    training = {"pretrain", "discover", "finetune"}
    assert set(re.findall(f"{command}--max-minutes [0-9]+", text)) == training
    waiting = set(re.findall(f"{command}--set execution.wait_minutes=[0-9]+", text))
    assert waiting == training | {"collect", "evaluate"}
    plain = project.snakemake("--dry-run", "-p", "--cores", "1", TARGET)
    text = plain.stdout + plain.stderr
    assert "--max-minutes" not in text
    # a killed Snakemake may have left a job at work here, too
    assert set(re.findall(f"{command}--set execution.wait_minutes=[0-9]+", text)) == waiting


def test_jobs_of_seconds_are_submitted_together(project: Project) -> None:
    page = "results/GaussianMixture/report.html"
    done = project.snakemake("--dry-run", "--workflow-profile", "workflow/profiles/slurm", page)
    before, header, grouped = (done.stdout + done.stderr).partition("Group job reading")
    assert header
    assert re.findall(r"^    rule (\w+):", grouped, re.MULTILINE) == ["compare", "report", "summarise", "verdict"]
    assert not re.search(r"^    rule", before, re.MULTILINE)


@pytest.mark.parametrize("name", ["slurm", "slurm-no-accounting"])
def test_every_stage_of_seconds_is_in_their_group(name: str) -> None:
    groups = yaml.safe_load((PROFILES / name / "config.yaml").read_text())["groups"]
    assert set(groups) == {f"{stage}=reading" for stage in (*READERS, "summary")}


def test_training_jobs_ask_for_a_device_and_collection_does_not(project: Project) -> None:
    arguments = ("--dry-run", "--workflow-profile", "workflow/profiles/slurm", TARGET, "--config", "preset=gpu")
    done = project.snakemake(*arguments)
    text = done.stdout + done.stderr
    gpus = dict(re.findall(r"^rule (\w+):(?:\n    .*)*?\n    resources: .*gpu=(\d)", text, flags=re.MULTILINE))
    assert gpus == {"pretrain": "1", "discover": "1", "finetune": "1", "evaluate": "1"}


def test_only_what_uses_a_device_asks_for_it_and_for_what_goes_with_it(project: Project) -> None:
    """On a login node: the device is elsewhere."""
    target = "results/PushT/pretrained/seed0/eval.json"
    for preset, on_device in (("auto-gpu", {"pretrain"}), ("gpu", {"pretrain", "evaluate"})):
        arguments = ("--dry-run", "-p", "--workflow-profile", "workflow/profiles/slurm", target)
        done = project.snakemake(*arguments, "--config", f"preset={preset}")
        text = done.stdout + done.stderr
        asked = dict(re.findall(r"^rule (\w+):(?:\n    .*)*?\n    resources: (.*)", text, flags=re.MULTILINE))
        assert asked.keys() == {"collect", "pretrain", "evaluate"}
        assert {rule for rule, found in asked.items() if "gpu=1" in found} == on_device
        assert {
            rule for rule, found in asked.items() if "mem_mb=16000" in found and "runtime=240" in found
        } == on_device
        assert set(re.findall(r"--preset (\S+)", text)) == {preset}


def test_rules_never_retry_by_themselves() -> None:
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert "retries" not in path.read_text()


def test_profiles_set_known_options() -> None:
    help_text = subprocess.run([str(BIN / "snakemake"), "--help"], capture_output=True, text=True, check=True).stdout
    for path in PROFILES.glob("*/config.yaml"):
        for name in yaml.safe_load(path.read_text()):
            if name.startswith("kubernetes-") and not find_spec("snakemake_executor_plugin_kubernetes"):
                continue  # an extra
            assert f"--{name}" in help_text, f"{path}: {name}"


def test_lint_is_clean(project: Project) -> None:
    done = project.snakemake("--lint")
    assert done.returncode == 0, done.stderr
    assert "Lints for" not in done.stdout + done.stderr


def test_every_stage_rule_has_what_a_cluster_needs() -> None:
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            for directive in ("log:", "benchmark:", "params:", "resources:", "conda:", "mem_mb=", "runtime="):
                assert directive in rule, f"{path.name}: {rule.splitlines()[0]} {directive}"


def test_the_link_to_the_profiles_is_relative() -> None:
    assert (ROOT / "profiles").readlink() == Path("workflow/profiles")
