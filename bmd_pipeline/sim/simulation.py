"""Scenes in numbers: how a task places, moves and reads what it simulates, wherever that runs.

A start is a row of numbers that says how an episode begins, a state a row of numbers that says how things are. Each
task fixes their columns; nothing here knows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.sim import headless


class Simulation(Protocol):
    """A batch of scenes."""

    def place(self, rows: Tensor, start: Tensor) -> Tensor:
        """Starts some scenes afresh, at rest.

        Args:
            rows: (n,) int64, which scenes.
            start: (n, start_dim).

        Returns:
            Their state (n, state_dim).
        """
        ...

    def move(self, action: Tensor, active: Tensor) -> Tensor:
        """One control step of the scenes where active (num_envs,) is True, with action (num_envs, action_dim).

        Returns:
            State (num_envs, state_dim); rows of other scenes mean nothing.
        """
        ...

    def close(self) -> None:
        """Releases the scenes."""
        ...


class Scene(Protocol):
    """One scene on the CPU. It takes and gives plain numbers: a torch call costs as much as the physics."""

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; nothing of the past remains."""
        ...

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action in [-1, 1]."""
        ...

    def read(self) -> Sequence[float]:
        """The scene's state."""
        ...


class SceneList:
    """Scenes in this process, stepped one after the other; those that aren't active cost nothing."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = list(scenes)
        # Gathered in NumPy: a small tensor for each scene and step takes 10 µs, a row of an array 1.
        self._state = np.array([scene.read() for scene in scenes], np.float32)

    def place(self, rows: Tensor, start: Tensor) -> Tensor:
        """See `Simulation.place`."""
        for row, begin in zip(rows.tolist(), start.tolist(), strict=True):
            self.scenes[row].place(begin)
            self._state[row] = self.scenes[row].read()
        return torch.from_numpy(self._state[rows.numpy()])

    def move(self, action: Tensor, active: Tensor) -> Tensor:
        """See `Simulation.move`."""
        actions = action.tolist()
        for row in active.nonzero()[:, 0].tolist():
            self.scenes[row].move(actions[row])
            self._state[row] = self.scenes[row].read()
        return torch.from_numpy(self._state.copy())

    def close(self) -> None:
        """Forgets the scenes."""
        self.scenes = []


def choose_backend(device: torch.device) -> str:
    """ManiSkill's name of the simulation on a device."""
    if device.type != "cuda":
        return "physx_cpu"
    return "physx_cuda" if device.index is None else f"physx_cuda:{device.index}"


class BatchedScenes:
    """Scenes of one `StartedEnv`, in batched tensors: ManiSkill's GPU simulation.

    Not yet run on a GPU: it needs PhysX's library for GPUs, which SAPIEN downloads when it is first used, and where
    there was a GPU that was not to be had. It is exercised on the CPU, where ManiSkill offers the same interface for
    one scene; only the calls that move data to and from the GPU's buffers are untried. Scenes that aren't active go
    on being simulated under zero actions, unread, until they are placed anew.

    Args:
        env_id: ManiSkill's name of the environment, which must have been registered.
        num_envs: number of scenes.
        device: where they are simulated; the CPU takes one scene only.
    """

    def __init__(self, env_id: str, num_envs: int, device: torch.device) -> None:
        self._env: Any = headless.make_env(env_id, num_envs=num_envs, sim_backend=choose_backend(device))

    def place(self, rows: Tensor, start: Tensor) -> Tensor:
        """See `Simulation.place`."""
        self._env.reset(options={"env_idx": rows, "start": start})
        state: Tensor = self._env.read_state()[rows]
        return state

    def move(self, action: Tensor, active: Tensor) -> Tensor:
        """See `Simulation.move`."""
        self._env._step_action(torch.where(active[:, None], action, torch.zeros_like(action)))
        state: Tensor = self._env.read_state()
        return state

    def close(self) -> None:
        """Releases the simulation."""
        self._env.close()
