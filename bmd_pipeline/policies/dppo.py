"""DPPO's pre-trained policies as ours: a checkpoint, its configuration, and the scales of its data.

Source: DPPO (arXiv 2409.00588), a `DiffusionModel` around a `DiffusionMLP` with residual blocks. Its U-Nets,
transformers and policies of images, and what it has fine-tuned, are refused.
"""

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from bmd_pipeline.config.load import describe_error, read_settings
from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import MAX_WEIGHTS_BYTES, open_file
from bmd_pipeline.policies.conversion import NO_BOUND, fill_policy, make_scales, see_differences
from bmd_pipeline.policies.diffusion import DiffusionPolicy

RANGE_OFFSET = 1e-6
"""What DPPO adds to the range of an observation before it divides by it."""
ACTIVATIONS = {"ReLU": "relu", "Mish": "mish", "Tanh": "tanh"}
"""By DPPO's names."""
_SCALES = ("obs_min", "obs_max", "action_min", "action_max")
_MAX_SCALES_BYTES = 1 << 20
"""Of each array of a scales file, unpacked."""


def read_dppo(checkpoint: Path, config: Path, normalisation: Path | None, spec: TaskSpec) -> DiffusionPolicy:
    """Reads a policy that DPPO pre-trained, with its averaged weights, as one of ours that samples the same.

    Args:
        checkpoint: `state_<epoch>.pt`; nothing but tensors and plain values is unpickled.
        config: DPPO's YAML file of its training or evaluation. Where it has no `act_steps`, as in training, the whole
            chunk is executed.
        normalisation: `normalization.npz` of its data, between whose bounds the network's values are in [-1, 1].
            Without it observations are taken as they are, and actions as shares of the task's bounds.
        spec: the task that it shall act in.

    Raises:
        ArtifactError: a file is missing or damaged, the policy is of a kind that is not supported, or it does not fit
            the task.
        ConfigError: the YAML file can't be read.
    """
    shape, bound = _read_shape(config, spec)
    weights = _load_averaged(checkpoint)
    try:
        settings = PolicyConfig.model_validate(shape | _measure(weights))
        scales = _read_scales(normalisation, spec, settings.n_obs_steps)
        translated = _translate(weights, settings, spec.action_dim * settings.horizon)
        return fill_policy(settings, spec, translated, scales, bound, normalisation or checkpoint)
    except ValidationError as error:
        raise ArtifactError(f"{config}: {describe_error(error, PolicyConfig)[1]}") from None
    except KeyError as error:
        raise ArtifactError(
            f"{checkpoint} has no {error.args[0]}: only DiffusionMLP with residual blocks is supported"
        ) from None
    except (RuntimeError, TypeError, IndexError):
        raise ArtifactError(
            f"{checkpoint} is of other sizes than {config} says: name the file of its own run"
        ) from None


# ---- The configuration ----


