"""What a task's page says."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.reporting.report import build_report
from tests.reporting.made_up import MadeUpRun, write_sealed


def text_of(page: str) -> str:
    """Words of the page's body, without markup, scripts and special spaces."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u202f", " ").replace("\u2060", "")
    return " ".join(words.split())


def data_of(page: str) -> dict[str, Any]:
    """The data that the scripts draw."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="module")
def page(finished: MadeUpRun) -> str:
    return build_report(finished.load())


def test_numbers_are_those_of_the_evaluation(finished: MadeUpRun, page: str) -> None:
    evaluation = finished.load().evaluation
    words = text_of(page)
    for block in evaluation.policies.values():
        rate, entropy = block.success_rate, block.mode_entropy
        assert f"{100 * rate.mean:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]" in words
        assert f"{entropy.mean:.2f} [{entropy.low:.2f}, {entropy.high:.2f}]" in words


def test_blocked_modes_are_those_of_the_evaluation(finished: MadeUpRun, page: str) -> None:
    words = text_of(page)
    for name, block in finished.load().evaluation.policies.items():
        assert block.blocked is not None
        trials = block.blocked.any_mode.retry.trials
        assert f"{name} tries again" in words
        assert f"{trials.mean:.1f} [{trials.low:.1f}, {trials.high:.1f}]" in words
    assert "dsrl-bmd finds a code by trial" in words
    assert "dsrl told another code" not in words


def test_documents_from_before_blocked_modes_are_readable(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, seeds=(0,))
    path = run.layout.summary(run.task)
    document = json.loads(path.read_text())
    for block in document["policies"].values():
        del block["blocked"]
    write_sealed(path, document)
    assert "When a mode is blocked" not in text_of(build_report(run.load()))


def test_it_says_what_was_run_and_how_far_it_carries(page: str) -> None:
    words = text_of(page)
    for sentence in (
        "fine-tuned with 2 methods and 2 seeds each, for 5 iterations of 8 episodes",
        "Each policy then played 40 episodes per seed",
        "240 in all",
        "A mode (way) is present when it holds at least 1 % of all successes, and solved when at least 80 % of its",
        "2 seeds say little about the spread between seeds",
    ):
        assert sentence in words


def test_plain_and_coded_methods_are_told_apart(finished: MadeUpRun, page: str) -> None:
    blocks = finished.load().evaluation.policies
    solved = {name: f"{block.solved.mean:.1f}" for name, block in blocks.items()}
    words = text_of(page)
    assert f"with {solved['pretrained']} of the 3 modes solved. Plain fine-tuning ends" in words
    assert f"with {solved['dsrl-bmd']} of the 3 modes solved, and " in words
    assert "of the successes on command are what the code stands for." in words


def test_evidence_is_shown(page: str) -> None:
    words = text_of(page)
    assert "Of 3 hypotheses, 1 is supported, 1 is refuted and 1 is undecided." in words
    assert "✓ H1 supported" in words
    assert "✗ H2 refuted" in words
    assert "? H3 undecided" in words
    assert "episodes in each cell; means with 95 % intervals, small marks are seeds." in words
    assert "The base policy has more than one mode: 20 paired rollouts" in words
    assert "90.0 % [85.0, 94.0], chance 30 % 0.87 0.81 0.93" in words
    assert "+10.0 [5.0, 14.0]" in words
    assert "p = .004" in words


def test_missing_evidence_is_one_line_with_its_command(tmp_path: Path) -> None:
    words = text_of(build_report(MadeUpRun(tmp_path, seeds=(0,)).load()))
    for name in ("verdict.json", "compare.json", "grid.json", "modes/validation.json"):
        assert f"Make it with snakemake --cores 2 results/Toy/{name}" in words
    assert "1 seed says little" in words


def test_commands_at_the_foot_are_the_exact_ones(page: str) -> None:
    words = text_of(page)
    assert "snakemake --cores 2 results/Toy/report.html --config preset=smoke" in words
    for command in (
        "bmd-pipeline pretrain --seed 0",
        "bmd-pipeline discover --seed 1",
        "bmd-pipeline finetune --seed 1",
        "bmd-pipeline verdict --preset smoke",
        "bmd-pipeline validation --preset smoke",
    ):
        assert command in words
    assert "0123456789abcdef" in words


def test_data_for_the_scripts(page: str) -> None:
    data = data_of(page)
    assert data["policies"] == ["pretrained", "dsrl", "dsrl-bmd"]
    assert data["toScale"] is True
    assert set(data) == {"policies", "modes", "axes", "toScale", "paths"}  # all else is drawn


def figures_of(page: str) -> dict[str, tuple[str, str]]:
    """Title and description of every figure, by its name."""
    found = re.findall(r'<title id="([\w-]+)-title">(.*?)</title><desc id="\1-description">(.*?)</desc>', page)
    return {name: (html.unescape(title), html.unescape(text)) for name, title, text in found}


def test_every_figure_says_what_it_shows(page: str) -> None:
    figures = figures_of(page)
    assert [figures[name][0] for name in figures] == [
        "Toy: success against modes",
        "Toy: trajectories by true mode",
        "dsrl: learning curves",
        "Toy: pre-training",
        "dsrl-bmd: codes and true modes",
        "Frozen policy: codes and true modes",
        "Toy: success and modes in the grid",
    ]
    said = {name: text.replace("\u202f", " ") for name, (_, text) in figures.items()}
    assert "dsrl-bmd: success 96.2 %" in said["outcome-0"]
    assert "dsrl-bmd, seed 1: success in rollouts 67.0 % at first, 91.0 % at last" in said["curves-0"]
    assert said["pretraining-0"] == "Success 80.0 % at gradient step 10; the weights of step 10 were kept"
    assert "seed 1: code 0 left 100 %, code 1 right 100 %, code 2 round 100 %, code 3 left 100 %" in said["codes-0"]
    assert "seed 0: code 0 left 100 %" in said["validation-0"]
    assert said["grid-0"].startswith("mi_weight=0, dsrl-bmd: success 0.970, 0.3 of 3 modes solved; mi_weight=0.01")


def test_figures_share_no_identifiers_and_miss_none(page: str) -> None:
    defined = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(defined)) == len(defined)
    used = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert set(used) <= set(defined)


def test_axes_that_are_no_plane_say_so(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, seeds=(0,), axes=("turn (rad)", "goal_distance (m)"))
    page = build_report(run.load())
    assert "They are no floor plan: turn (rad) runs to the right, goal distance (m) upwards." in text_of(page)
    assert data_of(page)["toScale"] is False


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"methods": ()}, "Before fine-tuning"),
        ({"methods": ("dppo-bmd",)}, "Fine-tuning with mode codes ends"),
        ({"modes": ("only",)}, "single labelled mode, so there is nothing to preserve"),
        ({"modes": tuple(f"mode {i}" for i in range(24))}, "of the 24 modes"),
    ],
)
def test_every_kind_of_run_has_a_page(tmp_path: Path, choices: dict[str, Any], sentence: str) -> None:
    assert sentence in text_of(build_report(MadeUpRun(tmp_path, seeds=(0,), **choices).load()))


def test_the_page_of_the_same_results_is_the_same(finished: MadeUpRun, page: str) -> None:
    assert build_report(finished.load()) == page
