from pathlib import Path

import pytest
import torch

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import load_weights, read_weights, save_weights

TENSORS = {
    "float": torch.linspace(-1, 1, 7),
    "matrix": torch.arange(6.0).reshape(2, 3).T,
    "scalar": torch.tensor(3, dtype=torch.int64),
    "bytes": torch.arange(256, dtype=torch.int64).to(torch.uint8),
    "empty": torch.zeros(0, 4),
}


def test_round_trip_is_bit_identical(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.safetensors"
    save_weights(path, TENSORS, {"one": "1", "two": "λ"})
    tensors, metadata = read_weights(path)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert metadata == {"one": "1", "two": "λ"}


def test_same_content_same_bytes(tmp_path: Path) -> None:
    metadata = {f"key{i}": str(i) for i in range(8)}
    contents = set()
    for i in range(4):
        save_weights(tmp_path / str(i), TENSORS, metadata)
        contents.add((tmp_path / str(i)).read_bytes())
    assert len(contents) == 1


def test_loaded_tensors_survive_a_rewrite_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_weights(path, {"w": torch.ones(1000)})
    loaded = load_weights(path)["w"]
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(loaded, torch.ones(1000))


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "foreign"])
def test_damage_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, TENSORS)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[:-5],
            "header": whole[:8] + b"!" + whole[9:],
            "empty": b"",
            "foreign": b"\x80\x02}q\x00." * 50,
        }[damage]
    )
    with pytest.raises(ArtifactError, match="damaged") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        load_weights(tmp_path / "none")


def test_weights_that_nothing_can_be_computed_with_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for value in (float("nan"), float("inf")):
        save_weights(path, {"whole": torch.ones(2, dtype=torch.int64), "net.0.bias": torch.tensor([1.0, value])})
        with pytest.raises(
            ArtifactError, match=rf"^weights: {path}: net\.0\.bias is not finite; delete it and make it again"
        ):
            load_weights(path)
    assert read_weights(path)[0].keys() == {"whole", "net.0.bias"}  # progress is checked by its own hash


def test_what_is_not_finite_in_32_bits_or_has_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for tensor, message in (
        (torch.tensor([1e300], dtype=torch.float64), "w is not finite"),
        (torch.ones(2, dtype=torch.float8_e4m3fn), "w is of type torch.float8_e4m3fn"),
    ):
        save_weights(path, {"w": tensor})
        with pytest.raises(ArtifactError, match=message):
            load_weights(path)
