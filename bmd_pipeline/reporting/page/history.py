"""How the files behind a page came to be: every stage's command, settings, time and code."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bmd_pipeline.metrics.schemas import Comparison, Evaluation, Sweep, Validation, Verdict
from bmd_pipeline.reporting.page.sources import ReportSources


@dataclass(frozen=True)
class Step:
    """One run of a stage.

    Attributes:
        stage: name of the stage.
        command: the command line that ran it.
        wall_s: seconds it took.
        commit: commit of its code, None for an installed package.
        config_hash: hash of the settings that it depends on.
        device: where it computed.
    """

    stage: str
    command: str
    wall_s: float
    commit: str | None
    config_hash: str
    device: str

    @property
    def short_commit(self) -> str:
        """The commit's first ten characters, and whether the code was edited."""
        commit, dirty, _ = (self.commit or "–").partition("-dirty")
        return commit[:10] + dirty


def list_steps(sources: ReportSources) -> list[Step]:
    """Every stage behind the page, in the order of the corridor."""
    records: list[tuple[str, Mapping[str, Any]]] = []
    if sources.demos is not None:
        records.append(("collect", sources.demos))
    records.append(("pretrain", sources.base))
    records += [("discover", record) for record in sources.discovered.values()]
    records += [("finetune", record) for record in sources.tuned.values()]
    steps = [_from_record(stage, record) for stage, record in records]
    for (policy, _), part in sources.parts.items():
        steps.append(_from_document("evaluate", part, part.policies[policy].config_hash))
    steps.append(_from_document("summarise", sources.evaluation, sources.evaluation.config_hash))
    evidence = {
        "validation": sources.evidence.validation,
        "compare": sources.evidence.comparison,
        "verdict": sources.evidence.verdict,
        "sweep": sources.evidence.sweep,
    }
    steps += [_from_document(stage, found, found.config_hash) for stage, found in evidence.items() if found]
    return steps


def remake_command(evaluation: Evaluation) -> str:
    """The command that makes the page with all that is behind it, under the preset and settings that were used."""
    words = shlex.split(evaluation.provenance.command)
    given = list(itertools.pairwise(words))
    presets = [f"preset={value}" for option, value in given if option == "--preset"]
    sets = [value for option, value in given if option == "--set"]
    config = presets[-1:] + ([f"set={json.dumps(sets, ensure_ascii=False)}"] if sets else [])
    target = f"results/{evaluation.task}/report.html"
    return shlex.join(["snakemake", "--cores", "2", target, *(["--config", *config] if config else [])])


def list_settings(sources: ReportSources) -> Iterator[tuple[str, Any]]:
    """The settings of every stage; those of fine-tuning once per method."""
    config = sources.base.get("config", {})
    yield "task", config.get("task")
    yield "pretrain", config.get("pretrain")
    for record in list(sources.discovered.values())[:1]:
        yield "discover", record.get("config", {}).get("discover")
    seen = set()
    for (policy, _), record in sources.tuned.items():
        if policy not in seen:
            seen.add(policy)
            yield f"finetune {policy}", record.get("config", {}).get("finetune")
    yield "evaluate", sources.evaluation.provenance.config.get("evaluate")


def list_commits(steps: Iterable[Step]) -> list[str]:
    """The commits that the stages ran at, in order of appearance."""
    return list(dict.fromkeys(step.commit or "an installed package" for step in steps))


def _from_record(stage: str, record: Mapping[str, Any]) -> Step:
    return Step(
        stage=stage,
        command=str(record.get("command", "")),
        wall_s=float(record.get("wall_s", 0.0)),
        commit=record.get("git_commit"),
        config_hash=str(record.get("config_hash", "")),
        device=str(record.get("device", "")),
    )


def _from_document(
    stage: str, document: Evaluation | Comparison | Verdict | Sweep | Validation, config_hash: str
) -> Step:
    run = document.provenance
    return Step(stage, run.command, run.wall_s, run.git_commit, config_hash, run.device)
