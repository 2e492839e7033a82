"""Stage `report`: results/<Task>/report.html, one page for people; and results/summary.html, all tasks on one."""

from collections.abc import Sequence
from pathlib import Path

from bmd_pipeline.config.hashing import Stage, stage_hash
from bmd_pipeline.config.schema import GridConfig, RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import write_text
from bmd_pipeline.io.layout import EPISODES_FILE, PATHS_FILE, RUN_FILE, Layout
from bmd_pipeline.methods import compared_policies
from bmd_pipeline.metrics.schemas import Comparison, Grid, Validation, Verdict
from bmd_pipeline.reporting.report import build_report, build_summary, load_results
from bmd_pipeline.reporting.sources import ReportSources, load_sources
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluations import hash_policy_settings, require_settings


def report(config: RunConfig, *, layout: Layout, output: Path, reporter: Reporter) -> None:
    """Writes a task's page, from files alone.

    Raises:
        ArtifactError: a result is missing, damaged or cut short, or was made under other settings than those of the
            run; nothing is written then.
    """
    task = config.task.name
    summary = layout.summary(task)
    sources = load_sources(
        task,
        layout,
        episodes=summary.with_name(EPISODES_FILE),
        paths=summary.with_name(PATHS_FILE),
        decided=config.modes,
    )
    _check_settings(config, layout, sources)
    _write(output, build_report(sources), reporter)


def summary(*, layout: Layout, tasks: Sequence[str] | None = None, output: Path, reporter: Reporter) -> None:
    """Writes the page of some tasks; None: of all that have an eval.json.

    Raises:
        ArtifactError: there are no results, or some are missing or damaged.
    """
    chosen = layout.list_tasks() if tasks is None else tasks
    if not chosen:
        raise ArtifactError(f"no task has results in {layout.results('TASK')}; make some with snakemake")
    _write(output, build_summary(load_results(layout, chosen)), reporter)


def _check_settings(config: RunConfig, layout: Layout, sources: ReportSources) -> None:
    """Refuses results that lack what the settings ask for, or that were made under others."""
    task, path = config.task.name, layout.summary(config.task.name)
    for policy in compared_policies(config.methods, config.discover.form):
        for seed in config.seeds:
            if (policy, seed) not in sources.parts:
                raise ArtifactError(f"{path}: holds no {policy}/seed{seed}; make it with `snakemake --cores 2 {path}`")
    for policy, block in sources.evaluation.policies.items():
        _require(block.config_hash, hash_policy_settings(config, policy), path, f"{policy} was evaluated")
    for (policy, seed), record in sources.finetuned.items():
        file, expected = layout.finetuned(task, policy, seed) / RUN_FILE, stage_hash(config, "finetune", policy)
        _require(record.get("config_hash"), expected, file, f"{policy} was trained")
    evidence = sources.evidence
    found: dict[Stage, tuple[Path, Comparison | Verdict | Grid | Validation | None]] = {
        "compare": (layout.comparison(task), evidence.comparison),
        "verdict": (layout.verdict(task), evidence.verdict),
        "grid": (layout.grid(task), evidence.grid),
        "validation": (layout.validation(task), evidence.validation),
    }
    if evidence.grid is not None and not config.grid.axes:  # shown as it was asked for, if all else is the same
        asked = GridConfig.model_validate(evidence.grid.provenance.config.get("grid", {}))
        config = config.model_copy(update={"grid": asked})
    for stage, (file, document) in found.items():
        if document is not None:
            _require(document.config_hash, stage_hash(config, stage), file, "was made")


def _require(found: object, expected: str, path: Path, what: str) -> None:
    require_settings(found, expected, path, what, f"snakemake --cores 2 {path}")


def _write(output: Path, page: str, reporter: Reporter) -> None:
    write_text(output, page)
    reporter.log(f"{output}: {len(page.encode()) / 1e6:.1f} MB")
