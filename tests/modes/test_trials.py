"""Thompson sampling over codes, against its closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.modes.trials import CodeTrials

DRAWS = 4000


def choose_often(trials: CodeTrials) -> np.ndarray:
    """Shares of the codes among many choices from the same posterior."""
    generator = np.random.default_rng(0)
    chosen = [trials.choose(generator) for _ in range(DRAWS)]
    return np.bincount(chosen, minlength=len(trials.successes)) / DRAWS


def test_nothing_is_known_at_first() -> None:
    assert choose_often(CodeTrials(4)) == pytest.approx(np.full(4, 1 / 4), abs=0.03)


@pytest.mark.parametrize("failures", [1, 3])
def test_a_code_that_failed_is_chosen_as_its_posterior_says(failures: int) -> None:
    """P(Beta(1, 1 + f) > Beta(1, 1)) is the mean of the former, 1 / (2 + f)."""
    trials = CodeTrials(2)
    for _ in range(failures):
        trials.update(0, success=False)
    assert choose_often(trials)[0] == pytest.approx(1 / (2 + failures), abs=0.03)


def test_a_robot_ends_with_the_code_that_works() -> None:
    trials, generator, rates = CodeTrials(3), np.random.default_rng(1), [0.1, 0.9, 0.3]
    for _ in range(300):
        code = trials.choose(generator)
        trials.update(code, bool(generator.random() < rates[code]))
    tried = trials.successes + trials.failures
    assert tried.sum() == 300
    assert tried[1] > 250
    assert trials.successes[1] / tried[1] == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("code", [-1, 2])
def test_unknown_codes_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match=f"code {code} is none of the 2 codes"):
        CodeTrials(2).update(code, success=True)
