"""Whole episodes of an agent in a batch of environments, and what they say about the modes that commanded it.

Every environment plays one episode from its start to its end; those that end early stay frozen until all have
ended. Codes, horizons and trajectory rewards thus belong to whole episodes, and a simulator does not step what
is frozen.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.environments.base import LARGEST, TaskEnv, TaskSpec
from bmd_pipeline.errors import ArtifactError, TaskError
from bmd_pipeline.modes.inference import InferenceModel, compute_log_ratio, compute_multimodality
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import ObsHistory
from bmd_pipeline.rl.adapters import Draws, PolicyInput
from bmd_pipeline.rl.agent import Agent

LOOK_INTERVALS = {"cuda": 8}
"""Decisions between two checks whether an episode still runs, by kind of device. A check makes the host wait for all
queued kernels, which costs more than decisions without a running episode."""
MAX_DROPPED = 0.1
"""Share of a rollout's episodes that may be dropped for their numbers, though one always may. Beyond it the task is to
be corrected."""
FAR = 30.0
"""Standard deviations of the demonstrations beyond which observations are far from theirs. Not even an event of one
step in every episode of 900 is as rare."""
Warn = Callable[[str, str], None]
"""Told what may be wrong with the episodes, and the first example of it."""


def ignore(what: str, example: str) -> None:
    """A `Warn` that says nothing."""


@dataclass(frozen=True)
class Rollout:
    """T decisions of N environments. A decision executes a chunk's `n_action_steps` control steps, or a single one."""

    cond: Tensor  # (T + 1, N, cond_dim) condition before each decision and after the last
    decision_track: Tensor  # (T + 1, N, track_dim) track before each decision and after the last
    feature_columns: tuple[int, ...]  # track columns that the inference model sees
    active_mask: Tensor  # (T, N) whether the decision was taken by a running episode
    reward: Tensor  # (T, N) environment reward, summed over the executed steps
    truncated: Tensor  # (N,) did not end by itself: ran into the task's time limit, or was cut before
    success: Tensor  # (N,)
    dropped: Tensor  # (N,) showed a number that can't be used: counts as failed, and none of its decisions as taken
    reach: Tensor  # (N, obs_dim) farthest observation from the demonstrations' mean, in their standard deviations
    length: Tensor  # (N,) control steps taken
    track: Tensor  # (S + 1, N, track_dim) at every control step; the last entry of an ended episode repeats
    code: Tensor  # (N,) mode codes
    draws: Draws  # each (T, N, ...); empty unless asked for
    decisions_per_chunk: int = 1  # decisions between two chunks that are planned

    @property
    def features(self) -> Tensor:
        """(T + 1, N, feature_dim) raw track columns of the inference model."""
        return self.decision_track[..., list(self.feature_columns)]

    @property
    def last_decision(self) -> Tensor:
        """(N,) index of each episode's last entry in what is kept per decision, such as `cond`."""
        return self.active_mask.sum(dim=0)

    def histories(self, inference: InferenceModel) -> Tensor:
        """What an inference model sees at each decision, (T + 1, N, history_dim), spaced by whole chunks."""
        return inference.histories(self.features, self.decisions_per_chunk)

    def policy_inputs(self) -> PolicyInput:
        """What the agent saw at each of the M decisions that were taken, flattened, (M, ...)."""
        return PolicyInput(self.taken(self.cond[:-1]), self.taken(self.code.expand_as(self.active_mask)))

    def taken(self, values: Tensor) -> Tensor:
        """Values (T, N, ...) at the M decisions that were taken, (M, ...)."""
        return values.flatten(0, 1)[self.active_mask.flatten()]


def balanced_codes(num_envs: int, num_codes: int, generator: torch.Generator) -> Tensor:
    """Codes (num_envs,) in equal numbers, in random order: p(z) is uniform by construction."""
    order = torch.randperm(num_envs, generator=generator, device=generator.device)
    return order % num_codes