def _read_shape(path: Path, spec: TaskSpec) -> tuple[dict[str, Any], float]:
    """What a configuration says of `PolicyConfig`, and the bound on predicted clean chunks."""
    values = read_settings(path)

    def take(group: Any, name: str, default: Any) -> Any:
        """A value of a group, through references such as ${denoising_steps}."""
        found = group.get(name, default) if isinstance(group, Mapping) else default
        for _ in range(8):
            reference = re.fullmatch(r"\$\{(\w+)\}", found) if isinstance(found, str) else None
            if reference is None:
                return found
            found = values.get(reference[1])
        return found

    def take_flag(group: Any, name: str, default: bool) -> bool:
        found = take(group, name, default)
        if not isinstance(found, bool):
            raise ArtifactError(f"{path}: {name} must be true or false, got {found!r:.80}")
        return found

    model = values.get("model")
    network = take(model, "network", {})
    kind = str(take(network, "_target_", "nothing")).rpartition(".")[2]
    activation = str(take(network, "activation_type", "Mish"))
    output = take(network, "out_activation_type", "Identity")
    if kind != "DiffusionMLP" or not take_flag(network, "residual_style", False):
        what = f"{kind} without residual_style" if kind == "DiffusionMLP" else kind
        raise ArtifactError(f"{path}: only a DiffusionMLP with residual_style can be imported, model.network is {what}")
    if activation not in ACTIVATIONS or output != "Identity":
        raise ArtifactError(
            f"{path}: activation_type must be one of {', '.join(ACTIVATIONS)} and out_activation_type Identity, got "
            f"{activation} and {output}"
        )
    for name in ("final_action_clip_value", "eps_clip_value"):
        if take(model, name, None) is not None:
            raise ArtifactError(f"{path}: model.{name} is not supported; it must be null")
    dims = {"obs_dim": spec.obs_dim, "action_dim": spec.action_dim}
    for name, expected in dims.items():
        if (found := take(values, name, expected)) != expected:
            raise ArtifactError(f"{path}: {name} is {found}, that of task {spec.name} is {expected}")
    bound = take(model, "denoised_clip_value", 1.0)
    if type(bound) not in (int, float) or not 0.0 < bound < NO_BOUND:
        raise ArtifactError(f"{path}: model.denoised_clip_value must be a number above 0, got {bound}")
    horizon = take(values, "horizon_steps", None)
    steps = take(model, "denoising_steps", 100)
    ddim = take_flag(model, "use_ddim", False)
    return {
        "horizon": horizon,
        "n_action_steps": take(values, "act_steps", horizon),
        "n_obs_steps": take(values, "cond_steps", 1),
        "activation": ACTIVATIONS[activation],
        "prediction": "epsilon" if take_flag(model, "predict_epsilon", True) else "x0",
        "schedule": "cosine_capped",
        "denoising_steps": steps,
        "sampler": "ddim" if ddim else "ddpm",
        "ddim_steps": take(model, "ddim_steps", steps) if ddim else steps,
        "ddim_spacing": "leading",
        "clip_obs": NO_BOUND,
    }, float(bound)


# ---- The weights ----


def _load_averaged(path: Path) -> dict[str, Tensor]:
    """The averaged weights of the network in a checkpoint, by DPPO's names."""
    try:
        with open_file(path, MAX_WEIGHTS_BYTES) as file:
            if sum(entry.file_size for entry in zipfile.ZipFile(file).infolist()) > os.fstat(file.fileno()).st_size:
                raise ArtifactError(f"{path} is no checkpoint of DPPO: its parts unfold to more than the file")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: name a checkpoint of DPPO, state_<epoch>.pt") from None
    except ArtifactError:
        raise
    except Exception:  # unpickling raises whatever the content leads it to
        raise ArtifactError(f"{path} is damaged, or holds more than tensors and plain values") from None
    if not isinstance(found, dict) or "ema" not in found:
        fine_tuned = isinstance(found, dict) and "model" in found
        kind = "was fine-tuned by DPPO" if fine_tuned else "is no checkpoint of DPPO"
        raise ArtifactError(f"{path} {kind}: name one that its pre-training wrote, with averaged weights (`ema`)")
    named = found["ema"] if isinstance(found["ema"], Mapping) else {}
    weights = {str(name).removeprefix("network."): value for name, value in named.items()}
    if len(weights) != len(named):
        raise ArtifactError(f"{path} is damaged: a weight is there twice, with and without `network.`")
    for name, value in weights.items():
        sound = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
        sound = sound and value.is_floating_point() and value.itemsize > 1  # floats of 8 bits know no arithmetic
        # a view of a few numbers can be larger than any memory
        if not (sound and value.is_contiguous() and bool(torch.isfinite(value).all())):
            raise ArtifactError(f"{path} is damaged: {name} must be finite numbers")
    return weights


