"""Comparing direct stepping with ManiSkill's `env.step`, for the tests of tasks with an environment of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.backend import SceneTask, reset_physics
from bmd_pipeline.tasks.registry import get_entry


def make_stock(task: str) -> Any:
    """The task's registered environment, unwrapped."""
    return backend.make_maniskill_env(importlib.import_module(f"{get_entry(task).package}.maniskill").ENV_ID)


def joints(env: Any) -> np.ndarray:
    """Joint angles of an environment's robot."""
    return env.agent.robot._objs[0].qpos.copy()


def largest_gap(
    stock: Any, task: SceneTask, actions: Iterable[np.ndarray], prepare: Callable[[Any], None] = lambda env: None
) -> float:
    """Largest difference in rad of joint angles while both take the same actions from the same start.

    `prepare` is called with either environment after the reset.

    The inverse kinematics iterates until its error is below 1e-4. Where it comes out right at that, rounding costs or
    saves an iteration and so about 1e-3 rad, which fades again: choose actions where it doesn't happen.
    """
    task.reset(3)
    (scene,) = task.simulation.scenes
    random = np.random.default_rng((3, 0, 0)).random(task.RANDOM_DIM)
    start = task._make_start(torch.from_numpy(random).float()[None])
    stock.reset(options={"start": start})
    prepare(stock)
    prepare(scene.env)
    gaps = [float(np.abs(joints(stock) - joints(scene.env)).max())]
    for action in actions:
        stock.step(action.astype(np.float32))
        scene.move(action.tolist())
        gaps.append(float(np.abs(joints(stock) - joints(scene.env)).max()))
    return max(gaps)


def snapshot(env: Any) -> dict[str, Any]:
    """All that moves: the robot and what is dynamic."""
    robot = env.agent.robot._objs[0]
    bodies = {}
    for name, actor in env.scene.actors.items():
        if actor.px_body_type == "dynamic":
            body = actor._bodies[0]
            bodies[name] = (actor._objs[0].pose, body.linear_velocity.copy(), body.angular_velocity.copy())
    base = (robot.root_pose, robot.root_linear_velocity.copy(), robot.root_angular_velocity.copy())
    return {"base": base, "qpos": robot.qpos.copy(), "qvel": robot.qvel.copy(), "bodies": bodies}


def restore(env: Any, state: dict[str, Any]) -> None:
    """Puts an environment of the same kind into that state, without contacts of the past."""
    reset_physics(env)
    robot = env.agent.robot._objs[0]
    pose, linear, angular = state["base"]
    robot.set_root_pose(pose)
    if not env.agent.fix_root_link:
        robot.set_root_linear_velocity(linear)
        robot.set_root_angular_velocity(angular)
    robot.set_qpos(state["qpos"])
    robot.set_qvel(state["qvel"])
    for name, (pose, linear, angular) in state["bodies"].items():
        actor = env.scene.actors[name]
        actor._objs[0].set_pose(pose)
        actor._bodies[0].set_linear_velocity(linear)
        actor._bodies[0].set_angular_velocity(angular)


def single_step_gaps(stock: Any, scene: Any, actions: Iterable[np.ndarray]) -> np.ndarray:
    """Compares single steps from equal states, since contact turns rounding into other trajectories.

    Args:
        stock: a registered environment.
        scene: a scene of the same kind, which goes along a trajectory.
        actions: of that trajectory, answers to the scene as it then is.

    Returns:
        Differences of joint angles after each step, (steps,) in rad.
    """
    gaps = []
    for action in actions:
        state = snapshot(scene.env)
        restore(stock, state)
        restore(scene.env, state)
        stock.step(action.astype(np.float32))
        scene.move(action.tolist())
        gaps.append(np.abs(joints(scene.env) - joints(stock)).max())
    return np.array(gaps)