@torch.no_grad()
def roll_out(
    env: TaskEnv,
    agent: Agent,
    *,
    seed: int,
    code: Tensor,
    generator: torch.Generator,
    explore: bool,
    feature_columns: tuple[int, ...] = (),
    max_steps: int | None = None,
    keep_draws: bool = False,
    warn: Warn = ignore,
) -> Rollout:
    """Plays one episode in every environment.

    An episode that shows an observation, a track or a reward which is not finite, or beyond `LARGEST`, is dropped: the
    others play on, so that one glitch ends no run, and all policies are judged on the same starts.

    Args:
        env: the task.
        agent: who acts.
        seed: fixes the initial states.
        code: (N,) mode codes.
        generator: draws of the agent.
        explore: act as in training; if False, as deployed.
        feature_columns: track columns of the inference model; the agent's own if it has one.
        max_steps: cut episodes after this many control steps (a curriculum); None plays the task's horizon.
        keep_draws: keep what the agent draws, for PPO.
        warn: told of episodes that are dropped, and of observations far from the demonstrations'.

    Raises:
        TaskError: more than a few episodes would be dropped; names the first column, step and environment.
        ArtifactError: the agent's actions are not finite.
    """
    policy = agent.policy
    columns = agent.modes.feature_columns if agent.modes else feature_columns
    steps, chunk_steps = agent.decision_steps, policy.config.n_action_steps
    limit = min(max_steps or env.spec.horizon, env.spec.horizon)
    window = ObsHistory(policy.config.n_obs_steps, policy.config.obs_stride)
    obs = [env.reset(seed)[None]]
    cond = policy.encode(window.start(obs[0][0]))
    track = [env.track()[None]]
    conds, decision_track = [cond], [track[0][0]]
    length = torch.zeros_like(code)
    running = torch.ones_like(code, dtype=torch.bool)
    success, truncated = torch.zeros_like(running), torch.zeros_like(running)
    active_mask, rewards, executed, kept = [], [], [], []
    for start in range(0, limit, steps):
        inputs = PolicyInput(cond, code)
        done = start % chunk_steps
        if done == 0:
            plan = agent.plan(inputs, generator, explore)
        actions, draws = agent.act(plan, done, inputs, generator, explore)
        moved = env.step_chunk(actions[:, : min(steps, limit - start)])
        active_mask.append(running)
        rewards.append(moved.reward)
        executed.append(actions)
        if keep_draws:
            kept.append(draws)
        length = length + moved.steps
        success |= moved.success
        truncated |= moved.truncated
        running = running & ~moved.done
        cond = policy.encode(window.extend(moved.obs_path))
        conds.append(cond)
        obs.append(moved.obs_path)
        track.append(moved.track_path)
        decision_track.append(moved.track_path[-1])
        looks = len(active_mask) % LOOK_INTERVALS.get(env.device.type, 1) == 0
        if looks and not bool(running.any()):
            break
    seen = torch.cat(obs)
    mean, std = (of[: env.spec.obs_dim] for of in (policy.obs_normaliser.mean, policy.obs_normaliser.std))
    reach = torch.maximum(seen.amax(dim=0) - mean, mean - seen.amin(dim=0)) / std
    played = Rollout(
        cond=torch.stack(conds),
        decision_track=torch.stack(decision_track),
        feature_columns=columns,
        active_mask=torch.stack(active_mask),
        reward=torch.stack([paid.sum(dim=0) for paid in rewards]),
        truncated=truncated | running,
        success=success,
        dropped=torch.zeros_like(success),
        reach=reach,
        length=length,
        track=torch.cat(track),
        code=code,
        draws={name: torch.stack([r[name] for r in kept]) for name in (kept[0] if kept else {})},
        decisions_per_chunk=chunk_steps // steps,
    )
    extremes = [extreme for values in (reach, played.track, played.reward) for extreme in torch.aminmax(values)]
    # one read, since a device has to finish its work whenever the host reads from it
    numbers = torch.cat([torch.stack(extremes), reach.nanmedian(dim=0).values]).tolist()
    distance, column = max((far, column) for column, far in enumerate(numbers[len(extremes) :]))
    if distance > FAR:
        warn(
            f"{env.spec.name}: observation column {column} is far from the demonstrations' in most episodes: it has "
            "other units, or the world is another one",
            f"{distance:.3g} of their standard deviations, seed {seed}",
        )
    if all(abs(number) <= LARGEST for number in numbers[: len(extremes)]):  # not so for NaN either
        return played
    if not bool(torch.cat(executed, dim=1).isfinite().all()):  # what the policy sees is finite, whatever the task shows
        raise ArtifactError(
            f"{env.spec.name}: the policy's actions are not finite: its weights are damaged, or training diverged; "
            "train again"
        )
    shown = {"observation": seen, "track": played.track, "reward": torch.cat(rewards)[..., None]}
    return _drop(played, _find_unusable(env.spec, seed, shown, warn))