def _measure(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes of the network; a weight that is missing is a KeyError."""
    blocks = sum(name.endswith(".l1.weight") for name in weights)
    layers = sum(name.startswith("cond_mlp.") and name.endswith(".weight") for name in weights)
    return {
        "hidden_sizes": [len(weights["mlp_mean.layers.0.weight"])] * (1 + 2 * blocks),
        "residual_network": {
            "time_dim": len(weights["time_embedding.3.weight"]),
            "cond_sizes": [len(weights[f"cond_mlp.moduleList.{index}.linear_1.weight"]) for index in range(layers)],
            "layer_norm": any(".norm1." in name for name in weights),
        },
    }


def _translate(weights: Mapping[str, Tensor], config: PolicyConfig, noise_dim: int) -> dict[str, Tensor]:
    """DPPO's weights by our names.

    DPPO's first layer sees [sample, time, condition], ours [sample, condition, time]. DPPO's condition is
    [o_{t-1}, o_t], ours [o_t, o_t - o_{t-1}].

    Raises:
        KeyError: a weight is missing.
        RuntimeError: there are others, or of other sizes.
    """
    assert config.residual_network is not None
    blocks, layers = len(config.hidden_sizes) // 2, len(config.residual_network.cond_sizes)
    names = {"mlp_mean.layers.0": "first", f"mlp_mean.layers.{blocks + 1}": f"rest.{2 * blocks}"}
    names |= {"time_embedding.1": "time_network.0", "time_embedding.3": "time_network.2"}
    names |= {f"cond_mlp.moduleList.{index}.linear_1": f"cond_network.{2 * index}" for index in range(layers)}
    kinds = {"l": "rest", **({"norm": "norms"} if config.residual_network.layer_norm else {})}
    for kind, own in kinds.items():
        for index in range(2 * blocks):
            names[f"mlp_mean.layers.{index // 2 + 1}.{kind}{index % 2 + 1}"] = f"{own}.{index}"
    ours = {
        f"{new}.{part}": weights[f"{old}.{part}"].clone() for old, new in names.items() for part in ("weight", "bias")
    }
    if len(ours) != len(weights):
        raise RuntimeError("the network has further layers")
    time, seen = config.residual_network.time_dim, "cond_network.0.weight" if layers else "first.weight"
    sample, embedded, cond = ours["first.weight"].tensor_split([noise_dim, noise_dim + time], dim=1)
    if layers:
        ours[seen] = see_differences(ours[seen], config.n_obs_steps)
    else:
        cond = see_differences(cond, config.n_obs_steps)
    ours["first.weight"] = torch.cat([sample, cond, embedded], dim=1)
    return {f"denoiser.{name}": value.float() for name, value in ours.items()}


# ---- The scales of its data ----


def _read_scales(path: Path | None, spec: TaskSpec, n_obs_steps: int) -> dict[str, Tensor]:
    """The normalisers between the task's units and those of the network."""
    if path is None:
        ones = np.ones(spec.obs_dim)
        return make_scales((-ones, ones), (np.array(spec.action_low), np.array(spec.action_high)), spec, n_obs_steps)
    obs_low, obs_high, *action = _read_bounds(path, spec)
    wide = np.where(obs_high > obs_low, RANGE_OFFSET, 0.0)  # what is constant is told apart by its range
    return make_scales((obs_low, obs_high + wide), (action[0], action[1]), spec, n_obs_steps)


def _read_bounds(path: Path, spec: TaskSpec) -> list[NDArray[np.float64]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if max(entry.file_size for entry in file.zip.infolist()) > _MAX_SCALES_BYTES:
                raise ValueError("an array is larger than bounds are")
            bounds = [np.asarray(file[name], dtype=np.float64) for name in _SCALES]
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: name DPPO's normalization.npz of this task") from None
    except Exception as error:  # numpy and zipfile report damage by whatever their calls raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path} must hold arrays of numbers {', '.join(_SCALES)}: {reason}") from None
    sizes = (spec.obs_dim, spec.obs_dim, spec.action_dim, spec.action_dim)
    for name, bound, size in zip(_SCALES, bounds, sizes, strict=True):
        if bound.shape != (size,) or not np.isfinite(bound).all():
            raise ArtifactError(f"{path}: {name} must be {size} finite numbers, got an array {list(bound.shape)}")
    if any(np.any(high < low) for low, high in (bounds[:2], bounds[2:])):
        raise ArtifactError(f"{path}: a minimum is above its maximum")
    return bounds
