"""What pages and the console say in words, made from data, and the formatting of numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bmd_pipeline.methods import PRETRAINED, TAUGHT, is_finetuned, method_family, uses_modes
from bmd_pipeline.metrics.hypotheses import smallest_p
from bmd_pipeline.metrics.schemas import (
    BaseBehaviour,
    CodeCheck,
    CodeRow,
    Evaluation,
    Grid,
    Hypothesis,
    PairVerdict,
    SeedValidation,
    Validation,
    Verdict,
)
from bmd_pipeline.reporting.sources import Curves

# ---- Formatting of numbers; thin no-break spaces keep them on one line ----

_SPACE = "\u202f"
_TO = "\u2060–\u2060"
MINUS = "\u2212"


def percent(share: float, digits: int = 1) -> str:
    """A share as `97.2 %`; never rounded up to 100 or down to 0."""
    value, unit = 100 * share, 10.0**-digits
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


def number_range(low: float, high: float) -> str:
    """Numbers as `1.0–4.0`, or as one if they look the same."""
    one, other = fixed(low, 1), fixed(high, 1)
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


def listed(names: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


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


def short_commit(commit: str | None) -> str:
    """A commit's first ten characters, and whether the code was edited; a dash for an installed package."""
    name, dirty, _ = (commit or "–").partition("-dirty")
    return name[:10] + dirty


# ---- Sentences of a page, made from its data alone ----

FEW_SEEDS = 5
"""Below this many seeds the page warns of the intervals between seeds."""

_FAMILIES = {
    "dsrl": "steers the noise that the frozen policy starts from",
    "dppo": "trains the denoiser",
    "res": "adds a bounded correction to the frozen policy's actions",
    "fbc": "clones the policy's own successes into the denoiser",
}


def describe_outcome(evaluation: Evaluation) -> list[str]:
    """The page's first sentences: success and modes before, after plain fine-tuning and with mode codes."""
    blocks = evaluation.policies
    total = next(iter(blocks.values())).solved.total
    finetuned = [name for name in blocks if is_finetuned(name)]
    groups = {
        "Before fine-tuning, the policy succeeds in {} of its episodes": [PRETRAINED],
        "Taught its modes, it succeeds in {}": [TAUGHT],
        "Plain fine-tuning ends at {}": [name for name in finetuned if not uses_modes(name)],
        "Fine-tuning with mode codes ends at {}": [name for name in finetuned if uses_modes(name)],
    }
    sentences = []
    for words, names in groups.items():
        group = [blocks[name] for name in names if name in blocks]
        if not group:
            continue
        success = [block.success_rate.mean for block in group]
        text = words.format(percent_range(min(success), max(success)))
        if total > 1:
            solved = [block.solved.mean for block in group]
            many = number_range(min(solved), max(solved)) if max(solved) > 0 else "none"
            text += f", with {many} of the {total} modes solved"
            if all(block.codes for block in group):
                obeyed = [block.obeyed.mean for block in group]
                share = percent_range(min(obeyed), max(obeyed))
                text += f", and {share} of the successes on command are what the code stands for"
        sentences.append(f"{text}.")
    if total == 1:
        sentences.append("The task has a single labelled mode, so there is nothing to preserve.")
    return sentences


def describe_training(evaluation: Evaluation, finetuned: Iterable[Mapping[str, Any]], wall_s: float) -> list[str]:
    """What was run, from the task's eval.json, run.json of every fine-tuning, and the seconds that all stages took."""
    blocks = evaluation.policies
    methods = [name for name in blocks if is_finetuned(name)]
    sentences = []
    if methods:
        families = dict.fromkeys(map(method_family, methods))
        known = [f"{family} {_FAMILIES[family]}" for family in families if family in _FAMILIES]
        sentences.append(
            f"One pre-trained diffusion policy was fine-tuned with {counted(len(methods), 'method')} "
            f"and {counted(count_seeds(evaluation), 'seed')} each{_training(finetuned)}"
            + (f": {listed(known)}." if known else ".")
        )
        if any(map(uses_modes, methods)):
            sentences.append("Methods ending in -bmd also get mode codes, and a reward for showing which code it was.")
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
    solved, seeds = first.solved, count_seeds(evaluation)
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
        sentences.append(
            f"{counted(seeds, 'seed')} {'says' if seeds == 1 else 'say'} little about the spread between seeds: "
            "read the single seeds beside the means."
        )
    return sentences


