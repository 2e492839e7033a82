"""How well a commanded agent does what it is told, in numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.modes.discovered import DiscoveredModes
from bmd_pipeline.modes.inference import InferenceModel
from bmd_pipeline.rl.rollout import Rollout, compute_information


@torch.no_grad()
def measure_commanded(modes: DiscoveredModes, played: Rollout) -> dict[str, Any]:
    """Multimodality, success and obedience of held-out episodes, as JSON values.

    Args:
        modes: the modes that commanded.
        played: episodes as deployed, codes in equal numbers.
    """
    mean, last = compute_information(modes.inference, played)
    obeyed = read_codes(modes.inference, played) == played.code
    per_code = [played.code == k for k in range(modes.num_codes)]
    return {
        "heldout_episodes": played.code.numel(),
        "information": float(mean.mean()),
        "final_information": float(last.mean()),
        "information_bound": math.log(modes.num_codes),
        "success_rate": float(played.success.float().mean()),
        "success_rate_per_code": [float(played.success[own].float().mean()) for own in per_code],
        "obeyed": float(obeyed.float().mean()),
        "obeyed_per_code": [float(obeyed[own].float().mean()) for own in per_code],
    }


@torch.no_grad()
def read_codes(inference: InferenceModel, played: Rollout) -> Tensor:
    """The code (N,) that the inference model takes each episode for at its end."""
    log_q = inference.log_prob(inference.histories(played.features))
    episodes = torch.arange(played.code.numel(), device=played.code.device)
    return log_q[played.alive.sum(dim=0), episodes].argmax(dim=-1)


@torch.no_grad()
def measure_exploring(modes: DiscoveredModes, played: Rollout) -> dict[str, Any]:
    """What controllers of λ are to hold, as JSON values.

    They see the rollouts of training, which explore, so what they hold is measured on such.

    Args:
        modes: the modes that commanded.
        played: held-out episodes as in training, codes in equal numbers.
    """
    occupancy = modes.occupancy(played.features, played.alive.sum(dim=0), played.success)
    findings = {"exploring_information": float(compute_information(modes.inference, played)[1].mean())}
    return findings | ({} if occupancy is None else {"occupancy": occupancy.tolist()})
