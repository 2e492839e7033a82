"""PushT-v1 in ManiSkill's GPU simulation: all scenes in one batch of tensors.

Not yet run on a GPU, for the reason that `BatchedScenes` gives; the code is exercised on the CPU, where ManiSkill
offers the same batched interface for one environment. PushT-v1 is ManiSkill's own and no `StartedEnv`, so that
its episodes are started here.

Source: `BaseEnv.reset` and `BaseEnv.step` of ManiSkill 3.0.1.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import hold_tips
from bmd_pipeline.sim.backend import choose_backend
from bmd_pipeline.tasks.pusht.geometry import START_HEIGHT, TIP_HEIGHT
from bmd_pipeline.tasks.pusht.scene import CONTROL_MODE, skip_recolouring
from bmd_pipeline.tasks.pusht.start import NUM_JOINTS
from bmd_pipeline.tasks.pusht.state import wrap


class PushTBatch:
    """A `Simulation` of PushT scenes together; see `BatchedScenes` for its arguments.

    Attributes:
        env: the unwrapped ManiSkill environment.
    """

    def __init__(self, env_id: str, num_envs: int, device: torch.device) -> None:
        skip_recolouring()
        self.env: Any = backend.make_env(
            env_id, num_envs=num_envs, control_mode=CONTROL_MODE, sim_backend=choose_backend(device)
        )
        self._make_pose: Any = importlib.import_module("mani_skill.utils.structs").Pose.create_from_pq
        self._rotation_scale = float(self.env.agent.controller.controllers["arm"].config.rot_lower)
        self._yaw = torch.zeros(num_envs, device=device)

    def place(self, rows: Tensor, start: Tensor) -> Tensor:
        """See `Simulation.place`."""
        env, scene = self.env, self.env.scene
        qpos, pose = start[:, :NUM_JOINTS], start[:, NUM_JOINTS:]
        position = torch.cat((pose[:, :2], torch.full_like(pose[:, :1], START_HEIGHT)), 1)
        half, zero = pose[:, 2] / 2.0, torch.zeros_like(pose[:, 2])
        quaternion = torch.stack((half.cos(), zero, zero, half.sin()), 1)
        scene._reset_mask = torch.zeros_like(self._yaw, dtype=torch.bool)
        scene._reset_mask[rows] = True  # the setters below concern these scenes alone
        env.agent.reset(qpos)
        env.tee.set_pose(self._make_pose(position, quaternion))
        env.tee.set_linear_velocity(torch.zeros_like(pose[0]))
        env.tee.set_angular_velocity(torch.zeros_like(pose[0]))
        scene._reset_mask = torch.ones_like(self._yaw, dtype=torch.bool)
        if env.gpu_sim_enabled:
            scene._gpu_apply_all()
            scene.px.gpu_update_articulation_kinematics()
            scene._gpu_fetch_all()
        env.agent.controller.reset()
        self._yaw[rows] = pose[:, 2]
        return self._read()[rows]

    def move(self, action: Tensor, active: Tensor) -> Tensor:
        """See `Simulation.move`."""
        held = torch.where(active[:, None], action, torch.zeros_like(action))
        self.env._step_action(hold_tips(held, self.env.agent.tcp.pose.raw_pose, self._rotation_scale, TIP_HEIGHT))
        return self._read()

    def _read(self) -> Tensor:
        tip, tee = self.env.agent.tcp.pose.raw_pose, self.env.tee.pose.raw_pose
        self._yaw = self._yaw + wrap(2.0 * torch.atan2(tee[:, 6], tee[:, 3]) - self._yaw)
        return torch.cat((tip[:, :3], tee[:, :2], self._yaw[:, None]), 1)

    def close(self) -> None:
        """Releases the simulation."""
        self.env.close()
