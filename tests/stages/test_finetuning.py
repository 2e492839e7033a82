"""The stages `discover` and `finetune` on a tiny point task, end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bmd_pipeline.artifacts.layout import Layout
from bmd_pipeline.artifacts.weights import load_weights
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.errors import ArtifactError, ConfigError, TrainingError
from bmd_pipeline.rl.agents import Agent
from bmd_pipeline.rl.rollout import Rollout, play_episodes
from bmd_pipeline.rl.selection import Candidate
from bmd_pipeline.rl.tuned import load_agent
from bmd_pipeline.stages import evaluate as evaluate_stage
from bmd_pipeline.stages import finetune as finetune_stage
from bmd_pipeline.stages import workbench
from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.curve import curve
from bmd_pipeline.stages.discover import discover
from bmd_pipeline.stages.evaluate import evaluate
from bmd_pipeline.stages.finetune import finetune
from bmd_pipeline.stages.pretrain import pretrain
from bmd_pipeline.stages.stopping import Stop, Stopped
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.base import TaskEnv
from tests.rl.tape import TapeRecorder

TASK = "GaussianMixture"
QUIET = Reporter("quiet")
OFTEN: dict[str, Any] = {"env": {"goal_radius": 0.3}}
"""So short a training succeeds often enough here for its behaviours to show."""
BY_DENSITY: dict[str, Any] = {"clustering": "density", "num_modes": 6}


def _config(**changes: dict[str, Any]) -> RunConfig:
    small = {"hidden_sizes": (16,)}
    values: dict[str, Any] = {
        "task": {"name": TASK},
        "collect": {"num_episodes": 40},
        "pretrain": {
            "iterations": 400,
            "batch_size": 128,
            "policy": {"n_obs_steps": 1, "hidden_sizes": (64, 64)},
        },
        "discover": {
            "num_modes": 4,
            "clustering": "kmeans",
            "num_envs": 64,
            "seed_episodes": 512,
            "warmup_iterations": 2,
            "steering_fit_steps": 200,
            "inference_fit_steps": 200,
            "heldout_episodes": 64,
            "inference": small,
            "steering": small,
            "commit": {"folds": 2, "selector_steps": 40},
        },
        "finetune": {
            "iterations": 4,
            "num_envs": 64,
            "ppo": {"minibatch_size": 128, "value_hidden_sizes": (16,)},
            "selection": {"interval": 2, "episodes": 64},
            "checkpoint_interval": 1,
        },
    }
    for name, change in changes.items():
        values[name] = values.get(name, {}) | change
    return RunConfig.model_validate(values)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base")
    demos, output = root / "demos.zarr", root / "policy"
    collect(_config(), output=demos, manifest=root / "demos.manifest.json", num_workers=1, reporter=QUIET)
    pretrain(_config(), demos=demos, output=output, reporter=QUIET)
    return output


@pytest.fixture(scope="module")
def modes(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("modes")
    discover(_config(), policy=policy, output=output, seed=0, num_workers=1, reporter=QUIET)
    return output


def _finetune(config: RunConfig, policy: Path, modes: Path | None, output: Path, method: str = "dsrl-bmd") -> None:
    finetune(config, policy=policy, modes=modes, output=output, method=method, seed=0, num_workers=1, reporter=QUIET)


@pytest.mark.parametrize("strategy", ["seeded", "unseeded", "held"])
def test_every_strategy_finds_modes_that_can_be_played(policy: Path, tmp_path: Path, strategy: str) -> None:
    config = _config(task=OFTEN, discover=BY_DENSITY | {"strategy": strategy})
    discover(config, policy=policy, output=tmp_path, seed=0, num_workers=1, reporter=QUIET)
    found = json.loads((tmp_path / "modes.json").read_text())["findings"]
    assert 0.0 <= found["success_rate"] <= 1.0
    assert found["information"] <= found["information_bound"]
    assert len(found["success_rate_per_code"]) == (6 if strategy == "unseeded" else 4)  # there are four goals
    assert (tmp_path / "run.json").exists()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == (0 if strategy == "held" else 2)


def test_seeding_finds_more_than_nothing(modes: Path) -> None:
    found = json.loads((modes / "modes.json").read_text())["findings"]
    assert found["final_information"] > 0.2
    assert sum(found["cluster_sizes"]) > len(found["cluster_sizes"]) == 4


def test_a_policy_without_modes_is_reported_in_plain_words(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unseeded discovery that is given no time to learn commands nothing."""
    config = _config(discover={"strategy": "unseeded", "warmup_iterations": 1})
    discover(config, policy=policy, output=tmp_path, seed=0, num_workers=1, reporter=Reporter("quiet"))
    assert "warning: no modes found" in capsys.readouterr().err


