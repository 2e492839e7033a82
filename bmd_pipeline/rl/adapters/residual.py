"""RES: a bounded correction of every action of the frozen policy.

Source: Policy Decorator (arXiv 2412.13630): the residual sees the state and the policy's action at every control step,
is bounded by a scale, and exploration begins progressively.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.schema import PPOConfig, ResidualConfig
from bmd_pipeline.policies.gaussian import gaussian_entropy, gaussian_log_prob
from bmd_pipeline.policies.networks import make_mlp
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation, TrustRegion

LOG_STD_RANGE = (-4.0, 1.0)


class ResidualAction(Adapter):
    """action + scale · tanh(u), with u from a Gaussian that sees the condition, the action and the mode code.

    It acts at every control step, between two looks of the policy too. While exploration progresses, a step uses the
    residual with a probability that grows from 0 to 1; steps without it carry no gradient.

    Args:
        cond_dim: size of the policy's condition.
        action_dim: size of an action.
        num_codes: mode codes K; 1 means that there is none to look at.
        config: scale, widths, starting spread, schedule.
        ppo: what its trust region shares with other links.
    """

    num_factors = 1
    share: Tensor  # () of the steps that use the residual while exploring; a CUDA graph reads it

    def __init__(self, cond_dim: int, action_dim: int, num_codes: int, config: ResidualConfig, ppo: PPOConfig) -> None:
        super().__init__()
        self.entropy_dims = action_dim
        self.num_codes = num_codes
        self.scale = config.scale
        self.progressive_iterations = config.progressive_iterations
        self.trust_region = TrustRegion(config.learning_rate, ppo.clip_ratio, ppo.target_kl)
        self.register_buffer("share", torch.ones(()), persistent=False)
        inputs = cond_dim + action_dim + (num_codes if num_codes > 1 else 0)
        self.network = make_mlp((inputs, *config.hidden_sizes, action_dim), "silu")
        self.log_std = nn.Parameter(torch.full((action_dim,), config.initial_std).log())
        last = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.zero_()

    def begin_iteration(self, iteration: int) -> None:
        """Sets the share of steps that use the residual while exploring."""
        done = (iteration + 1) / self.progressive_iterations if self.progressive_iterations else 1.0
        self.share.fill_(min(1.0, done))

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Corrects a normalised action x (B, action_dim)."""
        mean = self._mean(x, situation)
        used = torch.ones(len(x), 1, device=x.device)
        u = mean
        if explore:
            log_std = self._log_std()
            u = mean + log_std.exp() * torch.randn(mean.shape, generator=generator, device=mean.device)
            used = (torch.rand(used.shape, generator=generator, device=x.device) < self.share).to(x.dtype)
        return x + used * self.scale * torch.tanh(u), {"action": x, "u": u, "used": used}

    def evaluate(self, record: Record, situation: Situation) -> tuple[Tensor, Tensor]:
        """log N(u), (B, 1), zero where the residual was not used, and the entropy (B,) of u in nats."""
        log_std = self._log_std()
        log_prob = gaussian_log_prob(record["u"], self._mean(record["action"], situation), log_std)
        return log_prob[:, None] * record["used"], gaussian_entropy(log_std).expand(len(situation.cond))

    def _mean(self, action: Tensor, situation: Situation) -> Tensor:
        parts = [situation.cond, action]
        if self.num_codes > 1:
            parts.append(F.one_hot(situation.code, self.num_codes).to(action.dtype))
        mean: Tensor = self.network(torch.cat(parts, dim=1))
        return mean

    def _log_std(self) -> Tensor:
        return self.log_std.clamp(*LOG_STD_RANGE)

    def trainable(self) -> list[nn.Parameter]:
        """The residual network and its spread."""
        return list(self.parameters())
