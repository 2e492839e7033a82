"""What `JointDrive` refuses; that it steps right is tested with Anymal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim.arm import JointDrive


class PDJointPosController:
    """Named as ManiSkill's, which is known by its name."""

    def __init__(self, **changes: Any) -> None:
        settings = {"interpolate": False, "use_target": False, "use_delta": True, "normalize_action": True}
        self.config = SimpleNamespace(**settings, lower=-0.2, upper=0.2)
        vars(self.config).update(changes)
        self.joints = [SimpleNamespace(_objs=[object()])] * 2


def _make_env(controller: Any) -> Any:
    robot = SimpleNamespace(_objs=[SimpleNamespace(qpos=np.zeros(2, np.float32))])
    agent = SimpleNamespace(controller=SimpleNamespace(controllers={"body": controller}), robot=robot)
    return SimpleNamespace(agent=agent, scene=None, _sim_steps_per_control=5)


def test_takes_increments_of_joint_angles() -> None:
    JointDrive(_make_env(PDJointPosController()), "body")


@pytest.mark.parametrize(
    "changes",
    [{"interpolate": True}, {"use_target": True}, {"use_delta": False}, {"normalize_action": False}, {"lower": -0.1}],
)
def test_refuses_what_it_would_step_wrongly(changes: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match="symmetric, normalised increments from the present angles"):
        JointDrive(_make_env(PDJointPosController(**changes)), "body")
