"""The hash of the code behind a stage."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bmd_pipeline
from bmd_pipeline.config import hashing
from bmd_pipeline.config.hashing import STAGES

MIXTURE = "bmd_pipeline.tasks.gaussian_mixture"
RULES = (*STAGES, "summarise", "play")
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
    names = (
        "source_hash",
        "list_definitions",
        "_find_source",
        "_find_outside",
        "_read",
        "_list_references",
        "_content",
    )
    for name in names:
        getattr(hashing, name).cache_clear()


def changed(edit: Callable[[], object], task: str = MIXTURE) -> set[str]:
    """Stages whose hash an edit changes."""
    before = {stage: hashing.source_hash(stage, task) for stage in RULES}
    edit()
    forget()
    return {stage for stage in RULES if hashing.source_hash(stage, task) != before[stage]}


def append(path: Path, text: str) -> Callable[[], object]:
    return lambda: path.write_text(path.read_text() + text)


def edit(path: Path, *names: str) -> Callable[[], object]:
    """Adds a statement to functions or classes of a module; without names, to all of them."""

    def write() -> None:
        lines = path.read_text().splitlines()
        for node in reversed(ast.parse(path.read_text()).body):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (not names or node.name in names):
                last = node.body[-1]
                lines.insert(last.lineno - 1, " " * last.col_offset + "EDITED = 1")
        assert len(lines) > len(path.read_text().splitlines()), f"{path} defines no {names}"
        path.write_text("\n".join(lines))

    return write


def reached(stage: str, task: str = MIXTURE) -> set[str]:
    """Definitions behind a stage: "rl.ppo:update"."""
    return {f"{module}:{name}".removeprefix("bmd_pipeline.") for module, name in hashing.list_definitions(stage, task)}


def test_comments_docstrings_and_formatting_change_nothing(package: Path) -> None:
    path = package / "rl" / "ppo.py"
    text = path.read_text()
    assert changed(lambda: path.write_text(f"# a comment\n{text}\n\n'''a bare string'''\n")) == set()
    assert changed(lambda: path.write_text(text.replace('"""', '"""Reworded: ', 1))) == set()


def test_code_reaches_the_stages_that_use_it(package: Path) -> None:
    assert changed(edit(package / "stages" / "finetune.py", "finetune")) == {"finetune"}
    assert changed(edit(package / "stages" / "collect.py", "collect")) == {"collect"}
    assert {"discover", "finetune"} <= changed(edit(package / "rl" / "ppo.py", "compute_policy_loss"))
    assert "collect" not in changed(edit(package / "policies" / "diffusion.py"))


def test_what_shares_a_module_with_it_is_left_alone(package: Path) -> None:
    assert changed(append(package / "rl" / "ppo.py", "\ndef unused():\n    return 1\n")) == set()
    hypotheses = package / "metrics" / "hypotheses.py"
    assert changed(edit(hypotheses, "HypothesisTester")) == {"verdict"}
    assert changed(edit(hypotheses, "holm")) == {"compare", "verdict"}
    assert "evaluate" not in changed(edit(package / "metrics" / "schemas.py", "Verdict"))


def test_functions_of_method_names_and_grid_cells_count_where_they_decide(package: Path) -> None:
    methods = package / "methods.py"
    assert changed(edit(methods, "list_pairs")) == {"compare", "verdict", "grid", "pool"}
    assert changed(edit(methods, "paired_methods")) == {"verdict", "grid"}
    assert changed(edit(methods, "order_policies")) == {"summarise"}
    assert changed(edit(package / "config" / "overrides.py", "list_cells")) == {"grid"}


def test_what_stages_print_counts_for_the_pages_alone(package: Path) -> None:
    names = ("describe_hypothesis", "describe_grid", "describe_validation")
    assert changed(edit(package / "reporting" / "narrative.py", *names)) == set()
    assert "reporting.narrative:*" in reached("report")


def test_a_figure_counts_for_the_stages_that_draw_it(package: Path) -> None:
    path = package / "reporting" / "figures.py"
    assert changed(edit(path, "plot_curves", "plot_codes", "plot_pretraining")) == set()
    assert changed(edit(path, "plot_grid")) == {"grid"}
    text = path.read_text().replace("rc_context, _RC)", "rc_context, {})")
    assert changed(lambda: path.write_text(text)) == {"evaluate", "summarise", "grid"}


def test_a_constant_a_decorator_and_what_a_module_does_on_import_count(package: Path) -> None:
    path = package / "rl" / "ppo.py"
    assert changed(append(path, "\nprint('loaded')\n")) >= {"discover", "finetune"}
    assert changed(append(path, "\n@atexit.register\ndef last():\n    pass\n")) >= {"discover", "finetune"}
    flips = package / "metrics" / "hypotheses.py"
    assert changed(lambda: flips.write_text(flips.read_text().replace("_MAX_FLIPS = 1 << 14", "_MAX_FLIPS = 9"))) == {
        "compare",
        "pool",
        "verdict",
    }


def test_another_origin_of_a_name_counts(package: Path) -> None:
    path = package / "metrics" / "bootstrap.py"
    text = path.read_text().replace("import numpy as np", "import jax.numpy as np")
    assert "compare" in changed(lambda: path.write_text(text))


def test_a_tasks_expert_and_labels_reach_only_the_stages_that_use_them(package: Path) -> None:
    task = package / "tasks" / "gaussian_mixture"
    play = {"play"}
    assert changed(edit(task / "expert.py")) == {"collect"} | play
    assert changed(edit(task / "modes.py")) == JUDGES | play
    assert changed(edit(task / "env.py")) >= {"collect", "discover", "finetune", "evaluate"}


def test_other_tasks_settings_models_and_messages_change_nothing(package: Path) -> None:
    for name in ("tasks/pusht/env.py", "config/schema.py", "tasks/registry.py", "stages/console.py", "errors.py"):
        assert changed(edit(package / name)) == set(), name
    assert changed(append(package / "__init__.py", "\nEDITED = 1\n")) == set()


def test_what_only_type_checkers_import_is_left_out(package: Path) -> None:
    path = package / "stages" / "collect.py"
    head = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bmd_pipeline.rl.ppo import Ppo\n"
    text = path.read_text().replace("from __future__ import annotations", f"from __future__ import annotations\n{head}")
    path.write_text(text.replace("def _total(", "def _total(late: Ppo, "))
    forget()
    assert not any(name.startswith("rl.") for name in reached("collect"))


def test_imports_inside_functions_and_relative_ones_are_followed(package: Path) -> None:
    (package / "rl" / "late.py").write_text("LATE = 1\n")
    (package / "rl" / "relative.py").write_text("from . import late\n\ndef get():\n    return late.LATE\n")
    path = package / "stages" / "collect.py"
    head = "def _total(quota: Quota, count: str) -> int:\n"
    body = "    from bmd_pipeline.rl import relative\n    relative.get()\n"
    path.write_text(path.read_text().replace(head, head + body))
    forget()
    assert {"rl.relative:get", "rl.late:LATE"} <= reached("collect")


@pytest.mark.parametrize("is_package", [True, False])
def test_a_task_outside_the_package_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_package: bool
) -> None:
    task = tmp_path / "my_tasks" / "reach"
    task.mkdir(parents=True)
    packages = [task / "__init__.py", task.parent / "__init__.py"] if is_package else []  # docs/own-task.md has none
    for path in [*packages, *(task / f"{name}.py" for name in ("env", "expert", "helper"))]:
        path.write_text("")
    (tmp_path / "my_helpers.py").write_text("")
    installed = tmp_path / "environment" / "site-packages" / "library.py"  # of whichever environment
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    (task / "env.py").write_text("import library\nimport my_helpers\nfrom my_tasks.reach import helper\n")
    monkeypatch.syspath_prepend(installed.parent)
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    assert changed(append(installed, "EDITED = 1\n"), "my_tasks.reach") == set()
    evidence = {"compare", "verdict", "grid", "pool"}  # they read files alone
    for path in (task / "helper.py", tmp_path / "my_helpers.py", task / "env.py"):
        forget()
        assert changed(append(path, "EDITED = 1\n"), "my_tasks.reach") == {*STAGES, "play"} - evidence, path
    forget()


@pytest.mark.parametrize("damage", ["[", "[]", "{}", '{"about": "another source"}', "\0"])
def test_what_was_read_before_is_kept_by_content(package: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    kept = package / "rl" / "__pycache__" / "ppo.definitions.json"
    parsed: list[Path] = []
    parse = hashing._parse
    monkeypatch.setattr(hashing, "_parse", lambda *seen: [parsed.append(seen[1]), parse(*seen)][1])

    def read() -> tuple[str, list[Path]]:
        forget()
        parsed.clear()
        return hashing.source_hash("finetune", MIXTURE), [*parsed]

    first, every = read()
    assert package / "rl" / "ppo.py" in every
    assert read() == (first, [])
    kept.write_text(damage)
    assert read() == (first, [package / "rl" / "ppo.py"])
    path = package / "rl" / "ppo.py"
    times = path.stat()
    path.write_text(path.read_text().replace("0.0", "0.1", 1))  # of the same length, and as old as before
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    edited, again = read()
    assert (edited != first, again) == (True, [path])
    shutil.rmtree(kept.parent)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert read()[0] == edited
    assert not kept.parent.exists()


def test_only_evaluation_depends_on_true_modes() -> None:
    labels = "tasks.gaussian_mixture.modes:LABELLINGS"
    assert {stage for stage in RULES if labels in reached(stage)} == JUDGES | {"play"}


def test_code_may_be_encoded_as_python_allows(package: Path) -> None:
    path = package / "tasks" / "gaussian_mixture" / "env.py"
    text = path.read_text().encode("ascii", errors="ignore")
    assert changed(lambda: path.write_bytes(b"# coding: latin-1\n" + text + "# \u00e9\n".encode("latin-1"))) == set()
