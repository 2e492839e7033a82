"""Pairs of methods."""

from __future__ import annotations

import pytest

from bmd_pipeline.config.methods import judged_methods, list_pairs
from bmd_pipeline.errors import ConfigError


def test_pairs_are_those_whose_counterpart_is_there() -> None:
    assert list_pairs(["dsrl", "res-bmd", "dsrl-bmd", "dppo"]) == [("dsrl-bmd", "dsrl")]
    assert judged_methods(["dsrl", "res-bmd", "dsrl-bmd", "dppo"]) == ["dsrl", "dsrl-bmd"]


def test_a_verdict_needs_a_pair() -> None:
    with pytest.raises(ConfigError, match=r"a -bmd method and its plain counterpart, got dsrl, res-bmd"):
        judged_methods(["dsrl", "res-bmd"])
