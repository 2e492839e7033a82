from types import SimpleNamespace

import pytest
import torch

from bmd_pipeline.compute import select_device, set_matmul, set_threads
from bmd_pipeline.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def restore_settings():  # type: ignore[no-untyped-def]
    threads = torch.get_num_threads()
    yield
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


def test_threads() -> None:
    set_threads(1)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("name", "precision"), [("float32", "ieee"), ("tf32", "tf32")])
def test_matmul_is_the_setting_on_cuda_and_float32_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: str
) -> None:
    backend = SimpleNamespace(fp32_precision="untouched")
    monkeypatch.setattr(torch.backends.cuda, "matmul", backend)
    assert set_matmul(CPU, name) == "float32"
    assert backend.fp32_precision == "untouched"
    assert set_matmul(torch.device("cuda"), name) == name
    assert backend.fp32_precision == precision
