"""Stages `compare` and `verdict`: all methods and seeds with intervals and tests, and hypotheses stated beforehand."""

from collections.abc import Sequence
from pathlib import Path

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.provenance import RunStart
from bmd_pipeline.methods import PRETRAINED, TAUGHT, list_pairs, paired_methods
from bmd_pipeline.metrics.compare import Pair, compare_pairs, score_policies
from bmd_pipeline.metrics.hypotheses import HypothesisTester
from bmd_pipeline.metrics.schemas import Comparison, PolicyPair, Verdict, write_document
from bmd_pipeline.reporting.narrative import describe_hypothesis, describe_scope
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluations import load_evaluations, make_evidence_head, make_rng, resample

# ---- Stage `compare`: results/<Task>/compare.json, all methods and seeds with intervals and tests ----


def compare(config: RunConfig, *, evaluations: Sequence[Path], output: Path, reporter: Reporter) -> None:
    """Compares every -bmd method with its plain counterpart, and every policy with the pre-trained one.

    `evaluations` are the eval.json of the pre-trained policy and of each configured method, and of the taught policy if
    it was evaluated, at every configured seed. Writes compare.json (`output`).

    Raises:
        ArtifactError: an evaluation is missing, damaged, or of another task or other settings.
    """
    start = RunStart(reporter.warn, *evaluations)
    rows = load_evaluations(config, (PRETRAINED, TAUGHT, *config.methods), evaluations)
    sample = resample(config, rows)
    confidence = config.evaluate.confidence
    pairs = [Pair(one, other, "counterpart") for one, other in list_pairs(config.methods)]
    pairs += [Pair(policy, PRETRAINED, "base") for policy in rows if policy != PRETRAINED]
    inputs = {part.name: part.path for row in rows.values() for part in row}
    document = Comparison(
        **make_evidence_head(config, "compare", sample, inputs, start),
        policies=score_policies(sample, confidence),
        comparisons=compare_pairs(
            sample, pairs, confidence=confidence, min_seeds=config.compare.min_seeds, rng=make_rng(config, "tests")
        ),
    )
    write_document(output, document)
    for pair in document.comparisons:
        reporter.log(_describe(pair))


def _describe(pair: PolicyPair) -> str:
    shown = []
    for name in ("success_rate", "present", "solved", "mode_entropy", "obeyed"):
        found = pair.metrics[name]
        test = found.by_seed if found.unit == "seeds" and found.by_seed else found.by_episode
        by = found.difference
        shown.append(f"{name} {by.value:+.3f} [{by.low:+.3f}, {by.high:+.3f}] p {test.p_holm:.2g}")
    return f"{pair.one} against {pair.other}: {', '.join(shown)}"


# ---- Stage `verdict`: results/<Task>/verdict.json, the claim as hypotheses that were stated beforehand ----


def verdict(config: RunConfig, *, evaluations: Sequence[Path], output: Path, reporter: Reporter) -> None:
    """Decides the hypotheses on every pair of a -bmd method and its plain counterpart.

    `evaluations` are the eval.json of each of `paired_methods` at every configured seed.

    Raises:
        ConfigError: no pair is configured.
        ArtifactError: an evaluation is missing, damaged, or of another task or other settings.
    """
    start = RunStart(reporter.warn, *evaluations)
    rows = load_evaluations(config, paired_methods(config.methods), evaluations)
    sample = resample(config, rows)
    margin = config.verdict.success_margin
    tester = HypothesisTester(
        sample,
        list_pairs(config.methods),
        success_margin=margin,
        alpha=config.evaluate.alpha,
        min_seeds=config.compare.min_seeds,
        rng=make_rng(config, "tests"),
    )
    inputs = {part.name: part.path for row in rows.values() for part in row}
    document = Verdict(
        **make_evidence_head(config, "verdict", sample, inputs, start),
        success_margin=margin,
        family=tester.family,
        min_seeds=tester.min_seeds,
        pairs=tester.evaluate(),
    )
    write_document(output, document)
    reporter.log(describe_scope(document))
    for pair in document.pairs:
        for found in pair.hypotheses:
            reporter.log(f"{found.hypothesis} {found.verdict}: {describe_hypothesis(found, pair, document)}")
