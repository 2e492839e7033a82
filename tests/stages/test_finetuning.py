"""The stage `finetune` on a small task, end to end, and what builds on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import load_weights
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.io.provenance import require_own
from bmd_pipeline.methods import METHODS
from bmd_pipeline.metrics.schemas import Evaluation, load_document
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.rl import trainer
from bmd_pipeline.rl.agent import Agent, load_agent, remove_steering
from bmd_pipeline.rl.rollout import Rollout, play_rounds
from bmd_pipeline.stages import evaluate as evaluate_stage
from bmd_pipeline.stages import finetune as finetune_stage
from bmd_pipeline.stages import runtime
from bmd_pipeline.stages.console import Reporter, Stop
from bmd_pipeline.stages.evaluate import curve, evaluate, summarise
from bmd_pipeline.stages.finetune import finetune
from bmd_pipeline.tasks import registry
from tests.rl.tape import TapeRecorder

from .small import OFTEN, QUIET, TASK, find_modes, make_config, play_in_pieces


def _finetune(config: RunConfig, policy: Path, modes: Path | None, output: Path, method: str = "dsrl-bmd") -> None:
    finetune(
        config,
        policy=policy,
        modes=modes,
        output=output,
        method=method,
        seed=0,
        num_workers=1,
        reporter=Reporter("quiet"),
    )


def test_the_taught_policy_is_what_was_discovered(policy: Path, modes: Path) -> None:
    agent = load_agent(load_policy(policy), modes, None, "taught", task=TASK)
    assert agent.num_codes == 4
    assert not any(weight.requires_grad for weight in agent.parameters())
    with pytest.raises(ArtifactError, match="taught needs discovered modes: run `bmd-pipeline discover"):
        load_agent(load_policy(policy), None, None, "taught", task=TASK)


@pytest.mark.parametrize("method", METHODS)
def test_a_finetuned_policy_plays_from_its_own_folders(policy: Path, modes: Path, tmp_path: Path, method: str) -> None:
    coded = method.endswith("-bmd")
    _finetune(make_config(finetune={"iterations": 2}), policy, modes if coded else None, tmp_path, method)
    assert {path.name for path in tmp_path.iterdir()} == {
        "finetuned.safetensors",
        "finetuned.json",
        "metrics.jsonl",
        "run.json",
    }
    agent = load_agent(load_policy(policy), modes, tmp_path, method, task=TASK)
    env = registry.make_env(TASK, {}, 16)
    played = next(play_rounds(env, agent, [9], torch.Generator().manual_seed(0)))
    assert agent.num_codes == (4 if coded else 1)
    assert (agent.modes is not None) == coded
    assert bool(torch.isfinite(played.track).all())
    other = method.removesuffix("-bmd") if coded else f"{method}-bmd"
    with pytest.raises(ArtifactError, match="expected"):
        load_agent(load_policy(policy), modes, tmp_path, other, task=TASK)
    document = json.loads((tmp_path / "finetuned.json").read_text())
    assert (document["stage"], document["method"]) == ("finetune", method)
    (tmp_path / "finetuned.json").write_text(json.dumps(document | {"schema_version": 2}))
    with pytest.raises(ArtifactError, match=r"schema version 2, this version reads 1; run `bmd-pipeline finetune"):
        load_agent(load_policy(policy), modes, tmp_path, method, task=TASK)


def test_modes_are_asked_for_where_a_method_needs_them(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="dsrl-bmd needs the output of `bmd-pipeline discover"):
        _finetune(make_config(), policy, None, tmp_path)
    with pytest.raises(ArtifactError, match="coded needs the output of `bmd-pipeline collect"):
        find_modes(make_config(), policy, None, tmp_path)


def test_a_curve_evaluates_every_snapshot(policy: Path, modes: Path, tmp_path: Path) -> None:
    config = make_config(finetune={"snapshot_interval": 2, "iterations": 3}, evaluate={"episodes": 48})
    finetuned, output = tmp_path / "finetuned", tmp_path / "curve.json"
    (finetuned / "snapshots" / "000099").mkdir(parents=True)  # of an earlier, longer run
    _finetune(config, policy, modes, finetuned)

    def play() -> list[dict[str, Any]]:
        curve(
            config,
            policy=policy,
            modes=modes,
            finetuned=finetuned,
            output=output,
            method="dsrl-bmd",
            seed=0,
            num_workers=1,
            reporter=QUIET,
        )
        points: list[dict[str, Any]] = json.loads(output.read_text())["points"]
        return points

    points = play()
    assert [point["iteration"] for point in points] == [0, 2, 3]
    require_own([output], "curve", TASK, method="dsrl-bmd", seed=0)
    shutil.copytree(finetuned / "snapshots" / "000002", finetuned / "snapshots" / "000002-mine")  # none of ours
    assert points == play()
    assert all(point["success_rate"]["n"] == 48 for point in points)
    discovered = load_agent(load_policy(policy), modes, finetuned / "snapshots" / "000000", "dsrl-bmd", task=TASK)
    kept = load_weights(modes / "modes.safetensors")
    for name, value in discovered.modes.networks().state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(value, kept[name], rtol=0.0, atol=0.0)


def test_a_curve_without_snapshots_says_how_to_keep_some(policy: Path, modes: Path, tmp_path: Path) -> None:
    _finetune(make_config(finetune={"iterations": 1}), policy, modes, tmp_path)
    with pytest.raises(ArtifactError, match=r"no snapshots; run .*snapshot_interval"):
        curve(
            make_config(),
            policy=policy,
            modes=modes,
            finetuned=tmp_path,
            output=tmp_path / "curve.json",
            method="dsrl-bmd",
            seed=0,
            num_workers=1,
            reporter=QUIET,
        )
    assert not (tmp_path / "curve.json").exists()


@pytest.mark.parametrize("stage", [curve, evaluate])
def test_curve_and_evaluation_leave_steering_out_where_there_is_any(
    policy: Path, tmp_path: Path, stage: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison also plays policies without a steering policy: here `dppo`."""
    config = make_config(finetune={"snapshot_interval": 1, "iterations": 1}, evaluate={"steering": False})
    _finetune(config, policy, None, tmp_path, "dppo")
    output = tmp_path / "output.json"
    inputs = {"policy": policy, "modes": None, "finetuned": tmp_path}
    asked: list[Agent] = []
    monkeypatch.setattr(evaluate_stage, "remove_steering", lambda agent: asked.append(agent) or remove_steering(agent))
    stage(config, **inputs, output=output, method="dppo", seed=0, num_workers=1, reporter=QUIET)
    assert asked
    assert output.is_file()


