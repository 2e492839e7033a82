"""LeRobot's diffusion policies of states as ours: a folder with config.json, weights, and the scales of its data.

Source: LeRobot, `DiffusionPolicy` (a U-Net after Chi et al. 2023, arXiv 2303.04137). Policies of images are refused.
"""

import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from torch import Tensor

from bmd_pipeline.config.load import describe_error
from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import damage_error, is_there, load_weights, read_json
from bmd_pipeline.policies.conversion import NO_BOUND, Bounds, fill_policy, make_scales
from bmd_pipeline.policies.diffusion import DiffusionPolicy

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCALES_FILES = "policy_preprocessor_step_*_normalizer_processor.safetensors"
STATES = ("observation.state", "observation.environment_state")
"""Observations that can be imported, in the order in which a network sees them."""
_RENAMED = (
    (r"^diffusion\.unet\.", ""),
    (r"^diffusion_step_encoder\.1\.", "time_network.0."),
    (r"^diffusion_step_encoder\.3\.", "time_network.2."),
    (r"^(down|up)_modules\.(\d+)\.0\.", r"\1.\2.first."),
    (r"^(down|up)_modules\.(\d+)\.1\.", r"\1.\2.second."),
    (r"^(down|up)_modules\.(\d+)\.2\.", r"\1.\2.resample."),
    (r"^mid_modules\.", "middle."),
    (r"\.cond_encoder\.1\.", ".film."),
    (r"\.residual_conv\.", ".around."),
    (r"\.(conv\d)\.block\.", r".\1."),
    (r"^final_conv\.0\.block\.", "last.0."),
    (r"^final_conv\.1\.", "last.1."),
)
"""Names of LeRobot's weights, and ours."""


def is_lerobot(folder: Path) -> bool:
    """Whether a folder is a policy as LeRobot saves it.

    Raises:
        ArtifactError: a file of such a policy is no regular file.
    """
    return is_there(folder / CONFIG_FILE) and is_there(folder / WEIGHTS_FILE)


def list_files(folder: Path) -> list[Path]:
    """The files that a policy is read from."""
    return [folder / CONFIG_FILE, folder / WEIGHTS_FILE, *sorted(folder.glob(SCALES_FILES))]


def read_lerobot(folder: Path, spec: TaskSpec) -> DiffusionPolicy:
    """Reads a diffusion policy of LeRobot's (`pretrained_model`), as one of ours that samples the same.

    The task's observations are those of LeRobot one after the other: the robot's state, then the environment's. With a
    DDIM scheduler ours also corrects the noise where the clean chunk is clipped, which LeRobot's does not.

    Raises:
        ArtifactError: a file is missing or damaged, the policy is of a kind that is not supported, or it does not fit
            the task.
    """
    path = folder / CONFIG_FILE
    values = read_json(path, "policy")
    sizes = _read_sizes(path, values, spec)
    try:
        shape, bound = _read_shape(path, values)
        settings = PolicyConfig.model_validate(shape)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {describe_error(error, PolicyConfig)[1]}") from None
    except (TypeError, ValueError) as error:
        raise damage_error("policy", path, str(error), "save it again with LeRobot") from None
    weights: dict[str, Tensor] = {}
    loaded = load_weights(folder / WEIGHTS_FILE)
    for name, value in loaded.items():
        for pattern, own in _RENAMED:
            name = re.sub(pattern, own, name)
        weights[f"denoiser.{name}"] = value.float()
    scales = _read_scales(folder, values, sizes, spec, settings.n_obs_steps)
    try:
        if len(weights) != len(loaded) or not all(value.is_floating_point() for value in loaded.values()):
            raise RuntimeError("a weight is there twice, or is no float")
        return fill_policy(settings, spec, weights, scales, bound, folder)
    except RuntimeError:
        raise ArtifactError(f"{folder / WEIGHTS_FILE} does not hold the U-Net that {CONFIG_FILE} describes") from None


def _read_sizes(path: Path, values: Mapping[str, Any], spec: TaskSpec) -> dict[str, int]:
    """Sizes of the observations and of the action, by name."""
    try:
        inputs = {name: operator.index(part["shape"][0]) for name, part in values["input_features"].items()}
        action = operator.index(values["output_features"]["action"]["shape"][0])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise ArtifactError(
            f"{path} is no configuration of LeRobot's: input_features or output_features lack"
        ) from None
    if values.get("type") != "diffusion" or (others := inputs.keys() - set(STATES)):
        what = f"sees {min(others)}" if values.get("type") == "diffusion" else f"is of type {values.get('type')!r}"
        raise ArtifactError(f"{path}: only diffusion policies of {' and '.join(STATES)} can be imported; it {what}")
    for name, found, expected in (
        ("observations", sum(inputs.values()), spec.obs_dim),
        ("actions", action, spec.action_dim),
    ):
        if found != expected:
            raise ArtifactError(f"{path}: its {name} have {found} components, those of task {spec.name} {expected}")
    return {**{name: inputs[name] for name in STATES if name in inputs}, "action": action}


