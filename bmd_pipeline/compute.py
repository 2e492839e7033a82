"""Selects device, number of CPU threads and precision of matrix products; other modules get them as arguments."""

import os
from pathlib import Path

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
    """Sets how many cores torch uses on the CPU: `count`, or OMP_NUM_THREADS where that is a lower number."""
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # the first is for the outermost loop
    torch.set_num_threads(min(count, int(limit)) if limit.isdecimal() and int(limit) else count)


MAX_RELATIVE_ERROR = 1e-5
"""Of a product of float32 matrices against float64: kernels that round to bfloat16 err by 1e-3."""


def set_matmul(device: torch.device, cuda_matmul: str, cpu_matmul: str) -> str:
    """Sets how float32 matrices are multiplied, as the settings of these names say; returns what is in force.

    torch multiplies by MKL, whose kernels for AMD's CPUs are slow. Asked for the precision bf16, oneDNN multiplies in
    float32 all the same where there are no matrix units for bfloat16. Whether it does is looked at, and never timed: a
    result must not depend on a timing.

    Raises:
        ConfigError: oneDNN was asked for, and would round to bfloat16 here.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "ieee" if cuda_matmul == "float32" else cuda_matmul
        return cuda_matmul
    backend = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch's types lack it
    backend.fp32_precision = "none"
    if cpu_matmul == "mkl" or (cpu_matmul == "auto" and not _is_amd()):
        return "float32"
    backend.fp32_precision = "bf16"
    if _multiplies_in_float32():
        return "float32 by oneDNN"
    backend.fp32_precision = "none"
    if cpu_matmul == "onednn":
        raise ConfigError("execution.cpu_matmul is onednn, which rounds to bfloat16 on this CPU; set it to auto or mkl")
    return "float32"


def describe_training(matmul: str, precision: str) -> str:
    """How matrices are multiplied by a stage that acts as `matmul` says, and trains in the setting's `precision`."""
    return f"bfloat16 in training, else {matmul}" if precision == "bfloat16" else matmul


def has_bfloat16_units() -> bool:
    """Whether this CPU has matrix units for bfloat16; without them it multiplies slower in it than in float32."""
    return "amx_bf16" in _describe_cpu()


def _is_amd() -> bool:
    return "AuthenticAMD" in _describe_cpu()


def _describe_cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""


def _multiplies_in_float32() -> bool:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(256, 512, generator=generator), torch.randn(512, 512, generator=generator)
    exact = left.double() @ right.double()
    return float(((left @ right).double() - exact).abs().max() / exact.abs().max()) < MAX_RELATIVE_ERROR
