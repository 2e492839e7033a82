"""Snakemake on a small project of its own: the quick task, the smoke preset, one real run per session."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import bmd_pipeline

from .plans import plan

ROOT = Path(__file__).parents[2]
TARGET = "results/GaussianMixture-smoke/eval.json"
BIN = Path(sys.executable).parent


class Project:
    """A folder with the workflow and the settings, and what runs leave in it.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def snakemake(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs Snakemake in the folder, as a user would."""
        variables = {name: value for name, value in os.environ.items() if name != "BMD_PRESET"}
        variables |= {"PATH": f"{BIN}{os.pathsep}{variables['PATH']}", "CUDA_VISIBLE_DEVICES": ""} | environment
        if "--dry-run" in arguments and "PYTHONPATH" not in environment:  # which would be of other code
            return plan(arguments, self.folder, variables, timeout_s=1800)
        return subprocess.run(
            [str(BIN / "snakemake"), *arguments],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )

    def run(self, *settings: str) -> subprocess.CompletedProcess[str]:
        """Makes the target for real."""
        return self.snakemake("--cores", "2", TARGET, "--config", "preset=smoke", "seeds=[0]", *settings)

    def plan(self, *settings: str, target: str = TARGET, **environment: str) -> dict[str, int]:
        """Number of jobs by rule that a run would start."""
        done = self.snakemake(
            "--dry-run", "--cores", "2", target, "--config", "preset=smoke", "seeds=[0]", *settings, **environment
        )
        return count_jobs(done)

    def plan_lists(self, settings: dict[str, Any], *options: str, **environment: str) -> dict[str, int]:
        """Number of jobs by rule that a settings file asks for, without naming a target."""
        path = self.folder / "lists.yaml"
        path.write_text(yaml.safe_dump(settings))
        arguments = ("--dry-run", "--cores", "2", *options, "--configfile", path.name)
        return count_jobs(self.snakemake(*arguments, **environment))


def count_jobs(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Number of jobs by rule that a dry run lists."""
    assert done.returncode == 0, done.stderr + done.stdout
    rows = re.findall(r"^([a-z_]+) +(\d+)$", done.stdout + done.stderr, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in rows if rule not in ("total", "all")}


@pytest.fixture(scope="session")
def edited_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH: the package with one statement more in the stage that fine-tunes."""
    package = tmp_path_factory.mktemp("source") / "bmd_pipeline"
    shutil.copytree(Path(bmd_pipeline.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    module = package / "stages" / "finetune.py"
    module.write_text(f"{module.read_text()}\nprint('edited', end='')\n")
    return package.parent


def make_project(folder: Path) -> Project:
    """Copies workflow and settings into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("workflow", "config", "envs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "profiles").symlink_to("workflow/profiles")
    return Project(folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in which nothing has run yet."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A project after a whole run, which test processes share; each has a copy that its tests only look at."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "shared"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            made = make_project(tmp_path_factory.mktemp("made") / "project")
            done = made.run()
            assert done.returncode == 0, done.stderr + done.stdout
            made.folder.rename(shared)
    folder = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(shared, folder, symlinks=True)
    return Project(folder)


@pytest.fixture
def copy_of_finished(finished: Project, tmp_path: Path) -> Callable[[], Project]:
    """Copies of the finished project that a test may damage; file times are kept."""

    def copy() -> Project:
        folder = tmp_path / "copy"
        shutil.copytree(finished.folder, folder, symlinks=True)
        return Project(folder)

    return copy
