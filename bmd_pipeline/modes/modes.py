"""What discovery found, on disk and in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter
from torch import Tensor, nn

from bmd_pipeline.config.schema import DiscoverConfig, ModesConfig, SteeringConfig
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import hash_file, load_weights, read_json, save_weights, write_json
from bmd_pipeline.modes.inference import InferenceModel
from bmd_pipeline.modes.steering import NoiseBasis, SteeringPolicy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.external import BasePolicy
from bmd_pipeline.policies.networks import require_values

WEIGHTS = "modes.safetensors"
DOCUMENT = "modes.json"
CENTRES, CLUSTER_CODES = "centres", "cluster_codes"
DROPPED = -1
"""In place of a code: that of a cluster which a person dropped."""
SCHEMA_VERSION = 3

_COLUMNS = TypeAdapter(tuple[NonNegativeInt, ...])
_FINDINGS = TypeAdapter(dict[str, FiniteFloat | list[FiniteFloat]])


class CodedClusters(NamedTuple):
    """Clusters of the demonstrations, each with its code; by them it is told whose behaviour an episode shows."""

    centres: Tensor  # (C, points · obs_dim)
    codes: Tensor  # (C,) int64, the code of each, or DROPPED

    def tensors(self) -> dict[str, Tensor]:
        """For a file; `take_clusters` reads them back."""
        return {CENTRES: self.centres, CLUSTER_CODES: self.codes}


def take_clusters(tensors: dict[str, Tensor]) -> CodedClusters | None:
    """Takes the clusters out of a file's tensors; None if there are none, a KeyError if they are not whole."""
    return CodedClusters(tensors.pop(CENTRES), tensors.pop(CLUSTER_CODES)) if CENTRES in tensors else None


@dataclass
class DiscoveredModes:
    """Inference model, and what is told a code: a coded policy, or in the published form a steering policy."""

    config: DiscoverConfig  # `num_modes` is the number of codes that there are
    feature_columns: tuple[int, ...]  # indices of the track columns that the inference model sees
    inference: InferenceModel  # q_φ(z|h)
    coded: DiffusionPolicy | None  # π(a|s,z), the policy that was taught its codes; None in the published form
    steering: SteeringPolicy | None  # π_ψ(w|s,z); None in the coded form
    findings: dict[str, Any]  # what was measured: held-out multimodality, success of the base policy and per code
    clusters: CodedClusters | None = None  # None in the published form
    fingerprint: str = ""  # hash of the weights file, once loaded: what is fine-tuned with these modes names it

    @property
    def num_codes(self) -> int:
        """K; with density clustering, as many as were found."""
        return self.config.num_modes

    def acting_policy(self, policy: BasePolicy) -> BasePolicy:
        """The denoiser that acts under a code: the coded one, or in the published form the base policy."""
        return policy if self.coded is None else self.coded

    def networks(self) -> nn.ModuleDict:
        """All networks by name."""
        parts = {"inference": self.inference, "policy": self.coded, "steering": self.steering}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def read_codes(self, cond: Tensor, last: Tensor) -> Tensor | None:
        """Code (N,) of the cluster of demonstrations that each episode is nearest to, DROPPED if that was dropped; None
        in the published form, which has no clusters.

        Of encoded observations (T + 1, N, cond_dim) at each decision, `last` (N,) are each episode's last entries.
        """
        if self.clusters is None or self.coded is None:
            return None
        points = resample_track(cond[..., : self.coded.obs_dim], last, self.config.cluster_points)
        return self.clusters.codes[torch.cdist(points, self.clusters.centres).argmin(dim=1)]

    def names(self, decided: ModesConfig) -> tuple[str | None, ...]:
        """What a person called the codes; empty where nothing was decided.

        Raises:
            ConfigError: it was decided about other modes.
        """
        decided.require_sizes(self.findings.get("cluster_sizes", ()))
        return decided.names_by_code()

    def shares(self) -> list[float] | None:
        """Share of the demonstrations that show each code's behaviour, (K,), those of dropped clusters not counted;
        None in the published form."""
        sizes = self.findings.get("cluster_sizes")
        if sizes is None or self.clusters is None:
            return None
        codes = self.clusters.codes.cpu()
        kept = codes != DROPPED
        counts = torch.bincount(codes[kept], torch.tensor(sizes)[kept], self.num_codes)
        return (counts / counts.sum()).tolist()

    def save(self, directory: Path, task: str, policy: BasePolicy) -> None:
        """Writes modes.safetensors and modes.json, which names the policy they were discovered in."""
        tensors = self.networks().state_dict()
        if self.clusters is not None:
            tensors |= self.clusters.tensors()
        save_weights(directory / WEIGHTS, tensors)
        write_json(
            directory / DOCUMENT,
            {
                "schema_version": SCHEMA_VERSION,
                "stage": "discover",
                "task": task,
                "policy_sha256": policy.fingerprint,
                "config": self.config.model_dump(mode="json"),
                "feature_columns": list(self.feature_columns),
                "findings": self.findings,
            },
        )


