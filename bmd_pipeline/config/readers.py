"""Which settings a command reads: any other can't have an effect there, and is refused."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from bmd_pipeline.config.hashing import STAGES, Stage, choose_settings
from bmd_pipeline.config.load import parse_assignment
from bmd_pipeline.config.overrides import list_cells
from bmd_pipeline.config.schema import RunConfig, Untyped, grid_methods
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.methods import (
    EXPERT,
    METHODS,
    PRETRAINED,
    TAUGHT,
    compared_policies,
    is_finetuned,
    uses_modes,
)

_EVERYWHERE = ("task", "preset", "run", "seed", "seeds", "methods", "execution")
"""What a run is about, and how and where it computes."""

_COLLECTED = ("collect", "export_demos")
_IMPORTING = ("import_demos", "import_policy")

Load = Callable[[list[str]], object]
"""Loads the run with these assignments in the place of those given; a ConfigError if they don't go together."""


def list_unread(
    config: RunConfig,
    command: str,
    method: str | None,
    assignments: Sequence[str],
    load: Load,
    imported: Collection[Stage] = (),
) -> list[str]:
    """Dotted names of assigned settings that neither a command's stage reads nor one before it, for a method.

    What the others are not valid without counts as read: `finetune.num_envs` bounds `discover.num_modes`.

    Args:
        config: the run, with the assignments.
        command: as a function of `cli.stages` is called.
        method: fine-tuning method or policy that the command is about; None if it is about none.
        assignments: `a.b=c`, as of `--set`.
        load: loads the run with other assignments.
        imported: stages whose output was imported, as `io.provenance.list_imported` finds them.
    """
    if method is not None and method not in (*METHODS, PRETRAINED, TAUGHT, EXPERT):  # which is refused as such
        return []
    given = [name for text in assignments for name, _ in _list_leaves(parse_assignment(text).values)]
    read = {name for name in given if name.partition(".")[0] in _EVERYWHERE}
    if read.issuperset(given):
        return []
    known = _list_read(config, command, method, imported)
    unread = [name for name in dict.fromkeys(given) if name not in read and not _is_among(name, known)]
    if not unread or _is_sound(load, leave_out(assignments, unread)):
        return unread
    found: list[str] = []
    for name in unread:
        if _is_sound(load, leave_out(assignments, [*found, name])):
            found.append(name)
    return found


def require_read(
    config: RunConfig,
    command: str,
    method: str | None,
    assignments: Sequence[str],
    load: Load,
    imported: Collection[Stage] = (),
) -> None:
    """Checks that a command reads all that is assigned.

    Raises:
        ConfigError: a setting can't have an effect; it says where it would have one.
    """
    if unread := list_unread(config, command, method, assignments, load, imported):
        more = f" (and {len(unread) - 1} more)" if unread[1:] else ""
        what = command.replace("_", "-") + (f" --method {method}" if method else "")
        readers = _describe_readers(config, unread[0], imported)
        raise ConfigError(
            f"{unread[0]} has no effect on `{what}`{more}: {readers}; leave it out, or give a file of the whole "
            "run's settings by --config"
        )


def leave_out(assignments: Sequence[str], names: Collection[str]) -> list[str]:
    """The assignments without settings of some dotted names; of a group the rest is left."""
    kept = []
    for text in assignments:
        values = parse_assignment(text).values
        if any(name in names for name, _ in _list_leaves(values)):
            kept += write_assignments(_prune(values, names))
        else:
            kept.append(text)
    return kept


def write_assignments(values: Mapping[str, Any], config: RunConfig | None = None) -> list[str]:
    """Nested settings as assignments, each group whole: names in it need not be such as `--set` takes.

    What Snakemake handed over as text is written as it was read for `config`.
    """
    resolved = dict(_list_leaves(config.model_dump(mode="json"))) if config else {}
    return [f"{name}={json.dumps(_settle(value, resolved, name))}" for name, value in values.items()]


def _settle(value: Any, resolved: Mapping[str, Any], name: str) -> Any:
    if value and isinstance(value, Mapping):
        return {key: _settle(part, resolved, f"{name}.{key}") for key, part in value.items()}
    untyped = any(isinstance(part, Untyped) for part in (value if isinstance(value, list | tuple) else [value]))
    return resolved.get(name, value) if untyped else value


