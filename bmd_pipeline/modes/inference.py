"""The inference model q_φ(z|h): which mode code produced this stretch of track?

Source: BMD (arXiv 2605.11387), after DIAYN. The published model sees single states (`history_steps` 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.schema import InferenceConfig
from bmd_pipeline.policies.networks import make_mlp

TEMPERATURES = tuple(2.0 ** (step / 4) for step in range(25))
"""1 to 64, in steps of a fourth of an octave."""


class InferenceModel(nn.Module):
    """A classifier of track histories.

    Args:
        feature_dim: track columns it sees.
        num_codes: K.
        config: history, widths, nonlinearity and input noise.
    """

    mean: Tensor  # (feature_dim,)
    std: Tensor  # (feature_dim,)
    temperature: Tensor  # ()

    def __init__(self, feature_dim: int, num_codes: int, config: InferenceConfig) -> None:
        super().__init__()
        self.config = config
        self.num_codes = num_codes
        self.feature_dim = feature_dim
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("std", torch.ones(feature_dim))
        self.register_buffer("temperature", torch.ones(()))
        self.network = make_mlp(
            (feature_dim * config.history_steps, *config.hidden_sizes, num_codes), config.activation
        )

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
        """What the model sees at each decision.

        Args:
            features: (T + 1, N, feature_dim) raw track columns; before the start the first one repeats.
            spacing: rows of features per policy step, the unit of `history_stride`.

        Returns:
            (T + 1, N, history_steps * feature_dim), normalised, newest first.
        """
        scaled = self.normalise(features)
        lag = spacing * self.config.history_stride * torch.arange(self.config.history_steps, device=features.device)
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
        over-confident q makes of them a large negative log-ratio. One temperature, fitted to commanded episodes,
        keeps the ranking and mends the scale (Guo et al. 2017, arXiv 1706.04599).

        Args:
            histories: (M, history_dim) of commanded episodes.
            code: (M,) the codes that were commanded.
        """
        logits = self.network(histories)
        losses = torch.stack([F.cross_entropy(logits / scale, code) for scale in TEMPERATURES])
        self.temperature.fill_(TEMPERATURES[int(losses.argmin())])


def train_inference(
    model: InferenceModel,
    optimizer: torch.optim.Optimizer,
    histories: Tensor,
    code: Tensor,
    steps: int,
    generator: torch.Generator,
) -> float:
    """Takes `steps` gradient steps on random batches; returns the mean loss in nats (0 if no step was taken).

    Args:
        model: the inference model.
        optimizer: over its parameters.
        histories: (M, history_dim).
        code: (M,).
        steps: gradient steps.
        generator: draws batches and input noise.
    """
    total = torch.zeros((), device=histories.device)
    for _ in range(steps):
        batch = torch.randint(len(histories), (model.config.batch_size,), generator=generator, device=histories.device)
        loss = model.loss(histories[batch], code[batch], generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
    return float(total) / max(steps, 1)
