"""Tasks whose episodes are simulated: seeds, starts and states, whatever simulates them.

Subclasses say how an episode starts, what a state is worth and what is seen of it, as functions of tensors; so the CPU
and the GPU mean the same.
"""

from __future__ import annotations

import functools
import importlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.sim.simulation import BatchedScenes, Scene, SceneList, Simulation
from bmd_pipeline.sim.workers import make_parallel
from bmd_pipeline.tasks.base import TaskEnv, TaskSpec, VectorTask


class SceneTask(VectorTask):
    """Common part of tasks whose states come from a `Simulation`.

    Args:
        spec: fixed facts of the task.
        num_envs: scenes stepped together.
        first_row: number of the first of them among all workers' scenes.
        device: where tensors live.
        auto_reset: start a new episode where one ended.

    Attributes:
        simulation: the scenes.
        state: (num_envs, STATE_DIM) float32.
    """

    STATE_DIM: ClassVar[int]
    """Size of a scene's state."""
    RANDOM_DIM: ClassVar[int]
    """How many random numbers an episode's start is made of."""

    def __init__(
        self,
        spec: TaskSpec,
        num_envs: int,
        *,
        first_row: int = 0,
        device: torch.device | str = "cpu",
        auto_reset: bool = True,
    ) -> None:
        super().__init__(num_envs, device, auto_reset)
        self.spec = spec
        self._first_row = first_row
        self._seed_value = 0
        self._episodes = np.zeros(num_envs, np.int64)
        self.simulation = self._make_simulation()
        self.state = torch.zeros(num_envs, self.STATE_DIM, device=self.device)

    @abstractmethod
    def _make_simulation(self) -> Simulation:
        """Builds the scenes."""

    def _draw_random(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Random numbers (RANDOM_DIM,) of one start: uniform in [0, 1), unless a task says otherwise."""
        return generator.random(self.RANDOM_DIM)

    @abstractmethod
    def _make_start(self, random: Tensor) -> Tensor:
        """Starts (n, start_dim) from what `_draw_random` drew, (n, RANDOM_DIM)."""

    @abstractmethod
    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a control step was worth.

        Args:
            before: (num_envs, STATE_DIM) state before it.
            after: the same, after it; equal to `before` where nothing was moved.

        Returns:
            reward, terminated and success, each (num_envs,); nothing is made of those where nothing was moved.
        """

    def _begin(self, rows: Tensor) -> None:
        """Called when new episodes began where rows (num_envs,) is True; `state` is up to date."""

    def _seed(self, seed: int) -> None:
        self._seed_value = seed
        self._episodes[:] = 0

    def _reset_rows(self, rows: Tensor) -> None:
        chosen = rows.nonzero()[:, 0]
        self.state[chosen] = self.simulation.place(chosen, self._draw_starts(chosen))
        self._begin(rows)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.state
        self.state = torch.where(active[:, None], self.simulation.move(action, active), before)
        return self._judge(before, self.state)

    def close(self) -> None:
        """Releases the simulator."""
        self.simulation.close()

    def _draw_starts(self, rows: Tensor) -> Tensor:
        """A start for each of rows (n,); it depends on seed, number of the scene and of its episode alone."""
        chosen = rows.tolist()
        numbers = [(self._seed_value, self._first_row + row, int(self._episodes[row])) for row in chosen]
        random = [self._draw_random(np.random.default_rng(number)) for number in numbers]
        self._episodes[chosen] += 1
        return self._make_start(torch.from_numpy(np.stack(random)).float().to(self.device))


class SimulatedTask(SceneTask):
    """Common part of tasks on a ManiSkill environment.

    Args:
        spec: fixed facts of the task.
        num_envs: scenes stepped together.
        device: where tensors live; a CUDA device selects ManiSkill's GPU simulation.
        batched: step through ManiSkill's batched interface; None: on a GPU only. On the CPU it takes one scene.
        settings: see `SceneTask`.
    """

    ENV_MODULE: ClassVar[str]
    """Module that registers the ManiSkill environment, if it isn't ManiSkill's own, and names it `ENV_ID`."""

    def __init__(
        self,
        spec: TaskSpec,
        num_envs: int,
        *,
        device: torch.device | str = "cpu",
        batched: bool | None = None,
        **settings: Any,
    ) -> None:
        self._batched = torch.device(device).type == "cuda" if batched is None else batched
        super().__init__(spec, num_envs, device=device, **settings)

    @abstractmethod
    def _make_scene(self, env_id: str) -> Scene:
        """Builds one scene of a registered environment on the CPU."""

    def _make_batch(self, env_id: str) -> Simulation:
        """Builds all scenes of a registered environment, which is a `StartedEnv` here, in one batch."""
        return BatchedScenes(env_id, self.num_envs, self.device)

    def _make_simulation(self) -> Simulation:
        env_id: str = importlib.import_module(self.ENV_MODULE).ENV_ID
        if self._batched:
            return self._make_batch(env_id)
        return SceneList([self._make_scene(env_id) for _ in range(self.num_envs)])


def make_simulated(
    make_task: Callable[..., SimulatedTask],
    num_envs: int,
    *,
    device: torch.device | str,
    num_workers: int,
    auto_reset: bool,
) -> TaskEnv:
    """Builds environments of a task wherever the device is.

    Args:
        make_task: takes num_envs and the settings of `SimulatedTask`; it travels to workers, so it must be picklable.
        num_envs: environments stepped together.
        device: a CUDA device selects ManiSkill's GPU simulation; on the CPU, many scenes share a process.
        num_workers: processes on the CPU; one means this process. Results don't depend on it.
        auto_reset: start a new episode where one ended.
    """
    if torch.device(device).type == "cuda":
        return make_task(num_envs=num_envs, device=device, auto_reset=auto_reset)
    factory = functools.partial(_make_scenes, make_task=make_task, auto_reset=auto_reset)
    return make_parallel(factory, num_envs, num_workers)


def _make_scenes(
    num_envs: int, first_row: int, *, make_task: Callable[..., SimulatedTask], auto_reset: bool
) -> SimulatedTask:
    return make_task(num_envs=num_envs, first_row=first_row, auto_reset=auto_reset)
