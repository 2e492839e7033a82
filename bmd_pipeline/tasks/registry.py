"""Which tasks exist, and where their code is.

A task is a package of modules, imported only when needed, so that naming a task stays cheap:

| module | offers |
|---|---|
| `options` | `Options`, a config `Section`: the `env` settings; no heavy imports |
| `env` | `make_spec(options) -> TaskSpec`, |
| | `make_env(options, num_envs, *, device, num_workers) -> TaskEnv` |
| | optional: `FILMING: Filming`, how its episodes are filmed |
| `expert` | `make_expert(options) -> Expert` |
| `modes` | `LABELLINGS: tuple[ModeLabelling, ...]`, the main one first; imported for evaluation only |
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, create_model

from bmd_pipeline.config.load import describe_error
from bmd_pipeline.config.resources import NATIVE
from bmd_pipeline.config.schema import Disturbance, Section
from bmd_pipeline.errors import ConfigError, TaskError, blame, suggest

if TYPE_CHECKING:  # naming a task and checking its settings must not import torch
    import torch

    from bmd_pipeline.config.schema import TaskConfig
    from bmd_pipeline.environments.base import Expert, ModeLabelling, TaskEnv, TaskSpec
    from bmd_pipeline.sim.render import Filming


@dataclass(frozen=True)
class TaskEntry:
    """One registered task."""

    name: str  # what users call it
    package: str  # import path of the folder with `options`, `env`, `expert` and `modes`
    summary: str  # one line for `bmd-pipeline tasks`
    simulator: str = NATIVE  # what steps it
    extra: str | None = None  # this project's optional dependency group that its simulator comes with
    requires: tuple[str, ...] = ()  # packages that it needs besides, as pip names them
    cpu_only: bool = False  # whether the simulator steps on the CPU whatever device there is
    template: bool = False  # whether it lacks settings until a variant gives them


DISTURBANCE = "disturbance"
"""Name of the setting below `task.env` that every task has."""

_REGISTRY: dict[str, TaskEntry] = {}


def register(entry: TaskEntry) -> None:
    """Adds a task; a name can be taken once."""
    known = _REGISTRY.get(entry.name)
    if known is not None and known != entry:
        raise TaskError(f"task {entry.name!r} is registered twice: {known.package} and {entry.package}")
    _REGISTRY[entry.name] = entry


def get_entry(name: str) -> TaskEntry:
    """Looks a task up; an unknown name is a TaskError that suggests the nearest known ones."""
    if name not in _REGISTRY:
        raise TaskError(f"unknown task {name!r}; {suggest(name, _REGISTRY)}")
    return _REGISTRY[name]


def prepare(task: TaskConfig) -> None:
    """Registers what a task's settings name: plug-ins, and the task itself if it is a variant.

    Every new process calls this before anything else of this module. A plug-in that can't be imported, a variant that
    extends no registered task, or a template, is a TaskError.
    """
    for plugin in task.plugins:
        import_named("task.plugins", plugin)
    if task.extends is not None:
        base = get_entry(task.extends)
        register(replace(base, name=task.name, summary=f"{base.name} with settings of its own", template=False))
    if get_entry(task.name).template:
        raise TaskError(
            f"{task.name} is a template: write config/tasks/NAME.yaml with `extends: {task.name}` (docs/own-task.md)"
        )


def import_named(setting: str, name: str) -> ModuleType:
    """Imports a module of the user's that a setting names; a TaskError if that fails."""
    try:
        return importlib.import_module(name)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # whatever a module does when it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            reason += "; install it (pip install --editable its folder) or put the folder that it is in on PYTHONPATH"
        raise TaskError(f"{setting}: {name!r} can't be imported: {reason}") from error


def list_entries() -> list[TaskEntry]:
    """All registered tasks by name."""
    return [_REGISTRY[name] for name in sorted(_REGISTRY)]


def _module(name: str, part: str) -> ModuleType:
    entry = get_entry(name)
    with blame_task(name):
        try:
            return importlib.import_module(f"{entry.package}.{part}")
        except ModuleNotFoundError as error:
            if error.name == f"{entry.package}.{part}":
                raise TaskError(f"task {name} has no module {entry.package}.{part}, which this needs") from error
            raise


def blame_task(name: str, what: str = "") -> AbstractContextManager[None]:
    """See `errors.blame`, for a registered task."""
    return blame(f"task {name}", get_entry(name).package, what)


def find_missing(entry: TaskEntry) -> list[str]:
    """What a task requires and isn't installed."""
    missing = []
    for package in entry.requires:
        try:
            distribution(package)
        except PackageNotFoundError:
            missing.append(package)
    return missing


