"""Checks of the task contract, for `bmd-pipeline check-task` and the tests."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.demos.collect import find_unusable, require_episode
from bmd_pipeline.demos.comparison import compare_with_task
from bmd_pipeline.demos.store import load_demos
from bmd_pipeline.environments.base import LARGEST, TaskEnv, TaskSpec, Transition, VectorTask
from bmd_pipeline.errors import DataError, TaskError
from bmd_pipeline.tasks.registry import (
    MissingExpertError,
    blame_task,
    load_labellings,
    make_env,
    make_expert,
    make_spec,
)

# Every check plays the task and compares tensors exactly: a simulator that carries a little state over a reset
# passes for correct until two runs with one seed differ. A check returns what it saw, or raises.

CHUNK = 4
SEED, OTHER_SEED = 0, 1
MIN_EXPERT_SUCCESS = 0.5
"""An expert that fails more often than not wastes more than it collects."""


class BrokenContractError(Exception):
    """The task breaks the contract; the message says how."""


class _Skipped(Exception):  # noqa: N818 - nothing went wrong
    """There is nothing to check; the message says why."""


@dataclass
class TaskUnderTest:
    """A task under test."""

    name: str
    values: dict[str, Any]
    spec: TaskSpec
    env: TaskEnv
    device: torch.device
    expert_episodes: int
    demos: Path | None

    def actions(self, steps: int, scale: float = 1.0) -> Tensor:
        """The same random actions (num_envs, steps, action_dim) at every call, of min(steps, horizon) steps."""
        generator = torch.Generator().manual_seed(SEED)
        shape = (self.env.num_envs, min(steps, self.spec.horizon), self.spec.action_dim)
        return ((2 * torch.rand(shape, generator=generator) - 1) * scale).to(self.device)


def _require(condition: object, message: str) -> None:
    if not bool(condition):
        raise BrokenContractError(message)


def _require_usable(tensor: Tensor, name: str) -> None:
    _require((tensor.abs() <= LARGEST).all(), f"{name} has values that are not finite, or beyond {LARGEST:g}")


def _require_same(left: Tensor, right: Tensor, what: str) -> None:
    _require(left.shape == right.shape, f"{what}: shapes {tuple(left.shape)} and {tuple(right.shape)} differ")
    if not torch.equal(left, right):
        gap = float((left.float() - right.float()).abs().max())
        raise BrokenContractError(f"{what} differ by up to {gap:.3g}")


def _require_same_paths(left: Transition, right: Transition, when: str) -> None:
    _require_same(left.obs_path, right.obs_path, f"observations {when}")
    _require_same(left.track_path, right.track_path, f"tracks {when}")
    _require_same(left.reward, right.reward, f"rewards {when}")


def check_spec(task: TaskUnderTest) -> str:
    """The fixed facts are those of the environment; that they agree with each other is seen when they are made."""
    spec = task.spec
    _require(task.env.spec == spec, "make_spec and the environment's spec differ")
    return f"obs {spec.obs_dim}, action {spec.action_dim}, track {spec.track_dim}, horizon {spec.horizon}"


def check_tensors(task: TaskUnderTest) -> str:
    """Shapes, types and devices are as the contract says, and all values are finite."""
    env, spec, device = task.env, task.spec, task.device
    n = env.num_envs
    obs, track = env.reset(SEED), env.track()
    kept = obs.clone(), track.clone()
    steps = min(CHUNK, spec.horizon)
    moved = env.step_chunk(task.actions(steps))
    same = torch.equal(obs.nan_to_num(), kept[0].nan_to_num()) and torch.equal(track.nan_to_num(), kept[1].nan_to_num())
    _require(same, "the observation or track of the reset changed with the next steps: return clones")
    expected = {
        "reset obs": (obs, (n, spec.obs_dim), torch.float32),
        "obs": (moved.obs, (n, spec.obs_dim), torch.float32),
        "obs_path": (moved.obs_path, (steps, n, spec.obs_dim), torch.float32),
        "track_path": (moved.track_path, (steps, n, spec.track_dim), torch.float32),
        "track": (env.track(), (n, spec.track_dim), torch.float32),
        "reward": (moved.reward, (steps, n), torch.float32),
        "terminated": (moved.terminated, (n,), torch.bool),
        "truncated": (moved.truncated, (n,), torch.bool),
        "success": (moved.success, (n,), torch.bool),
        "steps": (moved.steps, (n,), torch.int64),
    }
    for name, (tensor, shape, dtype) in expected.items():
        _require(tensor.shape == shape, f"{name} must have shape {shape}, has {tuple(tensor.shape)}")
        _require(tensor.dtype == dtype, f"{name} must be {dtype}, is {tensor.dtype}")
        _require(tensor.device.type == device.type, f"{name} must be on {device}, is on {tensor.device}")
        if tensor.is_floating_point():
            _require_usable(tensor, name)
    return f"{len(expected)} tensors of {n} environments on {device}"


def check_determinism(task: TaskUnderTest) -> str:
    """The same seed and actions give the same episode, whatever was played before."""
    actions = task.actions(24)
    first, obs = _play(task.env, SEED, actions)
    _play(task.env, OTHER_SEED, actions)  # leaves the simulator in another state
    again, obs_again = _play(task.env, SEED, actions)
    _require_same(obs, obs_again, "first observations of one seed")
    _require_same_paths(first, again, "of one seed")
    return f"{actions.shape[1]} steps are equal bit by bit after another episode in between"


def check_seeds_differ(task: TaskUnderTest) -> str:
    """Different seeds, and the environments of one batch, start differently."""
    first, second = task.env.reset(SEED), task.env.reset(OTHER_SEED)
    _require(not torch.equal(first, second), f"seeds {SEED} and {OTHER_SEED} start all episodes alike")
    if task.env.num_envs > 1:
        _require(not torch.equal(first[0], first[1]), "environments of one batch start alike")
    return f"largest difference of first observations {float((first - second).abs().max()):.3g}"


def check_clipping(task: TaskUnderTest) -> str:
    """Actions outside [-1, 1] act like the nearest ones inside."""
    actions = task.actions(CHUNK, scale=5.0)
    wild, _ = _play(task.env, SEED, actions)
    tame, _ = _play(task.env, SEED, actions.clamp(-1, 1))
    _require_same_paths(wild, tame, "under clipped and unclipped actions")
    return f"actions up to {float(actions.abs().max()):.1f} act like their clipped values"


def check_chunk(task: TaskUnderTest) -> str:
    """Executing a chunk is the same as executing its actions one by one."""
    env = task.env
    actions = task.actions(CHUNK)
    whole, _ = _play(env, SEED, actions)
    env.reset(SEED)
    steps = [env.step(actions[:, i]) for i in range(actions.shape[1])]
    paths = {
        field: torch.cat([getattr(step, field) for step in steps]) for field in ("obs_path", "track_path", "reward")
    }
    _require_same_paths(whole, replace(whole, **paths), "of chunk and steps")
    success = torch.stack([step.success for step in steps]).any(dim=0)
    _require_same(whole.success, success, "success of chunk and steps")
    _require_same(whole.steps, torch.stack([step.steps for step in steps]).sum(dim=0), "step counts")
    return f"{actions.shape[1]} steps"


def check_time_limit(task: TaskUnderTest) -> str:
    """Idle episodes are truncated at the horizon, not before and not after."""
    env, horizon = task.env, task.spec.horizon
    still = torch.zeros_like(task.actions(1))[:, 0]
    env.reset(SEED)
    ended = torch.zeros_like(still[:, 0], dtype=torch.bool)
    for step in range(1, horizon + 1):
        moved = env.step(still)
        _require(step == horizon or not moved.truncated.any(), f"truncated after {step} steps, horizon is {horizon}")
        _require(not (moved.truncated & moved.terminated).any(), "an episode is both terminated and truncated")
        ended |= moved.terminated
    _require_same(moved.truncated, ~ended, f"truncation at step {horizon} and episodes still running")
    count = int(moved.truncated.sum())
    return f"{count} of {env.num_envs} idle episodes ran into it after {horizon} steps"


def check_freezing(task: TaskUnderTest) -> str:
    """Ended episodes neither move nor pay, until a reset starts new ones."""
    env = task.env
    _play_out(task)
    obs, track = env.step(task.actions(1)[:, 0]).obs, env.track()
    after = env.step_chunk(task.actions(CHUNK))
    _require_same(after.obs, obs, "observations of ended episodes")
    _require_same(after.track_path[-1], track, "tracks of ended episodes")
    _require(not after.reward.any(), "ended episodes are still paid")
    _require(not (after.done | after.success).any(), "ended episodes end again")
    _require(not after.steps.any(), "ended episodes still count steps")
    env.reset(SEED)
    _require(env.step(task.actions(1)[:, 0]).steps.all(), "a reset does not start new episodes")
    return f"{env.num_envs} ended episodes did not move"


def check_success(task: TaskUnderTest) -> str:
    """Where a task says success, it also says that the episode ended: success counts nowhere else."""
    env = task.env
    if not isinstance(env, VectorTask):
        raise _Skipped("it is stepped in other processes")
    advance, alone = env._advance, []

    def watch(action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reward, terminated, success = advance(action, active)
        alone.append(int((success & ~terminated & active).sum()))
        return reward, terminated, success

    vars(env)["_advance"] = watch
    try:
        _, _, success = _play_out(task)
    finally:
        del vars(env)["_advance"]
    _require(not any(alone), f"{sum(alone)} steps of {env.num_envs} episodes say success, and not terminated")
    return f"{int(success.sum())} of {env.num_envs} random episodes succeeded"


def check_labellings(task: TaskUnderTest) -> str:
    """Mode weights are distributions over modes, one-hot for successes."""
    labellings = load_labellings(task.name)
    track, length, success = _play_out(task)
    for labelling in labellings:
        weights = labelling.label(track, length, success)
        _require((weights >= 0).all(), f"labelling {labelling.name!r}: a weight is negative")
        gap = float((weights.sum(dim=1) - 1).abs().max())
        _require(gap < 1e-4, f"labelling {labelling.name!r}: rows must sum to 1, one is off by {gap:.3g}")
        sure = weights[success].max(dim=1).values if success.any() else torch.ones(1)
        _require((sure > 0.999).all(), f"labelling {labelling.name!r}: a successful episode has no single mode")
    return ", ".join(f"{labelling.name} ({len(labelling.modes)} modes)" for labelling in labellings)


def check_expert(task: TaskUnderTest) -> str:
    """The expert's episodes fit the task, and it succeeds in each of its behaviours."""
    spec, episodes = task.spec, task.expert_episodes
    with closing(make_expert(task.name, task.values)) as expert:
        shares = []
        for behaviour, title in enumerate(expert.behaviours):
            wins = 0
            for i in range(episodes):
                with blame_task(task.name, f"the expert ({title})"):
                    given = expert.demonstrate(behaviour, SEED + i)
                shown = require_episode(given, behaviour, f"the expert ({title})")
                wrong, length, found = find_unusable(shown), len(shown.obs), (shown.obs.shape, shown.action.shape)
                _require(not wrong, f"{title}: {wrong}")
                expected = (length, spec.obs_dim), (length, spec.action_dim)
                _require(found == expected and length, f"{title}: episode shapes must be {expected}, are {found}")
                _require(length <= spec.horizon, f"{title}: {length} steps, horizon is {spec.horizon}")
                for component, low, high in zip(shown.action.T, spec.action_low, spec.action_high, strict=True):
                    worst = max(component, key=lambda value: abs(value - (low + high) / 2))
                    _require(low <= worst <= high, f"{title}: action {worst:.3g} is outside [{low:g}, {high:g}]")
                _require(shown.behaviour == behaviour, f"{title}: the episode says behaviour {shown.behaviour}")
                wins += shown.success
            _require(wins, f"{title}: no success in {episodes} episodes")
            shares.append(wins / episodes)
        mean = sum(shares) / len(shares)
        _require(mean >= MIN_EXPERT_SUCCESS, f"success {mean:.2f}, must be >= {MIN_EXPERT_SUCCESS}")
        return f"success {mean:.2f} over {len(shares)} behaviours x {episodes} episodes"


