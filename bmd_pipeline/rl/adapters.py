"""Adapters: the steps from an observation to a chunk of actions, some of which learn."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bmd_pipeline.config.schema import DenoiserConfig, PPOConfig, ResidualConfig
from bmd_pipeline.modes.steering import LOG_STD_RANGE, SteeringPolicy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.external import BasePolicy
from bmd_pipeline.policies.networks import (
    code_inputs,
    count_code_inputs,
    draw_gaussian,
    gaussian_entropy,
    gaussian_kl,
    gaussian_log_prob,
    make_mlp,
)

# ---- What an adapter is: one step from an observation to a chunk of actions ----
#
# A policy acts through its adapters in turn. The first makes the noise, the next turns it into a chunk, a further
# one may correct the chunk. Each adapter draws from a distribution of its own and can say later how likely
# the draw was: PPO treats every draw as an action and knows nothing of diffusion. Cloning asks for the chunk alone.
#
# | method | noise | chunk |
# |---|---|---|
# | base policy | `GaussianNoise` | `FrozenDenoiser` |
# | dsrl | `SteeringAdapter` | `FrozenDenoiser` |
# | dppo | `GaussianNoise` | `FinetunedDenoiser` |
# | res | `GaussianNoise` | `FrozenDenoiser`, `ResidualAction` |
# | fbc | `GaussianNoise` | `ClonedDenoiser` |
#
# With `-bmd` every adapter is told the mode code: the denoiser is the coded one, steering and residual see the code. In
# the published form the denoiser has no codes, and the noise is always `SteeringAdapter`.

Draws = dict[str, Tensor]
"""What adapters drew, and what they need to compute its log-probability again, each (B, ...)."""


@dataclass(frozen=True)
class PolicyInput:
    """What an adapter may look at."""

    cond: Tensor  # (B, cond_dim) encoded observation history
    code: Tensor  # (B,) int64 mode code, the same for the whole episode

    def rows(self, index: Tensor) -> PolicyInput:
        """Those at `index`."""
        return PolicyInput(self.cond[index], self.code[index])


@dataclass(frozen=True)
class TrustRegion:
    """How far PPO may move what an adapter draws from, on one rollout."""

    learning_rate: float  # of the adapter's parameters
    clip_ratio: float  # ε; probability ratios beyond 1 ± ε earn nothing more
    target_kl: float  # the adapter stops learning once the approximate KL of one of its draws passes KL_STOP times this


class Adapter(nn.Module, ABC):
    """One step from an observation to a chunk of actions.

    What it computes may be recorded as a CUDA graph (`rl.graphs`): it must not read from the device, and what a
    schedule changes is a buffer, changed in place.
    """

    num_factors: int = 0  # draws it makes per decision; zero if it is deterministic or fixed
    factor_weights: tuple[float, ...] = ()  # factor on the advantage for each draw; empty: 1 for all
    trust_region: TrustRegion | None = None  # its own, or None for the one of PPO
    entropy_dims: int = 0  # dimensions of its draws whose spread is trained; their entropy can collapse
    target_entropy: float | None = None  # nats per decision that the spread shall not fall below, or None

    def begin_iteration(self, iteration: int) -> None:
        """Told before each training rollout, counted from 0, for those with a schedule."""

    @abstractmethod
    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        """Maps what the adapter before it made.

        Args:
            x: (B, noise_dim) noise or normalised chunk; ignored by the first adapter.
            inputs: what the policy sees.
            generator: draws.
            explore: draw as in training; if False, act as deployed.

        Returns:
            (B, noise_dim) for the next adapter, and what was drawn.
        """

    def evaluate(self, draws: Draws, inputs: PolicyInput) -> tuple[Tensor, Tensor, Tensor]:
        """How likely recorded draws are under the present parameters, how spread out such draws are, and what PPO's
        loss adds to hold the adapter at its start.

        Returns:
            log-probability (B, num_factors); entropy (B,) in nats of the draws whose spread is trained, zero if there
            are none; and that penalty (B,), zero for an adapter that is free to leave. One pass of the network serves
            all.
        """
        none = inputs.cond.new_zeros(len(inputs.cond))
        return none.new_zeros(len(none), 0), none, none

    def trainable(self) -> list[nn.Parameter]:
        """What is trained: whatever of it is not frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


# ---- Noise from the prior: what a diffusion policy was trained to start from ----


class GaussianNoise(Adapter):
    """w ~ N(0, I), of size noise_dim."""

    def __init__(self, noise_dim: int) -> None:
        super().__init__()
        self.noise_dim = noise_dim

    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        """Draws w (B, noise_dim)."""
        cond = inputs.cond
        return torch.randn(len(cond), self.noise_dim, generator=generator, device=cond.device), {}


# ---- The pre-trained or the coded policy as it is: noise in, chunk out ----


class FrozenDenoiser(Adapter):
    """The policy's own sampler (DDIM: deterministic given x and the code); nothing to train."""

    def __init__(self, policy: BasePolicy) -> None:
        super().__init__()
        self.policy = policy

    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        """Denoises x (B, noise_dim) to a normalised chunk of the same shape."""
        return self.policy.sample(x, inputs.cond, generator, inputs.code), {}


