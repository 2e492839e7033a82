"""Proximal policy optimisation on recorded decisions: advantages, critic, loss and update."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.schema import KL_STOP, PPOConfig
from bmd_pipeline.errors import DivergenceError
from bmd_pipeline.policies.networks import STD_FLOOR, code_inputs, count_code_inputs, make_mlp
from bmd_pipeline.rl.adapters import Draws, PolicyInput, TrustRegion
from bmd_pipeline.rl.agent import Agent

# ---- Generalised advantage estimation ----
#
# Source: Schulman et al. 2016 (arXiv 1506.02438).


def compute_gae(
    reward: Tensor,
    value: Tensor,
    nonterminal: Tensor,
    bootstrap: Tensor,
    gamma: Tensor | float,
    gae_lambda: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of several reward streams at once.

    δ_t = r_t + γ·b_t·V_{t+1} − V_t and A_t = δ_t + γλ·g_t·A_{t+1}.

    Args:
        reward: (T, N, S) reward of each decision, in S streams.
        value: (T + 1, N, S).
        nonterminal: (T, N) g_t, whether the same episode takes another decision.
        bootstrap: (T, N) b_t, whether the next state's value counts: where the episode goes on, and at the time
            limit of a continuing task.
        gamma: discount, one or (S,).
        gae_lambda: λ of the estimator, one or (S,).

    Returns:
        advantage and return (T, N, S). Entries of decisions that were not taken mean nothing.
    """
    delta = reward + gamma * value[1:] * bootstrap[..., None] - value[:-1]
    decay = gamma * gae_lambda * nonterminal[..., None]
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        running = delta[t] + decay[t] * running
        advantage[t] = running
    return advantage, advantage + value[:-1]


def compute_continuation(active_mask: Tensor, truncated: Tensor, continuing: bool) -> tuple[Tensor, Tensor]:
    """Which decisions are followed by another, and over which to bootstrap.

    A task's time limit is part of the task: its end is terminal unless the task is continuing. At a limit that is part
    of the task, bootstrapping would use values of states that the critic never trains on; see `Critic` for the other.

    Args:
        active_mask: (T, N) whether each decision was taken.
        truncated: (N,) episodes that a time limit ended: the task's, or a curriculum's.
        continuing: whether the task says that its time limit is an artefact.

    Returns:
        nonterminal and bootstrap, (T, N) float.
    """
    nonterminal = torch.cat([active_mask[1:], torch.zeros_like(active_mask[:1])])
    bootstrap = nonterminal
    if continuing:
        last = active_mask & ~nonterminal
        bootstrap = nonterminal | (last & truncated)
    return nonterminal.float(), bootstrap.float()


# ---- The value function ----