def check_demos(task: TaskUnderTest) -> str:
    """Demonstrations show the same observations as the task."""
    if task.demos is None:
        raise _Skipped("there are none yet")
    spec = task.spec
    demos = load_demos(task.demos, obs_dim=spec.obs_dim, action_dim=spec.action_dim)
    differences = compare_with_task(demos, task.env)
    _require(not differences, differences)
    return f"{demos.num_episodes} demonstrations of {task.demos}"


def _play(env: TaskEnv, seed: int, actions: Tensor) -> tuple[Transition, Tensor]:
    """One chunk from a reset, and the first observation."""
    obs = env.reset(seed)
    return env.step_chunk(actions), obs


def _play_out(task: TaskUnderTest) -> tuple[Tensor, Tensor, Tensor]:
    """Random episodes to their end: track (T + 1, N, track_dim), length (N,), success (N,)."""
    env = task.env
    env.reset(SEED)
    start = env.track()[None]
    moved = env.step_chunk(task.actions(task.spec.horizon))
    for name in ("obs_path", "track_path", "reward"):
        _require_usable(getattr(moved, name), f"{name} of a whole episode")
    return torch.cat([start, moved.track_path]), moved.steps, moved.success


CHECKS: dict[str, Callable[[TaskUnderTest], str]] = {
    "spec is consistent": check_spec,
    "shapes, types, devices and finite values": check_tensors,
    "same seed, same trajectory": check_determinism,
    "different seeds differ": check_seeds_differ,
    "actions are clipped to [-1, 1]": check_clipping,
    "a chunk equals its single steps": check_chunk,
    "time limit at the horizon": check_time_limit,
    "ended episodes stay frozen": check_freezing,
    "success ends the episode": check_success,
    "mode weights are distributions": check_labellings,
    "expert succeeds in every behaviour": check_expert,
    "demonstrations look like the task": check_demos,
}


