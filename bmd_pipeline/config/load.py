"""From YAML files, presets and the command line to one validated `RunConfig`, with errors that name file and line.

Layers, each over the one before; a file that the current folder lacks is the package's (`config/places.py`):

1. `config/config.yaml`: defaults for every task
2. `config/tasks/<Task>.yaml`: the task's own settings; `extends: <Other>` puts that task's file below it, which makes a
   variant: another name and other settings for the same code. `<Task>-base<k>` needs no file: it is the task with root
   seed k
3. `config/presets/<preset>.yaml`: how much to compute
4. the task file's `presets: {<preset>: ...}`: the same for this task
5. `config/modes/<Task>.yaml`, or `<Task>-<run>.yaml`: what `bmd-pipeline modes` was told about the task's modes
6. overrides: `--config FILE`, or Snakemake's `--configfile` and `--config`
7. assignments: `--set a.b=c`

Nothing here imports torch: Snakemake reads the settings again for every job.
"""

from __future__ import annotations

import difflib
import functools
import operator
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bmd_pipeline.config.overrides import change_settings, list_cells, split_base
from bmd_pipeline.config.places import find_file, list_stems
from bmd_pipeline.config.resources import NATIVE
from bmd_pipeline.config.schema import (
    NUMBER,
    TASK_PATTERN,
    WHOLE_NUMBER,
    RunConfig,
    TaskConfig,
    format_axis_value,
)
from bmd_pipeline.errors import ConfigError, TaskError, suggest
from bmd_pipeline.io.files import is_there, read_file

if TYPE_CHECKING:
    from bmd_pipeline.tasks.registry import TaskEntry

Location = tuple[str | int, ...]
"""Where a value stands: names of groups and its own, positions in lists."""

MAX_SIZE = 1_000_000
"""Characters and values of a document with its references written out: a few lines can unfold into gigabytes."""
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_PLAIN = {
    "tag:yaml.org,2002:bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "tag:yaml.org,2002:int": re.compile(WHOLE_NUMBER),
    "tag:yaml.org,2002:float": re.compile(rf"{NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
    "tag:yaml.org,2002:timestamp": re.compile(r"(?!)"),  # none: no setting is a date
}
"""How values that are no text are written. YAML 1.1 has more: 010 is 8, 1:30 is 90, 3_0 is 30, and off is false."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader: numbers as people write them and no others, no silent duplicates, a bound on what references
    make.

    Duplicates are found while the document is read: afterwards `<<: *name` has mixed a mapping's names with others.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, int] = {}  # of every finished node, by identity, with its references written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        is_reference = self.check_event(yaml.AliasEvent)
        node: yaml.Node = super().compose_node(parent, index)  # type: ignore[assignment]
        if not is_reference:
            self._sizes[id(node)] = self._measure(node)
        elif id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "a reference (*name) leads to what it is part of", mark)
        if self._sizes[id(node)] > MAX_SIZE:
            problem = f"longer than {MAX_SIZE} characters with its references written out"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        plain = _PLAIN.get(node.tag)
        if plain is not None and not plain.fullmatch(node.value):
            kind = node.tag.rpartition(":")[2]
            problem = (
                f"{node.value} would be read as {kind}: write a decimal number, true or false, or put text in quotes"
            )
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in (_TEXT, _MERGE):
                got = key.value if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                problem = f"a setting's name must be text, got {got}"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"{key.value!r} is set twice", key.start_mark)
            seen.add(key.value)
        return node

    def _measure(self, node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value)
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        return 1 + sum(self._sizes[id(part)] for part in parts)


# YAML 1.1 reads 1e-3 as text because it wants a point and a signed exponent.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str, name: str) -> Any:
    """Parses one YAML document.

    Raises:
        ConfigError: it is not YAML; the message says where in `name`, line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise ConfigError(f"{place}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # impossible dates, endless numbers, deep nesting
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"{name}: not YAML: {reason}") from error


def find_line(path: Path, location: Location) -> int | None:
    """Line of a value's name in a file that `read_settings` could read, or None if the file doesn't hold it."""
    loader = _Loader(read_file(path).decode("utf-8"))
    key = node = loader.get_single_node()
    with suppress(KeyError, IndexError, TypeError):  # a name that is no text is none of ours
        for part in location:
            if isinstance(node, yaml.MappingNode):
                loader.flatten_mapping(node)  # what `<<` brings comes first, and the mapping's own names go over it
                key, node = {key.value: (key, value) for key, value in node.value}[part]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                key = node = node.value[part]
            else:
                return None
        return None if key is None else int(key.start_mark.line) + 1  # an empty file has no node
    return None


def read_settings(path: Path) -> dict[str, Any]:
    """Reads a YAML file of settings; sections left empty count as not there.

    Raises:
        ConfigError: it is missing, unreadable, not YAML or not a mapping.
    """
    try:
        text = read_file(path).decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path} must hold settings (name: value), got {type(values).__name__}")
    return {key: value for key, value in (values or {}).items() if value is not None}


