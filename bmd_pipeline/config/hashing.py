"""What a stage's result depends on, its settings and its code, as hashes."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from bmd_pipeline.config.schema import RunConfig, uses_modes

# ---- What each stage depends on, as a slice of the settings and its hash ----
#
# A rule's params are exactly its stage's slice, so that editing λ reruns fine-tuning and what follows but
# never collection. `execution` is in no slice: cores and trackers change no result, and another device only its
# rounding and its random draws. Where the physics is computed is in `task`.

Stage = Literal[
    "collect",
    "pretrain",
    "discover",
    "finetune",
    "evaluate",
    "curve",
    "compare",
    "verdict",
    "sweep",
    "grid",
    "pool",
    "validation",
]
STAGES: tuple[Stage, ...] = get_args(Stage)

_EVIDENCE: dict[str, tuple[str, ...]] = {
    "curve": ("evaluate",),
    "compare": ("methods", "seeds", "evaluate"),
    "verdict": ("methods", "seeds", "evaluate", "compare"),
    "sweep": ("evaluate", "compare"),
    "validation": ("seeds", "evaluate"),
    "grid": ("methods", "seeds", "evaluate", "compare"),
    "pool": ("methods", "seeds", "evaluate"),
}
"""Stages that nothing is trained on, with the settings beside their own that they go by."""

_UNDISTURBED = ("collect", "pretrain", "discover", "validation")
"""Stages in the demonstrations' own world."""

_OWNERS = {"denoiser": "dppo", "residual": "res"}
"""Parts of `finetune` that one method alone reads."""


def stage_slice(config: RunConfig, stage: Stage, method: str | None = None) -> dict[str, Any]:
    """The settings that a stage's result depends on, ready for JSON.

    Args:
        config: the whole run.
        stage: one of `STAGES`.
        method: fine-tuning method; plain ones know nothing of the intrinsic reward. None: all of it.
    """
    values = _dump(config)
    if stage == "collect":  # experts play on the CPU
        values["task"].pop("physics", None)
    if stage in _UNDISTURBED:
        values["task"]["env"].pop("disturbance", None)
    chosen = {name: values[name] for name in ("task", "seed", stage, *_EVIDENCE.get(stage, ()))}
    if stage == "discover":  # the bound on log q is one setting for both stages; λ is not among them
        chosen["finetune"] = {"regulariser": {"floor": values["finetune"]["regulariser"]["floor"]}}
    if stage == "finetune":
        plain = method is not None and not uses_modes(method)
        others = {name for name, owner in _OWNERS.items() if method is not None and not method.startswith(owner)}
        steered = method is None or method.startswith("dsrl") or (not plain and config.discover.form == "published")
        unread = {"regulariser", "feed_codes"} if plain else set()
        unread |= set() if steered else {"readout", "initial_std", "target_entropy"}
        for name in others | unread:
            del chosen["finetune"][name]
        shared = (("steering",) if steered else ()) + (() if plain else ("form",))
        chosen["discover"] = {name: values["discover"][name] for name in shared}
    for name in ("checkpoint_interval", "log_interval"):  # they decide what is kept and told, not what is computed
        chosen[stage].pop(name, None)
    return chosen


def stage_hash(config: RunConfig, stage: Stage, method: str | None = None) -> str:
    """SHA-256 of a stage's slice, as hex."""
    return hash_values(stage_slice(config, stage, method))


def config_hash(config: RunConfig) -> str:
    """SHA-256 of everything that decides what a run computes, up to its evaluation, as hex."""
    values = _dump(config)
    return hash_values({name: part for name, part in values.items() if name not in ("execution", *_EVIDENCE)})


def _dump(config: RunConfig) -> dict[str, Any]:
    """All settings as JSON values, without those that decide nothing here.

    Those of stages whose output was brought along are left out, and so is where it was brought from: its content
    reaches the stages that read it as an input. So is the choice of physics where it is the usual one: what was made
    before there was a choice counts as made.
    """
    values = config.model_dump(mode="json")
    if values["task"]["physics"] == "cpu":
        del values["task"]["physics"]
    has_policy = values["pretrain"].pop("policy_folder") is not None
    has_demos = values["collect"].pop("store") is not None
    if has_policy:
        values["pretrain"] = {}
    if has_policy or has_demos:
        values["collect"] = {}
    return values


