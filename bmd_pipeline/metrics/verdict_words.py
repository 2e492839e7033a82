"""The verdict in plain words."""

from __future__ import annotations

from bmd_pipeline.metrics import seed_tests
from bmd_pipeline.metrics.comparison import Unit
from bmd_pipeline.metrics.verdict import Hypothesis


def state_claim(hypothesis: str, one: str, other: str, threshold: float, tau: float) -> str:
    """What is claimed, before any number is seen."""
    if hypothesis == "H1":
        return f"{one} succeeds as often as {other}, or at most {-100 * threshold:g} points less often"
    if hypothesis == "H2":
        return f"{one} solves more modes than {other}, each at a success rate of at least {tau:g}"
    return f"the successes of {one} are spread over the modes more evenly than those of {other}"


def describe_hypothesis(found: Hypothesis, one: str, other: str, *, total_modes: int, tau: float) -> str:
    """What was found, in one to three sentences.

    Args:
        found: the hypothesis, decided; its own text is not read.
        one: the first policy.
        other: the second one.
        total_modes: modes of the task.
        tau: success rate from which a present mode is solved.
    """
    return " ".join(filter(None, (_describe_numbers(found, one, other, total_modes, tau), _advise(found, total_modes))))


def describe_scope(unit: Unit, num_seeds: int, *, needed: int, family: int, alpha: float) -> str:
    """What the verdicts of a file are about.

    Args:
        unit: what the tests count.
        num_seeds: training seeds there are.
        needed: seeds from which a test over seeds would be used.
        family: hypotheses that are corrected for together.
        alpha: level.
    """
    base = "All seeds fine-tune one base policy."
    if unit == "seeds":
        return f"About training again with new seeds ({num_seeds} were seen). {base}"
    seeds = "1 seed is" if num_seeds == 1 else f"{num_seeds} seeds are"
    return (
        f"About these trained policies alone: {seeds} too few to speak about training again. Whatever they show, a "
        f"test over them can't give a p below {seed_tests.smallest_p(num_seeds):.3g}, and {family} hypotheses at "
        f"level {alpha:g} need {alpha / family:.2g}: that takes at least {needed} seeds. {base}"
    )


def _describe_numbers(found: Hypothesis, one: str, other: str, total: int, tau: float) -> str:
    gap = found.difference
    if found.hypothesis == "H1":
        numbers = f"{one} succeeds in {100 * found.one:.1f} % of the episodes, {other} in {100 * found.other:.1f} %"
        gain = f"{100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
    elif found.hypothesis == "H2":
        solved = f"{found.one:.1f} of {total} modes at a success rate of at least {tau:g}"
        numbers = f"{one} solves {solved}, {other} {found.other:.1f}"
        gain = f"{gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"
    else:
        numbers = f"The entropy is {found.one:.2f} nats with {one} and {found.other:.2f} with {other}"
        # Not the difference of the two numbers before it: few successes look less even than they are.
        gain = f"at equal numbers of successes {gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
    return f"{numbers}: {gain}, {_describe_p(found)}."


def _describe_p(found: Hypothesis) -> str:
    p = found.p_below_holm if found.verdict == "refuted" else found.p_above_holm
    against = " against the claim" if found.verdict == "refuted" else ""
    return f"p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'} corrected{against}"


def _advise(found: Hypothesis, total: int) -> str:
    """What would decide it."""
    size = found.sample_size
    if size is None:
        return ""
    if found.metric == "solved" and found.one == found.other:
        if found.one == total:
            return f"Both solve all {total} modes: there is nothing to gain here."
        if found.one == 0:
            return "Neither solves any mode: this can't be decided at such success rates."
    if size.needed is None:
        if abs(found.difference.value - found.threshold) < 1e-12:
            return "The difference is at the threshold itself: no sample would decide it."
        return "Even thousands of times as many episodes would not decide it at these rates."
    unit = "seeds" if size.unit == "seeds" else "episodes per seed"
    return (
        f"Undecided: if the truth is what was seen, about {_round_up(size.needed):,} {unit} instead of "
        f"{size.present:,} would do."
    )


def _round_up(number: int) -> int:
    """To two digits: more would feign a precision that plans don't have."""
    unit: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit
