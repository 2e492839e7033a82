import hashlib
from pathlib import Path

import pytest
import torch

from bmd_pipeline.io.files import hash_file, hash_path, hash_tensors, hash_tree


def test_hash_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def make_tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return hash_tree(root)


def test_tree_hash_ignores_order_of_creation(tmp_path: Path) -> None:
    files = {"b": "1", "a/x": "2", "a/y": "3"}
    assert make_tree(tmp_path / "one", files) == make_tree(tmp_path / "two", dict(reversed(files.items())))


@pytest.mark.parametrize("files", [{"b": "1", "a/x": "3"}, {"b": "1", "a/z": "2"}, {"b": "1"}, {"b": "1", "ax": "2"}])
def test_tree_hash_sees_every_change(tmp_path: Path, files: dict[str, str]) -> None:
    before = make_tree(tmp_path / "one", {"b": "1", "a/x": "2"})
    assert make_tree(tmp_path / "two", files) != before


def test_hash_path_takes_both(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {"a": "1"})
    assert hash_path(tmp_path) == tree
    assert hash_path(tmp_path / "a") == hash_file(tmp_path / "a")


def test_tensor_hash_sees_name_type_shape_and_value() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.tensor(1)}
    variants = [
        {"a": torch.zeros(3, 2), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.tensor(1)},
        {"a": torch.zeros(2, 3), "c": torch.tensor(1)},
        {"a": torch.zeros(2, 3), "b": torch.tensor(2)},
    ]
    assert hash_tensors(dict(reversed(base.items()))) == hash_tensors(base)
    assert len({hash_tensors(tensors) for tensors in [base, *variants]}) == 5
    transposed = torch.arange(6.0).reshape(2, 3).T
    assert hash_tensors({"a": transposed}) == hash_tensors({"a": transposed.contiguous()})
