"""Links that learn side by side: each has its own trust region, and none stops another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bmd_pipeline.config.schema import KL_STOP, FinetuneConfig, SteeringConfig
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import make_agent
from bmd_pipeline.rl.ppo import PPO, Batch, Critic, standardise
from tests.rl.decisions import decide, draw_inputs

ROWS = 256
LOOSE, TIGHT = 5.0, 1e-6
RATES = {"steering": 2e-3, "denoiser": 5e-4}


@dataclass(frozen=True)
class Result:
    """What an update did to each of two adapters.

    Attributes:
        weights: of each.
        steps: of Adam on each.
        rates: learning rates afterwards.
        metrics: as logged.
    """

    weights: tuple[list[Tensor], list[Tensor]]
    steps: tuple[int, int]
    rates: list[float]
    metrics: dict[str, float]


@pytest.fixture
def update(policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]) -> Callable[..., Result]:
    """Updates a steering policy and a denoiser, as `dppo-bmd` has them in the published form."""
    modes = modes_of(form="published")

    def run(steering_kl: float, denoiser_kl: float, times: int = 1, schedule: str = "constant") -> Result:
        torch.manual_seed(2)
        config = FinetuneConfig.model_validate(
            {
                "ppo": {
                    "target_kl": steering_kl,
                    "learning_rate": RATES["steering"],
                    "learning_rate_schedule": schedule,
                    "minibatch_size": 32,
                    "clip_ratio": 0.2,
                },
                "denoiser": {"target_kl": denoiser_kl, "learning_rate": RATES["denoiser"], "clip_ratio": 0.05},
            }
        )
        agent = make_agent("dppo-bmd", policy, copy.deepcopy(modes), config, SteeringConfig(hidden_sizes=(16,)))
        critic = Critic(4, 2, 3, 1, (16,))
        ppo = PPO(agent, critic, config.ppo)
        assert ppo.clip_ratios.tolist() == pytest.approx([0.2, 0.05, 0.05])
        generator, inputs = torch.Generator().manual_seed(0), draw_inputs(ROWS)
        steps = [0, 0]
        for _ in range(times):
            with torch.no_grad():
                _, draws = decide(agent, inputs, generator)
                batch = Batch(
                    inputs,
                    draws,
                    torch.zeros(ROWS, 4 + 2 + 3 + 1),
                    agent.evaluate(draws, inputs)[0],
                    standardise(torch.randn(ROWS, generator=generator)),
                    torch.zeros(ROWS, 1),
                )
            metrics = ppo.update(batch, generator)
            for index, group in enumerate(agent.trainable()):
                state = ppo.optimizer.state.get(group[0], {})
                steps[index] = int(state["step"]) if state else 0
        first, second = ([p.detach().clone() for p in group] for group in agent.trainable())
        rates = [group["lr"] for group in ppo.optimizer.param_groups[:2]]
        return Result((first, second), (steps[0], steps[1]), rates, metrics)

    return run


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


ALL = 4 * ROWS // 32


def test_each_link_has_its_own_learning_rate(update: Callable[..., Result]) -> None:
    assert update(LOOSE, LOOSE).rates == list(RATES.values())


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_link_that_passes_its_bound_stops_and_the_other_goes_on(update: Callable[..., Result], stopped: int) -> None:
    """The other one ends bit for bit where it does beside an adapter that never stops."""
    both = update(LOOSE, LOOSE)
    assert both.steps == (ALL, ALL)
    assert both.metrics["losses/kl_stopped"] == 0.0
    bounds = [LOOSE, LOOSE]
    bounds[stopped] = TIGHT
    one = update(*bounds)
    assert one.steps[1 - stopped] == ALL
    assert 0 < one.steps[stopped] < ALL
    assert same(one.weights[1 - stopped], both.weights[1 - stopped])
    assert not same(one.weights[stopped], both.weights[stopped])
    assert one.metrics["losses/kl_stopped"] == 1.0
    assert one.metrics["losses/policy_steps"] == ALL
    assert one.metrics["losses/kl_share"] > KL_STOP  # of the one with the tight target, whose KL may be the lower one


def test_both_may_stop(update: Callable[..., Result]) -> None:
    found = update(TIGHT, TIGHT)
    assert max(found.steps) == found.metrics["losses/policy_steps"] < ALL
    assert found.metrics["losses/kl_stopped"] == 1.0


@pytest.mark.parametrize("stopped", [0, 1])
def test_an_adaptive_rate_falls_for_the_link_that_stopped_alone(update: Callable[..., Result], stopped: int) -> None:
    bounds = [LOOSE, LOOSE]
    bounds[stopped] = TIGHT
    found = update(*bounds, times=2, schedule="adaptive")
    expected = list(RATES.values())
    expected[stopped] /= 1.5**2
    assert found.rates == pytest.approx(expected)
    assert update(*bounds, times=2).rates == list(RATES.values())