def make_modes(config: DiscoverConfig, policy: BasePolicy, feature_columns: tuple[int, ...]) -> DiscoveredModes:
    """Untrained networks for a discovery of `config.num_modes` codes.

    Raises `ConfigError` if an external policy is to be taught codes.
    """
    inference = InferenceModel(len(feature_columns), config.num_modes, config.inference)
    coded, steering = None, None
    if config.form == "coded":
        if not isinstance(policy, DiffusionPolicy):
            raise ConfigError(
                "discover.form must be published for a policy of pretrain.external_policy, which can't be taught codes"
            )
        coded = policy.with_codes(config.num_modes).requires_grad_(False).eval()
    else:
        steering = make_steering(policy, config.num_modes, config.steering)
    return DiscoveredModes(config, feature_columns, inference, coded, steering, {})


def make_steering(policy: BasePolicy, num_codes: int, config: SteeringConfig) -> SteeringPolicy:
    """A steering policy of a diffusion policy, which starts as the prior."""
    basis = NoiseBasis(policy.config.horizon, policy.action_dim, config.noise_components)
    return SteeringPolicy(policy.cond_dim, num_codes, basis, config)


def load_modes(directory: Path, policy: BasePolicy, *, task: str) -> DiscoveredModes:
    """Reads what `DiscoveredModes.save` wrote.

    Raises:
        ArtifactError: missing, damaged, or made for another task or another policy.
    """
    path, again = directory / DOCUMENT, f"run `bmd-pipeline discover --task {task}` again"
    document = read_json(path, "discovered modes")
    if document.get("task") != task:
        raise ArtifactError(f"{path}: modes of task {document.get('task')!r}, expected {task!r}")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {document.get('schema_version')}, this version reads {SCHEMA_VERSION}; {again}"
        )
    if document.get("policy_sha256") != policy.fingerprint:
        raise ArtifactError(f"{path}: discovered in another policy than the present one; {again}")
    try:
        config = DiscoverConfig.model_validate(document["config"])
        tensors = {name: value.to(policy.device) for name, value in load_weights(directory / WEIGHTS).items()}
        networks = (config.inference, *((config.steering,) if config.form == "published" else ()))
        for network in networks:
            require_values(network.hidden_sizes, tensors)
        modes = make_modes(config, policy, _COLUMNS.validate_python(document["feature_columns"]))
        modes.findings = _FINDINGS.validate_python(document["findings"])
        modes.clusters = take_clusters(tensors)
        if config.form == "coded":
            _require_clusters(modes, policy.obs_dim)
        modes.networks().load_state_dict(tensors)
        modes.fingerprint = hash_file(directory / WEIGHTS)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path}: does not fit this policy or this version; {again}") from error
    modes.networks().requires_grad_(False).to(policy.device)
    return modes


def _require_clusters(modes: DiscoveredModes, obs_dim: int) -> None:
    """Each code has a cluster of the right size; what is wrong is a ValueError."""
    if modes.clusters is None:
        raise ValueError("clusters are missing")
    centres, codes = modes.clusters
    if tuple(centres.shape) != (len(codes), modes.config.cluster_points * obs_dim):
        raise ValueError("centres of clusters don't fit")
    if set(codes.tolist()) - {DROPPED} != set(range(modes.num_codes)):
        raise ValueError("codes of clusters don't fit")


# ---- An episode as points, by which behaviours are told apart ----


def resample_track(track: Tensor, length: Tensor, points: int, *, keep_start: bool = False) -> Tensor:
    """Describes each episode by evenly spaced points, linearly interpolated, so that slow and fast ones compare.

    Args:
        track: (T + 1, N, F).
        length: (N,) index of each episode's last entry.
        points: how many, the last one being the episode's end.
        keep_start: whether the first point is the episode's start; if not, it lies one spacing after it.

    Returns:
        (N, points * F).
    """
    steps, episodes = track.shape[:2]
    firsts = torch.arange(episodes, device=track.device) * steps
    return interpolate_rows(track.transpose(0, 1).flatten(0, 1), firsts, firsts + length, points, keep_start=keep_start)


def interpolate_rows(rows: Tensor, firsts: Tensor, lasts: Tensor, points: int, *, keep_start: bool = False) -> Tensor:
    """Describes E episodes, stored one after the other in rows (W, F), as `resample_track` does: (E, points * F).

    `firsts` and `lasts` (E,) are the first and the last row of each.
    """
    share = torch.linspace(0.0, 1.0, points + (not keep_start), device=rows.device, dtype=torch.float64)[-points:]
    position = share * (lasts - firsts)[:, None]  # (E, points)
    below = position.floor().long()
    above = torch.minimum(below + 1, (lasts - firsts)[:, None])
    weight = (position - below)[..., None].to(rows.dtype)
    first = firsts[:, None]
    return ((1.0 - weight) * rows[first + below] + weight * rows[first + above]).flatten(start_dim=1)
