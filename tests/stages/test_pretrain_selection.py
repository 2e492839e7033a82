"""Pre-training goes on until its rollouts are flat, and keeps the weights that did best."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.provenance import require_run
from bmd_pipeline.policies.bc import Cloner
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.console import Reporter, Stop, Stopped
from bmd_pipeline.stages.pretrain import _open_selection, _Selection, is_flat, pretrain

TASK = "GaussianMixture"
INTERVAL, EPISODES = 20, 32


def make_config(*, selection: dict[str, Any] | None = None, **settings: Any) -> RunConfig:
    own = {
        "policy": {"horizon": 8, "n_action_steps": 4, "n_obs_steps": 1, "hidden_sizes": [32, 32]},
        "iterations": 160,
        "batch_size": 64,
        "warmup_iterations": 5,
        "log_interval": 50,
        "selection": {"interval": INTERVAL, "episodes": EPISODES, **(selection or {})},
    }
    return RunConfig.model_validate(
        {"task": {"name": TASK}, "collect": {"num_episodes": 40}, "pretrain": {**own, **settings}}
    )


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("data") / "demos.zarr"
    manifest = output.with_name("demos.manifest.json")
    collect(make_config(), output=output, manifest=manifest, num_workers=1, reporter=Reporter("quiet"))
    return output


def run(config: RunConfig, demos: Path, output: Path, stop: Stop | None = None) -> dict[str, Any]:
    pretrain(config, demos=demos, output=output, reporter=Reporter("quiet"), stop=stop)
    return require_run(output, "pretrain", TASK)


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("wall_s", "cpu_seconds")} for line in lines]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, demos: Path) -> Path:
    output = tmp_path_factory.mktemp("straight")
    run(make_config(), demos, output)
    return output


def test_the_best_of_all_rounds_is_kept(straight: Path) -> None:
    curve = {line["step"]: line["select/success_rate"] for line in metrics(straight) if "select/success_rate" in line}
    assert list(curve) == list(range(INTERVAL, 161, INTERVAL))
    assert [line["step"] for line in metrics(straight) if "select/success_rate" not in line] == [50, 150]
    kept = require_run(straight, "pretrain", TASK)["kept"]
    best = max(curve.values())
    assert best > 0
    assert kept == {"iteration": max(step for step, rate in curve.items() if rate == best), "success_rate": best}
    policy = load_policy(straight)  # its weights are those that did so
    with _open_selection(make_config(), policy, 1, Stop(), Reporter("quiet")) as selection:
        assert selection is not None
        assert selection.play(1, policy) == best


def test_half_and_twice_as_many_executed_actions_are_compared(straight: Path) -> None:
    found = require_run(straight, "pretrain", TASK)["success_by_n_action_steps"]
    expected = {}
    for count in (2, 4, 8):
        policy = load_policy(straight)
        policy.config = policy.config.model_copy(update={"n_action_steps": count})
        with _open_selection(make_config(), policy, 1, Stop(), Reporter("quiet")) as selection:
            assert selection is not None
            expected[str(count)] = selection.play(1, policy)
    assert found == expected
    assert len(set(found.values())) > 1  # or it would be no comparison


@pytest.mark.parametrize(("gain", "warned"), [(0.1, True), (0.02, False)])
def test_a_number_of_executed_actions_that_is_clearly_better_is_named(
    tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch, gain: float, warned: bool
) -> None:
    def play(self: _Selection, _: object) -> dict[int, float]:
        return {2: self.best[1] + gain, 8: self.best[1] + gain / 2}

    monkeypatch.setattr(_Selection, "play_chunks", play)
    warnings = run(make_config(), demos, tmp_path)["warnings"]
    message = "with pretrain.policy.n_action_steps=2 instead of 4 the same weights succeed in"
    assert any(message in warning for warning in warnings) == warned


def test_stopped_while_they_are_compared_nothing_is_trained_again(
    tmp_path: Path, demos: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise Stopped("SIGTERM")

    with monkeypatch.context() as patch:
        patch.setattr(_Selection, "play_chunks", stop)
        with pytest.raises(Stopped):
            run(make_config(), demos, tmp_path)
    monkeypatch.setattr(Cloner, "train_step", lambda _: pytest.fail("trained"))
    record = run(make_config(), demos, tmp_path)
    expected = require_run(straight, "pretrain", TASK)
    for name in ("metrics", "kept", "iterations", "success_by_n_action_steps"):
        assert record[name] == expected[name]
    assert metrics(tmp_path) == metrics(straight)


def test_without_rollouts_the_last_average_is_kept_and_no_environment_is_opened(
    tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmd_pipeline.tasks.registry.make_env", lambda *_, **__: pytest.fail("opened"))
    record = run(make_config(selection={"episodes": 0}), demos, tmp_path)
    assert (record["kept"], record["iterations"]) == (None, 160)
    assert all("select/success_rate" not in line for line in metrics(tmp_path))


def test_training_ends_once_success_is_flat(tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a gain that nobody makes, as soon as there are rounds enough to say so."""
    monkeypatch.setattr("bmd_pipeline.stages.pretrain.MIN_GAIN", 1.0)
    record = run(make_config(selection={"interval": 10}, iterations=10_000), demos, tmp_path)
    lines = metrics(tmp_path)
    assert record["iterations"] == lines[-1]["step"] == 90
    assert record["kept"]["success_rate"] == max(line.get("select/success_rate", 0.0) for line in lines)


