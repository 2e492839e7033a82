"""The stage `discover` on a small task, end to end, in both forms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import zarr

from bmd_pipeline.demos.store import DemoWriter, load_demos
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import BMDError, ConfigError, DataError, TrainingError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.rl.agent import load_agent
from bmd_pipeline.rl.rollout import roll_out
from bmd_pipeline.stages import discover
from bmd_pipeline.stages.checkpoints import Checkpoints, Snapshot
from bmd_pipeline.stages.console import Reporter, Stop
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.gaussian_mixture.env import GOALS

from .small import OFTEN, TASK, find_modes, make_config, play_in_pieces

PUBLISHED: dict[str, Any] = {"form": "published", "num_modes": 4}
FORMS: list[dict[str, Any]] = [{}, PUBLISHED]
OUTPUTS = ("modes.safetensors", "modes.json")


def read_findings(modes: Path) -> dict[str, Any]:
    findings: dict[str, Any] = json.loads((modes / "modes.json").read_text())["findings"]
    return findings


def test_codes_are_the_behaviours_of_the_demonstrations(modes: Path) -> None:
    document = json.loads((modes / "modes.json").read_text())
    found = document["findings"]
    assert document["schema_version"] == 3
    assert document["config"]["num_modes"] == 4  # six were allowed, there are four goals
    assert sum(found["cluster_sizes"]) == 40
    assert found["obeyed"] > 0.9
    assert 0.0 < found["final_information"] <= found["information_bound"]
    assert found["strength"] in (1.0, 2.0)
    assert len(found["as_told_by_strength"]) == 2
    record = json.loads((modes / "run.json").read_text())
    assert set(record["inputs"]) == {"policy", "demos"}
    assert (modes / "metrics.jsonl").read_text() == ""  # nothing was learnt by reinforcement


def test_each_code_leads_to_a_goal_of_its_own(policy: Path, modes: Path) -> None:
    """As deployed, by what the task knows and discovery never saw."""
    agent = load_agent(load_policy(policy), modes, None, "taught", task=TASK)
    codes = torch.arange(128) % agent.num_codes
    env = registry.make_env(TASK, OFTEN["env"], 128)
    draws = torch.Generator().manual_seed(0)
    played = roll_out(env, agent, seed=9, code=codes, generator=draws, explore=False)
    ends = played.track[played.length, torch.arange(128)]
    goal = torch.cdist(ends, torch.tensor(GOALS)).argmin(dim=1)
    shares = torch.stack([torch.bincount(goal[codes == code], minlength=4) for code in range(4)]) / 32
    assert sorted(shares.argmax(dim=1).tolist()) == [0, 1, 2, 3]
    assert float(shares.max(dim=1).values.min()) > 0.8
    assert float(played.success.float().mean()) > 0.8


def test_the_published_form_needs_no_demonstrations(
    policy: Path, published_modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_findings(published_modes)
    assert set(json.loads((published_modes / "run.json").read_text())["inputs"]) == {"policy"}
    assert len((published_modes / "metrics.jsonl").read_text().splitlines()) == 2
    assert len(found["success_rate_per_code"]) == 4
    assert "cluster_sizes" not in found
    monkeypatch.chdir(tmp_path)  # where there are none either
    find_modes(make_config(discover=PUBLISHED), policy, None, tmp_path / "modes")
    assert read_findings(tmp_path / "modes") == found


def test_codes_that_do_nothing_are_named(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A steering policy that is given no time to learn commands nothing."""
    config = make_config(discover=PUBLISHED | {"warmup_iterations": 1})
    find_modes(config, policy, None, tmp_path, reporter=Reporter("quiet"))
    assert "warning: codes hardly change what the policy does" in capsys.readouterr().err