def test_lambda_follows_from_a_demand_on_obedience(
    policy: Path, modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so short a run succeeds too seldom to say much: here no code is obeyed
    monkeypatch.setattr(trainer, "read_behaviours", lambda modes, played: (played.code + 1) % modes.num_codes)
    weights = []
    for demand in (None, 0.0, 0.99):
        output = tmp_path / str(demand)
        _finetune(make_config(finetune={"iterations": 2, "obedience": demand}), policy, modes, output)
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        weights.append([line["modes/mi_weight"] for line in lines])
    assert weights[0] == [0.5, 0.5]
    assert weights[1] == [0.0, 0.0]
    assert min(weights[2]) > 0.0


def test_the_intrinsic_stream_has_a_discount_of_its_own(policy: Path, modes: Path, tmp_path: Path) -> None:
    losses = []
    for gamma in (None, 0.5):
        output = tmp_path / str(gamma)
        regulariser = {"mi_weight": 1.0, "gamma": gamma}
        _finetune(make_config(finetune={"iterations": 2, "regulariser": regulariser}), policy, modes, output)
        losses.append(json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])["losses/value"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("method", ["dppo-bmd", "res-bmd", "dsrl-bmd"])
def test_every_method_builds_on_the_published_form(
    policy: Path, published_modes: Path, tmp_path: Path, method: str
) -> None:
    _finetune(make_config(finetune={"iterations": 1}), policy, published_modes, tmp_path, method)
    agent = load_agent(load_policy(policy), published_modes, tmp_path, method, task=TASK)
    env = registry.make_env(TASK, {}, 8)
    played = next(play_rounds(env, agent, [9], torch.Generator().manual_seed(0)))
    assert agent.modes is not None
    assert bool(torch.isfinite(played.track).all())


def test_the_policies_of_a_run_are_judged_together(policy: Path, modes: Path, tmp_path: Path) -> None:
    """Before fine-tuning with codes and without, and after."""
    config = make_config(finetune={"iterations": 1}, evaluate={"num_envs": 64, "episodes": 64})
    evaluations = []
    for method in ("dppo", "dppo-bmd", "taught", "pretrained"):
        finetuned = tmp_path / method if method.startswith("dppo") else None
        own = modes if method in ("dppo-bmd", "taught") else None
        if finetuned is not None:
            _finetune(config, policy, own, finetuned, method)
        evaluations.append(tmp_path / "eval" / method / "eval.json")
        evaluate(
            config,
            policy=policy,
            modes=own,
            finetuned=finetuned,
            output=evaluations[-1],
            method=method,
            seed=0,
            num_workers=1,
            reporter=QUIET,
        )
    summarise(config, evaluations=evaluations, output=tmp_path / "eval.json", reporter=QUIET)
    document = load_document(tmp_path / "eval.json", Evaluation)
    assert list(document.policies) == ["pretrained", "taught", "dppo", "dppo-bmd"]
    assert [len(block.codes) for block in document.policies.values()] == [0, 4, 0, 4]
    assert set(load_document(evaluations[2], Evaluation).provenance.inputs) == {"policy", "modes"}
    taught = document.policies["taught"]
    assert taught.mode_entropy.mean > 1.2  # of ln 4
    assert sorted(max(row.mode_shares, key=row.mode_shares.__getitem__) for row in taught.codes) == [
        "east",
        "north",
        "south",
        "west",
    ]


def test_recordings_change_no_number_of_any_stage(
    policy: Path, demos: Path, modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, by a stand-in for CUDA graphs."""

    tape, replays = TapeRecorder(), []

    def run(folder: Path) -> tuple[dict[str, torch.Tensor], ...]:
        with monkeypatch.context() as patch:
            patch.setattr(runtime, "graph_env", lambda env, _: env)  # decisions alone
            find_modes(make_config(), policy, demos, folder / "modes")
        replays.append(tape.running.count("replay"))
        _finetune(make_config(), policy, modes, folder / "finetuned")
        evaluate(
            make_config(evaluate={"num_envs": 64, "episodes": 64}),
            policy=policy,
            modes=modes,
            finetuned=folder / "finetuned",
            output=folder / "eval.json",
            method="dsrl-bmd",
            seed=0,
            num_workers=1,
            reporter=QUIET,
        )
        return load_weights(folder / "modes" / "modes.safetensors"), load_weights(
            folder / "finetuned/finetuned.safetensors"
        )

    expected = run(tmp_path / "plain")
    monkeypatch.setattr(runtime, "select_recorder", lambda config, device: tape)
    for ours, theirs in zip(expected, run(tmp_path / "recorded"), strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    plain, recorded = (tmp_path / name / "episodes.parquet" for name in ("plain", "recorded"))
    assert plain.read_bytes() == recorded.read_bytes()
    assert tape.running.count("replay") > 10 * tape.running.count("record") > 0
    assert replays[0] == 0 < replays[1]


def test_interrupted_and_resumed_equals_uninterrupted(
    policy: Path, modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _finetune(make_config(), policy, modes, whole)

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
        _finetune(make_config(), policy, modes, broken)
    assert not (broken / "run.json").exists()
    monkeypatch.setattr(finetune_stage.Trainer, "play", play)
    _finetune(make_config(), policy, modes, broken)

    assert (whole / "finetuned.safetensors").read_bytes() == (broken / "finetuned.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert not Layout.state(broken).exists()


@pytest.mark.parametrize(
    ("method", "obedience"), [("dsrl-bmd", None), ("dppo-bmd", 0.95), ("res-bmd", None), ("fbc-bmd", None)]
)
def test_a_run_in_pieces_equals_one_in_one_go(
    policy: Path, modes: Path, tmp_path: Path, method: str, obedience: float | None
) -> None:
    ppo = {"minibatch_size": 128, "value_hidden_sizes": (16,), "learning_rate_schedule": "adaptive"}
    changes = {"obedience": obedience, "ppo": ppo}
    config = make_config(task=OFTEN, finetune=changes | {"snapshot_interval": 1})
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def play(stop: Stop, output: Path = broken) -> None:
        finetune(
            config,
            policy=policy,
            modes=modes,
            output=output,
            method=method,
            seed=0,
            num_workers=1,
            reporter=QUIET,
            stop=stop,
        )

    play(Stop(), whole)
    assert play_in_pieces(play, 25) >= 2
    snapshot = Layout.snapshots(Path()) / "000003"
    for name in ("finetuned.safetensors", "finetuned.json", snapshot / "finetuned.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    last = json.loads((broken / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["losses/policy_steps"] > 0


def test_the_record_says_what_was_kept_and_what_was_odd(
    policy: Path, modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmd_pipeline.rl.ppo.MAX_KL", 0.5)
    monkeypatch.setattr("bmd_pipeline.rl.trainer.MAX_ROLLBACKS", 50)
    config = make_config(finetune={"ppo": {"learning_rate": 0.3}, "denoiser": {"target_kl": 0.2}})
    _finetune(config, policy, modes, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["kept"]["iteration"] in (0, 2, 4)
    assert record["rollbacks"] == sum("was rolled back" in text for text in record["warnings"])
    assert record["rollbacks"] > 0
    assert all("nats, more than 0.5" in text for text in record["warnings"] if "rolled back" in text)


def test_the_record_says_in_what_matrices_were_multiplied(policy: Path, tmp_path: Path) -> None:
    settings = {"iterations": 1, "denoiser": {"precision": "bfloat16"}}
    for method, recorded in (("dppo", "bfloat16 in training, else float32"), ("dsrl", "float32")):
        _finetune(make_config(finetune=settings), policy, None, tmp_path / method, method)
        record = json.loads((tmp_path / method / "run.json").read_text())
        assert record["matmul_precision"].removesuffix(" by oneDNN") == recorded


def test_lambda_matters(policy: Path, modes: Path, tmp_path: Path) -> None:
    weights = []
    for name, weight in (("none", 0.0), ("some", 1.0)):
        config = make_config(finetune={"regulariser": {"mi_weight": weight}, "iterations": 2})
        _finetune(config, policy, modes, tmp_path / name)
        weights.append(load_weights(tmp_path / name / "finetuned.safetensors"))
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_bad_input_writes_nothing(policy: Path, modes: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match="unknown method 'ppo'"):
        _finetune(make_config(), policy, None, output, "ppo")
    with pytest.raises(ArtifactError, match="bmd-pipeline"):
        _finetune(make_config(), tmp_path / "nothing", None, output, "dsrl")
    assert not output.exists()
