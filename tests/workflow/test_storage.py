"""Files that are stored elsewhere: jobs work on copies, and are told where those are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bmd_pipeline.cli.main import main

from .conftest import ROOT, Project

pytestmark = pytest.mark.workflow


def test_a_stage_works_below_the_root_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = ["--task", "GaussianMixture", "--preset", "smoke", "--root", str(tmp_path), "--quiet"]
    assert main(["collect", *arguments]) == 0
    assert main(["pretrain", *arguments, "--set", "pretrain.iterations=5"]) == 0
    assert (tmp_path / "data/GaussianMixture-smoke/demos.zarr/zarr.json").is_file()
    assert (tmp_path / "results/GaussianMixture-smoke/policy/run.json").is_file()


def test_jobs_are_told_where_their_copies_are(project: Project, tmp_path: Path) -> None:
    pytest.importorskip("snakemake_storage_plugin_fs", reason="comes with the extra `kubernetes`")
    store = tmp_path / "store"
    store.mkdir()
    done = project.snakemake(
        *("--dry-run", "-p", "--cores", "1", "results/GaussianMixture-smoke/eval.json"),
        *("--default-storage-provider", "fs", "--default-storage-prefix", str(store), "--config", "preset=smoke"),
    )
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"bmd-pipeline (\w+) .*--root (\S+)", done.stdout + done.stderr)
    assert {stage for stage, _ in commands} == {"collect", "pretrain", "discover", "finetune", "evaluate", "summarise"}
    assert {root for _, root in commands} == {f".snakemake/storage/fs{store}/"}
