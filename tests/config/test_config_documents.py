"""Reading YAML."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bmd_pipeline.config.load import find_line, parse_yaml, read_settings
from bmd_pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-3", 0.001), ("-2E5", -2e5), ("1.5e3", 1500.0), ("3", 3), ("e3", "e3"), ("1e", "1e")),
        *(("-3", -3), ("+3", 3), ("0", 0), (".5", 0.5), ("1.", 1.0), ("!!int '3'", 3), ("1.2.3", "1.2.3")),
        *(("true", True), ("False", False), ("'010'", "010"), ('"yes"', "yes"), ("~", None), ("-.inf", -math.inf)),
    ],
)
def test_numbers_read_as_people_write_them(text: str, value: object) -> None:
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "off", "On", "NO", "010", "-07", "1:30", "1:30.5", "3_0", "1_0.5", "0x1F", "0b11", "00.5", "01e5"),
        *("!!int '010'", "!!int 1:30", "!!float 1:30", "!!bool 'on'", "2024-01-01"),
    ],
)
def test_what_readers_of_yaml_take_for_different_things_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(f"seed: 1\nseeds: [1, {text}]\n")
    with pytest.raises(ConfigError, match=r"file\.yaml:2:12: .* would be read as .*: write a decimal number"):
        read_settings(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1", r"file\.yaml:2:6: .*expected"),
        ("a: 1\n\ta: 2", r"file\.yaml:2:1: .*cannot start any token"),
        ("a: 1\nb: 2\na: 3", r"file\.yaml:3:1: 'a' is set twice"),
        ("a: {b: 1, b: 2}", r"file\.yaml:1:11: 'b' is set twice"),
        ("1: x", r"file\.yaml:1:1: a setting's name must be text, got 1"),
        ("? [x]\n: 1", r"file\.yaml:1:3: a setting's name must be text, got a sequence"),
        ("a: &x {b: 1}\nc: {<<: *x, d: 1, d: 2}", r"file\.yaml:2:19: 'd' is set twice"),
        ("a: &x {b: 1}\nc: {<<: *x, <<: *x}", r"file\.yaml:2:13: '<<' is set twice"),
        ("a: &x {b: 1}\nc: {<<: 1}", r"file\.yaml:2:9: expected a mapping"),
        ("a: 1\nb: *x", r"file\.yaml:2:4: found undefined alias"),
        ("a: &x\n  b: *x", r"file\.yaml:2:6: a reference \(\*name\) leads to what it is part of"),
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


def test_references_are_the_same_as_written_out() -> None:
    text = "a: &x {b: &y [1, 2], c: 3}\nd: *x\ne: {<<: *x, c: 4}\nf: {<<: [{c: 5}, *x], g: *y}"
    x = {"b": [1, 2], "c": 3}
    assert parse_yaml(text, "here") == {"a": x, "d": x, "e": {"b": [1, 2], "c": 4}, "f": x | {"c": 5, "g": [1, 2]}}


@pytest.mark.parametrize(
    ("first", "line"),
    [("lol", "a{}: &a{} [{}]"), ("lol", "a{}: &a{} {{<<: [{}]}}"), ("long" * 50_000, "a{}: &a{} [{}]")],
    ids=["lists", "mappings", "text"],
)
def test_references_that_unfold_without_end_are_one_line(first: str, line: str) -> None:
    """Each line holds the one before nine times."""
    lines = [f"a0: &a0 {{b: {first}}}"]
    lines += [line.format(k, k, ", ".join([f"*a{k - 1}"] * 9)) for k in range(1, 200)]
    with pytest.raises(ConfigError, match=r"^here:\d+:\d+: longer than 1000000 characters with its") as caught:
        parse_yaml("\n".join(lines), "here")
    assert "\n" not in str(caught.value)


def test_the_line_of_a_setting_is_that_of_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: &x\n  b: 1\n  c: 2\nd:\n  <<: *x\n  c: 3\ne: *x\n")
    found = {name: find_line(path, tuple(name.split("."))) for name in ("a.b", "d.b", "d.c", "e.c", "e.f")}
    assert found == {"a.b": 2, "d.b": 2, "d.c": 6, "e.c": 3, "e.f": None}


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
