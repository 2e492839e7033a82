"""RES: a bounded correction on top of the frozen policy's chunk.

Source: Policy Decorator (arXiv 2412.13630): the residual is bounded by a scale, and exploration begins progressively.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bmd_pipeline.config.finetune import ResidualConfig
from bmd_pipeline.policies.gaussian import gaussian_entropy, gaussian_log_prob
from bmd_pipeline.policies.networks import make_mlp
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation

LOG_STD_RANGE = (-4.0, 1.0)


class ResidualAction(Adapter):
    """chunk + scale · tanh(u), with u from a Gaussian that sees the condition and the chunk.

    While exploration progresses, a decision uses the residual with a probability that grows from 0 to 1; decisions
    without it carry no gradient.

    Args:
        cond_dim: size of the policy's condition.
        noise_dim: size of a chunk.
        executed_dim: size of its part that is executed; what nobody executes must not count as likely or unlikely.
        config: scale, widths, starting spread, schedule.
    """

    num_factors = 1
    share: Tensor  # () of the decisions that use the residual while exploring; a CUDA graph reads it

    def __init__(self, cond_dim: int, noise_dim: int, executed_dim: int, config: ResidualConfig) -> None:
        super().__init__()
        self.executed_dim = self.entropy_dims = executed_dim
        self.scale = config.scale
        self.progressive_iterations = config.progressive_iterations
        self.learning_rate = config.learning_rate
        self.register_buffer("share", torch.ones(()), persistent=False)
        self.network = make_mlp((cond_dim + noise_dim, *config.hidden_sizes, noise_dim), "silu")
        self.log_std = nn.Parameter(torch.full((noise_dim,), config.initial_std).log())
        last = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.zero_()

    def begin_iteration(self, iteration: int) -> None:
        """Sets the share of decisions that use the residual while exploring."""
        self.share.fill_(min(1.0, iteration / self.progressive_iterations) if self.progressive_iterations else 1.0)

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Corrects a normalised chunk x (B, noise_dim)."""
        mean = self.network(torch.cat([situation.cond, x], dim=1))
        used = torch.ones(len(x), 1, device=x.device)
        u = mean
        if explore:
            log_std = self._log_std()
            u = mean + log_std.exp() * torch.randn(mean.shape, generator=generator, device=mean.device)
            used = (torch.rand(used.shape, generator=generator, device=x.device) < self.share).to(x.dtype)
        return x + used * self.scale * torch.tanh(u), {"chunk": x, "u": u, "used": used}

    def log_prob(self, record: Record, situation: Situation) -> Tensor:
        """log N(u) of the executed part, (B, 1); zero where the residual was not used."""
        part = slice(self.executed_dim)
        mean = self.network(torch.cat([situation.cond, record["chunk"]], dim=1))
        return gaussian_log_prob(record["u"][:, part], mean[:, part], self._log_std()[part])[:, None] * record["used"]

    def entropy(self, situation: Situation) -> Tensor:
        """Entropy (B,) of u in nats."""
        return gaussian_entropy(self._log_std()[: self.executed_dim]).expand(len(situation.cond))

    def _log_std(self) -> Tensor:
        return self.log_std.clamp(*LOG_STD_RANGE)

    def trainable(self) -> list[nn.Parameter]:
        """The residual network and its spread."""
        return list(self.parameters())
