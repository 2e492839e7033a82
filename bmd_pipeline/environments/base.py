"""The task contract: environments, experts and labels, as the pipeline uses them.

A task is a batch of independent episodes stepped together. All tensors are float32 (flags are bool)
and live on the task's device; the first axis is always `num_envs`. No number is larger than `LARGEST`. Policies act in
[-1, 1]; `step_chunk` scales actions to the bounds of the spec. A new task implements the four hooks of `VectorTask`;
time limit, freezing and chunked stepping come with the base class.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.errors import TaskError, blame

LARGEST = 1e12
"""Largest magnitude of a number that a task may show: sums over an episode are squared and summed over a batch, which
larger ones would take beyond float32."""


@dataclass(frozen=True)
class TaskSpec:
    """Fixed facts of a task.

    The track is the low-dimensional view of an episode (positions, angles) that discovery features, mode labels and
    figures are computed from. A `continuing` task would go on after its time limit, so the critic bootstraps there; for
    other tasks the limit ends the episode.

    Values that don't fit each other, or are of another kind, are a TaskError.
    """

    name: str  # registered name
    obs_dim: int
    action_dim: int
    track_names: tuple[str, ...]  # columns of the track
    planar: tuple[str, str]  # those that a picture of an episode is drawn in, which may be the same
    horizon: int  # time limit in control steps
    control_hz: float | None = None  # control steps per second, > 0; None for tasks without a clock
    planar_units: tuple[str, str] = ("", "")  # such as "m" and "rad"
    continuing: bool = False
    action_low: tuple[float, ...] = ()  # (action_dim,) bound, in the environment's units, for action -1; () means -1
    action_high: tuple[float, ...] = ()  # (action_dim,) bound for action 1; () means 1
    obs_names: tuple[str, ...] = ()  # (obs_dim,) with units, for exports: "tip x from the goal (0.1 m)"; () is unknown

    def __post_init__(self) -> None:
        for field in ("obs_dim", "action_dim", "horizon"):
            value = getattr(self, field)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            self._require(whole and value >= 1, f"{field} must be a whole number >= 1, got {value!r}")
        low = tuple(self.action_low) or (-1.0,) * self.action_dim
        high = tuple(self.action_high) or (1.0,) * self.action_dim
        texts = {field: tuple(getattr(self, field)) for field in ("track_names", "planar", "planar_units", "obs_names")}
        for field, names in texts.items():
            self._require(
                not isinstance(getattr(self, field), str) and all(isinstance(name, str) for name in names),
                f"{field} must be a tuple of texts, got {getattr(self, field)!r}",
            )
        vars(self).update(action_low=low, action_high=high, **texts)  # frozen, hence the detour
        self._require(
            len(low) == len(high) == self.action_dim
            and all(isinstance(bound, Real) and math.isfinite(bound) for bound in (*low, *high))
            and all(a < b for a, b in zip(low, high, strict=True)),
            f"action_low and action_high must be {self.action_dim} finite numbers each, the first below the second, "
            f"got {low} and {high}",
        )
        names, planar = self.track_names, self.planar
        self._require(
            len(set(names)) == len(names) >= 1 and all(names),
            f"track_names must be one or more different names, got {names}",
        )
        self._require(
            len(planar) == 2 and set(planar) <= set(names),
            f"planar must be two of the track's columns ({', '.join(names)}), got {planar}",
        )
        self._require(
            len(self.obs_names) in (0, self.obs_dim), f"obs_names must be {self.obs_dim} texts, got {self.obs_names}"
        )
        self._require(len(self.planar_units) == 2, f"planar_units must be two texts, got {self.planar_units}")
        hz = self.control_hz
        self._require(
            hz is None or (isinstance(hz, Real) and 0 < hz < math.inf),
            f"control_hz must be a finite number > 0, or None, got {hz!r}",
        )

    def _require(self, sound: bool, message: str) -> None:
        if not sound:
            raise TaskError(f"{self.name}: {message}")

    @property
    def planar_labels(self) -> tuple[str, str]:
        """The two planar columns with their units, for axes."""
        x, y = (f"{name} ({unit})" if unit else name for name, unit in zip(self.planar, self.planar_units, strict=True))
        return x, y

    @property
    def track_dim(self) -> int:
        return len(self.track_names)


Actions = TypeVar("Actions", NDArray[Any], Tensor)
"""Actions (..., action_dim), as an array or as a tensor."""


def to_bounds(action: Actions, low: Actions, high: Actions) -> Actions:
    """Actions in the units of their bounds (action_dim,), from those in [-1, 1]; exact where these are the bounds."""
    scaled: Actions = (low + high) / 2 + action * ((high - low) / 2)
    return scaled


def from_bounds(action: Actions, low: Actions, high: Actions) -> Actions:
    """Undoes `to_bounds`."""
    scaled: Actions = (action - (low + high) / 2) / ((high - low) / 2)
    return scaled


@dataclass(frozen=True)
class Transition:
    """What `n` control steps did to every environment.

    An environment whose episode ends inside the chunk freezes there: later steps repeat its last
    observation and track and pay nothing.
    """

    obs_path: Tensor  # (n, num_envs, obs_dim) observation after each control step
    track_path: Tensor  # (n, num_envs, track_dim) track after each control step
    reward: Tensor  # (n, num_envs) reward of each control step
    terminated: Tensor  # (num_envs,) the episode ended in this chunk by itself (success or failure)
    truncated: Tensor  # (num_envs,) the episode ended in this chunk by the time limit
    success: Tensor  # (num_envs,) the episode ended in this chunk by itself and succeeded
    steps: Tensor  # (num_envs,) int64 control steps taken before the episode ended; `n` if it runs on

    @property
    def obs(self) -> Tensor:
        """(num_envs, obs_dim) last observation, which the policy sees next."""
        return self.obs_path[-1]

    @property
    def done(self) -> Tensor:
        """(num_envs,) the episode ended in this chunk."""
        return self.terminated | self.truncated


class TaskEnv(Protocol):
    """What stages use of a task, whether it runs here or in worker processes."""

    spec: TaskSpec
    num_envs: int
    device: torch.device

    def reset(self, seed: int) -> Tensor:
        """Starts a new episode everywhere; returns the observation (num_envs, obs_dim)."""

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""

    def step(self, action: Tensor) -> Transition:
        """One control step with action (num_envs, action_dim)."""
        return self.step_chunk(action[:, None])

    def step_chunk(self, actions: Tensor) -> Transition:
        """Executes actions (num_envs, n, action_dim), clipped to [-1, 1], one after the other."""

    def close(self) -> None:
        """Releases the simulator; calling it twice is harmless."""


def require_shape(actions: Tensor, env: TaskEnv) -> None:
    """Makes sure that actions are (num_envs, n, action_dim), or raises a TaskError."""
    expected = (env.num_envs, env.spec.action_dim)
    if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != expected:
        shape = f"({env.num_envs}, n, {env.spec.action_dim})"
        raise TaskError(f"{env.spec.name}: actions must be {shape}, got {tuple(actions.shape)}")


def require_tensor(value: object, shape: tuple[int, ...], dtype: torch.dtype, task: str, what: str) -> None:
    """Makes sure that what a task gave is a tensor of that shape and type, or raises a TaskError."""
    if isinstance(value, Tensor) and value.dtype == dtype and value.shape == shape:
        return
    got = "a tensor" if isinstance(value, Tensor) else f"{type(value).__module__}.{type(value).__qualname__}"
    got = "None" if value is None else got.removeprefix("builtins.")
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        got += f" of {value.dtype}, {tuple(value.shape)}"
    raise TaskError(f"task {task}: {what} must be a tensor of {dtype}, {shape}, got {got}")


class VectorTask(TaskEnv, ABC):
    """Base of every task: episode bookkeeping around four hooks. Subclasses set `spec` and implement the hooks.

    Environments whose episode ended stay frozen until `reset`. Whatever the hooks of a task outside this package raise,
    or return in another shape or type, is a TaskError of `reset` and `step_chunk`.

    Attributes:
        capturable: whether `step_chunk` can be recorded as a CUDA graph (`rl.graphs`): hooks change tensors in place
            only, and those of a step draw no random numbers and never copy from the device to the host.
    """

    capturable = False

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        if num_envs < 1:
            raise TaskError(f"num_envs must be >= 1, got {num_envs}")
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.ended = torch.ones(num_envs, dtype=torch.bool, device=self.device)
        self._started = False

    # hooks -------------------------------------------------------------------------------------------

    @abstractmethod
    def _reset(self, seed: int) -> None:
        """Draws a new initial state everywhere; the seed fixes all randomness of these episodes."""

    @abstractmethod
    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moves the active environments by one control step and leaves the others alone.

        Args:
            action: (num_envs, action_dim) in the environment's units, within the bounds of the spec.
            active: (num_envs,) bool.

        Returns:
            reward, terminated and success, each (num_envs,); values of inactive rows are ignored. Success counts where
            the episode terminates: a task that is judged at its time limit terminates there itself.
        """

    @abstractmethod
    def _observe(self) -> Tensor:
        """Current observation (num_envs, obs_dim), a tensor of its own."""

    @abstractmethod
    def track(self) -> Tensor:
        """Current track (num_envs, track_dim), a tensor of its own."""

    # contract ----------------------------------------------------------------------------------------

    def reset(self, seed: int) -> Tensor:
        """See `TaskEnv.reset`; the same seed gives the same episodes under the same actions."""
        with self._blame("reset"):
            self._reset(seed)
            self.elapsed.zero_()
            self.ended.zero_()
            self._started = True
            obs = self._observe()
        with self._blame("track"):
            self._require_seen(obs, self.track(), "reset")
        return obs

    def step_chunk(self, actions: Tensor) -> Transition:
        """See `TaskEnv.step_chunk`; environments freeze where their episode ends.

        Raises:
            TaskError: the task was not reset, actions have the wrong shape, or the task fails.
        """
        if not self._started:
            raise TaskError(f"{self.spec.name}: call reset(seed) before stepping")
        require_shape(actions, self)
        actions = to_bounds(actions.clamp(-1.0, 1.0), *self._action_bounds)
        terminated, truncated, success = (torch.zeros_like(self.ended) for _ in range(3))
        steps = torch.zeros_like(self.elapsed)
        obs_path, track_path, rewards = [], [], []
        with self._blame("step"):
            for i in range(actions.shape[1]):
                active = ~self.ended
                moved = self._advance(actions[:, i], active)
                if i == 0:  # what changes within a chunk can't be stacked
                    self._require_moved(moved)
                reward, finished, succeeded = moved
                self.elapsed += active
                steps += active
                finished = finished & active
                terminated |= finished
                success |= succeeded & finished
                truncated |= active & ~finished & (self.elapsed >= self.spec.horizon)
                self.ended |= terminated | truncated
                rewards.append(torch.where(active, reward, torch.zeros_like(reward)))
                obs, track = self._observe(), self.track()
                if i == 0:
                    self._require_seen(obs, track, "step")
                obs_path.append(obs)
                track_path.append(track)
            paths = torch.stack(obs_path), torch.stack(track_path), torch.stack(rewards)
        return Transition(*paths, terminated, truncated, success, steps)

    def _blame(self, what: str) -> AbstractContextManager[None]:
        module = type(self).__module__
        return nullcontext() if module.startswith("bmd_pipeline.") else blame(f"task {self.spec.name}", module, what)

    def _require_moved(self, moved: object) -> None:
        """Checks what `_advance` returned, by attributes alone: nothing is read from a device."""
        task = self.spec.name
        if not isinstance(moved, (tuple, list)) or len(moved) != 3:
            got = f"{len(moved)} values" if isinstance(moved, (tuple, list)) else type(moved).__name__
            raise TaskError(f"task {task}: a step must give reward, terminated and success, got {got}")
        reward, terminated, success = moved
        flat = (self.num_envs,)
        require_tensor(reward, flat, torch.float32, task, "reward of a step")
        require_tensor(terminated, flat, torch.bool, task, "terminated of a step")
        require_tensor(success, flat, torch.bool, task, "success of a step")

    def _require_seen(self, obs: object, track: object, when: str) -> None:
        """Checks an observation and a track in the same way."""
        spec, rows = self.spec, self.num_envs
        require_tensor(obs, (rows, spec.obs_dim), torch.float32, spec.name, f"observation of a {when}")
        require_tensor(track, (rows, spec.track_dim), torch.float32, spec.name, f"track of a {when}")

    @functools.cached_property
    def _action_bounds(self) -> tuple[Tensor, Tensor]:
        """(action_dim,) each; made once, since a CUDA graph takes nothing from the host."""
        low, high = torch.tensor([self.spec.action_low, self.spec.action_high], device=self.device)
        return low, high

    def close(self) -> None:
        return  # native tasks hold nothing


