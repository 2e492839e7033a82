import pytest
import torch

from bmd_pipeline import compute
from bmd_pipeline.compute import enable_fast_matmul, select_device, set_matmul, set_threads
from bmd_pipeline.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def restore_settings():  # type: ignore[no-untyped-def]
    threads = torch.get_num_threads()
    yield
    set_matmul(CPU, "none")
    torch.set_num_threads(threads)


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")
    assert select_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        select_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select_device("auto").type == select_device("cuda").type == "cuda"
    assert select_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="got 'tpu'"):
        select_device("tpu")


def test_threads() -> None:
    set_threads(1)
    assert torch.get_num_threads() == 1
    with pytest.raises(ConfigError, match="got 0"):
        set_threads(0)


class FakeBackend:
    fp32_precision = "none"


@pytest.mark.parametrize(
    ("default_s", "fast_s", "limit", "chosen"),
    [
        (2.0, 1.0, 1e-5, "bf16"),  # twice as fast
        (1.0, 0.95, 1e-5, "none"),  # inside the noise of a timing
        (1.0, 2.0, 1e-5, "none"),  # slower
        (2.0, 1.0, 1e-12, "none"),  # fast, but not exact enough
    ],
)
def test_fast_matmul_must_be_faster_and_exact(
    monkeypatch: pytest.MonkeyPatch, default_s: float, fast_s: float, limit: float, chosen: str
) -> None:
    backend = FakeBackend()
    monkeypatch.setattr(compute, "_backend", lambda: backend)
    monkeypatch.setattr(compute, "MAX_RELATIVE_ERROR", limit)
    monkeypatch.setattr(compute, "_best_time", lambda *_: fast_s if backend.fp32_precision == "bf16" else default_s)
    assert enable_fast_matmul(8, 16) == chosen
    assert backend.fp32_precision == chosen


def test_whatever_is_chosen_is_float32() -> None:
    chosen = enable_fast_matmul(64, 128)
    assert chosen in ("bf16", "none")
    left, right = torch.randn(64, 128), torch.randn(128, 128)
    exact = left.double() @ right.double()
    assert ((left @ right) - exact).abs().max() / exact.abs().max() < 1e-5


def test_old_torch_has_no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_backend", lambda: None)
    assert enable_fast_matmul() == "none"
    set_matmul(CPU, "bf16")  # nothing to set, nothing to fail


def test_kernels_of_another_kind_of_device_change_nothing() -> None:
    set_matmul(CPU, "none")
    set_matmul(CPU, "tf32")  # progress that was saved on a CUDA device
    assert compute.choose_matmul(CPU, "tf32", 8, 16) in ("none", "bf16")
