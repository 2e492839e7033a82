"""From YAML files, presets and the command line to one validated `RunConfig`.

Layers, each over the one before:

1. `config/config.yaml`: defaults for every task
2. `config/tasks/<Task>.yaml`: the task's own settings; `extends: <Other>` puts that task's file below it,
   which makes a variant: another name and other settings for the same code. `<Task>-base<k>` needs no file: it is the
   task with root seed k
3. `config/presets/<preset>.yaml`: how much to compute
4. the task file's `presets: {<preset>: ...}`: the same for this task
5. overrides: `--config FILE`, or Snakemake's `--configfile` and `--config`
6. assignments: `--set a.b=c`

Nothing here imports torch: Snakemake reads the settings again for every job.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bmd_pipeline.config.bases import split_base
from bmd_pipeline.config.costs import NATIVE
from bmd_pipeline.config.documents import Location, read_settings
from bmd_pipeline.config.fields import TASK_PATTERN
from bmd_pipeline.config.layers import Layer, find_origin, merge, merge_layers, parse_assignment, shorten
from bmd_pipeline.config.messages import describe, suggest
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.config.task import TaskConfig
from bmd_pipeline.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from bmd_pipeline.tasks.registry import TaskEntry

CONFIG_DIR = Path("config")
AUTO = "auto"
AUTO_GPU = "auto-gpu"
"""What `auto` is where a CUDA device is: the preset gpu for native tasks, cpu for those that a simulator steps."""
TASK_NAME = re.compile(TASK_PATTERN)


def load_config(
    task: str,
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    overrides_name: str = "overrides",
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
        overrides_name: where they came from, for messages.
        overrides_path: the file they were read from, if there is one.
        assignments: `a.b=c` with YAML values, on top of everything.
        config_dir: folder of config.yaml, tasks/ and presets/.

    Raises:
        ConfigError: a file is missing or not YAML, a setting is unknown or out of bounds.
        TaskError: the task is unknown, or a plug-in can't be imported.
    """
    preset = resolve_preset(preset, overrides, config_dir=config_dir)
    upper = [_without_preset(Layer(overrides_name, overrides or {}, overrides_path))]
    upper += [parse_assignment(text) for text in assignments]
    _, base = split_base(task)
    if base is not None and not _task_path(task, config_dir).is_file():
        upper.append(Layer(f"the name {task}", {"seed": base}))
    if preset == AUTO_GPU:
        preset = "gpu" if _is_native(_collect_layers(task, "cpu", config_dir) + upper) else "cpu"
    layers = _collect_layers(task, preset, config_dir) + upper
    values = merge_layers(layers)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_with_origin(*describe(error, RunConfig), layers)) from error
    if config.task.name != task:
        raise ConfigError(_with_origin(("task", "name"), f"task.name must be {task}, got {config.task.name}", layers))
    return _resolve_env(config, layers)


def resolve_preset(
    preset: str | None, overrides: Mapping[str, Any] | None = None, *, config_dir: Path = CONFIG_DIR
) -> str:
    """The preset's name, with "auto" decided for this machine: "auto-gpu" or "cpu".

    Raises:
        ConfigError: no such preset; the message suggests the nearest.
    """
    if preset is None:
        preset = (overrides or {}).get("preset") or _read_defaults(config_dir).get("preset", "auto")
    if preset == AUTO:
        preset = AUTO_GPU if has_cuda_device() else "cpu"
    known = [*list_presets(config_dir), AUTO_GPU]
    if preset not in known:
        raise ConfigError(f"unknown preset {preset!r}; {suggest(str(preset), [*known, AUTO])}")
    return preset


def list_presets(config_dir: Path = CONFIG_DIR) -> list[str]:
    """Names of the presets there are."""
    return sorted(path.stem for path in (config_dir / "presets").glob("*.yaml"))