def test_where_no_gap_shows_k_means_takes_over_and_says_so(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(discover=BY_DENSITY | {"min_cluster_share": 0.5})
    discover(config, policy=policy, output=tmp_path, seed=0, num_workers=1, reporter=Reporter("quiet"))
    assert "warning: no gap divides" in capsys.readouterr().err
    found = json.loads((tmp_path / "modes.json").read_text())
    assert len(found["findings"]["cluster_sizes"]) == found["config"]["num_modes"] == 6


def test_a_policy_that_never_succeeds_is_refused(policy: Path, tmp_path: Path) -> None:
    config = _config(task={"env": {"goal_radius": 1e-6}})
    with pytest.raises(TrainingError, match="to cluster into 4 modes"):
        discover(config, policy=policy, output=tmp_path, seed=0, num_workers=1, reporter=QUIET)


def test_the_taught_policy_is_what_was_discovered(policy: Path, modes: Path) -> None:
    agent = load_agent(policy, modes, None, "taught", task=TASK)
    assert agent.num_codes == 4
    assert not any(weight.requires_grad for weight in agent.parameters())
    with pytest.raises(ArtifactError, match="taught needs discovered modes: run `bmd-pipeline discover"):
        load_agent(policy, None, None, "taught", task=TASK)


@pytest.mark.parametrize("method", ["dsrl", "dsrl-bmd"])
def test_a_tuned_policy_plays_from_its_own_folders(policy: Path, modes: Path, tmp_path: Path, method: str) -> None:
    _finetune(_config(), policy, modes if method == "dsrl-bmd" else None, tmp_path, method)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tuned.safetensors",
        "tuned.json",
        "metrics.jsonl",
        "run.json",
    }
    agent = load_agent(policy, modes, tmp_path, method, task=TASK)
    env = registry.make_env(TASK, {}, 16)
    episodes = play_episodes(env, agent, seed=9, codes=None, generator=torch.Generator().manual_seed(0))
    assert agent.num_codes == (4 if method == "dsrl-bmd" else 1)
    assert bool(torch.isfinite(episodes.track).all())
    with pytest.raises(ArtifactError, match="expected"):
        load_agent(policy, modes, tmp_path, "dsrl" if method == "dsrl-bmd" else "dsrl-bmd", task=TASK)


