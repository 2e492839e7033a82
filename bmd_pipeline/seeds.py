"""Random streams: one root seed, one independent generator per consumer.

A seed is derived from the root seed and the name of its consumer, so that a new consumer changes no other stream. Names
begin with a family: training, checkpoint selection and evaluation are different families, and share no episode.
"""

import hashlib
from typing import Literal

import torch

Family = Literal["collect", "pretrain", "discover", "train", "select", "evaluate", "disturbance"]


def derive_seed(root: int, family: Family, *names: str | int) -> int:
    """A seed in [0, 2⁶³) that depends on the root seed, the family and every name."""
    text = "/".join(map(str, (root, family, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_generator(root: int, family: Family, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for the named consumer."""
    return torch.Generator(device=device).manual_seed(derive_seed(root, family, *names))
