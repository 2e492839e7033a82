"""Demonstrations beside episodes of the task: what differs is said column by column."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.demos.comparison import compare_with_task
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.environments.base import TaskSpec, VectorTask


class Cart(VectorTask):
    """Is pushed along a line from near 2: place, speed (0 at the start), and a constant."""

    spec = TaskSpec("Cart", 3, 1, ("x", "v"), ("x", "v"), horizon=30)

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.x, self.v = torch.zeros(num_envs), torch.zeros(num_envs)

    def _reset(self, seed: int) -> None:
        self.x = 2.0 + 0.1 * torch.randn(self.num_envs, generator=torch.Generator().manual_seed(seed))
        self.v = torch.zeros(self.num_envs)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.v = torch.where(active, self.v + 0.1 * action[:, 0], self.v)
        self.x = self.x + torch.where(active, 0.1 * self.v, torch.zeros_like(self.v))
        none = torch.zeros(self.num_envs, dtype=torch.bool)
        return none.float(), none, none

    def _observe(self) -> Tensor:
        return torch.stack([self.x, self.v, torch.full_like(self.x, 7.0)], dim=1)

    def track(self) -> Tensor:
        return torch.stack([self.x, self.v], dim=1)


def demonstrate(count: int = 40, length: int = 25) -> Demos:
    env, obs, action = Cart(count), [], torch.rand(count, length, 1, generator=torch.Generator().manual_seed(5))
    obs.append(env.reset(99)[None])
    obs.append(env.step_chunk(action).obs_path[:-1])
    rows = torch.cat(obs).transpose(0, 1).flatten(0, 1).numpy()
    return Demos(rows, action.flatten(0, 1).numpy(), length * (1 + np.arange(count)), {})


def scale(demos: Demos, column: int, factor: float, shift: float = 0.0) -> Demos:
    obs: NDArray[np.float32] = demos.obs.copy()
    obs[:, column] = obs[:, column] * factor + shift
    return replace(demos, obs=obs)


@pytest.mark.parametrize("num_envs", [4, 64])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_demonstrations_of_the_task_look_like_it(num_envs: int, count: int) -> None:
    assert compare_with_task(demonstrate(count), Cart(num_envs)) == ""


def test_what_comes_after_the_end_of_a_demonstration_is_not_compared() -> None:
    assert compare_with_task(demonstrate(length=2), Cart(16)) == ""


@pytest.mark.parametrize("factor", [10.0, 1e3, 1e7, 0.1, 1e-3, 1e-7])
def test_other_units_are_said_with_the_column(factor: float) -> None:
    found = compare_with_task(scale(demonstrate(), 0, factor), Cart(16))
    assert "column 0 of the observation" in found
    assert "column 1" not in found
    assert "column 2" not in found


def test_a_column_that_holds_nothing_is_said() -> None:
    assert "column 0 of the observation is 0 ± 0 at the start" in compare_with_task(
        scale(demonstrate(), 0, 0.0), Cart(16)
    )
    found = compare_with_task(scale(demonstrate(), 1, 0.0), Cart(16))
    assert "column 1 of the observation lies between 0 and 0 in demonstrations" in found
    assert "column 0" not in found


@pytest.mark.parametrize("factor", [0.1, 1e-3])
def test_actions_that_do_too_little_are_said(factor: float) -> None:
    demos = demonstrate()
    found = compare_with_task(replace(demos, action=demos.action * np.float32(factor)), Cart(16))
    assert "farther there than in the task; are they in its units?" in found


@pytest.mark.parametrize("factor", [0.1, 1e-4])
def test_what_rests_at_the_start_is_compared_once_it_moves(factor: float) -> None:
    found = compare_with_task(scale(demonstrate(), 1, factor), Cart(16))
    assert "column 1 of the observation lies between" in found
    assert "column 0" not in found


def test_another_place_another_constant_and_columns_in_another_order_are_said() -> None:
    demos = demonstrate()
    assert "column 0 of the observation is 4.99 ± 0.12 at" in compare_with_task(scale(demos, 0, 1.0, 3.0), Cart(16))
    assert "column 2 of the observation is 8 ± 0 at" in compare_with_task(scale(demos, 2, 1.0, 1.0), Cart(16))
    swapped = replace(demos, obs=demos.obs[:, [1, 0, 2]])
    assert "column 0" in compare_with_task(swapped, Cart(16))


def test_many_columns_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    demos = demonstrate()
    for column in range(3):
        demos = scale(demos, column, 100.0, 50.0)
    monkeypatch.setattr("bmd_pipeline.demos.comparison.SHOWN", 1)
    assert compare_with_task(demos, Cart(16)).endswith("; and 2 columns more")
