"""What a stage's result depends on, its settings and its code, as hashes."""

import ast
import functools
import hashlib
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

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
        "finetune.denoiser.precision",
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
    chosen = choose_settings(_list_settings(config), config, stage, method)
    chosen.get(stage, {}).pop("log_interval", None)  # decides what is shown, not what is computed
    return chosen


def choose_settings(values: dict[str, Any], config: RunConfig, stage: Stage, method: str | None) -> dict[str, Any]:
    """Of a run's settings as nested `values`, which are taken apart, those that a stage reads."""
    if stage == "collect":  # experts play on the CPU
        values["task"].pop("physics", None)
    if stage in _UNDISTURBED:
        values["task"]["env"].pop("disturbance", None)
    names = ("task", "seed", stage, *_EVIDENCE.get(stage, ()))
    # `curve` and `validation` have no settings of their own
    chosen = {name: values[name] for name in names if name in values}
    form = config.discover.form
    if stage == "pretrain" and config.pretrain.external_policy:  # nothing is trained
        episodes = {"episodes": values["pretrain"]["selection"]["episodes"]}
        chosen["pretrain"] = {"external_policy": config.pretrain.external_policy, "selection": episodes}
    if stage == "discover":
        if form == "published":  # these settings serve both stages
            tuning = values["finetune"]
            chosen["finetune"] = {"ppo": tuning["ppo"], "regulariser": {"floor": tuning["regulariser"]["floor"]}}
        _remove(chosen, _UNREAD_BY_FORM[form])
        if config.modes.drop or config.modes.merge:  # names change nothing that is trained
            chosen["modes"] = {name: values["modes"][name] for name in ("demonstrations", "drop", "merge")}
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
    return hash_values({name: part for name, part in _list_settings(config).items() if name not in unread})


def _list_settings(config: RunConfig) -> dict[str, Any]:
    """All settings as JSON values, but for usual choices where there was none before: what was made then counts as
    made."""
    values = config.model_dump(mode="json")
    pretrain, policy = values["pretrain"], values["pretrain"]["policy"]
    for group, name, usual in (
        (values["task"], "physics", "cpu"),
        (pretrain, "external_policy", ""),
        (policy, "residual_network", None),
        (policy, "unet", None),
        (policy, "ddim_spacing", "trailing"),
        (values["finetune"]["denoiser"], "precision", "float32"),
    ):
        if group[name] == usual:
            del group[name]
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
# so are all modules outside this package that a task imports, whole, but for those of installed packages.

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT.name

_STDLIB, _INSTALLED = Path(sysconfig.get_path("stdlib")), {"site-packages", "dist-packages"}
"""Where code lies that has a version, which records hold; of installed packages, names of folders."""

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
    "export_demos": ("stages.imports:export_demos", ()),
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
    "play": ("stages.play:play", (*_ENV, "env:FILMING", "expert:make_expert", _LABELS)),
}
"""Where the work of each rule and command begins, and what it takes from a task."""

_QUIET = {"dataclass", "cache", "contextmanager", "no_grad", "house_style"}
"""Decorators that leave a definition alone until it is used; others, such as a registration, act on import."""

_WHOLE = "*"
"""Stands for every name of a module."""


@functools.cache
def source_hash(stage: str, task_package: str) -> str:
    """SHA-256 of the code behind a stage, a key of `ENTRIES`, as hex; computed once per process."""
    return _hash_definitions(list_definitions(stage, task_package))


@functools.cache
def hash_function(function: str) -> str:
    """SHA-256 of the module of a user's `module:function` and of what it imports, but for installed packages."""
    module = function.partition(":")[0]
    return _hash_definitions(_follow([(module, _WHOLE)], {module.partition(".")[0]}, (*_IRRELEVANT, _WORDS)))


