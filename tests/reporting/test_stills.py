"""Stills beside each other."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bmd_pipeline.reporting.clips import Strip, draw_strips

GREY = np.full((64, 64, 3), 120, np.uint8)


def draw(strips: list[Strip], columns: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(draw_strips(strips, columns, 80))) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGB"))


def make_strip(path: NDArray[np.float64]) -> Strip:
    return Strip("left", [GREY, GREY], [path[:1], path])


@pytest.mark.parametrize(("count", "columns", "shape"), [(1, 6, (100, 162)), (3, 2, (210, 334)), (2, 1, (210, 162))])
def test_lays_strips_out_in_rows(count: int, columns: int, shape: tuple[int, int]) -> None:
    strips = [make_strip(np.array([[0.5, 0.5], [0.9, 0.5]])) for _ in range(count)]
    assert draw(strips, columns).shape[:2] == shape


def test_draws_the_path_where_it_went() -> None:
    page = draw([make_strip(np.array([[0.25, 0.5], [0.75, 0.5]]))], 1).astype(int)
    first, second = page[20:, :80], page[20:, 82:]
    coloured = (second[..., 0] - second[..., 2]) > 80  # amber
    rows, columns = np.nonzero(coloured)
    assert (rows.min() >= 36, rows.max() <= 44) == (True, True)
    assert (columns.min(), columns.max()) == (pytest.approx(20, abs=4), pytest.approx(60, abs=4))
    assert not ((first[..., 0] - first[..., 2]) > 80).any()  # a start is no path


def test_captions_are_written() -> None:
    page = draw([make_strip(np.array([[0.5, 0.5], [0.6, 0.5]]))], 1)
    assert page[:18].min() < 100
