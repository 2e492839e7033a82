"""What others wrote is read and never executed, and secrets stay where they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bmd_pipeline.cli.main import main
from bmd_pipeline.config.load import load_config
from bmd_pipeline.errors import TaskError
from bmd_pipeline.tasks import registry

from ..fuzz.bench import CHAIN, SETTINGS, with_settings

ROOT = Path(__file__).parents[2]
SECRET = "5ec3e75ec3e75ec3e75ec3e75ec3e75ec3e75ec3"  # as long as a wandb key
EVIL = "!!python/object/apply:os.system ['touch pwned']"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_sealed(project: Path, commands: list[list[str]], *options: str, **environment: str) -> str:
    (project / "commands.json").write_text(json.dumps(commands))
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.sealed", str(project / "commands.json"), *options],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_whole_chain_unpickles_nothing_and_tells_no_secret(project: Path) -> None:
    """With a tracker, which has its own files and knows the key."""
    settings = [*SETTINGS, "execution.tracker=wandb"]
    commands = [with_settings(argv, settings) for argv in CHAIN]
    text = run_sealed(project, commands, WANDB_API_KEY=SECRET, WANDB_MODE="offline", WANDB_SILENT="true")
    assert SECRET not in text
    files = [path for path in project.rglob("*") if path.is_file()]
    assert {"run.json", "eval.json", "report.html", "metrics.jsonl"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_workers_are_the_only_ones_heard(project: Path) -> None:
    command = ["collect", "--task", "GaussianMixture", "--preset", "smoke", "--threads", "2", "--plain"]
    assert "40 demonstrations" in run_sealed(project, [command], "--workers")


def test_yaml_makes_no_objects(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("mine.yaml", "config/tasks/GaussianMixture.yaml", "config/presets/smoke.yaml", "config/config.yaml"):
        before = (project / place).read_text() if (project / place).exists() else ""
        (project / place).write_text(f"seed: {EVIL}\n")
        option = ["--config", place] if place == "mine.yaml" else []
        assert main(["config", "show", "--task", "GaussianMixture", "--preset", "smoke", *option]) == 2
        assert f"error: {place}:1:7: could not determine a constructor" in capsys.readouterr().err
        (project / place).write_text(before)
    assert main(["config", "show", "--task", "GaussianMixture", "--set", f"seed={EVIL}"]) == 2
    assert not list(project.rglob("pwned"))


def test_plug_ins_are_imported_only_when_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "nosy_plugin.py").write_text("raise SystemError('I was\\n imported')\n")
    monkeypatch.syspath_prepend(str(project))
    load_config("GaussianMixture", preset="smoke")
    with pytest.raises(TaskError, match=r": 'nosy_plugin' can't be imported: SystemError: I was imported$"):
        load_config("GaussianMixture", preset="smoke", assignments=["task.plugins=[nosy_plugin]"])


def test_a_plug_in_cannot_end_a_command_as_if_it_were_done(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "leaving_plugin.py").write_text("import sys\nsys.exit()\n")
    monkeypatch.syspath_prepend(str(project))
    show = ["config", "show", "--task", "GaussianMixture", "--preset", "smoke"]
    assert main([*show, "--set", "task.plugins=[leaving_plugin]"]) == 2
    assert "error: task.plugins: 'leaving_plugin' can't be imported: SystemExit" in capsys.readouterr().err
    entry = replace(registry.get_entry("GaussianMixture"), package="leaving")
    monkeypatch.setitem(registry._REGISTRY, "GaussianMixture", entry)
    (project / "leaving").mkdir()
    (project / "leaving" / "options.py").write_text("import sys\nsys.exit()\n")
    assert main(show) == 2
    assert "error: task GaussianMixture failed: SystemExit" in capsys.readouterr().err
    (project / "leaving" / "options.py").write_text("from bmd_pipeline.tasks.gaussian_mixture.options import Options\n")
    (project / "leaving" / "env.py").write_text("def make_spec(options):\n    raise SystemExit\n")
    assert main(["collect", "--task", "GaussianMixture", "--preset", "smoke"]) == 2
    assert "SystemExit" in capsys.readouterr().err


def test_every_value_in_a_shell_line_is_quoted() -> None:
    lines = 0
    for path in [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]:
        for shell in re.findall(r"\n    shell:\n((?:        \".*\"\n)+)", path.read_text() + "\n"):
            fields = re.findall(r"\{([^}]*)\}", shell)
            assert fields
            assert all(field.endswith(":q") for field in fields), f"{path}: {shell}"
            lines += 1
    assert lines >= 12
