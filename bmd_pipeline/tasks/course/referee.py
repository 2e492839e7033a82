"""Who has failed, who has finished, and what that pays: the rules of the course for a batch of walkers."""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.tasks.course.geometry import NOT_REACHED, ROWS, Course
from bmd_pipeline.tasks.course.settings import CourseSettings


class Referee:
    """Follows walkers through the course. Touching a post or leaving the field ends an episode as a failure.

    Args:
        settings: what pays.
        num_envs: walkers.
        body_radius: how near in metres a walker may come to a post.
        device: where tensors live.

    Attributes:
        gaps: (num_envs, 3) int64 gap that each walker took in each row, or NOT_REACHED; changed in place.
    """

    def __init__(self, settings: CourseSettings, num_envs: int, body_radius: float, device: torch.device | str) -> None:
        self.gaps = torch.full((num_envs, len(ROWS)), NOT_REACHED, device=device)
        self._course = Course(device)
        self._body_radius = body_radius
        self._graded = settings.reward == "shifted"
        self._favoured = torch.tensor(settings.favoured_gaps, device=device)  # (3,)

    def restart(self, rows: Tensor) -> None:
        """Forgets the way of the walkers where rows (num_envs,) is True."""
        self.gaps.masked_fill_(rows[:, None], NOT_REACHED)

    def judge(self, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Takes in where everybody is now; those that stand still keep their gaps.

        Args:
            position: (num_envs, 2) in metres.

        Returns:
            reward, terminated and success, each (num_envs,).
        """
        self.gaps.copy_(self._course.follow(self.gaps, position))
        failed = self._course.is_blocked(position, self._body_radius)
        success = self._course.is_finished(position) & ~failed
        return self._pay() * success, success | failed, success

    def _pay(self) -> Tensor:
        """What crossing the finish line is worth, (num_envs,)."""
        if self._graded:
            return 0.25 + 0.25 * (self.gaps == self._favoured).sum(dim=-1)
        return torch.ones(len(self.gaps), device=self.gaps.device)
