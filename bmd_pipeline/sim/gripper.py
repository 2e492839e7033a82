"""Direct opening and closing of a ManiSkill gripper, beside `PoseArm`.

Source: `PDJointPosMimicController` of ManiSkill 3.0.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Gripper:
    """Drives the fingers of one single-environment ManiSkill scene.

    Args:
        env: an unwrapped ManiSkill environment with `num_envs=1` on the CPU whose agent has a `gripper` controller
            of mirrored finger joints.
    """

    def __init__(self, env: Any) -> None:
        controller = env.agent.controller.controllers["gripper"]
        self._low, self._high = float(controller.config.lower), float(controller.config.upper)
        self._drives = [joint._objs[0] for joint in controller.joints]

    def command(self, action: float) -> None:
        """Sets the fingers' targets for the physics steps to come: -1 closed, 1 open."""
        share = (min(max(action, -1.0), 1.0) + 1.0) / 2.0
        target = np.float32(self._low + share * (self._high - self._low))
        for drive in self._drives:
            drive.set_drive_target(target)
