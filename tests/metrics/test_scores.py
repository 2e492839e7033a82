"""Scores from sums are those of eval.json."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.scores import COMPARED, SCORES, compute_scores, episode_features
from bmd_pipeline.metrics.summary import summarise_policy
from tests.metrics.drawn import draw_episodes


def test_scores_are_those_of_eval_json() -> None:
    rng = np.random.default_rng(0)
    part = draw_episodes("dsrl", 3, rates=[0.95, 0.85, 0.4, 0.9], shares=[5, 3, 1, 1], n=400, rng=rng)
    scores = compute_scores(episode_features(part, "goal").sum(axis=0), 400, 0.8)
    (row,) = summarise_policy([part], config_hash="", tau=0.8, confidence=0.95, rng=rng).seeds
    assert tuple(scores) == SCORES
    for name in SCORES:
        assert scores[name] == pytest.approx(getattr(row, name)), name


def test_leading_axes_are_kept() -> None:
    rng = np.random.default_rng(1)
    parts = [draw_episodes("a", k, rates=[0.9, 0.5], shares=[1, 1], n=50, rng=rng) for k in range(6)]
    sums = np.stack([episode_features(part, "goal").sum(axis=0) for part in parts])
    flat, square = compute_scores(sums, 50, 0.8), compute_scores(sums.reshape(2, 3, -1), 50, 0.8)
    for name in SCORES:
        np.testing.assert_array_equal(flat[name].reshape(2, 3), square[name])


def test_information_is_scored_but_never_compared() -> None:
    assert set(SCORES) - set(COMPARED) == {"mutual_information"}
