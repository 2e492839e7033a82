"""Which iteration of fine-tuning is kept, and warnings of collapses that no loss shows."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Self

import torch

from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.rl.agent import Agent
from bmd_pipeline.rl.rollout import (
    Warn,
    compute_code_success,
    compute_obeyed_by_cluster,
    find_dead_codes,
    ignore,
    merge_rollouts,
    play_rounds,
    read_behaviours,
)

# The last iteration is not always the best one, and the best one must not be picked by the episodes it is later
# judged on: candidates play selection seeds, which evaluation never uses.

LEVEL = 0.05
"""Family-wise error rate of the tests that some code succeeds less often than at the start (Bonferroni)."""


@dataclass(frozen=True)
class Candidate:
    """What one iteration scored on the selection seeds; agents without codes have nothing per code."""

    iteration: int  # after how many iterations
    success_rate: float  # share of successful episodes, codes played equally often
    episodes: int
    success_per_code: tuple[float, ...] = ()
    obeyed_per_code: tuple[float, ...] = ()  # share of each code's successes that show its own behaviour

    @property
    def obeyed(self) -> float:
        """Mean over codes; 1 for agents without codes."""
        return sum(self.obeyed_per_code) / len(self.obeyed_per_code) if self.obeyed_per_code else 1.0

    def compute_shortfall(self, start: Self, min_obeyed_share: float) -> float:
        """How far obedience and the codes' success are below those at the start; 0 if the iteration may be kept.

        Codes must be obeyed at least `min_obeyed_share` times as often as at the start, and none may succeed
        significantly less often. A share of 0 lets every iteration qualify.
        """
        if min_obeyed_share == 0.0 or not self.success_per_code:
            return 0.0
        shortfall = max(0.0, min_obeyed_share * start.obeyed - self.obeyed)
        num_codes = len(self.success_per_code)
        episodes = min(self.episodes, start.episodes) / num_codes
        significance = NormalDist().inv_cdf(1.0 - LEVEL / num_codes)  # Bonferroni: every code is a test
        for before, now in zip(start.success_per_code, self.success_per_code, strict=True):
            noise = math.sqrt((before * (1.0 - before) + now * (1.0 - now)) / episodes)
            shortfall += max(0.0, before - now - significance * noise)
        return shortfall

    def is_better_than(self, other: Self, start: Self, min_obeyed_share: float) -> bool:
        """Whether to keep this one instead of an earlier one.

        First what fine-tuning began with must not be lost; then success decides, ties going to the later one.
        """
        mine, theirs = (one.compute_shortfall(start, min_obeyed_share) for one in (self, other))
        if mine or theirs:
            return mine < theirs
        return self.success_rate >= other.success_rate


def score_candidate(
    env: TaskEnv, agent: Agent, iteration: int, seeds: list[int], generator: torch.Generator, warn: Warn = ignore
) -> Candidate:
    """Plays the agent as it would be deployed, one episode per environment and seed, codes in equal numbers.

    For `warn` see `roll_out`.
    """
    played = merge_rollouts(list(play_rounds(env, agent, seeds, generator, warn=warn)))
    success, episodes = float(played.success.float().mean()), len(played.success)
    if agent.modes is None:
        return Candidate(iteration, success, episodes)
    per_code = tuple(compute_code_success(played, agent.num_codes).tolist())
    obeyed = compute_obeyed_by_cluster(read_behaviours(agent.modes, played), played, agent.num_codes)
    return Candidate(iteration, success, episodes, per_code, tuple(obeyed.tolist()))


ENTROPY_FALL = 2.0
"""Nats per drawn dimension that the entropy may fall: standard deviations are then a seventh of what they were."""
SIGNIFICANCE = 2.0
"""Standard errors by which a success rate must be lower to count."""


@dataclass
class CollapseWatch:
    """Looks at a fine-tuning run and warns, once and in a line of each kind of collapse."""

    entropy_dims: int  # dimensions of a decision's draws whose spread is trained
    episodes: int  # of a selection round
    warn: Callable[[str], None]  # takes one line
    _warned: list[str] = field(default_factory=list)
    _first_entropy: float | None = None
    _start_success: float | None = None

    def see_metrics(self, iteration: int, metrics: dict[str, float]) -> None:
        """Looks at the spread of the policy after an iteration, counted from 1."""
        if self.entropy_dims == 0 or not metrics["losses/policy_steps"]:
            return
        if self._first_entropy is None:
            self._first_entropy = metrics["losses/entropy"]
        fallen = (self._first_entropy - metrics["losses/entropy"]) / self.entropy_dims
        if fallen > ENTROPY_FALL:
            self._warn_once(
                "entropy",
                f"iteration {iteration}: the policy hardly explores any more; its entropy has fallen by {fallen:.2f} "
                f"nats per dimension (limit {ENTROPY_FALL:g}): raise finetune.ppo.entropy_weight, "
                "or lower the learning rate",
            )

    def see_candidate(self, scored: Candidate) -> None:
        """Looks at how the weights of an iteration did on the selection seeds; iteration 0 sets the mark."""
        if self._start_success is None:
            self._start_success = scored.success_rate
        if scored.success_rate < self._start_success - self._margin(self._start_success):
            self._warn_once(
                "success",
                f"iteration {scored.iteration}: selection success {scored.success_rate:.3f} is below the "
                f"{self._start_success:.3f} that training began with",
            )
        if dead := find_dead_codes(scored.obeyed_per_code):
            listed = ", ".join(f"code {z}" for z in dead)
            self._warn_once(
                "codes",
                f"iteration {scored.iteration}: obeyed no more often than by chance: {listed}; the behaviour behind a "
                "code is lost, was never found, or never succeeds here",
            )

    def see_kept(self, kept: Candidate, base_success: float | None, demand: float | None = None) -> None:
        """Looks at how what is kept in the end did on the selection seeds.

        The base policy's success rate is known where discovery measured it; a demand says how often each code was to
        be obeyed.
        """
        if kept.iteration == 0:
            self._warn_once("kept", "no iteration was better than the start, which is therefore what is kept")
        if base_success is not None and kept.success_rate < base_success - self._margin(base_success):
            self._warn_once(
                "base",
                f"the kept iteration {kept.iteration} succeeds less often ({kept.success_rate:.3f}) than the base "
                f"policy ({base_success:.3f})",
            )
        missed = {code: share for code, share in enumerate(kept.obeyed_per_code) if share < (demand or 0.0)}
        if missed:
            listed = ", ".join(f"code {code} {share:.2f}" for code, share in missed.items())
            self._warn_once("obedience", f"obeyed less often than finetune.obedience={demand:g} asks for: {listed}")

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, as JSON values."""
        return {"warned": self._warned, "first_entropy": self._first_entropy, "start_success": self._start_success}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._warned = list(state["warned"])
        self._first_entropy, self._start_success = state["first_entropy"], state["start_success"]

    def _margin(self, rate: float) -> float:
        return SIGNIFICANCE * math.sqrt(max(rate * (1.0 - rate), 1e-4) / self.episodes)

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.append(kind)
            self.warn(text)
