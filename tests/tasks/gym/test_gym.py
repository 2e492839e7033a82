"""Environments of others as tasks: the contract, what counts as success, what is shown, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bmd_pipeline.cli.main import main
from bmd_pipeline.config.load import load_config
from bmd_pipeline.environments.base import from_bounds
from bmd_pipeline.errors import ConfigError, TaskError
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.checker import check_task
from bmd_pipeline.tasks.gym.env import GymTask, build
from bmd_pipeline.tasks.gym.options import Options

WALK = "tests.tasks.gym.toy:BMDWalk-v0"
PUSH = {"id": "PushCube-v1", "success": "info.success", "track": ["obs.extra.obj_pose", "obs.extra.tcp_pose.0"]}


def make_walk(num_envs: int = 2, first_row: int = 0, **settings: Any) -> GymTask:
    values = {"id": WALK, "success": "info.far", "track": ["obs.z"], **settings}
    return GymTask(Options.model_validate(values), num_envs, first_row)


def move(env: GymTask, *metres: float) -> Any:
    """One step, each environment by its own distance."""
    low, high = (torch.tensor(bound) for bound in (env.spec.action_low, env.spec.action_high))
    return env.step(from_bounds(torch.tensor(metres)[:, None], low, high))


@pytest.mark.parametrize(
    "values",
    [
        {"id": "Pendulum-v1", "success": "return >= -300", "track": ["obs.0", "obs.1"], "horizon": 30},
        {
            "id": "gymnasium_robotics:PointMaze_UMaze-v3",
            "success": "info.success",
            "track": ["obs.achieved_goal"],
            "horizon": 20,
        },
        {**PUSH, "horizon": 6, "arguments": {"control_mode": "pd_joint_delta_pos"}},
    ],
    ids=["Pendulum", "PointMaze", "PushCube"],
)
def test_environments_of_others_keep_the_contract(values: dict[str, Any]) -> None:
    results = check_task("Gym", values, num_envs=2)
    assert [(result.name, result.detail) for result in results if not result.passed] == []
    assert [result.name for result in results if result.skipped] == [
        "expert succeeds in every behaviour",
        "demonstrations look like the task",
    ]


def test_columns_have_names_and_keys_are_sorted() -> None:
    env = make_walk(1, track=["obs.b", "info.pose.1", "info.far"])
    assert env.spec.track_names == ("obs.b.a", "obs.b.wide.0", "obs.b.wide.1", "info.pose.1", "info.far")
    assert env.spec.planar == ("obs.b.a", "obs.b.wide.0")
    assert env.spec.obs_names == ("obs.b.a", "obs.b.wide.0", "obs.b.wide.1", "obs.z.0")
    assert (env.spec.action_low, env.spec.action_high, env.spec.horizon) == ((-4.0,), (2.0,), 6)
    (first,) = env.reset(0).tolist()
    assert first == [first[3], 1.0, 2.0, first[3]]  # b.a, b.wide, z
    moved = move(env, -3.5)
    assert env.track()[0].tolist() == pytest.approx([first[3] - 3.5, 1.0, 2.0, 7.0, 1.0])
    assert bool(moved.success[0])


def test_maniskill_columns_are_those_of_its_own_state() -> None:
    named = GymTask(Options.model_validate(PUSH), 1)
    plain, is_maniskill, horizon = build(Options.model_validate({**PUSH, "arguments": {"obs_mode": "state"}}))
    assert (is_maniskill, horizon) == (True, named.spec.horizon)
    (scene,) = named._scenes
    scene.reset(5)
    assert scene.obs.tolist() == plain.reset(seed=5)[0][0].tolist()
    assert named.spec.track_names[:2] == ("obs.extra.obj_pose.0", "obs.extra.obj_pose.1")
    assert scene.track.tolist()[:2] == scene.obs.tolist()[28:30]


def test_an_episode_depends_on_its_row_and_not_on_who_steps_it() -> None:
    together, alone = make_walk(3), make_walk(1, first_row=2)
    assert torch.equal(together.reset(4)[2:], alone.reset(4))
    assert not torch.equal(together.reset(4)[1], together.reset(4)[2])


@pytest.mark.parametrize(
    ("success", "when"), [("info.far", [2, 0]), ("reward >= 1.9", [0, 3]), ("return >= -6.9e0", [0, 6])]
)
def test_success_is_read_where_the_settings_say(success: str, when: list[int]) -> None:
    env = make_walk(success=success)
    env.reset(0)
    found = [0, 0]
    for step, metres in enumerate([(-2.0, 0.5), (-2.0, 0.5), (-1.0, 1.9), (-1.0, -1.0), (-1.0, 0.0), (0.0, 0.0)], 1):
        moved = move(env, *metres)
        found = [step if now else before for now, before in zip(moved.success.tolist(), found, strict=True)]
    assert found == when
    assert env.ended.all()


def test_what_ends_early_without_success_is_a_failure() -> None:
    env = make_walk(1, arguments={"stop": 2})
    env.reset(0)
    move(env, 0.0)
    moved = move(env, 0.0)
    assert (bool(moved.terminated[0]), bool(moved.success[0])) == (True, False)
    place = moved.obs
    assert torch.equal(move(env, 1.0).obs, place)


def test_observations_keep_their_size() -> None:
    env = make_walk(1, arguments={"fails": "size"})
    env.reset(0)
    move(env, 0.0)
    with pytest.raises(TaskError, match=rf"^task.env.id: {WALK} shows 5 numbers in a step, 4 before$"):
        move(env, 0.0)


def refuse(**settings: Any) -> str:
    values = {"id": WALK, "success": "info.far", "track": ["obs.z"], **settings}
    with pytest.raises((TaskError, ConfigError)) as caught:
        registry.make_spec("Gym", values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "Pendulm-v1"}, "task.env.id: no environment 'Pendulm-v1': Environment `Pendulm` doesn't exist. Did"),
        ({"id": "far/Away-v0"}, "; where a package registers it, name that: MODULE:far/Away-v0"),
        ({"id": "far_away:Away-v0"}, "task.env.id: far_away:Away-v0 needs the module far_away: install the package"),
        ({"track": ["obs.y"]}, f"task.env.track: {WALK} shows no 'obs.y'; it shows obs.b.a, obs.b.wide (2), obs.z (1)"),
        ({"success": "info.won"}, f"task.env.success: {WALK} has no 'info.won' in a step; it shows obs.b.a"),
        ({"success": "won"}, "task.env.success must be info.KEY, reward >= NUMBER or return >= NUMBER, got 'won'"),
        ({"arguments": {"action": "discrete"}}, f"{WALK} takes actions of Discrete(3); policies here act in a Box"),
        ({"arguments": {"action": "endless"}}, f"task.env.id: actions of {WALK} have no finite bounds: Box(-inf, inf"),
        ({"arguments": {"obs": "image"}}, "observations are states, not images"),
        ({"arguments": {"speed": 3}}, f"task.env: {WALK} can't be built with arguments {{'speed': 3}}: TypeError: "),
        ({"id": WALK.replace("Walk", "EndlessWalk")}, "task.env.horizon must be given: "),
        ({"arguments": {"late": True}, "track": ["info.late"]}, f"task.env.track: {WALK} shows no 'info.late'; it"),
        ({"arguments": {"fails": "step"}}, f"task {WALK} failed in step: FloatingPointError: joint 3 is loose ("),
        ({"arguments": {"fails": "close"}}, f"task {WALK} failed in close: RuntimeError: closed twice ("),
        (
            {"arguments": {"action": "stiff"}},
            f"task.env.id: a component of actions of {WALK} has one value alone: Box(",
        ),
        ({"track": ["obs.b", "obs.b.a"]}, f"task.env.track names the column obs.b.a of {WALK} twice: leave one"),
    ],
)
def test_what_cannot_be_a_task_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    assert message in refuse(**settings)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config" / "tasks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    return tmp_path


def test_the_template_is_listed_and_is_no_task(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = "extends: Gym\ntask: {env: {id: 'far_away:Away-v0', success: info.won, track: [obs]}}\n"
    (project / "config" / "tasks" / "Far.yaml").write_text(far)
    assert main(["tasks"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line[0] != " "}
    assert rows["Gym"] == ["gymnasium", *"––––"]
    assert rows["Far"] == rows["Gym"]  # its package isn't installed, and the others are listed all the same
    assert main(["tasks", "Gym"]) == 0
    assert "task.env.id = (to be given)" in capsys.readouterr().out
    assert main(["config", "show", "--task", "Gym"]) == 2
    assert "error: Gym is a template: write config/tasks/NAME.yaml with `extends: Gym`" in capsys.readouterr().err


def test_missing_demonstrations_are_answered_with_how_to_make_them() -> None:
    with pytest.raises(TaskError, match=r"DemoWriter \(docs/own-task\.md.*examples/gym.*import-demos STORE --task Gym"):
        registry.require_expert("Gym")


EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "gym").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_complete_and_short(path: Path, project: Path) -> None:
    (project / "config" / "tasks" / path.name).write_text(path.read_text())
    task = load_config(path.stem).task
    assert task.extends == "Gym"
    assert len(path.read_text().splitlines()) <= 15
    assert f'"{path.stem}": ' in (path.parent / "demonstrate.py").read_text()