class PointTask(VectorTask):
    """Base of tasks of a point in the plane, which need no simulator. The track is `position` (num_envs, 2)."""

    capturable = True

    def __init__(self, options: Any, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.options = options
        self.spec = self.make_spec(options)
        self.position = torch.zeros(num_envs, 2, device=self.device)
        self._generator = torch.Generator(device=self.device)

    @classmethod
    @abstractmethod
    def make_spec(cls, options: Any) -> TaskSpec:
        """Fixed facts of the task."""

    @classmethod
    def make_env(cls, options: Any, num_envs: int, *, device: torch.device | str, num_workers: int) -> TaskEnv:
        """Builds environments of the task, which need no worker processes; see `registry.make_env`."""
        return cls(options, num_envs, device)

    @abstractmethod
    def _make_start(self, normal: Tensor) -> Tensor:
        """Starts (num_envs, 2) from standard normal numbers (num_envs, 2)."""

    def _reset(self, seed: int) -> None:
        self._generator.manual_seed(seed)
        normal = torch.randn(self.num_envs, 2, generator=self._generator, device=self.device)
        self.position.copy_(self._make_start(normal))

    def _move(self, shift: Tensor, active: Tensor) -> None:
        torch.where(active[:, None], self.position + shift, self.position, out=self.position)

    def track(self) -> Tensor:
        return self.position.clone()


@dataclass(frozen=True)
class Episode:
    """One demonstration of T control steps."""

    obs: NDArray[np.float32]  # (T, obs_dim), the observation each action answers
    action: NDArray[np.float32]  # (T, action_dim), clean, before execution noise, in the environment's units
    success: bool  # whether it counts as a demonstration: the expert's own judgement, usually the task's success
    behaviour: int  # index into the expert's `behaviours` that was asked for


class Expert(Protocol):
    """A scripted policy. One is built in each collecting process and used for many episodes."""

    behaviours: tuple[str, ...]

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """Plays one noisy episode of the wanted behaviour; the same seed gives the same episode."""

    def close(self) -> None:
        """Releases the simulator."""


Act = Callable[[], NDArray[np.float64] | None]
"""Returns the clean action (action_dim,) in [-1, 1] for the task's present state, or None to abandon the episode."""


def play(env: VectorTask, first_obs: Tensor, act: Act, noise: NDArray[np.float64], behaviour: int) -> Episode:
    """Plays an episode to its end.

    Args:
        env: a task of one environment, just reset.
        first_obs: (1, obs_dim) what the reset returned.
        act: the expert.
        noise: (horizon, action_dim) added to what is executed, on the same scale.
        behaviour: what the expert was asked for.

    Returns:
        The episode; without a step, so not a success, if `act` abandons it at once.
    """
    low, high = np.array(env.spec.action_low), np.array(env.spec.action_high)
    obs, success = first_obs, False
    observations: list[NDArray[np.float32]] = []
    actions: list[NDArray[np.float32]] = []
    while not bool(env.ended[0]) and (clean := act()) is not None:
        action = np.clip(clean, -1.0, 1.0)
        executed = torch.tensor(action + noise[len(actions)], dtype=torch.float32)
        observations.append(obs[0].numpy())
        actions.append(to_bounds(action, low, high).astype(np.float32))
        moved = env.step(executed[None])
        obs, success = moved.obs, bool(moved.success[0])
    seen = np.array(observations, np.float32).reshape(-1, env.spec.obs_dim)
    done = np.array(actions, np.float32).reshape(-1, env.spec.action_dim)
    return Episode(seen, done, success, behaviour)


PERSISTENCE = 0.7
"""Autocorrelation of an expert's noise from one step to the next."""


def draw_noise(std: float, shape: tuple[int, int], draw: np.random.Generator) -> NDArray[np.float64]:
    """Noise of shape (steps, dim): a first-order autoregression that starts at 0 and approaches `std`."""
    noise = std * math.sqrt(1.0 - PERSISTENCE**2) * draw.standard_normal(shape)
    for step in range(1, shape[0]):
        noise[step] += PERSISTENCE * noise[step - 1]
    return noise


Task = TypeVar("Task", bound=VectorTask)


class NoisyExpert(ABC, Generic[Task]):
    """Base of experts that execute noisy actions and record the clean ones.

    Executed noise takes episodes off the intended path, so that demonstrations show corrections, which a cloned policy
    needs. The task has one environment; the expert closes it.

    Source: injecting noise into the expert as in DART (arXiv 1703.09327).
    """

    behaviours: tuple[str, ...]
    noiseless: tuple[int, ...] = ()  # components of the action that no noise is added to

    def __init__(self, env: Task, noise_std: float) -> None:
        self._env, self._noise_std = env, noise_std

    @abstractmethod
    def _begin(self, behaviour: int, draw: np.random.Generator) -> Act:
        """Plans an episode of the task as it was just reset; what it draws makes episodes differ."""

    def _has_shown(self, behaviour: int) -> bool:
        """Whether the successful episode that just ended was one of the wanted behaviour."""
        return True

    def _make_generator(self, behaviour: int, seed: int) -> np.random.Generator:
        # SceneTask draws the start from (seed, row, 0), here row 0. NumPy ignores trailing zeros of a seed, so the
        # fourth number must not be 0.
        return np.random.default_rng((seed, 0, 0, 1 + behaviour))

    def _draw_noise(self, draw: np.random.Generator) -> NDArray[np.float64]:
        """(horizon, action_dim)."""
        return draw_noise(self._noise_std, (self._env.spec.horizon, self._env.spec.action_dim), draw)

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """See `Expert.demonstrate`."""
        draw = self._make_generator(behaviour, seed)
        obs = self._env.reset(seed)
        act = self._begin(behaviour, draw)
        noise = self._draw_noise(draw)
        noise[:, self.noiseless] = 0.0
        episode = play(self._env, obs, act, noise, behaviour)
        return replace(episode, success=episode.success and self._has_shown(behaviour))

    def close(self) -> None:
        self._env.close()


class ModeLabelling(Protocol):
    """A labelling of episodes by their true modes. For evaluation only: no training code imports a task's `modes`."""

    @property
    def name(self) -> str:
        """Name of the labelling, such as "turn"."""

    @property
    def modes(self) -> tuple[str, ...]:
        """Names of its modes."""

    def label(self, track: Tensor, length: Tensor, success: Tensor) -> Tensor:
        """Says which mode each episode belongs to.

        Args:
            track: (T + 1, num_episodes, track_dim), the last entry repeated after the end.
            length: (num_episodes,) control steps taken.
            success: (num_episodes,) bool.

        Returns:
            (num_episodes, len(modes)) rows that sum to one: one-hot for successes; failed episodes are
            spread over the modes they were still compatible with, so that failures count against them.
        """


@dataclass(frozen=True)
class Labelling:
    """A `ModeLabelling` that is made of a function."""

    name: str
    modes: tuple[str, ...]
    label: Callable[[Tensor, Tensor, Tensor], Tensor]
