"""True modes of GaussianMixture: which goal an episode ends nearest to. For evaluation only."""

import torch
from torch import Tensor
from torch.nn import functional as F

from bmd_pipeline.environments.base import Labelling
from bmd_pipeline.tasks.gaussian_mixture.env import GOAL_NAMES, GOALS, compute_distances


def label_goal(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
    """The goal nearest to where the episode ended, for successes and failures alike; see `ModeLabelling.label`."""
    goals = torch.tensor(GOALS, device=track.device)
    return F.one_hot(compute_distances(track[-1], goals).argmin(dim=1), len(GOALS)).float()


LABELLINGS = (Labelling("goal", GOAL_NAMES, label_goal),)
