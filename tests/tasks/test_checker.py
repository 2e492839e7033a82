"""The checker passes sound tasks and names what is wrong with broken ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bmd_pipeline.demos.store import DemoWriter
from bmd_pipeline.environments.base import Episode, Transition
from bmd_pipeline.errors import TaskError
from bmd_pipeline.tasks import checker, registry
from bmd_pipeline.tasks.checker import CheckResult, check_task
from bmd_pipeline.tasks.registry import TaskEntry
from tests.tasks.toy import SPEC, SideLabelling, Walk, WalkExpert


class LeakyReset(Walk):
    """Starts a little further away in every episode."""

    played = 0

    def _reset(self, seed: int) -> None:
        super()._reset(seed)
        self.played += 1
        self.x = self.x + 1e-6 * self.played


class FixedStart(Walk):
    def _reset(self, seed: int) -> None:
        super()._reset(0)


class Unclipped(Walk):
    def step_chunk(self, actions: Tensor) -> Transition:
        self.scale = actions.abs().amax(dim=(1, 2)).clamp(min=1.0)
        return super().step_chunk(actions)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super()._advance(action * self.scale[:, None], active)


class ShortLimit(Walk):
    def step_chunk(self, actions: Tensor) -> Transition:
        moved = super().step_chunk(actions)
        return replace(moved, truncated=moved.truncated | (self.elapsed >= SPEC.horizon - 1))


class PaysTheDead(Walk):
    def step_chunk(self, actions: Tensor) -> Transition:
        moved = super().step_chunk(actions)
        return replace(moved, reward=moved.reward + 1)


class StaysEnded(Walk):
    def reset(self, seed: int) -> Tensor:
        over = self.ended & self._started
        obs = super().reset(seed)
        self.ended |= over
        return obs


class DoublePrecision(Walk):
    def _observe(self) -> Tensor:
        return super()._observe().double()


class OneStepChunks(Walk):
    """Executes only the first action of a chunk, again and again."""

    def step_chunk(self, actions: Tensor) -> Transition:
        return super().step_chunk(actions[:, :1].expand_as(actions))


class Crashes(Walk):
    def track(self) -> Tensor:
        raise RuntimeError("no such body\nin the scene")


class GlitchesLater(Walk):
    def _observe(self) -> Tensor:
        return torch.where(self.elapsed[:, None] == 5, torch.nan, super()._observe())


class Lies(Walk):
    """Says success at every step, and ends as it should."""

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reward, terminated, success = super()._advance(action, active)
        return reward, terminated, torch.ones_like(success)


class OneBuffer(Walk):
    """Shows the tensor that it goes on with."""

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.x
        reward, terminated, success = super()._advance(action, active)
        before.copy_(self.x)
        self.x = before
        return reward, terminated, success

    def _observe(self) -> Tensor:
        return self.x[:, None]


class Huge(Walk):
    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reward, terminated, success = super()._advance(action, active)
        return torch.full_like(reward, 1e20), terminated, success


class Improper(SideLabelling):
    def label(self, track: Tensor, length: Tensor, success: Tensor) -> Tensor:
        return 0.9 * super().label(track, length, success)


class NeverSlow(WalkExpert):
    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        return replace(super().demonstrate(behaviour, seed), success=behaviour == 0)


class Blind(WalkExpert):
    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        shown = super().demonstrate(behaviour, seed)
        return replace(shown, obs=np.full_like(shown.obs, np.inf))


class TooStrong(WalkExpert):
    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        shown = super().demonstrate(behaviour, seed)
        return replace(shown, action=shown.action + np.float32(0.5))


def check_toy(
    monkeypatch: pytest.MonkeyPatch,
    env: type[Walk] = Walk,
    expert: type[WalkExpert] = WalkExpert,
    labelling: type[SideLabelling] = SideLabelling,
    demos: Path | None = None,
) -> dict[str, CheckResult]:
    monkeypatch.setitem(registry._REGISTRY, "Toy", TaskEntry("Toy", "tests.tasks", "has no expert.py"))
    monkeypatch.setattr(checker, "make_spec", lambda name, values: SPEC)
    monkeypatch.setattr(checker, "make_env", lambda name, values, num_envs, device: env(num_envs))
    monkeypatch.setattr(checker, "make_expert", lambda name, values: expert())
    monkeypatch.setattr(checker, "load_labellings", lambda name: (labelling(),))
    return {result.name: result for result in check_task("Toy", {}, demos=demos)}


def test_a_sound_task_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    results = check_toy(monkeypatch)
    assert [result for result in results.values() if not result.passed] == []
    assert results["demonstrations look like the task"].skipped
    assert results["time limit at the horizon"].detail == "4 of 4 idle episodes ran into it after 6 steps"
    assert results["expert succeeds in every behaviour"].detail == "success 1.00 over 2 behaviours x 3 episodes"


@pytest.mark.parametrize(
    ("broken", "check", "reason"),
    [
        ({"env": LeakyReset}, "same seed, same trajectory", "first observations of one seed differ by up to"),
        ({"env": FixedStart}, "different seeds differ", "seeds 0 and 1 start all episodes alike"),
        ({"env": Unclipped}, "actions are clipped to [-1, 1]", "under clipped and unclipped actions differ"),
        ({"env": ShortLimit}, "time limit at the horizon", "truncated after 5 steps, horizon is 6"),
        ({"env": PaysTheDead}, "ended episodes stay frozen", "ended episodes are still paid"),
        ({"env": StaysEnded}, "ended episodes stay frozen", "a reset does not start new episodes"),
        (
            {"env": DoublePrecision},
            "shapes, types, devices and finite values",
            "observation of a reset must be a tensor of torch.float32, (4, 1), got",
        ),
        ({"env": OneStepChunks}, "a chunk equals its single steps", "observations of chunk and steps differ"),
        (
            {"env": Crashes},
            "shapes, types, devices and finite values",
            "task Toy failed in track: RuntimeError: no such body in the scene",
        ),
        ({"env": GlitchesLater}, "ended episodes stay frozen", "obs_path of a whole episode has values that are not"),
        ({"env": Huge}, "shapes, types, devices and finite values", "reward has values that are not finite, or beyond"),
        ({"env": Lies}, "success ends the episode", "24 steps of 4 episodes say success, and not terminated"),
        ({"env": OneBuffer}, "shapes, types, devices and finite values", "of the reset changed with the next steps"),
        ({"expert": Blind}, "expert succeeds in every behaviour", "fast: observation inf at step 0, column 0"),
        ({"labelling": Improper}, "mode weights are distributions", "rows must sum to 1, one is off by 0.1"),
        ({"expert": NeverSlow}, "expert succeeds in every behaviour", "slow: no success in 3 episodes"),
        ({"expert": TooStrong}, "expert succeeds in every behaviour", "action 1.5 is outside [-1, 1]"),
    ],
)
def test_a_broken_task_is_told_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any], check: str, reason: str
) -> None:
    result = check_toy(monkeypatch, **broken)[check]
    assert not result.passed
    assert reason in result.detail
    assert "\n" not in result.detail


def test_a_task_without_an_expert_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_expert() -> WalkExpert:
        registry.make_expert("Toy", {})
        raise AssertionError("made from nothing")

    result = check_toy(monkeypatch, expert=make_expert)["expert succeeds in every behaviour"]  # type: ignore[arg-type]
    assert (result.passed, result.skipped) == (True, True)
    assert result.detail.startswith(
        "task Toy has no module tests.tasks.expert: `collect` and `play` of the expert need"
    )


@pytest.mark.parametrize(("factor", "sound"), [(1.0, True), (1000.0, False)])
def test_demonstrations_are_compared_with_the_task(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, factor: float, sound: bool
) -> None:
    env = Walk(20)
    with DemoWriter(tmp_path / "d", 1, 1, {}) as writer:
        path = torch.cat([env.reset(7)[None], env.step_chunk(torch.full((20, 2, 1), 0.9)).obs_path])
        for row in range(20):
            shown = factor * path[:2, row].numpy()
            writer.append(Episode(shown, np.full((2, 1), 0.9, np.float32), True, 0))
    result = check_toy(monkeypatch, demos=tmp_path / "d")["demonstrations look like the task"]
    assert result.passed == sound
    assert ("column 0 of the observation" in result.detail) != sound


def test_a_store_that_is_none_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = check_toy(monkeypatch, demos=tmp_path)["demonstrations look like the task"]
    assert not result.passed
    assert "can't be read as a zarr store" in result.detail


def test_unknown_task() -> None:
    with pytest.raises(TaskError, match="unknown task 'PushTee'; did you mean 'PushT'"):
        check_task("PushTee", {})


@pytest.mark.parametrize(("name", "num_envs", "expert_episodes"), [("GaussianMixture", 16, 3), ("PushT", 2, 1)])
def test_our_tasks_keep_the_contract(name: str, num_envs: int, expert_episodes: int) -> None:
    torch.set_num_threads(1)
    results = check_task(name, {}, num_envs=num_envs, expert_episodes=expert_episodes)
    assert [result for result in results if not result.passed] == []
