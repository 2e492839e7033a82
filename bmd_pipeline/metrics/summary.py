"""From episodes to the numbers of eval.json.

Every metric is computed within each seed and then averaged over seeds: two seeds that collapsed onto
different modes must not look diverse together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bmd_pipeline.metrics.blocked import summarise_blocked
from bmd_pipeline.metrics.bootstrap import bootstrap_sums, percentile_interval, proportion_interval
from bmd_pipeline.metrics.episodes import Episodes, Floats
from bmd_pipeline.metrics.schemas import (
    CodeRow,
    Estimate,
    LabellingBlock,
    ModeRow,
    PolicyBlock,
    PresentEstimate,
    SeedRow,
    SolvedEstimate,
)
from bmd_pipeline.metrics.scores import (
    MIN_MODE_SHARE,
    compute_scores,
    count_modes,
    episode_features,
    mode_shares,
    mode_spread,
    mode_success_rates,
)


def summarise_policy(
    parts: Sequence[Episodes], *, config_hash: str, tau: float, confidence: float, rng: np.random.Generator
) -> PolicyBlock:
    """Computes one policy's block of eval.json from its episodes, one part per seed.

    Parts of a policy with codes must have their behaviours; τ is the success rate from which a present mode is solved.
    """
    blocks = {name: _summarise_labelling(parts, name, tau, confidence, rng) for name in parts[0].labellings}
    labelling = next(iter(blocks))
    main = blocks.pop(labelling)
    success_rates = np.array([part.success.mean() for part in parts])
    sizes = np.array([len(part) for part in parts], dtype=np.float64)
    low, high = proportion_interval(success_rates, sizes, confidence)
    information, episode_return = _estimate_means(parts, ("information", "episode_return"), confidence, rng)
    return PolicyBlock(
        **dict(main),
        config_hash=config_hash,
        labelling=labelling,
        success_rate=Estimate(mean=success_rates.mean(), low=low, high=high, n=int(sizes.sum())),
        mutual_information=information,
        episode_return=episode_return,
        seeds=[_summarise_seed(part, labelling, tau) for part in parts],
        labellings=blocks,
        blocked=summarise_blocked(parts, labelling, confidence, rng),
        mode_spread=_estimate_spread(parts, labelling, confidence, rng),
    )


def _summarise_seed(part: Episodes, labelling: str, tau: float) -> SeedRow:
    scores = compute_scores(episode_features(part, labelling).sum(axis=0), len(part), tau)
    # plain means: sums of weights are off by roundings, and the report compares success_rate with the mean bit by bit
    plain = {
        "success_rate": part.success.mean(),
        "episode_return": part.episode_return.mean(),
        "mutual_information": part.information.mean(),
    }
    values: dict[str, Any] = {name: float(value) for name, value in (scores | plain).items()}
    reach = list(part.obs_reach)
    return SeedRow(seed=part.seed, episodes=len(part), dropped=part.dropped, obs_reach=reach, **values)


def _summarise_labelling(
    parts: Sequence[Episodes], name: str, tau: float, confidence: float, rng: np.random.Generator
) -> LabellingBlock:
    modes = parts[0].labellings[name].modes
    features = [episode_features(part, name) for part in parts]
    for rows in features:
        rows[:, -2:] = 0.0  # return and information have estimates of their own; without them few kinds are left
    sums = np.stack([rows.sum(axis=0) for rows in features])
    # Read for the mode metrics alone, which don't depend on the number of episodes: seeds may differ in it.
    observed, drawn = (compute_scores(values, len(parts[0]), tau) for values in (sums, bootstrap_sums(features, rng)))

    def estimate(score: str) -> dict[str, Any]:
        mean = float(observed[score].mean())
        low, high = percentile_interval(drawn[score].mean(axis=-1), mean, confidence)
        return {"mean": mean, "low": low, "high": high, "n": sum(map(len, parts))}

    plain = ("mode_weighted_success", "mode_entropy", "obeyed", "obeyed_worst")
    estimates: dict[str, Any] = {score: Estimate(**estimate(score)) for score in plain}
    counted: dict[str, Any] = {"min_share": MIN_MODE_SHARE, "total": len(modes)}
    return LabellingBlock(
        **estimates,
        present=PresentEstimate(**estimate("present"), **counted),
        solved=SolvedEstimate(**estimate("solved"), **counted, tau=tau),
        per_mode=tabulate_modes(modes, sums[:, : len(modes)], sums[:, len(modes) : 2 * len(modes)], confidence),
        codes=[row for part in parts for row in _tabulate_codes(part, name)],
    )


def tabulate_modes(modes: Sequence[str], successes: Floats, visits: Floats, confidence: float) -> list[ModeRow]:
    """One row per mode, from counts (num_seeds, num_modes)."""
    rates = mode_success_rates(successes, visits)
    shares = mode_shares(successes).mean(axis=0)
    rows = []
    for i, mode in enumerate(modes):
        low, high = proportion_interval(rates[:, i], visits[:, i], confidence)
        rows.append(
            ModeRow(
                mode=mode,
                share=float(shares[i]),
                success_rate=float(rates[:, i].mean()),
                success_low=low,
                success_high=high,
                episodes=float(visits[:, i].sum()),
            )
        )
    return rows


def _tabulate_codes(part: Episodes, name: str) -> list[CodeRow]:
    if part.num_codes == 1:
        return []
    labelling = part.labellings[name]
    rows = []
    for code, behaviour in enumerate(part.behaviours[name]):
        mine = part.code == code
        successes, _ = count_modes(part.success[mine], labelling.weights[mine])
        shares = dict(zip(labelling.modes, mode_shares(successes).tolist(), strict=True))
        rows.append(
            CodeRow(
                seed=part.seed,
                code=code,
                episodes=int(mine.sum()),
                success_rate=float(part.success[mine].mean()) if mine.any() else 0.0,
                mode_shares=shares,
                behaviour=behaviour,
                obeyed=0.0 if behaviour is None else shares[behaviour],
            )
        )
    return rows


def _estimate_spread(
    parts: Sequence[Episodes], labelling: str, confidence: float, rng: np.random.Generator
) -> Estimate | None:
    """Spread within a mode, with its bootstrap interval; the modes' mean paths are held. None where it was not
    measured."""
    if any(np.isnan(part.deviation).any() for part in parts):
        return None
    features = []
    for part in parts:
        won = part.success[:, None] * part.labellings[labelling].weights
        features.append(np.hstack([won, won * np.square(part.deviation)[:, None]]))
    sums, drawn = np.stack([rows.sum(axis=0) for rows in features]), bootstrap_sums(features, rng)
    observed, resampled = (mode_spread(*np.split(values, 2, axis=-1)).mean(axis=-1) for values in (sums, drawn))
    low, high = percentile_interval(resampled, float(observed), confidence)
    return Estimate(mean=float(observed), low=low, high=high, n=sum(map(len, parts)))


def _estimate_means(
    parts: Sequence[Episodes], names: Sequence[str], confidence: float, rng: np.random.Generator
) -> list[Estimate]:
    """Means over seeds of the means over episodes, with their bootstrap intervals."""
    values = [np.stack([getattr(part, name) for name in names], axis=1) for part in parts]
    means = np.mean([value.mean(axis=0) for value in values], axis=0)
    sums = bootstrap_sums([np.hstack([value, np.ones((len(value), 1))]) for value in values], rng)
    resampled = (sums[..., :-1] / sums[..., -1:]).mean(axis=1)
    estimates = []
    for mean, samples in zip(means.tolist(), resampled.T, strict=True):
        low, high = percentile_interval(samples, mean, confidence)
        estimates.append(Estimate(mean=mean, low=low, high=high, n=sum(map(len, parts))))
    return estimates