def require_simulator(name: str) -> None:
    """Makes sure that a task's optional dependencies are there; its settings and spec do without them.

    If they aren't, a TaskError says which command installs them.
    """
    entry = get_entry(name)
    if missing := find_missing(entry):
        raise TaskError(f"task {name} needs {', '.join(missing)}: {advise_install(entry)}")


def advise_install(entry: TaskEntry) -> str:
    """The command that installs what a task requires, in a checkout as beside an installed package."""
    return "pip install " + (f"'bmd-pipeline[{entry.extra}]'" if entry.extra else " ".join(find_missing(entry)))


def options_model(name: str) -> type[Section]:
    """The model of a task's own settings, without those that every task has."""
    with blame_task(name):
        model: type[Section] = _module(name, "options").Options
    return model


def env_model(name: str) -> type[Section]:
    """The model of all that stands below `task.env`: a task's own settings, and `disturbance`.

    A task with a setting of that name itself is a TaskError.
    """
    own = options_model(name)
    if DISTURBANCE in own.model_fields:
        raise TaskError(f"task {name} must not have a setting {DISTURBANCE!r} of its own: every task has one")
    return _add_disturbance(own)


@functools.cache
def _add_disturbance(own: type[Section]) -> type[Section]:
    return create_model(own.__name__, __base__=own, disturbance=(Disturbance, Disturbance()))


def load_options(name: str, values: dict[str, Any]) -> Section:
    """Validates `env` settings; returns the task's own, which are all that its code knows.

    An unknown or out-of-bounds setting is a ConfigError with its dotted path.
    """
    model = env_model(name)
    try:
        model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_error(error, model, ("task", "env"))[1]) from error
    return options_model(name).model_validate({key: value for key, value in values.items() if key != DISTURBANCE})


def load_disturbance(values: Mapping[str, Any]) -> Disturbance:
    """The disturbance among a task's validated `env` settings."""
    return Disturbance.model_validate(values.get(DISTURBANCE, {}))


def make_spec(name: str, values: dict[str, Any]) -> TaskSpec:
    """Fixed facts of a task under the given `env` settings; a TaskError if they are no facts, or another task's."""
    entry, options = get_entry(name), load_options(name, values)
    with blame_task(name, "make_spec"):
        spec: TaskSpec = _module(name, "env").make_spec(options)
    _require_spec(name, "make_spec", spec)
    named = _REGISTRY.get(spec.name)
    if named is None or named.package != entry.package:  # a variant's spec has the name of the task that it extends
        raise TaskError(f"task {name}: the spec says that its name is {spec.name!r}; it must be the registered one")
    return spec


def _require_spec(name: str, what: str, spec: object) -> None:
    from bmd_pipeline.environments.base import TaskSpec

    if not isinstance(spec, TaskSpec):
        raise TaskError(f"task {name}: {what} must be a TaskSpec, got {type(spec).__name__}")


def make_env(
    name: str, values: dict[str, Any], num_envs: int, *, device: torch.device | str = "cpu", num_workers: int = 1
) -> TaskEnv:
    """Builds a batch of environments without the configured disturbance; `stages.runtime.disturb` adds it.

    `num_workers` processes simulate on the CPU; native tasks need none, and results don't depend on it. A simulator
    that isn't installed is a TaskError.
    """
    require_simulator(name)
    options = load_options(name, values)
    with blame_task(name, "make_env"):
        env: TaskEnv = _module(name, "env").make_env(options, num_envs, device=device, num_workers=num_workers)
    _require_spec(name, "the environment's spec", getattr(env, "spec", None))
    _guard_close(name, env)
    return env


def make_expert(name: str, values: dict[str, Any]) -> Expert:
    """Builds a task's expert.

    A MissingExpertError if it has none, a TaskError if its simulator isn't installed, or its behaviours are no names.
    """
    require_expert(name)
    require_simulator(name)
    options = load_options(name, values)
    with blame_task(name, "make_expert"):
        expert: Expert = _module(name, "expert").make_expert(options)
    _require_names(f"task {name}: the expert's behaviours", getattr(expert, "behaviours", None))
    _guard_close(name, expert)
    return expert


def _guard_close(name: str, made: TaskEnv | Expert) -> None:
    """Makes what a task's code raises when it is closed that task's fault."""
    close = made.close

    def end() -> None:
        with blame_task(name, "close"):
            close()

    with suppress(AttributeError):  # of an object that takes no attributes
        object.__setattr__(made, "close", end)


def _require_names(what: str, names: object) -> None:
    """Names are one or more different texts that can be columns and parts of file names, or it is a TaskError."""
    given = names if isinstance(names, (tuple, list)) else ()
    if not given or not all(isinstance(name, str) and name.isprintable() and name.strip() for name in given):
        raise TaskError(f"{what} must be one or more printable texts, got {names!r}")
    if bad := [name for name in given if "/" in name or given.count(name) > 1]:
        raise TaskError(f"{what} must not repeat, and hold no '/': {bad[0]!r} does")


