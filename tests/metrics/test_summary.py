"""From episodes to eval.json's blocks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
from bmd_pipeline.metrics.schemas import PolicyBlock
from bmd_pipeline.metrics.scores import MIN_MODE_SHARE, measure_deviations
from bmd_pipeline.metrics.summary import summarise_policy

SEED_METRICS = (
    "success_rate",
    "mode_weighted_success",
    "present",
    "solved",
    "mode_entropy",
    "obeyed",
    "obeyed_worst",
    "mutual_information",
    "episode_return",
)


def make_part(mode: list[int], success: list[bool], seed: int = 0, code: list[int] | None = None) -> Episodes:
    n = len(mode)
    parity = np.eye(2)[[i % 2 for i in range(n)]]
    return Episodes(
        policy="dsrl-bmd",
        seed=seed,
        num_codes=2 if code else 1,
        code=np.array(code or [0] * n),
        success=np.array(success),
        length=np.full(n, 5),
        episode_return=np.array(success, dtype=float) * 2,
        information=np.full(n, 0.5 if code else 0.0),
        deviation=np.array(success, dtype=float),
        labellings={
            "side": ModeWeights(("left", "right"), np.eye(2)[mode]),
            "parity": ModeWeights(("even", "odd"), parity),
        },
        behaviours={"side": ("left", "right"), "parity": ("even", "odd")} if code else {},
    )


def summarise(*parts: Episodes) -> PolicyBlock:
    rng = np.random.default_rng(0)
    return summarise_policy(parts, config_hash="c0ffee", tau=0.8, confidence=0.95, rng=rng)


def test_numbers_of_one_seed() -> None:
    block = summarise(make_part([0, 0, 0, 1], [True, True, False, True]))
    assert block.success_rate.mean == 0.75
    assert block.success_rate.n == 4
    assert block.mode_weighted_success.mean == pytest.approx((2 / 3 + 1) / 2)
    assert (block.present.mean, block.present.total) == (2, 2)
    assert (block.solved.mean, block.solved.tau, block.solved.total) == (1, 0.8, 2)
    assert block.mode_entropy.mean == pytest.approx(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))
    assert block.episode_return.mean == 1.5
    assert block.mutual_information.model_dump() == {"mean": 0, "low": 0, "high": 0, "n": 4}
    assert [(row.mode, row.episodes) for row in block.per_mode] == [("left", 3), ("right", 1)]
    assert block.codes == []
    assert block.labelling == "side"
    assert list(block.labellings) == ["parity"]
    assert block.labellings["parity"].per_mode[0].success_rate == 0.5


def test_seeds_that_collapse_differently_are_not_diverse_together() -> None:
    block = summarise(make_part([0] * 20, [True] * 20, seed=0), make_part([1] * 20, [True] * 20, seed=1))
    assert block.success_rate.mean == 1
    assert block.mode_entropy.mean == 0
    assert block.present.mean == block.solved.mean == 1
    assert block.mode_weighted_success.mean == 0.5
    assert [row.seed for row in block.seeds] == [0, 1]
    # The table averages over seeds too, so that SRM is the mean of its column.
    assert np.mean([row.success_rate for row in block.per_mode]) == block.mode_weighted_success.mean
    # Each mode was mastered by one seed of two: the interval says how little that is.
    assert block.per_mode[0].success_low < 0.2
    assert block.per_mode[0].success_high > 0.8


def test_code_to_mode_matrix() -> None:
    part = make_part([0, 0, 1, 1], [True, True, True, False], code=[0, 1, 1, 1])
    block = summarise(part)
    first, second = block.codes
    assert (first.code, first.episodes, first.success_rate) == (0, 1, 1)
    assert first.mode_shares == {"left": 1, "right": 0}
    assert second.success_rate == pytest.approx(2 / 3)
    assert second.mode_shares == {"left": 0.5, "right": 0.5}
    assert block.mutual_information.mean == 0.5


def test_a_policy_that_never_succeeds() -> None:
    block = summarise(make_part([0, 1, 0], [False] * 3, code=[0, 0, 0]))
    assert block.success_rate.mean == 0
    assert block.success_rate.high > 0.3  # three failures prove little
    assert block.mode_entropy.mean == 0
    assert block.codes[1].episodes == 0
    assert all(row.share == 0 for row in block.per_mode)


def test_intervals_shrink_with_episodes_and_are_reproducible() -> None:
    rng = np.random.default_rng(1)

    def part(n: int) -> Episodes:
        return make_part(rng.integers(2, size=n).tolist(), (rng.random(n) < 0.7).tolist())

    small, large = summarise(part(50)), summarise(part(2000))
    for name in ("success_rate", "mode_weighted_success", "mode_entropy", "episode_return"):
        width = [getattr(block, name).high - getattr(block, name).low for block in (small, large)]
        assert width[1] < 0.5 * width[0], name
    one = make_part([0, 1, 1, 0], [True, False, True, True])
    assert summarise(one) == summarise(one)


def test_spread_within_a_mode_is_the_standard_deviation_of_its_paths() -> None:
    """Against NumPy's; a mode below the share that counts, and failures, stay out of it."""
    rng = np.random.default_rng(3)
    mode = np.repeat([0, 1], [250, 251])
    success = rng.random(501) < 0.9
    mode[-1], success[-1] = 0, True
    paths = rng.normal(size=(501, 6, 2)) * np.array([0.1, 0.4])[mode][:, None, None]
    part = make_part(mode.tolist(), success.tolist())
    weights = part.labellings["side"].weights
    part = replace(part, deviation=measure_deviations(paths, success, weights))
    expected = [math.sqrt(paths[success & (mode == one)].var(axis=0, ddof=1).sum(axis=-1).mean()) for one in range(2)]
    found = summarise(part).mode_spread
    assert found is not None
    assert found.mean == pytest.approx(np.mean(expected))
    assert found.low < found.mean < found.high

    rare = np.where(mode == 1, success & (np.cumsum(mode) <= 2), success)  # two successes of the right: below 1 %
    alone = summarise(replace(part, success=rare, deviation=measure_deviations(paths, rare, weights))).mode_spread
    assert alone is not None
    assert alone.mean == pytest.approx(expected[0])


