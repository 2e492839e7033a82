"""The stage `play`, with pictures that are made up: what is played, what is written, what it is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.environments.base import TaskEnv, VectorTask
from bmd_pipeline.errors import ArtifactError, TaskError, TrainingError
from bmd_pipeline.io.provenance import RunStart
from bmd_pipeline.reporting.sources import find_videos
from bmd_pipeline.seeds import derive_seed
from bmd_pipeline.sim.render import Camera
from bmd_pipeline.stages import play as stage
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.play import play
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.gaussian_mixture.env import GOALS

TASK = "GaussianMixture"
CONFIG = RunConfig.model_validate({"task": {"name": TASK}, "seed": 3})
MODES = registry.load_labellings(TASK)[0].modes


class MadeUpRenderer:
    """Pictures of one colour, by where the point is."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.closed = False

    def render(self, arrangement: Tensor) -> NDArray[np.uint8]:
        x, y = (100.0 + 50.0 * arrangement).clamp(0, 255).tolist()
        return np.full((self.size, self.size, 3), (x, y, 0), np.uint8)

    def close(self) -> None:
        self.closed = True


class MadeUpFilming:
    camera = Camera(eye=(0.0, -0.1, 5.0), target=(0.0, 0.0, 0.0))

    def __init__(self, renders: bool = True) -> None:
        self.renders = renders
        self.renderers: list[MadeUpRenderer] = []

    def require_renderer(self) -> None:
        if not self.renders:
            raise TaskError("nothing to render with: install something")

    def arrange(self, task: VectorTask) -> Tensor:
        return task.track()[0, :2]

    def locate(self, task: VectorTask) -> tuple[float, float, float]:
        x, y = self.arrange(task).tolist()
        return x, y, 0.0

    def make_renderer(self, size: int) -> MadeUpRenderer:
        self.renderers.append(MadeUpRenderer(size))
        return self.renderers[-1]


@pytest.fixture
def filming(monkeypatch: pytest.MonkeyPatch) -> MadeUpFilming:
    made_up = MadeUpFilming()
    monkeypatch.setattr(registry, "load_filming", lambda name: made_up)
    return made_up


def make_clips(output: Path, **settings: Any) -> dict[str, Any]:
    play(CONFIG, output=output, size=64, reporter=Reporter("quiet"), **settings)
    document: dict[str, Any] = json.loads(output.read_text())
    return document


def let_play(monkeypatch: pytest.MonkeyPatch, num_codes: int, choose: Callable[[int, int], int | None]) -> None:
    """Policies that walk to the goal which `choose` tells, from the code and the episode's number; None fails."""
    agent = SimpleNamespace(num_codes=num_codes, modes=object() if num_codes > 1 else None, policy=None)
    monkeypatch.setattr(stage, "load_player", lambda *_: agent)
    monkeypatch.setattr(stage, "require_inputs", lambda *_: ({}, RunStart(print)))
    played = 0

    def play(env: TaskEnv, agent: Any, *, seed: int, code: Tensor, **_: object) -> SimpleNamespace:
        nonlocal played
        goal = choose(int(code), played)
        played += 1
        env.reset(seed)
        success = torch.zeros(1, dtype=torch.bool)
        for _ in range(env.spec.horizon):
            way = torch.zeros(1, 2) if goal is None else torch.tensor([GOALS[goal]]) - env.track()[:, :2]
            moved = env.step(way / way.norm().clamp(min=0.12))
            success |= moved.success
        return SimpleNamespace(success=success)

    monkeypatch.setattr(stage, "roll_out", play)


def test_names_too_long_for_clips_are_refused_before_anything_is_played(
    tmp_path: Path, filming: MadeUpFilming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.Player, "play", lambda *_: pytest.fail("played"))
    with pytest.raises(ArtifactError, match=r"e+\.json can't be written: e+-east-2\.gif beside it would have more"):
        make_clips(tmp_path / f"{'e' * 220}.json", episodes=2)
    assert not list(tmp_path.iterdir())


def test_the_expert_gives_a_clip_of_each_mode(tmp_path: Path, filming: MadeUpFilming) -> None:
    output = tmp_path / "videos" / "expert.json"
    document = make_clips(output)
    names = [f"expert-{mode}.gif" for mode in MODES]
    assert list(document["clips"]) == names
    assert [clip["mode"] for clip in document["clips"].values()] == list(MODES)
    assert sorted(path.name for path in output.parent.iterdir()) == sorted([*names, "expert.json", "expert.webp"])
    assert [video.name for video in find_videos(tmp_path)] == sorted(names)  # the report shows them
    for name, clip in document["clips"].items():
        assert (output.parent / name).stat().st_size == clip["bytes"]
        with Image.open(output.parent / name) as image:
            assert image.size == (64, 64)
            assert 1 < image.n_frames <= clip["steps"] + 1  # frames that look the same are one
    assert [renderer.closed for renderer in filming.renderers] == [True]


