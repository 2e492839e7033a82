"""From the trajectories of commanded and uncommanded episodes to the numbers of modes/validation.json."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.config.schema import ValidationConfig
from bmd_pipeline.metrics.comparison import Interval
from bmd_pipeline.metrics.intervals import proportion_interval, wilson_interval
from bmd_pipeline.metrics.partitions import count_pairs, find_missing, find_redundant, measure_agreement
from bmd_pipeline.metrics.separability import MIN_EPISODES, CodeReader, measure_spread, select_codes
from bmd_pipeline.metrics.success import MIN_MODE_SHARE
from bmd_pipeline.metrics.unimodality import compare_twins
from bmd_pipeline.metrics.validation import (
    BaseBehaviour,
    CodeRow,
    Disturbed,
    SeedAgreement,
    SeedValidation,
    Separation,
    Truth,
    TwinComparison,
)

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

MIN_SUCCESSES = 20
"""Successes, or pairs of them, without which nothing is tested or compared with the truth."""


@dataclass(frozen=True)
class Trajectories:
    """Episodes as they are compared.

    Attributes:
        points: (n, points, features) resampled to equally many points, scaled.
        code: (n,) the code that commanded each; zeros for the base policy.
        success: (n,) bool.
        mode: (n,) index of the true mode; meaningful for successes alone.
    """

    points: Floats
    code: Labels
    success: NDArray[np.bool_]
    mode: Labels

    @property
    def flat(self) -> Floats:
        """(n, points * features)."""
        return self.points.reshape(len(self.points), -1)

    def count_modes(self, modes: Sequence[str]) -> Labels:
        """Successes by true mode, (num_modes,)."""
        return np.bincount(self.mode[self.success], minlength=len(modes))


class Validator:
    """Puts codes to the test on one task.

    Args:
        settings: level and power.
        modes: names of the task's true modes.
        confidence: level of intervals.
        rng: draws.
    """

    def __init__(
        self,
        settings: ValidationConfig,
        modes: Sequence[str],
        confidence: float,
        rng: np.random.Generator,
    ) -> None:
        self.settings = settings
        self.modes = modes
        self.confidence = confidence
        self.rng = rng

    def describe_base(self, one: Trajectories, twin: Trajectories) -> BaseBehaviour:
        """What the base policy does, from two episodes per start under independent noise."""
        both = one.success & twin.success
        tested = None
        if both.sum() >= MIN_SUCCESSES:
            found = compare_twins(
                one.points[both],
                twin.points[both],
                alpha=self.settings.alpha,
                power=self.settings.power,
                rng=self.rng,
            )
            tested = TwinComparison(**vars(found))
        ways: Literal["several", "one", "unknown"] = "unknown"
        if tested is not None and tested.p <= self.settings.alpha:
            ways = "several"
        elif tested is not None and (tested.detectable_share or 1.0) <= self.settings.min_share:
            ways = "one"
        return BaseBehaviour(
            episodes=2 * len(both),
            success_rate=self._rate_twins(one.success, twin.success),
            ways=ways,
            twins=tested,
            mode_shares=self._shares(one.count_modes(self.modes) + twin.count_modes(self.modes)),
        )

    def describe_seed(
        self,
        seed: int,
        num_codes: int,
        played: Trajectories,
        disturbed: Mapping[str, Trajectories],
        base: BaseBehaviour,
    ) -> SeedValidation:
        """What one seed's codes bring about.

        Args:
            seed: the discovery seed.
            num_codes: K that it found.
            played: commanded episodes, codes round-robin.
            disturbed: the same starts and codes under each disturbance.
            base: what the base policy does without commands.
        """
        won, codes = played.success, played.code
        # Codes go round-robin: this halves the starts of every one.
        heldout = np.arange(len(codes)) // num_codes % 2 == 1
        learners = select_codes(codes[won & ~heldout], num_codes, MIN_EPISODES)
        spread = measure_spread(played.flat[won], codes[won], num_codes)
        reader, separation, silhouette = None, None, np.full(num_codes, np.nan)
        recognised: dict[int, float] = {}
        readable = heldout & np.isin(codes, learners)
        if spread is not None and len(learners) > 1 and (won & readable).any():
            learned = won & ~heldout & np.isin(codes, learners)
            reader = CodeReader(played.flat[learned], codes[learned], int(self.rng.integers(2**31)))
            read = reader.read(played.flat[won & readable], codes[won & readable], num_codes, self.confidence)
            seen = read.table.sum(axis=1)
            recognised = {k: float(read.table[k, k] / seen[k]) for k in np.flatnonzero(seen).tolist()}
            silhouette = spread.silhouette
            separation = Separation(
                silhouette=float(np.nanmean(silhouette)),
                within=spread.within,
                between=spread.between,
                recognised=Interval(value=read.rate, low=read.low, high=read.high),
                chance=read.chance,
                p=read.p,
                learned_from=int(learned.sum()),
                confusion=read.table.tolist(),
            )
        table = count_pairs(codes[won], played.mode[won], num_codes, len(self.modes))
        return SeedValidation(
            seed=seed,
            episodes=len(codes),
            success_rate=self._rate(won),
            present=self._count(played),
            separation=separation,
            truth=self._compare_with_truth(played, table, base) if won.sum() >= MIN_SUCCESSES else None,
            codes=[
                CodeRow(
                    code=k,
                    episodes=int((codes == k).sum()),
                    success_rate=float(won[codes == k].mean()),
                    silhouette=None if np.isnan(silhouette[k]) else float(silhouette[k]),
                    recognised=recognised.get(k),
                    mode=self.modes[int(row.argmax())] if row.any() else None,
                    mode_shares=self._shares(row),
                )
                for k, row in enumerate(table)
            ],
            disturbed=[
                self._describe_disturbed(name, there, reader, readable & there.success, num_codes)
                for name, there in disturbed.items()
            ],
        )

    def _compare_with_truth(self, played: Trajectories, table: Labels, base: BaseBehaviour) -> Truth:
        found = measure_agreement(played.code[played.success], played.mode[played.success])
        wanted = np.array([base.mode_shares[mode] >= MIN_MODE_SHARE for mode in self.modes])
        return Truth(
            nmi=found.nmi,
            ari=found.ari,
            purity=found.purity,
            redundant=find_redundant(table),
            missing=[self.modes[m] for m in find_missing(table, wanted)],
        )

    def _describe_disturbed(
        self, name: str, there: Trajectories, reader: CodeReader | None, readable: NDArray[np.bool_], num_codes: int
    ) -> Disturbed:
        recognised = None
        if reader is not None and readable.any():
            read = reader.read(there.flat[readable], there.code[readable], num_codes, self.confidence)
            recognised = Interval(value=read.rate, low=read.low, high=read.high)
        return Disturbed(
            disturbance=name,
            success_rate=self._rate(there.success),
            recognised=recognised,
            present=self._count(there),
        )

    def _rate(self, success: NDArray[np.bool_]) -> Interval:
        rate = float(success.mean())
        low, high = wilson_interval(rate, len(success), self.confidence)
        return Interval(value=rate, low=low, high=high)

    def _rate_twins(self, one: NDArray[np.bool_], twin: NDArray[np.bool_]) -> Interval:
        """Twins share their start, and a start may be easy or hard for both: starts are the clusters."""
        rates = (one.astype(np.float64) + twin) / 2
        low, high = proportion_interval(rates, np.full(len(rates), 2.0), self.confidence)
        return Interval(value=float(rates.mean()), low=low, high=high)

    def _shares(self, counts: Labels) -> dict[str, float]:
        shares = counts / max(1, counts.sum())
        return dict(zip(self.modes, shares.tolist(), strict=True))

    def _count(self, played: Trajectories) -> int:
        """True modes that hold at least 1 % of the successes."""
        shares = self._shares(played.count_modes(self.modes)).values()
        return sum(share >= MIN_MODE_SHARE for share in shares)


def describe_agreement(sortings: Mapping[int, Labels]) -> list[SeedAgreement]:
    """Every pair of seeds, by how they sort the same episodes (n,); none with fewer than twenty of them."""
    pairs = []
    for (one, first), (other, second) in itertools.combinations(sortings.items(), 2):
        if len(first) >= MIN_SUCCESSES:
            found = measure_agreement(first, second)
            pairs.append(SeedAgreement(one=one, other=other, episodes=len(first), nmi=found.nmi, ari=found.ari))
    return pairs