def test_the_readout_that_selection_chose_is_played(
    policy: Path, modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Success of draws is made up here, since which readout wins must not depend on the weights."""

    def choose(env: TaskEnv, agent: Agent, iteration: int, *arguments: Any) -> Candidate:
        agent.readout = "sample" if iteration == 2 else "mean"
        return Candidate(iteration, 0.9 if iteration == 2 else 0.1, 9.0, readout=agent.readout)

    monkeypatch.setattr(finetune_stage, "choose_readout", choose)
    _finetune(_config(finetune={"readout": "auto", "snapshot_interval": 1}), policy, modes, tmp_path)
    assert load_agent(policy, modes, tmp_path, "dsrl-bmd", task=TASK).readout == "sample"
    assert json.loads((tmp_path / "run.json").read_text())["kept"]["readout"] == "sample"
    seen = {int(path.name): path for path in Layout.snapshots(tmp_path).iterdir()}
    readouts = [load_agent(policy, modes, seen[i], "dsrl-bmd", task=TASK).readout for i in range(5)]
    assert readouts[2:] == ["sample", "sample", "mean"]


def test_a_curve_judges_the_start_the_way_and_the_end(policy: Path, modes: Path, tmp_path: Path) -> None:
    config = _config(finetune={"snapshot_interval": 2, "iterations": 3}, curve={"episodes": 48})
    tuned, output = tmp_path / "tuned", tmp_path / "curve.json"
    (tuned / "snapshots" / "000099").mkdir(parents=True)  # of an earlier, longer run
    _finetune(config, policy, modes, tuned)

    def judge() -> list[dict[str, Any]]:
        curve(
            config,
            policy=policy,
            modes=modes,
            tuned=tuned,
            output=output,
            method="dsrl-bmd",
            seed=0,
            num_workers=1,
            reporter=QUIET,
        )
        points: list[dict[str, Any]] = json.loads(output.read_text())["points"]
        return points

    points = judge()
    assert [point["iteration"] for point in points] == [0, 2, 3]
    assert points == judge()
    assert all(point["success_rate"]["n"] == 48 for point in points)
    discovered = load_agent(policy, modes, tuned / "snapshots" / "000000", "dsrl-bmd", task=TASK)
    kept = load_weights(modes / "modes.safetensors")
    for name, value in discovered.modes.networks().state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(value, kept[name], rtol=0.0, atol=0.0)


def test_a_curve_without_snapshots_says_how_to_keep_some(policy: Path, modes: Path, tmp_path: Path) -> None:
    _finetune(_config(finetune={"iterations": 1}), policy, modes, tmp_path)
    with pytest.raises(ArtifactError, match=r"no snapshots; run .*snapshot_interval"):
        curve(
            _config(),
            policy=policy,
            modes=modes,
            tuned=tmp_path,
            output=tmp_path / "curve.json",
            method="dsrl-bmd",
            seed=0,
            num_workers=1,
            reporter=QUIET,
        )
    assert not (tmp_path / "curve.json").exists()


def test_controllers_find_their_targets_in_the_modes(policy: Path, modes: Path, tmp_path: Path) -> None:
    found = json.loads((modes / "modes.json").read_text())["findings"]
    # exploring blurs what the deployed codes do, and what a controller sees must be compared with its like
    assert 0.0 < found["exploring_information"] < found["final_information"]
    for controller in ("dual", "occupancy"):
        config = _config(finetune={"iterations": 1, "regulariser": {"controller": controller}})
        _finetune(config, policy, modes, tmp_path / controller)


def test_the_intrinsic_stream_has_a_discount_of_its_own(policy: Path, modes: Path, tmp_path: Path) -> None:
    weights = []
    for gamma in (None, 0.5):
        regulariser = {"combine": "advantage", "mi_weight": 1.0, "gamma": gamma}
        output = tmp_path / str(gamma)
        _finetune(_config(finetune={"iterations": 2, "regulariser": regulariser}), policy, modes, output)
        weights.append(json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])["losses/value"])
    assert weights[0] != weights[1]


@pytest.mark.parametrize("method", ["dppo-bmd", "res-bmd", "dsrl-bmd"])
def test_every_method_builds_on_held_noise(policy: Path, tmp_path: Path, method: str) -> None:
    config = _config(discover={"strategy": "held"}, finetune={"iterations": 1})
    modes, output = tmp_path / "modes", tmp_path / "tuned"
    discover(config, policy=policy, output=modes, seed=0, num_workers=1, reporter=QUIET)
    _finetune(config, policy, modes, output, method)
    agent = load_agent(policy, modes, output, method, task=TASK)
    env = registry.make_env(TASK, {}, 8)
    episodes = play_episodes(env, agent, seed=9, codes=None, generator=torch.Generator().manual_seed(0))
    assert episodes.information is not None
    assert bool(torch.isfinite(episodes.track).all())


def test_recordings_change_no_number_of_any_stage(
    policy: Path, modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, by a stand-in for CUDA graphs."""

    def run(folder: Path) -> tuple[dict[str, torch.Tensor], ...]:
        discover(_config(), policy=policy, output=folder / "modes", seed=0, num_workers=1, reporter=QUIET)
        _finetune(_config(), policy, modes, folder / "tuned")
        evaluate(
            _config(evaluate={"num_envs": 64, "episodes": 64}),
            policy=policy,
            modes=modes,
            tuned=folder / "tuned",
            output=folder / "eval.json",
            method="dsrl-bmd",
            seed=0,
            num_workers=1,
            reporter=QUIET,
        )
        return load_weights(folder / "modes" / "modes.safetensors"), load_weights(folder / "tuned/tuned.safetensors")

    expected = run(tmp_path / "plain")
    tape = TapeRecorder()
    monkeypatch.setattr(workbench, "select_recorder", lambda config, device: tape)
    monkeypatch.setattr(evaluate_stage, "select_recorder", lambda config, device: tape)
    for ours, theirs in zip(expected, run(tmp_path / "recorded"), strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    plain, recorded = (tmp_path / name / "episodes.parquet" for name in ("plain", "recorded"))
    assert plain.read_bytes() == recorded.read_bytes()
    assert tape.running.count("replay") > 10 * tape.running.count("record") > 0


def test_interrupted_and_resumed_equals_uninterrupted(
    policy: Path, modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _finetune(_config(), policy, modes, whole)

    play = finetune_stage.Trainer.play
    calls = 0

    def stumble(self: Any, **options: Any) -> Rollout:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return play(self, **options)

    monkeypatch.setattr(finetune_stage.Trainer, "play", stumble)
    with pytest.raises(KeyboardInterrupt):
        _finetune(_config(), policy, modes, broken)
    assert not (broken / "run.json").exists()
    monkeypatch.setattr(finetune_stage.Trainer, "play", play)
    _finetune(_config(), policy, modes, broken)

    assert (whole / "tuned.safetensors").read_bytes() == (broken / "tuned.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert not Layout.state(broken).exists()


class Impatient(Stop):
    """Asks to stop the n-th time somebody looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    @property
    def reason(self) -> str | None:
        self.left -= 1
        return "the test" if self.left <= 0 else None


def _play_in_pieces(play: Callable[[Stop], None], looks: int) -> int:
    """Starts a stage again and again, each time with a little more patience; returns how often it stopped."""
    for stops in range(60):
        try:
            play(Impatient(looks + 7 * stops))
            return stops
        except Stopped:
            continue
    raise AssertionError("it never finished")


@pytest.mark.parametrize("strategy", ["seeded", "unseeded", "held"])
def test_a_discovery_in_pieces_equals_one_in_one_go(policy: Path, tmp_path: Path, strategy: str) -> None:
    config = _config(
        task=OFTEN,
        discover=BY_DENSITY | {"strategy": strategy, "warmup_iterations": 3},
        execution={"checkpoint_minutes": 0.0 if strategy == "seeded" else 5.0},
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def play(stop: Stop, output: Path = broken) -> None:
        torch.rand(3)  # what others draw must not matter
        discover(config, policy=policy, output=output, seed=0, num_workers=1, reporter=QUIET, stop=stop)

    play(Stop(), whole)
    assert _play_in_pieces(play, 12) >= 3
    for name in ("modes.safetensors", "modes.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert steps == ([] if strategy == "held" else [1, 2, 3])
    assert not Layout.state(broken).exists()


@pytest.mark.parametrize("controller", ["occupancy", "dual"])
def test_a_run_in_pieces_equals_one_in_one_go(policy: Path, modes: Path, tmp_path: Path, controller: str) -> None:
    ppo = {"minibatch_size": 128, "value_hidden_sizes": (16,), "learning_rate_schedule": "adaptive"}
    changes = {"regulariser": {"controller": controller}, "checkpoint_interval": 100, "readout": "auto", "ppo": ppo}
    config = _config(finetune=changes | {"snapshot_interval": 1})
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def play(stop: Stop, output: Path = broken) -> None:
        finetune(
            config,
            policy=policy,
            modes=modes,
            output=output,
            method="dsrl-bmd",
            seed=0,
            num_workers=1,
            reporter=QUIET,
            stop=stop,
        )

    play(Stop(), whole)
    assert _play_in_pieces(play, 25) >= 2
    snapshot = Layout.snapshots(Path()) / "000003"
    for name in ("tuned.safetensors", "tuned.json", snapshot / "tuned.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_the_record_says_what_was_kept_and_what_was_odd(policy: Path, modes: Path, tmp_path: Path) -> None:
    config = _config(finetune={"ppo": {"learning_rate": 0.3, "guard": {"max_kl": 0.5, "max_rollbacks": 50}}})
    _finetune(config, policy, modes, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["kept"]["iteration"] in (0, 2, 4)
    assert record["rollbacks"] == sum("was taken back" in text for text in record["warnings"])
    assert record["rollbacks"] > 0
    assert all("finetune.ppo.guard.max_kl allows 0.5" in text for text in record["warnings"] if "taken back" in text)


def test_discovery_that_gives_up_names_its_own_settings(policy: Path, tmp_path: Path) -> None:
    guard = {"max_kl": 0.2, "max_rollbacks": 0}
    config = _config(discover={"strategy": "unseeded", "ppo": {"learning_rate": 0.3, "guard": guard}})
    with pytest.raises(
        TrainingError, match=r"discover\.ppo\.guard\.max_kl allows 0\.2; .*discover\.ppo\.guard\.max_rol"
    ):
        discover(config, policy=policy, output=tmp_path, seed=0, num_workers=1, reporter=QUIET)


def test_lambda_matters(policy: Path, modes: Path, tmp_path: Path) -> None:
    weights = []
    for name, weight in (("none", 0.0), ("some", 1.0)):
        config = _config(finetune={"regulariser": {"mi_weight": weight}, "iterations": 2})
        _finetune(config, policy, modes, tmp_path / name)
        weights.append(load_weights(tmp_path / name / "tuned.safetensors"))
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_bad_input_writes_nothing(policy: Path, modes: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match="unknown method 'ppo'"):
        _finetune(_config(), policy, None, output, "ppo")
    with pytest.raises(ArtifactError, match="bmd-pipeline"):
        _finetune(_config(), tmp_path / "nothing", None, output, "dsrl")
    config = _config(discover={"inference": {"features": ["turn"]}})
    with pytest.raises(ConfigError, match="no track column 'turn'"):
        discover(config, policy=policy, output=output, seed=0, num_workers=1, reporter=QUIET)
    assert not output.exists()