def _find_unusable(spec: TaskSpec, seed: int, shown: Mapping[str, Tensor], warn: Warn) -> Tensor:
    """Which episodes (N,) are to be dropped; warnings and errors are those of `roll_out`.

    `shown` holds observations and tracks (S + 1, N, dim), and rewards (S, N, 1), of all control steps.
    """
    unusable, firsts = torch.zeros_like(shown["track"][0, :, 0], dtype=torch.bool), []
    for kind, values in shown.items():
        wrong = ~(values.abs() <= LARGEST)
        unusable |= wrong.any(dim=2).any(dim=0)
        for step, row, column in wrong.nonzero()[:1].tolist():
            firsts.append((step + (kind == "reward"), kind, row, column, float(values[step, row, column])))
    if not firsts:  # far from the demonstrations', and yet no large number
        return unusable
    step, kind, row, column, value = min(firsts)
    names = {"observation": f"observation column {column}", "reward": "the reward"}
    what = names.get(kind) or f"track column {spec.track_names[column]!r}"
    where, count = f"{value:g} at step {step} of environment {row}, seed {seed}", int(unusable.sum())
    if count > max(1.0, MAX_DROPPED * len(unusable)):
        raise TaskError(
            f"{spec.name}: {what} was {where}; {count} of {len(unusable)} episodes hold numbers that are not finite or "
            f"beyond {LARGEST:g}: correct the task, `bmd-pipeline check-task {spec.name}` helps"
        )
    warn(
        f"{spec.name}: {what} was not finite or beyond {LARGEST:g}: such an episode counts as failed, and nothing is "
        "learnt from it",
        where,
    )
    return unusable


def _drop(played: Rollout, unusable: Tensor) -> Rollout:
    """The same rollout in which the unusable episodes (N,) have failed at their start, without a decision."""
    first = played.track[0]
    start = torch.where(first.abs() <= LARGEST, first, torch.zeros_like(first))
    mask = unusable[:, None]
    return replace(
        played,
        decision_track=torch.where(mask, start, played.decision_track),
        active_mask=played.active_mask & ~unusable,
        reward=torch.where(unusable, torch.zeros_like(played.reward), played.reward),
        success=played.success & ~unusable,
        dropped=unusable,
        reach=torch.where(mask, torch.zeros_like(played.reach), played.reach),
        track=torch.where(mask, start, played.track),
    )


def play_rounds(
    env: TaskEnv,
    agent: Agent,
    seeds: Sequence[int],
    generator: torch.Generator,
    *,
    explore: bool = False,
    feature_columns: tuple[int, ...] = (),
    first: int = 0,
    warn: Warn = ignore,
) -> Iterator[Rollout]:
    """Plays a round per seed, from the `first` on, where an earlier job has played those before it.

    A round is one episode in every environment, as of `roll_out`. Codes take turns over all rounds, and draws go on
    from round to round. `feature_columns` serve an agent that has no inference model, which would say them itself.
    """
    for index in range(first, len(seeds)):
        episodes = torch.arange(index * env.num_envs, (index + 1) * env.num_envs, device=env.device)
        yield roll_out(
            env,
            agent,
            seed=seeds[index],
            code=episodes % agent.num_codes,
            generator=generator,
            explore=explore,
            feature_columns=feature_columns,
            warn=warn,
        )


