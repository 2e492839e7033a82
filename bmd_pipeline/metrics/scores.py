"""What a policy is scored by: success, modes present and solved, entropy, obedience."""

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics.episodes import Episodes, Floats

# ---- How often a policy succeeds, and in how many of the task's modes ----
#
# Every metric is a function of `successes` and `visits`, episodes by mode on the last axis, (..., num_modes), so that
# one call also evaluates thousands of bootstrap resamples. They come from `count_modes`; docs/metrics.md is the
# glossary.

MIN_MODE_SHARE = 0.01
"""Share of the successful episodes from which a mode is present: a lone success is no behaviour."""


def count_modes(success: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Counts successes and visits of every mode, (num_modes,) each.

    Args:
        success: (num_episodes,) bool.
        weights: (num_episodes, num_modes) rows that sum to one: one-hot for successes; a failed episode is
            spread over the modes that it was still compatible with.
    """
    return success.astype(np.float64) @ weights, weights.sum(axis=0)


def mode_success_rates(successes: Floats, visits: Floats) -> Floats:
    """SR_i, the success rate within each mode, (..., num_modes) in [0, 1]; 0 for a mode that nobody visited."""
    return divide(successes, visits)


def mode_weighted_success(successes: Floats, visits: Floats) -> Floats:
    """SRM = (1/K_true) Σ_i SR_i, (...) in [0, 1]: every true mode weighs the same, however often it is visited.

    Source: arXiv 2605.11387, metrics.
    """
    mean: Floats = mode_success_rates(successes, visits).mean(axis=-1)
    return mean


def mode_shares(successes: Floats) -> Floats:
    """Distribution of the successful episodes over modes, (..., num_modes); all zero where nothing succeeded."""
    return divide(successes, successes.sum(axis=-1, keepdims=True))


def is_present(successes: Floats) -> NDArray[np.bool_]:
    """Which modes are present, (..., num_modes): those that hold at least `MIN_MODE_SHARE` of the successes."""
    return mode_shares(successes) >= MIN_MODE_SHARE


def is_solved(successes: Floats, visits: Floats, tau: float) -> NDArray[np.bool_]:
    """Which modes are solved, (..., num_modes): present, and with a success rate of at least τ. Their share is mc@τ.

    Source: arXiv 2605.11387, metrics; the minimum share is ours.
    """
    return is_present(successes) & (mode_success_rates(successes, visits) >= tau)


def divide(part: Floats, whole: Floats) -> Floats:
    """Computes part / whole, 0 where whole is 0; sums of fractional weights may exceed their whole by a rounding."""
    ratio: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return np.minimum(ratio, 1.0)


# ---- How evenly a policy's successes spread over the task's modes ----


def mode_entropy(successes: Floats) -> Floats:
    """H(π), the entropy of the mode distribution among successful episodes, (...) nats; 0 where nothing succeeded.

    The plug-in estimate −Σ p_i ln p_i, as published. It is biased downwards by about (modes − 1) / 2n, the same way
    for every policy with n successes. Policies with other numbers of them are compared by `equal_count_entropies`.
    """
    share = mode_shares(successes)
    log_share = np.log(share, out=np.zeros_like(share), where=share > 0)
    # 0.0 - x and not -x: a collapsed policy has entropy 0.0, not -0.0.
    entropy: Floats = 0.0 - (share * log_share).sum(axis=-1)
    return np.clip(entropy, 0.0, np.log(successes.shape[-1]))


def corrected_entropy(successes: Floats, squares: Floats) -> Floats:
    """H(π) without the first-order bias of the plug-in estimate, (...) nats, for differences between policies.

    The bias is −½ Σ Var(p_i) / p_i (delta method). With one mode per success that is Miller's and Madow's
    (observed modes − 1) / 2n; weights spread over several modes vary less, and are corrected by less. A single observed
    mode keeps 0. The estimate may exceed ln num_modes: cutting it off there would bring a bias back that depends on n.
    Both arguments are (..., num_modes): sums of the successful episodes' weights, and of the same weights squared.

    Source: Miller 1955, in Quastler (ed.), Information Theory in Psychology, 95-100; for weights it is ours.
    """
    total = successes.sum(axis=-1)
    spread = divide(squares, successes).sum(axis=-1)
    bias = np.divide(spread - 1.0, 2.0 * total, out=np.zeros_like(total), where=total > 0)
    corrected: Floats = mode_entropy(successes) + np.maximum(bias, 0.0)
    return corrected


# ---- Whether a policy does what it is asked for ----
#
# A code's own behaviour is the true mode that most of its successes on selection seeds show, so that it is not chosen
# on the episodes that it is measured on. *Obeyed* is the share of a code's successes that show it. Codes with the same
# behaviour count once, their episodes pooled; a code without a success on selection seeds has no behaviour, and its
# share is 0. A policy without codes is asked for each of the task's modes in turn: obeyed is the mode's share of its
# successes.


def choose_behaviours(part: Episodes, labelling: str) -> tuple[str | None, ...]:
    """The behaviour of each code on selection seeds: the mode that most of its successes show, None without one."""
    modes, weights = part.labellings[labelling].modes, part.labellings[labelling].weights
    behaviours = []
    for code in range(part.num_codes):
        mine = part.code == code
        successes, _ = count_modes(part.success[mine], weights[mine])
        behaviours.append(modes[int(successes.argmax())] if successes.any() else None)
    return tuple(behaviours)


def obeyed_features(part: Episodes, labelling: str) -> Floats:
    """What each episode adds to the sums that `compute_obedience` reads: (num_episodes, 2 num_modes + 1).

    Successes by the mode that was asked for, those of them that show it, and the number of behaviours over the number
    of episodes: its sum over as many episodes, also resampled ones, is the number of behaviours.
    """
    modes, weights = part.labellings[labelling].modes, part.labellings[labelling].weights
    won = part.success[:, None].astype(np.float64)
    if part.num_codes == 1:
        asked, behaviours = np.ones_like(weights), len(modes)
    else:
        own = part.behaviours[labelling]
        wanted = np.array([[mode == behaviour for mode in modes] for behaviour in own], np.float64)
        asked, behaviours = wanted[part.code], len(set(own) - {None}) + own.count(None)
    count = np.full((len(part), 1), behaviours / len(part))
    return np.hstack([won * asked, won * asked * weights, count])


def compute_obedience(sums: Floats) -> tuple[Floats, Floats]:
    """Mean and smallest share of obeyed commands over behaviours, (...) each in [0, 1].

    A behaviour without a success counts as 0. `sums` are those of `obeyed_features`.
    """
    num_modes = sums.shape[-1] // 2
    asked, shown = sums[..., :num_modes], sums[..., num_modes : 2 * num_modes]
    behaviours = np.rint(sums[..., -1])
    tried, share = asked > 0, divide(shown, asked)
    mean = share.sum(axis=-1) / behaviours
    worst = np.where(tried.sum(axis=-1) < behaviours, 0.0, np.where(tried, share, 1.0).min(axis=-1))
    return np.minimum(mean, 1.0), worst


# ---- How differently a policy does the same thing ----
#
# Entropy counts modes and sees nothing of what happens within one: a policy may keep all of them, each as one and the
# same path.


def measure_deviations(paths: Floats, success: NDArray[np.bool_], weights: Floats) -> Floats:
    """Distance of each successful episode's path from the mean path of its mode, (num_episodes,), 0 for failures.

    The distance is the root mean square over points, times √(n / (n − 1)) for n successes in the mode, so that its mean
    square is the unbiased variance of the paths; a lone success has 0. `paths` (num_episodes, points, 2) are in the
    unit of the task's track, `success` (num_episodes,), `weights` (num_episodes, num_modes) as in `count_modes`.
    """
    deviations = np.zeros(len(success))
    mode = weights.argmax(axis=1)
    for rows in (success & (mode == index) for index in range(weights.shape[1])):
        if (n := rows.sum()) > 1:
            offsets = paths[rows] - paths[rows].mean(axis=0)
            deviations[rows] = np.sqrt(np.square(offsets).sum(axis=-1).mean(axis=-1) * n / (n - 1))
    return deviations


def mode_spread(successes: Floats, squares: Floats) -> Floats:
    """Spread within a mode: standard deviation of the paths of its successes, mean over present modes, (...).

    In the unit of the task's track; 0 where nothing succeeded. Both arguments are (..., num_modes): sums of the
    successful episodes' weights, and of the same times their squared deviations.
    """
    present = is_present(successes)
    variance = np.divide(squares, successes, out=np.zeros_like(squares), where=successes > 0)
    mean: Floats = (np.sqrt(variance) * present).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1)
    return mean


# ---- The scores that policies are compared by, as functions of sums over episodes ----
#
# One call scores a policy, or thousands of bootstrap resamples of it; the numbers are those of eval.json.

COMPARED = (
    "success_rate",
    "mode_weighted_success",
    "present",
    "solved",
    "mode_entropy",
    "obeyed",
    "obeyed_worst",
    "episode_return",
)
"""Scores that mean the same for every policy."""
SCORES = (*COMPARED, "mutual_information")
"""All scores; information says nothing about policies without codes, so nothing is tested on it."""


def episode_features(part: Episodes, labelling: str) -> Floats:
    """What each episode adds to the sums: (num_episodes, 4 num_modes + 3).

    Successes by mode, visits by mode, `obeyed_features`, return, information.
    """
    weights = part.labellings[labelling].weights
    rest = np.stack([part.episode_return, part.information], axis=1)
    return np.hstack([part.success[:, None] * weights, weights, obeyed_features(part, labelling), rest])


def compute_scores(sums: Floats, num_episodes: int, tau: float) -> dict[str, Floats]:
    """Scores (...) by name, in the order of `SCORES`, from sums (..., 4 num_modes + 3) of `episode_features`.

    τ is the success rate from which a present mode is solved.
    """
    num_modes = sums.shape[-1] // 4
    successes, visits = sums[..., :num_modes], sums[..., num_modes : 2 * num_modes]
    obeyed, worst = compute_obedience(sums[..., 2 * num_modes : -2])
    scores = {
        # An episode's weights sum to one, so that its success is counted once.
        "success_rate": np.minimum(successes.sum(axis=-1) / num_episodes, 1.0),
        "mode_weighted_success": mode_weighted_success(successes, visits),
        "present": is_present(successes).sum(axis=-1, dtype=np.float64),
        "solved": is_solved(successes, visits, tau).sum(axis=-1, dtype=np.float64),
        "mode_entropy": mode_entropy(successes),
        "obeyed": obeyed,
        "obeyed_worst": worst,
        "episode_return": sums[..., -2] / num_episodes,
        "mutual_information": sums[..., -1] / num_episodes,
    }
    return {name: scores[name] for name in SCORES}
