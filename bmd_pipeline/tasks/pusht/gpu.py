"""PushT in ManiSkill's GPU simulation: all scenes in one batch of tensors.

Not yet run on a GPU: it needs PhysX's library for GPUs, which SAPIEN downloads when it is first used, and where there
was a GPU that was not to be had. The code is exercised on the CPU, where ManiSkill offers the same batched interface
for one environment; only the calls that move data to and from the GPU's buffers are untried.
Scenes whose episode ended go on being simulated, unmoved and unread, until they are reset.

Source: `BaseEnv.reset` and `BaseEnv.step` of ManiSkill 3.0.1.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.sim import headless
from bmd_pipeline.sim.planar import hold_tips
from bmd_pipeline.tasks.pusht.geometry import START_HEIGHT, TIP_HEIGHT
from bmd_pipeline.tasks.pusht.overlap import GoalOverlap
from bmd_pipeline.tasks.pusht.scene import CONTROL_MODE, ENV_ID, skip_recolouring
from bmd_pipeline.tasks.pusht.task import PushTTask


class PushTOnGPU(PushTTask):
    """A batch of PushT scenes simulated together on the GPU (or a single one on the CPU, for tests)."""

    def _build(self) -> GoalOverlap:
        skip_recolouring()
        backend = "physx_cpu"
        if self.device.type == "cuda":
            backend = "physx_cuda" if self.device.index is None else f"physx_cuda:{self.device.index}"
        self._env: Any = headless.make_env(
            ENV_ID, num_envs=self.num_envs, control_mode=CONTROL_MODE, sim_backend=backend
        )
        self._make_pose: Any = importlib.import_module("mani_skill.utils.structs").Pose.create_from_pq
        self._rotation_scale = float(self._env.agent.controller.controllers["arm"].config.rot_lower)
        return GoalOverlap.of_env(self._env)

    def _place(self, rows: NDArray[np.int64], qpos: NDArray[np.float64], tee: NDArray[np.float64]) -> Tensor:
        env, scene = self._env, self._env.scene
        index = torch.from_numpy(rows).to(self.device)
        pose = torch.from_numpy(tee).float().to(self.device)
        position = torch.cat((pose[:, :2], torch.full_like(pose[:, :1], START_HEIGHT)), 1)
        half, zero = pose[:, 2] / 2.0, torch.zeros_like(pose[:, 2])
        quaternion = torch.stack((half.cos(), zero, zero, half.sin()), 1)
        scene._reset_mask = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        scene._reset_mask[index] = True  # the setters below concern these scenes alone
        env.agent.reset(torch.from_numpy(qpos).float().to(self.device))
        env.tee.set_pose(self._make_pose(position, quaternion))
        env.tee.set_linear_velocity(torch.zeros(3, device=self.device))
        env.tee.set_angular_velocity(torch.zeros(3, device=self.device))
        scene._reset_mask = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        if env.gpu_sim_enabled:
            scene._gpu_apply_all()
            scene.px.gpu_update_articulation_kinematics()
            scene._gpu_fetch_all()
        env.agent.controller.reset()
        return self._read()[index]

    def _move(self, action: Tensor, active: Tensor) -> Tensor:
        held = torch.where(active[:, None], action, torch.zeros_like(action))
        self._env._step_action(hold_tips(held, self._env.agent.tcp.pose.raw_pose, self._rotation_scale, TIP_HEIGHT))
        return self._read()

    def _read(self) -> Tensor:
        tip, tee = self._env.agent.tcp.pose.raw_pose, self._env.tee.pose.raw_pose
        yaw = 2.0 * torch.atan2(tee[:, 6], tee[:, 3])
        return torch.cat((tip[:, :3], tee[:, :2], yaw[:, None]), 1)

    def close(self) -> None:
        """Releases the simulation."""
        self._env.close()
