"""Which code works here: a robot finds out from the outcomes of its own trials."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def choose_codes(successes: ArrayLike, failures: ArrayLike, generator: np.random.Generator) -> NDArray[np.int64]:
    """The codes (...) whose success rates are the highest, when each is drawn from its posterior Beta(1 + s, 1 + f).

    `successes` and `failures` are those of each code, (..., K).
    """
    drawn = generator.beta(1.0 + np.asarray(successes), 1.0 + np.asarray(failures))
    codes: NDArray[np.int64] = drawn.argmax(axis=-1)
    return codes


class CodeTrials:
    """The outcomes of a robot's trials of K codes, and by Thompson sampling the code to try next.

    Each code's success rate has the prior Beta(1, 1). Success on selection seeds would be another prior, but it was
    measured in a world that may be no more, and its hundreds of episodes would outvote the few trials that a robot has.

    Source: Thompson 1933, Biometrika 25, 285-294; Chapelle and Li 2011, An Empirical Evaluation of Thompson Sampling,
    NeurIPS 24. A damaged robot that tries one known behaviour after another: Cully et al. 2015 (arXiv 1407.3501), by
    Bayesian optimisation.
    """

    def __init__(self, num_codes: int) -> None:
        self.successes = np.zeros(num_codes, np.int64)  # (K,)
        self.failures = np.zeros(num_codes, np.int64)  # (K,)

    def choose(self, generator: np.random.Generator) -> int:
        """The code to try next, see `choose_codes`."""
        return int(choose_codes(self.successes, self.failures, generator))

    def update(self, code: int, success: bool) -> None:
        """Counts the outcome of one trial.

        Raises:
            ValueError: there is no such code.
        """
        if not 0 <= code < len(self.successes):
            raise ValueError(f"code {code} is none of the {len(self.successes)} codes")
        (self.successes if success else self.failures)[code] += 1
