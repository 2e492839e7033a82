"""`bmd-pipeline watch`: the jobs of a running sweep, in the terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table

from bmd_pipeline.cli import options as o
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.stages.console import format_seconds

PLAIN_WIDTH = 160
"""Columns where nobody says how many there are: a file, a pipe."""


def watch(
    interval: Annotated[float, typer.Option("--interval", min=0.2, max=3600.0, help="Seconds between looks.")] = 5.0,
    rows: Annotated[int, typer.Option("--rows", min=1, max=10_000, help="Jobs to show, the latest first.")] = 25,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    debug: o.Debug = False,
) -> None:
    """Shows the jobs of a running sweep: throughput, return, success, information and solved modes.

    Reads what they leave under results/; run it where Snakemake was started, on any machine that sees the folder.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    if once or not console.is_terminal:
        console.print(_frame(rows), soft_wrap=True)
        return
    with Live(_frame(rows), console=console, auto_refresh=False) as live:
        while True:  # until Ctrl-C
            time.sleep(interval)
            live.update(_frame(rows), refresh=True)


def _frame(rows: int) -> Group:
    from bmd_pipeline.stages.watch import count_jobs, list_progress

    jobs = list_progress(Layout())
    states = [job.state for job in jobs]
    counted = count_jobs(Path())
    parts = [f"{states.count(state)} {state}" for state in ("running", "silent", "done")]
    speed = sum(job.rate or 0.0 for job in jobs if job.state == "running" and job.unit == "steps/s")
    heading = ", ".join([*([f"{counted[0]} of {counted[1]} jobs"] if counted else []), *parts, f"{speed:.0f} steps/s"])
    table = Table(
        Column("job", overflow="fold"),
        "state",
        "step",
        "rate",
        "return",
        "success",
        "information",
        "solved",
        "last",
        box=None,
    )
    for job in jobs[:rows]:
        table.add_row(
            escape(job.job),
            job.state,
            "" if job.step is None else str(job.step),
            "" if job.rate is None or job.state == "done" else f"{job.rate:.3g} {job.unit}",
            *("" if value is None else f"{value:.3f}" for value in (job.episode_return, job.success, job.information)),
            "" if job.solved is None else f"{job.solved[0]:.3g} of {job.solved[1]}",
            format_seconds(job.age),
        )
    return Group(heading, table)