def describe_tasks(evaluations: Sequence[Evaluation]) -> str:
    """How much the page of all tasks gathers."""
    policies = sum(len(evaluation.policies) for evaluation in evaluations)
    episodes = sum(block.success_rate.n for evaluation in evaluations for block in evaluation.policies.values())
    return f"{counted(len(evaluations), 'task')}, {policies} policies, {grouped(episodes)} evaluation episodes."


def describe_tally(verdict: Verdict) -> str:
    """How many hypotheses came out which way."""
    verdicts = [found.verdict for pair in verdict.pairs for found in pair.hypotheses]
    counts = [
        f"{count} {'is' if count == 1 else 'are'} {name}"
        for name in ("supported", "refuted", "undecided")
        if (count := verdicts.count(name))
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


def describe_policies(evaluation: Evaluation) -> str:
    """Every policy in a line, as a description of figures."""
    return "; ".join(
        f"{name}: success {percent(block.success_rate.mean)}, {fixed(block.solved.mean, 1)} of {block.solved.total} "
        f"modes solved, entropy {fixed(block.mode_entropy.mean)} nats, obeyed {percent(block.obeyed.mean)}"
        for name, block in evaluation.policies.items()
    )


def describe_curves(curves: Mapping[tuple[str, int], Curves], family: str) -> str:
    """Where success in rollouts began and ended in each run of a family."""
    sentences = []
    for (policy, seed), run in curves.items():
        success = [value for value in run.values.get("success", ()) if value is not None]
        if method_family(policy) == family and success:
            ends = f"{percent(success[0])} at first, {percent(success[-1])} at last"
            sentences.append(f"{policy}, seed {seed}: success in rollouts {ends}")
    return "; ".join(sentences)


def describe_pretraining(curves: Curves, kept: int | None) -> str:
    """The last success of the base policy while it was pre-trained, and the step that was kept."""
    last = next((value for value in reversed(curves.values["selected"]) if value is not None), 0.0)
    text = f"Success {percent(last)} at gradient step {grouped(curves.step[-1])}"
    return text if kept is None else f"{text}; the weights of step {grouped(kept)} were kept"


def describe_codes(codes: Mapping[int, Sequence[CodeRow | CodeCheck]]) -> str:
    """The mode in which most successes of each code are, by seed."""
    sentences = []
    for seed, rows in codes.items():
        parts = []
        for row in rows:
            mode, share = max(row.mode_shares.items(), key=lambda item: item[1])
            parts.append(f"code {row.code} {mode} {percent(share, 0)}" if share else f"code {row.code} no success")
        sentences.append(f"seed {seed}: {', '.join(parts)}")
    return "; ".join(sentences)


def count_seeds(evaluation: Evaluation) -> int:
    """The most training seeds that a policy has."""
    return max(len(block.seeds) for block in evaluation.policies.values())


def _training(records: Iterable[Mapping[str, Any]]) -> str:
    """`, for 100 iterations of 512 episodes`, where all runs agree."""
    settings = [record.get("config", {}).get("finetune", {}) for record in records]
    sizes = {(values.get("iterations"), values.get("num_envs")) for values in settings}
    if len(sizes) != 1 or None in (size := sizes.pop()):
        return ""
    iterations, num_envs = size
    return f", for {counted(iterations, 'iteration')} of {counted(num_envs, 'episode')}"


# ---- The verdict ----


def state_claim(found: Hypothesis, pair: PairVerdict, verdict: Verdict) -> str:
    """What a hypothesis claims, whatever the numbers are."""
    one, other = pair.one, pair.other
    if found.hypothesis == "H1":
        return f"{one} succeeds as often as {other}, or at most {-100 * found.threshold:g} points less often"
    if found.hypothesis == "H2":
        return f"{one} solves more modes than {other}, each at a success rate of at least {verdict.tau:g}"
    return f"The successes of {one} are spread over the modes more evenly than those of {other}"


def describe_hypothesis(found: Hypothesis, pair: PairVerdict, verdict: Verdict) -> str:
    """Both scores, their difference with its interval, and the corrected p that decided."""
    one, other, gap = pair.one, pair.other, found.difference
    if found.hypothesis == "H1":
        numbers = f"{one} succeeds in {percent(found.one)} of the episodes, {other} in {percent(found.other)}"
        gain = f"{signed(100 * gap.value, 1)} points {interval(gap.low, gap.high, 1, 100)}"
    elif found.hypothesis == "H2":
        solved = f"{fixed(found.one, 1)} of {len(verdict.modes)} modes at a success rate of at least {verdict.tau:g}"
        numbers = f"{one} solves {solved}, {other} {fixed(found.other, 1)}"
        gain = f"{signed(gap.value, 1)} {interval(gap.low, gap.high, 1)}"
    else:
        numbers = f"The entropy is {fixed(found.one)} nats with {one} and {fixed(found.other)} with {other}"
        # Not the difference of the two numbers before it: few successes look less even than they are.
        gain = f"at equal numbers of successes {signed(gap.value)} {interval(gap.low, gap.high)}"
    against = found.verdict == "refuted"
    p = p_value(found.p_below_holm if against else found.p_above_holm)
    text = f"{numbers}: {gain}, {p} corrected{' against the claim' if against else ''}."
    if found.metric == "solved" and found.one == found.other and found.one in (0, len(verdict.modes)):
        return text + (" Neither solves any mode." if found.one == 0 else " There is nothing to gain here.")
    return text


def describe_scope(verdict: Verdict) -> str:
    """Whether the verdicts are about training again or about these trained policies alone."""
    base, num_seeds = "All seeds fine-tune one base policy.", len(verdict.seeds)
    if verdict.pairs[0].hypotheses[0].unit == "seeds":
        return f"About training again with new seeds ({num_seeds} were seen). {base}"
    return (
        f"About these trained policies alone: {counted(num_seeds, 'seed')} {'is' if num_seeds == 1 else 'are'} too few "
        f"to speak about training again. Whatever they show, a test over them can't give a p below "
        f"{smallest_p(num_seeds):.3g}, and {verdict.family} hypotheses at level {verdict.alpha:g} need "
        f"{verdict.alpha / verdict.family:.2g}: that takes at least {counted(verdict.min_seeds, 'seed')}. {base}"
    )


# ---- The grid ----

_SYMBOLS = {"finetune.regulariser.mi_weight": "λ", "discover.num_modes": "K"}


def name_axis(grid: Grid) -> str:
    """What the page calls the one setting that varies; empty if there are several."""
    return "" if grid.axis is None else _SYMBOLS.get(grid.axis, grid.axis.rpartition(".")[2])


def describe_grid(grid: Grid) -> list[str]:
    """Success and solved modes of every cell and method."""
    rows = [(cell.name, method, scores.metrics) for cell in grid.cells for method, scores in cell.methods.items()]
    return [
        f"{cell}, {method}: success {fixed(scores['success_rate'].mean.value, 3)}, "
        f"{scores['solved'].mean.value:.3g} of {len(grid.modes)} modes solved"
        for cell, method, scores in rows
    ]


# ---- The validation of modes ----


def describe_validation(validation: Validation) -> list[str]:
    """The findings, a sentence or two each; the first is about the base policy."""
    discovered = validation.discovered
    return [_describe_base(validation.base), _describe_separation(discovered), *_describe_truth(discovered)]


def _describe_base(base: BaseBehaviour) -> str:
    test = base.paired
    if test is None:
        return (
            "It is unknown whether the base policy has more than one mode: from too few starts both paired rollouts "
            f"succeed (success rate {fixed(base.success_rate.value)}). Raise evaluate.episodes, or train a better one."
        )
    numbers = f"{test.pairs} paired rollouts from the same start, {p_value(test.p)} for a single one"
    if base.modes == "several":
        return f"The base policy has more than one mode: {numbers}."
    return f"No second mode of the base policy was found: {numbers}."


def _describe_separation(discovered: Sequence[SeedValidation]) -> str:
    found = [one.separation for one in discovered if one.separation is not None]
    if not found:
        return "It is unknown whether codes differ: too few of their episodes succeed."
    shown = [
        f"{fixed(share.value)} {interval(share.low, share.high)} (chance {fixed(chance)})"
        for share, chance in ((one.recognised, one.chance) for one in found)
    ]
    return (
        "A classifier of its own, not the inference model, names the code of a trajectory in "
        f"{listed(shown)} of held-out successes."
    )


def _describe_truth(discovered: Sequence[SeedValidation]) -> list[str]:
    found = [(one.seed, one.truth) for one in discovered if one.truth is not None]
    if not found:
        return []
    numbers = ", ".join(
        f"{name} {fixed(float(np.mean([getattr(truth, field) for _, truth in found])))}"
        for name, field in (("NMI", "nmi"), ("ARI", "ari"), ("purity", "purity"))
    )
    text = [f"Against the true modes, which discovery never saw: {numbers}."]
    for seed, truth in found:
        parts = [f"codes {listed([str(code) for code in group])} lead to the same mode" for group in truth.redundant]
        if truth.missing:
            parts.append(f"no code leads to {listed(truth.missing, 'or')}")
        if parts:
            text.append(f"Seed {seed}: {'; '.join(parts)}.")
    return text
