"""Demonstrations in an environment's own units: learnt in [-1, 1], played in those units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.demos.store import DemoWriter
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import ArtifactError, DataError
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.rl.agent import make_base_agent
from bmd_pipeline.rl.rollout import roll_out
from bmd_pipeline.seeds import make_generator
from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.pretrain import pretrain
from bmd_pipeline.tasks import registry

LOW, HIGH = (100.0, -0.02), (300.0, 0.01)
CONFIG = RunConfig.model_validate(
    {
        "task": {"name": "Bounded", "plugins": ["bounded_task"]},
        "collect": {"num_episodes": 40},
        "pretrain": {
            "policy": {"horizon": 1, "n_action_steps": 1, "n_obs_steps": 1, "hidden_sizes": [32, 32]},
            "iterations": 300,
            "batch_size": 64,
        },
    }
)


@pytest.fixture(autouse=True)
def bounded_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "demos" / "plugins")
    import bounded_task  # noqa: F401  (registers the task, as loading a config does)


def write_store(path: Path, count: int = 40, *, bounds: bool = True, outliers: int = 0) -> Path:
    draw = np.random.default_rng(0)
    given = {"action_low": LOW, "action_high": HIGH} if bounds else {}
    with DemoWriter(path, 1, 2, {}, chunk_rows=256, **given) as writer:
        for i in range(count):
            side = (-1.0) ** i
            action = np.array([200 + 60 * side, -0.005 + 0.01 * side]) + draw.normal(size=2) * (2.0, 0.0003)
            if i < outliers:
                action[0] = 1e4
            writer.append(Episode(np.full((1, 1), side, np.float32), action[None].astype(np.float32), True, 0))
    return path


def train(demos: Path, output: Path) -> None:
    pretrain(CONFIG, demos=demos, output=output, reporter=Reporter("quiet"))


def play(policy: Path) -> float:
    env = registry.make_env("Bounded", {}, 64)
    agent = make_base_agent(load_policy(policy))
    code = torch.zeros(64, dtype=torch.int64)
    return float(
        roll_out(env, agent, seed=1, code=code, generator=make_generator(0, "evaluate", "test"), explore=False)
        .success.float()
        .mean()
    )


@pytest.mark.parametrize("source", ["written", "collected"])
def test_physical_units_from_the_store_to_the_environment(tmp_path: Path, source: str) -> None:
    store = tmp_path / "demos.zarr"
    if source == "written":
        write_store(store)
    else:
        collect(CONFIG, output=store, manifest=tmp_path / "m.json", num_workers=1, reporter=Reporter("quiet"))
    attributes = dict(zarr.open_group(store, mode="r").attrs)
    assert (attributes["action_low"], attributes["action_high"]) == (list(LOW), list(HIGH))
    train(store, tmp_path / "policy")
    policy = load_policy(tmp_path / "policy", action_bounds=(LOW, HIGH))
    assert policy.chunk_high.isfinite().all()
    assert play(tmp_path / "policy") > 0.95
    with pytest.raises(ArtifactError, match=r"actions between \[100.0, -0.02\] and .*, the task's are between \[-1.0"):
        load_policy(tmp_path / "policy", action_bounds=((-1.0, -1.0), (1.0, 1.0)))


def test_other_bounds_than_the_tasks_are_refused_in_one_line(tmp_path: Path) -> None:
    store = write_store(tmp_path / "demos.zarr", bounds=False)
    with pytest.raises(
        DataError, match=r"its actions are between \[13\d.*those of task Bounded between \[100"
    ) as caught:
        train(store, tmp_path / "policy")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "policy").exists()


def test_values_outside_the_bounds_are_clipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(write_store(tmp_path / "demos.zarr", outliers=4), tmp_path / "policy")
    assert "5.000% of the actions' values lie outside their bounds; clipped" in capsys.readouterr().err
