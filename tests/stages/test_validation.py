"""The stage `validation` on small base policies of one goal and of four."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.schemas import Validation, load_document
from bmd_pipeline.stages import runtime
from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.discover import discover
from bmd_pipeline.stages.pretrain import pretrain
from bmd_pipeline.stages.validation import validation
from tests.rl.tape import TapeRecorder

TASK = "GaussianMixture"
QUIET = Reporter("quiet")
SEEDS = (0, 3)


def make_config(*behaviours: str, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "task": {"name": TASK, "env": {"goal_radius": 0.2}},  # so short a training is to succeed often
        "seeds": SEEDS,
        "collect": {"num_episodes": 100, "behaviours": behaviours},
        "pretrain": {
            "iterations": 1000,
            "learning_rate": 2e-3,
            "batch_size": 128,
            "policy": {"horizon": 8, "n_action_steps": 4, "n_obs_steps": 1, "hidden_sizes": (64, 64)},
        },
        "discover": {
            "num_modes": 4,
            "num_envs": 128,
            "clustering": "kmeans",
            "heldout_episodes": 64,
            "hindsight_episodes": 512,
            "teaching": {"steps": 400, "batch_size": 128, "strengths": (1.0,)},
            "inference": {"hidden_sizes": (32,), "fit_steps": 200},
        },
        "evaluate": {"episodes": 256, "num_envs": 128},  # two rounds
    }
    return RunConfig.model_validate(values | changes)


def prepare(root: Path, config: RunConfig) -> Layout:
    layout = Layout(root)
    demos = layout.demos(TASK)
    collect(config, output=demos, manifest=layout.demos_manifest(TASK), num_workers=1, reporter=QUIET)
    pretrain(config, demos=demos, output=layout.policy(TASK), reporter=QUIET)
    for seed in config.seeds:
        output = layout.modes(TASK, seed)
        discover(
            config,
            policy=layout.policy(TASK),
            demos=demos,
            output=output,
            seed=seed,
            num_workers=1,
            reporter=QUIET,
        )
    return layout


def run(config: RunConfig, layout: Layout, output: Path | None = None) -> Validation:
    target = output or layout.validation(TASK)
    validation(
        config,
        policy=layout.policy(TASK),
        modes={seed: layout.modes(TASK, seed) for seed in config.seeds},
        output=target,
        num_workers=1,
        reporter=QUIET,
    )
    return load_document(target, Validation)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return prepare(tmp_path_factory.mktemp("four"), make_config())


@pytest.fixture(scope="module")
def validated(four: Layout) -> Validation:
    return run(make_config(), four)


def test_four_goals_are_several_ways_whose_codes_are_told_apart(validated: Validation) -> None:
    assert validated.base.modes == "several"
    assert min(validated.base.mode_shares.values()) > 0.1
    assert [one.seed for one in validated.discovered] == list(SEEDS)
    for one in validated.discovered:
        assert one.separation is not None
        assert one.separation.recognised.low > one.separation.chance
        assert one.truth is not None
        assert one.truth.nmi > 0.5
        assert sum(code.episodes for code in one.codes) == one.episodes == 256
        commanded = {code.mode for code in one.codes} - {None}
        assert set(one.truth.missing) == set(validated.modes) - commanded


def test_the_same_command_gives_the_same_numbers(
    four: Layout, validated: Validation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = TapeRecorder()  # recorded decisions change nothing
    monkeypatch.setattr(runtime, "select_recorder", lambda config, device: tape)
    monkeypatch.setattr(runtime, "graph_env", lambda env, _: env)
    again = run(make_config(), four, tmp_path / "validation.json")
    assert "replay" in tape.running
    named = {"provenance", "sha256"}
    assert again.model_dump(exclude=named) == validated.model_dump(exclude=named)


def test_one_goal_has_no_second_mode(tmp_path: Path) -> None:
    config = make_config("north", seeds=(0,))
    found = run(config, prepare(tmp_path, config))
    assert found.base.modes == "unknown"
    assert found.base.paired is not None
    assert found.base.paired.p > 0.05
    assert found.base.mode_shares["north"] == 1.0
    (one,) = found.discovered
    assert one.truth is not None
    assert one.truth.redundant in ([], [[code.code for code in one.codes if code.mode]])


def test_what_does_not_belong_is_refused_before_anything_is_written(four: Layout, tmp_path: Path) -> None:
    output = tmp_path / "out" / "validation.json"
    for config, error, message in (
        (make_config(seeds=(0, 7)), ArtifactError, "seed7/run.json is missing: make it with `bmd-pipeline discover"),
        (
            make_config(discover=make_config().discover.model_dump() | {"num_modes": 3}),
            ArtifactError,
            r"seed0: discovered under other settings than the present ones; run `bmd-pipeline discover",
        ),
        (
            make_config(evaluate={"episodes": 8}, discover={"num_modes": 5}),
            ConfigError,
            r"evaluate.episodes must be >= 10, twice discover.num_modes, to validate modes; got 8",
        ),
    ):
        with pytest.raises(error, match=message) as caught:
            run(config, four, output)
        assert "\n" not in str(caught.value)
        assert not output.parent.exists()


def test_a_policy_that_never_succeeds_says_so(four: Layout, tmp_path: Path) -> None:
    """The same policy and modes in a task whose time is up before the first goal."""
    config = make_config(task={"name": TASK, "env": {"horizon": 2}})
    shutil.copytree(four.root, tmp_path / "copy")
    layout = Layout(tmp_path / "copy")
    for seed in SEEDS:
        record = layout.modes(TASK, seed) / "run.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"config_hash": stage_hash(config, "discover")}))
    found = run(config, layout)
    assert found.base.modes == "unknown"
    assert all(one.separation is None and one.truth is None for one in found.discovered)
    assert all(code.mode is None for one in found.discovered for code in one.codes)
