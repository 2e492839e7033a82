"""A flow policy in plain torch, as an example of a policy of one's own: docs/own-policy.md.

    python examples/own_policy/flow.py data/GaussianMixture/demos.zarr      # trains it; writes flow.pt beside this file

`load` is what `pretrain.external_policy=flow:load` names.

Source: flow matching along straight lines, Lipman et al. 2023 (arXiv 2210.02747).
"""

import sys
from pathlib import Path

import torch
import zarr
from torch import Tensor, nn

from bmd_pipeline.policies.external import PolicySpec

WEIGHTS = Path(__file__).with_name("flow.pt")
FLOW_STEPS = 8


class FlowPolicy(nn.Module):
    """Moves noise to actions along a velocity that a network predicts."""

    spec = PolicySpec(obs_dim=2, action_dim=2, horizon=8, n_action_steps=4, n_obs_steps=2)

    def __init__(self) -> None:
        super().__init__()
        actions, seen = self.spec.horizon * self.spec.action_dim, self.spec.n_obs_steps * self.spec.obs_dim
        self.network = nn.Sequential(
            nn.Linear(actions + seen + 1, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, actions)
        )
        self.register_buffer("scale", torch.ones(self.spec.action_dim))  # of actions

    def velocity(self, x: Tensor, obs: Tensor, time: Tensor) -> Tensor:
        """Of x (B, horizon, action_dim), under observations (B, n_obs_steps, obs_dim), at times (B, 1)."""
        moved: Tensor = self.network(torch.cat([x.flatten(1), obs.flatten(1), time], dim=1))
        return moved.reshape(x.shape)

    def forward(self, noise: Tensor, obs: Tensor) -> Tensor:
        """The chunk of actions (B, horizon, action_dim) for noise of that shape and observations, the latest last."""
        x = noise
        for step in range(FLOW_STEPS):
            time = x.new_full((len(x), 1), step / FLOW_STEPS)
            x = x + self.velocity(x, obs, time) / FLOW_STEPS
        return x * self.scale


def load() -> FlowPolicy:
    """The trained policy."""
    policy = FlowPolicy()
    policy.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    return policy


def train(store: str, steps: int = 5000) -> None:
    """Clones the demonstrations of a store and writes the weights."""
    torch.manual_seed(0)
    group = zarr.open_group(store, mode="r")
    obs, action, ends = (torch.from_numpy(group[name][:]) for name in ("data/obs", "data/action", "meta/episode_ends"))
    policy = FlowPolicy()
    policy.scale.copy_(action.std(dim=0))
    rows = torch.arange(len(obs))
    last = (ends - 1)[torch.searchsorted(ends, rows, right=True)]  # row of each episode's end, by step
    first = torch.cat([torch.zeros(1, dtype=ends.dtype), ends])[torch.searchsorted(ends, rows, right=True)]
    earlier = rows[:, None] - torch.arange(policy.spec.n_obs_steps).flip(0)
    seen = obs[torch.maximum(earlier, first[:, None])]
    chunk = action[torch.minimum(rows[:, None] + torch.arange(policy.spec.horizon), last[:, None])] / policy.scale
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = torch.randint(len(rows), (256,))
        noise, time = torch.randn(256, *chunk.shape[1:]), torch.rand(256, 1)
        x = (1 - time[..., None]) * noise + time[..., None] * chunk[batch]
        loss = (policy.velocity(x, seen[batch], time) - (chunk[batch] - noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(policy.state_dict(), WEIGHTS)


if __name__ == "__main__":
    train(sys.argv[1])