def test_the_expert_plays_what_collect_collects(tmp_path: Path, filming: MadeUpFilming) -> None:
    document = make_clips(tmp_path / "expert.json", episodes=2)
    assert len(document["clips"]) == 2 * len(MODES)
    one, two = (document["clips"][f"expert-{MODES[0]}{suffix}.gif"] for suffix in ("", "-2"))
    assert document["seed"] == CONFIG.seed == 3
    seeds = [derive_seed(CONFIG.seed, "collect", MODES[0], attempt) for attempt in range(40)]
    assert seeds.index(one["seed"]) == one["attempts"] - 1
    assert seeds.index(two["seed"]) == one["attempts"] + two["attempts"] - 1


def test_a_simulator_is_closed_where_no_clip_can_be_made(
    tmp_path: Path, filming: MadeUpFilming, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_play(monkeypatch, 1, lambda *_: None)
    closed = []
    for owner in (type(registry.make_env(TASK, {}, 1)), type(registry.make_expert(TASK, {}))):
        monkeypatch.setattr(owner, "close", lambda self: closed.append(type(self)))

    def refuse(*_: object) -> None:
        raise TaskError("one environment can be recorded")

    monkeypatch.setattr(stage, "EpisodeRecorder", refuse)
    for method in ("dppo", "expert"):
        with pytest.raises(TaskError, match="can be recorded"):
            make_clips(tmp_path / "clips.json", method=method, policy=tmp_path)
    assert len(closed) == 2


def test_clips_that_are_not_made_again_are_removed(tmp_path: Path, filming: MadeUpFilming) -> None:
    output = tmp_path / "expert.json"
    make_clips(output, episodes=2)
    (tmp_path / f"expert-{MODES[0]}-2.gif").write_bytes(b"edited")
    mine = tmp_path / "expert-mine.gif"
    mine.write_bytes(b"GIF89a")
    (tmp_path / "outside.txt").write_text("stays")
    document = json.loads(output.read_text())
    output.write_text(json.dumps(document | {"clips": document["clips"] | {"outside.txt": {}, "../up.gif": {}}}))
    make_clips(output)
    assert len(list(tmp_path.glob("expert-*.gif"))) == len(MODES) + 2  # mine, and the edited one
    assert mine.exists()
    assert (tmp_path / "outside.txt").exists()


def test_a_coded_policy_gives_a_clip_of_each_code_named_by_what_it_did(
    tmp_path: Path, filming: MadeUpFilming, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_play(monkeypatch, 3, lambda code, _: [2, None, 0][code])
    document = make_clips(tmp_path / "dsrl-bmd-seed1.json", method="dsrl-bmd", seed=1, policy=tmp_path)
    assert list(document["clips"]) == [
        f"dsrl-bmd-seed1-code0-{MODES[2]}.gif",
        f"dsrl-bmd-seed1-code2-{MODES[0]}.gif",
    ]


def test_a_policy_without_codes_gives_a_clip_of_each_mode_it_takes(
    tmp_path: Path, filming: MadeUpFilming, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_play(monkeypatch, 1, lambda _, played: [3, 3, None, 1][played % 4])
    document = make_clips(tmp_path / "pretrained-seed0.json", method="pretrained", policy=tmp_path)
    clips = {name: (clip["mode"], clip["attempts"]) for name, clip in document["clips"].items()}
    assert clips == {
        f"pretrained-seed0-{MODES[3]}.gif": (MODES[3], 1),
        f"pretrained-seed0-{MODES[1]}.gif": (MODES[1], 4),
    }


def test_nothing_is_written_where_nothing_succeeds(
    tmp_path: Path, filming: MadeUpFilming, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_play(monkeypatch, 1, lambda *_: None)
    with pytest.raises(TrainingError, match="no episode of dppo-seed0 succeeded"):
        make_clips(tmp_path / "dppo-seed0.json", method="dppo", policy=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert filming.renderers[0].closed


def test_nothing_is_played_or_written_without_a_renderer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_filming", lambda name: MadeUpFilming(renders=False))
    monkeypatch.setattr(registry, "make_expert", lambda *_: pytest.fail("it plays"))
    with pytest.raises(TaskError, match="nothing to render with: install something"):
        make_clips(tmp_path / "videos" / "expert.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("listed", [5, ["someones.gif"], None])
def test_a_document_that_lists_no_clips_removes_none(tmp_path: Path, listed: object) -> None:
    (tmp_path / "expert.json").write_text(json.dumps({"clips": listed}))
    (tmp_path / "someones.gif").touch()
    stage._remove_old(tmp_path / "expert.json", {})
    assert (tmp_path / "someones.gif").exists()