class Critic(nn.Module):
    """V(s, track, z, t), one head per reward stream. Where there is one code alone, it sees none.

    It sees the whole track, which a reward may depend on where the policy's observation doesn't show it; so do the
    critics of methods with and without codes, so that comparing them is fair.

    Where the time limit is part of the task, the time left is part of the state. The critic of a continuing task does
    not see the time. Its targets bootstrap from the observation at the limit, at which no training row begins; without
    time among its inputs it knows that value from earlier steps of other episodes; with time, it would extrapolate.

    Source: Pardo et al. 2018 (arXiv 1712.00378), time-awareness and partial-episode bootstrapping.
    """

    track_mean: Tensor  # (track_dim,)
    track_std: Tensor  # (track_dim,)
    scaled: Tensor  # () whether they have been fitted

    def __init__(
        self,
        cond_dim: int,
        track_dim: int,
        num_codes: int,
        num_streams: int,
        hidden_sizes: tuple[int, ...],
        *,
        sees_time: bool = True,
    ) -> None:
        super().__init__()
        self.sees_time = sees_time
        self.num_codes = num_codes
        self.num_streams = num_streams
        self.register_buffer("track_mean", torch.zeros(track_dim))
        self.register_buffer("track_std", torch.ones(track_dim))
        self.register_buffer("scaled", torch.zeros((), dtype=torch.bool))
        inputs = cond_dim + track_dim + int(sees_time) + count_code_inputs(num_codes)
        self.network = make_mlp((inputs, *hidden_sizes, num_streams), "silu")

    def fit_scale(self, track: Tensor, active_mask: Tensor, *, last: bool = True) -> None:
        """Takes the scale of the raw track (T + 1, N, track_dim) where decisions were taken, unless it has been fixed.

        `last` fixes it. Not so while a curriculum cuts episodes short: what lies beyond the cut has not been seen.
        """
        if bool(self.scaled):
            return
        seen = track[1:][active_mask]
        std = seen.std(dim=0)
        self.track_mean.copy_(seen.mean(dim=0))
        self.track_std.copy_(torch.where(std < STD_FLOOR, torch.ones_like(std), std))
        self.scaled.fill_(last)

    def inputs(
        self, cond: Tensor, track: Tensor, code: Tensor, horizon_decisions: int, cut_decisions: int = 0
    ) -> Tensor:
        """What the critic sees at every decision, and after the last.

        Args:
            cond: (T + 1, N, cond_dim).
            track: (T + 1, N, track_dim), raw.
            code: (N,).
            horizon_decisions: decisions in an episode of full length.
            cut_decisions: by how many these episodes were shorter; their clock starts so much later.

        Returns:
            (T + 1, N, input_dim).
        """
        length, count = cond.shape[:2]
        parts = [cond, (track - self.track_mean) / self.track_std]
        if self.sees_time:
            time = (cut_decisions + torch.arange(length, device=cond.device)) / horizon_decisions
            parts.append(time[:, None, None].expand(length, count, 1).to(cond.dtype))
        parts.append(code_inputs(code, self.num_codes).expand(length, -1, -1))
        return torch.cat(parts, dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Values (..., num_streams) of inputs (..., input_dim)."""
        values: Tensor = self.network(inputs)
        return values


# ---- Proximal policy optimisation on recorded decisions ----
#
# Source: Schulman et al. 2017 (arXiv 1707.06347). A decision may consist of several draws (factors), each with a
# probability ratio of its own, as in the two-layer process of DPPO (arXiv 2409.00588).

LOG_RATIO_RANGE = (-10.0, 3.0)
"""Bounds of a draw's log ratio. The KL estimate grows with the ratio, so that one rarely seen state of 256 can read as
e^10 / 256 = 86 nats; and at a negative advantage PPO does not clip large ratios, whose gradient would dominate (Ye et
al. 2020, arXiv 1912.09729)."""
RATE_FACTOR = 1.5
"""By how much an adaptive learning rate changes after a rollout (as in rsl_rl)."""
MIN_RATE_SHARE = 0.01
"""Where an adaptive learning rate stops falling, as a share of where it began."""


@dataclass(frozen=True)
class Batch:
    """M decisions to learn from."""

    inputs: PolicyInput  # what the agent saw, (M, ...)
    draws: Draws  # each (M, ...)
    critic_inputs: Tensor  # (M, input_dim)
    log_prob: Tensor  # (M, num_factors) when they were drawn
    advantage: Tensor  # (M,) standardised
    returns: Tensor  # (M, num_streams)

    def rows(self, index: Tensor) -> Self:
        """The decisions at `index`."""
        own: dict[str, Any] = {name: value[index] for name, value in vars(self).items() if isinstance(value, Tensor)}
        draws = {name: drawn[index] for name, drawn in self.draws.items()}
        return replace(self, inputs=self.inputs.rows(index), draws=draws, **own)


@dataclass(frozen=True)
class Losses:
    """Losses on some decisions, each () but kl."""

    value: Tensor  # of the critic
    policy: Tensor  # of the policy; zero where the critic alone learns
    entropy: Tensor  # mean over decisions of the policy's entropy, in nats
    penalty: Tensor  # mean over decisions of what the policy pays for having left its start
    kl: Tensor  # (num_factors,) approximate KL divergences of the policy from the one that drew


def standardise(x: Tensor) -> Tensor:
    """x (M,) at zero mean and unit standard deviation."""
    return (x - x.mean()) / (x.std() + 1e-8)


def standardise_groups(x: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """x (M, S) at zero mean and unit standard deviation within each group (M,) int64 in [0, num_groups).

    Some groups may be empty.
    """
    count = torch.bincount(group, minlength=num_groups).clamp(min=1)[:, None]  # (num_groups, 1)

    def mean_of(values: Tensor) -> Tensor:
        return values.new_zeros(num_groups, values.shape[1]).index_add(0, group, values) / count

    centred = x - mean_of(x)[group]
    variance = mean_of(centred.square()) * count / (count - 1).clamp(min=1)
    return centred / (variance.sqrt()[group] + 1e-8)


def compute_policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, factor_weights: Tensor, clip_ratio: Tensor
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate, and how far the policy has moved.

    Args:
        log_prob: (M, num_factors) under the present parameters.
        old_log_prob: (M, num_factors) when drawn.
        advantage: (M,).
        factor_weights: (num_factors,) factor on the advantage for each draw.
        clip_ratio: ε, () or (num_factors,).

    Returns:
        loss, summed over factors and averaged over decisions, and the approximate KL divergence of each factor
        (num_factors,), by the non-negative estimator (ρ − 1) − log ρ.
    """
    log_ratio = (log_prob - old_log_prob).clamp(*LOG_RATIO_RANGE)
    ratio = log_ratio.exp()
    weight = advantage[:, None] * factor_weights
    surrogate = torch.minimum(ratio * weight, ratio.clamp(1.0 - clip_ratio, 1.0 + clip_ratio) * weight)
    kl = (ratio - 1.0 - log_ratio).mean(dim=0).detach()
    return -surrogate.mean(dim=0).sum(), kl


def compute_value_loss(value: Tensor, returns: Tensor) -> Tensor:
    """Half the squared error of values (M, num_streams) against returns (M, num_streams), summed over streams."""
    return 0.5 * F.mse_loss(value, returns, reduction="none").mean(dim=0).sum()


MAX_KL = 5.0
"""Largest approximate KL in nats of an update; beyond it the update has diverged. Where an adapter's target_kl is above
half of it, twice that target."""
MAX_VALUE_ERROR = 100.0
"""Largest mean squared error of the critic, as a multiple of 1 + the mean square of the returns."""
MAX_GRAD_NORM = 1.0
"""Bound on the gradient norm of each parameter group by itself: one shared bound starves a network."""
TEMPERATURE_STEP = 1.0
"""Change of log α per update and nat per dimension that the entropy is off its target."""
TEMPERATURE_RANGE = (1e-4, 1.0)
"""Bounds of α, the weight of the entropy bonus that holds a target."""


class PPO:
    """Updates an agent and its critic.

    Each adapter of the agent that learns is a group of its own: it stops at its own KL bound, with its own learning
    rate, whatever the others do. The settings are for adapters without a trust region of their own.
    """

    def __init__(self, agent: Agent, critic: Critic, config: PPOConfig) -> None:
        self.agent = agent
        self.critic = critic
        self.config = config
        self.groups: list[list[nn.Parameter]] = [*agent.trainable(), list(critic.parameters())]
        device = next(critic.parameters()).device
        own = TrustRegion(config.learning_rate, config.clip_ratio, config.target_kl)
        trained = agent.trained_adapters()
        regions = [adapter.trust_region or own for adapter in trained]
        self.target_kls = [region.target_kl for region in regions]
        self.max_kl = max([MAX_KL, *(2.0 * target for target in self.target_kls)])
        self.factor_weights = torch.tensor(agent.factor_weights, device=device)
        self._factors = [adapter.num_factors for adapter in trained]
        clips = [region.clip_ratio for region, count in zip(regions, self._factors, strict=True) for _ in range(count)]
        self.clip_ratios = torch.tensor(clips, device=device)  # (num_factors,)
        self.target_entropy = agent.target_entropy
        self.entropy_dims = max(1, agent.entropy_dims)
        self._entropy_weight = torch.tensor(config.entropy_weight, device=device)  # a CUDA graph reads it
        self._no_kl = torch.zeros(len(self.factor_weights), device=device)
        self.temperature = 0.0  # α, the weight of the entropy bonus where the agent has a target for it, else 0
        if self.target_entropy is not None:
            self.set_temperature(TEMPERATURE_RANGE[0])
        rates = [*(region.learning_rate for region in regions), config.value_learning_rate]
        self.optimizer = torch.optim.Adam(
            [{"params": group, "lr": rate, "initial_lr": rate} for group, rate in zip(self.groups, rates, strict=True)],
            eps=1e-5,
            fused=True,
        )

    def update(self, batch: Batch, generator: torch.Generator, *, policy: bool = True) -> dict[str, float]:
        """Several epochs over a batch, which the generator shuffles.

        Once the approximate KL of any of an adapter's draws passes `KL_STOP` times its target, that adapter stops and
        the others go on. With `policy` False the critic alone learns.

        Returns:
            losses and diagnostics, means over minibatches; `losses/approx_kl` is the highest of the update,
            `losses/kl_share` the highest as a share of its adapter's target, `losses/kl_stopped` 1 if an adapter
            stopped early because of it, `losses/policy_steps` the steps of the one that took most, and
            `losses/learning_rate` that of the first in this update.

        Raises:
            DivergenceError: the update ran away; agent and critic are then as they happen to be.
        """
        config = self.config
        count, device = len(batch.advantage), batch.advantage.device
        allowed = MAX_VALUE_ERROR * (1.0 + float(batch.returns.square().mean()))
        groups = len(self.target_kls)
        going, taken, peaks = [policy] * groups, [0] * groups, [0.0] * groups  # of each adapter that learns
        kl = torch.zeros(len(self.factor_weights), device=device)
        norm = torch.zeros((), device=device)
        rate = self.optimizer.param_groups[0]["lr"]
        value_losses, policy_losses, entropies, penalties = [], [], [], []
        last = torch.arange(0)
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=generator, device=device)
            for index in torch.split(order, config.minibatch_size):
                if len(index) < min(count, config.minibatch_size) // 2:
                    continue  # the remainder of an epoch is too noisy to step on
                last, learns = index, any(going)
                losses = self._differentiate(batch, index, policy=learns)
                value_losses.append(losses.value)
                kl = losses.kl if learns else kl
                highest = self._require_sound(losses, allowed, kl, norm)
                if learns:  # whoever moved too far in the steps before takes no further one
                    peaks = [max(pair) for pair in zip(peaks, highest, strict=True)]
                    going = [
                        on and nats <= KL_STOP * target
                        for on, nats, target in zip(going, highest, self.target_kls, strict=True)
                    ]
                if any(going):
                    policy_losses.append(losses.policy)
                    entropies.append(losses.entropy)
                    penalties.append(losses.penalty)
                    taken = [steps + on for steps, on in zip(taken, going, strict=True)]
                norm = self._step(going)
        with torch.no_grad():  # the last step counts too
            losses = self.compute_losses(batch.rows(last), policy=any(taken))
            highest = self._require_sound(losses, allowed, losses.kl if any(taken) else kl, norm)
            peaks = [max(pair) for pair in zip(peaks, highest, strict=True)]
        if policy and config.learning_rate_schedule == "adaptive":
            self._adapt_rates(peaks, going, [steps / len(value_losses) for steps in taken])
        metrics = {
            "losses/value": _mean(value_losses),
            "losses/policy": _mean(policy_losses),
            "losses/entropy": _mean(entropies),
            "losses/penalty": _mean(penalties),
            "losses/approx_kl": max(peaks, default=0.0),
            "losses/kl_share": max((kl / aim for kl, aim in zip(peaks, self.target_kls, strict=True)), default=0.0),
            "losses/kl_stopped": float(policy and not all(going)),
            "losses/policy_steps": float(max(taken, default=0)),
            "losses/learning_rate": rate,
        }
        if self.target_entropy is not None and entropies:
            metrics["losses/temperature"] = self.temperature
            missing = (self.target_entropy - metrics["losses/entropy"]) / self.entropy_dims
            self.set_temperature(self.temperature * math.exp(TEMPERATURE_STEP * missing))
        return metrics

    def set_temperature(self, temperature: float) -> None:
        """Sets α, within its bounds."""
        low, high = TEMPERATURE_RANGE
        self.temperature = min(max(temperature, low), high)
        self._entropy_weight.fill_(self.config.entropy_weight + self.temperature)

    def _adapt_rates(self, peaks: list[float], going: list[bool], taken: list[float]) -> None:
        """Fits each adapter's learning rate to how far it moved on a rollout.

        `peaks` are its highest approximate KL divergences in the update, in nats, `going` says whether it went on to
        the end, or else its KL bound stopped it, and `taken` is the share of the steps that it took.
        """
        groups = self.optimizer.param_groups[:-1]  # the last one is the critic's
        for group, peak, on, share, target in zip(groups, peaks, going, taken, self.target_kls, strict=True):
            factor = 1.0
            if not on and share < 0.5:
                factor = 1.0 / RATE_FACTOR
            elif on and peak < 0.5 * target:
                factor = RATE_FACTOR
            highest = group["initial_lr"]
            group["lr"] = min(highest, max(MIN_RATE_SHARE * highest, factor * group["lr"]))

    def compute_losses(self, part: Batch, *, policy: bool) -> Losses:
        """Losses on some decisions; without the policy's, those are zero."""
        value_loss = compute_value_loss(self.critic(part.critic_inputs), part.returns)
        if not policy:
            none = torch.zeros_like(value_loss)
            return Losses(value_loss, none, none, none, self._no_kl)
        log_prob, entropy, penalty = self.agent.evaluate(part.draws, part.inputs)
        policy_loss, kl = compute_policy_loss(
            log_prob, part.log_prob, part.advantage, self.factor_weights, self.clip_ratios
        )
        return Losses(value_loss, policy_loss, entropy.mean(), penalty.mean(), kl)

    def _differentiate(self, batch: Batch, index: Tensor, *, policy: bool) -> Losses:
        """Losses on the decisions at `index`; their gradients are the parameters' afterwards."""
        return self._backward(batch.rows(index), policy=policy)

    def _backward(self, part: Batch, *, policy: bool) -> Losses:
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.compute_losses(part, policy=policy)
        loss = losses.value
        if policy:
            loss = losses.value + losses.policy + losses.penalty
            if self.target_entropy is not None or self.config.entropy_weight > 0.0:
                loss = loss - self._entropy_weight * losses.entropy
        loss.backward()  # type: ignore[no-untyped-call]
        return Losses(**{name: tensor.detach() for name, tensor in vars(losses).items()})

    def _require_sound(self, losses: Losses, allowed: float, kl: Tensor, norm: Tensor) -> list[float]:
        """Refuses an update that runs away; returns the highest KL divergence of each adapter that learns.

        All numbers are read at once, since a device has to finish its work whenever the host reads from it.

        Args:
            losses: of some decisions.
            allowed: the largest mean squared error of the critic.
            kl: (num_factors,) approximate KL divergences of the policy, the latest that are known.
            norm: () largest norm of a group's gradient in the step before.
        """
        loss = losses.value + losses.policy + losses.penalty
        numbers = torch.cat([torch.stack([losses.value, loss, norm]), kl])
        value_loss, total, gradient, *nats = numbers.tolist()
        value_error = 2.0 * value_loss / self.critic.num_streams
        if not math.isfinite(gradient):
            raise DivergenceError(f"a gradient's norm is {gradient}")
        if not value_error <= allowed:  # not so for NaN either
            raise DivergenceError(
                f"the critic's squared error is {value_error:.3g}, more than {allowed:.3g}; "
                "lower finetune.ppo.value_learning_rate if this happens again"
            )
        if bad := [value for value in nats if not value <= self.max_kl]:
            raise DivergenceError(f"the approximate KL is {bad[0]:.3g} nats, more than {self.max_kl:g}")
        if not math.isfinite(total):
            raise DivergenceError(f"the loss is {total}")
        rest = iter(nats)
        return [max(itertools.islice(rest, count)) for count in self._factors]

    def _step(self, going: list[bool]) -> Tensor:
        """One step of the optimiser; returns the largest norm of a group's gradient, before clipping.

        An adapter that has stopped is left as it is; the critic, the last group, always learns.
        """
        trained = []
        for group, on in zip(self.groups, [*going, True], strict=True):
            if on:
                trained.append(group)
                continue
            for parameter in group:
                parameter.grad = None  # the optimiser passes over what has none
        norms = [nn.utils.clip_grad_norm_(group, MAX_GRAD_NORM, foreach=True) for group in trained]
        self.optimizer.step()
        return torch.stack(norms).max()


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean()) if values else 0.0
