"""Agents: a diffusion policy, the chain of adapters it acts through, its mode codes; and agents on disk."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from bmd_pipeline.config.schema import PRETRAINED, TAUGHT, FinetuneConfig, SteeringConfig, uses_modes
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import load_weights, read_json
from bmd_pipeline.modes.modes import DiscoveredModes, load_modes
from bmd_pipeline.modes.steering import NoiseBasis, SteeringPolicy
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import (
    Adapter,
    FrozenDenoiser,
    PriorNoise,
    Readout,
    Record,
    ResidualAction,
    Situation,
    SteeredNoise,
    TunedDenoiser,
)
from bmd_pipeline.rl.graphs import Graphed, Recorder

# ---- Agents: a diffusion policy, the chain of adapters it acts through, and its mode codes ----

PLANNED = "planned"
"""Name in the record of a correcting agent: 1 at the steps at which a new chunk was planned, (B,)."""


@dataclass(frozen=True)
class Plan:
    """A chunk, and how it came about.

    Attributes:
        chunk: (B, noise_dim) normalised.
        record: draws of the links that made it.
    """

    chunk: Tensor
    record: Record


class Agent(nn.Module):
    """Acts in a task: encodes observations, runs the chain, un-normalises the chunk.

    An agent plans a chunk of actions every `n_action_steps` control steps. One whose last link is a residual decides at
    every control step in between as well, how to correct the next action of the chunk.

    Args:
        policy: the diffusion policy, frozen.
        chain: adapters from noise to chunk, and maybe a residual.
        modes: codes and the inference model, or None for agents without codes.

    Attributes:
        graphed: recorded decisions, by what is decided, whether they explore and else how they are read; empty without
            CUDA graphs.
    """

    def __init__(self, policy: DiffusionPolicy, chain: list[Adapter], modes: DiscoveredModes | None) -> None:
        super().__init__()
        self.policy = policy.requires_grad_(False)
        self.chain = nn.ModuleList(chain)
        self.modes = modes
        self.graphed: dict[tuple[str, bool, Readout | None], Graphed] = {}
        self._recorder: Recorder | None = None

    def use_graphs(self, recorder: Recorder | None) -> None:
        """Has decisions recorded and replayed from now on, without gradients; None leaves everything as it is."""
        self._recorder = recorder or self._recorder

    @property
    def residual(self) -> ResidualAction | None:
        """Its last link, if that corrects actions."""
        last = self.chain[-1]
        return last if isinstance(last, ResidualAction) else None

    @property
    def decision_steps(self) -> int:
        """Control steps between two decisions."""
        return self.policy.config.n_action_steps if self.residual is None else 1

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
    def target_entropy(self) -> float | None:
        """Nats per decision that the spread of its draws shall not fall below; None: no bound."""
        found = [link.target_entropy for link in self.links() if link.target_entropy is not None]
        return sum(found) if found else None

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

    # acting ------------------------------------------------------------------------------------------

    def plan(self, situation: Situation, generator: torch.Generator, explore: bool) -> Plan:
        """The next chunk of actions, before any correction."""
        if self._recorder is None:
            return self._plan(situation, generator, explore)
        found = self._replay("plan", vars(situation), generator, explore)
        return Plan(found.pop("chunk"), found)

    def act(
        self, plan: Plan, done: int, situation: Situation, generator: torch.Generator, explore: bool
    ) -> tuple[Tensor, Record]:
        """The actions of one decision.

        Args:
            plan: the present chunk.
            done: control steps of it that have been taken.
            situation: what the policy sees now.
            generator: draws.
            explore: draw as in training; if False, act as deployed.

        Returns:
            actions (B, decision_steps, action_dim) in [-1, 1], and the record of all draws.
        """
        if self.residual is None:
            return self.policy.to_action(plan.chunk)[:, : self.decision_steps], plan.record
        width = self.policy.action_dim
        action = plan.chunk[:, done * width : (done + 1) * width]
        if self._recorder is None:
            action, record = self.residual.act(action, situation, generator, explore)
        else:
            record = self._replay("correct", vars(situation) | {"action": action}, generator, explore)
            action = record.pop("corrected")
        planned = torch.full((len(action),), float(done == 0), device=action.device)
        own = {f"{len(self.chain) - 1}.{name}": drawn for name, drawn in record.items()}
        return self.policy.to_action(action), plan.record | own | {PLANNED: planned}

    def _plan(self, situation: Situation, generator: torch.Generator, explore: bool) -> Plan:
        record: Record = {}
        x = situation.cond.new_zeros(len(situation.cond), 0)
        for index, link in enumerate(self.links()[: len(self.chain) - (self.residual is not None)]):
            x, drawn = link.act(x, situation, generator, explore)
            record.update({f"{index}.{name}": value for name, value in drawn.items()})
        return Plan(x, record)

    def _replay(
        self, what: str, seen: Mapping[str, Tensor], generator: torch.Generator, explore: bool
    ) -> dict[str, Tensor]:
        """A decision as a recorded graph, on tensors alone."""
        assert self._recorder is not None
        kind = (what, explore, None if explore else self.readout)
        if kind not in self.graphed:
            decide = self._plan_tensors if what == "plan" else self._correct_tensors
            self.graphed[kind] = Graphed(functools.partial(decide, explore=explore), "a decision", self._recorder)
        found = self.graphed[kind](seen, generator=generator)
        return {name: value.clone() for name, value in found.items()}

    @torch.no_grad()
    def _plan_tensors(
        self, seen: Mapping[str, Tensor], generator: torch.Generator | None, *, explore: bool
    ) -> dict[str, Tensor]:
        assert generator is not None  # every agent draws
        plan = self._plan(Situation(**seen), generator, explore)
        return plan.record | {"chunk": plan.chunk}

    @torch.no_grad()
    def _correct_tensors(
        self, seen: Mapping[str, Tensor], generator: torch.Generator | None, *, explore: bool
    ) -> dict[str, Tensor]:
        assert generator is not None  # every agent draws
        assert self.residual is not None
        situation = Situation(seen["cond"], seen["code"])
        action, record = self.residual.act(seen["action"], situation, generator, explore)
        return record | {"corrected": action}

    # learning ----------------------------------------------------------------------------------------

    def evaluate(self, record: Record, situation: Situation) -> tuple[Tensor, Tensor]:
        """How likely recorded draws are under the present parameters, and how spread out such draws are.

        A chunk that was planned earlier was no draw of this decision: it counts as certain.

        Args:
            record: from `act`.
            situation: what the policy saw.

        Returns:
            log-probability (B, num_factors), and entropy (B,) of all draws of a decision, in nats.
        """
        log_probs, entropies = [], []
        for index, link in enumerate(self.links()):
            prefix = f"{index}."
            own = {name[len(prefix) :]: value for name, value in record.items() if name.startswith(prefix)}
            log_prob, entropy = link.evaluate(own, situation)
            if PLANNED in record and link is not self.residual:
                log_prob, entropy = log_prob * record[PLANNED][:, None], entropy * record[PLANNED]
            log_probs.append(log_prob)
            entropies.append(entropy)
        return torch.cat(log_probs, dim=1), torch.stack(entropies).sum(dim=0)

    def trained_links(self) -> list[Adapter]:
        """The links that have something to train, in the order of the chain."""
        return [link for link in self.links() if link.trainable()]

    def trainable(self) -> list[list[nn.Parameter]]:
        """What PPO trains, one group per link that has something."""
        return [link.trainable() for link in self.trained_links()]


def make_base_agent(policy: DiffusionPolicy) -> Agent:
    """The pre-trained policy on its own."""
    return Agent(policy, [PriorNoise(policy.noise_dim), FrozenDenoiser(policy)], None)


def make_commanded_agent(policy: DiffusionPolicy, modes: DiscoveredModes) -> Agent:
    """The frozen policy commanded by codes: the coded one, or in the published form the base behind its steering."""
    if modes.steering is not None:
        return Agent(policy, [SteeredNoise(modes.steering, "mean"), FrozenDenoiser(policy)], modes)
    coded = modes.acting_policy(policy)
    return Agent(coded, [PriorNoise(coded.noise_dim), FrozenDenoiser(coded)], modes)


def remove_steering(agent: Agent) -> Agent:
    """The same agent without its steering policy: noise from the prior.

    Raises:
        ConfigError: the agent has no steering policy.
    """
    first, *rest = agent.links()
    if not isinstance(first, SteeredNoise):
        raise ConfigError("evaluate.steering is false, but this policy has no steering policy to leave out")
    return Agent(agent.policy, [PriorNoise(agent.policy.noise_dim), *rest], agent.modes)


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
    codes = modes.num_codes if modes else 1
    acting = modes.acting_policy(policy) if modes else policy
    adapter = method.removesuffix("-bmd")
    chain: list[Adapter] = [PriorNoise(acting.noise_dim)]
    if adapter == "dsrl" or (modes is not None and modes.steering is not None):
        chain = [_make_steering(acting, modes, config, steering)]
    chain.append(TunedDenoiser(acting, config.denoiser) if adapter == "dppo" else FrozenDenoiser(acting))
    if adapter == "res":
        residual = ResidualAction(acting.cond_dim, acting.action_dim, codes, config.residual, config.ppo)
        chain.append(residual.to(_device(acting)))
    return Agent(acting, chain, modes)


def _make_steering(
    policy: DiffusionPolicy, modes: DiscoveredModes | None, config: FinetuneConfig, steering: SteeringConfig
) -> SteeredNoise:
    """The discovered steering policy, or a new one that starts as the prior."""
    readout: Readout = "mean" if config.readout == "auto" else config.readout  # selection decides, and sets it
    if modes is not None and modes.steering is not None:
        network = copy.deepcopy(modes.steering).requires_grad_(True)
    else:
        basis = NoiseBasis(policy.config.horizon, policy.action_dim, steering.noise_components)
        codes = modes.num_codes if modes else 1
        network = SteeringPolicy(policy.cond_dim, codes, basis, steering).to(_device(policy))
    return SteeredNoise(network, readout, config.target_entropy)


def _device(policy: DiffusionPolicy) -> torch.device:
    return next(policy.parameters()).device


# ---- Fine-tuned agents on disk ----

TUNED_WEIGHTS = "tuned.safetensors"
TUNED_DOCUMENT = "tuned.json"


def load_agent(
    policy_dir: Path,
    modes_dir: Path | None,
    tuned_dir: Path | None,
    method: str,
    *,
    task: str,
    device: torch.device | str = "cpu",
) -> Agent:
    """Loads what evaluation plays.

    Everything the agent needs is in its own folders: settings come from there, not from the present config.

    Args:
        policy_dir: pre-trained policy.
        modes_dir: discovered modes, for policies with codes.
        tuned_dir: fine-tuned weights; None before fine-tuning.
        method: "pretrained", "taught" or a fine-tuning method.
        task: the task it must have been made for.
        device: where to load it.

    Raises:
        ArtifactError: a folder is missing, damaged, or made for another task or method.
    """
    policy = load_policy(policy_dir, task=task, device=device)
    if method == PRETRAINED:
        return make_base_agent(policy)
    modes = None
    if uses_modes(method):
        if modes_dir is None:
            raise ArtifactError(f"method {method} needs discovered modes: run `bmd-pipeline discover --task {task}`")
        modes = load_modes(modes_dir, policy, task=task)
        if method == TAUGHT:
            return make_commanded_agent(policy, modes).requires_grad_(False).eval()
    if tuned_dir is None:
        raise ArtifactError(f"method {method} needs what it fine-tuned: run `bmd-pipeline finetune --task {task}`")
    path = tuned_dir / TUNED_DOCUMENT
    document = read_json(path, "fine-tuned policy")
    if (document.get("task"), document.get("method")) != (task, method):
        raise ArtifactError(
            f"{path}: tuned for task {document.get('task')!r} by {document.get('method')!r}, "
            f"expected {task!r} by {method!r}"
        )
    built_on = {"policy_sha256": policy.fingerprint, "modes_sha256": modes.fingerprint if modes else None}
    for name, present in built_on.items():
        if document.get(name) != present:
            raise ArtifactError(
                f"{path}: tuned from another {name.removesuffix('_sha256')} than the present one; "
                f"run `bmd-pipeline finetune --task {task} --method {method}` again"
            )
    try:
        config = FinetuneConfig.model_validate(document["finetune"])
        steering = SteeringConfig.model_validate(document["steering"])
        agent = make_agent(method, policy, modes, config, steering)
        agent.readout = document.get("readout")
        weights = load_weights(tuned_dir / TUNED_WEIGHTS)
        load_trained(agent, weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: does not fit this policy or this version; run `bmd-pipeline finetune --task {task}` again"
        ) from error
    return agent.requires_grad_(False).eval()


def trained_state(agent: Agent) -> dict[str, Tensor]:
    """Weights that fine-tuning may have changed: the links' own, and the inference model's."""
    own = {f"chain.{name}": value for name, value in _chain_state(agent).items()}
    if agent.modes is not None:
        own.update({f"inference.{name}": v for name, v in agent.modes.inference.state_dict().items()})
    return {name: value.detach().clone() for name, value in own.items()}


def load_trained(agent: Agent, weights: dict[str, Tensor]) -> None:
    """Puts back what `trained_state` returned.

    Raises:
        RuntimeError: the weights are of another agent.
    """
    chain = {name[len("chain.") :]: value for name, value in weights.items() if name.startswith("chain.")}
    expected = _chain_state(agent)
    if chain.keys() != expected.keys():
        raise RuntimeError(f"expected weights {sorted(expected)}, got {sorted(chain)}")
    agent.chain.load_state_dict(chain, strict=False)
    if agent.modes is not None:
        prefix = "inference."
        agent.modes.inference.load_state_dict(
            {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
        )


def _chain_state(agent: Agent) -> dict[str, Tensor]:
    """The chain's weights without the frozen policy's."""
    frozen = {id(parameter) for parameter in agent.policy.parameters()} | {id(b) for b in agent.policy.buffers()}
    return {name: value for name, value in agent.chain.state_dict(keep_vars=True).items() if id(value) not in frozen}
