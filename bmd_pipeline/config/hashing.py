"""What a stage's result depends on, its settings and its code, as hashes."""

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from bmd_pipeline.config.schema import CODED_SETTINGS, RunConfig, grid_methods, grid_seeds
from bmd_pipeline.methods import method_family, uses_modes

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
    "grid",
    "pool",
    "validation",
]
STAGES: tuple[Stage, ...] = get_args(Stage)

_EVIDENCE: dict[str, tuple[str, ...]] = {
    "curve": ("evaluate",),
    "compare": ("methods", "seeds", "evaluate"),
    "verdict": ("methods", "seeds", "evaluate", "compare"),
    "validation": ("seeds", "evaluate"),
    "grid": ("evaluate",),
    "pool": ("methods", "seeds", "evaluate"),
}
"""Stages that evaluate or test alone, and the sections beside their own that each depends on."""

_UNDISTURBED = ("collect", "pretrain", "discover", "validation")
"""Stages in the demonstrations' own world."""

_UNREAD_BY_FORM = {
    "coded": ("discover.steering", "discover.warmup_iterations", "discover.inference.steps_per_iteration"),
    "published": (
        *("discover.clustering", "discover.min_demonstrations", "discover.teaching", "discover.hindsight_episodes"),
        *("discover.inference.fit_steps", "finetune.balance_codes", "finetune.pay_only_obeyed", "finetune.obedience"),
        *("finetune.regulariser.gamma", "finetune.regulariser.gae_lambda"),
    ),
}
_UNREAD_BY_FAMILY = {
    "dppo": ("finetune.residual", "finetune.cloning"),
    "res": ("finetune.denoiser", "finetune.cloning"),
    "dsrl": ("finetune.denoiser", "finetune.residual", "finetune.cloning"),
    "fbc": (
        *("finetune.ppo", "finetune.residual", "finetune.regulariser", "finetune.obedience"),
        *(f"finetune.denoiser.{name}" for name in ("learning_rate", "clip_ratio", "target_kl", "kl_weight")),
        *(f"finetune.denoiser.{name}" for name in ("log_prob_steps", "log_prob_reduction", "denoising_discount")),
    ),
}
_UNREAD_UNSTEERED = {
    "dppo": ("finetune.ppo.learning_rate", "finetune.ppo.clip_ratio", "finetune.ppo.target_kl"),
    "res": ("finetune.ppo.learning_rate",),
    "fbc": (),
}
"""What a family reads for a steering policy alone, since it has settings of its own in their place."""


def stage_slice(config: RunConfig, stage: Stage, method: str | None = None) -> dict[str, Any]:
    """The settings of a run that a stage's result depends on, ready for JSON.

    What the other form of discovery reads is left out, and of fine-tuning what methods other than `method` read;
    without one, all of `finetune` is there. A setting that another one switches off may be there: it reruns a stage for
    nothing.
    """
    values = _dump(config)
    if stage == "collect":  # experts play on the CPU
        values["task"].pop("physics", None)
    if stage in _UNDISTURBED:
        values["task"]["env"].pop("disturbance", None)
    names = ("task", "seed", stage, *_EVIDENCE.get(stage, ()))
    # `curve` and `validation` have no settings of their own
    chosen = {name: values[name] for name in names if name in values}
    form = config.discover.form
    if stage == "discover":
        if form == "published":  # these settings serve both stages
            tuning = values["finetune"]
            chosen["finetune"] = {"ppo": tuning["ppo"], "regulariser": {"floor": tuning["regulariser"]["floor"]}}
        _remove(chosen, _UNREAD_BY_FORM[form])
    if stage == "finetune":
        plain = method is not None and not uses_modes(method)
        steered = method is None or method_family(method) == "dsrl" or (not plain and form == "published")
        if method is not None:
            family = method_family(method)
            _remove(chosen, (*_UNREAD_BY_FAMILY[family], *(CODED_SETTINGS if plain else _UNREAD_BY_FORM[form])))
            if not steered:
                _remove(chosen, ("finetune.deterministic", "finetune.target_entropy", *_UNREAD_UNSTEERED[family]))
        shared = (("steering",) if steered else ()) + (() if plain else ("form",))
        chosen["discover"] = {name: values["discover"][name] for name in shared}
    if stage == "grid":  # a plain method more in the run is nothing to the grid
        chosen["grid"] |= {"methods": list(grid_methods(config)), "seeds": list(grid_seeds(config))}
    chosen.get(stage, {}).pop("log_interval", None)  # decides what is shown, not what is computed
    return chosen


def _remove(values: dict[str, Any], names: Iterable[str]) -> None:
    """Takes settings, or groups of them, out of nested ones by dotted name, where they are there."""
    for name in names:
        *groups, last = name.split(".")
        part = values
        for group in groups:
            part = part.get(group, {})
        part.pop(last, None)


def stage_hash(config: RunConfig, stage: Stage, method: str | None = None) -> str:
    """SHA-256 of a stage's slice, as hex."""
    return hash_values(stage_slice(config, stage, method))


