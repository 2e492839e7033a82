"""Agents: a diffusion policy, the chain of adapters it acts through, and its mode codes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from bmd_pipeline.config.discover import SteeringConfig
from bmd_pipeline.config.finetune import FinetuneConfig
from bmd_pipeline.config.methods import uses_modes
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.modes.discovered import DiscoveredModes
from bmd_pipeline.modes.noise_basis import NoiseBasis
from bmd_pipeline.modes.steering import SteeringPolicy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation
from bmd_pipeline.rl.adapters.denoiser import TunedDenoiser
from bmd_pipeline.rl.adapters.frozen import FrozenDenoiser
from bmd_pipeline.rl.adapters.prior import PriorNoise
from bmd_pipeline.rl.adapters.residual import ResidualAction
from bmd_pipeline.rl.adapters.steering import Readout, SteeredNoise
from bmd_pipeline.rl.graphs import Graphed, Recorder


class Agent(nn.Module):
    """Acts in a task: encodes observations, runs the chain, un-normalises the chunk.

    Args:
        policy: the diffusion policy, frozen.
        chain: adapters from noise to chunk.
        modes: codes and the inference model, or None for agents without codes.

    Attributes:
        graphed: recorded decisions, by whether they explore and else how they are read; empty without CUDA graphs.
    """

    def __init__(self, policy: DiffusionPolicy, chain: list[Adapter], modes: DiscoveredModes | None) -> None:
        super().__init__()
        self.policy = policy.requires_grad_(False)
        self.chain = nn.ModuleList(chain)
        self.modes = modes
        self.graphed: dict[tuple[bool, Readout | None], Graphed] = {}
        self._recorder: Recorder | None = None

    def use_graphs(self, recorder: Recorder | None) -> None:
        """Has decisions recorded and replayed from now on, without gradients; None leaves everything as it is."""
        self._recorder = recorder or self._recorder

    @property
    def num_codes(self) -> int:
        """Mode codes K; 1 for an agent without any."""
        return self.modes.num_codes if self.modes else 1

    @property
    def num_factors(self) -> int:
        """Draws per decision whose log-probability PPO sees."""
        return sum(link.num_factors for link in self.links())

    @property
    def factor_weights(self) -> list[float]:
        """What the advantage counts for each of those draws."""
        return [weight for link in self.links() for weight in (link.factor_weights or (1.0,) * link.num_factors)]

    @property
    def entropy_dims(self) -> int:
        """Dimensions of a decision's draws whose spread is trained."""
        return sum(link.entropy_dims for link in self.links())

    @property
    def readout(self) -> Readout | None:
        """How its steering policy acts when deployed; None without one. Exploring doesn't depend on it."""
        first = self.links()[0]
        return first.readout if isinstance(first, SteeredNoise) else None

    @readout.setter
    def readout(self, readout: Readout | None) -> None:
        first = self.links()[0]
        if readout is not None and isinstance(first, SteeredNoise):
            if readout not in get_args(Readout):
                raise ValueError(f"readout must be one of {', '.join(get_args(Readout))}, got {readout!r}")
            first.readout = readout

    def links(self) -> list[Adapter]:
        """The chain, typed."""
        return [link for link in self.chain if isinstance(link, Adapter)]

    def choose_held(self, start: Tensor, code: Tensor) -> Tensor:
        """Noise held for the episode (B, held_dim), zero-width if this agent holds none.

        Args:
            start: (B, cond_dim) condition at the episode's start.
            code: (B,).
        """
        if self.modes is None or self.modes.selector is None:
            return start.new_zeros(len(start), 0)
        return self.modes.selector.choose(start, code)

    def is_committed(self, features: Tensor, start: Tensor) -> Tensor:
        """Whether the behaviour has moved on far enough to let go of the held noise, (B,).

        Args:
            features: (B, feature_dim) raw track columns now.
            start: (B, feature_dim) the same at the start of the episode.
        """
        if self.modes is None:
            return torch.ones(len(features), dtype=torch.bool, device=features.device)
        inference = self.modes.inference
        moved = (inference.normalise(features) - inference.normalise(start)).abs().amax(dim=1)
        return moved > self.modes.config.commit.distance

    def act(self, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Chunk of actions (B, horizon, action_dim) in [-1, 1], and the record of all draws."""
        if self._recorder is None:
            return self._act(situation, generator, explore)
        kind = (explore, None if explore else self.readout)
        if kind not in self.graphed:
            self.graphed[kind] = Graphed(functools.partial(self._decide, explore=explore), "a decision", self._recorder)
        found = self.graphed[kind](vars(situation), generator=generator)
        record = {name: value.clone() for name, value in found.items()}
        return record.pop("actions"), record

    @torch.no_grad()
    def _decide(
        self, seen: Mapping[str, Tensor], generator: torch.Generator | None, *, explore: bool
    ) -> dict[str, Tensor]:
        """`act` on tensors alone."""
        assert generator is not None  # every agent draws
        actions, record = self._act(Situation(**seen), generator, explore)
        return record | {"actions": actions}

    def _act(self, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        record: Record = {}
        x = situation.cond.new_zeros(len(situation.cond), 0)
        for index, link in enumerate(self.links()):
            x, drawn = link.act(x, situation, generator, explore)
            record.update({f"{index}.{name}": value for name, value in drawn.items()})
        return self.policy.to_action(x), record

    def log_prob(self, record: Record, situation: Situation) -> Tensor:
        """Log-probability (B, num_factors) of recorded draws under the present parameters."""
        parts = []
        for index, link in enumerate(self.links()):
            prefix = f"{index}."
            own = {name[len(prefix) :]: value for name, value in record.items() if name.startswith(prefix)}
            parts.append(link.log_prob(own, situation))
        return torch.cat(parts, dim=1)

    def entropy(self, situation: Situation) -> Tensor:
        """Entropy (B,) of all draws of a decision, in nats."""
        return torch.stack([link.entropy(situation) for link in self.links()]).sum(dim=0)

    def trainable(self) -> list[list[nn.Parameter]]:
        """What PPO trains, one group per link that has something."""
        return [group for link in self.links() if (group := link.trainable())]


def make_base_agent(policy: DiffusionPolicy) -> Agent:
    """The pre-trained policy on its own."""
    return Agent(policy, [PriorNoise(policy.noise_dim), FrozenDenoiser(policy)], None)


def make_commanded_agent(policy: DiffusionPolicy, modes: DiscoveredModes) -> Agent:
    """The frozen policy commanded by codes: through the steering policy, or through held noise."""
    noise: Adapter
    if modes.steering is not None:
        noise = SteeredNoise(modes.steering, modes.config.readout)
    else:
        noise = PriorNoise(policy.noise_dim, _held_basis(policy, modes))
    return Agent(policy, [noise, FrozenDenoiser(policy)], modes)


def remove_steering(agent: Agent) -> Agent:
    """The same agent without its steering policy: noise from the prior, held where it was held.

    Raises:
        ConfigError: the agent has no steering policy.
    """
    first, *rest = agent.links()
    if not isinstance(first, SteeredNoise):
        raise ConfigError("evaluate.steering is false, but this policy has no steering policy to leave out")
    return Agent(agent.policy, [PriorNoise(agent.policy.noise_dim, first.held_basis), *rest], agent.modes)


def make_agent(
    method: str,
    policy: DiffusionPolicy,
    modes: DiscoveredModes | None,
    config: FinetuneConfig,
    steering: SteeringConfig,
) -> Agent:
    """An agent of a fine-tuning method, ready to train.

    Args:
        method: one of `config.finetune.METHODS`.
        policy: the pre-trained policy.
        modes: discovered modes; needed by the `-bmd` methods.
        config: fine-tuning settings.
        steering: shape of a steering policy that discovery did not make.

    Raises:
        ArtifactError: a `-bmd` method without modes.
    """
    coded = uses_modes(method)
    if coded and modes is None:
        raise ArtifactError(f"method {method} needs discovered modes: run `bmd-pipeline discover` first")
    modes = modes if coded else None
    adapter = method.removesuffix("-bmd")
    noise: Adapter
    if adapter == "dsrl" or (modes is not None and modes.steering is not None):
        noise = _make_steering(policy, modes, config, steering)
    else:
        noise = PriorNoise(policy.noise_dim, _held_basis(policy, modes) if modes else None)
    chain: list[Adapter] = [noise]
    if adapter == "dppo":
        chain.append(TunedDenoiser(policy, config.denoiser))
    else:
        chain.append(FrozenDenoiser(policy))
    if adapter == "res":
        executed = policy.config.n_action_steps * policy.action_dim
        residual = ResidualAction(policy.cond_dim, policy.noise_dim, executed, config.residual)
        chain.append(residual.to(_device(policy)))
    return Agent(policy, chain, modes)


def _make_steering(
    policy: DiffusionPolicy, modes: DiscoveredModes | None, config: FinetuneConfig, steering: SteeringConfig
) -> SteeredNoise:
    """The discovered steering policy, or a new one; around held noise where there is such."""
    readout: Readout = "mean" if config.readout == "auto" else config.readout  # selection decides, and sets it
    if modes is not None and modes.steering is not None:
        return SteeredNoise(copy.deepcopy(modes.steering).requires_grad_(True), readout)
    basis = NoiseBasis(policy.config.horizon, policy.action_dim, steering.noise_components)
    codes = modes.num_codes if modes else 1
    network = SteeringPolicy(policy.cond_dim, codes, basis, steering, config.initial_std).to(_device(policy))
    return SteeredNoise(network, readout, _held_basis(policy, modes) if modes else None)


def _held_basis(policy: DiffusionPolicy, modes: DiscoveredModes) -> NoiseBasis:
    components = modes.config.commit.noise_components
    return NoiseBasis(policy.config.horizon, policy.action_dim, components).to(_device(policy))


def _device(policy: DiffusionPolicy) -> torch.device:
    return next(policy.parameters()).device