class MissingExpertError(TaskError):
    """A task has no expert, as it may."""


def require_expert(name: str) -> None:
    """Makes sure that a task has an expert, without importing it; a MissingExpertError if it has none."""
    module = f"{get_entry(name).package}.expert"
    with blame_task(name):
        found = importlib.util.find_spec(module)
    if found is None:
        raise MissingExpertError(
            f"task {name} has no module {module}: `collect` and `play` of the expert need one; the workflow does "
            f"without if demonstrations are imported: write a store with DemoWriter (docs/own-task.md; examples/gym "
            f"has a script), then `bmd-pipeline import-demos STORE --task {name}`"
        )


def load_filming(name: str) -> Filming:
    """How a task's episodes are filmed; a TaskError if they can't be, or the task's simulator isn't installed."""
    require_simulator(name)
    filming: Filming | None = getattr(_module(name, "env"), "FILMING", None)
    if filming is None:
        raise TaskError(
            f"{name} can't be filmed: {get_entry(name).package}.env has no FILMING; trajectories.png shows its episodes"
        )
    return filming


def load_labellings(name: str) -> tuple[ModeLabelling, ...]:
    """True mode labellings of a task, the main one first; for evaluation only.

    A TaskError if there is none, or names repeat or can't be columns. Whatever one of a plug-in raises, or returns in
    another shape, is a TaskError too.
    """
    from bmd_pipeline.metrics.episodes import PLAIN_COLUMNS

    modes = _module(name, "modes")
    with blame_task(name, "LABELLINGS"):
        labellings: tuple[ModeLabelling, ...] = tuple(modes.LABELLINGS)
        if not labellings:
            raise TaskError(
                f"task {name}: LABELLINGS is empty; without labels give one mode that every episode belongs to"
            )
        names = [labelling.name for labelling in labellings]
        _require_names(f"task {name}: names of labellings", names)
        if taken := PLAIN_COLUMNS.keys() & set(names):
            raise TaskError(
                f"task {name}: a labelling can't be called {min(taken)!r}: episodes.parquet has such a column"
            )
        for labelling in labellings:
            _require_names(f"task {name}: modes of labelling {labelling.name!r}", labelling.modes)
        return tuple(_guard(name, labelling) for labelling in labellings)


def _guard(name: str, labelling: ModeLabelling) -> ModeLabelling:
    """The same labelling, whose failures are the task's."""
    from torch import Tensor

    from bmd_pipeline.environments.base import Labelling

    what, modes = f"labelling {labelling.name!r}", tuple(labelling.modes)

    def label(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
        with blame_task(name, what):
            weights = labelling.label(track, length, success)
        expected = (len(length), len(modes))
        if not isinstance(weights, Tensor) or weights.shape != expected:
            got = f"{type(weights).__name__} {tuple(getattr(weights, 'shape', ()))}"
            raise TaskError(f"task {name}: {what} must give a tensor of weights {expected}, got {got}")
        return weights

    return Labelling(labelling.name, modes, label)


_MANISKILL: dict[str, Any] = {"simulator": "ManiSkill"}
_WHEEL = _MANISKILL | {"extra": "anymal", "requires": ("example-robot-data",)}
_MUJOCO = {"simulator": "MuJoCo", "extra": "kitchen", "requires": ("mujoco", "gymnasium-robotics"), "cpu_only": True}
_GYM = {"simulator": "gymnasium", "cpu_only": True, "template": True}
for _name, _folder, _summary, _settings in (
    ("Anymal", "anymal", "a quadruped walks to one of four beacons around it", _WHEEL),
    ("Avoid", "avoid", "a Panda's stick passes three rows of posts, in one of 24 ways", _MANISKILL),
    ("AvoidPoint", "avoid_point", "a point passes three rows of posts, in one of 24 ways", {}),
    ("GaussianMixture", "gaussian_mixture", "a point reaches one of four goals in the plane", {}),
    ("Gym", "gym", "a gymnasium or ManiSkill environment, by its id: to be extended (docs/own-task.md)", _GYM),
    ("Kitchen", "kitchen", "a Franka arm does two of three things in a kitchen, in any order", _MUJOCO),
    ("Lift", "lift", "a Panda lifts a bar by either of its ends", _MANISKILL),
    ("PushT", "pusht", "a Panda pushes a T onto its target, turning it either way", _MANISKILL),
    ("Reach", "reach", "a Panda reaches round a post, on either side, for a goal behind it", _MANISKILL),
):
    register(TaskEntry(_name, f"{__package__}.{_folder}", _summary, **_settings))