def config_hash(config: RunConfig, imported: Iterable[str] = ()) -> str:
    """SHA-256 of everything that decides what a run computes, up to its evaluation, as hex.

    The settings of stages whose output was `imported` decide nothing.
    """
    unread = ("preset", "run", "execution", *_EVIDENCE, *imported)
    return hash_values({name: part for name, part in _dump(config).items() if name not in unread})


def _dump(config: RunConfig) -> dict[str, Any]:
    """All settings as JSON values, but for the usual choice of physics: what was made before there was a choice counts
    as made."""
    values = config.model_dump(mode="json")
    if values["task"]["physics"] == "cpu":
        del values["task"]["physics"]
    return values


def hash_values(values: dict[str, Any]) -> str:
    """SHA-256 of JSON values; the order of keys doesn't matter."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


# From a stage's function on, the functions, classes and constants that it names are followed through the package by
# reading the source (nothing is imported), and hashed without comments, docstrings and formatting. Snakemake holds the
# hash in a rule's params: an edit of the fine-tuning loss reruns fine-tuning and what follows, whichever module it
# stands in, and reformatting reruns nothing.
#
# Names that are computed can't be seen. Tasks are loaded that way, so what the registry takes from them is added here;
# so are all modules of a task outside this package, whole.

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT.name

_IRRELEVANT = (
    # settings enter the params by value; `EvaluateConfig.alpha` alone is computed from one
    *(f"bmd_pipeline.config.{name}." for name in ("hashing", "load", "resources", "schema")),
    "bmd_pipeline.errors.",  # failures have no results
    "bmd_pipeline.stages.console.",  # nor has what is printed
    "bmd_pipeline.tasks.registry.",  # a new task must not rerun the others
)
"""Modules and packages that are not followed, since an edit of them changes no result."""

_WORDS = "bmd_pipeline.reporting.narrative."
"""What stages print in words, which is no result; the pages show it."""

_ENV = ("env:make_spec", "env:make_env", "maniskill:*")
_LABELS = "modes:LABELLINGS"

ENTRIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "collect": ("stages.collect:collect", (*_ENV, "expert:make_expert")),
    "import_demos": ("stages.imports:import_demos", ()),
    "import_policy": ("stages.imports:import_policy", ()),
    "pretrain": ("stages.pretrain:pretrain", _ENV),
    "discover": ("stages.discover:discover", _ENV),
    "finetune": ("stages.finetune:finetune", _ENV),
    "evaluate": ("stages.evaluate:evaluate", (*_ENV, _LABELS)),
    "curve": ("stages.evaluate:curve", (*_ENV, _LABELS)),
    "summarise": ("stages.evaluate:summarise", ()),
    "compare": ("stages.compare:compare", ()),
    "verdict": ("stages.compare:verdict", ()),
    "validation": ("stages.validation:validation", (*_ENV, _LABELS)),
    "grid": ("stages.grid:grid", ()),
    "pool": ("stages.grid:pool", ()),
    "report": ("stages.report:report", ()),
    "summary": ("stages.report:summary", ()),
    "export": ("stages.export:export", _ENV),
    "film": ("stages.film:film", (*_ENV, "env:FILMING", "expert:make_expert", _LABELS)),
}
"""Where the work of each rule and command begins, and what it takes from a task."""

_QUIET = {"dataclass", "cache", "contextmanager", "no_grad", "house_style"}
"""Decorators that leave a definition alone until it is used; others, such as a registration, act on import."""

_WHOLE = "*"
"""Stands for every name of a module."""


@functools.cache
def source_hash(stage: str, task_package: str) -> str:
    """SHA-256 of the code behind a stage, a key of `ENTRIES`, as hex; computed once per process."""
    digest = hashlib.sha256()
    for module, name in list_definitions(stage, task_package):
        digest.update(_content(module, name))
    return digest.hexdigest()


@functools.cache
def list_definitions(stage: str, task_package: str) -> tuple[tuple[str, str], ...]:
    """Modules and names of all that a stage's code reaches, sorted; the name is empty for what a module runs itself."""
    entry, parts = ENTRIES[stage]
    starts = [f"{_PACKAGE}.{entry}", *(f"{task_package}.{part}" for part in parts)]
    waiting = [(module, name) for module, _, name in (start.partition(":") for start in starts)]
    tops = {_PACKAGE, task_package.partition(".")[0]}
    irrelevant = _IRRELEVANT if stage in ("report", "summary") else (*_IRRELEVANT, _WORDS)
    found: set[tuple[str, str]] = set()
    while waiting:
        module, name = step = waiting.pop()
        if step in found or module.partition(".")[0] not in tops or _find(module) is None:
            continue
        if module == _PACKAGE or f"{module}.".startswith(irrelevant):  # the package itself holds its version number
            continue
        found.add(step)
        if name:  # importing a module runs its own statements, and its packages' before
            waiting += [(module, ""), (module.rpartition(".")[0], "")]
        if not module.startswith(f"{_PACKAGE}."):
            waiting.append((module, _WHOLE))
        waiting += _references(module, name)
    return tuple(sorted((module, name) for module, name in found if _nodes(module, name)))


