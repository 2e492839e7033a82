"""Advantages against hand-computed numbers and against their definition."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.rl.ppo import compute_continuation, compute_gae


def test_two_steps_by_hand() -> None:
    reward = torch.tensor([1.0, 2.0])[:, None, None]
    value = torch.tensor([0.5, 1.5, 9.0])[:, None, None]  # the last one must not count: the episode is over
    nonterminal = torch.tensor([1.0, 0.0])[:, None]
    advantage, returns = compute_gae(reward, value, nonterminal, nonterminal, gamma=0.5, gae_lambda=0.5)
    # δ_1 = 2 − 1.5 = 0.5;  δ_0 = 1 + 0.5·1.5 − 0.5 = 1.25;  A_0 = 1.25 + 0.25·0.5 = 1.375
    assert advantage.flatten().tolist() == [1.375, 0.5]
    assert returns.flatten().tolist() == [1.875, 2.0]


@given(st.integers(0, 10_000), st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_matches_the_sum_of_discounted_errors(seed: int, gamma: float, gae_lambda: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps, count = 6, 4
    reward = torch.randn(steps, count, 2, generator=generator, dtype=torch.float64)
    value = torch.randn(steps + 1, count, 2, generator=generator, dtype=torch.float64)
    taken = torch.randint(1, steps + 1, (count,), generator=generator)
    active_mask = torch.arange(steps)[:, None] < taken
    nonterminal, bootstrap = compute_continuation(active_mask, torch.zeros(count, dtype=torch.bool), continuing=False)
    advantage, _ = compute_gae(reward, value, nonterminal.double(), bootstrap.double(), gamma, gae_lambda)
    for episode in range(count):
        last = int(taken[episode]) - 1
        for t in range(last + 1):
            expected = torch.zeros(2, dtype=torch.float64)
            for k in range(t, last + 1):
                following = value[k + 1, episode] if k < last else torch.zeros(2, dtype=torch.float64)
                delta = reward[k, episode] + gamma * following - value[k, episode]
                expected += (gamma * gae_lambda) ** (k - t) * delta
            torch.testing.assert_close(advantage[t, episode], expected)


def test_lambda_one_gives_the_discounted_return() -> None:
    reward = torch.randn(5, 1, 1, generator=torch.Generator().manual_seed(0))
    active_mask = torch.ones(5, 1, dtype=torch.bool)
    nonterminal, bootstrap = compute_continuation(active_mask, torch.zeros(1, dtype=torch.bool), continuing=False)
    _, returns = compute_gae(reward, torch.randn(6, 1, 1), nonterminal, bootstrap, 0.9, 1.0)
    discounted = sum(0.9**t * reward[t] for t in range(5))
    torch.testing.assert_close(returns[0], discounted)


def test_only_a_continuing_task_bootstraps_at_its_time_limit() -> None:
    active_mask = torch.tensor([[True, True], [True, False]])  # the first episode timed out, the second one succeeded
    truncated = torch.tensor([True, False])
    nonterminal, bootstrap = compute_continuation(active_mask, truncated, continuing=False)
    assert nonterminal.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert torch.equal(bootstrap, nonterminal)
    nonterminal, bootstrap = compute_continuation(active_mask, truncated, continuing=True)
    assert nonterminal.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert bootstrap.tolist() == [[1.0, 0.0], [1.0, 0.0]]
