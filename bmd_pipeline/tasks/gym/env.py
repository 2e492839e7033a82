"""A gymnasium or ManiSkill environment as a task: how it is built, what it shows, and episodes in a batch."""

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, TaskSpec, VectorTask
from bmd_pipeline.environments.workers import make_parallel
from bmd_pipeline.errors import TaskError, blame
from bmd_pipeline.sim.backend import make_maniskill_env, reset_physics
from bmd_pipeline.tasks.gym.options import SUCCESS, Options

# ---- Building an environment by its id ----


def build(options: Options) -> tuple[Any, bool, int | None]:
    """The environment, whether it is one of ManiSkill, and its time limit; a TaskError if it can't be built."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on stdout, where documents go
    gymnasium: Any = importlib.import_module("gymnasium")
    module, _, name = options.id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        if name not in gymnasium.registry:
            importlib.import_module("mani_skill.envs")
        known = sys.modules.get("mani_skill.utils.registration")
        if known is not None and name in known.REGISTERED_ENVS:
            # names columns; their order is that of obs_mode=state
            env = make_maniskill_env(name, **{"obs_mode": "state_dict", **options.arguments})
            return env, True, options.horizon or known.REGISTERED_ENVS[name].max_episode_steps
        limit = options.horizon  # None: its own
        env = gymnasium.make(name, max_episode_steps=limit, disable_env_checker=True, **options.arguments)
        return env, False, env.spec.max_episode_steps
    except gymnasium.error.UnregisteredEnv as error:
        hint = "" if module else f"; where a package registers it, name that: MODULE:{name}"
        raise TaskError(f"task.env.id: no environment {options.id!r}: {_join(error)}{hint}") from error
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        text = f"task.env.id: {options.id} needs the module {missing}: install the package that brings it"
        raise TaskError(text) from error
    except EOFError as error:  # ManiSkill asks whether to download, and nobody answers
        text = f"task.env.id: {options.id} needs files: python -m mani_skill.utils.download_asset {name}"
        raise TaskError(text) from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise TaskError(f"task.env.id: {options.id} needs more packages: {_join(error)}") from error
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        how = f" with arguments {options.arguments}" if options.arguments else ""
        raise TaskError(
            f"task.env: {options.id} can't be built{how}: {type(error).__name__}: {_join(error)}"
        ) from error


def _join(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


# ---- What it shows: names and numbers ----

Parts = dict[str, NDArray[Any]]
"""Arrays by dotted name, such as "obs.achieved_goal"."""


def list_parts(name: str, value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """The numbers in nested mappings, each with its dotted name; what is no number is left out."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from list_parts(f"{name}.{key}", part)
    elif isinstance(value, (bool, int, float, np.number, np.bool_, np.ndarray, list, tuple)):
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            yield name, array


def list_columns(parts: Parts) -> list[str]:
    """A name for each number: the part's own if it is a scalar, else with the number's place."""
    names = ([part] if array.ndim == 0 else [f"{part}.{i}" for i in range(array.size)] for part, array in parts.items())
    return [name for group in names for name in group]


def join_numbers(parts: Parts) -> NDArray[np.float32]:
    """All numbers, in the order of `list_columns`."""
    return np.concatenate([array.ravel() for array in parts.values()]).astype(np.float32)


def _sort(value: Any) -> Any:
    """Mappings in the order of their keys."""
    return {key: _sort(value[key]) for key in sorted(value)} if isinstance(value, Mapping) else value


def _unbatch(value: Any) -> Any:
    """The only row of ManiSkill's batch of one."""
    if isinstance(value, Mapping):
        return {key: _unbatch(part) for key, part in value.items()}
    return value[0].numpy() if isinstance(value, Tensor) and value.ndim else value


# ---- One environment ----


