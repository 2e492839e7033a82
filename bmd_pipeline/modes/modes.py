"""What discovery found, on disk and in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from bmd_pipeline.config.schema import DiscoverConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file, load_weights, read_json, save_weights, write_json
from bmd_pipeline.modes.clustering import resample_track
from bmd_pipeline.modes.inference import InferenceModel
from bmd_pipeline.modes.steering import NoiseBasis, SteeringPolicy
from bmd_pipeline.policies.diffusion import DiffusionPolicy

WEIGHTS = "modes.safetensors"
DOCUMENT = "modes.json"
CENTRES = "centres"
SCHEMA_VERSION = 2


_COLUMNS = TypeAdapter(tuple[NonNegativeInt, ...])
_NAMES = TypeAdapter(tuple[str, ...])
_FINDINGS = TypeAdapter(dict[str, FiniteFloat | list[FiniteFloat]])


@dataclass
class DiscoveredModes:
    """Inference model, and what is told a code: a coded policy, or in the published form a steering policy.

    Attributes:
        config: settings of the discovery; `num_modes` is the number of codes that there are.
        feature_columns: indices of the track columns that the inference model sees.
        inference: q_φ(z|h).
        coded: π(a|s,z), the policy that was taught its codes; None in the published form.
        steering: π_ψ(w|s,z); None in the coded form.
        findings: what was measured: held-out multimodality, success of the base policy and per code.
        names: what the codes are called, (K,).
        centres: (K, points · obs_dim) clusters of the demonstrations; None in the published form.
        fingerprint: hash of the weights file, once loaded: what is fine-tuned with these modes names it.
    """

    config: DiscoverConfig
    feature_columns: tuple[int, ...]
    inference: InferenceModel
    coded: DiffusionPolicy | None
    steering: SteeringPolicy | None
    findings: dict[str, Any]
    names: tuple[str, ...] = ()
    centres: Tensor | None = None
    fingerprint: str = ""

    @property
    def num_codes(self) -> int:
        """K; with density clustering, as many as were found."""
        return self.config.num_modes

    def acting_policy(self, policy: DiffusionPolicy) -> DiffusionPolicy:
        """The denoiser that acts under a code: the coded one, or in the published form the base policy."""
        return policy if self.coded is None else self.coded

    def networks(self) -> nn.ModuleDict:
        """All networks by name."""
        parts: dict[str, nn.Module | None] = {
            "inference": self.inference,
            "policy": self.coded,
            "steering": self.steering,
        }
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def name_behaviours(self, cond: Tensor, last: Tensor) -> Tensor | None:
        """The behaviour (N,) that each episode shows: the nearest cluster; None in the published form.

        Args:
            cond: (T + 1, N, cond_dim) encoded observations at each decision.
            last: (N,) index of each episode's last entry.
        """
        if self.centres is None or self.coded is None:
            return None
        points = resample_track(cond[..., : self.coded.obs_dim], last, self.config.cluster_points)
        return torch.cdist(points, self.centres).argmin(dim=1)

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
                "names": list(self.names),
                "findings": self.findings,
            },
        )


def make_modes(config: DiscoverConfig, policy: DiffusionPolicy, feature_columns: tuple[int, ...]) -> DiscoveredModes:
    """Untrained networks for a discovery of `config.num_modes` codes."""
    inference = InferenceModel(len(feature_columns), config.num_modes, config.inference)
    coded, steering = None, None
    if config.form == "coded":
        coded = policy.with_codes(config.num_modes).requires_grad_(False).eval()
    else:
        basis = NoiseBasis(policy.config.horizon, policy.action_dim, config.steering.noise_components)
        steering = SteeringPolicy(policy.cond_dim, config.num_modes, basis, config.steering)
    names = tuple(f"mode {code}" for code in range(config.num_modes))
    return DiscoveredModes(config, feature_columns, inference, coded, steering, {}, names)


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
        modes.names = _NAMES.validate_python(document["names"])
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
    device = next(policy.parameters()).device
    modes.networks().requires_grad_(False).to(device)
    modes.centres = modes.centres if modes.centres is None else modes.centres.to(device)
    return modes
