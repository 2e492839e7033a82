"""A task whose numbers are unusable now and then, through all stages that play it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bmd_pipeline.demos.store import DemoWriter, load_demos
from bmd_pipeline.environments.base import Episode, Transition
from bmd_pipeline.metrics.episodes import load_episodes
from bmd_pipeline.metrics.schemas import Evaluation, load_document
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.discover import discover
from bmd_pipeline.stages.evaluate import evaluate, summarise
from bmd_pipeline.stages.finetune import finetune
from bmd_pipeline.stages.pretrain import pretrain
from bmd_pipeline.tasks.gaussian_mixture.env import GaussianMixture

from .small import QUIET, make_config


class Glitching(GaussianMixture):
    """The third environment shows an observation that is no number, a track and a reward out of all bounds."""

    def step_chunk(self, actions: Tensor) -> Transition:
        moved = super().step_chunk(actions)
        moved.obs_path[0, 2] = torch.nan
        moved.track_path[0, 2] = torch.inf
        moved.reward[0, 2] = 1e20
        return moved


@pytest.fixture
def glitching(monkeypatch: pytest.MonkeyPatch) -> None:
    make = lambda options, num_envs, *, device, num_workers: Glitching(options, num_envs, device)  # noqa: E731
    monkeypatch.setattr("bmd_pipeline.tasks.gaussian_mixture.env.make_env", make)


def warned(folder: Path) -> list[str]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return [text for text in record["warnings"] if "counts as failed" in text]


@pytest.mark.usefixtures("glitching")
@pytest.mark.parametrize("form", ["coded", "published"])
def test_every_stage_ends_and_says_so_once(policy: Path, demos: Path, tmp_path: Path, form: str) -> None:
    config = make_config(
        discover={"form": form, "num_modes": 4}, finetune={"iterations": 2}, evaluate={"episodes": 40, "num_envs": 40}
    )
    stage: dict[str, Any] = {"seed": 0, "num_workers": 1}
    modes, tuned, output = tmp_path / "modes", tmp_path / "tuned", tmp_path / "eval" / "eval.json"
    discover(config, policy=policy, demos=demos, output=modes, reporter=Reporter("quiet"), **stage)
    finetune(config, policy=policy, modes=modes, output=tuned, method="dppo-bmd", reporter=Reporter("quiet"), **stage)
    reporter = Reporter("quiet")
    evaluate(
        config,
        policy=policy,
        modes=modes,
        finetuned=tuned,
        output=output,
        method="dppo-bmd",
        reporter=reporter,
        **stage,
    )
    for texts in (warned(modes), warned(tuned), reporter.warnings):
        assert len(texts) == 1
        assert "observation column 0 was not finite" in texts[0]
        assert "nan at step 1 of environment 2, seed" in texts[0]
    assert json.loads((modes / "modes.json").read_text())["findings"]["dropped_episodes"] == 2  # of two rounds
    for line in map(json.loads, (tuned / "metrics.jsonl").read_text().splitlines()):
        assert line["rollout/dropped_episodes"] == 1.0
    row = load_document(output, Evaluation).policies["dppo-bmd"].seeds[0]
    assert (row.episodes, row.dropped) == (40, 1)
    assert len(row.obs_reach) == 2
    assert 0.0 < max(row.obs_reach) < 1e3
    (episodes,) = load_episodes(output.with_name("episodes.parquet"))
    assert not episodes.success[2]
    assert len(episodes) == 40
    both = tmp_path / "both" / "eval.json"
    summarise(config, evaluations=[output], output=both, reporter=QUIET)
    assert load_document(both, Evaluation).policies["dppo-bmd"].seeds == [row]


@pytest.mark.usefixtures("glitching")
def test_pretraining_selects_by_the_episodes_that_are_left(demos: Path, tmp_path: Path) -> None:
    config = make_config(pretrain={"iterations": 40, "selection": {"interval": 20, "episodes": 32}})
    pretrain(config, demos=demos, output=tmp_path, reporter=Reporter("quiet"))
    assert len(warned(tmp_path)) == 1


def test_pretraining_says_in_which_columns_demonstrations_are_of_another_unit(demos: Path, tmp_path: Path) -> None:
    data = load_demos(demos)
    with DemoWriter(tmp_path / "d", 2, 2, {}) as writer:
        for first, last in zip(data.episode_starts, data.episode_ends, strict=True):
            obs = data.obs[first:last] * np.array([1.0, 1000.0], np.float32)
            writer.append(Episode(obs, data.action[first:last], True, 0))
    config = make_config(pretrain={"iterations": 20, "selection": {"interval": 20, "episodes": 32}})
    for store, expected in ((demos, 0), (tmp_path / "d", 1)):
        output = tmp_path / store.name
        reporter = Reporter("quiet")
        pretrain(config, demos=store, output=tmp_path / f"policy{expected}", reporter=reporter)
        told = [text for text in reporter.warnings if "does not look like GaussianMixture" in text]
        assert len(told) == expected, output
        assert all("column 1 of the observation" in text and "column 0" not in text for text in told)