# ---- DSRL: reinforcement learning of the noise a frozen diffusion policy starts from ----
#
# Source: DSRL (arXiv 2506.15799). With mode codes it is the steering policy of BMD (arXiv 2605.11387).


class SteeringAdapter(Adapter):
    """w from the steering policy.

    Args:
        steering: π_ψ(w|s,z).
        deterministic: whether it acts by its mean when deployed, or by draws.
        target_entropy: nats per steered dimension that its spread shall not fall below; None: no bound.
    """

    num_factors = 1

    def __init__(self, steering: SteeringPolicy, deterministic: bool, target_entropy: float | None = None) -> None:
        super().__init__()
        self.steering = steering
        self.deterministic = deterministic
        self.entropy_dims = steering.basis.dim
        self.target_entropy = None if target_entropy is None else target_entropy * self.entropy_dims

    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        """Draws steered coordinates u; unsteered directions of w stay N(0, I)."""
        mean, log_std = self.steering(inputs.cond, inputs.code)
        u = mean
        if explore or not self.deterministic:
            u = draw_gaussian(mean, log_std, generator)
        basis = self.steering.basis
        rest = u.new_zeros(len(u), basis.noise_dim)
        if basis.dim < basis.noise_dim:
            rest = torch.randn(rest.shape, generator=generator, device=u.device)
        return basis.complete(u, rest), {"u": u}

    def evaluate(self, draws: Draws, inputs: PolicyInput) -> tuple[Tensor, Tensor, Tensor]:
        """log π_ψ(u|s,z), (B, 1), the entropy (B,) of π_ψ in nats, and no penalty."""
        mean, log_std = self.steering(inputs.cond, inputs.code)
        log_prob = gaussian_log_prob(draws["u"], mean, log_std)
        return log_prob[:, None], gaussian_entropy(log_std), torch.zeros_like(log_prob)


# ---- DPPO: reinforcement learning of the denoiser itself ----
#
# Source: DPPO (arXiv 2409.00588). Every denoising step is an action of a two-layer decision process: a Gaussian around
# the step's mean, with a floor under its standard deviation so that there is something to explore.


