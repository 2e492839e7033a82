"""Held noise: which episode-constant noise brings about which behaviour.

Ours, for tasks with contact, where noise drawn anew for every chunk averages out. A few slow noise
coordinates u are drawn once an episode and held until the behaviour is committed. The selector learns
p(z|s_0,u) from such episodes and turns a wanted code z into a u.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.discover import CommitConfig
from bmd_pipeline.policies.networks import make_mlp

HIDDEN = (64, 64)
CANDIDATES = 512
EVALUATION_INTERVAL = 20


class NoiseSelector(nn.Module):
    """An ensemble of classifiers p(z|s_0,u), one per cross-validation fold.

    Args:
        cond_dim: size of the condition at the episode's start.
        noise_dim: held coordinates.
        num_codes: K.
        config: search radius, penalty, folds.
    """

    candidates: Tensor  # (M, noise_dim), inside the search radius

    def __init__(self, cond_dim: int, noise_dim: int, num_codes: int, config: CommitConfig) -> None:
        super().__init__()
        self.config = config
        self.noise_dim = noise_dim
        self.members = nn.ModuleList(
            make_mlp((cond_dim + noise_dim, *HIDDEN, num_codes), "silu") for _ in range(config.folds)
        )
        generator = torch.Generator().manual_seed(0)
        draws = torch.randn(CANDIDATES, noise_dim, generator=generator) * (config.max_norm / 2.0)
        length = draws.norm(dim=1, keepdim=True)
        draws = draws * (config.max_norm / length.clamp(min=config.max_norm))
        self.register_buffer("candidates", draws, persistent=False)

    def log_prob(self, start: Tensor, u: Tensor) -> Tensor:
        """log p(z|s_0,u) of the ensemble: start (B, cond_dim), u (B, noise_dim) to (B, num_codes)."""
        x = torch.cat([start, u], dim=1)
        votes = torch.stack([F.log_softmax(member(x), dim=-1) for member in self.members])
        return votes.logsumexp(dim=0) - math.log(len(self.members))

    @torch.no_grad()
    def choose(self, start: Tensor, code: Tensor) -> Tensor:
        """The held noise for each wanted code: argmax of log p(z|s_0,u) − α|u|²/2.

        Picking the best candidate, not a likely one, matters: averaging over all u that led to z gives none of them.

        Args:
            start: (B, cond_dim).
            code: (B,).

        Returns:
            (B, noise_dim).
        """
        count, total = len(start), len(self.candidates)
        log_prob = self.log_prob(start.repeat_interleave(total, dim=0), self.candidates.repeat(count, 1)).view(
            count, total, -1
        )
        wanted = log_prob.gather(2, code[:, None, None].expand(-1, total, 1)).squeeze(2)
        penalty = 0.5 * self.config.norm_penalty * self.candidates.square().sum(dim=1)
        return self.candidates[(wanted - penalty).argmax(dim=1)]


def train_selector(
    selector: NoiseSelector, start: Tensor, u: Tensor, code: Tensor, generator: torch.Generator
) -> tuple[float, float]:
    """Fits each member on all folds but its own, and keeps its best step there.

    Args:
        selector: the ensemble, trained in place.
        start: (N, cond_dim) conditions at the start of the episodes.
        u: (N, noise_dim) the noise held.
        code: (N,) the behaviour that came of it.
        generator: splits folds, draws batches and input noise.

    Returns:
        held-out negative log-likelihood (nats) and accuracy, means over folds.
    """
    order = torch.randperm(len(start), generator=generator, device=start.device)
    folds = order.tensor_split(selector.config.folds)  # chunk may make fewer
    losses, accuracies = [], []
    for index, (member, held) in enumerate(zip(selector.members, folds, strict=True)):
        rest = torch.cat([fold for other, fold in enumerate(folds) if other != index])
        loss, accuracy = _train_member(member, selector.config, (start, u, code), rest, held, generator)
        losses.append(loss)
        accuracies.append(accuracy)
    return sum(losses) / len(losses), sum(accuracies) / len(accuracies)


def _train_member(
    member: nn.Module,
    config: CommitConfig,
    data: tuple[Tensor, Tensor, Tensor],
    rest: Tensor,
    held: Tensor,
    generator: torch.Generator,
) -> tuple[float, float]:
    start, u, code = data
    optimizer = torch.optim.AdamW(member.parameters(), lr=2e-3, weight_decay=1e-2)
    best_loss, best_accuracy, best_weights = math.inf, 0.0, member.state_dict()
    for step in range(1, config.selector_steps + 1):
        batch = rest[torch.randint(len(rest), (256,), generator=generator, device=rest.device)]
        x = torch.cat([_jitter(start[batch], 0.03, generator), _jitter(u[batch], 0.1, generator)], dim=1)
        loss = F.cross_entropy(member(x), code[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % EVALUATION_INTERVAL == 0 or step == config.selector_steps:
            with torch.no_grad():
                logits = member(torch.cat([start[held], u[held]], dim=1))
                held_loss = float(F.cross_entropy(logits, code[held]))
                accuracy = float((logits.argmax(dim=1) == code[held]).float().mean())
            if held_loss < best_loss:
                best_loss, best_accuracy = held_loss, accuracy
                best_weights = {name: value.clone() for name, value in member.state_dict().items()}
    member.load_state_dict(best_weights)
    return best_loss, best_accuracy


def _jitter(x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    return x + scale * torch.randn(x.shape, generator=generator, device=x.device)