def has_cuda_device() -> bool:
    """Whether an NVIDIA device is visible, found without importing torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and Path("/dev/nvidiactl").exists()


def _read_defaults(config_dir: Path) -> dict[str, Any]:
    path = config_dir / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: run from the repository's root")
    return read_settings(path)


def list_variants(config_dir: Path = CONFIG_DIR) -> dict[str, str]:
    """Variants that have a file in tasks/, and the task that each extends."""
    bases = {path.stem: read_settings(path).get("extends") for path in (config_dir / "tasks").glob("*.yaml")}
    return {name: str(base) for name, base in sorted(bases.items()) if base is not None}


def list_configured(config_dir: Path = CONFIG_DIR) -> list[str]:
    """Names of all that has a file in tasks/: tasks, variants, and tasks of plug-ins."""
    return sorted(path.stem for path in (config_dir / "tasks").glob("*.yaml"))


def _is_native(layers: Sequence[Layer]) -> bool:
    """Whether no simulator steps the task; what is wrong with its settings is told when they are read for good."""
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
    preset_path = config_dir / "presets" / f"{preset}.yaml"
    return [
        Layer("the task", {"task": {"name": task}}),
        _without_preset(_file_layer(config_dir / "config.yaml", _read_defaults(config_dir))),
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
    if seed is not None and not path.is_file():
        files = _read_task_files(stem, config_dir)
        return files if len(files) > 1 else {only: _extend(values, stem) for only, values in files.items()}
    values = read_settings(path) if path.is_file() else {}
    base = values.pop("extends", None)
    if base is None:
        return {path: values}
    if not isinstance(base, str) or not TASK_NAME.fullmatch(base):
        raise ConfigError(f"extends must be the name of a task, got {base!r} ({path})")
    base_path = _task_path(base, config_dir)
    base_values = read_settings(base_path) if base_path.is_file() else {}
    if "extends" in base_values:
        raise ConfigError(f"extends must name a task, but {base} is itself a variant ({path})")
    return {base_path: _extend(base_values, base), path: values}


def _task_path(task: str, config_dir: Path) -> Path:
    return config_dir / "tasks" / f"{task}.yaml"


def _extend(values: dict[str, Any], base: str) -> dict[str, Any]:
    return merge(values, {"task": {"extends": base}})


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


def _resolve_env(config: RunConfig, layers: Sequence[Layer]) -> RunConfig:
    """Validates the task's own settings and fills in their defaults, so that hashes see all of them."""
    # A task checks its settings itself, so this is the one place where config looks up at tasks.
    from bmd_pipeline.tasks.registry import env_model, get_entry, prepare

    prepare(config.task)
    physics = _resolve_physics(config, get_entry(config.task.name), layers)
    model = env_model(config.task.name)

    def resolve(values: Mapping[str, Any], *place: str) -> Any:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_with_origin(*describe(error, model, place), layers)) from error

    options = resolve(config.task.env, "task", "env")
    env = options.model_dump(mode="json")
    for name, changes in config.validation.dynamics.items():
        resolve({**env, **changes}, "validation", "dynamics", name)
    horizon = getattr(options, "horizon", None)  # a task of somebody's own may call it otherwise
    if isinstance(horizon, int):
        _require_filled_minibatches(config, horizon, layers)
    return config.model_copy(update={"task": config.task.model_copy(update={"env": env, "physics": physics})})


def _resolve_physics(config: RunConfig, entry: TaskEntry, layers: Sequence[Layer]) -> str:
    """Where the task is stepped; a native one has no physics to choose, which its hashes shall not depend on."""
    if config.task.physics == "cpu" or entry.simulator == NATIVE:
        return "cpu"
    for refused, why in (
        (entry.cpu_only, f"for {entry.name}: {entry.simulator} runs on no device, so take preset auto or cpu"),
        (config.execution.device == "cpu", "with execution.device=cpu"),
    ):
        if refused:
            text = f"task.physics must be cpu {why}; got {config.task.physics}"
            raise ConfigError(_with_origin(("task", "physics"), text, layers))
    return config.task.physics


def _require_filled_minibatches(config: RunConfig, horizon: int, layers: Sequence[Layer]) -> None:
    """No minibatch may be larger than a rollout in which every episode takes its full time."""
    decisions = -(-horizon // config.pretrain.policy.n_action_steps)
    for stage, settings in (("discover", config.discover), ("finetune", config.finetune)):
        rollout, size = settings.num_envs * decisions, settings.ppo.minibatch_size
        if size > rollout:
            text = (
                f"{stage}.ppo.minibatch_size must be <= a rollout ({settings.num_envs} environments times {decisions} "
                f"decisions = {rollout}), got {size}"
            )
            raise ConfigError(_with_origin((stage, "ppo", "minibatch_size"), text, layers))


def _with_origin(location: Location, text: str, layers: Sequence[Layer]) -> str:
    origin = find_origin(layers, location)
    return f"{text} ({origin})" if origin else text
