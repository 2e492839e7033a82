"""A policy on disk: weights in safetensors, settings in JSON beside them."""

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from bmd_pipeline.config.hashing import hash_values
from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file, hash_tensors, load_weights, read_json, save_weights, write_json
from bmd_pipeline.io.layout import POLICY_FILE
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.external import BasePolicy, ExternalPolicy, load_external, require_same
from bmd_pipeline.policies.networks import require_denoiser

SCHEMA_VERSION = 2
SETTINGS_FILE = "policy.json"
Bounds = tuple[float, ...]
_IDENTITY = TypeAdapter(dict[str, str])


def save_policy(policy: BasePolicy, directory: Path, task: str) -> None:
    """Writes `policy.safetensors` (with the normalisers) and `policy.json`, which names its task, into a folder.

    Of an external policy the normalisers alone are written, what it did when it was tried out, and what identifies it.
    """
    weights = directory / POLICY_FILE
    kind: dict[str, Any]
    if isinstance(policy, ExternalPolicy):
        tensors, kind = policy.own_tensors(), {"external": policy.identify()}
    else:
        tensors, kind = policy.state_dict(), {"policy": policy.config.model_dump(mode="json")}
    save_weights(weights, tensors)
    settings = {
        "schema_version": SCHEMA_VERSION,
        "stage": "pretrain",
        "task": task,
        "obs_dim": policy.obs_dim,
        "action_dim": policy.action_dim,
        "action_low": policy.action_low,
        "action_high": policy.action_high,
        **kind,
        "weights_sha256": hash_file(weights),
    }
    write_json(directory / SETTINGS_FILE, settings)


def load_policy(
    directory: Path,
    *,
    task: str | None = None,
    device: torch.device | str = "cpu",
    obs_dim: int | None = None,
    action_dim: int | None = None,
    action_bounds: tuple[Bounds, Bounds] | None = None,
    external: str = "",
) -> BasePolicy:
    """Reads a policy that `save_policy` wrote; nothing else is needed to run it, but for the code of an external one.

    Task, sizes of observation and action, and lower and upper bounds of actions are what it must fit, where given. It
    comes in evaluation mode, and its parameters require no gradient. `external` is the function of
    `pretrain.external_policy`; a file that names another one is refused, so that nothing is imported because of it.

    Raises:
        ArtifactError: a file is missing or damaged, or the policy is for another task or other sizes.
    """
    path = directory / SETTINGS_FILE
    settings = read_json(path, "policy")
    if settings.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"policy: {path} has schema version {settings.get('schema_version')}, "
            f"this release reads {SCHEMA_VERSION}; train it again"
        )
    if task is not None and settings.get("task") != task:
        raise ArtifactError(f"policy: {directory} was trained for {settings.get('task')}, not for {task}")
    try:
        config = None if "external" in settings else PolicyConfig.model_validate(settings["policy"])
        identity = _IDENTITY.validate_python(settings["external"]) if config is None else {}
        sizes = {name: settings[name] for name in ("obs_dim", "action_dim")}
        if not all(type(size) is int and size > 0 for size in sizes.values()):
            raise ValueError(f"sizes must be whole numbers above 0, got {sizes}")
        low, high = (tuple(float(value) for value in settings[name]) for name in ("action_low", "action_high"))
        expected_hash = str(settings["weights_sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"policy: {path} is damaged ({_first_problem(error)}); train it again") from None
    for name, wanted in (("obs_dim", obs_dim), ("action_dim", action_dim)):
        if wanted is not None and sizes[name] != wanted:
            raise ArtifactError(f"policy: {directory} has {name} {sizes[name]}, the task has {wanted}")
    if action_bounds is not None and action_bounds != (low, high):
        raise ArtifactError(
            f"policy: {directory} was trained for actions between {list(low)} and {list(high)}, "
            f"the task's are between {list(action_bounds[0])} and {list(action_bounds[1])}"
        )
    weights = directory / POLICY_FILE
    tensors = load_weights(weights)
    if hash_file(weights) != expected_hash:
        raise ArtifactError(f"policy: {weights} is not what {SETTINGS_FILE} describes; train it again")
    if identity.get("function", "") != external:
        raise ArtifactError(
            f"policy: {directory} is of pretrain.external_policy {identity.get('function', '')!r}, the settings say "
            f"{external!r}: give the setting that it was made with, or run `bmd-pipeline pretrain` again"
        )
    if config is None:
        policy: BasePolicy = _find_external(path, identity, external, tensors, sizes, (low, high))
    else:
        policy = _fill(config, sizes, tensors, weights)
        policy.fingerprint = expected_hash
    for name, tensor in tensors.items():
        is_std = name.endswith("_normaliser.std")
        if not tensor.is_floating_point() or (is_std and not bool((tensor > 0.0).all())):
            raise ArtifactError(f"policy: {weights}: {name} must be floats{' above 0' if is_std else ''}")
    policy.action_low, policy.action_high = low, high
    policy = policy.to(device).requires_grad_(False).eval()
    if isinstance(policy, ExternalPolicy):
        require_same(policy)
    return policy


def _fill(config: PolicyConfig, sizes: dict[str, int], tensors: dict[str, Tensor], weights: Path) -> DiffusionPolicy:
    dims = (sizes["action_dim"] * config.horizon, sizes["obs_dim"] * config.n_obs_steps)
    try:
        require_denoiser(config, *dims, tensors)
        policy = DiffusionPolicy(config, **sizes)
        policy.load_state_dict(tensors)
    except (ValueError, RuntimeError):
        raise ArtifactError(f"policy: {weights} does not fit the settings in {SETTINGS_FILE}") from None
    return policy


def _find_external(
    path: Path,
    recorded: dict[str, str],
    function: str,
    tensors: dict[str, Tensor],
    sizes: dict[str, int],
    bounds: tuple[Bounds, Bounds],
) -> ExternalPolicy:
    """The external policy that a file of settings describes, if it is still the same."""
    policy = load_external(function, sizes, bounds)
    found = policy.identify()
    for name, what in (("source_sha256", "the code of its module"), ("weights_sha256", "its weights")):
        if found[name] != recorded.get(name):
            raise ArtifactError(
                f"policy: {path} describes {function}, but {what} changed since: run `bmd-pipeline pretrain` again"
            )
    try:
        policy.load_own_tensors(tensors)
    except ValueError:
        raise ArtifactError(f"policy: {path} does not fit {function}: run `bmd-pipeline pretrain` again") from None
    policy.fingerprint = hash_values(found | {"tensors": hash_tensors(tensors)})
    return policy


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, ('policy', *first['loc'])))}: {first['msg']}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error).splitlines()[0]
