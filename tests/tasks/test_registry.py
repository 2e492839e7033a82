"""Naming tasks, and saying what is missing for them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bmd_pipeline.config.schema import Disturbance, Section
from bmd_pipeline.errors import ConfigError, TaskError
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.checker import check_task


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> str:
    """A task whose extra isn't installed."""
    entry = replace(registry.get_entry("GaussianMixture"), extra="rare", requires=("torch", "no_such_simulator"))
    monkeypatch.setitem(registry._REGISTRY, entry.name, entry)
    return entry.name


def test_a_missing_extra_is_named_with_the_command_that_installs_it(uninstalled: str) -> None:
    for build in (lambda: registry.make_env(uninstalled, {}, 1), lambda: registry.make_expert(uninstalled, {})):
        with pytest.raises(TaskError) as caught:
            build()
        assert str(caught.value) == ("task GaussianMixture needs no_such_simulator: pip install 'bmd-pipeline[rare]'")


def test_a_task_without_an_extra_says_which_packages_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.TaskEntry("Mine", "mine", "from a plug-in", requires=("torch", "no_such", "nor_such"))
    monkeypatch.setitem(registry._REGISTRY, "Mine", entry)
    with pytest.raises(TaskError, match=r"^task Mine needs no_such, nor_such: pip install no_such nor_such$"):
        registry.require_simulator("Mine")


def test_what_has_no_camera_is_told_where_its_pictures_are() -> None:
    with pytest.raises(TaskError, match=r"Gym can't be filmed: .*trajectories\.png shows its episodes"):
        registry.load_filming("Gym")


def test_every_task_of_ours_can_be_filmed() -> None:
    for entry in registry.list_entries():
        ours = entry.package.startswith("bmd_pipeline.") and entry.package != registry.get_entry("Gym").package
        if ours and not registry.find_missing(entry):
            assert registry.load_filming(entry.name).camera.eye


def test_a_task_knows_its_own_settings_and_a_disturbance_that_it_need_not_know() -> None:
    values = {"horizon": 9, "disturbance": {"action_delay": 2}}
    options = registry.load_options("GaussianMixture", values)
    assert type(options) is registry.options_model("GaussianMixture")  # it travels to workers
    assert registry.make_spec("GaussianMixture", values).horizon == 9
    assert registry.load_disturbance(values).action_delay == 2
    assert registry.load_disturbance({}) == Disturbance()
    with pytest.raises(ConfigError, match=r"^task\.env\.disturbance\.action_delay must be <= 100, got 101$"):
        registry.load_options("GaussianMixture", {"disturbance": {"action_delay": 101}})


def test_disturbance_is_no_name_for_a_tasks_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Options(Section):
        disturbance: int = 0

    monkeypatch.setattr(registry, "options_model", lambda name: Options)
    with pytest.raises(TaskError, match="task Mine must not have a setting 'disturbance' of its own"):
        registry.env_model("Mine")


def test_spec_and_modes_do_without_the_simulator(uninstalled: str) -> None:
    assert registry.make_spec(uninstalled, {}).obs_dim == 2
    assert registry.load_labellings(uninstalled)[0].name == "goal"


PARTS = {
    "options": "from bmd_pipeline.config.schema import Section\n\nclass Options(Section):\n    pass\n",
    "env": "def make_spec(options):\n    raise SystemExit(3)\n\ndef make_env(options, n, **_):\n    return [][n]\n",
    "expert": "import no_such_thing\n",
    "own": "class Own(BaseException):\n    pass\n\nraise Own('no')\n",
    "modes": "LABELING = ()\n",
}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task of a plug-in each of whose modules fails in a way of its own."""
    (tmp_path / "broken_robot").mkdir()
    for part, text in PARTS.items():
        (tmp_path / "broken_robot" / f"{part}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry._REGISTRY, "Broken", registry.TaskEntry("Broken", "broken_robot", "fails"))
    return "Broken"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda name: registry.make_spec(name, {}), r"SystemExit: 3 \(.*broken_robot/env\.py:2\)"),
        (lambda name: registry.make_env(name, {}, 2), r"IndexError: list index out of range \(.*env\.py:5\)"),
        (lambda name: registry.make_expert(name, {}), r"ModuleNotFoundError: No module named 'no_such_thing'"),
        (registry.load_labellings, r"AttributeError: module 'broken_robot\.modes' has no attribute 'LABELLINGS'"),
        (lambda name: check_task(name, {}), r"SystemExit: 3"),
    ],
)
def test_what_fails_in_a_plug_in_is_its_own_fault(broken: str, call: Callable[[str], object], reason: str) -> None:
    with pytest.raises(TaskError, match=rf"^task Broken failed( in \w+)?: {reason}") as caught:
        call(broken)
    assert "\n" not in str(caught.value)


def test_a_plug_in_may_raise_what_it_likes(broken: str) -> None:
    with pytest.raises(TaskError, match=r"^task\.plugins: 'broken_robot\.own' can't be imported: Own: no$"):
        registry.import_named("task.plugins", "broken_robot.own")
    with (
        pytest.raises(TaskError, match=r"^task Broken failed in a call: Own: no"),
        registry.blame_task(broken, "a call"),
    ):
        importlib.import_module("broken_robot.own")


def test_what_fails_in_a_task_of_this_package_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    module = registry._module("GaussianMixture", "env")
    monkeypatch.setattr(module, "make_env", lambda *_, **__: [][1])
    with pytest.raises(IndexError):
        registry.make_env("GaussianMixture", {}, 2)
