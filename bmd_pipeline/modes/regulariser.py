"""λ, the weight of the mutual-information regulariser: constant, or decided anew after every rollout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.config.schema import RegulariserConfig
from bmd_pipeline.errors import ArtifactError

OCCUPANCY_SHARE = 0.8
"""Share of its starting occupancy below which a behaviour begins to count as lost: shares of a few hundred successes
scatter, and those of behaviours that are all kept shift a little."""
LOST_TOLERANCE = 0.01
"""Share of the behaviours that may be lost. λ falls by as little as is not lost, so that it rests near here."""
MIN_WEIGHT, MAX_WEIGHT = 0.1, 2.0
"""Bounds of λ: it must be able to rise again soon, and at 1 both rewards weigh the same."""
SUCCESS_MARGIN = 0.03
"""How far success may fall below its best before λ gives way."""
STEP = 5.0
"""Change of log λ in an iteration, per share that is lost beyond the tolerance or of success beyond the margin: the
loss of a tenth of the behaviours more than doubles λ in two iterations."""
SMOOTHING_EPISODES = 512
"""How many episodes, about, the running means look back on. Few let noise decide; many lag."""
SMOOTHING = 0.3
"""Largest weight of the newest measurement in the running means."""
SIGNIFICANCE = 2.0
"""Standard errors within which a running success rate may lie."""


@dataclass(frozen=True)
class Measurement:
    """What one rollout showed, before anything was trained on it.

    Attributes:
        success_rate: share of successful episodes.
        episodes: number of episodes.
        occupancy: (K,) share of the successful episodes in each discovered behaviour; None without such episodes.
    """

    success_rate: float
    episodes: int
    occupancy: Tensor | None = None


class Controller:
    """λ as configured; the base of a λ that changes.

    Args:
        config: λ at the start.

    Attributes:
        weight: λ of the next rollout.
    """

    def __init__(self, config: RegulariserConfig) -> None:
        self.config = config
        self.weight = config.mi_weight

    def update(self, measured: Measurement) -> None:
        """Decides λ from the newest rollout."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, as JSON values."""
        return {name: value for name, value in vars(self).items() if name != "config"}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        vars(self).update(state)


class OccupancyController(Controller):
    """Dual ascent on the constraint "lost share <= tolerance".

    ```
    log λ += STEP · (lost − LOST_TOLERANCE),    lost = Σ_k max(0, s·o_k(0) − o_k) / s
    ```

    o_k is the running share of the successful episodes that show behaviour k, o_k(0) the one that discovery measured,
    and s = OCCUPANCY_SHARE. A behaviour is a cluster of demonstrations, so that no true label is involved.

    Failed episodes belong to no behaviour, and a λ that breaks success would raise itself. So where success is
    significantly more than SUCCESS_MARGIN below its best, λ falls by STEP times what is beyond the margin.

    Args:
        config: λ at the start.
        start: (K,) occupancy o(0).
    """

    def __init__(self, config: RegulariserConfig, start: Tensor) -> None:
        super().__init__(config)
        self.start: list[float] = start.tolist()
        self.occupancy = self.start
        self.success = math.nan
        self.success_variance = 0.0  # of the running mean, in units of one episode's
        self.best_success = 0.0  # the highest that success was for certain

    def update(self, measured: Measurement) -> None:
        """Raises λ if behaviours are being lost, and lowers it if none is or if success suffers."""
        self._see(measured)
        noise = SIGNIFICANCE * math.sqrt(self.success * (1.0 - self.success) * self.success_variance)
        self.best_success = max(self.best_success, self.success - noise)
        broken = self.best_success - SUCCESS_MARGIN - (self.success + noise)
        violation = -broken if broken > 0.0 else self._lost_share() - LOST_TOLERANCE
        weight = self.weight * math.exp(STEP * violation)
        self.weight = min(max(weight, MIN_WEIGHT), MAX_WEIGHT)

    def _lost_share(self) -> float:
        missing = (OCCUPANCY_SHARE * torch.tensor(self.start) - torch.tensor(self.occupancy)).clamp(min=0.0)
        return float(missing.sum()) / OCCUPANCY_SHARE

    def _see(self, measured: Measurement) -> None:
        """Updates the running means; a small rollout weighs little in them, so that noise does not decide."""
        newest = min(SMOOTHING, measured.episodes / SMOOTHING_EPISODES)
        if math.isnan(self.success):
            self.success = measured.success_rate
            self.success_variance = 1.0 / measured.episodes
        else:
            self.success = (1.0 - newest) * self.success + newest * measured.success_rate
            self.success_variance = (1.0 - newest) ** 2 * self.success_variance + newest**2 / measured.episodes
        if measured.occupancy is not None:
            pairs = zip(self.occupancy, measured.occupancy.tolist(), strict=True)
            self.occupancy = [(1.0 - newest) * old + newest * new for old, new in pairs]


def make_controller(config: RegulariserConfig, findings: dict[str, Any]) -> Controller:
    """Builds the configured controller.

    Args:
        config: which, and its settings.
        findings: what discovery measured; the occupancy to hold comes from there.

    Raises:
        ArtifactError: discovery measured no occupancy.
    """
    if config.controller == "constant":
        return Controller(config)
    if "occupancy" not in findings:
        raise ArtifactError(
            "finetune.regulariser.controller=occupancy needs the occupancy of the behaviours, which modes.json lacks: "
            "discovery measures it in the coded form, and only if an episode succeeds"
        )
    return OccupancyController(config, torch.tensor(findings["occupancy"]))
