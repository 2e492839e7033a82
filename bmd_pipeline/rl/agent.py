"""Agents: a diffusion policy, the adapters it acts through, its mode codes; and agents on disk."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bmd_pipeline.config.schema import FinetuneConfig, SteeringConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import load_weights, read_json, save_weights, write_json
from bmd_pipeline.io.progress import add_prefix, take_prefix
from bmd_pipeline.methods import PRETRAINED, TAUGHT, UNTRAINED, method_family, uses_modes
from bmd_pipeline.modes.modes import DiscoveredModes, load_modes, make_steering
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.external import BasePolicy
from bmd_pipeline.policies.networks import require_values
from bmd_pipeline.rl.adapters import (
    Adapter,
    ClonedDenoiser,
    Draws,
    FinetunedDenoiser,
    FrozenDenoiser,
    GaussianNoise,
    PolicyInput,
    ResidualAction,
    SteeringAdapter,
)

# ---- Agents: a diffusion policy, the adapters it acts through, and its mode codes ----

PLANNED = "planned"
"""Name among the draws of a correcting agent: 1 at the steps at which a new chunk was planned, (B,)."""


@dataclass(frozen=True)
class Plan:
    """A chunk, and how it came about."""

    chunk: Tensor  # (B, noise_dim) normalised
    draws: Draws  # of the adapters that made it


class Agent(nn.Module):
    """Acts in a task: encodes observations, runs its adapters, un-normalises the chunk.

    An agent plans a chunk of actions every `n_action_steps` control steps. One whose last adapter is a residual
    decides at every control step in between as well, how to correct the next action of the chunk. The policy is frozen.
    Agents without codes have no modes.
    """

    def __init__(self, policy: BasePolicy, adapters: list[Adapter], modes: DiscoveredModes | None) -> None:
        super().__init__()
        self.policy = policy.requires_grad_(False)
        self.stack = nn.ModuleList(adapters)
        self.modes = modes

    @property
    def residual(self) -> ResidualAction | None:
        """Its last adapter, if that corrects actions."""
        last = self.stack[-1]
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
    def coded(self) -> bool:
        """Whether its denoiser is told the mode codes, as in the coded form."""
        return self.modes is not None and self.modes.coded is not None

    @property
    def factor_weights(self) -> list[float]:
        """Factor on the advantage for each draw of a decision whose log-probability PPO sees, (num_factors,)."""
        return [
            weight for adapter in self.adapters for weight in (adapter.factor_weights or (1.0,) * adapter.num_factors)
        ]

    @property
    def entropy_dims(self) -> int:
        """Dimensions of a decision's draws whose spread is trained."""
        return sum(adapter.entropy_dims for adapter in self.adapters)

    @property
    def target_entropy(self) -> float | None:
        """Nats per decision that the spread of its draws shall not fall below; None: no bound."""
        found = [adapter.target_entropy for adapter in self.adapters if adapter.target_entropy is not None]
        return sum(found) if found else None

    @property
    def adapters(self) -> list[Adapter]:
        """From noise to chunk, and maybe a residual, in the order in which they act."""
        return [adapter for adapter in self.stack if isinstance(adapter, Adapter)]

    def plan(self, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> Plan:
        """The next chunk of actions, before any correction."""
        draws: Draws = {}
        x = inputs.cond.new_zeros(len(inputs.cond), 0)
        for index, adapter in enumerate(self.adapters[: len(self.stack) - (self.residual is not None)]):
            x, drawn = adapter.act(x, inputs, generator, explore)
            draws |= {f"{index}.{name}": value for name, value in drawn.items()}
        return Plan(x, draws)

    def correct(
        self, action: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool
    ) -> tuple[Tensor, Draws]:
        """The next action (B, action_dim) of a chunk as the residual corrects it, normalised, and its draws."""
        assert self.residual is not None
        return self.residual.act(action, inputs, generator, explore)

    def act(
        self, plan: Plan, done: int, inputs: PolicyInput, generator: torch.Generator, explore: bool
    ) -> tuple[Tensor, Draws]:
        """The actions of one decision.

        Args:
            plan: the present chunk.
            done: control steps of it that have been taken.
            inputs: what the policy sees now.
            generator: draws.
            explore: draw as in training; if False, act as deployed.

        Returns:
            actions (B, decision_steps, action_dim) in [-1, 1], and all draws.
        """
        if self.residual is None:
            return self.policy.to_action(plan.chunk)[:, : self.decision_steps], plan.draws
        width = self.policy.action_dim
        action = plan.chunk[:, done * width : (done + 1) * width]
        action, draws = self.correct(action, inputs, generator, explore)
        planned = torch.full((len(action),), float(done == 0), device=action.device)
        own = {f"{len(self.stack) - 1}.{name}": drawn for name, drawn in draws.items()}
        return self.policy.to_action(action), plan.draws | own | {PLANNED: planned}

    def evaluate(self, draws: Draws, inputs: PolicyInput) -> tuple[Tensor, Tensor, Tensor]:
        """How likely recorded draws are under the present parameters, and the rest of what adapters say of them.

        A chunk that was planned earlier was no draw of this decision: it counts as certain.

        Returns:
            log-probability (B, num_factors), and of all draws of a decision entropy in nats and penalty, each (B,).
        """
        log_probs, entropies, penalties = [], [], []
        for index, adapter in enumerate(self.adapters):
            prefix = f"{index}."
            own = {name[len(prefix) :]: value for name, value in draws.items() if name.startswith(prefix)}
            log_prob, entropy, penalty = adapter.evaluate(own, inputs)
            if PLANNED in draws and adapter is not self.residual:
                planned = draws[PLANNED]
                log_prob, entropy, penalty = log_prob * planned[:, None], entropy * planned, penalty * planned
            log_probs.append(log_prob)
            entropies.append(entropy)
            penalties.append(penalty)
        return torch.cat(log_probs, dim=1), torch.stack(entropies).sum(dim=0), torch.stack(penalties).sum(dim=0)

    def trained_adapters(self) -> list[Adapter]:
        """Those that have something to train, in the same order."""
        return [adapter for adapter in self.adapters if adapter.trainable()]

    def trainable(self) -> list[list[nn.Parameter]]:
        """What is trained, one group per adapter that has something."""
        return [adapter.trainable() for adapter in self.trained_adapters()]


def make_base_agent(policy: BasePolicy) -> Agent:
    """The pre-trained policy on its own."""
    return Agent(policy, [GaussianNoise(policy.noise_dim), FrozenDenoiser(policy)], None)


def make_commanded_agent(policy: BasePolicy, modes: DiscoveredModes) -> Agent:
    """The frozen policy commanded by codes: the coded one, or in the published form the base behind its steering."""
    if modes.steering is not None:
        return Agent(policy, [SteeringAdapter(modes.steering, deterministic=True), FrozenDenoiser(policy)], modes)
    coded = modes.acting_policy(policy)
    return Agent(coded, [GaussianNoise(coded.noise_dim), FrozenDenoiser(coded)], modes)


def remove_steering(agent: Agent) -> Agent:
    """The same agent with noise from the prior in the place of its steering policy; one without it as it is."""
    first, *rest = agent.adapters
    if not isinstance(first, SteeringAdapter):
        return agent
    return Agent(agent.policy, [GaussianNoise(agent.policy.noise_dim), *rest], agent.modes)


def make_agent(
    method: str,
    policy: BasePolicy,
    modes: DiscoveredModes | None,
    config: FinetuneConfig,
    steering: SteeringConfig,
) -> Agent:
    """An agent of a fine-tuning method, ready to train.

    Args:
        method: one of `methods.METHODS`.
        policy: the pre-trained policy.
        modes: discovered modes; needed by the `-bmd` methods.
        config: fine-tuning settings.
        steering: shape of a steering policy that discovery did not make.

    Raises:
        ArtifactError: a `-bmd` method without modes, `fbc-bmd` with modes of the published form, or a method that
            trains the denoiser with an external policy.
    """
    coded = uses_modes(method)
    if coded and modes is None:
        raise ArtifactError(f"method {method} needs discovered modes: run `bmd-pipeline discover` first")
    modes = modes if coded else None
    if method_family(method) == "fbc" and modes is not None and modes.coded is None:
        raise ArtifactError(f"method {method} clones codes into the denoiser: it needs discover.form=coded")
    codes = modes.num_codes if modes else 1
    acting = modes.acting_policy(policy) if modes else policy
    adapter = method_family(method)
    # the steering policy that was discovered, or a new one that starts as the prior
    network = copy.deepcopy(modes.steering) if modes else None
    if network is None and adapter == "dsrl":
        network = make_steering(acting, codes, steering).to(acting.device)
    adapters: list[Adapter] = [GaussianNoise(acting.noise_dim)]
    if network is not None:
        adapters = [SteeringAdapter(network.requires_grad_(True), config.deterministic, config.target_entropy)]
    if adapter in UNTRAINED:
        adapters.append(FrozenDenoiser(acting))
    elif not isinstance(acting, DiffusionPolicy):
        raise ArtifactError(
            f"method {method} trains a denoiser, which a policy of pretrain.external_policy doesn't show: use "
            f"{' or '.join(UNTRAINED)}, which leave the policy as it is"
        )
    elif adapter == "dppo":
        adapters.append(FinetunedDenoiser(acting, config.denoiser))
    else:
        adapters.append(ClonedDenoiser(acting, config.denoiser))
    if adapter == "res":
        residual = ResidualAction(acting.cond_dim, acting.action_dim, codes, config.residual, config.ppo)
        adapters.append(residual.to(acting.device))
    return Agent(acting, adapters, modes)


# ---- Fine-tuned agents on disk ----

FINETUNED_WEIGHTS = "finetuned.safetensors"
FINETUNED_DOCUMENT = "finetuned.json"
FINETUNED_VERSION = 1


def save_trained(folder: Path, weights: dict[str, Tensor], document: dict[str, Any]) -> None:
    """Writes a fine-tuned policy as `load_agent` reads it: `trained_state`, and what it was made with as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / FINETUNED_WEIGHTS, weights)
    write_json(folder / FINETUNED_DOCUMENT, {"schema_version": FINETUNED_VERSION, "stage": "finetune", **document})


def load_agent(
    policy: BasePolicy, modes_dir: Path | None, finetuned_dir: Path | None, method: str, *, task: str
) -> Agent:
    """Loads what evaluation plays under a method of fine-tuning, or as "pretrained" or "taught", of the pre-trained
    policy and on its device.

    Everything the agent needs is in its own folders: settings come from there, not from the present config.
    `modes_dir` is for policies with codes, and `finetuned_dir` is None before fine-tuning.

    Raises:
        ArtifactError: a folder is missing, damaged, or made for another task or method.
    """
    if method == PRETRAINED:
        return make_base_agent(policy)
    modes = None
    if uses_modes(method):
        if modes_dir is None:
            raise ArtifactError(f"method {method} needs discovered modes: run `bmd-pipeline discover --task {task}`")
        modes = load_modes(modes_dir, policy, task=task)
        if method == TAUGHT:
            return make_commanded_agent(policy, modes).requires_grad_(False).eval()
    if finetuned_dir is None:
        raise ArtifactError(f"method {method} needs what it fine-tuned: run `bmd-pipeline finetune --task {task}`")
    path = finetuned_dir / FINETUNED_DOCUMENT
    if not path.is_file():  # as after a fine-tuning by an earlier version, which named it otherwise
        raise ArtifactError(f"{path} is missing: make it with `bmd-pipeline finetune --task {task} --method {method}`")
    document = read_json(path, "fine-tuned policy")
    again = f"run `bmd-pipeline finetune --task {task} --method {method}` again"
    if document.get("schema_version") != FINETUNED_VERSION:
        raise ArtifactError(
            f"{path}: schema version {document.get('schema_version')}, this version reads {FINETUNED_VERSION}; {again}"
        )
    if (document.get("task"), document.get("method")) != (task, method):
        raise ArtifactError(
            f"{path}: fine-tuned for task {document.get('task')!r} by {document.get('method')!r}, "
            f"expected {task!r} by {method!r}"
        )
    built_on = {"policy_sha256": policy.fingerprint, "modes_sha256": modes.fingerprint if modes else None}
    for name, present in built_on.items():
        if document.get(name) != present:
            raise ArtifactError(
                f"{path}: fine-tuned from another {name.removesuffix('_sha256')} than the present one; {again}"
            )
    try:
        config = FinetuneConfig.model_validate(document["finetune"])
        steering = SteeringConfig.model_validate(document["steering"])
        weights = load_weights(finetuned_dir / FINETUNED_WEIGHTS)
        if method_family(method) == "res":
            require_values(config.residual.hidden_sizes, weights)
        elif method_family(method) == "dsrl" and (modes is None or modes.steering is None):
            require_values(steering.hidden_sizes, weights)
        agent = make_agent(method, policy, modes, config, steering)
        load_trained(agent, weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path}: does not fit this policy or this version; {again}") from error
    return agent.requires_grad_(False).eval()


def trained_state(agent: Agent) -> dict[str, Tensor]:
    """Weights that fine-tuning may have changed: the adapters' own, and the inference model's."""
    own = add_prefix("adapters", _adapters_state(agent))
    if agent.modes is not None:
        own |= add_prefix("inference", agent.modes.inference.state_dict())
    return {name: value.detach().clone() for name, value in own.items()}


def load_trained(agent: Agent, weights: dict[str, Tensor]) -> None:
    """Puts back what `trained_state` returned.

    Raises:
        RuntimeError: the weights are of another agent.
    """
    own, expected = take_prefix("adapters", weights), _adapters_state(agent)
    if own.keys() != expected.keys():
        raise RuntimeError(f"expected weights {sorted(expected)}, got {sorted(own)}")
    agent.stack.load_state_dict(own, strict=False)
    if agent.modes is not None:
        agent.modes.inference.load_state_dict(take_prefix("inference", weights))


def _adapters_state(agent: Agent) -> dict[str, Tensor]:
    """The adapters' weights without the frozen policy's."""
    frozen = {id(parameter) for parameter in agent.policy.parameters()} | {id(b) for b in agent.policy.buffers()}
    return {name: value for name, value in agent.stack.state_dict(keep_vars=True).items() if id(value) not in frozen}
