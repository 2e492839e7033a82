"""The one decision about devices, threads and matrix products; everything below gets them as arguments."""

from __future__ import annotations

import torch

from bmd_pipeline.errors import ConfigError

_CUDA_PRECISIONS = {"float32": "ieee", "tf32": "tf32"}
"""Settings of `execution.cuda_matmul` in torch's words."""


def select_device(name: str) -> torch.device:
    """Resolves `execution.device`.

    Args:
        name: `auto` (CUDA where there is one), `cpu` or `cuda`.

    Raises:
        ConfigError: CUDA was asked for and is absent, or the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"execution.device must be auto, cpu or cuda, got {name!r}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            "execution.device is cuda, but torch finds no CUDA device; set it to auto or cpu, "
            "or install a CUDA build of torch"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def set_threads(count: int) -> None:
    """Sets how many cores torch uses on the CPU."""
    if count < 1:
        raise ConfigError(f"threads must be >= 1, got {count}")
    torch.set_num_threads(count)


def set_matmul(device: torch.device, cuda_matmul: str) -> str:
    """Sets how float32 matrices are multiplied.

    On a CPU this is torch's default: oneDNN's other kernels are faster on some machines, and which ones can only be
    found by timing them. A result must not depend on a timing.

    Args:
        device: where; on a CPU nothing is set.
        cuda_matmul: the precision on a CUDA device, `execution.cuda_matmul`.

    Returns:
        The precision in force, for the log and run.json.
    """
    if device.type != "cuda":
        return "float32"
    torch.backends.cuda.matmul.fp32_precision = _CUDA_PRECISIONS[cuda_matmul]
    return cuda_matmul
