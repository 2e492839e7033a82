import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.policies.bc import make_windows, split_episodes
from bmd_pipeline.policies.diffusion import DiffusionPolicy, ObsHistory


def make_demos(lengths: list[int]) -> Demos:
    draw = np.random.default_rng(len(lengths))
    rows = sum(lengths)
    obs = draw.normal(size=(rows, 2)).astype(np.float32)
    action = draw.uniform(-1, 1, (rows, 2)).astype(np.float32)
    return Demos(obs, action, np.cumsum(lengths).astype(np.int64), {})


def test_by_hand() -> None:
    obs = np.array([[0.0], [1.0], [3.0], [10.0], [20.0]], np.float32)
    action = np.array([[0.1], [0.2], [0.3], [0.4], [0.5]], np.float32)
    demos = Demos(obs, action, np.array([3, 5]), {})
    config = PolicyConfig(horizon=2, n_action_steps=1, n_obs_steps=2, obs_stride=1)
    windows = make_windows(demos, config)
    torch.testing.assert_close(
        windows.stacked, torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 2.0], [10.0, 0.0], [20.0, 10.0]])
    )
    torch.testing.assert_close(
        windows.chunk, torch.tensor([[0.1, 0.2], [0.2, 0.3], [0.3, 0.3], [0.4, 0.5], [0.5, 0.5]])
    )


def test_actions_of_earlier_steps_stand_last() -> None:
    demos = Demos(np.zeros((4, 1), np.float32), np.arange(4, dtype=np.float32)[:, None], np.array([3, 4]), {})
    shape = {"horizon": 4, "n_action_steps": 2, "unet": {"past_steps": 2}}
    chunk = make_windows(demos, PolicyConfig.model_validate(shape)).chunk
    assert chunk.tolist() == [[0, 1, 0, 0], [1, 2, 0, 0], [2, 2, 0, 1], [3, 3, 3, 3]]


shapes = {
    "lengths": st.lists(st.integers(1, 8), min_size=1, max_size=5),
    "horizon": st.integers(1, 6),
    "n_obs_steps": st.integers(1, 4),
    "stride": st.integers(1, 3),
}


@given(**shapes)
@settings(max_examples=60)
def test_windows_equal_what_a_rollout_sees(lengths: list[int], horizon: int, n_obs_steps: int, stride: int) -> None:
    """Brute force, and at the same time the promise that training and acting see the same history."""
    demos = make_demos(lengths)
    config = PolicyConfig(horizon=horizon, n_action_steps=1, n_obs_steps=n_obs_steps, obs_stride=stride)
    windows = make_windows(demos, config)
    assert len(windows) == sum(lengths)
    row = 0
    for start, end in zip(demos.episode_starts, demos.episode_ends, strict=True):
        history = ObsHistory(n_obs_steps, stride)
        for t in range(start, end):
            current = torch.from_numpy(demos.obs[t])[None]
            stacked = history.start(current) if t == start else history.extend(current[None])
            assert torch.equal(windows.stacked[row], stacked[0])
            chunk = np.stack([demos.action[min(t + k, end - 1)] for k in range(horizon)])
            np.testing.assert_array_equal(windows.chunk[row].numpy(), chunk.ravel())
            row += 1


def test_a_target_that_is_held_stays_where_it_is_at_the_end() -> None:
    """Zeros after the end taught absolute targets to go to the origin, and shifted the scales."""
    draw = np.random.default_rng(0)
    action = (np.array([0.8, -0.6]) + 0.05 * draw.normal(size=(60 * 40, 2))).astype(np.float32)
    demos = Demos(np.tile(np.arange(40.0, dtype=np.float32), 60)[:, None], action, 40 * np.arange(1, 61), {})
    config = PolicyConfig(horizon=8, n_obs_steps=1)
    windows = make_windows(demos, config)
    last = windows.chunk[windows.stacked[:, 0] == 39].view(60, 8, 2)
    torch.testing.assert_close(last.mean(dim=(0, 1)), torch.tensor([0.8, -0.6]), atol=0.02, rtol=0)
    policy = DiffusionPolicy(config, obs_dim=1, action_dim=2)
    policy.fit_normalisers(windows.chunk, windows.stacked)
    np.testing.assert_allclose(policy.action_normaliser.mean, action.mean(axis=0, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(policy.action_normaliser.std, action.std(axis=0, dtype=float), rtol=1e-5)


def test_chosen_episodes_only() -> None:
    demos = make_demos([3, 2, 4])
    config = PolicyConfig(horizon=2, n_action_steps=1)
    everything = make_windows(demos, config)
    chosen = make_windows(demos, config, np.array([0, 2]))
    assert torch.equal(chosen.chunk, torch.cat([everything.chunk[:3], everything.chunk[5:]]))
    assert len(make_windows(demos, config, np.array([], np.int64))) == 0


@given(st.integers(1, 50), st.floats(0, 0.5))
def test_split_is_a_partition(num_episodes: int, share: float) -> None:
    training, held_out = split_episodes(num_episodes, share, torch.Generator().manual_seed(0))
    assert sorted([*training, *held_out]) == list(range(num_episodes))
    assert len(training) >= 1
    assert len(held_out) == min(round(share * num_episodes), num_episodes - 1)
    assert list(training) == sorted(training)


def test_split_depends_on_the_generator() -> None:
    splits = [split_episodes(50, 0.2, torch.Generator().manual_seed(seed))[1].tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
