"""Our denoiser's log-probabilities and clipped loss against DPPO's own code, on equal weights.

DPPO's `PPODiffusion` is built around our network: its actor asks our denoiser, and its DDIM coefficients are set to
those of our noise schedule. Both then judge the same chains. Nothing is trained.

    git clone https://github.com/irom-princeton/dppo
    python -m benchmarks.against_dppo --dppo dppo [--eta 1.0]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bmd_pipeline.config.schema import DenoiserConfig, PolicyConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import FinetunedDenoiser, PolicyInput
from bmd_pipeline.rl.ppo import compute_policy_loss, standardise

OBS_DIM, ACTION_DIM, DECISIONS = 5, 2, 512
BOUND = 3.0
"""Of predicted clean chunks; both clip them."""


class Actor(nn.Module):
    """Our denoiser, called as DPPO calls its own."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """Predicted noise (B, horizon, action_dim) of chunks x of that shape at diffusion steps t (B,)."""
        network = self.policy.denoiser
        context = network.embed_cond(cond["state"].flatten(1)) + network.embed_time()[t]
        predicted: Tensor = network(x.flatten(1), context)
        return predicted.reshape(x.shape)


class NoCritic(nn.Module):
    """Values of zero: the policy's loss alone is compared."""

    def forward(self, cond: dict[str, Tensor]) -> Tensor:
        """Zeros (B, 1)."""
        return cond["state"].new_zeros(len(cond["state"]), 1)


def make_policy(ddim_steps: int) -> DiffusionPolicy:
    """An untrained policy that predicts noise, as DPPO's with DDIM must."""
    torch.manual_seed(0)
    config = PolicyConfig(
        prediction="epsilon", hidden_sizes=(64, 64), horizon=4, n_action_steps=2, n_obs_steps=1, ddim_steps=ddim_steps
    )
    policy = DiffusionPolicy(config, OBS_DIM, ACTION_DIM)
    policy.chunk_low.fill_(-BOUND)
    policy.chunk_high.fill_(BOUND)
    return policy.requires_grad_(False).eval()


def make_theirs(policy: DiffusionPolicy, config: DenoiserConfig) -> Any:
    """DPPO's model around our network and our noise schedule."""
    from model.diffusion.diffusion_ppo import PPODiffusion  # type: ignore[import-not-found]
    from model.diffusion.eta import EtaFixed  # type: ignore[import-not-found]

    steps = len(policy.timesteps)
    theirs = PPODiffusion(
        gamma_denoising=config.denoising_discount,
        clip_ploss_coef=config.clip_ratio,
        clip_ploss_coef_base=config.clip_ratio,
        actor=Actor(policy),
        critic=NoCritic(),
        ft_denoising_steps=steps,
        min_sampling_denoising_std=config.noise_floor,
        min_logprob_denoising_std=config.noise_floor,
        eta=EtaFixed(base_eta=config.eta, min_eta=0.0, max_eta=1.0),
        horizon_steps=policy.config.horizon,
        obs_dim=OBS_DIM,
        action_dim=ACTION_DIM,
        device="cpu",
        denoised_clip_value=BOUND,
        denoising_steps=policy.config.denoising_steps,
        use_ddim=True,
        ddim_steps=steps,
    )
    visited = torch.tensor(policy.timesteps)
    signal = policy.alphas_cumprod[visited]
    theirs.ddim_t = visited
    theirs.ddim_alphas = signal
    theirs.ddim_alphas_prev = torch.cat([signal[1:], torch.ones(1)])
    theirs.ddim_sqrt_one_minus_alphas = (1.0 - signal).sqrt()
    return theirs


def compare(eta: float, ddim_steps: int) -> dict[str, float]:
    """Largest differences of log-probabilities and of the loss, and the loss itself."""
    config = DenoiserConfig(eta=eta)
    policy = make_policy(ddim_steps)
    ours, theirs = FinetunedDenoiser(policy, config), make_theirs(policy, config)
    generator = torch.Generator().manual_seed(1)
    cond = torch.randn(DECISIONS, OBS_DIM, generator=generator)
    inputs = PolicyInput(cond, torch.zeros(DECISIONS, dtype=torch.int64))
    noise = torch.randn(DECISIONS, policy.noise_dim, generator=generator)
    _, draws = ours.act(noise, inputs, generator, explore=True)
    shape = (DECISIONS, ddim_steps, policy.config.horizon, ACTION_DIM)

    def ask_theirs() -> Tensor:
        chains = draws["samples"].reshape(DECISIONS, ddim_steps + 1, *shape[2:])
        each: Tensor = theirs.get_logprobs({"state": cond[:, None]}, chains).reshape(shape)
        return each.detach()  # of every dimension

    old, before = ours.evaluate(draws, inputs)[0].detach(), ask_theirs()
    with torch.no_grad():  # the policy has moved since it drew
        for weight in ours.policy.denoiser.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
    theirs.actor_ft = Actor(ours.policy)
    new, now = ours.evaluate(draws, inputs)[0].detach(), ask_theirs()
    # they bound the log-probability of each dimension by -5 and 2, which we do not: compare where nothing is bounded
    free = (torch.minimum(before, now) > -5.0).all(dim=(1, 2, 3)).nonzero().squeeze(1)
    advantage = standardise(torch.randn(len(free), generator=generator))
    weights = torch.tensor(ours.factor_weights)
    loss, kl = compute_policy_loss(
        new[free], old[free], advantage, weights, torch.full_like(weights, config.clip_ratio)
    )

    index = torch.arange(ddim_steps).repeat(len(free))  # their loss takes pairs of a decision and a denoising step
    rows = free.repeat_interleave(ddim_steps)
    chains = draws["samples"].reshape(DECISIONS, ddim_steps + 1, *shape[2:])
    theirs.norm_adv = False
    found = theirs.loss(
        {"state": cond[rows, None]},
        chains[rows, index],
        chains[rows, index + 1],
        index,
        torch.zeros(len(rows)),
        torch.zeros(len(rows)),
        advantage.repeat_interleave(ddim_steps),
        before[rows, index],
        reward_horizon=policy.config.n_action_steps,
    )
    executed = now[:, :, : policy.config.n_action_steps].mean(dim=(2, 3))
    return {
        "eta": eta,
        "ddim_steps": ddim_steps,
        "log_prob_difference": float((executed - new).abs().max()),
        "decisions": len(free),
        "loss": float(loss) / ddim_steps,  # ours sums over denoising steps, theirs averages
        "their_loss": float(found[0]),
        "kl": float(kl.mean()),
        "their_kl": float(found[4]),
    }


def main() -> None:
    """Prints one JSON row per η and number of denoising steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dppo", type=Path, required=True, help="checkout of DPPO")
    parser.add_argument("--eta", nargs="+", type=float, default=[0.0, 0.5, 1.0])
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.dppo))
    for eta in arguments.eta:
        for ddim_steps in (2, 5):
            print(json.dumps(compare(eta, ddim_steps)))


if __name__ == "__main__":
    main()
