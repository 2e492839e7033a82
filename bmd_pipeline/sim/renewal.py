"""Resets that leave nothing behind.

Placing bodies at their start poses doesn't reset PhysX: contact caches, sleep timers and the order of contact
pairs survive, and contact turns differences of 1e-7 into other trajectories. Moving the bodies into a new
physics system takes a third of a millisecond and makes an episode depend on its start and its actions alone.
"""

from __future__ import annotations

import importlib
from typing import Any


def renew_physics(env: Any) -> None:
    """Moves every body of a ManiSkill scene into a new, empty physics system.

    Call it first thing in a reset; poses, velocities and drive targets stay what they are.

    Args:
        env: an unwrapped ManiSkill environment with `num_envs=1` on the CPU and `render_backend="none"`.
    """
    sapien: Any = importlib.import_module("sapien")
    scene = env.scene
    old = scene.sub_scenes[0]
    env._set_scene_config()  # a new system takes gravity and solver settings from SAPIEN's global ones
    new = sapien.Scene([sapien.physx.PhysxCpuSystem()])
    new.set_timestep(scene.px.timestep)
    entities = list(old.entities)
    for entity in entities:
        old.remove_entity(entity)
    for entity in entities:
        new.add_entity(entity)
    scene.sub_scenes = [new]
    scene.px = new.physx_system