def _hash_definitions(definitions: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for module, name in definitions:
        digest.update(_content(module, name))
    return digest.hexdigest()


@functools.cache
def list_definitions(stage: str, task_package: str) -> tuple[tuple[str, str], ...]:
    """Modules and names of all that a stage's code reaches, sorted; the name is empty for what a module runs itself."""
    entry, parts = ENTRIES[stage]
    starts = [f"{_PACKAGE}.{entry}", *(f"{task_package}.{part}" for part in parts)]
    waiting = [(module, name) for module, _, name in (start.partition(":") for start in starts)]
    tops = {_PACKAGE, task_package.partition(".")[0]}
    return _follow(waiting, tops, _IRRELEVANT if stage in ("report", "summary") else (*_IRRELEVANT, _WORDS))


def _follow(
    waiting: list[tuple[str, str]], tops: Container[str], irrelevant: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """All that some definitions reach: in packages of the names `tops`, and in those that are not installed."""
    found: set[tuple[str, str]] = set()
    while waiting:
        module, name = step = waiting.pop()
        if step in found or (path := _find_source(module)) is None:
            continue
        if module.partition(".")[0] not in tops and (_INSTALLED & set(path.parts) or path.is_relative_to(_STDLIB)):
            continue
        if module == _PACKAGE or f"{module}.".startswith(irrelevant):  # the package itself holds its version number
            continue
        found.add(step)
        if name:  # importing a module runs its own statements, and its packages' before
            waiting += [(module, ""), (module.rpartition(".")[0], "")]
        if not module.startswith(f"{_PACKAGE}."):
            waiting.append((module, _WHOLE))
        references = _list_references(module, name)
        if module.startswith(f"{_PACKAGE}."):  # what this package itself imports has a version
            references = {step for step in references if step[0].partition(".")[0] in tops}
        waiting += references
    return tuple(sorted((module, name) for module, name in found if _parts(module, name)))


class _Definition(NamedTuple):
    """What one name of a module stands for, as far as hashes are about it. It is read from the module alone."""

    code: str  # SHA-256 of its statements, without comments, docstrings and formatting
    origins: list[str]  # where the imported names in it come from, as "name origin"
    opens: bool  # whether it opens files of the package
    uses: list[tuple[str, str]]  # origins of imported names that run, and what is taken of each; _WHOLE: all
    imports: list[str]  # origins of what it imports itself
    siblings: list[str]  # names of its module that it runs


class _Module(NamedTuple):
    """What a module's top level holds."""

    imports: dict[str, str]  # local name to where it comes from
    definitions: dict[str, _Definition]  # by name; "": the statements that act on import


@functools.cache
def _list_references(module: str, name: str) -> set[tuple[str, str]]:
    """What a definition names, as modules and names of this package or a task's."""
    imports = _read(module).imports
    if name != _WHOLE and name in imports:  # passed on from elsewhere
        return {_split_origin(imports[name])}
    found = {_split_origin(origin) for origin in imports.values()} if name == _WHOLE else set()
    for part in _parts(module, name):
        found |= {_split_origin(origin, use) for origin, use in part.uses}
        found |= {_split_origin(origin, use="") for origin in part.imports}
        found |= {(module, sibling) for sibling in part.siblings}
    return found


@functools.cache
def _content(module: str, name: str) -> bytes:
    """What a definition adds to a hash: its code, where its imported names come from, and the files that it opens."""
    parts = _parts(module, name)
    path = _find_source(module)
    assert path is not None
    lines = [module, name, *(line for part in parts for line in (*part.origins, part.code))]
    assets = sorted((path.parent / "assets").rglob("*")) if any(part.opens for part in parts) else []
    return b"\n".join(
        ["\n".join(lines).encode(), *(asset.name.encode() + asset.read_bytes() for asset in assets if asset.is_file())]
    )


def _parts(module: str, name: str) -> list[_Definition]:
    definitions = _read(module).definitions
    return list(definitions.values()) if name == _WHOLE else [definitions[name]] if name in definitions else []


def _split_origin(origin: str, use: str = _WHOLE) -> tuple[str, str]:
    """A dotted origin as module and name; of a module itself, `use` is what is taken from it."""
    if _find_source(origin) is not None:
        return origin, use
    module, _, name = origin.rpartition(".")
    return module, name


@functools.cache
def _find_source(module: str) -> Path | None:
    """The module's source file, or None if there is no such module."""
    top, *parts = module.split(".")
    bases = [base.joinpath(*parts) for base in ([_ROOT] if top == _PACKAGE else _find_outside(top))]
    files = [path for base in bases for path in (base / "__init__.py", base.with_suffix(".py"))]
    return next((path for path in files if path.is_file()), None)


@functools.cache
def _find_outside(name: str) -> list[Path]:
    """Where another package, or a module, of this name lies, without suffix; a package without __init__.py may lie in
    several folders."""
    spec = importlib.util.find_spec(name) if name else None
    if spec is None:
        return []
    if spec.origin is None:
        return [Path(folder) for folder in spec.submodule_search_locations or ()]
    return [Path(spec.origin.removesuffix("/__init__.py").removesuffix(".py"))]


@functools.cache
def _read(module: str) -> _Module:
    """The module's definitions, from Python's folder of compiled sources, or from its source and then kept there.

    A plan reads half of the package: a second of parsing. What is kept is found by the content that it was made from.
    """
    path = _find_source(module)
    assert path is not None
    source = path.read_bytes()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    about = f"{sys.implementation.cache_tag} {hashlib.sha256(_READER + source).hexdigest()} {package}"
    kept = path.parent / "__pycache__" / f"{path.stem}.definitions.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(kept.read_bytes())
        if found["about"] == about:
            return _Module(found["imports"], {name: _Definition(*part) for name, part in found["definitions"].items()})
    parsed = _parse(source, path, package)
    if not sys.dont_write_bytecode:
        with suppress(OSError):
            kept.parent.mkdir(exist_ok=True)
            beside = kept.with_name(f"{kept.name}.{os.getpid()}")
            beside.write_text(json.dumps({"about": about, **parsed._asdict()}))
            beside.replace(kept)
    return parsed


_READER = Path(__file__).read_bytes()
"""This file: what it reads out of a source may change with it."""


def _parse(source: bytes, path: Path, package: str) -> _Module:
    """What a source says; relative imports start from `package`."""
    imports: dict[str, str] = {}
    statements: dict[str, list[ast.stmt]] = {"": []}
    for node in ast.parse(source, filename=str(path)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= _list_imports(node, package)
        elif not _is_bare_string(node):
            for name in _list_defined(node):
                statements.setdefault(name, []).append(node)
    definitions = {name: _describe(nodes, package, imports, statements) for name, nodes in statements.items() if nodes}
    return _Module(imports, definitions)


def _list_defined(node: ast.stmt) -> list[str]:
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


def _describe(
    statements: Sequence[ast.stmt], package: str, imports: dict[str, str], siblings: Container[str]
) -> _Definition:
    """The definition that some statements of a module make."""
    uses: set[tuple[str, str]] = set()
    inner: set[str] = set()
    named: set[str] = set()
    for statement in statements:
        nodes = list(_walk(statement))
        known = dict(imports)
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                own = _list_imports(node, package)
                known |= own
                inner |= set(own.values())
        owners = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and _join_dotted(node).partition(".")[0] in known:
                uses.add((_join_dotted(node), _WHOLE))  # import a.b.c; a.b.c.name
            elif isinstance(node, ast.Name) and node.id in known:
                uses.add((known[node.id], owners.get(id(node), _WHOLE)))
            elif isinstance(node, ast.Name) and node.id in siblings:
                named.add(node.id)
    code = [_unparse(statement) for statement in statements]
    every = [node for statement in statements for node in ast.walk(statement)]
    words = {node.id for node in every if isinstance(node, ast.Name)} & imports.keys()
    return _Definition(
        code=hashlib.sha256("\n".join(code).encode()).hexdigest(),
        origins=sorted(f"{word} {imports[word]}" for word in words),
        opens=any(isinstance(node, ast.Call) and _last_name(node) == "files" for node in every),
        uses=sorted(uses),
        imports=sorted(inner),
        siblings=sorted(named),
    )


def _unparse(statement: ast.stmt) -> str:
    """The statement's code without docstrings; comments and formatting are no part of a tree."""
    for parent in ast.walk(statement):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, list):
                setattr(parent, name, [item for item in value if not _is_bare_string(item)])
    return ast.unparse(statement)


def _is_bare_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _last_name(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _join_dotted(node: ast.expr) -> str:
    """ "a.b.c" of an attribute of names, else empty."""
    if isinstance(node, ast.Attribute):
        owner = _join_dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return node.id if isinstance(node, ast.Name) else ""


def _list_imports(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, str]:
    """Local name to dotted origin."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
    parents = package.split(".")[: 1 - node.level or None] if node.level else []
    base = ".".join(filter(None, (*parents, node.module)))
    return {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations of functions and what stands under `if TYPE_CHECKING:`, which never run."""
    yield node
    for field, value in ast.iter_fields(node):
        never = field == "returns" or (field == "annotation" and isinstance(node, ast.arg))
        if never or (field == "body" and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child)
