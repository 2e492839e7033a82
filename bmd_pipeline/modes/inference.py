"""The inference model q_φ(z|h), and the intrinsic reward log q_φ(z|h) − log p(z) that it pays."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.schema import InferenceConfig
from bmd_pipeline.policies.networks import descend, make_mlp

# ---- The inference model q_φ(z|h): which mode code produced this stretch of track? ----
#
# Source: BMD (arXiv 2605.11387), after DIAYN. The published model sees single states (`history_steps` 1).

HISTORY_STRIDE = 2
"""Policy steps between two points of a history: neighbouring ones differ too little to tell which way it goes."""
LEARNING_RATE = 1e-3
BATCH_SIZE = 1024
"""Histories per gradient step."""
TEMPERATURES = tuple(2.0 ** (step / 4) for step in range(25))
"""1 to 64, in steps of a fourth of an octave."""


class InferenceModel(nn.Module):
    """A classifier of track histories, of `feature_dim` columns, into K codes."""

    mean: Tensor  # (feature_dim,)
    std: Tensor  # (feature_dim,)
    temperature: Tensor  # ()

    def __init__(self, feature_dim: int, num_codes: int, config: InferenceConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("std", torch.ones(feature_dim))
        self.register_buffer("temperature", torch.ones(()))
        self.network = make_mlp((feature_dim * config.history_steps, *config.hidden_sizes, num_codes), "mish")

    def fit_scale(self, features: Tensor, valid: Tensor) -> None:
        """Takes the normalisation from features (T + 1, N, feature_dim) where valid (T + 1, N)."""
        seen = features[valid]
        self.mean.copy_(seen.mean(dim=0))
        std = seen.std(dim=0)
        if self.config.scale == "shared":
            std = std.square().mean().sqrt().expand_as(std)
        self.std.copy_(std.clamp(min=1e-6))

    def normalise(self, features: Tensor) -> Tensor:
        """Features (..., feature_dim) at unit scale."""
        return (features - self.mean) / self.std

    def histories(self, features: Tensor, spacing: int = 1) -> Tensor:
        """What the model sees at each decision, (T + 1, N, history_steps * feature_dim), normalised, newest first.

        Of raw track columns (T + 1, N, feature_dim) the first row repeats before the start. `spacing` is their rows
        per policy step, the unit of HISTORY_STRIDE.
        """
        scaled = self.normalise(features)
        lag = spacing * HISTORY_STRIDE * torch.arange(self.config.history_steps, device=features.device)
        now = torch.arange(len(features), device=features.device)
        picked = scaled[(now[:, None] - lag).clamp(min=0)]  # (T + 1, history_steps, N, feature_dim)
        return picked.transpose(1, 2).flatten(start_dim=2)

    def log_prob(self, histories: Tensor) -> Tensor:
        """log q(z|h) of every code: histories (..., history_dim) to (..., num_codes)."""
        return F.log_softmax(self.network(histories) / self.temperature, dim=-1)

    def loss(self, histories: Tensor, code: Tensor, generator: torch.Generator) -> Tensor:
        """Cross-entropy on histories (B, history_dim) with input noise, against code (B,)."""
        noise = torch.randn(histories.shape, generator=generator, device=histories.device)
        return F.cross_entropy(self.network(histories + self.config.input_noise * noise) / self.temperature, code)

    @torch.no_grad()
    def calibrate(self, histories: Tensor, code: Tensor) -> None:
        """Sets the temperature at which the model is as sure as it is right.

        A model taught by hindsight has seen every episode obey its code. Played by command, some don't, and an
        over-confident q makes of them a large negative log-ratio. One temperature, fitted to the histories
        (M, history_dim) of commanded episodes and the codes (M,) that commanded them, keeps the ranking and mends the
        scale (Guo et al. 2017, arXiv 1706.04599).
        """
        logits = self.network(histories)
        losses = torch.stack([F.cross_entropy(logits / scale, code) for scale in TEMPERATURES])
        self.temperature.fill_(TEMPERATURES[int(losses.argmin())])


def make_optimizer(model: InferenceModel) -> torch.optim.Adam:
    """Adam over a model's parameters."""
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)


