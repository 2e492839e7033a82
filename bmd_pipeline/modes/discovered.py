"""What discovery found, on disk and in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bmd_pipeline.artifacts.atomic import write_json
from bmd_pipeline.artifacts.documents import read_json
from bmd_pipeline.artifacts.weights import load_weights, save_weights
from bmd_pipeline.config.discover import DiscoverConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.modes.inference import InferenceModel
from bmd_pipeline.modes.noise_basis import NoiseBasis
from bmd_pipeline.modes.selector import NoiseSelector
from bmd_pipeline.modes.steering import SteeringPolicy
from bmd_pipeline.policies.diffusion import DiffusionPolicy

WEIGHTS = "modes.safetensors"
DOCUMENT = "modes.json"


@dataclass
class DiscoveredModes:
    """Inference model, and what steers towards a code.

    Attributes:
        config: settings of the discovery.
        feature_columns: indices of the track columns that the inference model sees.
        inference: q_φ(z|h).
        steering: π_ψ(w|s,z), or None under the strategy `held`.
        selector: chooses the held noise, only under the strategy `held`.
        findings: what was measured: held-out multimodality, success of the base policy and per code.
    """

    config: DiscoverConfig
    feature_columns: tuple[int, ...]
    inference: InferenceModel
    steering: SteeringPolicy | None
    selector: NoiseSelector | None
    findings: dict[str, Any]

    @property
    def num_codes(self) -> int:
        """K."""
        return self.config.num_modes

    def networks(self) -> nn.ModuleDict:
        """All networks by name."""
        parts: dict[str, nn.Module] = {"inference": self.inference}
        if self.steering is not None:
            parts["steering"] = self.steering
        if self.selector is not None:
            parts["selector"] = self.selector
        return nn.ModuleDict(parts)

    def save(self, directory: Path, task: str) -> None:
        """Writes modes.safetensors and modes.json."""
        save_weights(directory / WEIGHTS, self.networks().state_dict())
        write_json(
            directory / DOCUMENT,
            {
                "schema_version": 1,
                "task": task,
                "config": self.config.model_dump(mode="json"),
                "feature_columns": list(self.feature_columns),
                "findings": self.findings,
            },
        )


def make_modes(config: DiscoverConfig, policy: DiffusionPolicy, feature_columns: tuple[int, ...]) -> DiscoveredModes:
    """Untrained networks for a discovery."""
    shape = policy.config
    inference = InferenceModel(len(feature_columns), config.num_modes, config.inference)
    steering, selector = None, None
    if config.strategy == "held":
        held = NoiseBasis(shape.horizon, policy.action_dim, config.commit.noise_components)
        selector = NoiseSelector(policy.cond_dim, held.dim, config.num_modes, config.commit)
    else:
        basis = NoiseBasis(shape.horizon, policy.action_dim, config.steering.noise_components)
        steering = SteeringPolicy(policy.cond_dim, config.num_modes, basis, config.steering)
    return DiscoveredModes(config, feature_columns, inference, steering, selector, {})


def load_modes(directory: Path, policy: DiffusionPolicy, *, task: str) -> DiscoveredModes:
    """Reads what `DiscoveredModes.save` wrote.

    Raises:
        ArtifactError: missing, damaged, or made for another task or another policy.
    """
    path = directory / DOCUMENT
    document = read_json(path, "discovered modes")
    if document.get("task") != task:
        raise ArtifactError(f"{path}: modes of task {document.get('task')!r}, expected {task!r}")
    try:
        config = DiscoverConfig.model_validate(document["config"])
        modes = make_modes(config, policy, tuple(document["feature_columns"]))
        modes.findings = dict(document["findings"])
        modes.networks().load_state_dict(load_weights(directory / WEIGHTS))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: does not fit this policy or this version; run `bmd-pipeline discover --task {task}` again"
        ) from error
    for parameter in modes.networks().parameters():
        parameter.requires_grad_(False)
    device = next(policy.parameters()).device
    modes.networks().to(torch.device(device))
    return modes
