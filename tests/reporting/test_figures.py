"""What figures show, looked up in the figure's own parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
from bmd_pipeline.metrics.schemas import Evaluation, Provenance
from bmd_pipeline.metrics.summary import summarise_policy
from bmd_pipeline.reporting import figures
from bmd_pipeline.reporting.figures import GREY, draw_success_modes, draw_trajectories, mode_colours
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
    provenance = Provenance(
        command="",
        git_commit=None,
        packages={},
        python="",
        platform="",
        device="",
        threads=1,
        wall_s=0.0,
        cpu_seconds=0.0,
        config={},
        inputs={},
    )
    return Evaluation(
        schema_version=3, task="Toy", config_hash="", confidence=0.9, policies=blocks, provenance=provenance
    )


def make_book(parts: Sequence[Episodes]) -> PathBook:
    paths = []
    for part in parts:
        for i, mode in enumerate(part.labellings["side"].labels()):
            end = np.array([[0, 0], [1 if mode == "right" else -1, i]], np.float32)
            paths.append(PlanarPath(part.policy, part.seed, 0, mode, bool(part.success[i]), end))
    return PathBook(("tip_x", "tip_y"), "side", MODES, paths)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that would have been saved."""
    kept: list[Figure] = []

    def keep(figure: Figure, stem: Path) -> list[Path]:
        kept.append(figure)
        return []

    monkeypatch.setattr(figures, "save_figure", keep)
    return kept


def test_trajectories_show_each_policy_in_the_colours_of_its_modes(parts: list[Episodes], drawn: list[Figure]) -> None:
    draw_trajectories(make_document(parts), make_book(parts), Path("unused"))
    base, tuned = drawn[0].axes
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
    assert lines(tuned) == [[colours["left"]] * 4, []]
    assert (tuned.get_xlabel(), base.get_ylabel()) == ("tip x", "tip y")
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["left", "right", "failed"]


def test_the_axis_counts_solved_modes(parts: list[Episodes], drawn: list[Figure]) -> None:
    draw_success_modes(make_document(parts), Path("unused"))
    (axes,) = drawn[0].axes
    assert axes.get_xlabel() == "modes solved, at a success rate ≥ 0.8 (of 2)"
    assert list(axes.get_xticks()) == [0, 1, 2]
    points = [tuple(container.lines[0].get_xydata()[0]) for container in axes.containers]
    assert points == [(1.0, 0.75), (1.0, 1.0)]
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == [
        "pretrained\n1 seed, n = 4\nobeyed 0.50, worst 0.33",
        "dsrl\n2 seeds, n = 8\nobeyed 0.50, worst 0.00",
    ]


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
            *draw_trajectories(document, book, tmp_path / name),
            *draw_success_modes(document, tmp_path / f"{name}-c"),
        ]
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
