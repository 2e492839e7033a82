"""What goes wrong in a task that a user plugs in is said to be that task's: a TaskError, where, what came, what not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bmd_pipeline.demos.collect import Attempt, _demonstrate
from bmd_pipeline.environments.base import Episode, Labelling, TaskSpec
from bmd_pipeline.errors import TaskError
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.gaussian_mixture.env import GaussianMixture
from bmd_pipeline.tasks.registry import TaskEntry
from tests.tasks.toy import SPEC, SideLabelling, Walk, WalkExpert

NAME = "Toy"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._REGISTRY, NAME, TaskEntry(NAME, "tests.tasks.toy", "plugged in"))
    monkeypatch.setattr(registry, "load_options", lambda name, values: None)


def plug(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    """Makes every module of the task offer these."""
    monkeypatch.setattr(registry, "_module", lambda name, part: SimpleNamespace(**parts))
    monkeypatch.setattr(registry, "require_expert", lambda name: None)


def fail(*_: object) -> Any:
    raise KeyError("joint_3\nof the arm")


def leave(*_: object) -> Any:
    raise SystemExit(0)


def late(give: Callable[[Walk], Any]) -> Callable[[Walk], Any]:
    """Gives something else from the third step on."""
    return lambda env: give(env) if int(env.elapsed[0]) > 2 else env.x[:, None].clone()


def give(reward: Any = None, terminated: Any = None, success: Any = None) -> Callable[..., Any]:
    """A step with something else in one place."""
    flags = torch.zeros(3, dtype=torch.bool)
    values = torch.zeros(3), flags, flags
    return lambda *_: tuple(
        own if other is None else other for own, other in zip(values, (reward, terminated, success), strict=True)
    )


def play(env: Walk) -> None:
    env.reset(0)
    env.step_chunk(torch.zeros(3, 4, 1))
    env.step(torch.zeros(3, 1))


STEP = r"^task Toy: {} of a step must be a tensor of torch\.{}, \(3,\), got {}$"


@pytest.mark.parametrize(
    ("hook", "behave", "message"),
    [
        ("_reset", fail, r"^task Toy failed in reset: KeyError: 'joint_3\\nof the arm' \(.*test_plugged_in\.py:\d+\)$"),
        ("_reset", leave, r"^task Toy failed in reset: SystemExit: 0 \("),
        ("_observe", fail, r"^task Toy failed in reset: KeyError"),
        ("_observe", late(fail), r"^task Toy failed in step: KeyError"),
        ("_advance", fail, r"^task Toy failed in step: KeyError"),
        ("_advance", leave, r"^task Toy failed in step: SystemExit: 0 \("),
        ("_advance", lambda *_: torch.ones(3, 1) @ torch.ones(3, 1), r"step: RuntimeError: .*test_plugged_in\.py:"),
        ("track", fail, r"^task Toy failed in track: KeyError"),
        ("_advance", lambda *_: (1, 2), r"^task Toy: a step must give reward, terminated and success, got 2 values$"),
        ("_advance", lambda *_: (0,) * 5, r"success, got 5 values$"),
        ("_advance", lambda *_: None, r"success, got NoneType$"),
        (
            "_advance",
            give(torch.zeros(3, 1)),
            STEP.format("reward", "float32", r"a tensor of torch\.float32, \(3, 1\)"),
        ),
        ("_advance", give(torch.zeros(1)), STEP.format("reward", "float32", r"a tensor of torch\.float32, \(1,\)")),
        ("_advance", give(torch.zeros(3).double()), STEP.format("reward", "float32", r".*float64, \(3,\)")),
        ("_advance", give(1.0), STEP.format("reward", "float32", "float")),
        ("_advance", give(None, torch.zeros(3)), STEP.format("terminated", "bool", r".*float32, \(3,\)")),
        ("_advance", give(None, None, torch.zeros(3).long()), STEP.format("success", "bool", r".*int64, \(3,\)")),
        ("_advance", give(None, None, True), STEP.format("success", "bool", "bool")),
        ("_observe", lambda env: None, r"^task Toy: observation of a reset must be .*float32, \(3, 1\), got None$"),
        ("_observe", lambda env: env.x.numpy()[:, None], r"got numpy\.ndarray of float32, \(3, 1\)$"),
        ("_observe", lambda env: env.x, r"got a tensor of torch\.float32, \(3,\)$"),
        ("_observe", late(lambda env: env.x), r"^task Toy failed in step: .*equal size, but got \[3, 1\] .* \[3\] at"),
        ("_observe", late(lambda env: env.x[:, None].half()), r"^task Toy: observation of a step .*float16, \(3, 1\)$"),
        ("track", lambda env: env.x[:, None], r"^task Toy: track of a reset must be .*\(3, 2\), got .*\(3, 1\)$"),
    ],
)
def test_a_failing_hook_is_the_tasks_fault(
    monkeypatch: pytest.MonkeyPatch, hook: str, behave: Callable[..., Any], message: str
) -> None:
    monkeypatch.setattr(Walk, hook, behave)
    with pytest.raises(TaskError, match=message) as caught:
        play(Walk(3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", [fail, leave])
def test_what_fails_at_its_end_is_the_tasks_fault(monkeypatch: pytest.MonkeyPatch, end: Callable[..., Any]) -> None:
    for kind in (Walk, WalkExpert):
        monkeypatch.setattr(kind, "close", end, raising=False)
    plug(monkeypatch, make_env=lambda *_, **__: Walk(2), make_expert=lambda _: WalkExpert())
    for made in (registry.make_env(NAME, {}, 2), registry.make_expert(NAME, {})):
        with pytest.raises(
            TaskError, match=r"^task Toy failed in close: (KeyError|SystemExit): .*test_plugged_in\.py:"
        ):
            made.close()


def test_a_bug_in_a_task_of_this_package_stays_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    options = registry.options_model("GaussianMixture")()
    env = GaussianMixture(options, 2)
    env.reset(0)
    monkeypatch.setattr(env, "_advance", fail)
    with pytest.raises(KeyError):
        env.step(torch.zeros(2, 2))


def test_success_counts_only_where_the_episode_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "_advance", give(None, None, torch.ones(3, dtype=torch.bool)))
    env = Walk(3)
    env.reset(0)
    moved = env.step_chunk(torch.zeros(3, SPEC.horizon, 1))
    assert moved.truncated.all()
    assert not moved.success.any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizon": 0}, "horizon must be a whole number >= 1, got 0"),
        ({"horizon": -5}, "got -5"),
        ({"horizon": float("inf")}, "got inf"),
        ({"horizon": 20.0}, "got 20.0"),
        ({"obs_dim": 0}, "obs_dim must be a whole number >= 1, got 0"),
        ({"action_dim": None}, "action_dim must be a whole number >= 1, got None"),
        ({"track_names": ()}, "track_names must be one or more different names"),
        ({"track_names": ("x", "x")}, "track_names must be one or more different names"),
        ({"track_names": "xy"}, "track_names must be a tuple of texts, got 'xy'"),
        ({"planar": ("x", "z")}, r"planar must be two of the track's columns \(x, steps\), got \('x', 'z'\)"),
        ({"planar": ("x",)}, "planar must be two"),
        ({"planar_units": ("m",)}, "planar_units must be two texts"),
        ({"obs_names": ("x", "y", "z")}, r"obs_names must be \d texts, got \('x', 'y', 'z'\)"),
        ({"control_hz": 0.0}, "control_hz must be a finite number > 0, or None, got 0.0"),
        ({"action_low": (-1.0, -1.0), "action_high": (1.0,)}, "must be 1 finite numbers each"),
        ({"action_low": (float("-inf"),), "action_high": (1.0,)}, "must be 1 finite numbers each"),
        ({"action_low": ("a",), "action_high": ("b",)}, "must be 1 finite numbers each"),
    ],
)
def test_a_spec_of_other_values_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=f"^Toy: .*{message}"):
        replace(SPEC, **{"action_low": (), "action_high": (), **values})


def test_a_spec_may_hold_lists_and_numbers_of_numpy() -> None:
    spec = TaskSpec(NAME, np.int64(1), 1, ["x", "steps"], ["x", "steps"], 6)  # type: ignore[arg-type]
    assert spec == SPEC


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "make_spec must be a TaskSpec, got NoneType"),
        (replace(SPEC, name="Other"), "the spec says that its name is 'Other'; it must be the registered one"),
        (replace(SPEC, name="GaussianMixture"), "the spec says that its name is 'GaussianMixture'"),
    ],
)
def test_make_spec_gives_the_tasks_own_spec(monkeypatch: pytest.MonkeyPatch, given: object, message: str) -> None:
    plug(monkeypatch, make_spec=lambda options: given)
    with pytest.raises(TaskError, match=f"^task Toy: {message}"):
        registry.make_spec(NAME, {})


def test_a_variants_spec_has_the_name_of_the_task_that_it_extends(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, make_spec=lambda options: SPEC)
    monkeypatch.setitem(registry._REGISTRY, "ToyShifted", TaskEntry("ToyShifted", "tests.tasks.toy", "a variant"))
    assert registry.make_spec("ToyShifted", {}) == SPEC


def test_make_env_gives_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, make_env=lambda *_, **__: object())
    with pytest.raises(TaskError, match=r"^task Toy: the environment's spec must be a TaskSpec, got NoneType$"):
        registry.make_env(NAME, {}, 1)


@pytest.mark.parametrize("behaviours", [(), ("left", "left"), "left", ("left", 2), ("le\x1b[31mft",), None])
def test_an_expert_without_names_of_behaviours_is_refused(monkeypatch: pytest.MonkeyPatch, behaviours: object) -> None:
    plug(monkeypatch, make_expert=lambda options: SimpleNamespace(behaviours=behaviours))
    with pytest.raises(TaskError, match=r"^task Toy: the expert's behaviours must "):
        registry.make_expert(NAME, {})


SIDE = Labelling("side", ("left", "right"), SideLabelling().label)


@pytest.mark.parametrize(
    ("labellings", "message"),
    [
        ((), "LABELLINGS is empty; without labels give one mode"),
        ((SIDE, SIDE), "names of labellings must not repeat, and hold no '/': 'side' does"),
        ((replace(SIDE, name="a/b"),), "names of labellings must not repeat, and hold no '/': 'a/b' does"),
        ((replace(SIDE, name="si\x1bde"),), "names of labellings must be one or more printable texts"),
        ((replace(SIDE, name="success"),), "a labelling can't be called 'success': episodes.parquet has such a column"),
        ((replace(SIDE, modes=("left", "../right")),), "modes of labelling 'side' must not repeat, and hold no '/'"),
        ((replace(SIDE, modes=()),), "modes of labelling 'side' must be one or more printable texts"),
    ],
)
def test_labellings_that_no_table_can_hold_are_refused(
    monkeypatch: pytest.MonkeyPatch, labellings: tuple[Labelling, ...], message: str
) -> None:
    plug(monkeypatch, LABELLINGS=labellings)
    with pytest.raises(TaskError, match=f"^task Toy: {message}") as caught:
        registry.load_labellings(NAME)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (fail, r"^task Toy failed in labelling 'side': KeyError"),
        (leave, r"^task Toy failed in labelling 'side': SystemExit"),
        (lambda *_: np.ones((3, 2)), r"must give a tensor of weights \(3, 2\), got ndarray \(3, 2\)$"),
        (lambda *_: torch.ones(3), r"must give a tensor of weights \(3, 2\), got Tensor \(3,\)$"),
    ],
)
def test_labels_that_fail_are_the_tasks_fault(
    monkeypatch: pytest.MonkeyPatch, label: Callable[..., Tensor], message: str
) -> None:
    plug(monkeypatch, LABELLINGS=(replace(SIDE, label=label),))
    (labelling,) = registry.load_labellings(NAME)
    assert (labelling.name, labelling.modes) == (SIDE.name, SIDE.modes)
    with pytest.raises(TaskError, match=message):
        labelling.label(torch.zeros(7, 3, 2), torch.ones(3), torch.ones(3, dtype=torch.bool))


ROWS = np.zeros((2, 1), np.float32)


@pytest.mark.parametrize(
    ("demonstrate", "message"),
    [
        (fail, r"^task Toy failed in the expert \(slow, attempt 4\): KeyError: .*test_plugged_in\.py:\d+\)$"),
        (leave, r"failed in the expert \(slow, attempt 4\): SystemExit: 0"),
        (lambda *_: None, r"^task Toy: the expert \(slow, attempt 4\) must return an Episode, got NoneType$"),
        (lambda *_: "done", "must return an Episode, got str"),
        (lambda *_: Episode(ROWS, ROWS, "yes", 1), "whose success is a bool, got 'yes'"),  # type: ignore[arg-type]
        (lambda *_: Episode(ROWS, ROWS, True, 0), "was asked for behaviour 1, its episode says 0"),
        (
            lambda *_: Episode(ROWS[0], ROWS, True, 1),
            r"whose obs are an array of numbers \(T, dim\), got float32 \(1,\)",
        ),
        (lambda *_: Episode(ROWS, [[1.0], []], True, 1), "whose action are an array of"),  # type: ignore[arg-type]
        (lambda *_: Episode(ROWS.astype(str), ROWS, True, 1), "whose obs are an array of"),
    ],
)
def test_an_expert_that_shows_no_episode_is_told_so(demonstrate: Callable[..., Episode], message: str) -> None:
    expert = WalkExpert()
    expert.demonstrate = demonstrate  # type: ignore[method-assign]
    with pytest.raises(TaskError, match=message) as caught:
        _demonstrate(NAME, expert, (Attempt(4, 1), 0))
    assert "\n" not in str(caught.value)