def _list_read(config: RunConfig, command: str, method: str | None, imported: Collection[Stage]) -> set[str]:
    """Dotted names of the settings that a command's stage reads, or one before it."""
    runs = [config]
    if config.grid.axes and command in ("grid", "report"):
        runs += [cell.config for cell in list_cells(config)]
    read: set[str] = set()
    for run in runs:
        for stage, of in _list_chain(run, command, method, imported):
            read |= _list_names(run, stage, of)
    return read


def _list_names(config: RunConfig, stage: Stage, method: str | None) -> set[str]:
    """Dotted names of the settings that a stage reads, those too that are in no hash."""
    values = config.model_dump(mode="json")
    chosen = choose_settings(config.model_dump(mode="json"), config, stage, method)
    if stage == "discover":  # `choose_settings` holds them only where they change what is trained
        chosen["modes"] = values["modes"]
    every = {name for name, _ in _list_leaves(values)}
    return {name for name, _ in _list_leaves(chosen) if name in every}  # no group of which nothing is chosen


def _list_chain(
    config: RunConfig, command: str, method: str | None, imported: Collection[Stage]
) -> list[tuple[Stage, str | None]]:
    """The stages that a command runs or builds on, with their method."""
    first: list[tuple[Stage, str | None]] = [("collect", None), ("pretrain", None)]
    if command in _IMPORTING:
        return []
    if command in _COLLECTED or (command == "play" and method in (None, EXPERT)):
        return first[:1]
    first = [pair for pair in first if pair[0] not in imported]
    if command == "pretrain":
        return first
    if command == "discover":
        return [*first, ("discover", None)]
    policies: Sequence[str] = compared_policies(config.methods, config.discover.form)
    if method is not None:
        policies = (method,)
    elif command == "validation":
        policies = (TAUGHT,)
    elif command == "grid":
        policies = grid_methods(config)
    elif command == "report" and config.grid.axes:
        policies = (*policies, *grid_methods(config))
    chain = first + [("discover", None)] * any(map(uses_modes, policies))
    chain += [("finetune", policy) for policy in policies if is_finetuned(policy)]
    if command != "finetune":
        chain.append(("evaluate", None))
    own = ("compare", "verdict", "grid") if command == "report" else (command,)
    return chain + [(cast(Stage, name), None) for name in own if name in STAGES and name != "finetune"]


def _describe_readers(config: RunConfig, name: str, imported: Collection[Stage]) -> str:
    """Which stage reads a setting, and for which methods if not for all."""
    if (stage := name.partition(".")[0]) in imported:
        what, them = ("the policy was", "it") if "pretrain" in imported else ("the demonstrations were", "them")
        return f"{what} imported, and no setting of `{stage}` made {them}"
    stages = [stage for stage in STAGES if stage != "finetune" and _is_among(name, _list_names(config, stage, None))]
    if stages and not name.startswith("finetune."):
        own = name.partition(".")[0]
        return f"`{own if own in stages else stages[0]}` reads it"
    methods = [method for method in METHODS if _is_among(name, _list_names(config, "finetune", method))]
    if methods == list(METHODS):
        return "`finetune` reads it"
    if methods:
        return f"`finetune` reads it for {', '.join(methods)}"
    if name.startswith("pretrain."):
        return "nothing is trained with pretrain.external_policy"
    form = config.discover.form
    return f"nothing reads it with discover.form={form}"


def _is_among(name: str, known: Collection[str]) -> bool:
    """Whether a setting is among some, or a group of them, or in a group that is among them."""
    return name in known or any(one.startswith(f"{name}.") or name.startswith(f"{one}.") for one in known)


def _list_leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values; an empty group counts as a value."""
    for key, value in values.items():
        if value and isinstance(value, Mapping):
            yield from _list_leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _prune(values: Mapping[str, Any], names: Collection[str], prefix: str = "") -> dict[str, Any]:
    left = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if value and isinstance(value, Mapping):
            if part := _prune(value, names, f"{name}."):
                left[key] = part
        elif name not in names:
            left[key] = value
    return left


def _is_sound(load: Load, assignments: list[str]) -> bool:
    try:
        load(assignments)
    except ConfigError:
        return False
    return True
