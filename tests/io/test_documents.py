from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import read_json


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"[1, 2]", "must hold a JSON object, got list"),
        (b"[" * 100_000, "damaged"),
        (b'{"a": ' + b"9" * 100_000 + b"}", r"damaged \(the number 9{20}… is too large\)"),
        (b'{"a": -10000000000000000000}', "is too large"),
        (b'{"a": 1e999}', "the number 1e999 is not finite"),
        (b'{"a": NaN}', "the number NaN is not finite"),
        (b'{"a": -Infinity}', "not finite"),
        (b'{"a": ["\\ud800"]}', "damaged .*surrogates"),
        (b"", "damaged"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_json(path, "policy")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        read_json(tmp_path / "none.json", "policy")
    with pytest.raises(ArtifactError, match="can't be read"):
        read_json(tmp_path, "policy")


def test_reads_objects(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1.5, null, 18446744073709551615, "\\ud83d\\ude00"]}')
    assert read_json(tmp_path / "a.json", "thing") == {"a": [1.5, None, 2**64 - 1, "😀"]}
