"""Notices collapses that no loss shows: dead codes, spread that is gone, success below where training began."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bmd_pipeline.rl.selection import Candidate

ENTROPY_FALL = 2.0
"""Nats per drawn dimension that the entropy may fall: standard deviations are then a seventh of what they were."""
SIGNIFICANCE = 2.0
"""Standard errors by which a success rate must be lower to count."""


class CollapseWatch:
    """Looks at a fine-tuning run and warns, once of each kind.

    Args:
        entropy_dims: dimensions of a decision's draws whose spread is trained.
        episodes: episodes of a selection round.
        warn: told of each collapse.
    """

    def __init__(self, entropy_dims: int, episodes: int, warn: Callable[[str], None]) -> None:
        self._entropy_dims = entropy_dims
        self._episodes = episodes
        self._warn = warn
        self._told: list[str] = []
        self._first_entropy: float | None = None
        self._start_success: float | None = None

    def see_metrics(self, iteration: int, metrics: dict[str, float]) -> None:
        """Looks at the spread of the policy after an iteration, counted from 1."""
        if self._entropy_dims == 0 or not metrics["losses/policy_steps"]:
            return
        if self._first_entropy is None:
            self._first_entropy = metrics["losses/entropy"]
        fallen = (self._first_entropy - metrics["losses/entropy"]) / self._entropy_dims
        if fallen > ENTROPY_FALL:
            self._tell(
                "entropy",
                f"iteration {iteration}: the policy hardly explores any more; its entropy has fallen by {fallen:.2f} "
                f"nats per dimension (floor {ENTROPY_FALL:g}): raise finetune.ppo.entropy_weight, "
                "or lower the learning rate",
            )

    def see_candidate(self, scored: Candidate) -> None:
        """Looks at how the weights of an iteration did on the selection seeds; iteration 0 sets the mark."""
        if self._start_success is None:
            self._start_success = scored.success_rate
        if scored.success_rate < self._start_success - self._margin(self._start_success):
            self._tell(
                "success",
                f"iteration {scored.iteration}: selection success {scored.success_rate:.3f} is below the "
                f"{self._start_success:.3f} that training began with",
            )
        if scored.dead_codes:
            listed = ", ".join(map(str, scored.dead_codes))
            self._tell(
                "codes",
                f"iteration {scored.iteration}: code {listed} is obeyed no more often than chance: the behaviour "
                "behind it is lost, was never found, or never succeeds here",
            )

    def see_kept(self, kept: Candidate, base_success: float | None) -> None:
        """Looks at what is kept in the end.

        Args:
            kept: how it did on the selection seeds.
            base_success: success rate of the base policy where discovery measured it.
        """
        if kept.iteration == 0:
            self._tell("kept", "no iteration was better than the start, which is therefore what is kept")
        if base_success is not None and kept.success_rate < base_success - self._margin(base_success):
            self._tell(
                "base",
                f"the kept iteration {kept.iteration} succeeds less often ({kept.success_rate:.3f}) than the base "
                f"policy ({base_success:.3f})",
            )

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, as JSON values."""
        return {"told": self._told, "first_entropy": self._first_entropy, "start_success": self._start_success}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._told = list(state["told"])
        self._first_entropy, self._start_success = state["first_entropy"], state["start_success"]

    def _margin(self, rate: float) -> float:
        return SIGNIFICANCE * math.sqrt(max(rate * (1.0 - rate), 1e-4) / self._episodes)

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.append(kind)
            self._warn(text)
