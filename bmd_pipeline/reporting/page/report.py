"""A task's page: `results/<Task>/report.html`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bmd_pipeline.config.schema import PRETRAINED, TAUGHT, is_finetuned, uses_modes
from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.schemas import Comparison, Evaluation
from bmd_pipeline.metrics.scores import count_modes, mode_shares
from bmd_pipeline.reporting.page.history import list_commits, list_settings, list_steps, remake_command
from bmd_pipeline.reporting.page.looks import colour_sheet
from bmd_pipeline.reporting.page.payload import make_payload
from bmd_pipeline.reporting.page.render import render_page
from bmd_pipeline.reporting.page.sentences import (
    describe_block,
    describe_outcome,
    describe_reading,
    describe_run,
    describe_tally,
    list_lost_codes,
)
from bmd_pipeline.reporting.page.sources import ReportSources


def build_report(sources: ReportSources) -> str:
    """The page as HTML, with everything that it needs inside."""
    evaluation, book = sources.evaluation, sources.book
    lowest = lowest_success([evaluation])
    payload = make_payload(sources) | {"lowest": lowest}
    steps = list_steps(sources)
    names = list(evaluation.policies)
    return render_page(
        "report",
        data=payload,
        colours=colour_sheet(names, book.modes),
        task=evaluation.task,
        evaluation=evaluation,
        policies=payload["policies"],
        described=[describe_block(block) for block in evaluation.policies.values()],
        modes=book.modes,
        axes=payload["axes"],
        to_scale=book.to_scale,
        outcome=describe_outcome(evaluation),
        run=describe_run(evaluation, sources.tuned.values(), sum(step.wall_s for step in steps)),
        reading=describe_reading(evaluation),
        lost_codes=list_lost_codes(evaluation),
        lowest=lowest,
        layout=_arrange(names),
        shares=_list_shares(sources),
        evidence=sources.evidence,
        tally=describe_tally(sources.evidence.verdict) if sources.evidence.verdict else "",
        spans=_find_spans(sources.evidence.comparison),
        videos=sources.videos,
        steps=steps,
        commits=list_commits(steps),
        command=remake_command(evaluation),
        settings=list(list_settings(sources)),
        recorded=max(group["count"] for group in payload["paths"]["groups"]),
    )


def lowest_success(evaluations: Sequence[Evaluation]) -> float:
    """Where axes of success begin: the tenth below the lowest interval."""
    lows = [block.success_rate.low for evaluation in evaluations for block in evaluation.policies.values()]
    return float(np.floor(min(0.9, *lows) * 10) / 10)


def _arrange(names: list[str]) -> dict[str, Any]:
    """Panels of before and after: each method's two forms above each other where all have both, else one row."""
    families = list(dict.fromkeys(name.removesuffix("-bmd") for name in names if is_finetuned(name)))
    pairs = [(family, f"{family}-bmd") for family in families]
    paired = len(pairs) > 1 and PRETRAINED in names and all(name in names for pair in pairs for name in pair)
    paired = paired and TAUGHT not in names  # whose panel has no place in two rows
    order = [PRETRAINED, *(name for pair in pairs for name in pair)] if paired else names
    columns = len(pairs) + 1 if paired else min(4, len(names))
    return {"paired": paired, "columns": columns, "order": [names.index(name) for name in order]}


def _find_spans(comparison: Comparison | None) -> dict[str, float]:
    """Half the width of the axes of differences, one for each metric."""
    spans: dict[str, float] = {}
    for pair in comparison.comparisons if comparison else ():
        for name, cell in pair.metrics.items():
            gap = cell.difference
            spans[name] = max(spans.get(name, 1e-9), 1.1 * abs(gap.low), 1.1 * abs(gap.high))
    return spans


def _list_shares(sources: ReportSources) -> list[dict[str, Any]]:
    """Mode shares of every policy seed by seed: the mean of collapsed seeds would look diverse."""
    rows = []
    for name, block in sources.evaluation.policies.items():
        parts = [sources.episodes[name, row.seed] for row in block.seeds]
        seeds = [{"seed": part.seed, "shares": _shares_of(part, block.labelling)} for part in parts]
        rows.append({"name": name, "block": block, "coded": uses_modes(name), "seeds": seeds})
    return rows


def _shares_of(part: Episodes, labelling: str) -> list[float]:
    successes, _ = count_modes(part.success, part.labellings[labelling].weights)
    return [float(share) for share in mode_shares(successes)]
