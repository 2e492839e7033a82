"""Profiles, and the workflow's form."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from .conftest import BIN, ROOT, TARGET, Project

pytestmark = pytest.mark.workflow

PROFILES = ROOT / "workflow" / "profiles"


def test_the_default_profile_is_picked_up_by_itself(project: Project) -> None:
    done = project.snakemake("--dry-run", "--cores", "1", TARGET)
    assert done.returncode == 0, done.stderr
    assert "profiles/default" in done.stderr


def test_the_slurm_profile_is_complete_and_plans(project: Project) -> None:
    done = project.snakemake("--dry-run", "--workflow-profile", "workflow/profiles/slurm", TARGET)
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    assert "profiles/default" not in text
    resources = re.findall(r"resources: (.*)", text)
    assert resources
    assert all("mem_mb=2000" in line and "runtime=60" in line for line in resources)
    assert "gpu=0" in text


def test_only_a_profile_with_a_margin_sets_a_time_limit(project: Project) -> None:
    asked = project.snakemake("--dry-run", "-p", "--workflow-profile", "workflow/profiles/slurm", TARGET)
    stages = set(re.findall(r"bmd-pipeline (\w+) .*--max-minutes 55", asked.stdout + asked.stderr))
    assert stages == {"collect", "pretrain", "discover", "finetune", "evaluate"}
    plain = project.snakemake("--dry-run", "-p", "--cores", "1", TARGET)
    assert "--max-minutes" not in plain.stdout + plain.stderr


def test_training_jobs_ask_for_a_device_and_collection_does_not(project: Project) -> None:
    arguments = ("--dry-run", "--workflow-profile", "workflow/profiles/slurm", TARGET, "--config", "preset=gpu")
    done = project.snakemake(*arguments)
    text = done.stdout + done.stderr
    gpus = dict(re.findall(r"^rule (\w+):(?:\n    .*)*?\n    resources: .*gpu=(\d)", text, flags=re.MULTILINE))
    assert gpus == {"pretrain": "1", "discover": "1", "finetune": "1", "evaluate": "1"}


def test_rules_never_retry_by_themselves() -> None:
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert "retries" not in path.read_text()


def test_profiles_set_known_options() -> None:
    help_text = subprocess.run([str(BIN / "snakemake"), "--help"], capture_output=True, text=True, check=True).stdout
    for path in PROFILES.glob("*/config.yaml"):
        for name in yaml.safe_load(path.read_text()):
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
