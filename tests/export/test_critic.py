"""What a robot may expect of each code from here: the episodes that show it, how it is learnt, when there is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bmd_pipeline.config.schema import PolicyConfig, RunConfig
from bmd_pipeline.export.critic import fit_platt, measure_fit, play_moments
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import Adapter, Draws, PolicyInput
from bmd_pipeline.rl.agent import Agent
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.export import _learn_critic
from bmd_pipeline.tasks import registry

TASK = "GaussianMixture"
CONFIG = RunConfig.model_validate({"task": {"name": TASK, "env": {"horizon": 24}}})


class Walker(Adapter):
    """Code 0 walks east, but only from the plane's eastern half; code 1 west from the western one; both else rest."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Tensor] = []

    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        self.told.append(inputs.code)
        side = 1.0 - 2.0 * inputs.code
        return torch.stack([side * (side * inputs.cond[:, 0] > 0), torch.zeros(len(side))], dim=1).repeat(1, 2), {}


def make_walker(num_codes: int = 2) -> tuple[Agent, Walker]:
    walker = Walker()
    policy = DiffusionPolicy(PolicyConfig(horizon=2, n_action_steps=2, hidden_sizes=(4,)), obs_dim=2, action_dim=2)
    modes: Any = SimpleNamespace(num_codes=num_codes, feature_columns=(0, 1))
    return Agent(policy, [walker], modes), walker


def test_moments_are_those_under_the_code_that_stays() -> None:
    agent, walker = make_walker()
    env = registry.make_env(TASK, CONFIG.task.env, 64)
    moments = play_moments(env, agent, [5], torch.Generator().manual_seed(1))
    told = torch.stack(walker.told)  # (chunks, 64)
    assert set(moments.code.tolist()) == {0, 1}
    assert (told != told[-1]).any()  # some codes changed
    for episode in range(64):
        own = moments.rows(moments.episode == episode)
        if not len(own.code):  # it ended before
            continue
        assert own.switched.tolist() == [True] + [False] * (len(own.code) - 1)
        assert own.code.unique().tolist() == [int(told[-1, episode])]
        assert own.success.unique().numel() == 1


def test_a_critic_knows_from_where_a_code_succeeds() -> None:
    """Told the code of the other half, the walker stays where it is: success rates can't tell, the place does."""
    agent, _ = make_walker()
    critic, said = _learn_critic(CONFIG, agent, "taught", 0, 640, 1, Reporter("quiet"))
    assert critic is not None
    assert isinstance(said, dict)
    assert said["brier"] < 0.5 * said["brier_of_rates"]
    assert said["calibration_error"] < 0.2  # of some sixty moments
    steps = agent.policy.config.n_obs_steps
    for x, best in ((0.3, 0), (-0.3, 1)):
        success = critic(torch.tensor([x, 0.0]).expand(1, steps, 2))[0]
        assert success.argmax() == best
        assert success[best] > 0.8 > 0.2 > success[1 - best]


@pytest.mark.parametrize(
    ("num_codes", "episodes", "why"),
    [
        (1, 64, "the policy has no codes to choose among"),
        (2, 0, "the export was told to play no episodes"),
        (2, 1, "it would know no more than the success rates"),
    ],
)
def test_where_there_is_none_a_sentence_says_why(num_codes: int, episodes: int, why: str) -> None:
    critic, said = _learn_critic(CONFIG, make_walker(num_codes)[0], "taught", 0, episodes, 1, Reporter("quiet"))
    assert critic is None
    assert str(said).startswith(why)


def test_probabilities_are_put_right() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2.0 * torch.randn(4000, generator=generator)
    success = (torch.rand(4000, generator=generator) < logits.sigmoid()).float()
    scale, shift = fit_platt(3.0 * logits + 1.0, success)  # too sure, and too hopeful
    assert scale == pytest.approx(1 / 3, rel=0.1)
    assert shift == pytest.approx(-1 / 3, abs=0.1)
    before, after = ((line * (3.0 * logits + 1.0) + move).sigmoid() for line, move in ((1.0, 0.0), (scale, shift)))
    assert measure_fit(before, success)["calibration_error"] > 3 * measure_fit(after, success)["calibration_error"]
    assert fit_platt(torch.zeros(3), torch.ones(3))[1] < 3.0  # three successes make no certainty
