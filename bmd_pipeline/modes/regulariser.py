"""λ, the weight of the mutual-information regulariser, and its controllers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.config.schema import RegulariserConfig
from bmd_pipeline.errors import ArtifactError

SMOOTHING = 0.3
"""Largest weight of the newest measurement in the running means that the controllers act on."""
SIGNIFICANCE = 2.0
"""Standard errors within which a running success rate may lie."""


@dataclass(frozen=True)
class Measurement:
    """What one rollout showed, before anything was trained on it.

    Attributes:
        information: log q(z|h) - log p(z) at the episodes' ends, mean in nats.
        success_rate: share of successful episodes.
        episodes: how many it had.
        occupancy: (K,) share of the successful episodes in each discovered behaviour, or None.
    """

    information: float
    success_rate: float
    episodes: int
    occupancy: Tensor | None = None


class Controller(ABC):
    """Decides λ anew after every rollout.

    Args:
        config: start, bounds and the controller's own settings.
    """

    def __init__(self, config: RegulariserConfig) -> None:
        self.config = config
        self.weight = config.mi_weight

    @abstractmethod
    def update(self, measured: Measurement) -> None:
        """Takes a rollout into account."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, as JSON values."""
        return {name: value for name, value in vars(self).items() if isinstance(value, (int, float, list))}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        vars(self).update(state)

    def _newest(self, measured: Measurement) -> float:
        """Weight of a rollout in the running means: a small one must not let noise decide."""
        return min(SMOOTHING, measured.episodes / self.config.smoothing_episodes)

    def _set(self, weight: float) -> None:
        self.weight = min(max(weight, self.config.min_weight), self.config.max_weight)


class ConstantController(Controller):
    """λ as configured."""

    def update(self, measured: Measurement) -> None:
        """Changes nothing."""


class ScheduleController(Controller):
    """From mi_weight to final_weight over schedule_iterations, linearly or along half a cosine."""

    def __init__(self, config: RegulariserConfig) -> None:
        super().__init__(config)
        self.iteration = 0

    def update(self, measured: Measurement) -> None:
        """Moves on by one iteration."""
        self.iteration += 1
        progress = min(1.0, self.iteration / self.config.schedule_iterations)
        if self.config.controller == "cosine":
            progress = 0.5 - 0.5 * math.cos(math.pi * progress)
        self.weight = self.config.mi_weight + progress * (self.config.final_weight - self.config.mi_weight)


class DualController(Controller):
    """Dual ascent on "information >= target": log λ rises by the step times the violation.

    Mutual information is no mode count: it can rise while modes vanish, if q learns to tell variants inside one mode.

    Args:
        config: share of the discovered information to keep, step, bounds.
        discovered: information of held-out, exploring episodes after discovery, in nats.
    """

    def __init__(self, config: RegulariserConfig, discovered: float) -> None:
        super().__init__(config)
        self.target = config.information_share * discovered
        self.smoothed = math.nan

    def update(self, measured: Measurement) -> None:
        """Raises λ where the information falls short of the target, and lowers it where it doesn't."""
        self.smoothed = _smooth(self.smoothed, measured.information, self._newest(measured))
        self._set(self.weight * math.exp(self.config.dual_step * (self.target - self.smoothed)))


class OccupancyController(Controller):
    """Ascent on "lost share <= tolerance": log λ rises by the step times the violation, and falls where there is none.

    A behaviour is a cluster of the base policy's successful episodes; no true labels are involved. What is lost is
    the share of them that is missing, so that a behaviour that has lost a little weighs a little. Success comes
    first, since episodes that fail belong to no behaviour: otherwise a λ that breaks success would raise itself.

    Args:
        config: share, tolerance, margin, step, bounds.
        start: (K,) occupancy measured after discovery.
    """

    def __init__(self, config: RegulariserConfig, start: Tensor) -> None:
        super().__init__(config)
        self.start = start.tolist()
        self.smoothed = self.start
        self.success = math.nan
        self.success_variance = 0.0  # of the running mean, in units of one episode's
        self.best_success = 0.0

    def lost_share(self) -> float:
        """What is missing of the behaviours that have fallen below their floors, as a share of all floors."""
        share = self.config.occupancy_share
        missing = (share * torch.tensor(self.start) - torch.tensor(self.smoothed)).clamp(min=0.0)
        return float(missing.sum()) / share

    def update(self, measured: Measurement) -> None:
        """Lowers λ if success suffers; else raises it if behaviours are being lost, and lowers it if they aren't."""
        newest = self._newest(measured)
        first = math.isnan(self.success)
        self.success = _smooth(self.success, measured.success_rate, newest)
        self.success_variance = (
            1.0 / measured.episodes
            if first
            else (1.0 - newest) ** 2 * self.success_variance + newest**2 / measured.episodes
        )
        if measured.occupancy is not None:
            pairs = zip(self.smoothed, measured.occupancy.tolist(), strict=True)
            self.smoothed = [_smooth(old, new, newest) for old, new in pairs]
        noise = SIGNIFICANCE * math.sqrt(self.success * (1.0 - self.success) * self.success_variance)
        self.best_success = max(self.best_success, self.success - noise)  # what it has been for certain
        broken = self.best_success - self.config.success_margin - (self.success + noise)
        violation = -broken if broken > 0.0 else self.lost_share() - self.config.lost_tolerance
        self._set(self.weight * math.exp(self.config.occupancy_step * violation))


def make_controller(config: RegulariserConfig, findings: dict[str, Any]) -> Controller:
    """Builds the configured controller.

    Args:
        config: which, and its settings.
        findings: what discovery measured; targets come from there.

    Raises:
        ArtifactError: the discovery did not measure what the controller needs.
    """
    if config.controller == "constant":
        return ConstantController(config)
    if config.controller in ("linear", "cosine"):
        return ScheduleController(config)
    needed = "exploring_information" if config.controller == "dual" else "occupancy"
    if needed not in findings:
        raise ArtifactError(
            f"controller {config.controller!r} needs {needed!r} in modes.json: discover again with this version"
        )
    if config.controller == "dual":
        return DualController(config, float(findings["exploring_information"]))
    return OccupancyController(config, torch.tensor(findings["occupancy"]))


def _smooth(old: float, new: float, weight: float) -> float:
    return new if math.isnan(old) else (1.0 - weight) * old + weight * new
