"""Pairs of methods."""

from __future__ import annotations

import pytest

from bmd_pipeline.errors import ConfigError
from bmd_pipeline.methods import check_method, list_pairs, order_policies, paired_methods


def test_pairs_are_those_whose_counterpart_is_there() -> None:
    assert list_pairs(["dsrl", "res-bmd", "dsrl-bmd", "dppo"]) == [("dsrl-bmd", "dsrl")]
    assert paired_methods(["dsrl", "res-bmd", "dsrl-bmd", "dppo"]) == ["dsrl", "dsrl-bmd"]


def test_a_verdict_needs_a_pair() -> None:
    with pytest.raises(ConfigError, match=r"a -bmd method and its plain counterpart, got dsrl, res-bmd"):
        paired_methods(["dsrl", "res-bmd"])


def test_policies_are_shown_from_the_start_of_the_pipeline_on() -> None:
    policies = {"res", "dppo-bmd", "taught", "dppo", "pretrained"}
    assert order_policies(policies, ["dppo", "dppo-bmd"]) == ["pretrained", "taught", "dppo", "dppo-bmd", "res"]


def test_what_fine_tuning_starts_from_can_be_evaluated_and_not_trained() -> None:
    for name in ("pretrained", "taught"):
        check_method(name, evaluating=True)
        with pytest.raises(ConfigError, match=f"unknown method '{name}'"):
            check_method(name)
    assert list_pairs(["taught", "dppo"]) == []
