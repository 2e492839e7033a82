"""The package from Python: docs/python.md runs, and a policy acts as evaluation plays it."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bmd_pipeline as bmd
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.rl.rollout import roll_out
from bmd_pipeline.seeds import make_generator

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> bmd.Run:
    """The run of the page, after all of its code."""
    folder, names = tmp_path_factory.mktemp("api"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "config").symlink_to(ROOT / "config")
        for block in BLOCKS:
            exec(block, names)
    made: bmd.Run = names["run"]
    return bmd.Run(made.task, made.preset, made.settings, folder)


def test_what_first_success_tells_the_policy_can_be_told(run: bmd.Run, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/quickstart.md").read_text(), flags=re.DOTALL)
    exec(block.replace('bmd.Run("GaussianMixture")', "run").replace("mode=2", "mode=1"), {"run": run})  # two in smoke
    assert re.fullmatch(r"[01]\.\d+ (\{.*\}|set\(\))\n", capsys.readouterr().out)


def test_the_page_leaves_what_the_commands_would(run: bmd.Run) -> None:
    assert run.layout.summary(run.task).parent == Path(run.root) / "results" / "GaussianMixture-smoke"
    assert run.layout.evaluation(run.task, "dppo-bmd", 0).is_file()


@pytest.mark.parametrize("method", ["pretrained", "dppo-bmd"])
def test_a_policy_acts_as_it_is_evaluated(run: bmd.Run, method: str) -> None:
    policy, env = bmd.load_policy(run, method), bmd.make_env(run)
    mode = max(policy.num_modes - 1, 0)
    draws = make_generator(0, "evaluate", "acting")
    played = roll_out(env, policy._agent, seed=3, code=torch.tensor([mode]), generator=draws, explore=False)
    obs, tracks = env.reset(3)[0], [env.track()]
    policy.reset(mode)
    for _ in range(int(played.length)):
        moved = env.step_chunk(torch.as_tensor(policy.act(obs))[None, None])
        obs = moved.obs_path[-1, 0]
        tracks.append(moved.track_path[-1])
    assert torch.allclose(torch.stack(tracks), played.track[: len(tracks)], atol=1e-6)


def test_a_switch_in_mid_chunk_plans_anew(run: bmd.Run) -> None:
    policy = bmd.load_policy(run, "dppo-bmd")
    assert policy.num_modes >= 2
    obs = bmd.make_env(run).reset(0)[0]
    policy.act(obs)
    kept = policy._plan
    policy.act(obs)
    assert policy._plan is kept
    policy.switch(1)
    policy.act(obs)
    assert policy._plan is not kept


def test_what_can_not_be_is_said(run: bmd.Run) -> None:
    policy = bmd.load_policy(run, "dppo-bmd")
    with pytest.raises(ConfigError, match=r"mode must be a whole number from 0 to \d, got 99"):
        policy.reset(99)
    with pytest.raises(ConfigError, match="mode must be a whole number from 0 to"):
        bmd.play(run, "dppo-bmd", mode=99)
    for mode in ("left", 1.0, None):
        with pytest.raises(ConfigError, match="mode must be a whole number"):
            policy.switch(mode)
    for obs in (
        [0.0],
        [0.0, float("nan")],
        [0.0, 1e300],
        "ab",
        [0.0, [0.0]],
        object(),
        torch.zeros(2).requires_grad_(),
    ):
        with pytest.raises(ConfigError, match="obs must be 2 finite numbers"):
            policy.act(obs)
    with pytest.raises(ArtifactError, match=r"dsrl.*run\.json"):
        bmd.load_policy(run, "dsrl")
    with pytest.raises(ConfigError, match=r"unknown setting finetune\.iteration"):
        bmd.finetune(bmd.Run("GaussianMixture", settings={"finetune.iteration": 1}), "dppo")


def test_notebooks_complete_the_names_that_there_are() -> None:
    assert set(bmd.__all__) <= set(dir(bmd))
    with pytest.raises(AttributeError, match="module 'bmd_pipeline' has no attribute 'colect'"):
        bmd.colect  # noqa: B018


def test_episodes_are_told_their_mode(run: bmd.Run) -> None:
    told = bmd.play(run, "dppo-bmd", mode=1, episodes=8)
    assert set(told.episodes.code.tolist()) == {1}
    turns = bmd.play(run, "dppo-bmd", episodes=8)
    assert len(set(turns.episodes.code.tolist())) == bmd.load_policy(run, "dppo-bmd").num_modes
    assert len(turns.modes) == 8 == turns.track.shape[1]


@pytest.mark.parametrize("seed", [-1, 2**70, 1.5, "0", "../x", None])
def test_seeds_that_are_none_reach_no_folder(run: bmd.Run, seed: Any) -> None:
    before = sorted(Path(run.root).rglob("*"))
    for use in (bmd.discover, *(partial(stage, method="dppo") for stage in (bmd.finetune, bmd.evaluate, bmd.play))):
        with pytest.raises(ConfigError, match="seed must be a whole number from 0 to"):
            use(run, seed=seed)
    with pytest.raises(ConfigError, match="seed must be a whole number from 0 to"):
        bmd.load_policy(run, seed=seed)
    assert sorted(Path(run.root).rglob("*")) == before


def test_values_of_other_types_are_refused_and_numbers_of_any_package_are_numbers(run: bmd.Run) -> None:
    for wrong in ({"task": None}, {"settings": ["seed=1"]}, {"root": 5}, {"root": "a\0b"}):
        with pytest.raises(ConfigError, match=rf"^Run: {next(iter(wrong))} can't be a "):
            bmd.Run(**{"task": run.task} | wrong)  # type: ignore[arg-type]
    for value in (object(), b"x", np.zeros(2)):
        with pytest.raises(ConfigError, match=r"^execution\.group must be a number, a text, a list or a group, got "):
            bmd.Run(run.task, settings={"execution.group": value}).config  # noqa: B018
    numbers = {"finetune.iterations": np.int64(3), "finetune.ppo.gamma": torch.tensor(0.5)}
    finetune = bmd.Run(run.task, settings=numbers).config.finetune
    assert (finetune.iterations, finetune.ppo.gamma) == (3, 0.5)
    for method in (None, 3):
        for use in (bmd.finetune, bmd.evaluate, bmd.load_policy):
            with pytest.raises(ConfigError, match="unknown method"):
                use(run, method)  # type: ignore[operator]
    for count in (-3, "3", 2.5):
        with pytest.raises(ConfigError, match="episodes must be a whole number from 1"):
            bmd.play(run, episodes=count)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="num_envs must be a whole number from 1"):
            bmd.make_env(run, count)  # type: ignore[arg-type]
