import torch
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.policies.diffusion import ObsHistory


def test_by_hand() -> None:
    history = ObsHistory(n_obs_steps=3, stride=2)
    assert history.start(torch.tensor([[1.0]])).tolist() == [[1.0, 0.0, 0.0]]
    assert history.extend(torch.tensor([[[2.0]]])).tolist() == [[2.0, 1.0, 1.0]]  # the start repeats
    assert history.extend(torch.tensor([[[4.0]], [[7.0]]])).tolist() == [[7.0, 5.0, 6.0]]
    assert history.extend(torch.tensor([[[9.0]], [[9.5]]])).tolist() == [[9.5, 2.5, 7.5]]


def test_start_forgets_the_last_episode() -> None:
    history = ObsHistory(2, 1)
    history.start(torch.full((3, 2), 9.0))
    history.extend(torch.zeros(1, 3, 2))
    assert torch.equal(history.start(torch.ones(3, 2)), torch.tensor([[1.0, 1.0, 0.0, 0.0]]).expand(3, -1))


@given(
    n_obs_steps=st.integers(1, 4),
    stride=st.integers(1, 3),
    chunks=st.lists(st.integers(1, 4), min_size=1, max_size=6),
)
def test_chunk_sizes_do_not_matter(n_obs_steps: int, stride: int, chunks: list[int]) -> None:
    path = torch.randn(1 + sum(chunks), 2, 3, generator=torch.Generator().manual_seed(0))
    history = ObsHistory(n_obs_steps, stride)
    stacked = history.start(path[0])
    t = 0
    for n in chunks:
        stacked = history.extend(path[t + 1 : t + 1 + n])
        t += n
    earlier = [path[t] - path[max(t - j * stride, 0)] for j in range(1, n_obs_steps)]
    assert torch.equal(stacked, torch.cat([path[t], *earlier], dim=1))