class GymScene:
    """One environment, and what it shows.

    Attributes:
        spec: facts of the task.
        obs: (obs_dim,) float32.
        track: (track_dim,) float32.
    """

    def __init__(self, options: Options) -> None:
        self._id = options.id
        self._env, self._is_maniskill, horizon = build(options)
        if horizon is None:
            raise TaskError(f"task.env.horizon must be given: {self._id} has no time limit of its own")
        self._module = type(self._env.unwrapped).__module__
        if self._is_maniskill:  # its agents ask NumPy whether a tensor is finite, at each step
            warnings.filterwarnings("ignore", "__array_wrap__ must accept context", DeprecationWarning)
        self._read_action_space()
        self._require_boxes("obs", self._get_space("observation"))
        judge = SUCCESS.fullmatch(options.success)
        assert judge is not None  # the settings are validated
        self._key, self._sum, self._bound = judge["key"], judge["sum"], float(judge["bound"] or 0)
        self._track_names: list[str] = []
        self._obs_parts: Parts = {}
        self.obs = np.empty(0, np.float32)
        self.reset(0)
        self._track_names = self._find_track(options.track)
        self.spec = TaskSpec(
            "Gym",
            obs_dim=len(self.obs),
            action_dim=self._low.size,
            track_names=tuple(self._track_names),
            planar=(self._track_names[0], self._track_names[min(1, len(self._track_names) - 1)]),
            horizon=horizon,
            action_low=tuple(self._low.ravel().tolist()),
            action_high=tuple(self._high.ravel().tolist()),
            obs_names=tuple(list_columns(self._obs_parts)),
        )
        self.step((self._low.ravel() + self._high.ravel()) / 2)  # a wrong name shows now, and not in training

    def _get_space(self, what: str) -> Any:
        return getattr(self._env, f"{'single_' if self._is_maniskill else ''}{what}_space")

    def _read_action_space(self) -> None:
        spaces: Any = importlib.import_module("gymnasium.spaces")
        space = self._get_space("action")
        if not isinstance(space, spaces.Box):
            raise TaskError(f"task.env.id: {self._id} takes actions of {space}; policies here act in a Box of numbers")
        self._low, self._high, self._action_type = space.low, space.high, space.dtype
        if not (np.isfinite(space.low) & np.isfinite(space.high)).all():
            raise TaskError(
                f"task.env.id: actions of {self._id} have no finite bounds: {space}; register it with bounds, such as "
                "by gymnasium.wrappers.TransformAction, under an id of its own"
            )
        if not (space.low < space.high).all():
            raise TaskError(
                f"task.env.id: a component of actions of {self._id} has one value alone: {space}; register it without "
                "that component, under an id of its own"
            )

    def _require_boxes(self, name: str, space: Any) -> None:
        spaces: Any = importlib.import_module("gymnasium.spaces")
        if isinstance(space, spaces.Dict):
            for key, part in space.spaces.items():
                self._require_boxes(f"{name}.{key}", part)
        elif not isinstance(space, spaces.Box) or len(space.shape) > 2:
            raise TaskError(
                f"task.env.id: {name} of {self._id} is {space}; it must be a Box of numbers, or a Dict of such: "
                "observations are states, not images"
            )

    def _find_track(self, wanted: tuple[str, ...]) -> list[str]:
        columns = list_columns(self._obs_parts) + list_columns(self._info_parts)
        found = []
        for name in wanted:
            matching = [column for column in columns if column == name or column.startswith(f"{name}.")]
            if not matching:
                raise TaskError(f"task.env.track: {self._id} shows no {name!r}; {self._list_shown()}")
            found += matching
        if twice := next((name for name in found if found.count(name) > 1), None):
            raise TaskError(f"task.env.track names the column {twice} of {self._id} twice: leave one of its names out")
        return found

    def _list_shown(self) -> str:
        parts = {**self._obs_parts, **self._info_parts}
        return f"it shows {', '.join(f'{name} ({part.size})' if part.ndim else name for name, part in parts.items())}"

    def _see(self, obs: Any, info: Any) -> None:
        obs, info = (_unbatch(obs), _unbatch(info)) if self._is_maniskill else (_sort(obs), info)
        self._obs_parts, self._info_parts = dict(list_parts("obs", obs)), dict(list_parts("info", info))
        seen = join_numbers(self._obs_parts)
        if self._track_names and seen.shape != self.obs.shape:
            raise TaskError(f"task.env.id: {self._id} shows {seen.size} numbers in a step, {self.obs.size} before")
        self.obs = seen
        parts = {**self._obs_parts, **self._info_parts}
        shown = dict(zip(list_columns(parts), join_numbers(parts), strict=True))
        try:
            self.track = np.array([shown[name] for name in self._track_names], np.float32)
        except KeyError as error:
            text = f"task.env.track: {self._id} doesn't show {error} at every step; {self._list_shown()}"
            raise TaskError(text) from error

    def reset(self, seed: int) -> None:
        """Starts an episode, which the seed and its actions decide, whatever was played before."""
        with blame(f"task {self._id}", self._module, "reset"):
            if self._is_maniskill:
                reset_physics(self._env)
            obs, info = self._env.reset(seed=seed)
            self._see(obs, info)
            self._steps, self._return = 0, 0.0

    def step(self, action: NDArray[Any]) -> tuple[float, bool, bool]:
        """Reward, whether the episode ended other than by the time limit, and whether it succeeded."""
        with blame(f"task {self._id}", self._module, "step"):
            clipped = np.clip(action.astype(self._action_type).reshape(self._low.shape), self._low, self._high)
            obs, reward, terminated, truncated, info = self._env.step(clipped)
            self._see(obs, info)
            self._steps += 1
            self._return += float(reward)
            in_time = self._steps < self.spec.horizon
            over = bool(terminated) or (bool(truncated) and in_time)
            if self._sum == "return":
                over = over or not in_time
                return float(reward), over, over and self._return >= self._bound
            success = float(reward) >= self._bound if self._sum == "reward" else self._read_success()
            return float(reward), over or success, success

    def _read_success(self) -> bool:
        if self._key not in self._info_parts:
            raise TaskError(f"task.env.success: {self._id} has no {self._key!r} in a step; {self._list_shown()}")
        return bool(self._info_parts[self._key].all())

    def close(self) -> None:
        with blame(f"task {self._id}", self._module, "close"):
            self._env.close()


