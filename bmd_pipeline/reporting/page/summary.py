"""The page of all tasks: `results/summary.html`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.schemas import Evaluation, Grid, Verdict, load_document
from bmd_pipeline.reporting.page.looks import colour_sheet
from bmd_pipeline.reporting.page.payload import list_policies
from bmd_pipeline.reporting.page.render import render_page
from bmd_pipeline.reporting.page.report import lowest_success
from bmd_pipeline.reporting.page.sentences import describe_tally, describe_tasks


@dataclass(frozen=True)
class TaskResults:
    """What the summary shows of one task.

    Attributes:
        evaluation: its eval.json.
        verdict: its verdict.json, None where there is none.
        grid: its grid.json, None where there is none.
        link: its page, as seen from the summary; None where there is none.
    """

    evaluation: Evaluation
    verdict: Verdict | None
    grid: Grid | None
    link: str | None


def load_results(layout: Layout, tasks: Sequence[str]) -> list[TaskResults]:
    """Reads the results of some tasks.

    Raises:
        ArtifactError: a task has none, or a file is damaged.
    """
    results = []
    for task in tasks:
        path, verdict, grid = layout.summary(task), layout.verdict(task), layout.grid(task)
        if not path.is_file():
            raise ArtifactError(f"{path} is missing: make it with `snakemake --cores 2 {path}`")
        evaluation = load_document(path, Evaluation)
        if evaluation.task != task:
            raise ArtifactError(f"{path}: evaluation of task {evaluation.task}, not of {task}")
        cells = load_document(grid, Grid) if grid.is_file() else None
        if cells is not None and cells.task != task:
            raise ArtifactError(f"{grid}: grid of task {cells.task}, not of {task}")
        results.append(
            TaskResults(
                evaluation=evaluation,
                verdict=load_document(verdict, Verdict) if verdict.is_file() else None,
                grid=cells,
                link=_link(layout, task),
            )
        )
    return results


def _link(layout: Layout, task: str) -> str | None:
    page = layout.report(task)
    return quote(str(page.relative_to(layout.overview().parent))) if page.is_file() else None


def build_summary(results: Sequence[TaskResults]) -> str:
    """The page as HTML."""
    evaluations = [result.evaluation for result in results]
    order = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.policies))
    lowest = lowest_success(evaluations)
    tasks = [
        {
            "name": result.evaluation.task,
            "link": result.link,
            "tally": describe_tally(result.verdict) if result.verdict else "",
            "seeds": max(len(block.seeds) for block in result.evaluation.policies.values()),
            "evaluation": result.evaluation,
            "policies": list_policies(result.evaluation, order),
        }
        for result in results
    ]
    data = {"lowest": lowest, "tasks": [{"policies": task["policies"]} for task in tasks]}
    return render_page(
        "summary",
        data=data,
        colours=colour_sheet(order, []),
        tasks=tasks,
        grids=[result.grid for result in results if result.grid is not None],
        lowest=lowest,
        outcome=describe_tasks(evaluations),
    )