_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")


@dataclass(frozen=True)
class Layer:
    """Settings from one place."""

    name: str  # the place, as messages call it ("config/tasks/PushT.yaml")
    values: Mapping[str, Any]  # nested
    path: Path | None = None  # the file they were read from, if there is one
    section: Location = ()  # where in the file they stand


def merge_settings(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lays settings over others: groups merge key by key, everything else is replaced, lists too.

    A group left blank in YAML reads as None and says nothing about the group below it; `{}` empties that group.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if value and isinstance(value, Mapping):
            merged[key] = merge_settings(below if isinstance(below, Mapping) else {}, value)
        elif value is not None or not isinstance(below, Mapping):
            merged[key] = value
    return merged


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merges layers, later ones on top."""
    return functools.reduce(merge_settings, (layer.values for layer in layers), {})


def find_origin(layers: Sequence[Layer], location: Location) -> str | None:
    """The layer that decided the value at a location, or at the nearest group above it: its file and line, or name."""
    for depth in range(len(location), 0, -1):
        for layer in reversed(layers):
            with suppress(KeyError, IndexError, TypeError):  # the layer does not hold it
                functools.reduce(operator.getitem, location[:depth], layer.values)  # type: ignore[arg-type]
                line = find_line(layer.path, (*layer.section, *location[:depth])) if layer.path else None
                return layer.name if line is None else f"{layer.path}:{line}"
    return None


def parse_assignment(text: str) -> Layer:
    """Turns `a.b=c` into a layer.

    Raises:
        ConfigError: there is no such name before a `=`, or no YAML after it.
    """
    name = f"--set {shorten(text)}"
    key, equals, value = text.partition("=")
    if not equals or not _KEY.fullmatch(key.strip()):
        raise ConfigError(f"--set wants name.name=value, got {shorten(text)!r}")
    values: Any = parse_yaml(value, name)
    for part in reversed(key.strip().split(".")):
        values = {part: values}
    return Layer(name, values)


def shorten(text: str, length: int = 80) -> str:
    """A text that fits into a message of one line."""
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


_NO_SETTINGS = {
    "preset": "`--preset` names it, or Snakemake's `--config preset=…`",
    "force": "`--force` for a stage; the workflow reads it from Snakemake's --config",
    "tasks": "the workflow alone reads it, from Snakemake's --config or --configfile",
    "set": "the workflow alone reads it, from Snakemake's --config or --configfile",
}
"""Names that the workflow takes beside the settings, and where they are given."""

_DEMANDS = {
    "greater_than": "must be > {gt}",
    "greater_than_equal": "must be >= {ge}",
    "less_than": "must be < {lt}",
    "less_than_equal": "must be <= {le}",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a finite number",
    "string": "must be text",
    "tuple": "must be a list",
    "list": "must be a list",
    "model": "must be a group of settings",
    "dict": "must be a group of settings",
}
"""What a value must be, by pydantic's name of the error or the first word of it."""


def format_location(location: Location) -> str:
    """A location as users write it: `finetune.ppo.gamma`, `seeds[1]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def find_model(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The group of settings at a location, or None if there is none."""
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def list_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings below a model."""
    for name in model.model_fields:
        group = find_model(model, (name,))
        if group is None:
            yield f"{prefix}{name}"
        else:
            yield from list_paths(group, f"{prefix}{name}.")


def describe_error(error: ValidationError, model: type[BaseModel], prefix: Location = ()) -> tuple[Location, str]:
    """Location and one-line text of what validation of `model`, which stands at `prefix`, found wrong; unknown names
    come before wrong values."""
    found = error.errors()
    places = {item["loc"][:depth] for item in found for depth in range(len(item["loc"]))}
    # A list whose entries are refused counts as too short as well: that says nothing new.
    details = [item for item in found if not (item["type"] == "too_short" and item["loc"] in places)]
    details.sort(key=lambda item: item["type"] != "extra_forbidden")
    first, *more = details
    if first["type"] == "extra_forbidden":
        text = _describe_unknown(first["loc"], model, prefix)
    else:
        text = _describe_value(first, model, prefix)
    return prefix + first["loc"], f"{text} (and {len(more)} more)" if more else text


def _describe_unknown(location: Location, model: type[BaseModel], prefix: Location) -> str:
    name, group = str(location[-1]), find_model(model, location[:-1])
    known = group.model_fields if group else {}
    hint = suggest(name, known)
    elsewhere = [format_location((*prefix, path)) for path in list_paths(model) if path.split(".")[-1] == name]
    if elsewhere and not difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        hint = f"did you mean {' or '.join(map(repr, elsewhere[:2]))}?"
    path = format_location((*prefix, *location))
    return f"unknown setting {path}; {_NO_SETTINGS.get(path, hint)}"


def _describe_value(item: ErrorDetails, model: type[BaseModel], prefix: Location) -> str:
    path = format_location((*prefix, *item["loc"]))
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        return f"{path} must be given"
    if kind == "value_error":
        text = str(context.get("error", item["msg"]))
        group = find_model(model, item["loc"])
        named = group is not None and text.split(" ")[0].split(".")[0] in group.model_fields
        link = "." if named else " " if text.startswith("must ") else ": "
        return f"{path}{link}{text}" if path else text
    template = _DEMANDS.get(kind) or _DEMANDS.get(kind.split("_")[0])
    if template is None:
        demand = item["msg"].replace("Input should", "must").replace("must be a valid", "must be a")
    else:
        demand = re.sub(r"\b1 entries", "1 entry", template.format(**context))
    got = "nothing" if item["input"] is None else shorten(" ".join(repr(item["input"]).split()), 60)
    return f"{path} {demand}, got {got}"


CONFIG_DIR = Path("config")
AUTO = "auto"
AUTO_GPU = "auto-gpu"
"""What `auto` means where a CUDA device is visible: preset gpu for native tasks, cpu for those of a simulator."""
TASK_NAME = re.compile(TASK_PATTERN)


def load_config(
    task: str,
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    overrides_path: Path | None = None,
    assignments: Sequence[str] = (),
    config_dir: Path = CONFIG_DIR,
) -> RunConfig:
    """Loads, merges and validates the settings of a run on one task.

    Args:
        task: registered task.
        preset: smoke, cpu, gpu, paper or one of your own; "auto" is "auto-gpu" where a CUDA device is visible, else
            cpu; "auto-gpu" is gpu for native tasks, and cpu for those that a simulator steps. None: what the overrides
            or config.yaml say.
        overrides: nested settings laid over the files.
        overrides_path: the file they were read from; None if Snakemake merged them.
        assignments: `a.b=c` with YAML values, on top of everything.
        config_dir: folder of config.yaml, tasks/ and presets/.

    Raises:
        ConfigError: a file is missing or not YAML, a setting is unknown or out of bounds.
        TaskError: the task is unknown, or a plug-in can't be imported.
    """
    overrides = overrides or {}
    preset = resolve_preset(overrides.get("preset") if preset is None else preset, config_dir=config_dir)
    place = str(overrides_path or "--configfile or --config")
    upper = [_without_preset(Layer(place, overrides, overrides_path)), *map(parse_assignment, assignments)]
    _, base = split_base(task)
    if base is not None and not _task_path(task, config_dir).is_file():
        upper.append(Layer(f"the name {task}", {"seed": base}))
    if preset == AUTO_GPU:
        preset = "gpu" if _is_native(_collect_layers(task, "cpu", config_dir) + upper) else "cpu"
    lower = _collect_layers(task, preset, config_dir)
    path = modes_path(task, str(merge_layers(lower + upper).get("run") or ""), config_dir)
    layers = lower + ([_file_layer(path, read_settings(path))] if is_there(path) else []) + upper
    values = merge_layers(layers)
    if "preset" in values:
        raise _refusal(("preset",), f"unknown setting preset; {_NO_SETTINGS['preset']}", layers)
    try:
        config = RunConfig.model_validate(values | {"preset": preset})
    except ValidationError as error:
        raise _refusal(*describe_error(error, RunConfig), layers) from error
    if config.task.name != task:
        raise _refusal(("task", "name"), f"task.name must be {task}, got {config.task.name}", layers)
    if config.run and _task_path(f"{task}-{config.run}", config_dir).is_file():
        text = f"run must not be {config.run}: results/{task}-{config.run} is the folder of the task of that name"
        raise _refusal(("run",), text, layers)
    return _resolve_env(config, _list_varied(config, layers), layers)


def _list_varied(config: RunConfig, layers: Sequence[Layer]) -> list[RunConfig]:
    """The run in every cell of its grid."""
    try:
        return [cell.config for cell in list_cells(config)] if config.grid.axes else []
    except ValidationError as combined:
        for name, values in config.grid.axes.items():
            for value in values:
                try:
                    change_settings(config, {name: value})
                except ValidationError as error:
                    text = f"grid.axes.{name}: not {format_axis_value(value)}: {describe_error(error, RunConfig)[1]}"
                    raise _refusal(("grid", "axes", name), text, layers) from error
        text = f"grid.axes: its values don't go together: {describe_error(combined, RunConfig)[1]}"
        raise _refusal(("grid", "axes"), text, layers) from combined


def resolve_preset(preset: str | None, *, config_dir: Path = CONFIG_DIR) -> str:
    """The preset's name, config.yaml's if None, with "auto" decided for this machine: "auto-gpu" or "cpu".

    Raises:
        ConfigError: there is no such preset; it suggests the nearest.
    """
    if preset is None:
        preset = read_settings(_defaults_path(config_dir)).get("preset", AUTO)
    if preset == AUTO:
        preset = AUTO_GPU if has_cuda_device() else "cpu"
    known = [*list_presets(config_dir), AUTO_GPU]
    if preset not in known:
        raise ConfigError(f"unknown preset {preset!r}; {suggest(str(preset), [*known, AUTO])}")
    return preset


def find_run_name(
    preset: str, overrides: Mapping[str, Any], assignments: Sequence[str], *, config_dir: Path = CONFIG_DIR
) -> str:
    """Name of the run that settings say for every task; files of single tasks are not read.

    Raises:
        ConfigError: it is no such name, or a file can't be read.
    """
    path = _preset_path("gpu" if preset == AUTO_GPU else preset, config_dir)
    places = [read_settings(_defaults_path(config_dir)), read_settings(path), overrides]
    layers = [*(Layer("settings", values) for values in places), *map(parse_assignment, assignments)]
    values = {"task": {"name": "Task"}, "run": merge_layers(layers).get("run", "")}
    try:
        return RunConfig.model_validate(values).run
    except ValidationError as error:
        raise ConfigError(describe_error(error, RunConfig)[1]) from error


def list_presets(config_dir: Path = CONFIG_DIR) -> list[str]:
    """Names of the presets there are."""
    return list_stems(config_dir / "presets")


def has_cuda_device() -> bool:
    """Whether an NVIDIA device is visible, found without importing torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and Path("/dev/nvidiactl").exists()


def _defaults_path(config_dir: Path) -> Path:
    return find_file(config_dir / "config.yaml")


def _preset_path(preset: str, config_dir: Path) -> Path:
    return find_file(config_dir / "presets" / f"{preset}.yaml")


def modes_path(task: str, run: str = "", config_dir: Path = CONFIG_DIR) -> Path:
    """The file of what was decided about the modes of a run on a task."""
    return config_dir / "modes" / f"{task}-{run}.yaml" if run else config_dir / "modes" / f"{task}.yaml"


def list_configured(config_dir: Path = CONFIG_DIR) -> list[str]:
    """Names of all that has a file in tasks/: tasks, variants, and tasks of plug-ins."""
    return list_stems(config_dir / "tasks")


def _is_native(layers: Sequence[Layer]) -> bool:
    """Whether no simulator steps the task; what is wrong with its settings is said when they are read for good."""
    from bmd_pipeline.tasks.registry import get_entry, prepare

    try:
        task = TaskConfig.model_validate(merge_layers(layers)["task"])
    except ValidationError:
        return False
    prepare(task)
    return get_entry(task.name).simulator == NATIVE


def _collect_layers(task: str, preset: str, config_dir: Path) -> list[Layer]:
    files = _read_task_files(task, config_dir)
    presets = {path: _pop_presets(values, path, config_dir) for path, values in files.items()}
    defaults_path, preset_path = _defaults_path(config_dir), _preset_path(preset, config_dir)
    return [
        Layer("the task", {"task": {"name": task}}),
        _without_preset(_file_layer(defaults_path, read_settings(defaults_path))),
        *(_file_layer(path, values) for path, values in files.items()),
        _file_layer(preset_path, read_settings(preset_path)),
        *(_file_layer(path, values.get(preset) or {}, ("presets", preset)) for path, values in presets.items()),
    ]


def _file_layer(path: Path, values: Mapping[str, Any], section: Location = ()) -> Layer:
    return Layer(str(path), values, path, section)


def _without_preset(layer: Layer) -> Layer:
    """The choice of a preset is no setting of the run."""
    return replace(layer, values={name: value for name, value in layer.values.items() if name != "preset"})


def _read_task_files(task: str, config_dir: Path) -> dict[Path, dict[str, Any]]:
    """Settings of the task's file, after those of the task that it extends."""
    if not TASK_NAME.fullmatch(task):  # before the name becomes part of a path
        raise TaskError(f"a task's name is letters, digits, - and _, at most 64 of them, got {shorten(task)!r}")
    path = _task_path(task, config_dir)
    stem, seed = split_base(task)
    if seed is not None and not is_there(path):
        files = _read_task_files(stem, config_dir)
        return files if len(files) > 1 else {only: _extend(values, stem) for only, values in files.items()}
    values = read_settings(path) if is_there(path) else {}
    base = values.pop("extends", None)
    if base is None:
        return {path: values}
    if not isinstance(base, str) or not TASK_NAME.fullmatch(base):
        raise ConfigError(f"extends must be the name of a task, got {base!r} ({path})")
    base_path = _task_path(base, config_dir)
    base_values = read_settings(base_path) if is_there(base_path) else {}
    if "extends" in base_values:
        raise ConfigError(f"extends must name a task, but {base} is itself a variant ({path})")
    return {base_path: _extend(base_values, base), path: values}


def _task_path(task: str, config_dir: Path) -> Path:
    return find_file(config_dir / "tasks" / f"{task}.yaml")


def _extend(values: dict[str, Any], base: str) -> dict[str, Any]:
    return merge_settings(values, {"task": {"extends": base}})


def _pop_presets(task_values: dict[str, Any], path: Path, config_dir: Path) -> dict[str, Any]:
    presets = task_values.pop("presets", {})
    known = list_presets(config_dir)
    if not isinstance(presets, dict):
        raise ConfigError(f"presets must be a group of settings ({path})")
    for name, values in presets.items():
        if name not in known:
            raise ConfigError(f"unknown preset presets.{name} ({path}); {suggest(name, known)}")
        if values is not None and not isinstance(values, dict):
            raise ConfigError(f"presets.{name} must be a group of settings ({path})")
    return presets


def _resolve_env(config: RunConfig, varied: Sequence[RunConfig], layers: Sequence[Layer]) -> RunConfig:
    """Validates the task's own settings and fills in their defaults, so that hashes see all of them.

    What depends on those settings is checked in the cells of the grid (`varied`), too.
    """
    # A task checks its settings itself, so this is the one place where config looks up at tasks.
    from bmd_pipeline.tasks.registry import env_model, get_entry, prepare

    prepare(config.task)
    physics = _resolve_physics(config, get_entry(config.task.name), layers)
    model = env_model(config.task.name)

    try:
        options = model.model_validate(config.task.env)
    except ValidationError as error:
        raise _refusal(*describe_error(error, model, ("task", "env")), layers) from error
    env = options.model_dump(mode="json")
    horizon = getattr(options, "horizon", None)  # a task of somebody's own may call it otherwise
    if isinstance(horizon, int):
        for run in (config, *varied):
            _require_filled_minibatches(run, horizon, layers)
    return config.model_copy(update={"task": config.task.model_copy(update={"env": env, "physics": physics})})


def _resolve_physics(config: RunConfig, entry: TaskEntry, layers: Sequence[Layer]) -> str:
    """Where the task is stepped; a native one has no physics to choose, which its hashes shall not depend on."""
    if config.task.physics == "cpu" or entry.simulator == NATIVE:
        return "cpu"
    if entry.cpu_only:
        why = f"for {entry.name}: {entry.simulator} runs on no device, so take preset auto or cpu"
    elif config.execution.device == "cpu":
        why = "with execution.device=cpu"
    else:
        return "cuda"
    raise _refusal(("task", "physics"), f"task.physics must be cpu {why}; got cuda", layers)


def _require_filled_minibatches(config: RunConfig, horizon: int, layers: Sequence[Layer]) -> None:
    """No minibatch may be larger than a rollout in which every episode takes its full time."""
    decisions = -(-horizon // config.pretrain.policy.n_action_steps)
    num_envs = config.finetune.num_envs
    if config.discover.form == "published":
        num_envs = min(num_envs, config.discover.num_envs)
    rollout, size = num_envs * decisions, config.finetune.ppo.minibatch_size
    if size > rollout:
        text = (
            f"finetune.ppo.minibatch_size must be <= a rollout ({num_envs} environments times {decisions} "
            f"decisions = {rollout}), got {size}"
        )
        raise _refusal(("finetune", "ppo", "minibatch_size"), text, layers)


def _refusal(location: Location, text: str, layers: Sequence[Layer]) -> ConfigError:
    """What is wrong, with file and line of the setting that is to blame."""
    origin = find_origin(layers, location)
    return ConfigError(f"{text} ({origin})" if origin else text)
