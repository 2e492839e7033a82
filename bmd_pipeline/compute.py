"""Selects device, number of CPU threads and precision of matrix products; other modules get them as arguments."""

import torch

from bmd_pipeline.errors import ConfigError


def select_device(name: str) -> torch.device:
    """Resolves `execution.device`: `auto` (CUDA where there is one), `cpu` or `cuda`.

    Raises:
        ConfigError: CUDA was asked for and is absent.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(
            "execution.device is cuda, but torch finds no CUDA device; set it to auto or cpu, "
            "or install a CUDA build of torch"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def set_threads(count: int) -> None:
    """Sets how many cores torch uses on the CPU."""
    torch.set_num_threads(count)


def set_matmul(device: torch.device, cuda_matmul: str) -> str:
    """Sets how float32 matrices are multiplied on a CUDA device; returns the precision in force, on any device.

    On a CPU this is torch's default: oneDNN's other kernels are faster on some machines, and which ones can only be
    found by timing them. A result must not depend on a timing.
    """
    if device.type != "cuda":
        return "float32"
    torch.backends.cuda.matmul.fp32_precision = "ieee" if cuda_matmul == "float32" else cuda_matmul
    return cuda_matmul
