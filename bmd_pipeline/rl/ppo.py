"""Proximal policy optimisation on recorded decisions.

Source: Schulman et al. 2017 (arXiv 1707.06347). A decision may consist of several draws (factors), each with a
probability ratio of its own, as in the two-layer process of DPPO (arXiv 2409.00588).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.artifacts.progress_state import add_prefix, take_prefix
from bmd_pipeline.config.ppo import PPOConfig
from bmd_pipeline.errors import DivergenceError
from bmd_pipeline.rl.adapters.base import Record, Situation
from bmd_pipeline.rl.agents import Agent
from bmd_pipeline.rl.critic import Critic
from bmd_pipeline.rl.graphs import Graphed, Recorder

LOG_RATIO_RANGE = (-10.0, 3.0)
"""Bounds of a draw's log ratio.

The estimate of the KL grows with the ratio itself: without the upper bound one state of 256 that the policy has hardly
seen passes for a policy that ran away (e^10 / 256 = 86 nats). And where that draw went badly its gradient drowns all
others, since PPO does not clip that side (Ye et al. 2020, arXiv 1912.09729).
"""
VALUE_TENSORS = ("critic_inputs", "value", "returns")
"""What of a batch the critic learns from."""

RATE_FACTOR = 1.5
"""By how much an adaptive learning rate changes after a rollout (as in rsl_rl)."""
MIN_RATE_SHARE = 0.01
"""Where an adaptive learning rate stops falling, as a share of where it began."""


@dataclass(frozen=True)
class Batch:
    """M decisions to learn from.

    Attributes:
        situation: what the agent saw, (M, ...).
        record: its draws, each (M, ...).
        critic_inputs: (M, input_dim).
        log_prob: (M, num_factors) when they were drawn.
        value: (M, num_streams) when they were drawn.
        advantage: (M,) standardised.
        returns: (M, num_streams).
    """

    situation: Situation
    record: Record
    critic_inputs: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    returns: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, such as `returns`, `situation.cond` and `record.0.u`."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return own | add_prefix("situation", vars(self.situation)) | add_prefix("record", self.record)


def standardise(x: Tensor) -> Tensor:
    """x (M,) at zero mean and unit standard deviation."""
    return (x - x.mean()) / (x.std() + 1e-8)


def compute_policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, factor_weights: Tensor, clip_ratio: float
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate, and how far the policy has moved.

    Args:
        log_prob: (M, num_factors) under the present parameters.
        old_log_prob: (M, num_factors) when drawn.
        advantage: (M,).
        factor_weights: (num_factors,) what the advantage counts for each factor.
        clip_ratio: ε.

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


def compute_value_loss(value: Tensor, old_value: Tensor, returns: Tensor, clip_value: float) -> Tensor:
    """Half the squared error, summed over streams; clipped around the old value if clip_value > 0.

    Args:
        value: (M, num_streams).
        old_value: (M, num_streams).
        returns: (M, num_streams).
        clip_value: how far the value may move to count; 0 switches clipping off.
    """
    if clip_value > 0.0:
        moved = old_value + (value - old_value).clamp(-clip_value, clip_value)
        error = torch.maximum((value - returns).square(), (moved - returns).square())
        return 0.5 * error.mean(dim=0).sum()
    return 0.5 * F.mse_loss(value, returns, reduction="none").mean(dim=0).sum()


class PPO:
    """Updates an agent and its critic.

    Args:
        agent: who is trained; what of it, the agent says.
        critic: its value function.
        config: settings.
        learning_rates: one per group of `agent.trainable()`.
        place: where the settings stand in the run's, for messages.
        recorder: records gradients, as CUDA graphs are; None computes them kernel by kernel.

    Attributes:
        graphed: recorded gradients, with the policy's and without; empty without a recorder.
    """

    def __init__(
        self,
        agent: Agent,
        critic: Critic,
        config: PPOConfig,
        learning_rates: list[float],
        *,
        place: str = "finetune.ppo",
        recorder: Recorder | None = None,
    ) -> None:
        self.place = place
        self.agent = agent
        self.critic = critic
        self.config = config
        self.groups: list[list[nn.Parameter]] = [*agent.trainable(), list(critic.parameters())]
        device = next(critic.parameters()).device
        self.factor_weights = torch.tensor(agent.factor_weights, device=device)
        rates = [*learning_rates, config.value_learning_rate]
        self.optimizer = torch.optim.Adam(
            [{"params": group, "lr": rate, "initial_lr": rate} for group, rate in zip(self.groups, rates, strict=True)],
            eps=1e-5,
            fused=True if recorder is not None and device.type == "cuda" else None,
        )
        self.graphed: dict[bool, Graphed] = {}
        if recorder is not None:
            self.graphed = {
                policy: Graphed(functools.partial(self._learn, policy=policy), "a step of PPO", recorder)
                for policy in (True, False)
            }

    def update(self, batch: Batch, generator: torch.Generator, *, policy: bool = True) -> dict[str, float]:
        """Several epochs over a batch.

        Once the approximate KL of any factor passes 1.5 × target_kl, the policy stops and only the critic goes on.

        Args:
            batch: what to learn from.
            generator: shuffles.
            policy: whether the policy learns at all; False trains the critic only.

        Returns:
            losses and diagnostics, means over minibatches; `losses/approx_kl` is the highest of the update,
            `losses/kl_stopped` 1 if the policy stopped early because of it, and `losses/learning_rate` the policy's in
            this update.

        Raises:
            DivergenceError: the update ran away; agent and critic are then as they happen to be.
        """
        config = self.config
        count = len(batch.advantage)
        allowed = config.guard.max_value_error * (1.0 + float(batch.returns.square().mean()))
        learning = policy
        kl = torch.zeros(1, device=batch.advantage.device)
        peak, stopped = 0.0, False
        norm = torch.zeros((), device=batch.advantage.device)
        rate = self.optimizer.param_groups[0]["lr"]
        policy_steps, value_losses, policy_losses, entropies = 0, [], [], []
        last = torch.arange(0)
        tensors = batch.tensors()
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=generator, device=batch.advantage.device)
            for index in torch.split(order, config.minibatch_size):
                if len(index) < min(count, config.minibatch_size) // 2:
                    continue  # the remainder of an epoch is too noisy to step on
                last = index
                found = self._look(tensors, index, policy=learning)
                value_losses.append(found["value"].clone())
                kl = found.get("kl", kl)
                highest = self._require_sound(found["error"], allowed, kl, found["loss"], norm)
                if learning:
                    peak = max(peak, highest)
                    stopped = highest > 1.5 * config.target_kl
                    learning = not stopped
                if learning:
                    policy_losses.append(found["policy"].clone())
                    entropies.append(found["entropy"].clone())
                    policy_steps += 1
                norm = self._step(found, policy=learning)
        with torch.no_grad():  # the last step counts too
            part = {name: value[last] for name, value in tensors.items()}
            loss, error = self._value_loss(part)
            if policy_steps:
                policy_loss, kl = self._policy_loss(part)
                loss = loss + policy_loss
            peak = max(peak, self._require_sound(error, allowed, kl, loss, norm))
        if policy and config.learning_rate_schedule == "adaptive":
            self._adapt_rates(peak, stopped, policy_steps / len(value_losses))
        return {
            "losses/value": _mean(value_losses),
            "losses/policy": _mean(policy_losses),
            "losses/entropy": _mean(entropies),
            "losses/approx_kl": peak,
            "losses/kl_stopped": float(stopped),
            "losses/policy_steps": float(policy_steps),
            "losses/learning_rate": rate,
        }

    def _adapt_rates(self, peak: float, stopped: bool, taken: float) -> None:
        """Fits the policy's learning rates to how far the policy moved on a rollout.

        Args:
            peak: highest approximate KL divergence of the update, in nats.
            stopped: whether the KL bound stopped the policy.
            taken: share of its steps that the policy took.
        """
        factor = 1.0
        if stopped and taken < 0.5:
            factor = 1.0 / RATE_FACTOR
        elif not stopped and peak < 0.5 * self.config.target_kl:
            factor = RATE_FACTOR
        for group in self.optimizer.param_groups[:-1]:  # the last one is the critic's
            highest = group["initial_lr"]
            group["lr"] = min(highest, max(MIN_RATE_SHARE * highest, factor * group["lr"]))

    def _look(self, tensors: Mapping[str, Tensor], index: Tensor, *, policy: bool) -> dict[str, Tensor]:
        """Losses and gradients on the decisions at `index`, as `_learn`; what is recorded is overwritten next time."""
        wanted = tensors if policy else {name: tensors[name] for name in VALUE_TENSORS}
        if self.graphed and len(index) == self.config.minibatch_size:  # remainders are as long as it happens
            return self.graphed[policy](wanted, rows=index)
        return self._learn({name: value[index] for name, value in wanted.items()}, policy=policy)

    def _learn(
        self, part: Mapping[str, Tensor], generator: torch.Generator | None = None, *, policy: bool
    ) -> dict[str, Tensor]:
        """Losses and gradients on some decisions.

        Nothing of autograd's outlives the call: what autograd made on another stream would spoil a recording.

        Args:
            part: tensors of a batch, or those of `VALUE_TENSORS`.
            generator: not used.
            policy: whether the policy learns too.

        Returns:
            `value`, `error` (mean squared), `loss` without the entropy; with the policy also `policy`, `entropy`, each
            (), and `kl` (num_factors,); `gradient.<group>.<number>` of every parameter that has one.
        """
        self.optimizer.zero_grad(set_to_none=True)
        value_loss, error = self._value_loss(part)
        found = {"value": value_loss, "error": error, "loss": value_loss}
        loss = value_loss
        if policy:
            policy_loss, kl = self._policy_loss(part)
            entropy = self.agent.entropy(Situation(**take_prefix("situation", part))).mean()
            found |= {"policy": policy_loss, "kl": kl, "entropy": entropy, "loss": value_loss + policy_loss}
            loss = value_loss + policy_loss - self.config.entropy_weight * entropy
        loss.backward()  # type: ignore[no-untyped-call]
        for number, group in enumerate(self.groups):
            for index, parameter in enumerate(group):
                if parameter.grad is not None:
                    found[f"gradient.{number}.{index}"] = parameter.grad
        return {name: tensor.detach() for name, tensor in found.items()}

    def _value_loss(self, part: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of the critic on some decisions, and its mean squared error."""
        value = self.critic(part["critic_inputs"])
        error = (value.detach() - part["returns"]).square().mean()
        return compute_value_loss(value, part["value"], part["returns"], self.config.clip_value), error

    def _policy_loss(self, part: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of the policy and its KL divergences on some decisions."""
        return compute_policy_loss(
            self.agent.log_prob(take_prefix("record", part), Situation(**take_prefix("situation", part))),
            part["log_prob"],
            part["advantage"],
            self.factor_weights,
            self.config.clip_ratio,
        )

    def _require_sound(self, error: Tensor, allowed: float, kl: Tensor, loss: Tensor, norm: Tensor) -> float:
        """Refuses an update that runs away; returns the highest KL divergence.

        All numbers are read at once, since a device has to finish its work whenever the host reads from it.

        Args:
            error: () the critic's mean squared error.
            allowed: the largest of these.
            kl: (num_factors,) approximate KL divergences of the policy.
            loss: ().
            norm: () largest norm of a group's gradient in the step before.
        """
        numbers = torch.stack([error, kl.max(), loss.detach(), norm])
        value_error, highest, total, gradient = (float(number) for number in numbers.tolist())
        guard = self.config.guard
        if not math.isfinite(gradient):
            raise DivergenceError(f"a gradient's norm is {gradient}")
        if not value_error <= allowed:  # not so for NaN either
            raise DivergenceError(
                f"the critic's squared error is {value_error:.3g}, "
                f"{self.place}.guard.max_value_error allows {allowed:.3g}"
            )
        if not highest <= guard.max_kl:
            raise DivergenceError(
                f"the approximate KL is {highest:.3g} nats, {self.place}.guard.max_kl allows {guard.max_kl:g}"
            )
        if not math.isfinite(total):
            raise DivergenceError(f"the loss is {total}")
        return highest

    def _step(self, found: Mapping[str, Tensor], *, policy: bool) -> Tensor:
        """One step of the optimiser along what `_learn` found; returns the largest norm of a group's, before clipping.

        Without the policy its gradient is not applied, if there is one.
        """
        trained = list(enumerate(self.groups))[0 if policy else -1 :]  # the critic comes last
        self.optimizer.zero_grad(set_to_none=True)
        for number, group in trained:
            for index, parameter in enumerate(group):
                parameter.grad = found.get(f"gradient.{number}.{index}")
        norms = [nn.utils.clip_grad_norm_(group, self.config.max_grad_norm) for _, group in trained]
        self.optimizer.step()
        return torch.stack(norms).max()


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean()) if values else 0.0
