"""What a page says in words, made from its data, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bmd_pipeline.config.schema import PRETRAINED, TAUGHT, is_finetuned, uses_modes
from bmd_pipeline.metrics.schemas import Evaluation, PolicyBlock, Verdict

# ---- Numbers as people read them; thin no-break spaces keep them on one line ----

_SPACE = "\u202f"
_TO = "\u2060–\u2060"
MINUS = "\u2212"


def percent(share: float, digits: int = 1) -> str:
    """A share as `97.2 %`; never rounded up to 100 or down to 0."""
    value = 100 * share
    unit = 10.0**-digits
    if 0 < value < 100:
        value = min(max(value, unit), 100 - unit)
    return f"{value:.{digits}f}{_SPACE}%"


def rough(share: float) -> str:
    """A share in whole percents, but with a decimal where almost nothing is missing: `99.9 %`."""
    return percent(share, 1 if 0.99 < share < 1 else 0)


def percent_range(low: float, high: float) -> str:
    """Shares as `89–97 %`, or as one if they look the same."""
    one, other = rough(low), rough(high)
    return one if one == other else f"{one.removesuffix(f'{_SPACE}%')}{_TO}{other}"


def number_range(low: float, high: float, digits: int = 1) -> str:
    """Numbers as `1.0–4.0`, or as one if they look the same."""
    one, other = fixed(low, digits), fixed(high, digits)
    return one if one == other else f"{one}{_TO}{other}"


def fixed(value: float, digits: int = 2) -> str:
    """A number with so many decimals and a real minus sign; never `−0.00`."""
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) != 0 else text.removeprefix("-")


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign."""
    text = fixed(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def interval(low: float, high: float, digits: int = 2, scale: float = 1.0) -> str:
    """An interval as `[0.96, 0.98]`."""
    return f"[{fixed(scale * low, digits)}, {fixed(scale * high, digits)}]"


def grouped(count: float) -> str:
    """A count as `21 504`."""
    return f"{round(count):,}".replace(",", _SPACE)


def counted(count: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{grouped(count)} {noun}{'' if count == 1 else 's'}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def even_modes(entropy: float) -> str:
    """How many equally frequent modes have this entropy: exp(H)."""
    return fixed(math.exp(entropy), 1)


def p_value(p: float) -> str:
    """A p-value as `p < .001` or `p = .034`."""
    if p < 0.001:
        return "p < .001"
    return f"p = {p:.3f}".replace("0.", ".", 1) if p < 0.9995 else "p = 1"


def duration(seconds: float) -> str:
    """A duration as `48 s`, `12 min` or `3 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)}{_SPACE}s"
    return f"{minutes}{_SPACE}min" if minutes < 60 else f"{minutes // 60}{_SPACE}h {minutes % 60:02d}{_SPACE}min"


# ---- What a page says in words, made from its data; nothing here is claimed that the numbers don't hold ----

FEW_SEEDS = 5
"""Below this many seeds the page warns of the intervals between seeds."""

_FAMILIES = {
    "dsrl": "steers the noise that the frozen policy starts from",
    "dppo": "trains the denoiser",
    "res": "adds a bounded correction to the frozen policy's actions",
}


def describe_outcome(evaluation: Evaluation) -> list[str]:
    """The page's first sentences: success and modes before, after plain fine-tuning and with mode codes."""
    blocks = evaluation.policies
    total = next(iter(blocks.values())).solved.total
    sentences = []
    if PRETRAINED in blocks:
        base = blocks[PRETRAINED]
        rate = rough(base.success_rate.mean)
        sentences.append(f"Before fine-tuning, the policy succeeds in {rate} of its episodes{_modes([base], total)}.")
    if TAUGHT in blocks:
        taught = blocks[TAUGHT]
        rate = rough(taught.success_rate.mean)
        sentences.append(f"Taught its modes, it succeeds in {rate}{_modes([taught], total)}{_obeyed([taught])}.")
    groups = {
        "Plain fine-tuning ends": [
            block for name, block in blocks.items() if is_finetuned(name) and not uses_modes(name)
        ],
        "Fine-tuning with mode codes ends": [
            block for name, block in blocks.items() if is_finetuned(name) and uses_modes(name)
        ],
    }
    for subject, group in groups.items():
        if group:
            sentences.append(f"{subject} at {_success(group)}{_modes(group, total)}{_obeyed(group)}.")
    if total == 1:
        sentences.append("The task has a single labelled mode, so there is nothing to preserve.")
    return sentences


def describe_run(evaluation: Evaluation, tuned: Iterable[Mapping[str, Any]], wall_s: float) -> list[str]:
    """What was run: methods, seeds, training and judging.

    Args:
        evaluation: the task's eval.json.
        tuned: run.json of every fine-tuning.
        wall_s: seconds that all its stages took.
    """
    blocks = evaluation.policies
    methods = [name for name in blocks if is_finetuned(name)]
    sentences = []
    if methods:
        families = list(dict.fromkeys(name.removesuffix("-bmd") for name in methods))
        known = [f"{family} {_FAMILIES[family]}" for family in families if family in _FAMILIES]
        sentences.append(
            f"One pre-trained diffusion policy was fine-tuned with {counted(len(methods), 'method')} "
            f"and {counted(_num_seeds(evaluation), 'seed')} each{_training(tuned)}"
            + (f": {listed(known)}." if known else ".")
        )
        if any(map(uses_modes, methods)):
            sentences.append("Methods ending in -bmd also get mode codes, and a reward for telling them apart.")
    episodes = {row.episodes for block in blocks.values() for row in block.seeds}
    each = grouped(episodes.pop()) if len(episodes) == 1 else f"{grouped(min(episodes))} to {grouped(max(episodes))}"
    total = sum(block.success_rate.n for block in blocks.values())
    sentences.append(
        f"Each policy then played {each} episodes per seed that neither training nor selection had seen, "
        f"{grouped(total)} in all. All stages together took {duration(wall_s)}."
    )
    return sentences


def describe_reading(evaluation: Evaluation) -> list[str]:
    """How to read the numbers: when a mode counts, what the intervals are, and how far they carry."""
    first = next(iter(evaluation.policies.values()))
    solved, seeds = first.solved, _num_seeds(evaluation)
    sentences = []
    if solved.total > 1:
        sentences.append(
            f"A mode ({first.labelling}) is present when it holds at least {percent(solved.min_share, 0)} of all "
            f"successes, and solved when at least {percent(solved.tau, 0)} of its episodes succeed too. Obeyed is the "
            "share of a code's successes that show its own behaviour, the mode that most of its successes on selection "
            "seeds showed; a policy without codes is asked for each mode in turn, and obeys with that mode's share."
        )
    sentences.append(f"Intervals hold {percent(evaluation.confidence, 0)}, over seeds and episodes.")
    if seeds < FEW_SEEDS:
        say = "says" if seeds == 1 else "say"
        sentences.append(
            f"{counted(seeds, 'seed')} {say} little about the spread between seeds: "
            "read the single seeds beside the means."
        )
    return sentences


def describe_tasks(evaluations: Sequence[Evaluation]) -> list[str]:
    """How much the page of all tasks gathers."""
    policies = sum(len(evaluation.policies) for evaluation in evaluations)
    episodes = sum(block.success_rate.n for evaluation in evaluations for block in evaluation.policies.values())
    return [f"{counted(len(evaluations), 'task')}, {policies} policies, {grouped(episodes)} evaluation episodes."]


def describe_tally(verdict: Verdict) -> str:
    """How many hypotheses came out which way."""
    verdicts = [found.verdict for pair in verdict.pairs for found in pair.hypotheses]
    counts = [
        f"{verdicts.count(name)} {'is' if verdicts.count(name) == 1 else 'are'} {name}"
        for name in ("supported", "refuted", "undecided")
        if name in verdicts
    ]
    return f"Of {len(verdicts)} hypotheses, {listed(counts)}."


def list_lost_codes(evaluation: Evaluation) -> list[str]:
    """Codes without a success on selection seeds, and so without a behaviour that could be obeyed."""
    return [
        f"{name}, seed {row.seed}: code {row.code}"
        for name, block in evaluation.policies.items()
        for row in block.codes
        if row.behaviour is None
    ]


def describe_block(block: PolicyBlock) -> str:
    """One policy in a line, for charts read aloud."""
    success, solved = block.success_rate, block.solved
    return (
        f"success {percent(success.mean)}, {fixed(solved.mean, 1)} of {solved.total} modes solved, "
        f"entropy {fixed(block.mode_entropy.mean)} nats, obeyed {percent(block.obeyed.mean)}"
    )


def _success(blocks: list[PolicyBlock]) -> str:
    rates = [block.success_rate.mean for block in blocks]
    return percent_range(min(rates), max(rates))


def _modes(blocks: list[PolicyBlock], total: int) -> str:
    if total == 1:
        return ""
    solved = [block.solved.mean for block in blocks]
    return f", with {number_range(min(solved), max(solved)) if max(solved) > 0 else 'none'} of the {total} modes solved"


def _obeyed(blocks: list[PolicyBlock]) -> str:
    if not all(block.codes for block in blocks) or blocks[0].solved.total == 1:
        return ""
    shares = [block.obeyed.mean for block in blocks]
    return f", and {percent_range(min(shares), max(shares))} of the successes on command are what the code stands for"


def _num_seeds(evaluation: Evaluation) -> int:
    return max(len(block.seeds) for block in evaluation.policies.values())


def _training(records: Iterable[Mapping[str, Any]]) -> str:
    """`, for 100 iterations of 512 episodes`, where all runs agree."""
    settings = [record.get("config", {}).get("finetune", {}) for record in records]
    sizes = {(values.get("iterations"), values.get("num_envs")) for values in settings}
    if len(sizes) != 1 or None in (size := sizes.pop()):
        return ""
    iterations, num_envs = size
    return f", for {counted(iterations, 'iteration')} of {counted(num_envs, 'episode')}"