def merge_rollouts(rollouts: Sequence[Rollout]) -> Rollout:
    """Joins rollouts along the environments; shorter ones are continued by frozen decisions."""

    def join(parts: list[Tensor], *, frozen: bool = False) -> Tensor:
        """Parts (T, N, ...), of which the shorter ones go on by their last row if they are frozen, else by zeros."""
        rows = max(map(len, parts))
        longer = []
        for x in parts:
            fill = x[-1:] if frozen else x.new_zeros(1, *x.shape[1:])
            longer.append(torch.cat([x, fill.expand(rows - len(x), *x.shape[1:])]))
        return torch.cat(longer, dim=1)

    def parts(name: str) -> list[Tensor]:
        return [getattr(rollout, name) for rollout in rollouts]

    joined: dict[str, Any] = {name: join(parts(name), frozen=True) for name in ("cond", "decision_track", "track")}
    joined |= {name: join(parts(name)) for name in ("active_mask", "reward")}
    joined |= {name: torch.cat(parts(name)) for name in ("truncated", "success", "dropped", "reach", "length", "code")}
    draws = {name: join([rollout.draws[name] for rollout in rollouts]) for name in rollouts[0].draws}
    return replace(rollouts[0], **joined, draws=draws)


@torch.no_grad()
def compute_information(inference: InferenceModel, played: Rollout) -> tuple[Tensor, Tensor]:
    """log q(z|h) − log p(z) of each episode, (N,) in nats: mean over its states, and at its last one."""
    log_q = inference.log_prob(played.histories(inference))
    return compute_multimodality(compute_log_ratio(log_q, played.code), played.active_mask)


@torch.no_grad()
def measure_commanded(modes: DiscoveredModes, played: Rollout) -> dict[str, Any]:
    """Multimodality, success and obedience of held-out episodes as deployed, codes in equal numbers, as JSON values."""
    mean, last = compute_information(modes.inference, played)
    obeyed = compute_obeyed_by_cluster(read_behaviours(modes, played), played, modes.num_codes)
    return {
        "heldout_episodes": played.code.numel(),
        "dropped_episodes": int(played.dropped.sum()),
        "obs_reach": played.reach.amax(dim=0).tolist(),
        "information": float(mean.mean()),
        "final_information": float(last.mean()),
        "information_bound": math.log(modes.num_codes),
        "success_rate": float(played.success.float().mean()),
        "success_rate_per_code": compute_code_success(played, modes.num_codes).tolist(),
        "obeyed": float(obeyed.mean()),
        "obeyed_per_code": obeyed.tolist(),
    }


@torch.no_grad()
def read_codes(inference: InferenceModel, played: Rollout) -> Tensor:
    """The code (N,) that the inference model takes each episode for at its end."""
    log_q = inference.log_prob(played.histories(inference))
    episodes = torch.arange(len(played.code), device=played.code.device)
    return log_q[played.last_decision, episodes].argmax(dim=-1)


@torch.no_grad()
def read_behaviours(modes: DiscoveredModes, played: Rollout) -> Tensor:
    """Code (N,) whose behaviour each episode shows, DROPPED if it is one without a code: that of its nearest cluster of
    demonstrations; in the published form its most likely code at the end."""
    shown = modes.read_codes(played.cond, played.last_decision)
    return read_codes(modes.inference, played) if shown is None else shown


def compute_code_success(played: Rollout, num_codes: int) -> Tensor:
    """Success rate of each code's episodes, (K,); 0 for a code that was not played."""
    return mean_by_code(played.success, played.code, num_codes)


def compute_obeyed_by_cluster(shown: Tensor, played: Rollout, num_codes: int) -> Tensor:
    """Of each code's successful episodes, the share that shows its own behaviour, (K,); 0 for a code without any.

    `shown` (N,) is the behaviour of each episode, from `read_behaviours`.
    """
    won = played.success
    return mean_by_code((shown == played.code)[won], played.code[won], num_codes)


def find_dead_codes(obeyed_per_code: Sequence[float]) -> list[int]:
    """Codes that are obeyed no more often than chance, so that commanding them does nothing."""
    return [code for code, share in enumerate(obeyed_per_code) if share <= 1.0 / len(obeyed_per_code)]


def average_codes(values: Tensor, code: Tensor, num_codes: int) -> float:
    """Mean over the codes that were played of the mean of their episodes' values (N,), under codes (N,)."""
    played = torch.bincount(code, minlength=num_codes) > 0
    return float(mean_by_code(values, code, num_codes)[played].mean())


def mean_by_code(values: Tensor, code: Tensor, num_codes: int) -> Tensor:
    """Mean of each code's episodes' values (N,), under codes (N,): (K,), 0 for a code that was not played."""
    count = torch.bincount(code, minlength=num_codes)
    return torch.bincount(code, weights=values.double(), minlength=num_codes) / count.clamp(min=1)
