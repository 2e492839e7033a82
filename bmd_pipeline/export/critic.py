"""The critic of a policy with codes: the success to be expected of each code from here, seen by observations alone.

PPO's own critic can't serve a robot. It sees the simulator's track and the time left, it values discounted rewards, and
it has seen each state under the code that led there, never under another. This one learns from episodes of the policy
as deployed that change their code halfway, which is what it will be asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.export.graph import Function
from bmd_pipeline.policies.networks import descend, make_mlp
from bmd_pipeline.rl.adapters import Draws, PolicyInput
from bmd_pipeline.rl.agent import Agent, Plan
from bmd_pipeline.rl.rollout import Warn, balanced_codes, ignore, roll_out

# ---- Episodes that change their code halfway ----


class SwitchedAgent(Agent):
    """An agent whose episodes go on under another code, each from a chunk of its own on.

    Args:
        agent: who acts.
        start: (N,) chunks, counted from 0, that begin under the other code.
        code: (N,) those codes.
    """

    def __init__(self, agent: Agent, start: Tensor, code: Tensor) -> None:
        super().__init__(agent.policy, agent.adapters, agent.modes)
        self._start, self._code = start, code
        self._chunk = -1

    def plan(self, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> Plan:
        self._chunk += 1
        return super().plan(self._switch(inputs), generator, explore)

    def act(
        self, plan: Plan, done: int, inputs: PolicyInput, generator: torch.Generator, explore: bool
    ) -> tuple[Tensor, Draws]:
        return super().act(plan, done, self._switch(inputs), generator, explore)

    def _switch(self, inputs: PolicyInput) -> PolicyInput:
        return PolicyInput(inputs.cond, torch.where(self._chunk >= self._start, self._code, inputs.code))


@dataclass(frozen=True)
class Moments:
    """M moments at which a chunk was planned, under a code that was kept from there to the end of the episode."""

    cond: Tensor  # (M, cond_dim) encoded observation history
    code: Tensor  # (M,)
    success: Tensor  # (M,) 1.0 where the episode succeeded in the end
    switched: Tensor  # (M,) whether the code began here: one of each episode
    episode: Tensor  # (M,) which episode it is of

    def rows(self, kept: Tensor) -> Self:
        """Those at an index, or where a mask (M,) is true."""
        return type(self)(**{name: value[kept] for name, value in vars(self).items()})


def play_moments(
    env: TaskEnv, agent: Agent, seeds: Sequence[int], generator: torch.Generator, warn: Warn = ignore
) -> Moments:
    """Plays an episode per environment and seed, each under one code up to a random chunk and under another after it.

    Early chunks are drawn more often, since many episodes end long before the time limit. For `warn` see `roll_out`.
    """
    parts, count = [], env.num_envs
    chunks = math.ceil(env.spec.horizon / agent.policy.config.n_action_steps)
    for index, seed in enumerate(seeds):
        start = (chunks * torch.rand(count, generator=generator).square()).long()
        before, after = (balanced_codes(count, agent.num_codes, generator) for _ in range(2))
        switched = SwitchedAgent(agent, start, after)
        played = roll_out(env, switched, seed=seed, code=before, generator=generator, explore=False, warn=warn)
        active = played.active_mask[:: played.decisions_per_chunk]  # (chunks, N)
        chunk = torch.arange(len(active))[:, None].expand_as(active)
        kept = active & (chunk >= start)
        values = {
            "cond": played.cond[:-1][:: played.decisions_per_chunk],
            "code": after.expand_as(active),
            "success": played.success.float().expand_as(active),
            "switched": chunk == start,
            "episode": (index * count + torch.arange(count)).expand_as(active),
        }
        parts.append(Moments(**{name: value[kept] for name, value in values.items()}))
    return Moments(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(parts[0])})


# ---- Learning it, and how well it knows ----

HIDDEN = (128, 128)
LEARNING_RATE, WEIGHT_DECAY, BATCH = 1e-3, 1e-2, 512
MAX_STEPS, LOOK_EVERY, PATIENCE = 3000, 100, 5
"""Steps at most; every so many it is looked at, and learning ends after so many looks without a better one."""
FOLDS = 5
"""Of so many episodes one calibrates and one measures; the others are learnt from."""
BINS = 10


def fit_critic(moments: Moments, num_codes: int, generator: torch.Generator) -> tuple[nn.Sequential, dict[str, float]]:
    """Learns logits (B, K) of success from conditions (B, cond_dim); K is `num_codes`.

    Maximum likelihood; then two numbers that scale and shift all logits, fitted on episodes which were not learnt from
    (Platt 1999), become part of the last layer.

    Returns:
        the network, and how well its probabilities fit the moments of change in a further fifth of the episodes:
        `brier`, their mean squared error, `brier_of_rates`, that of each code's mean success, and
        `calibration_error`, the mean distance of probability and frequency in ten equal bins. NaN without episodes.
    """
    fold = moments.episode % FOLDS
    learnt, held, judged = moments.rows(fold >= 2), *(moments.rows((fold == k) & moments.switched) for k in (0, 1))
    network = make_mlp((moments.cond.shape[1], *HIDDEN, num_codes), "silu")
    _learn(network, learnt, held, generator)
    last = network[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        scale, shift = fit_platt(_logits(network, held), held.success)
        last.weight.mul_(scale)
        last.bias.mul_(scale).add_(shift)
        start = learnt.rows(learnt.switched)
        tried = torch.bincount(start.code, minlength=num_codes)
        rates = (torch.bincount(start.code, start.success, num_codes) + 1.0) / (tried + 2.0)
        return network, {
            **measure_fit(_logits(network, judged).sigmoid(), judged.success),
            "brier_of_rates": measure_fit(rates[judged.code], judged.success)["brier"],
        }


def _learn(network: nn.Sequential, learnt: Moments, held: Moments, generator: torch.Generator) -> None:
    """Leaves the weights that were likeliest on what is held out."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    best, since, kept = math.inf, 0, {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(1, MAX_STEPS + 1 if len(learnt.code) and len(held.code) else 1):
        index = torch.randint(len(learnt.code), (BATCH,), generator=generator)
        descend(optimizer, _loss(network, learnt.rows(index)))
        if step % LOOK_EVERY:
            continue
        with torch.no_grad():
            loss = float(_loss(network, held))
        since += 1
        if loss < best:
            best, since, kept = loss, 0, {name: value.clone() for name, value in network.state_dict().items()}
        if since == PATIENCE:
            break
    network.load_state_dict(kept)