@dataclass(frozen=True)
class _Module:
    """What a module's top level holds."""

    path: Path
    package: str  # what its relative imports start from
    definitions: dict[str, list[ast.stmt]]  # statements by the name that they define; "": those that act on import
    imports: dict[str, str]  # local name to where it comes from


@functools.cache
def _read(module: str) -> _Module:
    path = _find(module)
    assert path is not None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = _Module(path, package, {"": []}, {})
    for node in _parse(path).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imports.update(_list_imports(node, package))
        else:
            for name in _defined(node):
                found.definitions.setdefault(name, []).append(node)
    return found


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement only defines; [""] if it does more."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        quiet = all(_last_name(decorator) in _QUIET for decorator in node.decorator_list)
        return [node.name] if quiet else ["", node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        leaves = [leaf for target in targets for leaf in (target.elts if isinstance(target, ast.Tuple) else [target])]
        if all(isinstance(leaf, ast.Name) for leaf in leaves):
            return [leaf.id for leaf in leaves if isinstance(leaf, ast.Name)]
    # neither runs when the module is imported
    idle = isinstance(node, ast.If) and any(word in ast.dump(node.test) for word in ("TYPE_CHECKING", "__main__"))
    return [] if idle else [""]


def _last_name(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _nodes(module: str, name: str) -> list[ast.stmt]:
    definitions = _read(module).definitions
    return [node for nodes in definitions.values() for node in nodes] if name == _WHOLE else definitions.get(name, [])


@functools.cache
def _references(module: str, name: str) -> set[tuple[str, str]]:
    """What a definition names, as modules and names of this package or a task's."""
    source = _read(module)
    if name != _WHOLE and name in source.imports:  # passed on from elsewhere
        return {_resolve(source.imports[name])}
    found = {_resolve(origin) for origin in source.imports.values()} if name == _WHOLE else set()
    for statement in _nodes(module, name):
        nodes = list(_walk_executed(statement))
        imports = dict(source.imports)
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                own = _list_imports(node, source.package)
                imports |= own
                found |= {_resolve(origin, use="") for origin in own.values()}
        owners = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and _dotted(node):  # import a.b.c; a.b.c.name
                found.add(_resolve(_dotted(node)))
            elif isinstance(node, ast.Name) and node.id in imports:
                found.add(_resolve(imports[node.id], owners.get(id(node), _WHOLE)))
            elif isinstance(node, ast.Name) and node.id in source.definitions:
                found.add((module, node.id))
    return found


def _resolve(origin: str, use: str = _WHOLE) -> tuple[str, str]:
    """A dotted origin as module and name; of a module itself, `use` is what is taken from it."""
    if _find(origin) is not None:
        return origin, use
    module, _, name = origin.rpartition(".")
    return module, name


def _dotted(node: ast.expr) -> str:
    """ "a.b.c" of an attribute of names, else empty."""
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return node.id if isinstance(node, ast.Name) else ""


def _list_imports(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, str]:
    """Local name to dotted origin."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
    parents = package.split(".")[: 1 - node.level or None] if node.level else []
    base = ".".join(filter(None, (*parents, node.module)))
    return {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}


@functools.cache
def _content(module: str, name: str) -> bytes:
    """What a definition adds to a hash: its code, where its imported names come from, and the files that it opens."""
    nodes, source = _nodes(module, name), _read(module)
    imports = source.imports
    used = {node.id for top in nodes for node in ast.walk(top) if isinstance(node, ast.Name) and node.id in imports}
    origins = sorted(f"{local} {imports[local]}" for local in used)
    parts = [module, name, *origins, *(ast.unparse(node) for node in nodes)]
    opens = any(isinstance(node, ast.Call) and _last_name(node) == "files" for top in nodes for node in ast.walk(top))
    assets = sorted((source.path.parent / "assets").rglob("*")) if opens else []
    code = "\n".join(parts).encode()
    return b"\n".join([code, *(asset.name.encode() + asset.read_bytes() for asset in assets if asset.is_file())])


@functools.cache
def _find(module: str) -> Path | None:
    """The module's source file, or None if there is no such module."""
    top, *parts = module.split(".")
    base = _ROOT
    if top != _PACKAGE:
        spec = importlib.util.find_spec(top) if top else None
        if spec is None or spec.origin is None:
            return None
        base = Path(spec.origin.removesuffix("/__init__.py").removesuffix(".py"))
    base = base.joinpath(*parts)
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def _parse(path: Path) -> ast.Module:
    """The file's syntax tree without docstrings; comments and formatting are no part of a tree."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, list):
                setattr(parent, name, [item for item in value if not _is_bare_string(item)])
    return tree


def _is_bare_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations of functions and what stands under `if TYPE_CHECKING:`, which never run."""
    yield node
    for field, value in ast.iter_fields(node):
        never = field == "returns" or (field == "annotation" and isinstance(node, ast.arg))
        if never or (field == "body" and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk_executed(child)
