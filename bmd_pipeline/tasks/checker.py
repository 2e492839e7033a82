"""Does a task keep the contract? For authors of tasks, and for the tests of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.environments.base import Expert, ModeLabeler, TaskEnv, TaskSpec, Transition
from bmd_pipeline.tasks.registry import MissingExpertError, load_labellings, make_env, make_expert, make_spec

# ---- The single checks of the task contract ----
#
# Every check plays the task and compares tensors exactly: a simulator that carries a little state over a reset
# passes for correct until two runs with one seed differ. A check returns what it saw, or raises.

CHUNK = 4
MIN_EXPERT_SUCCESS = 0.5
"""An expert that fails more often than not wastes more than it collects."""


class BrokenContractError(Exception):
    """The task breaks the contract; the message says how."""


@dataclass
class Bench:
    """A task under test. `frozen` keeps ended episodes, `renewing` starts new ones."""

    spec: TaskSpec
    frozen: TaskEnv
    renewing: TaskEnv
    device: torch.device
    seed: int
    other_seed: int

    def actions(self, steps: int, scale: float = 1.0) -> Tensor:
        """The same random actions (num_envs, steps, action_dim) at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.frozen.num_envs, steps, self.spec.action_dim)
        return ((2 * torch.rand(shape, generator=generator) - 1) * scale).to(self.device)


def _demand(condition: object, message: str) -> None:
    if not bool(condition):
        raise BrokenContractError(message)


def _demand_equal(left: Tensor, right: Tensor, what: str) -> None:
    _demand(left.shape == right.shape, f"{what}: shapes {tuple(left.shape)} and {tuple(right.shape)} differ")
    if not torch.equal(left, right):
        gap = float((left.float() - right.float()).abs().max())
        raise BrokenContractError(f"{what} differ by up to {gap:.3g}")


def check_spec(bench: Bench) -> str:
    """The fixed facts agree with each other and with the environment."""
    spec = bench.spec
    _demand(bench.frozen.spec == spec, "make_spec and the environment's spec differ")
    _demand(
        min(spec.obs_dim, spec.action_dim, spec.track_dim, spec.horizon) >= 1, "dimensions and horizon must be >= 1"
    )
    _demand(len(set(spec.track_names)) == spec.track_dim, f"track names repeat: {', '.join(spec.track_names)}")
    for column in spec.planar:
        _demand(column in spec.track_names, f"planar column {column!r} is not in the track")
    return f"obs {spec.obs_dim}, action {spec.action_dim}, track {spec.track_dim}, horizon {spec.horizon}"


def check_tensors(bench: Bench) -> str:
    """Shapes, types and devices are as the contract says, and all values are finite."""
    env, spec = bench.frozen, bench.spec
    n = env.num_envs
    obs = env.reset(bench.seed)
    steps = min(CHUNK, spec.horizon)
    moved = env.step_chunk(bench.actions(steps))
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
        _demand(tensor.shape == shape, f"{name} must have shape {shape}, has {tuple(tensor.shape)}")
        _demand(tensor.dtype == dtype, f"{name} must be {dtype}, is {tensor.dtype}")
        _demand(tensor.device.type == bench.device.type, f"{name} must be on {bench.device}, is on {tensor.device}")
        _demand(torch.isfinite(tensor.float()).all(), f"{name} has values that are not finite")
    return f"{len(expected)} tensors of {n} environments on {bench.device}"


def check_determinism(bench: Bench) -> str:
    """The same seed and actions give the same episode, whatever was played before."""
    actions = bench.actions(min(24, bench.spec.horizon))
    first, obs = _play(bench.frozen, bench.seed, actions)
    _play(bench.frozen, bench.other_seed, actions)  # leaves the simulator in another state
    again, obs_again = _play(bench.frozen, bench.seed, actions)
    _demand_equal(obs, obs_again, "first observations of one seed")
    _demand_equal(first.obs_path, again.obs_path, "observations of one seed")
    _demand_equal(first.track_path, again.track_path, "tracks of one seed")
    _demand_equal(first.reward, again.reward, "rewards of one seed")
    return f"{actions.shape[1]} steps are equal bit by bit after another episode in between"