def _logits(network: nn.Sequential, moments: Moments) -> Tensor:
    """Of each moment's own code, (M,)."""
    logits: Tensor = network(moments.cond).gather(1, moments.code[:, None])[:, 0]
    return logits


def _loss(network: nn.Sequential, moments: Moments) -> Tensor:
    return F.binary_cross_entropy_with_logits(_logits(network, moments), moments.success)


def fit_platt(logits: Tensor, success: Tensor) -> tuple[float, float]:
    """Scale and shift that make sigmoid(scale · logit + shift) the likeliest, from logits (M,) and outcomes (M,).

    Outcomes count as a little less certain than they are, (n + 1)/(n + 2), so that few of them make no certainty.

    Source: Platt 1999, "Probabilistic outputs for support vector machines".
    """
    logits, won = logits.double(), success.double().sum()
    target = torch.where(success > 0.5, (won + 1.0) / (won + 2.0), 1.0 / (len(success) - won + 2.0))
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.binary_cross_entropy_with_logits(line[0] * logits + line[1], target)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    if len(logits):
        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
    scale, shift = line.tolist()
    return scale, shift


def measure_fit(probability: Tensor, success: Tensor) -> dict[str, float]:
    """`brier` and `calibration_error` of probabilities (M,) against outcomes (M,); see `fit_critic`."""
    cell = (probability * BINS).long().clamp(max=BINS - 1)
    gaps = torch.bincount(cell, (probability - success).double(), BINS).abs()
    return {
        "brier": float((probability - success).square().mean()),
        "calibration_error": float(gaps.sum() / len(success)) if len(success) else math.nan,
    }


# ---- The critic as a function ----


class CriticFunction(Function):
    """The probability of success of each code from an observation history on."""

    name, inputs, output = "critic", ("obs",), "success"

    def __init__(self, agent: Agent, network: nn.Sequential) -> None:
        super().__init__(agent)
        self.network = network
        self.low, self.high = torch.zeros(()), torch.ones(())

    def forward(self, obs: Tensor) -> Tensor:
        """(1, K); for obs see `encode`."""
        success: Tensor = self.network(self.encode(obs)).sigmoid()
        return success

    def draw_inputs(self, index: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (self.draw_obs(generator),)
