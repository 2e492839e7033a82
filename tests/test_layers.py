"""The house's rules: imports run one way, true modes stay out of training, no pickle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bmd_pipeline

PACKAGE = Path(bmd_pipeline.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import from its own layer and from those above it in this list.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "seeds", "methods", "io.files"),  # settings are files too
    ("config",),
    ("compute",),
    ("io", "metrics", "modes.trials"),  # how codes are tried; it imports nothing
    ("environments.base", "tasks.registry"),  # the contract and the names; they import no task
    ("environments",),
    ("sim",),
    ("tasks", "demos"),
    ("policies",),
    ("modes",),
    ("rl",),
    ("reporting", "export"),
    ("stages",),
    ("workflow", "cli"),
    ("api",),
)

ALLOWED = {
    # a task checks its own settings; the import stands in a function, and the registry imports no task
    ("config.load", "tasks.registry"),
}

SHARED = ("tasks", "avoid", "avoid_point")
"""Avoid is AvoidPoint's course for a robot's tip."""

TRAINING = (
    "policies.",
    "modes.",
    "rl.",
    "demos.",
    "stages.collect",
    "stages.pretrain",
    "stages.discover",
    "stages.finetune",
)


def module_name(path: Path) -> str:
    """Name below the package: "rl.ppo"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Names below the package that a file imports when it runs."""
    skipped: set[ast.AST] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(child for part in node.body for child in ast.walk(part))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("bmd_pipeline.") for name in names if name.startswith("bmd_pipeline."))


def layer_of(name: str) -> int:
    """Position of the most specific layer that a module belongs to."""
    found = [
        (len(prefix), index)
        for index, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or name.startswith(f"{prefix}.")
    ]
    return max(found)[1] if found else -1


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    name = module_name(path)
    for imported in imports_of(path):
        if any(name == user and imported.startswith(used) for user, used in ALLOWED):
            continue
        if name in ("", "__main__", "cli"):
            continue
        assert layer_of(imported) <= layer_of(name), f"{name} must not import {imported}"


def reads_true_modes(path: Path) -> bool:
    """Whether a file can get at a task's labels: by import, through the registry, or under a computed name."""
    identifiers = {
        getattr(node, field, None) for node in ast.walk(ast.parse(path.read_text())) for field in ("id", "attr", "name")
    }
    labels = any(name.startswith("tasks.") and ".modes" in name for name in imports_of(path))
    return labels or bool(identifiers & {"load_labellings", "import_module", "__import__"})


def test_training_never_sees_true_modes() -> None:
    """Neither directly nor through what it imports; the registry, which only knows how to load them, may be used."""
    modules = {module_name(path): path for path in FILES}
    reached = [name for name in modules if name.startswith(TRAINING)]
    for name in reached:  # grows while it is walked
        assert not reads_true_modes(modules[name]), f"training reaches true modes through {name}"
        for imported in imports_of(modules[name]):
            module = next(m for m in (imported, imported.rpartition(".")[0]) if m in modules)
            if module not in (*reached, "tasks.registry"):
                reached.append(module)


def test_reporting_is_called_by_stages_only() -> None:
    users = {
        module_name(path).split(".")[0] for path in FILES for name in imports_of(path) if name.startswith("reporting")
    }
    assert users <= {"reporting", "stages"}


def test_tasks_do_not_import_each_other() -> None:
    tasks = {path.name for path in (PACKAGE / "tasks").iterdir() if (path / "options.py").is_file()}
    for path in FILES:
        name = module_name(path).split(".")
        for imported in imports_of(path):
            parts = imported.split(".")
            if parts[0] == "tasks" and len(parts) > 1 and parts[1] in tasks:
                assert name[:2] == ["tasks", parts[1]] or (*name[:2], parts[1]) == SHARED, f"{name} imports {imported}"


def test_nothing_loads_pickle() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"} & set(names), path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if module_name(path) == "policies.dppo" and keywords.get("weights_only") == "True":
                    continue  # others' checkpoints, of which tensors and plain values alone are unpickled
                assert called not in ("torch.load", "torch.save", "eval", "exec", "yaml.unsafe_load"), path
                assert keywords.get("allow_pickle") != "True", path
                assert keywords.get("shell") != "True", path