def train_inference(
    model: InferenceModel,
    optimizer: torch.optim.Optimizer,
    histories: Tensor,
    code: Tensor,
    steps: int,
    generator: torch.Generator,
) -> float:
    """Takes `steps` gradient steps on random batches of histories (M, history_dim) and their codes (M,).

    Returns the mean loss in nats (0 if no step was taken).
    """
    total = torch.zeros((), device=histories.device)
    for _ in range(steps):
        batch = torch.randint(len(histories), (BATCH_SIZE,), generator=generator, device=histories.device)
        loss = model.loss(histories[batch], code[batch], generator)
        descend(optimizer, loss)
        total += loss.detach()
    return float(total) / max(steps, 1)


def fit_inference(inference: InferenceModel, histories: Tensor, code: Tensor, generator: torch.Generator) -> None:
    """Teaches an inference model which behaviour (M,) each history (M, history_dim) belongs to, all equally often.

    Takes `config.fit_steps` gradient steps.
    """
    optimizer = make_optimizer(inference)
    for rows in draw_balanced(code, BATCH_SIZE, inference.config.fit_steps, generator):
        descend(optimizer, inference.loss(histories[rows], code[rows], generator))


def draw_balanced(code: Tensor, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches (B,) of row numbers, with replacement, in which every code that occurs is equally likely.

    `code` (M,) int64 is that of each row, M >= 1; there are as many batches as `steps`.
    """
    order = code.argsort(stable=True)  # rows of one code after the other
    counts = torch.unique(code, return_counts=True)[1]  # (K',) of the codes that occur
    firsts = counts.cumsum(0) - counts
    for _ in range(steps):
        group = torch.randint(len(counts), (batch_size,), generator=generator, device=code.device)
        share = torch.rand(batch_size, generator=generator, device=code.device, dtype=torch.float64)
        yield order[firsts[group] + (share * counts[group]).long()]


# ---- The intrinsic reward log q_φ(z|h) − log p(z), and the multimodality it adds up to ----
#
# Source: BMD (arXiv 2605.11387): r_int = log q_φ(z|s) − log p(z) with p uniform; its mean over held-out episodes
# is the proxy M, a lower bound of the mutual information I(Z;S) in nats.


def compute_log_ratio(log_q: Tensor, code: Tensor) -> Tensor:
    """log q(z|h) − log p(z) of the code (N,) that was played, (T + 1, N), at most ln K.

    `log_q` (T + 1, N, K) are the log-probabilities of all codes.
    """
    played = log_q.gather(2, code.expand(len(log_q), -1)[..., None]).squeeze(2)
    return played + math.log(log_q.shape[-1])


def compute_intrinsic_reward(log_ratio: Tensor, active_mask: Tensor, form: Literal["per_step", "telescoped"]) -> Tensor:
    """Intrinsic reward of each decision.

    `per_step` pays the log-ratio after each decision, as published. Success ends the episode and with it this reward,
    so the agent may learn to delay success. `telescoped` (ours) pays its increase: an episode's sum is its last
    log-ratio, however long it took.

    Entry t of log_ratio (T + 1, N) is taken before decision t. The reward (T, N) is zero where none was taken.
    """
    reward = log_ratio[1:]
    if form == "telescoped":
        # nothing is known of the code before the first decision: q(z|h_0) = p(z) by definition
        reward = reward - torch.cat([torch.zeros_like(log_ratio[:1]), log_ratio[1:-1]])
    return reward * active_mask


def compute_multimodality(log_ratio: Tensor, active_mask: Tensor) -> tuple[Tensor, Tensor]:
    """M per episode (N,) in nats, from log_ratio (T + 1, N): mean over its visited states, and at its last one.

    active_mask (T, N) says which decisions were taken.
    """
    decisions = active_mask.sum(dim=0)  # (N,)
    mean = (log_ratio[1:] * active_mask).sum(dim=0) / decisions.clamp(min=1)
    return mean, log_ratio.gather(0, decisions[None]).squeeze(0)
