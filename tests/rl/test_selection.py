"""Which iteration is kept, and how long its episodes were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bmd_pipeline.config.discover import SteeringConfig
from bmd_pipeline.config.finetune import CurriculumConfig, FinetuneConfig
from bmd_pipeline.modes.discovered import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl import selection
from bmd_pipeline.rl.agents import Agent, make_agent
from bmd_pipeline.rl.curriculum import compute_max_steps
from bmd_pipeline.rl.selection import Candidate, choose_readout, compute_required_information
from bmd_pipeline.tasks.base import TaskEnv


def test_success_decides_among_candidates_whose_codes_still_tell() -> None:
    first, better = Candidate(0, 0.8, 1.0), Candidate(1, 0.9, 0.7)
    assert better.beats(first, required_information=0.6)
    assert not first.beats(better, required_information=0.6)
    assert Candidate(2, 0.9, 0.7).beats(better, 0.6), "ties go to the later one"


def test_codes_come_before_success() -> None:
    told, untold = Candidate(0, 0.5, 1.0), Candidate(1, 0.9, 0.1)
    assert not untold.beats(told, 0.8)
    assert told.beats(untold, 0.8)
    worse = Candidate(2, 0.9, 0.05)
    assert untold.beats(worse, 0.8), "when none qualifies, the codes that tell most are kept"
    assert not worse.beats(untold, 0.8)


def test_without_a_required_share_success_alone_decides() -> None:
    required = compute_required_information(0.0, discovered=0.7)
    assert Candidate(1, 0.9, -0.2).beats(Candidate(0, 0.5, 0.7), required)
    assert compute_required_information(0.5, discovered=0.7) == 0.35


def _choose(env: TaskEnv, agent: Agent, required: float = 0.0) -> Candidate:
    return choose_readout(env, agent, 3, [1, 2], torch.Generator().manual_seed(5), required)


@pytest.mark.parametrize(
    ("success", "information", "chosen"),
    [
        ({"mean": 0.9, "sample": 0.8}, {"mean": 1.0, "sample": 1.0}, "mean"),
        ({"mean": 0.8, "sample": 0.9}, {"mean": 1.0, "sample": 1.0}, "sample"),
        ({"mean": 0.9, "sample": 0.9}, {"mean": 1.0, "sample": 1.0}, "mean"),
        ({"mean": 0.9, "sample": 0.8}, {"mean": 0.1, "sample": 1.0}, "sample"),  # codes come before success
    ],
)
def test_the_better_readout_is_chosen_and_stays(
    env: TaskEnv,
    policy: DiffusionPolicy,
    monkeypatch: pytest.MonkeyPatch,
    success: dict[str, float],
    information: dict[str, float],
    chosen: str,
) -> None:
    draws = []

    def score(env: TaskEnv, agent: Agent, iteration: int, seeds: list[int], generator: torch.Generator) -> Candidate:
        draws.append(float(torch.rand(1, generator=generator)))
        readout = agent.readout
        assert readout is not None
        return Candidate(iteration, success[readout], information[readout], readout=readout)

    monkeypatch.setattr(selection, "score_candidate", score)
    agent = make_agent("dsrl", policy, None, FinetuneConfig(readout="auto"), SteeringConfig(hidden_sizes=(16,)))
    assert _choose(env, agent, required=0.5).readout == agent.readout == chosen
    assert draws[0] == draws[1], "both get the same draws"


def test_readouts_are_told_apart_in_real_episodes(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    """The chosen score is what a fresh look at the agent as it was left gives."""
    agent = make_agent("dsrl-bmd", policy, modes_of(), FinetuneConfig(readout="auto"), SteeringConfig())
    best = _choose(env, agent)
    again = selection.score_candidate(env, agent, 3, [1, 2], torch.Generator().manual_seed(5))
    assert again == best
    assert best.readout == agent.readout


def test_an_agent_without_steering_is_scored_once(env: TaskEnv, policy: DiffusionPolicy) -> None:
    agent = make_agent("dppo", policy, None, FinetuneConfig(readout="auto"), SteeringConfig(hidden_sizes=(16,)))
    assert _choose(env, agent).readout is None


def test_the_curriculum_grows_linearly_to_the_full_horizon() -> None:
    config = CurriculumConfig(start_fraction=0.25, iterations=10)
    steps = [compute_max_steps(config, i, 100) for i in range(15)]
    assert steps[0] == 25
    assert steps[4] == 55
    assert steps[10:] == [100] * 5
    assert compute_max_steps(CurriculumConfig(), 0, 7) == 7