def check_seeds_differ(bench: Bench) -> str:
    """Different seeds, and the environments of one batch, start differently."""
    first, second = bench.frozen.reset(bench.seed), bench.frozen.reset(bench.other_seed)
    _demand(not torch.equal(first, second), f"seeds {bench.seed} and {bench.other_seed} start all episodes alike")
    if bench.frozen.num_envs > 1:
        _demand(not torch.equal(first[0], first[1]), "environments of one batch start alike")
    return f"largest difference of first observations {float((first - second).abs().max()):.3g}"


def check_clipping(bench: Bench) -> str:
    """Actions outside [-1, 1] act like the nearest ones inside."""
    actions = bench.actions(min(CHUNK, bench.spec.horizon), scale=5.0)
    wild, _ = _play(bench.frozen, bench.seed, actions)
    tame, _ = _play(bench.frozen, bench.seed, actions.clamp(-1, 1))
    _demand_equal(wild.obs_path, tame.obs_path, "observations under clipped and unclipped actions")
    _demand_equal(wild.reward, tame.reward, "rewards under clipped and unclipped actions")
    return f"actions up to {float(actions.abs().max()):.1f} act like their clipped values"


def check_chunk(bench: Bench) -> str:
    """Executing a chunk is the same as executing its actions one by one."""
    env = bench.frozen
    actions = bench.actions(min(CHUNK, bench.spec.horizon))
    whole, _ = _play(env, bench.seed, actions)
    env.reset(bench.seed)
    steps = [env.step(actions[:, i]) for i in range(actions.shape[1])]
    _demand_equal(whole.obs_path, torch.cat([step.obs_path for step in steps]), "observations of chunk and steps")
    _demand_equal(whole.track_path, torch.cat([step.track_path for step in steps]), "tracks of chunk and steps")
    _demand_equal(whole.reward, torch.cat([step.reward for step in steps]), "rewards of chunk and steps")
    _demand_equal(whole.success, torch.stack([step.success for step in steps]).any(dim=0), "success of chunk and steps")
    _demand_equal(whole.steps, torch.stack([step.steps for step in steps]).sum(dim=0), "step counts")
    return f"{actions.shape[1]} steps"


def check_time_limit(bench: Bench) -> str:
    """Idle episodes are truncated at the horizon, not before and not after."""
    env, horizon = bench.frozen, bench.spec.horizon
    still = torch.zeros_like(bench.actions(1))[:, 0]
    env.reset(bench.seed)
    ended = torch.zeros(env.num_envs, dtype=torch.bool, device=bench.device)
    for step in range(1, horizon + 1):
        moved = env.step(still)
        _demand(step == horizon or not moved.truncated.any(), f"truncated after {step} steps, horizon is {horizon}")
        _demand(not (moved.truncated & moved.terminated).any(), "an episode is both terminated and truncated")
        ended |= moved.terminated
    _demand_equal(moved.truncated, ~ended, f"truncation at step {horizon} and episodes still running")
    count = int(moved.truncated.sum())
    return f"{count} of {env.num_envs} idle episodes ran into it after {horizon} steps"


def check_freezing(bench: Bench) -> str:
    """Without automatic reset, ended episodes neither move nor pay."""
    env = bench.frozen
    _play_out(bench, env)
    obs, track = env.step(bench.actions(1)[:, 0]).final_obs, env.track()
    after = env.step_chunk(bench.actions(CHUNK))
    _demand_equal(after.final_obs, obs, "observations of ended episodes")
    _demand_equal(after.track_path[-1], track, "tracks of ended episodes")
    _demand(not after.reward.any(), "ended episodes are still paid")
    _demand(not (after.done | after.success).any(), "ended episodes end again")
    _demand(not after.steps.any(), "ended episodes still count steps")
    return f"{env.num_envs} ended episodes did not move"