def test_where_no_gap_shows_k_means_takes_over_and_says_so(
    policy: Path, demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, store = load_demos(demos), tmp_path / "few.zarr"
    with DemoWriter(store, 2, 2, {"task": TASK}, chunk_rows=256) as writer:
        for start, end in list(zip(whole.episode_starts, whole.episode_ends, strict=True))[:12]:
            writer.append(Episode(whole.obs[start:end], whole.action[start:end], success=True, behaviour=0))
    find_modes(make_config(), policy, store, tmp_path, reporter=Reporter("quiet"))
    assert "warning: no gap divides the 12 demonstrations" in capsys.readouterr().err
    document = json.loads((tmp_path / "modes.json").read_text())
    assert len(document["findings"]["cluster_sizes"]) == document["config"]["num_modes"] == 6


def test_a_policy_that_never_succeeds_is_taught_all_the_same(policy: Path, demos: Path, tmp_path: Path) -> None:
    """Its demonstrations tell behaviours apart; reinforcement may find how to succeed."""
    find_modes(make_config(task={"env": {"goal_radius": 1e-6}}), policy, demos, tmp_path)
    found = read_findings(tmp_path)
    assert found["success_rate_per_code"] == [0.0] * 4
    assert found["strength"] == 1.0  # the smallest of those that tie


@pytest.mark.parametrize(
    ("strengths", "scores", "chosen"),
    [
        ((1.0, 1.5, 2.0), [0.5, 0.6, 0.7], 2.0),
        ((1.0, 1.5, 2.0), [0.5, 0.505, 0.505], 1.0),
        ((2.0, 1.0), [0.5, 0.4], 1.0),
        ((1.0, 1.5, 2.0), [0.5, 0.4, 0.7], 2.0),
        ((1.0, 1.5, 2.0), [0.5, 0.7, 0.705], 1.5),
    ],
)
def test_codes_are_stretched_as_far_as_it_pays(
    policy: Path,
    demos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strengths: tuple[float, ...],
    scores: list[float],
    chosen: float,
) -> None:
    """How often each strength obeys and succeeds is made up."""
    told = iter(scores)

    def pretend(self: Any, strength: float) -> None:
        self.modes.findings.setdefault("as_told_by_strength", []).append(next(told))

    monkeypatch.setattr(discover.Discovery, "_try_strength", pretend)
    quick: dict[str, Any] = {"teaching": {"steps": 20, "strengths": strengths}, "heldout_episodes": 8}
    find_modes(make_config(discover=quick | {"hindsight_episodes": 8}), policy, demos, tmp_path)
    assert read_findings(tmp_path)["strength"] == chosen


def test_recorded_codes_are_what_the_chosen_strength_makes_of_them(policy: Path, modes: Path, demos: Path) -> None:
    """Codes on disk act as they are, without being stretched once more."""
    agent = load_agent(load_policy(policy), modes, None, "taught", task=TASK)
    assert agent.modes is not None
    coded = agent.modes.coded
    assert coded is not None
    again = load_agent(load_policy(policy), modes, None, "taught", task=TASK).modes
    assert again is not None
    assert again.coded is not None
    for one, other in zip(coded.denoiser.code_tables, again.coded.denoiser.code_tables, strict=True):
        assert torch.equal(one, other)
        assert not bool(one.requires_grad)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("missing", DataError, "nothing.zarr"),
        ("another task", DataError, "was collected for task PushT, not for GaussianMixture"),
        ("few", TrainingError, "64"),
    ],
)
def test_demonstrations_that_cannot_teach_are_refused(
    policy: Path, demos: Path, tmp_path: Path, damage: str, error: type[BMDError], message: str
) -> None:
    store, output = tmp_path / "nothing.zarr", tmp_path / "modes"
    if damage != "missing":
        shutil.copytree(demos, store)
    if damage == "another task":
        zarr.open_group(store, mode="r+").attrs["task"] = "PushT"
    few: dict[str, Any] = {"clustering": "kmeans", "num_modes": 64}
    config = make_config(discover=few if damage == "few" else {})
    with pytest.raises(error, match=message) as caught:
        find_modes(config, policy, store, output)
    assert "\n" not in str(caught.value)
    assert not (output / "run.json").exists()
    assert not (output / "modes.json").exists()


