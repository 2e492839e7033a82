"""The pages: a task's report, and the summary of all tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.job import Job, stage_command
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.stages.console import Reporter


@stage_command("evaluate")
def report(job: Job, output: o.Output = None) -> None:
    """Writes a task's page: what was run, what came of it, and how to make it again.

    One file that needs no network: results/TASK/report.html.
    """
    o.need_path(None, job.layout.summary(job.task), f"bmd-pipeline summarise --task {job.task}")
    file = o.new_file(output, job.layout.report(job.task))
    job.start(file)
    from bmd_pipeline.stages.report import report as run

    run(job.config, layout=job.layout, output=file, reporter=job.reporter)


def summary(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks. Default: all that have results.", show_default=False)
    ] = None,
    output: o.Output = None,
    quiet: o.Quiet = False,
    plain: o.Plain = False,
    debug: o.Debug = False,
) -> None:
    """Writes the page of all tasks, with a link to each one's report: results/summary.html."""
    from bmd_pipeline.stages.report import summary as run

    layout = Layout()
    reporter = Reporter("quiet" if quiet else "plain" if plain else None, label="summary")
    run(layout=layout, tasks=tasks, output=o.new_file(output, layout.overview()), reporter=reporter)
