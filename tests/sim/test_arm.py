"""Direct stepping does what ManiSkill's `env.step` does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sapien

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import PoseArm
from bmd_pipeline.sim.backend import reset_physics
from bmd_pipeline.tasks.pusht.env import skip_recolouring


def _make(control_mode: str = "pd_ee_delta_pose") -> Any:
    skip_recolouring()
    return backend.make_maniskill_env("PushT-v1", control_mode=control_mode)


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """Two equal scenes: one for `env.step`, one for direct stepping."""
    return _make(), _make()


def _snapshot(env: Any) -> dict[str, Any]:
    robot, tee = env.agent.robot._objs[0], env.tee._objs[0]
    body = tee.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)
    return {
        "qpos": robot.qpos.copy(),
        "qvel": robot.qvel.copy(),
        "tee": tee.pose,
        "velocity": (body.linear_velocity.copy(), body.angular_velocity.copy()),
    }


def _restore(env: Any, state: dict[str, Any]) -> None:
    reset_physics(env)
    robot, tee = env.agent.robot._objs[0], env.tee._objs[0]
    body = tee.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)
    robot.set_qpos(state["qpos"])
    robot.set_qvel(state["qvel"])
    tee.set_pose(state["tee"])
    body.set_linear_velocity(state["velocity"][0])
    body.set_angular_velocity(state["velocity"][1])


def test_equals_env_step_in_free_motion(pair: tuple[Any, Any]) -> None:
    stock, direct = pair
    for env in (stock, direct):
        env.reset(seed=3)
    arm = PoseArm(direct)
    generator = np.random.default_rng(0)
    worst = 0.0
    for _ in range(100):
        action = generator.uniform(-0.2, 0.2, 6)
        action[2] = generator.uniform(0.0, 0.2)  # away from table and T
        stock.step(action.astype(np.float32))
        arm.step(action)
        worst = max(worst, float(np.abs(stock.agent.robot._objs[0].qpos - arm.qpos).max()))
    assert worst <= 1e-4  # rad


def test_equals_env_step_in_single_steps_under_contact(pair: tuple[Any, Any]) -> None:
    stock, direct = pair
    for env in pair:
        env.reset(seed=1)
    arm = PoseArm(direct)
    generator = np.random.default_rng(0)
    moved, differences = [], []
    for _ in range(60):
        gap = direct.tee._objs[0].pose.p[:2] - arm.pose.p[:2]
        action = np.zeros(6)
        action[:2] = 0.5 * gap / np.linalg.norm(gap) + 0.1 * generator.standard_normal(2)
        state = _snapshot(direct)
        _restore(stock, state)
        _restore(direct, state)
        stock.step(action.astype(np.float32))
        arm.step(action)
        after = direct.tee._objs[0].pose.p
        moved.append(np.linalg.norm(after - state["tee"].p))
        differences.append(np.abs(after - stock.tee._objs[0].pose.p).max())
    assert np.sum(np.array(moved) > 1e-3) >= 10  # the T was really pushed
    assert np.median(differences) <= 1e-5  # metres
    assert np.mean(differences) <= 0.02 * np.mean(moved)


@pytest.mark.parametrize("control_mode", ["pd_joint_delta_pos", "pd_ee_target_delta_pose", "pd_ee_delta_pos"])
def test_refuses_other_controllers(control_mode: str) -> None:
    with pytest.raises(TaskError, match="delta poses of the end effector, got PD"):
        PoseArm(_make(control_mode))
