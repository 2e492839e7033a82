"""How well a commanded agent does what it is told, in numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.modes.inference import InferenceModel
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.rl.rollout import Rollout, compute_information


@torch.no_grad()
def measure_commanded(modes: DiscoveredModes, played: Rollout) -> dict[str, Any]:
    """Multimodality, success, obedience and occupancy of held-out episodes, as JSON values.

    Args:
        modes: the modes that commanded.
        played: episodes as deployed, codes in equal numbers.
    """
    mean, last = compute_information(modes.inference, played)
    obeyed = compute_obeyed(modes, played)
    occupancy = compute_occupancy(modes, played)
    findings = {
        "heldout_episodes": played.code.numel(),
        "information": float(mean.mean()),
        "final_information": float(last.mean()),
        "information_bound": math.log(modes.num_codes),
        "success_rate": float(played.success.float().mean()),
        "success_rate_per_code": compute_code_success(played, modes.num_codes).tolist(),
        "obeyed": float(obeyed.mean()),
        "obeyed_per_code": obeyed.tolist(),
    }
    return findings | ({} if occupancy is None else {"occupancy": occupancy.tolist()})


@torch.no_grad()
def read_codes(inference: InferenceModel, played: Rollout) -> Tensor:
    """The code (N,) that the inference model takes each episode for at its end."""
    log_q = inference.log_prob(played.histories(inference))
    episodes = torch.arange(played.code.numel(), device=played.code.device)
    return log_q[played.last_decision, episodes].argmax(dim=-1)


@torch.no_grad()
def read_behaviours(modes: DiscoveredModes, played: Rollout) -> Tensor:
    """The behaviour (N,) that each episode shows: its cluster, or in the published form what q takes it for."""
    nearest = modes.name_behaviours(played.cond, played.last_decision)
    return read_codes(modes.inference, played) if nearest is None else nearest


def compute_code_success(played: Rollout, num_codes: int) -> Tensor:
    """Success rate of each code's episodes, (K,); 0 for a code that was not played."""
    return _mean_by_code(played.success, played.code, num_codes)


@torch.no_grad()
def compute_obeyed(modes: DiscoveredModes, played: Rollout) -> Tensor:
    """Of each code's successful episodes, the share that shows its own behaviour, (K,); 0 for a code without any."""
    won = played.success
    own = read_behaviours(modes, played) == played.code
    return _mean_by_code(own[won], played.code[won], modes.num_codes)


@torch.no_grad()
def compute_occupancy(modes: DiscoveredModes, played: Rollout) -> Tensor | None:
    """Share of the successful episodes in each behaviour, (K,); None in the published form, or without successes.

    Every code counts the same, however often it was played.
    """
    nearest = modes.name_behaviours(played.cond, played.last_decision)
    if nearest is None or not bool(played.success.any()):
        return None
    won, num_codes = played.success, modes.num_codes
    weight = 1.0 / torch.bincount(played.code, minlength=num_codes).clamp(min=1)[played.code[won]]
    shares = torch.bincount(nearest[won], weights=weight.double(), minlength=num_codes)
    return (shares / shares.sum()).float()


def average_codes(values: Tensor, code: Tensor, num_codes: int) -> float:
    """Mean over the codes that were played of the mean of their episodes' values (N,), under codes (N,)."""
    played = torch.bincount(code, minlength=num_codes) > 0
    return float(_mean_by_code(values, code, num_codes)[played].mean())


def _mean_by_code(values: Tensor, code: Tensor, num_codes: int) -> Tensor:
    count = torch.bincount(code, minlength=num_codes)
    return torch.bincount(code, weights=values.double(), minlength=num_codes) / count.clamp(min=1)
