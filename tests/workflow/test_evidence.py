"""Comparison, verdict and λ sweep: what they need, and what they never repeat."""

from __future__ import annotations

import pytest

from .conftest import Project

pytestmark = pytest.mark.workflow

RESULTS = "results/GaussianMixture"
SWEPT = {"sweep_finetune": 2, "sweep_evaluate": 2, "sweep": 1}


def test_comparison_and_verdict_read_what_evaluation_left(finished: Project) -> None:
    assert finished.plan(target=f"{RESULTS}/compare.json") == {"compare": 1}
    assert finished.plan(target=f"{RESULTS}/verdict.json") == {"verdict": 1}


def test_another_threshold_evaluates_nothing_again(finished: Project) -> None:
    for setting in ("verdict.success_margin=0.1", "compare.min_seeds=3"):
        assert finished.plan(f"set=[{setting}]", target=f"{RESULTS}/verdict.json") == {"verdict": 1}
        assert finished.plan(f"set=[{setting}]") == {}


def test_a_sweep_shares_all_that_comes_before_fine_tuning(finished: Project, project: Project) -> None:
    target = f"{RESULTS}/lambda/sweep.json"
    assert finished.plan(target=target) == SWEPT
    wider = {"sweep_finetune": 3, "sweep_evaluate": 3, "sweep": 1}
    assert finished.plan('set=["sweep.weights=[0, 0.1, 0.5]"]', target=target) == wider
    assert project.plan(target=target) == {"collect": 1, "pretrain": 1, "discover": 1, **SWEPT}


def test_one_point_is_a_target_and_an_unknown_one_is_refused(finished: Project) -> None:
    swept = f"{RESULTS}/lambda"
    assert finished.plan(target=f"{swept}/weight-0/seed0/eval.json") == {"sweep_finetune": 1, "sweep_evaluate": 1}
    done = finished.snakemake("--dry-run", f"{swept}/weight-0.6/seed0/eval.json", "--config", "preset=smoke")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "error: sweep.weights and sweep.controllers name no point 'weight-0.6'; did you mean 'weight-0.5'?"
    )


def test_a_verdict_without_a_pair_is_refused(project: Project) -> None:
    done = project.snakemake("--dry-run", f"{RESULTS}/verdict.json", "--config", "preset=smoke", "methods=[dsrl]")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "error: methods: a verdict needs a -bmd method and its plain counterpart, got dsrl"
    )


def test_modes_are_validated_without_fine_tuning(finished: Project, project: Project) -> None:
    target = f"{RESULTS}/modes/validation.json"
    assert finished.plan(target=target) == {"validation": 1}
    assert project.plan(target=target) == {"collect": 1, "pretrain": 1, "discover": 1, "validation": 1}
    assert finished.plan("set=[validation.obs_noise=0.3]") == {}