# ---- The task ----


class GymTask(VectorTask):
    """Episodes of environments that are stepped one after the other.

    Args:
        first_row: number of the first environment among all workers'.
    """

    def __init__(self, options: Options, num_envs: int, first_row: int = 0) -> None:
        super().__init__(num_envs)
        self._scenes = [GymScene(options) for _ in range(num_envs)]
        self.spec = self._scenes[0].spec
        self._first_row = first_row

    def _reset(self, seed: int) -> None:
        for row, scene in enumerate(self._scenes, self._first_row):
            (drawn,) = np.random.SeedSequence((seed, row)).generate_state(1)
            scene.reset(int(drawn) >> 1)  # some environments take 31 bits

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reward = np.zeros(self.num_envs, np.float32)
        ended, success = np.zeros((2, self.num_envs), bool)
        actions = action.numpy()
        for row in active.nonzero()[:, 0].tolist():
            reward[row], ended[row], success[row] = self._scenes[row].step(actions[row])
        return torch.from_numpy(reward), torch.from_numpy(ended), torch.from_numpy(success)

    def _observe(self) -> Tensor:
        return torch.from_numpy(np.stack([scene.obs for scene in self._scenes]))

    def track(self) -> Tensor:
        return torch.from_numpy(np.stack([scene.track for scene in self._scenes]))

    def close(self) -> None:
        for scene in self._scenes:
            scene.close()
        self._scenes = []


def make_spec(options: Options) -> TaskSpec:
    """Facts of the task; the environment is built once to find them."""
    return _find_spec(options.model_dump_json())


@functools.cache
def _find_spec(options: str) -> TaskSpec:
    with closing(GymScene(Options.model_validate_json(options))) as scene:
        return scene.spec


def make_env(options: Options, num_envs: int, *, device: torch.device | str, num_workers: int) -> TaskEnv:
    """See `registry.make_env`."""
    return make_parallel(functools.partial(GymTask, options), num_envs, num_workers, device)
