"""The hash of the code behind a stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bmd_pipeline
from bmd_pipeline.config import hashing
from bmd_pipeline.config.hashing import STAGES

MIXTURE = "bmd_pipeline.tasks.gaussian_mixture"
STAGE_MODULES = (*STAGES, "summarise")
JUDGES = {"evaluate", "curve", "validation"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package that may be edited."""
    copy = tmp_path / "bmd_pipeline"
    shutil.copytree(Path(bmd_pipeline.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(hashing, "_ROOT", copy)
    forget()
    yield copy
    forget()


def forget() -> None:
    """Hashes are computed once per process; tests edit files in between."""
    names = ("source_hash", "list_modules", "_find", "_parse", "_imports", "_content")
    for name in names:
        getattr(hashing, name).cache_clear()


def changed(edit: Callable[[], object], task: str = MIXTURE) -> set[str]:
    """Stages whose hash an edit changes."""
    before = {stage: hashing.source_hash(stage, task) for stage in STAGE_MODULES}
    edit()
    forget()
    return {stage for stage in STAGE_MODULES if hashing.source_hash(stage, task) != before[stage]}


def append(path: Path, text: str) -> Callable[[], object]:
    return lambda: path.write_text(path.read_text() + text)


def test_comments_docstrings_and_formatting_change_nothing(package: Path) -> None:
    path = package / "rl" / "ppo.py"
    text = path.read_text()
    assert changed(lambda: path.write_text(f"# a comment\n{text}\n\n'''a bare string'''\n")) == set()
    assert changed(lambda: path.write_text(text.replace('"""', '"""Reworded: ', 1))) == set()


def test_code_reaches_the_stages_that_import_it(package: Path) -> None:
    statement = "\nEDITED = 1\n"
    assert changed(append(package / "stages" / "finetune.py", statement)) == {"finetune"}
    assert changed(append(package / "stages" / "collect.py", statement)) == {"collect"}
    assert {"discover", "finetune"} <= changed(append(package / "rl" / "ppo.py", statement))
    assert "collect" not in changed(append(package / "policies" / "diffusion.py", statement))


def test_a_tasks_expert_and_labels_reach_only_the_stages_that_use_them(package: Path) -> None:
    task = package / "tasks" / "gaussian_mixture"
    assert changed(append(task / "expert.py", "\nEDITED = 1\n")) == {"collect"}
    assert changed(append(task / "modes.py", "\nEDITED = 1\n")) == JUDGES
    assert changed(append(task / "env.py", "\nEDITED = 1\n")) >= {"collect", "discover", "finetune", "evaluate"}


def test_other_tasks_settings_models_and_messages_change_nothing(package: Path) -> None:
    for name in (
        "tasks/pusht/env.py",
        "config/schema.py",
        "tasks/registry.py",
        "stages/console.py",
        "errors.py",
        "__init__.py",
    ):
        assert changed(append(package / name, "\nEDITED = 1\n")) == set(), name


def test_what_only_type_checkers_import_is_left_out(package: Path) -> None:
    path = package / "stages" / "collect.py"
    path.write_text(
        path.read_text() + "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bmd_pipeline.rl.ppo\n"
    )
    forget()
    assert "bmd_pipeline.rl.ppo" not in hashing.list_modules("collect", MIXTURE)


def test_imports_inside_functions_and_relative_ones_are_followed(package: Path) -> None:
    (package / "rl" / "late.py").write_text("LATE = 1\n")
    (package / "rl" / "relative.py").write_text("from . import late\n")
    path = package / "stages" / "collect.py"
    path.write_text(path.read_text() + "\ndef later():\n    from bmd_pipeline.rl import relative\n")
    forget()
    assert {"bmd_pipeline.rl.relative", "bmd_pipeline.rl.late"} <= set(hashing.list_modules("collect", MIXTURE))


def test_a_task_outside_the_package_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tmp_path / "my_tasks" / "reach"
    task.mkdir(parents=True)
    for name in ("__init__", "env", "expert", "helper"):
        (task / f"{name}.py").write_text("")
    (task.parent / "__init__.py").write_text("")
    (task / "env.py").write_text("from my_tasks.reach import helper\n")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    edit = append(task / "helper.py", "EDITED = 1\n")
    evidence = {"compare", "verdict", "sweep", "grid", "pool"}  # they read files alone
    assert changed(edit, "my_tasks.reach") == set(STAGES) - evidence
    forget()


def test_only_evaluation_depends_on_true_modes() -> None:
    modes = f"{MIXTURE}.modes"
    assert {stage for stage in STAGE_MODULES if modes in hashing.list_modules(stage, MIXTURE)} == JUDGES
