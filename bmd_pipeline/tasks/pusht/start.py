"""How PushT episodes start.

A start is a row of ten numbers: the arm's joint angles in rad, then the T's pose (x, y, yaw).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.tasks.pusht.geometry import GOAL
from bmd_pipeline.tasks.pusht.options import Options

NUM_JOINTS = 7
RANDOM_DIM = NUM_JOINTS + 3
REST_QPOS: NDArray[np.float64] = np.array([0.662, 0.212, 0.086, -2.685, -0.115, 2.898, 1.673])
"""Joint angles in rad at which episodes start, but for noise; ManiSkill's own."""
_QPOS_NOISE = 0.02
_BOX_MIDDLE, _BOX_SIZE = np.array([0.0, 0.05]), np.array([0.2, 0.3])
"""ManiSkill's box of start positions, relative to the goal, in metres."""


def draw_random(generator: np.random.Generator) -> NDArray[np.float64]:
    """What a start is made of, (RANDOM_DIM,): standard normal for the joints, uniform in [-.5, .5) for the T."""
    return np.concatenate([generator.standard_normal(NUM_JOINTS), generator.uniform(-0.5, 0.5, 3)])


def make_start(random: Tensor, options: Options) -> Tensor:
    """Starts (n, NUM_JOINTS + 3) from what `draw_random` drew, (n, RANDOM_DIM)."""
    joints, spot, turn = torch.tensor_split(random, (NUM_JOINTS, NUM_JOINTS + 2), dim=1)
    qpos = random.new_tensor(REST_QPOS) + _QPOS_NOISE * joints
    box = options.position_box * random.new_tensor(_BOX_SIZE)
    position = random.new_tensor(GOAL[:2] + _BOX_MIDDLE) + box * spot
    yaw = GOAL[2] + np.pi + 2.0 * np.deg2rad(options.yaw_range_deg) * turn
    return torch.cat((qpos, position, yaw), dim=1)