def check_auto_reset(bench: Bench) -> str:
    """With automatic reset, an ended episode keeps its final observation and a new one starts."""
    frozen, renewing, spec = bench.frozen, bench.renewing, bench.spec
    actions = bench.actions(spec.horizon)
    frozen.reset(bench.seed)
    renewing.reset(bench.seed)
    unseen = torch.ones(frozen.num_envs, dtype=torch.bool, device=bench.device)
    for i in range(spec.horizon):
        kept, renewed = frozen.step(actions[:, i]), renewing.step(actions[:, i])
        # A new episode meets other actions than the frozen one: only first episodes can be compared.
        _demand_equal(renewed.final_obs[unseen], kept.final_obs[unseen], "final observations with and without reset")
        _demand_equal(renewed.done[unseen], kept.done[unseen], "ends of episodes with and without reset")
        going_on = unseen & ~renewed.done
        _demand_equal(
            renewed.obs[going_on], renewed.final_obs[going_on], "next and last observation of running episodes"
        )
        ending = unseen & renewed.done
        fresh = (renewed.obs != renewed.final_obs).any(dim=1)
        _demand(fresh[ending].all(), "an ended episode did not start anew")
        unseen = going_on
    _demand(not unseen.any(), f"{int(unseen.sum())} episodes outlive the horizon of {spec.horizon}")
    moved = renewing.step(actions[:, 0])
    _demand(moved.steps.all(), "a new episode does not run")
    return f"{frozen.num_envs} episodes ended as they should and were followed by new ones"


def check_labellings(bench: Bench, labellings: Sequence[ModeLabeler]) -> str:
    """Mode weights are distributions over modes, one-hot for successes."""
    _demand(labellings, "no labelling: modes can't be counted")
    names = [labelling.name for labelling in labellings]
    _demand(len(set(names)) == len(names), f"labellings repeat: {', '.join(names)}")
    track, length, success = _play_out(bench, bench.frozen)
    for labelling in labellings:
        modes = labelling.modes
        _demand("/" not in labelling.name, f"labelling {labelling.name!r}: the name must not contain '/'")
        _demand(len(set(modes)) == len(modes) >= 1, f"labelling {labelling.name!r}: modes must be some and not repeat")
        weights = labelling.label(track, length, success)
        expected = (len(length), len(modes))
        _demand(weights.shape == expected, f"{labelling.name}: weights must be {expected}, are {tuple(weights.shape)}")
        _demand((weights >= 0).all(), f"labelling {labelling.name!r}: a weight is negative")
        gap = float((weights.sum(dim=1) - 1).abs().max())
        _demand(gap < 1e-4, f"labelling {labelling.name!r}: rows must sum to 1, one is off by {gap:.3g}")
        sure = weights[success].max(dim=1).values if success.any() else torch.ones(1)
        _demand((sure > 0.999).all(), f"labelling {labelling.name!r}: a successful episode has no single mode")
    return ", ".join(f"{labelling.name} ({len(labelling.modes)} modes)" for labelling in labellings)


def check_expert(expert: Expert, bench: Bench, episodes: int) -> str:
    """The expert's episodes fit the task, and it succeeds in each of its behaviours."""
    spec, seed = bench.spec, bench.seed
    try:
        shares = []
        for behaviour, title in enumerate(expert.behaviours):
            wins = 0
            for i in range(episodes):
                shown = expert.demonstrate(behaviour, seed + i)
                expected = (len(shown.obs), spec.obs_dim), (len(shown.obs), spec.action_dim)
                found = shown.obs.shape, shown.action.shape
                _demand(
                    found == expected and len(shown.obs) >= 1,
                    f"{title}: episode shapes must be {expected}, are {found}",
                )
                _demand(len(shown.obs) <= spec.horizon, f"{title}: {len(shown.obs)} steps, horizon is {spec.horizon}")
                for component, low, high in zip(shown.action.T, spec.action_low, spec.action_high, strict=True):
                    worst = max(component, key=lambda value: abs(value - (low + high) / 2))
                    _demand(low <= worst <= high, f"{title}: action {worst:.3g} is outside [{low:g}, {high:g}]")
                _demand(shown.behaviour == behaviour, f"{title}: the episode says behaviour {shown.behaviour}")
                wins += shown.success
            _demand(wins, f"{title}: no success in {episodes} episodes")
            shares.append(wins / episodes)
        mean = sum(shares) / len(shares)
        _demand(mean >= MIN_EXPERT_SUCCESS, f"success {mean:.2f}, must be >= {MIN_EXPERT_SUCCESS}")
        return f"success {mean:.2f} over {len(shares)} behaviours x {episodes} episodes"
    finally:
        expert.close()