def test_spread_that_was_not_measured_is_missing() -> None:
    part = make_part([0, 1], [True, True])
    assert summarise(replace(part, deviation=np.full(2, np.nan))).mode_spread is None


def test_spread_of_one_path_each_is_zero() -> None:
    """However far modes lie apart; a lone success and a policy without any have none either."""
    weights = np.eye(2)[[0, 0, 1, 1, 1]]
    paths = np.broadcast_to(np.array([0.0, 0.0, 5.0, 5.0, 9.0])[:, None, None], (5, 4, 2))
    deviations = measure_deviations(paths, np.array([True, True, True, True, False]), weights)
    np.testing.assert_array_equal(deviations, 0.0)
    np.testing.assert_array_equal(measure_deviations(paths, np.array([True, *[False] * 4]), weights), 0.0)
    nothing = summarise(make_part([0, 1], [False, False])).mode_spread
    assert nothing is not None
    assert (nothing.low, nothing.mean, nothing.high) == (0, 0, 0)


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=20)
def test_matches_brute_force(seed: int, num_seeds: int) -> None:
    """Every number again, episode by episode; failures are now and then undecided between the modes."""
    rng = np.random.default_rng(seed)
    parts = []
    for k in range(num_seeds):
        n = int(rng.integers(1, 40))
        code = rng.integers(3, size=n).tolist()
        part = make_part(rng.integers(2, size=n).tolist(), (rng.random(n) < 0.6).tolist(), k, code)
        behaviours: dict[str, tuple[str | None, ...]] = {
            "side": ("left", "right", "left"),
            "parity": ("even", None, "odd"),
        }
        part = replace(
            part, num_codes=3, behaviours=behaviours, episode_return=rng.normal(size=n), information=rng.normal(size=n)
        )
        undecided = ~part.success & (rng.random(n) < 0.5)
        weights = np.where(undecided[:, None], 0.5, part.labellings["side"].weights)
        parts.append(replace(part, labellings={"side": ModeWeights(("left", "right"), weights)}))
    block = summarise(*parts)

    rows: dict[str, list[float]] = {name: [] for name in SEED_METRICS}
    for part, row in zip(parts, block.seeds, strict=True):
        episodes = list(zip(part.success.tolist(), part.labellings["side"].weights.tolist(), strict=True))
        won = [sum(weight[mode] for ok, weight in episodes if ok) for mode in range(2)]
        seen = [sum(weight[mode] for _, weight in episodes) for mode in range(2)]
        rates = [w / s if s else 0.0 for w, s in zip(won, seen, strict=True)]
        shares = [w / sum(won) if sum(won) else 0.0 for w in won]
        obeyed = {}
        for mode, asking in enumerate(((0, 2), (1,))):  # two codes ask for the left, and count once
            shown = [
                w[mode] for (ok, w), code in zip(episodes, part.code.tolist(), strict=True) if ok and code in asking
            ]
            obeyed[mode] = sum(shown) / len(shown) if shown else 0.0
        expected = {
            "success_rate": sum(ok for ok, _ in episodes) / len(episodes),
            "mode_weighted_success": sum(rates) / 2,
            "present": sum(share >= MIN_MODE_SHARE for share in shares),
            "solved": sum(r >= 0.8 and share >= MIN_MODE_SHARE for r, share in zip(rates, shares, strict=True)),
            "mode_entropy": -sum(share * math.log(share) for share in shares if share),
            "obeyed": sum(obeyed.values()) / 2,
            "obeyed_worst": min(obeyed.values()),
            "mutual_information": sum(part.information.tolist()) / len(episodes),
            "episode_return": sum(part.episode_return.tolist()) / len(episodes),
        }
        for name in SEED_METRICS:
            assert getattr(row, name) == pytest.approx(expected[name], abs=1e-9), name
            rows[name].append(expected[name])
        for code_row in (c for c in block.codes if c.seed == row.seed):
            mine = [e for e, code in zip(episodes, part.code.tolist(), strict=True) if code == code_row.code]
            wins = [weight for ok, weight in mine if ok]
            assert code_row.episodes == len(mine)
            assert code_row.success_rate == pytest.approx(len(wins) / len(mine) if mine else 0.0)
            left = sum(weight[0] for weight in wins) / len(wins) if wins else 0.0
            assert code_row.mode_shares["left"] == pytest.approx(left)
    for name, values in rows.items():
        estimate = getattr(block, name)
        assert estimate.mean == pytest.approx(sum(values) / num_seeds, abs=1e-9), name
        assert estimate.n == sum(map(len, parts))
