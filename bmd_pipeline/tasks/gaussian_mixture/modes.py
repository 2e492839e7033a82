"""True modes of GaussianMixture: which goal an episode ends nearest to. For evaluation only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bmd_pipeline.environments.base import ModeLabeler
from bmd_pipeline.tasks.gaussian_mixture.env import GOALS


class GoalLabelling:
    """The goal nearest to where the episode ended, for successes and failures alike."""

    name = "goal"
    modes = ("east", "west", "north", "south")

    def label(self, track: Tensor, length: Tensor, success: Tensor) -> Tensor:
        """One-hot rows (num_episodes, 4)."""
        goals = torch.tensor(GOALS, device=track.device)
        return F.one_hot(torch.cdist(track[-1], goals).argmin(dim=1), len(GOALS)).float()


LABELLINGS: tuple[ModeLabeler, ...] = (GoalLabelling(),)
