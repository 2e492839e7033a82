"""Which code a stage's result depends on, as a hash.

The modules that a stage imports, directly or not, are found by reading the source (nothing is imported) and
hashed without comments, docstrings and formatting. Snakemake holds the hash in a rule's params, so editing
the fine-tuning code reruns fine-tuning and what follows, and reformatting it reruns nothing.

Imports by computed name can't be seen; tasks are loaded that way, so their modules are added by hand here.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

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
