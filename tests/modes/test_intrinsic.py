"""The intrinsic reward and the multimodality it adds up to."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.modes.inference import compute_intrinsic_reward, compute_log_ratio, compute_multimodality


def _random_case(seed: int, decisions: int, episodes: int, codes: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    log_q = torch.randn(decisions + 1, episodes, codes, generator=generator).log_softmax(dim=-1)
    code = torch.randint(codes, (episodes,), generator=generator)
    taken = torch.randint(1, decisions + 1, (episodes,), generator=generator)
    active_mask = torch.arange(decisions)[:, None] < taken
    # an ended episode repeats its last state
    last = torch.minimum(torch.arange(decisions + 1)[:, None], taken)
    log_q = log_q.gather(0, last[..., None].expand_as(log_q))
    return log_q, code, active_mask


cases = (st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6), st.integers(2, 9))
floors = st.sampled_from([-math.inf, -3.0, -0.1, 0.0])


@given(*cases, floors)
def test_telescoped_rewards_sum_to_the_last_log_ratio(
    seed: int, decisions: int, episodes: int, codes: int, floor: float
) -> None:
    log_q, code, active_mask = _random_case(seed, decisions, episodes, codes)
    ratio = compute_log_ratio(log_q, code).clamp(min=floor)
    total = compute_intrinsic_reward(ratio, active_mask, "telescoped").sum(dim=0)
    torch.testing.assert_close(total, compute_multimodality(ratio, active_mask)[1])


@given(*cases, floors)
def test_they_do_so_after_every_decision_up_to_the_episodes_own_end(
    seed: int, decisions: int, episodes: int, codes: int, floor: float
) -> None:
    """By hand, episode by episode; what stands behind an episode's end must not count."""
    log_q, code, active_mask = _random_case(seed, decisions, episodes, codes)
    garbage = torch.randn(log_q.shape, generator=torch.Generator().manual_seed(seed)).log_softmax(dim=-1)
    visited = torch.cat([torch.ones_like(active_mask[:1]), active_mask])
    log_q = torch.where(visited[..., None], log_q, garbage)
    ratio = compute_log_ratio(log_q, code).clamp(min=floor)
    earned = compute_intrinsic_reward(ratio, active_mask, "telescoped").cumsum(dim=0)
    for episode in range(episodes):
        last = int(active_mask[:, episode].sum())
        for t in range(decisions):
            q = float(log_q[min(t + 1, last), episode, code[episode]].exp())
            assert float(earned[t, episode]) == pytest.approx(max(math.log(q * codes), floor), abs=1e-4)


@given(st.integers(0, 10_000), st.integers(2, 9))
def test_log_ratio_is_bounded_by_the_entropy_of_the_codes(seed: int, codes: int) -> None:
    log_q, code, _ = _random_case(seed, 5, 4, codes)
    assert float(compute_log_ratio(log_q, code).max()) <= math.log(codes) + 1e-6


def test_per_step_reward_pays_every_state_of_a_running_episode() -> None:
    ratio = torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 2.0]])
    active_mask = torch.tensor([[True, True], [True, False]])
    reward = compute_intrinsic_reward(ratio, active_mask, "per_step")
    assert reward.tolist() == [[1.0, 2.0], [3.0, 0.0]]
    mean, last = compute_multimodality(ratio, active_mask)
    assert mean.tolist() == [2.0, 2.0]
    assert last.tolist() == [3.0, 2.0]


def test_ending_early_costs_nothing_when_telescoped_but_does_per_step() -> None:
    ratio = torch.full((11, 2), math.log(4))
    active_mask = torch.ones(10, 2, dtype=torch.bool)
    active_mask[3:, 0] = False  # the first episode succeeds after three decisions
    telescoped = compute_intrinsic_reward(ratio, active_mask, "telescoped").sum(dim=0)
    per_step = compute_intrinsic_reward(ratio, active_mask, "per_step").sum(dim=0)
    assert telescoped[0] == pytest.approx(float(telescoped[1]))
    assert per_step[0] < per_step[1]
