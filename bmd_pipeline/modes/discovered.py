"""What discovery found, on disk and in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from bmd_pipeline.artifacts.atomic import write_json
from bmd_pipeline.artifacts.documents import read_json
from bmd_pipeline.artifacts.hashing import hash_file
from bmd_pipeline.artifacts.weights import load_weights, save_weights
from bmd_pipeline.config.discover import DiscoverConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.modes.clustering import resample_track
from bmd_pipeline.modes.inference import InferenceModel
from bmd_pipeline.modes.noise_basis import NoiseBasis
from bmd_pipeline.modes.selector import NoiseSelector
from bmd_pipeline.modes.steering import SteeringPolicy
from bmd_pipeline.policies.diffusion import DiffusionPolicy

WEIGHTS = "modes.safetensors"
DOCUMENT = "modes.json"
CENTRES = "centres"
SCHEMA_VERSION = 1


_COLUMNS = TypeAdapter(tuple[NonNegativeInt, ...])
_FINDINGS = TypeAdapter(dict[str, FiniteFloat | list[FiniteFloat]])


@dataclass
class DiscoveredModes:
    """Inference model, and what steers towards a code.

    Attributes:
        config: settings of the discovery; `num_modes` is the number of codes that there are.
        feature_columns: indices of the track columns that the inference model sees.
        inference: q_φ(z|h).
        steering: π_ψ(w|s,z), or None under the strategy `held`.
        selector: chooses the held noise, only under the strategy `held`.
        centres: (K, points * feature_dim) clusters of the base policy's successful episodes; None if unseeded.
        fingerprint: hash of the weights file, once loaded: what is tuned with these modes names it.
        findings: what was measured: held-out multimodality, success of the base policy and per code.
    """

    config: DiscoverConfig
    feature_columns: tuple[int, ...]
    inference: InferenceModel
    steering: SteeringPolicy | None
    selector: NoiseSelector | None
    findings: dict[str, Any]
    centres: Tensor | None = None
    fingerprint: str = ""

    @property
    def num_codes(self) -> int:
        """K; with density clustering, as many as were found."""
        return self.config.num_modes

    def resize(self, num_codes: int, policy: DiffusionPolicy) -> None:
        """Makes the networks anew for another number of codes; the scale of the features stays.

        Args:
            num_codes: K.
            policy: the one whose modes these are.
        """
        config = self.config.model_copy(update={"num_modes": num_codes})
        fresh = make_modes(config, policy, self.feature_columns)
        fresh.networks().to(self.inference.mean.device)
        fresh.inference.mean.copy_(self.inference.mean)
        fresh.inference.std.copy_(self.inference.std)
        self.config = config
        self.inference, self.steering, self.selector = fresh.inference, fresh.steering, fresh.selector

    def networks(self) -> nn.ModuleDict:
        """All networks by name."""
        parts: dict[str, nn.Module] = {"inference": self.inference}
        if self.steering is not None:
            parts["steering"] = self.steering
        if self.selector is not None:
            parts["selector"] = self.selector
        return nn.ModuleDict(parts)

    def occupancy(self, features: Tensor, decisions: Tensor, success: Tensor) -> Tensor | None:
        """Share of the successful episodes in each discovered behaviour, (K,); None without clusters or successes.

        Args:
            features: (T + 1, N, feature_dim) raw track columns.
            decisions: (N,) decisions each episode took.
            success: (N,).
        """
        if self.centres is None or not bool(success.any()):
            return None
        scaled = self.inference.normalise(features)
        points = resample_track(scaled, decisions, self.config.cluster_points)
        nearest = torch.cdist(points[success], self.centres).argmin(dim=1)
        return torch.bincount(nearest, minlength=self.num_codes).float() / len(nearest)

    def save(self, directory: Path, task: str, policy: DiffusionPolicy) -> None:
        """Writes modes.safetensors and modes.json, which names the policy they were discovered in."""
        tensors = self.networks().state_dict()
        if self.centres is not None:
            tensors[CENTRES] = self.centres
        save_weights(directory / WEIGHTS, tensors)
        write_json(
            directory / DOCUMENT,
            {
                "schema_version": SCHEMA_VERSION,
                "task": task,
                "policy_sha256": policy.fingerprint,
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
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {document.get('schema_version')}, this version reads {SCHEMA_VERSION}; "
            f"run `bmd-pipeline discover --task {task}` again"
        )
    if document.get("policy_sha256") != policy.fingerprint:
        raise ArtifactError(
            f"{path}: discovered in another policy than the present one; "
            f"run `bmd-pipeline discover --task {task}` again"
        )
    try:
        config = DiscoverConfig.model_validate(document["config"])
        modes = make_modes(config, policy, _COLUMNS.validate_python(document["feature_columns"]))
        modes.findings = _FINDINGS.validate_python(document["findings"])
        modes.findings["final_information"]
        tensors = load_weights(directory / WEIGHTS)
        modes.centres = tensors.pop(CENTRES, None)
        modes.networks().load_state_dict(tensors)
        modes.fingerprint = hash_file(directory / WEIGHTS)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: does not fit this policy or this version; run `bmd-pipeline discover --task {task}` again"
        ) from error
    for parameter in modes.networks().parameters():
        parameter.requires_grad_(False)
    device = next(policy.parameters()).device
    modes.networks().to(device)
    modes.centres = modes.centres if modes.centres is None else modes.centres.to(device)
    return modes
