"""Several policies on the same seeds and the same initial states, and resamples that keep them together.

Evaluation starts episode i of seed k from the same state whatever the policy, so a resample draws the same episodes of
the same seeds for all of them. Differences between policies are then not blurred by the luck of the draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.intervals import bootstrap_sums
from bmd_pipeline.metrics.mode_tests import ModeCounts
from bmd_pipeline.metrics.rarefaction import rarefy_entropies
from bmd_pipeline.metrics.scores import compute_scores, episode_features

Floats = NDArray[np.float64]
Scores = dict[str, Floats]


@dataclass(frozen=True)
class Contrast:
    """One score of two policies, as far as they can be compared in it.

    Attributes:
        one: (num_seeds,) the first policy's.
        other: (num_seeds,) the second policy's.
        resampled: (num_resamples,) difference, mean over seeds: seeds drawn, then episodes within each.
        within: (num_resamples,) the same, all seeds kept.
    """

    one: Floats
    other: Floats
    resampled: Floats
    within: Floats

    @property
    def differences(self) -> Floats:
        """First minus second, by seed."""
        return self.one - self.other


@dataclass(frozen=True)
class JointSample:
    """Evaluations of several policies, and what resampling makes of their scores.

    Attributes:
        episodes: by policy, one part per seed.
        labelling: name of the mode labelling.
        modes: names of its modes.
        tau: success rate from which a present mode is solved.
        scores: policy → score → (num_seeds,).
        resampled: policy → score → (num_resamples, num_seeds): seeds drawn, then episodes within each.
        within: policy → score → (num_resamples,): mean over seeds, all kept, of resampled episodes.
        entropy_seed: seeds the draws of entropies at equal numbers of successes, the same for every pair.
    """

    episodes: Mapping[str, Sequence[Episodes]]
    labelling: str
    modes: tuple[str, ...]
    tau: float
    scores: dict[str, Scores]
    resampled: dict[str, Scores]
    within: dict[str, Scores]
    entropy_seed: int
    _contrasts: dict[tuple[str, str, str], Contrast] = field(default_factory=dict, repr=False, compare=False)

    @property
    def seeds(self) -> list[int]:
        """Training seeds, the same for every policy."""
        return [part.seed for part in next(iter(self.episodes.values()))]

    @property
    def num_episodes(self) -> int:
        """Episodes of each policy and seed."""
        return len(next(iter(self.episodes.values()))[0])

    def counts(self, policy: str) -> ModeCounts:
        """Successes and visits by seed and mode."""
        sums = np.stack([episode_features(part, self.labelling).sum(axis=0) for part in self.episodes[policy]])
        num_modes = len(self.modes)
        return ModeCounts(sums[:, :num_modes], sums[:, num_modes : 2 * num_modes])

    def successes(self, policy: str) -> list[NDArray[np.bool_]]:
        """Successes by seed, (num_episodes,) each."""
        return [part.success for part in self.episodes[policy]]

    def contrast(self, one: str, other: str, score: str) -> Contrast:
        """Compares two policies in a score: by subtraction, but entropies at equal numbers of successes."""
        key = (one, other, score)
        if key not in self._contrasts:
            self._contrasts[key] = (
                self._contrast_entropies(one, other) if score == "mode_entropy" else self._subtract(one, other, score)
            )
        return self._contrasts[key]

    def _subtract(self, one: str, other: str, score: str) -> Contrast:
        return Contrast(
            self.scores[one][score],
            self.scores[other][score],
            (self.resampled[one][score] - self.resampled[other][score]).mean(axis=-1),
            self.within[one][score] - self.within[other][score],
        )

    def _contrast_entropies(self, one: str, other: str) -> Contrast:
        rng = np.random.default_rng(self.entropy_seed)
        num_resamples, num_seeds = self.resampled[one]["mode_entropy"].shape
        found = rarefy_entropies(self.episodes[one], self.episodes[other], self.labelling, num_resamples, rng)
        observed = float((found.one - found.other).mean())
        # A drawn seed gets any of its resamples: the same seed drawn twice is resampled twice.
        picks = rng.integers(num_seeds, size=(num_resamples, num_seeds))
        drawn = found.resampled[rng.integers(num_resamples, size=picks.shape), picks]
        return Contrast(
            found.one,
            found.other,
            _reflect(drawn.mean(axis=-1), observed),
            _reflect(found.resampled.mean(axis=-1), observed),
        )


def make_joint_sample(
    episodes: Mapping[str, Sequence[Episodes]], *, tau: float, num_resamples: int, rng: np.random.Generator
) -> JointSample:
    """Scores policies and resamples them together.

    Args:
        episodes: by policy, one part per seed; the same seeds and equally many episodes everywhere.
        tau: success rate from which a present mode is solved.
        num_resamples: bootstrap resamples.
        rng: draws of the bootstrap.
    """
    parts = list(episodes.values())
    labelling = next(iter(parts[0][0].labellings))
    num_episodes = len(parts[0][0])
    # One row per episode with the features of all policies side by side: what is drawn together stays together.
    features = [
        np.hstack([episode_features(part, labelling) for part in seed_parts]) for seed_parts in zip(*parts, strict=True)
    ]

    def score(sums: Floats) -> dict[str, Scores]:
        blocks = np.split(sums, len(parts), axis=-1)
        scored = (compute_scores(block, num_episodes, tau) for block in blocks)
        return dict(zip(episodes, scored, strict=True))

    within = score(bootstrap_sums(features, rng, num_resamples, draw_seeds=False))
    return JointSample(
        episodes=episodes,
        labelling=labelling,
        modes=parts[0][0].labellings[labelling].modes,
        tau=tau,
        scores=score(np.stack([rows.sum(axis=0) for rows in features])),
        resampled=score(bootstrap_sums(features, rng, num_resamples)),
        within={name: {key: value.mean(axis=-1) for key, value in scores.items()} for name, scores in within.items()},
        entropy_seed=int(rng.integers(2**31)),
    )


def _reflect(drawn: Floats, observed: float) -> Floats:
    """Resamples whose quantiles are the ends of the basic bootstrap interval, and whose tails its p.

    Resampling moves entropies down, so that its mean is no place to read an interval at; what it shows is how far
    a sample strays from its own mean, and to which side. Equal episodes must tie in spite of rounding.

    Source: Davison & Hinkley 1997, Bootstrap Methods, section 5.2.
    """
    reflected: Floats = np.round(observed + drawn.mean() - drawn, 12)
    return reflected
