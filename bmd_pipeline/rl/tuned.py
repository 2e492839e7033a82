"""Fine-tuned agents on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bmd_pipeline.config.schema import PRETRAINED, TAUGHT, FinetuneConfig, SteeringConfig, uses_modes
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import load_weights, read_json
from bmd_pipeline.modes.discovered import load_modes
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.rl.agents import Agent, make_agent, make_base_agent, make_commanded_agent

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