@pytest.mark.parametrize("asks", [(7, 31, 90), (45,), (200, 3)])
def test_stopped_anywhere_it_goes_on_byte_for_byte(
    tmp_path: Path, demos: Path, straight: Path, asks: tuple[int, ...]
) -> None:
    """Also in the middle of a round of rollouts, which asks at every chunk."""
    for count in asks:
        stop = Stop(1.0, clock=itertools.chain([0.0] * count, itertools.repeat(60.0)).__next__)
        with pytest.raises(Stopped):
            run(make_config(), demos, tmp_path, stop)
        assert not (tmp_path / "run.json").exists()
        torch.randn(7)  # the global state must not matter
    record = run(make_config(), demos, tmp_path)
    for name in ("policy.safetensors", "policy.json"):
        assert (tmp_path / name).read_bytes() == (straight / name).read_bytes()
    assert metrics(tmp_path) == metrics(straight)
    assert record["kept"] == require_run(straight, "pretrain", TASK)["kept"]


@pytest.mark.parametrize("interrupted", [81, 89])
def test_an_end_that_was_decided_stays(
    tmp_path: Path, demos: Path, interrupted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmd_pipeline.stages.pretrain.MIN_GAIN", 1.0)
    config = make_config(selection={"interval": 10}, iterations=10_000)
    run(config, demos, tmp_path / "straight")

    class KilledError(Exception):
        pass

    def kill(self: Cloner) -> None:
        if self.step == interrupted:
            raise KilledError
        step(self)

    step = Cloner.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cloner, "train_step", kill)
        with pytest.raises(KilledError):
            run(config, demos, tmp_path / "resumed")
    run(config, demos, tmp_path / "resumed")
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "straight")
    assert (tmp_path / "resumed" / "policy.safetensors").read_bytes() == (
        tmp_path / "straight" / "policy.safetensors"
    ).read_bytes()


def test_a_rollback_forgets_no_round(tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, spoilt = Cloner.train_step, []

    def spoil(self: Cloner) -> None:
        step(self)
        if self.step == 75 and not spoilt:
            spoilt.append(75)
            with torch.no_grad():
                next(self.policy.parameters()).fill_(torch.nan)

    monkeypatch.setattr(Cloner, "train_step", spoil)
    record = run(make_config(), demos, tmp_path)
    assert record["rollbacks"] == 1
    assert "going back to iteration 60 with half" in record["warnings"][0]
    lines = [line["step"] for line in metrics(tmp_path)]
    assert lines == sorted({*range(INTERVAL, 161, INTERVAL), 50, 150})


def test_flat_by_hand() -> None:
    rising = [(1000 * k, 0.05 * k) for k in range(1, 13)]
    assert not is_flat(rising)
    assert is_flat([(step, min(success, 0.45)) for step, success in rising])
    assert not is_flat([(step, min(success, 0.45)) for step, success in rising[:8]])  # too few to say
    assert not is_flat([(step, 0.0) for step, _ in rising])  # it may still begin to succeed
    lifted = [(step, min(success, 0.45) + 0.011 * (step == 10_000)) for step, success in rising]
    assert not is_flat(lifted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 1))
def test_what_gains_in_every_round_is_never_flat_and_what_never_gains_is(rates: list[float], gain: float) -> None:
    steps = [100 * k for k in range(1, len(rates) + 1)]
    climbing = list(zip(steps, itertools.accumulate(gain + rate for rate in rates), strict=True))
    assert not is_flat(climbing)
    falling = list(zip(steps, sorted((0.5 + rate for rate in rates), reverse=True), strict=True))
    assert is_flat(falling) == (len(rates) >= 9)
