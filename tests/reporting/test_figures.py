"""What figures show, looked up in the figure's own parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
from bmd_pipeline.metrics.schemas import CodeRow, Evaluation, Provenance
from bmd_pipeline.metrics.summary import summarise_policy
from bmd_pipeline.reporting import figures
from bmd_pipeline.reporting.figures import (
    GREY,
    embed_figure,
    held_weight,
    method_style,
    mode_colours,
    plot_codes,
    plot_curves,
    plot_pretraining,
    plot_success_modes,
    plot_trajectories,
    save_figure,
)
from bmd_pipeline.reporting.sources import Curves
from bmd_pipeline.reporting.trajectories import PathBook, PlanarPath

MODES = ("left", "right")


def make_part(policy: str, seed: int, mode: Sequence[int], success: Sequence[bool]) -> Episodes:
    n = len(mode)
    return Episodes(
        policy=policy,
        seed=seed,
        num_codes=1,
        code=np.zeros(n, np.int64),
        success=np.array(success),
        length=np.ones(n, np.int64),
        episode_return=np.ones(n),
        information=np.zeros(n),
        deviation=np.zeros(n),
        labellings={"side": ModeWeights(MODES, np.eye(2)[list(mode)])},
    )


@pytest.fixture
def parts() -> list[Episodes]:
    return [
        make_part("pretrained", 0, [0, 1, 0, 1], [True, True, False, True]),
        make_part("dsrl", 0, [0, 0, 0, 0], [True] * 4),
        make_part("dsrl", 1, [1, 1, 1, 1], [True] * 4),
    ]


def make_document(parts: Sequence[Episodes]) -> Evaluation:
    blocks = {
        name: summarise_policy(
            [part for part in parts if part.policy == name],
            config_hash="",
            tau=0.8,
            confidence=0.9,
            rng=np.random.default_rng(0),
        )
        for name in dict.fromkeys(part.policy for part in parts)
    }
    return Evaluation(
        schema_version=3,
        task="Toy",
        config_hash="",
        confidence=0.9,
        policies=blocks,
        provenance=Provenance.model_construct(),
    )


def make_book(parts: Sequence[Episodes]) -> PathBook:
    paths = []
    for part in parts:
        for i, mode in enumerate(part.labellings["side"].labels()):
            end = np.array([[0, 0], [1 if mode == "right" else -1, i]], np.float32)
            paths.append(PlanarPath(part.policy, part.seed, 0, mode, bool(part.success[i]), end))
    return PathBook(("tip_x", "tip_y"), "side", MODES, paths)


def test_trajectories_show_each_policy_in_the_colours_of_its_modes(parts: list[Episodes]) -> None:
    figure = plot_trajectories(make_document(parts), make_book(parts))
    base, finetuned = figure.axes
    assert base.get_title(loc="left") == "pretrained, seed 0"
    assert [text.get_text() for text in base.texts] == ["success 0.75, 1 of 2 solved, obeyed 0.50"]
    colours = mode_colours(MODES)

    def lines(axes: object) -> list[list[str]]:
        found = [artist for artist in axes.collections if isinstance(artist, LineCollection)]  # type: ignore[attr-defined]
        return [
            [to_hex(c) for c in np.broadcast_to(artist.get_colors(), (len(artist.get_segments()), 4))]
            for artist in found
        ]

    assert lines(base) == [[colours["left"], colours["right"], colours["right"]], [GREY]]
    # Only the first of two seeds, each of which collapsed onto another mode.
    assert lines(finetuned) == [[colours["left"]] * 4, []]
    assert (finetuned.get_xlabel(), base.get_ylabel()) == ("tip x", "tip y")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["left", "right", "failed"]


def test_the_axis_counts_solved_modes(parts: list[Episodes]) -> None:
    figure = plot_success_modes(make_document(parts))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "modes solved, at a success rate ≥ 0.8 (of 2)"
    assert list(axes.get_xticks()) == [0, 1, 2]
    points = [tuple(container.lines[0].get_xydata()[0]) for container in axes.containers]
    assert points == [(1.0, 0.75), (1.0, 1.0)]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "pretrained\n1 seed, n = 4\nobeyed 0.50, worst 0.33",
        "dsrl\n2 seeds, n = 8\nobeyed 0.50, worst 0.00",
    ]


def test_a_panel_holds_no_more_paths_than_can_be_told_apart(
    monkeypatch: pytest.MonkeyPatch, parts: list[Episodes]
) -> None:
    monkeypatch.setattr(figures, "MAX_PATHS", 3)
    figure = plot_trajectories(make_document(parts), make_book(parts))
    drawn = [artist for artist in figure.axes[0].collections if isinstance(artist, LineCollection)]
    assert [len(artist.get_segments()) for artist in drawn] == [2, 1]


@pytest.mark.parametrize("total", [1, 2, 8, 9, 24, 100])
def test_ticks_are_few_and_hold_the_total(total: int) -> None:
    ticks = figures._count_ticks(total)
    assert ticks[0] == 0
    assert ticks[-1] == total
    assert len(ticks) <= 10
    assert sorted(set(ticks)) == ticks


def test_files_are_the_same_bytes_for_the_same_data(parts: list[Episodes], tmp_path: Path) -> None:
    document, book = make_document(parts), make_book(parts)
    contents = []
    for name in ("one", "two"):
        paths = [
            *save_figure(plot_trajectories(document, book), tmp_path / name),
            *save_figure(plot_success_modes(document), tmp_path / f"{name}-c"),
        ]
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]


def test_where_nothing_is_solved_present_modes_are_counted(parts: list[Episodes]) -> None:
    weak = make_part("dsrl", 0, [0, 1, 0, 1], [True, True, False, False])
    (axes,) = plot_success_modes(make_document([weak])).axes
    assert axes.get_xlabel() == "modes present, with ≥ 1% of the successes (of 2)"
    assert tuple(axes.containers[0].lines[0].get_xydata()[0]) == (2.0, 0.5)


def make_curves(**values: list[float | None]) -> Curves:
    return Curves(step=[1, 2, 3], values=dict(values), stride=1)


CURVES = {
    ("dsrl", 0): make_curves(success=[0.5, 0.6, 0.7], kl=[0.01, None, 0.03]),
    ("dsrl-bmd", 0): make_curves(success=[0.4, 0.5, 0.6], entropy=[9.0, 8.0, 7.0], mi_weight=[0.5, 0.5, 0.5]),
    ("dsrl-bmd", 1): make_curves(success=[0.6, 0.7, 0.8], entropy=[5.0, 5.0, 4.0], mi_weight=[0.5, 0.5, 0.5]),
    ("res", 0): make_curves(success=[0.1, 0.1, 0.1], kl=[0.09, 0.09, 0.09]),
}


def test_curves_of_a_family_are_means_over_thin_seeds_on_one_scale() -> None:
    drawn = plot_curves(CURVES, before=0.3)
    assert list(drawn) == ["dsrl", "res"]
    success, entropy, kl = [axes for axes in drawn["dsrl"].axes if axes.axison]
    assert success.get_title(loc="left") == "success in rollouts"
    assert entropy.get_title(loc="left") == "change of the exploration's entropy (nats)"
    assert kl.get_title(loc="left") == "KL divergence of an update / its target"
    style = method_style("dsrl")
    lines = [(line.get_linestyle(), line.get_linewidth(), line.get_ydata()[-1]) for line in success.lines]
    assert lines[:2] == [("--", 0.7, 0.7), ("--", 1.6, 0.7)]
    assert lines[2:5] == [("-", 0.7, 0.6), ("-", 0.7, 0.8), ("-", 1.6, pytest.approx(0.7))]
    assert lines[5][0] == ":"
    assert lines[5][2] == 0.3
    assert {line.get_color() for line in success.lines[:5]} == {style.colour}
    assert [line.get_ydata()[-1] for line in entropy.lines] == [-2.0, -1.0, -1.5]
    assert np.isnan(kl.lines[0].get_ydata()[1])
    assert kl.lines[-1].get_ydata()[0] == 1.0
    assert kl.get_ylim() == drawn["res"].axes[1].get_ylim() == (0.0, pytest.approx(1.05 * 0.09))


def test_a_weight_that_never_changed_is_no_panel() -> None:
    assert held_weight(CURVES) == 0.5
    other = {**CURVES, ("dsrl-bmd", 2): make_curves(mi_weight=[0.5, 0.6, 0.7])}
    assert held_weight(other) is None
    titles = [axes.get_title(loc="left") for axes in plot_curves(other)["dsrl"].axes]
    assert "weight λ" in titles


def test_pretraining_marks_the_weights_that_were_kept() -> None:
    (axes,) = plot_pretraining(make_curves(selected=[0.1, 0.5, 0.4]), 2).axes
    assert [tuple(line.get_xydata()[-1]) for line in axes.lines] == [(3.0, 0.4), (2.0, 0.5)]
    (axes,) = plot_pretraining(make_curves(selected=[0.1, 0.5, 0.4]), None).axes
    assert len(axes.lines) == 1


def test_codes_are_discs_whose_area_is_the_share() -> None:
    def row(code: int, **shares: float) -> CodeRow:
        return CodeRow(
            seed=3, code=code, episodes=10, success_rate=0.9, mode_shares=shares, behaviour="left", obeyed=0.8
        )

    rows = [row(0, left=0.75, right=0.25), row(1, left=0.0, right=1.0)]
    (axes,) = plot_codes("dsrl-bmd", {3: rows}, MODES, (None, "mine")).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "mine"]
    assert axes.get_xlabel() == "dsrl-bmd, seed 3"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["left", "right", "success", "obeyed"]
    first, second = axes.collections
    assert [tuple(place) for place in first.get_offsets()] == [(0, 0), (1, 0)]
    assert [tuple(place) for place in second.get_offsets()] == [(1, 1)]
    assert first.get_sizes()[0] == pytest.approx(3 * first.get_sizes()[1])
    assert [text.get_text() for text in axes.texts] == ["90%", "80%"] * 2


def test_an_embedded_figure_brings_no_style_no_address_and_only_its_own_identifiers(parts: list[Episodes]) -> None:
    document = make_document(parts).model_copy(update={"task": "<b>$x_1$\u2028"})
    text = embed_figure(plot_success_modes(document), "outcome", "<title>", "a & b")
    assert text.startswith('<svg viewBox="0 0 ')
    assert '<title id="outcome-title">&lt;title&gt;</title><desc id="outcome-description">a &amp; b</desc>' in text
    assert not re.search(r"<style|<metadata|https?:|<!--|xlink", text)
    assert "#0072b2" in text
    assert all(name.startswith("outcome-") for name in re.findall(r'\bid="([^"]+)"', text))
    assert text == embed_figure(plot_success_modes(document), "outcome", "<title>", "a & b")
