"""Reading YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmd_pipeline.config.load import parse_yaml, read_settings
from bmd_pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("-2E5", -2e5), ("1.5e3", 1500.0), ("3", 3), ("e3", "e3"), ("1e", "1e")]
)
def test_numbers_read_as_people_write_them(text: str, value: object) -> None:
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1", r"file\.yaml:2:6: .*expected"),
        ("a: 1\n\ta: 2", r"file\.yaml:2:1: .*cannot start any token"),
        ("a: 1\nb: 2\na: 3", r"file\.yaml:3:1: 'a' is set twice"),
        ("a: {b: 1, b: 2}", r"file\.yaml:1:11: 'b' is set twice"),
        ("1: x", r"file\.yaml:1:1: a setting's name must be text, got 1"),
        ("- a", r"file\.yaml must hold settings"),
        ("a: !!python/object/apply:os.getcwd []", r"file\.yaml:1:4: could not determine a constructor"),
    ],
)
def test_errors_name_file_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_settings(path)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        read_settings(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml can't be read"):
        read_settings(tmp_path / "binary.yaml")


def test_empty_files_and_sections_count_as_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("")
    assert read_settings(path) == {}
    path.write_text("a:\nb: 1\n")
    assert read_settings(path) == {"b": 1}