def _read_shape(path: Path, values: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
    """What a configuration says of `PolicyConfig`, and the bound on predicted clean chunks."""
    steps, past = values.get("num_train_timesteps"), values.get("n_obs_steps", 1) - 1
    ddim = values.get("noise_scheduler_type") == "DDIM"
    taken = values.get("num_inference_steps") or steps
    expected = {"beta_schedule": "squaredcos_cap_v2", "use_film_scale_modulation": True, "n_groups": 8}
    for name, wanted in expected.items():
        if values.get(name) != wanted:
            raise ArtifactError(f"{path}: {name} must be {wanted}, got {values.get(name)}")
    choices = {"noise_scheduler_type": ("DDPM", "DDIM"), "prediction_type": ("epsilon", "sample")}
    for name, known in {**choices, "clip_sample": (True, False)}.items():
        if (found := values.get(name, known[0])) not in known or type(found) is not type(known[0]):
            raise ArtifactError(f"{path}: {name} must be {known[0]} or {known[1]}, got {found!r:.80}")
    if not ddim and taken != steps:
        raise ArtifactError(
            f"{path}: DDPM must take all of num_train_timesteps ({steps}), got {taken}; DDIM takes fewer"
        )
    bound = values.get("clip_sample_range", 1.0) if values.get("clip_sample", True) else NO_BOUND
    if type(bound) not in (int, float) or not 0.0 < bound <= NO_BOUND:
        raise ArtifactError(f"{path}: clip_sample_range must be a number above 0, got {bound!r:.80}")
    return {
        "horizon": values.get("horizon"),
        "n_action_steps": values.get("n_action_steps"),
        "n_obs_steps": values.get("n_obs_steps"),
        "unet": {
            "down_sizes": values.get("down_dims"),
            "kernel_size": values.get("kernel_size"),
            "time_dim": values.get("diffusion_step_embed_dim"),
            "past_steps": past,
        },
        "prediction": "x0" if values.get("prediction_type") == "sample" else "epsilon",
        "schedule": "cosine_capped",
        "denoising_steps": steps,
        "sampler": "ddim" if ddim else "ddpm",
        "ddim_steps": taken,
        "ddim_spacing": "leading",
        "clip_obs": NO_BOUND,
    }, float(bound)


def _read_scales(
    folder: Path, values: Mapping[str, Any], sizes: Mapping[str, int], spec: TaskSpec, n_obs_steps: int
) -> dict[str, Tensor]:
    """The normalisers between the task's units and those of the network."""
    files = sorted(folder.glob(SCALES_FILES))
    if len(files) != 1:
        raise ArtifactError(
            f"{folder} must hold one {SCALES_FILES}, the scales of its data; LeRobot's migrate_policy_normalization "
            "makes it of a policy of an earlier release"
        )
    stats, modes = load_weights(files[0]), values.get("normalization_mapping", {})
    if not isinstance(modes, Mapping):
        raise ArtifactError(f"{folder / CONFIG_FILE}: normalization_mapping must be a group, got {modes!r:.80}")

    def take(name: str, kind: str) -> Bounds:
        mode, size = str(modes.get(kind, "IDENTITY")), sizes[name]
        if mode == "IDENTITY":
            return -np.ones(size), np.ones(size)
        known = {"MIN_MAX": ("min", "max"), "MEAN_STD": ("mean", "std")}
        if mode not in known:
            raise ArtifactError(
                f"{folder / CONFIG_FILE}: normalization_mapping must be one of {', '.join(known)}; got {mode}"
            )
        found = [stats.get(f"{name}.{part}") for part in known[mode]]
        if any(part is None or part.shape != (size,) for part in found):
            raise ArtifactError(f"{files[0]} must hold {' and '.join(known[mode])} of {name}, {size} numbers each")
        first, second = (part.double().numpy() for part in found if part is not None)
        low, high = (first, second) if mode == "MIN_MAX" else (first - second, first + second)
        if (high < low).any():
            raise ArtifactError(f"{files[0]}: {' and '.join(known[mode])} of {name} don't belong together")
        return low, high

    kinds = dict(zip(STATES, ("STATE", "ENV"), strict=True))
    seen = [take(name, kinds[name]) for name in STATES if name in sizes]
    obs = (np.concatenate([low for low, _ in seen]), np.concatenate([high for _, high in seen]))
    return make_scales(obs, take("action", "ACTION"), spec, n_obs_steps)