def hash_values(values: dict[str, Any]) -> str:
    """SHA-256 of JSON values; the order of keys doesn't matter."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


# ---- Which code a stage's result depends on, as a hash ----
#
# The modules that a stage imports, directly or not, are found by reading the source (nothing is imported) and
# hashed without comments, docstrings and formatting. Snakemake holds the hash in a rule's params, so editing
# the fine-tuning code reruns fine-tuning and what follows, and reformatting it reruns nothing.
#
# Imports by computed name can't be seen; tasks are loaded that way, so their modules are added by hand here.

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT.name

_IRRELEVANT = (
    "bmd_pipeline.config",  # settings enter the params by value
    "bmd_pipeline.errors",  # failures have no results
    "bmd_pipeline.stages.console",  # nor has what is printed
    "bmd_pipeline.tasks.registry",  # a new task must not rerun the others
)

_TASK_MODULES = {
    "collect": ("env", "expert"),
    "pretrain": ("env",),
    "discover": ("env",),
    "finetune": ("env",),
    "evaluate": ("env", "modes"),
    "curve": ("env", "modes"),
    "summarise": (),
    "compare": (),
    "verdict": (),
    "sweep": (),
    "validation": ("env", "modes"),
    "grid": (),
    "pool": (),
    "report": (),
    "film": ("env", "expert", "filming", "modes"),
}


@functools.cache
def source_hash(stage: str, task_package: str) -> str:
    """SHA-256 of the code behind a stage, as hex; computed once per process.

    Args:
        stage: module below `stages`.
        task_package: import path of the task's package.
    """
    digest = hashlib.sha256()
    for module in list_modules(stage, task_package):
        digest.update(_content(module))
    return digest.hexdigest()


@functools.cache
def list_modules(stage: str, task_package: str) -> tuple[str, ...]:
    """Sorted names of the modules behind a stage."""
    waiting = [f"{_PACKAGE}.stages.{stage}", *(f"{task_package}.{part}" for part in _TASK_MODULES[stage])]
    tops = {_PACKAGE, task_package.partition(".")[0]}
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in found or _is_irrelevant(module) or module.partition(".")[0] not in tops:
            continue
        if _find(module) is None:
            continue
        found.add(module)
        waiting.extend(_imports(module))
        waiting.append(module.rpartition(".")[0])  # importing a module runs its package's __init__ first
    return tuple(sorted(found))


@functools.cache
def _content(module: str) -> bytes:
    """What a module adds to a hash: its code, and the files that its package carries."""
    path = _find(module)
    code = f"{module}\n{ast.unparse(_parse(path)) if path else ''}\n".encode()
    return b"".join([code, *(f"{asset.name}\n".encode() + asset.read_bytes() for asset in _assets(path))])


def _assets(path: Path | None) -> list[Path]:
    """Files that a package carries beside its modules, if this is its `__init__.py`."""
    if path is None or path.name != "__init__.py":
        return []
    return sorted(asset for asset in (path.parent / "assets").rglob("*") if asset.is_file())


def _is_irrelevant(module: str) -> bool:
    if module == _PACKAGE:  # holds only the version number
        return True
    return any(module == name or module.startswith(f"{name}.") for name in _IRRELEVANT)


@functools.cache
def _find(module: str) -> Path | None:
    """The module's source file, or None if there is no such module."""
    top, _, rest = module.partition(".")
    root = _ROOT if top == _PACKAGE else _find_foreign(top)
    if root is None:
        return None
    base = root.joinpath(*rest.split(".")) if rest else root
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


def _find_foreign(top: str) -> Path | None:
    spec = importlib.util.find_spec(top) if top else None
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin.with_suffix("")


@functools.cache
def _parse(path: Path) -> ast.Module:
    """The file's syntax tree without docstrings; comments and formatting are no part of a tree."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, list):
                setattr(parent, name, [item for item in value if not _is_bare_string(item)])
    return tree


def _is_bare_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _imports(module: str) -> tuple[str, ...]:
    """Names that a module imports, directly; each stage walks over the same modules."""
    return tuple(_list_imports(module))


def _list_imports(module: str) -> Iterator[str]:
    path = _find(module)
    if path is None:
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _walk_executed(_parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    yield node
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        children: Iterable[ast.AST] = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _walk_executed(child)