def test_unknown_features_are_refused_before_anything_is_written(policy: Path, demos: Path, tmp_path: Path) -> None:
    config = make_config(discover={"inference": {"features": ["turn"]}})
    with pytest.raises(ConfigError, match="no track column 'turn'"):
        find_modes(config, policy, demos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_discovery_that_gives_up_says_what_to_lower(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmd_pipeline.rl.ppo.MAX_KL", 1e-6)
    config = make_config(discover=PUBLISHED, finetune={"ppo": {"target_kl": 1e-7}})
    with pytest.raises(TrainingError, match=r"nats, more than 1e-06; .* lower finetune\.ppo\.learning_rate"):
        find_modes(config, policy, None, tmp_path)


def test_other_demonstrations_start_a_discovery_over(policy: Path, demos: Path, tmp_path: Path) -> None:
    """Progress that was saved with other demonstrations is of no use."""
    other, output = tmp_path / "other.zarr", tmp_path / "modes"
    shutil.copytree(demos, other)
    zarr.open_group(other, mode="r+").attrs["note"] = "edited"
    stopped = 0

    def play(stop: Stop) -> None:
        nonlocal stopped
        stopped += 1
        find_modes(make_config(), policy, other if stopped == 1 else demos, output, stop=stop)

    whole = tmp_path / "whole"
    find_modes(make_config(), policy, demos, whole)
    assert play_in_pieces(play, 40) >= 1
    assert (whole / "modes.json").read_bytes() == (output / "modes.json").read_bytes()


# killed and resumed ---------------------------------------------------------------------------------------


class Killer:
    """Ends a run in the middle: at the first point that it could go on from, and then at every second: the first is
    where it went on.

    Attributes:
        phases: how many phases were done whenever it struck.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.phases: set[int] = set()
        self._left = 1
        save = Checkpoints.save_if_due

        def strike(checkpoints: Checkpoints, step: int, pack: Callable[[], Snapshot], **options: Any) -> None:
            save(checkpoints, step, pack, **options)
            self._left -= 1
            if self._left == 0:
                self.phases.add(len(pack()[1]["done"]))
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoints, "save_if_due", strike)

    def run(self, play: Callable[[], None]) -> int:
        """Starts a stage until it finishes; returns how often it was killed."""
        for kills in range(200):
            self._left = min(kills + 1, 2)
            try:
                play()
                return kills
            except KeyboardInterrupt:
                continue
        raise AssertionError("it never finished")


@pytest.mark.parametrize(("form", "phases"), [(FORMS[0], 7), (FORMS[1], 4)], ids=["coded", "published"])
def test_killed_in_any_phase_it_ends_with_the_same_bytes(
    policy: Path, demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: dict[str, Any], phases: int
) -> None:
    config = make_config(discover=form, execution={"checkpoint_minutes": 0.0})  # saves wherever it can
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    find_modes(config, policy, demos, whole)

    def play() -> None:
        torch.rand(3)  # what others draw must not matter
        find_modes(config, policy, demos, broken)

    with monkeypatch.context() as patch:
        killer = Killer(patch)
        assert killer.run(play) > phases  # and between them
    assert killer.phases == set(range(phases + 1))
    for name in OUTPUTS:
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    assert not Layout.state(broken).exists()


@pytest.mark.parametrize("form", FORMS, ids=["coded", "published"])
def test_a_discovery_in_pieces_equals_one_in_one_go(
    policy: Path, demos: Path, tmp_path: Path, form: dict[Literal["form", "num_modes"], Any]
) -> None:
    """Progress is saved when somebody asks to stop, and not before."""
    config = make_config(task=OFTEN, discover=form | {"warmup_iterations": 3}, execution={"checkpoint_minutes": 5.0})
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def play(stop: Stop, output: Path = broken) -> None:
        torch.rand(3)
        find_modes(config, policy, demos, output, stop=stop)

    play(Stop(), whole)
    assert play_in_pieces(play, 12) >= 3
    for name in OUTPUTS:
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert steps == ([1, 2, 3] if form else [])
    assert not Layout.state(broken).exists()
