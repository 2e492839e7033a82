"""The one decision about devices, threads and matrix kernels; everything below is told, never asks."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.errors import ConfigError

MIN_SPEEDUP = 1.5
"""Where the other kernels help, they halve the time; noise in a timing must not decide."""
MAX_RELATIVE_ERROR = 1e-5
"""Largest error that still counts as float32: its own products come out at about 1e-6, bfloat16's at 3e-3."""
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


def choose_matmul(device: torch.device, cuda_matmul: str, rows: int = 256, width: int = 512) -> str:
    """Chooses how float32 matrices are multiplied, and returns the choice's name for the log and `set_matmul`.

    Args:
        device: where.
        cuda_matmul: the choice on a CUDA device, `execution.cuda_matmul`.
        rows: batch size of the products to come, for the choice on a CPU.
        width: width of the layers to come.
    """
    if device.type == "cpu":
        return enable_fast_matmul(rows, width)
    set_matmul(device, cuda_matmul)
    return cuda_matmul


def set_matmul(device: torch.device, name: str) -> None:
    """Takes the matrix kernels whose name `choose_matmul` returned; that of another kind of device changes nothing."""
    if device.type == "cuda" and name in _CUDA_PRECISIONS:
        torch.backends.cuda.matmul.fp32_precision = _CUDA_PRECISIONS[name]
    elif device.type == "cpu" and name not in _CUDA_PRECISIONS and (backend := _backend()) is not None:
        backend.fp32_precision = name


def enable_fast_matmul(rows: int = 256, width: int = 512) -> str:
    """Takes the faster float32 matrix kernels of this CPU, if it has them and they are exact.

    On CPUs without bfloat16 units oneDNN answers a request for its "bf16" precision with float32 kernels
    that are about twice as fast as the default; on CPUs with such units it would lose precision. So both
    are tried on one product of the size that training uses.

    Args:
        rows: batch size of the products to come.
        width: width of the layers to come.

    Returns:
        The precision in force, for the log and for `set_matmul`: "bf16" or "none".
    """
    backend = _backend()
    if backend is None:
        return "none"
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, width, generator=generator)
    right = torch.randn(width, width, generator=generator)
    exact = left.double() @ right.double()
    backend.fp32_precision = "none"
    default_s = _best_time(left, right)
    backend.fp32_precision = "bf16"
    error = float(((left @ right).double() - exact).abs().max() / exact.abs().max())
    if error > MAX_RELATIVE_ERROR or _best_time(left, right) > default_s / MIN_SPEEDUP:
        backend.fp32_precision = "none"
    return str(backend.fp32_precision)


def _backend() -> Any:
    """The switch of oneDNN's matrix products; torch has it since 2.9."""
    return getattr(torch.backends.mkldnn, "matmul", None)


def _best_time(left: Tensor, right: Tensor, repeats: int = 15) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
    return best
