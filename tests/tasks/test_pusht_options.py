"""Settings of PushT."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bmd_pipeline.errors import ConfigError
from bmd_pipeline.tasks.pusht.options import Options
from bmd_pipeline.tasks.registry import load_options


def test_defaults_are_the_official_task() -> None:
    options = Options()
    assert (options.horizon, options.success_threshold, options.position_box) == (200, 0.9, 1.0)
    assert options.turn_weights == (1.0, 1.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("horizon", 0),
        ("success_threshold", 1.2),
        ("turn_weights", [1.0, -1.0]),
        ("turn_weights", [1.0]),
        ("expert_noise", float("nan")),
        ("colour", "red"),
    ],
)
def test_bad_values_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"env.{key}"):
        load_options("PushT", {key: value})


def test_options_are_cheap_to_import() -> None:
    script = (
        "import sys, bmd_pipeline.tasks.pusht.options\n"
        "heavy = {'torch', 'numpy', 'sapien', 'mani_skill'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