@dataclass(frozen=True)
class CheckResult:
    """What one check found."""

    name: str  # what was checked
    passed: bool  # whether the task does it right
    detail: str  # the numbers if it passed, the reason if it did not
    skipped: bool = False  # whether there was nothing to check, which is no failure; the detail says why


def check_task(
    name: str,
    values: dict[str, Any],
    *,
    num_envs: int = 4,
    device: str = "cpu",
    expert_episodes: int = 3,
    demos: Path | None = None,
) -> list[CheckResult]:
    """Runs every check on a registered task under `env` settings; a broken task is a result, not an exception.

    An unknown task, one that can't be built, or a simulator that isn't installed, is a TaskError, a wrong setting a
    ConfigError. The expert is asked for `expert_episodes` of each behaviour; `demos` is a store of demonstrations.
    """
    spec = make_spec(name, values)
    with closing(make_env(name, values, num_envs, device=device)) as env:
        task = TaskUnderTest(name, values, spec, env, torch.device(device), expert_episodes, demos)
        return [_run(title, check, task) for title, check in CHECKS.items()]


def _run(title: str, check: Callable[[TaskUnderTest], str], task: TaskUnderTest) -> CheckResult:
    try:
        return CheckResult(title, True, check(task))
    except (MissingExpertError, _Skipped) as missing:
        return CheckResult(title, True, str(missing), skipped=True)
    except (BrokenContractError, DataError, TaskError) as broken:
        return CheckResult(title, False, str(broken))
    except Exception as error:  # a task's own code may raise anything; the other checks still run
        reason = str(error).splitlines()[0] if str(error) else ""
        return CheckResult(title, False, f"raised {type(error).__name__}: {reason}")