class FinetunedDenoiser(Adapter):
    """A trainable copy of the policy, which explores with more denoising noise than it acts with.

    It explores as the sampler with `config.eta` does, with a standard deviation of at least `config.noise_floor` at
    every step, and acts as the sampler with `config.acting_eta`, by default the policy's own: fine-tuning starts from
    what that policy does. The first denoising steps may stay frozen: only the last `config.steps` are draws. The policy
    that it is given, the pre-trained or the coded one, stays as it is.
    """

    spreads: Tensor  # (num_factors,) log standard deviations on the device

    def __init__(self, policy: DiffusionPolicy, config: DenoiserConfig) -> None:
        super().__init__()
        self.frozen = policy
        self.policy = copy.deepcopy(policy).requires_grad_(True)
        self.exploring = policy.make_sampler(config.eta)
        self.acting = policy.sampler if config.acting_eta is None else policy.make_sampler(config.acting_eta)
        steps = policy.config.n_action_steps if config.log_prob_steps == "executed" else policy.config.horizon
        self.counted_dim = steps * policy.action_dim
        self.scale = 1.0 / self.counted_dim if config.log_prob_reduction == "mean" else 1.0
        self.kl_weight = config.kl_weight
        self.in_bfloat16 = config.precision == "bfloat16"
        total = len(policy.timesteps)
        self.first = total - min(config.steps or total, total)
        self.num_factors = total - self.first
        self.trust_region = TrustRegion(config.learning_rate, config.clip_ratio, config.target_kl)
        self.factor_weights = tuple(config.denoising_discount ** (total - 1 - k) for k in range(self.first, total))
        self.stds = tuple(max(std, config.noise_floor) for std in self.exploring.stds[self.first :])
        spreads = torch.tensor([math.log(std) for std in self.stds], device=policy.device)
        self.register_buffer("spreads", spreads, persistent=False)

    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        """Denoises x (B, noise_dim); the draws are the samples (B, num_factors + 1, noise_dim)."""
        sampler = self.exploring if explore else self.acting
        stds = (*sampler.stds[: self.first], *(self.stds if explore else sampler.stds[self.first :]))
        frozen = self.frozen.condition(inputs.cond, inputs.code) if self.first else None
        finetuned = self.policy.condition(inputs.cond, inputs.code)
        samples = [x]
        for k, std in enumerate(stds):
            x = sampler.step_mean(x, k, finetuned if frozen is None or k >= self.first else frozen)
            if std > 0.0:
                x = torch.add(x, torch.randn(x.shape, generator=generator, device=x.device), alpha=std)
            samples.append(x)
        return x, {"samples": torch.stack(samples[self.first :], dim=1)}

    def evaluate(self, draws: Draws, inputs: PolicyInput) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability (B, num_factors) of each denoising step, no entropy, since the noise is fixed, and the
        penalty (B,) for leaving the policy that fine-tuning began with.

        Of every step only the part of the chunk counts that is executed, unless `config.log_prob_steps` says otherwise,
        and its mean over that part, unless `config.log_prob_reduction` does.

        The penalty is `config.kl_weight` times KL(present ‖ start): |μ − μ_start|² / 2σ² at the recorded sample under
        the same code, counted as the log-probability is and summed over denoising steps. Over all dimensions the sum is
        the divergence of the chains, an upper bound on that of the chunks (DPOK, arXiv 2305.16381). In this direction
        its samples are recorded anyway and its steps have a closed form; DPPO's own option is the likelihood of chains
        that the start draws (arXiv 2409.00588), ReinFlow's a Wasserstein distance between chunks (arXiv 2505.22094).
        """
        samples = draws["samples"]
        part = slice(self.counted_dim)
        factors, none = [], inputs.cond.new_zeros(len(inputs.cond))
        penalty = none
        # Products alone are rounded: the rest of what follows is float32, whatever a product has come out as.
        with torch.autocast(inputs.cond.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            predict = self.policy.condition(inputs.cond, inputs.code)
            start = self.frozen.condition(inputs.cond, inputs.code) if self.kl_weight else None
            for factor, spread in enumerate(self.spreads):
                x, k = samples[:, factor], self.first + factor
                mean = self.exploring.step_mean(x, k, predict)[:, part].to(samples.dtype)
                factors.append(self.scale * gaussian_log_prob(samples[:, factor + 1, part], mean, spread))
                if start is not None:
                    kl = self.scale * gaussian_kl(mean, self.exploring.step_mean(x, k, start)[:, part], spread)
                    penalty = penalty + self.kl_weight * kl
        return torch.stack(factors, dim=1), none, penalty


# ---- Filtered behaviour cloning: a denoiser that imitates its own successes ----


class ClonedDenoiser(FinetunedDenoiser):
    """A `FinetunedDenoiser` that is trained by cloning its chunks, of whose steps nobody asks how likely they were.

    It explores with the same noise: by itself, imitation loses variety and finds nothing better. In a run on AvoidPoint
    from a success of .2, it ended at .72 without noise and at .98 with it.
    """

    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        """Denoises x (B, noise_dim) to a normalised chunk of the same shape, which is what is recorded."""
        chunk, _ = super().act(x, inputs, generator, explore)
        return chunk, {"chunk": chunk}


# ---- RES: a bounded correction of every action of the frozen policy ----
#
# Source: Policy Decorator (arXiv 2412.13630): the residual sees the state and the policy's action at every control
# step, is bounded by a scale, and exploration begins progressively.

INITIAL_STD = 0.37
"""Standard deviation of u at the start, e⁻¹: a correction explores a third of its bound, where tanh hardly bends."""


class ResidualAction(Adapter):
    """action + scale · tanh(u), with u from a Gaussian that sees the condition, the action and the mode code.

    It acts at every control step, between two looks of the policy too. While exploration progresses, a step uses the
    residual with a probability that grows from 0 to 1; steps without it carry no gradient.

    Args:
        cond_dim: size of the policy's condition.
        action_dim: size of an action.
        num_codes: mode codes K; 1 means that there is none to look at.
        config: scale, widths, schedule.
        ppo: what its trust region shares with other adapters.
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
        inputs = cond_dim + action_dim + count_code_inputs(num_codes)
        self.network = make_mlp((inputs, *config.hidden_sizes, action_dim), "silu", last_scale=0.01)
        self.log_std = nn.Parameter(torch.full((action_dim,), INITIAL_STD).log())

    def begin_iteration(self, iteration: int) -> None:
        """Sets the share of steps that use the residual while exploring."""
        done = (iteration + 1) / self.progressive_iterations if self.progressive_iterations else 1.0
        self.share.fill_(min(1.0, done))

    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        """Corrects a normalised action x (B, action_dim)."""
        u, log_std = self._distribution(x, inputs)
        used = torch.ones(len(x), 1, device=x.device)
        if explore:
            u = draw_gaussian(u, log_std, generator)
            used = (torch.rand(used.shape, generator=generator, device=x.device) < self.share).to(x.dtype)
        return x + used * self.scale * torch.tanh(u), {"action": x, "u": u, "used": used}

    def evaluate(self, draws: Draws, inputs: PolicyInput) -> tuple[Tensor, Tensor, Tensor]:
        """log N(u), (B, 1), zero where the residual was not used, the entropy (B,) of u in nats, and no penalty."""
        mean, log_std = self._distribution(draws["action"], inputs)
        log_prob = gaussian_log_prob(draws["u"], mean, log_std)
        entropy = gaussian_entropy(log_std).expand(len(inputs.cond))
        return log_prob[:, None] * draws["used"], entropy, torch.zeros_like(log_prob)

    def _distribution(self, action: Tensor, inputs: PolicyInput) -> tuple[Tensor, Tensor]:
        """Mean (B, action_dim) of u, and its log standard deviation (action_dim,)."""
        seen = torch.cat([inputs.cond, action, code_inputs(inputs.code, self.num_codes)], dim=1)
        return self.network(seen), self.log_std.clamp(*LOG_STD_RANGE)