def _play(env: TaskEnv, seed: int, actions: Tensor) -> tuple[Transition, Tensor]:
    """One chunk from a reset, and the first observation."""
    obs = env.reset(seed)
    return env.step_chunk(actions), obs


def _play_out(bench: Bench, env: TaskEnv) -> tuple[Tensor, Tensor, Tensor]:
    """Random episodes to their end: track (T + 1, N, track_dim), length (N,), success (N,)."""
    env.reset(bench.seed)
    start = env.track()[None]
    moved = env.step_chunk(bench.actions(bench.spec.horizon))
    return torch.cat([start, moved.track_path]), moved.steps, moved.success


# ---- All checks, one after the other ----


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: what was checked.
        passed: whether the task does it right.
        detail: the numbers if it passed, the reason if it did not.
        skipped: whether there was nothing to check, which is no failure; the detail says what goes without.
    """

    name: str
    passed: bool
    detail: str
    skipped: bool = False


def check_task(
    name: str,
    env_values: dict[str, Any],
    *,
    num_envs: int = 4,
    seeds: tuple[int, int] = (0, 1),
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    expert_episodes: int = 3,
) -> list[CheckResult]:
    """Runs every check of the task contract.

    Args:
        name: registered task.
        env_values: its `env` settings.
        num_envs: environments to step together.
        seeds: two different ones.
        device: where the task's tensors must live.
        num_workers: simulator processes.
        expert_episodes: demonstrations asked for per behaviour.

    Returns:
        One result per check, in a fixed order. A broken task is a result, not an exception.

    Raises:
        TaskError: the task is unknown or its simulator isn't installed.
        ConfigError: a setting of the task is wrong.
    """
    spec = make_spec(name, env_values)
    frozen, renewing = (
        make_env(name, env_values, num_envs, device=device, num_workers=num_workers, auto_reset=auto_reset)
        for auto_reset in (False, True)
    )
    bench = Bench(spec, frozen, renewing, torch.device(device), *seeds)
    battery: dict[str, Callable[[], str]] = {
        "spec is consistent": lambda: check_spec(bench),
        "shapes, types, devices and finite values": lambda: check_tensors(bench),
        "same seed, same trajectory": lambda: check_determinism(bench),
        "different seeds differ": lambda: check_seeds_differ(bench),
        "actions are clipped to [-1, 1]": lambda: check_clipping(bench),
        "a chunk equals its single steps": lambda: check_chunk(bench),
        "time limit at the horizon": lambda: check_time_limit(bench),
        "ended episodes stay frozen": lambda: check_freezing(bench),
        "automatic reset keeps the final observation": lambda: check_auto_reset(bench),
        "mode weights are distributions": lambda: check_labellings(bench, load_labellings(name)),
        "expert succeeds in every behaviour": lambda: check_expert(
            make_expert(name, env_values), bench, expert_episodes
        ),
    }
    try:
        return [_run(title, check) for title, check in battery.items()]
    finally:
        frozen.close()
        renewing.close()


def _run(title: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(title, True, check())
    except MissingExpertError as missing:
        return CheckResult(title, True, str(missing), skipped=True)
    except BrokenContractError as broken:
        return CheckResult(title, False, str(broken))
    except Exception as error:  # a task's own code may raise anything; the other checks still run
        reason = str(error).splitlines()[0] if str(error) else ""
        return CheckResult(title, False, f"raised {type(error).__name__}: {reason}")
