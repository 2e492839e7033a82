"""The validation of modes in plain words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmd_pipeline.metrics.comparison import Interval
from bmd_pipeline.metrics.validation import BaseBehaviour, SeedAgreement, SeedValidation

_DISTURBANCES = {
    "noise": "noisy observations",
    "delay": "late actions",
    "weak": "scaled actions",
    "locked": "one component of the action locked",
}


def describe_validation(
    base: BaseBehaviour, discovered: Sequence[SeedValidation], agreement: Sequence[SeedAgreement], *, power: float
) -> list[str]:
    """The findings, a sentence or two each.

    Args:
        base: the base policy.
        discovered: each seed's modes.
        agreement: of pairs of seeds.
        power: that goes with the share that would have been found.
    """
    sentences = [_describe_ways(base, power), _describe_separation(discovered, base), *_describe_truth(discovered)]
    return [*sentences, *_describe_agreement(agreement), *_describe_disturbed(discovered)]


def _describe_ways(base: BaseBehaviour, power: float) -> str:
    """Whether there is anything to preserve."""
    test = base.twins
    if test is None or base.ways == "unknown":
        return (
            "Whether the base policy has more than one way can't be told: from too few starts do both of two episodes "
            f"succeed (success rate {base.success_rate.value:.2f}). Raise evaluate.episodes, or train a better one."
        )
    numbers = f"{test.pairs} pairs of episodes from the same start, {_p(test.p)} for a single one"
    if base.ways == "several":
        return f"The base policy has more than one way to succeed: {numbers}."
    return (
        f"The base policy has one way to succeed, as far as can be seen ({numbers}): there is nothing to preserve. A "
        f"second way of at least {test.detectable_share:.0%} of the successes, well apart from the first, would have "
        f"been found with probability {power:g}."
    )


def _describe_separation(discovered: Sequence[SeedValidation], base: BaseBehaviour) -> str:
    found = [one.separation for one in discovered if one.separation is not None]
    if not found:
        return "Whether codes differ can't be told: too few of their episodes succeed."
    shown = [f"{_share(one.recognised)} (chance {one.chance:.2f})" for one in found]
    text = (
        "A classifier that knows nothing of the inference model tells the code from the trajectory in "
        f"{_listed(shown)} of held-out successes. Silhouette {_mean([one.silhouette for one in found])}; "
        f"trajectories of two codes are {_mean([one.between / max(one.within, 1e-9) for one in found])} times as far "
        "apart as those of one."
    )
    if base.ways == "one":
        text += " What differs between codes lies within the one way."
    return text


def _describe_truth(discovered: Sequence[SeedValidation]) -> list[str]:
    found = [(one.seed, one.truth) for one in discovered if one.truth is not None]
    if not found:
        return []
    numbers = ", ".join(
        f"{name} {_mean([getattr(truth, field) for _, truth in found])}"
        for name, field in (("NMI", "nmi"), ("ARI", "ari"), ("purity", "purity"))
    )
    text = [f"Against the true modes, which discovery never saw: {numbers}."]
    for seed, truth in found:
        groups = [f"{_listed([str(code) for code in group])}" for group in truth.redundant]
        parts = [f"codes {group} lead to the same mode" for group in groups]
        if truth.missing:
            parts.append(f"no code leads to {_listed(truth.missing, 'or')}")
        if parts:
            text.append(f"Seed {seed}: {'; '.join(parts)}.")
    return text


def _describe_agreement(agreement: Sequence[SeedAgreement]) -> list[str]:
    if not agreement:
        return []
    return [
        "Sorting the base policy's own successes, discovery seeds agree with each other at NMI "
        f"{_mean([pair.nmi for pair in agreement])}, ARI {_mean([pair.ari for pair in agreement])} "
        "(1: the same up to names)."
    ]


def _describe_disturbed(discovered: Sequence[SeedValidation]) -> list[str]:
    names = [one.disturbance for one in discovered[0].disturbed]
    if not names:
        return []
    before = np.mean([one.success_rate.value for one in discovered])
    present = _count([one.present for one in discovered])
    parts = []
    for i, name in enumerate(names):
        there = [one.disturbed[i] for one in discovered]
        read = [one.recognised.value for one in there if one.recognised is not None]
        seen = f", codes told apart in {_mean(read)}" if read else ""
        parts.append(
            f"{_DISTURBANCES.get(name, name)}: success {_mean([one.success_rate.value for one in there])}{seen}, "
            + _count([one.present for one in there])
        )
    return [f"Undisturbed, success is {before:.2f} with {present}. With {'; with '.join(parts)}."]


def _count(modes: Sequence[int]) -> str:
    mean = np.mean(modes)
    return f"{mean:.2g} mode{'' if mean == 1 else 's'} present"


def _share(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 1e-3 else f"p = {p:.2g}"


def _listed(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
