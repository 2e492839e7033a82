"""Iterations whose numbers run away are taken back, and learnt again from the same episodes with smaller steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from bmd_pipeline.config.schema import GuardConfig
from bmd_pipeline.errors import DivergenceError, TrainingError
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.rl.trainer_state import pack_trainer, scale_learning_rates, trained_parameters, unpack_trainer

STEP_FACTOR = 0.5
"""What a rollback does to the learning rates, for good: steps that diverged once would do so again."""


class Guard:
    """Runs a trainer's iterations.

    Args:
        trainer: who learns.
        config: what counts as diverged (see `PPO`), and how often to try again.
        tell: told of every rollback.

    Attributes:
        before: state of the trainer before the present iteration, from `pack_trainer`.
        rollbacks: how many there were.
    """

    def __init__(self, trainer: Trainer, config: GuardConfig, tell: Callable[[str], None]) -> None:
        self.trainer = trainer
        self.config = config
        self.rollbacks = 0
        self.before = pack_trainer(trainer)
        self._tell = tell

    def remember(self) -> None:
        """Takes the present state as the last good one."""
        self.before = pack_trainer(self.trainer)

    def iterate(
        self,
        *,
        iteration: int,
        seed: int,
        generator: torch.Generator,
        intrinsic_only: bool = False,
        max_steps: int | None = None,
        policy: bool = True,
    ) -> dict[str, float]:
        """One iteration from the remembered state; arguments as in `Trainer.iterate`.

        Raises:
            TrainingError: it diverges, however small the steps.
        """
        played = self.trainer.play(iteration=iteration, seed=seed, generator=generator, max_steps=max_steps)
        draws = generator.get_state()
        while True:  # the episodes stand: only what was learnt from them is tried again
            generator.set_state(draws)
            try:
                metrics = self.trainer.learn(
                    played, generator=generator, intrinsic_only=intrinsic_only, max_steps=max_steps, policy=policy
                )
                self._require_finite(metrics)
                return metrics
            except DivergenceError as error:
                self._take_back(iteration, str(error))

    def _require_finite(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if name.startswith("losses/") and not math.isfinite(value):
                raise DivergenceError(f"{name} is {value}")
        if not all(bool(torch.isfinite(weight).all()) for weight in trained_parameters(self.trainer)):
            raise DivergenceError("a weight is not finite")

    def _take_back(self, iteration: int, reason: str) -> None:
        unpack_trainer(self.trainer, *self.before)
        if self.rollbacks >= self.config.max_rollbacks:
            place = self.trainer.ppo.place
            raise TrainingError(
                f"training diverged at iteration {iteration + 1}: {reason}; it was taken back {self.rollbacks} times, "
                f"each time with half the learning rates: lower them, or raise {place}.guard.max_rollbacks"
            )
        self.rollbacks += 1
        scale_learning_rates(self.trainer, STEP_FACTOR)
        self.remember()
        self._tell(
            f"iteration {iteration + 1} diverged ({reason}) and was taken back; the learning rates are halved "
            f"(rollback {self.rollbacks} of at most {self.config.max_rollbacks})"
        )
