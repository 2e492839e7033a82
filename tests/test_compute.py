from types import SimpleNamespace

import pytest
import torch

from bmd_pipeline import compute
from bmd_pipeline.compute import select_device, set_matmul, set_threads
from bmd_pipeline.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def restore_settings():  # type: ignore[no-untyped-def]
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.backends.mkldnn.matmul.fp32_precision = "none"


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")
    assert select_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        select_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert select_device("auto").type == select_device("cuda").type == "cuda"
    assert select_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("variable", "asked", "taken"),
    [("", 2, 2), ("1", 2, 1), ("8", 2, 2), ("1,4", 2, 1), ("0", 2, 2), ("many", 2, 2), ("3", 1, 1)],
)
def test_threads_are_no_more_than_the_environment_allows(
    monkeypatch: pytest.MonkeyPatch, variable: str, asked: int, taken: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    set_threads(asked)
    assert torch.get_num_threads() == taken


@pytest.mark.parametrize(("name", "precision"), [("float32", "ieee"), ("tf32", "tf32")])
def test_matmul_is_the_setting_on_cuda(monkeypatch: pytest.MonkeyPatch, name: str, precision: str) -> None:
    backend = SimpleNamespace(fp32_precision="untouched")
    monkeypatch.setattr(torch.backends.cuda, "matmul", backend)
    set_matmul(CPU, name, "mkl")
    assert backend.fp32_precision == "untouched"
    assert set_matmul(torch.device("cuda"), name, "mkl") == name
    assert backend.fp32_precision == precision


@pytest.mark.parametrize("amd", [False, True])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("setting", ["auto", "mkl", "onednn"])
def test_a_cpu_never_rounds_to_bfloat16(monkeypatch: pytest.MonkeyPatch, setting: str, exact: bool, amd: bool) -> None:
    monkeypatch.setattr(compute, "_is_amd", lambda: amd)
    monkeypatch.setattr(compute, "_multiplies_in_float32", lambda: exact)
    backend = torch.backends.mkldnn.matmul
    if setting == "onednn" and not exact:
        with pytest.raises(ConfigError, match=r"execution\.cpu_matmul is onednn, which rounds to bfloat16"):
            set_matmul(CPU, "float32", setting)
        assert backend.fp32_precision == "none"
        return
    found = set_matmul(CPU, "float32", setting)
    takes_onednn = setting == "onednn" or (setting == "auto" and amd and exact)
    assert (found, backend.fp32_precision) == (("float32 by oneDNN", "bf16") if takes_onednn else ("float32", "none"))


@pytest.mark.parametrize("rows", [1, 32, 500])
def test_products_are_float32_whoever_multiplies(rows: int) -> None:
    set_matmul(CPU, "float32", "auto")
    generator = torch.Generator().manual_seed(rows)
    left, right = torch.randn(rows, 300, generator=generator), torch.randn(300, 64, generator=generator)
    exact = left.double() @ right.double()
    assert float(((left @ right).double() - exact).abs().max() / exact.abs().max()) < compute.MAX_RELATIVE_ERROR
