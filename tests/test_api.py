"""The package from Python: docs/python.md runs, and a policy acts as evaluation plays it."""

from __future__ import annotations

import re
from pathlib import Path

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
    with pytest.raises(ConfigError, match=r"mode must be a code from 0 to \d, got 99"):
        policy.reset(99)
    with pytest.raises(ConfigError, match="mode must be a code from 0 to"):
        bmd.play(run, "dppo-bmd", mode=99)
    for obs in ([0.0], [0.0, float("nan")]):
        with pytest.raises(ConfigError, match="obs must be 2 finite numbers"):
            policy.act(obs)
    with pytest.raises(ArtifactError, match=r"dsrl.*run\.json"):
        bmd.load_policy(run, "dsrl")
    with pytest.raises(ConfigError, match=r"unknown setting finetune\.iteration"):
        bmd.finetune(bmd.Run("GaussianMixture", settings={"finetune.iteration": 1}), "dppo")


def test_episodes_are_told_their_mode(run: bmd.Run) -> None:
    told = bmd.play(run, "dppo-bmd", mode=1, episodes=8)
    assert set(told.episodes.code.tolist()) == {1}
    turns = bmd.play(run, "dppo-bmd", episodes=8)
    assert len(set(turns.episodes.code.tolist())) == bmd.load_policy(run, "dppo-bmd").num_modes
    assert len(turns.modes) == 8 == turns.track.shape[1]
