"""The pages for people: results/<Task>/report.html and results/summary.html, each one file that reaches nowhere."""

import base64
import functools
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from bmd_pipeline import __version__
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import is_there
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.methods import PRETRAINED
from bmd_pipeline.metrics.schemas import Comparison, Evaluation, Grid, Verdict, load_document
from bmd_pipeline.metrics.scores import count_modes, mode_shares
from bmd_pipeline.reporting import figures, narrative
from bmd_pipeline.reporting.sources import ReportSources, list_settings, list_steps, remake_command
from bmd_pipeline.reporting.trajectories import encode_planar

# ---- Colours of a page, as CSS variables ----

COLOURS = {
    "paper": "#ffffff",
    "wash": "#f7f6f3",
    "ink": "#1d1c1a",
    "soft": "#5d5b56",
    "line": "#e2dfd8",
    "strong": "#b9b5ac",
    "good": "#00704f",
    "bad": "#b34700",
    "open": "#6d6a64",
    "failed": figures.GREY,
}
"""Background, background of figures, text, quieter text, thin and strong lines, the tones of verdicts, and paths that
failed."""


def colour_sheet(policies: Sequence[str], modes: Sequence[str]) -> str:
    """CSS that defines `COLOURS`, and those of the figures as `--policy-<i>` and `--mode-<i>`; names stay out of it."""
    colours = COLOURS | {f"policy-{i}": figures.method_style(name).colour for i, name in enumerate(policies)}
    colours |= {f"mode-{i}": colour for i, colour in enumerate(figures.mode_colours(modes).values())}
    return f":root {{ {' '.join(f'--{name}: {colour};' for name, colour in colours.items())} }}\n"


# ---- From a template and its values to one self-contained HTML file ----
#
# Nothing in a page may reach beyond it: styles, scripts and data are written into it, and its security policy refuses
# every request and every script but the page's own. Values are escaped by the template engine, data by `tojson`.

_ASSETS = files("bmd_pipeline.reporting") / "assets"

SCRIPTS = ("elements", "paths", "replay", "start")
"""Parts of the script in the order in which they are joined; they share one scope."""


def render_page(template: str, *, data: dict[str, Any], colours: str, **values: Any) -> str:
    """Fills a template of assets, named without suffix, with JSON data for the replay, colours as CSS, and values."""
    parts = "\n".join(_read(f"script/{name}.js") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{parts}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(f"{template}.html.j2")
        .render(
            **values,
            version=__version__,
            style=_read("page.css") + colours,
            script=script,
            script_hash=f"sha256-{digest}",
            data=data,
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bmd_pipeline.reporting", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    here = narrative.__name__
    environment.filters |= {
        name: one for name, one in vars(narrative).items() if getattr(one, "__module__", "") == here
    }
    environment.filters["pretty"] = functools.partial(json.dumps, indent=2, ensure_ascii=False)
    return environment


def _read(name: str) -> str:
    return _ASSETS.joinpath(name).read_text(encoding="utf-8")


# ---- A task's page: `results/<Task>/report.html` ----


def build_report(sources: ReportSources) -> str:
    """The page as HTML, with everything that it needs inside."""
    evaluation, book = sources.evaluation, sources.book
    steps = list_steps(sources)
    names = list(evaluation.policies)
    axes = [axis.replace("_", " ") for axis in book.axes]
    paths = encode_planar(sources.paths, sources.episodes, book.modes)
    for group in paths["groups"]:
        group["policy"] = names.index(group["policy"])
    drawn = _draw_figures(sources)
    return render_page(
        "report",
        kind=f"report of {evaluation.task}",
        data={"policies": names, "modes": list(book.modes), "axes": axes, "toScale": book.to_scale, "paths": paths},
        colours=colour_sheet(names, book.modes),
        task=evaluation.task,
        folder=sources.folder,
        evaluation=evaluation,
        policies=_list_marks(evaluation, names),
        figures=drawn,
        held=figures.held_weight(sources.curves),
        stride=max((curves.stride for curves in sources.curves.values()), default=1),
        modes=book.modes,
        axes=axes,
        to_scale=book.to_scale,
        run=narrative.describe_training(evaluation, sources.finetuned.values(), sum(step["wall_s"] for step in steps)),
        lowest=lowest_success([evaluation]),
        shares=_list_shares(sources),
        evidence=sources.evidence,
        spans=_find_spans(sources.evidence.comparison),
        videos=sources.videos,
        steps=steps,
        commits=list(dict.fromkeys(step["git_commit"] or "an installed package" for step in steps)),
        command=remake_command(evaluation, sources.folder),
        settings=list(list_settings(sources)),
        drawn_paths=min(figures.MAX_PATHS, max(map(len, sources.paths.values()))),
    )


def _draw_figures(sources: ReportSources) -> dict[str, list[Markup]]:
    """The page's figures by section; a section without data has none."""
    evaluation, modes = sources.evaluation, sources.book.modes
    task, grid, validation = evaluation.task, sources.evidence.grid, sources.evidence.validation
    base = evaluation.policies.get(PRETRAINED)
    policies = narrative.describe_policies(evaluation)
    drawn: dict[str, list[Markup]] = {
        section: [] for section in ("outcome", "paths", "curves", "pretraining", "codes", "validation", "grid")
    }

    def add(section: str, figure: Figure, title: str, words: str) -> None:
        name = f"{section}-{len(drawn[section])}"
        drawn[section].append(Markup(figures.embed_figure(figure, name, title, words)))

    add("outcome", figures.plot_success_modes(evaluation), f"{task}: success against modes", policies)
    add("paths", figures.plot_trajectories(evaluation, sources.book), f"{task}: trajectories by true mode", policies)
    curves = figures.plot_curves(sources.curves, before=base.success_rate.mean if base else None)
    for family, figure in curves.items():
        add("curves", figure, f"{family}: learning curves", narrative.describe_curves(sources.curves, family))
    if sources.pretraining is not None:
        kept = (sources.base.get("kept") or {}).get("iteration")
        words = narrative.describe_pretraining(sources.pretraining, kept)
        add("pretraining", figures.plot_pretraining(sources.pretraining, kept), f"{task}: pre-training", words)
    for name, block in evaluation.policies.items():
        if block.codes:
            codes = {row.seed: [code for code in block.codes if code.seed == row.seed] for row in block.seeds}
            figure = figures.plot_codes(name, codes, modes, sources.code_names)
            add("codes", figure, f"{name}: codes and true modes", narrative.describe_codes(codes))
    if validation is not None:
        checks = {one.seed: one.codes for one in validation.discovered}
        figure = figures.plot_codes("frozen policy", checks, validation.modes, sources.code_names)
        add("validation", figure, "Frozen policy: codes and true modes", narrative.describe_codes(checks))
    if grid is not None:
        words = "; ".join(narrative.describe_grid(grid))
        add("grid", figures.plot_grid(grid), f"{task}: success and modes in the grid", words)
    return drawn


def _list_marks(evaluation: Evaluation, order: Sequence[str]) -> list[dict[str, Any]]:
    """The mark of every policy; its place among all policies of the page is the number of its colour."""
    return [{"index": order.index(name), **vars(figures.method_style(name))} for name in evaluation.policies]


def lowest_success(evaluations: Sequence[Evaluation]) -> float:
    """Where axes of success begin: the tenth below the lowest interval."""
    lows = [block.success_rate.low for evaluation in evaluations for block in evaluation.policies.values()]
    return math.floor(min(0.9, *lows) * 10) / 10


def _find_spans(comparison: Comparison | None) -> dict[str, float]:
    """Half the width of the axes of differences, one for each metric."""
    spans: dict[str, float] = {}
    for pair in comparison.comparisons if comparison else ():
        for name, cell in pair.metrics.items():
            ends = cell.difference.low, cell.difference.high
            spans[name] = max(spans.get(name, 1e-9), *(1.1 * abs(end) for end in ends))
    return spans


def _list_shares(sources: ReportSources) -> list[dict[str, Any]]:
    """Mode shares of every policy seed by seed: the mean of collapsed seeds would look diverse."""
    rows = []
    for name, block in sources.evaluation.policies.items():
        seeds = []
        for row in block.seeds:
            part = sources.episodes[name, row.seed]
            successes, _ = count_modes(part.success, part.labellings[block.labelling].weights)
            seeds.append({"seed": row.seed, "shares": mode_shares(successes).tolist()})
        rows.append({"name": name, "block": block, "seeds": seeds})
    return rows


# ---- The page of all tasks: `results/summary.html` ----


@dataclass(frozen=True)
class TaskResults:
    """What the summary shows of one task; verdict, grid and link are None where there is no such file."""

    evaluation: Evaluation
    verdict: Verdict | None
    grid: Grid | None
    link: str | None  # its page, as seen from the summary


def load_results(layout: Layout, tasks: Sequence[str]) -> list[TaskResults]:
    """Reads the results of some tasks.

    Raises:
        ArtifactError: a task has none, or a file is damaged.
    """
    results = []
    for task in tasks:
        path, page = layout.summary(task), layout.report(task)
        verdict, grid = layout.verdict(task), layout.grid(task)
        if not path.is_file():
            raise ArtifactError(f"{path} is missing: make it with `snakemake --cores 2 {path}`")
        results.append(
            TaskResults(
                evaluation=load_document(path, Evaluation, task),
                verdict=load_document(verdict, Verdict, task) if is_there(verdict) else None,
                grid=load_document(grid, Grid, task) if is_there(grid) else None,
                link=quote(str(page.relative_to(layout.overview().parent))) if is_there(page) else None,
            )
        )
    return results


def build_summary(results: Sequence[TaskResults]) -> str:
    """The page as HTML."""
    evaluations = [result.evaluation for result in results]
    order = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.policies))
    tasks = []
    for i, result in enumerate(results):
        evaluation = result.evaluation
        title, words = f"{evaluation.task}: success against modes", narrative.describe_policies(evaluation)
        figure = figures.embed_figure(figures.plot_success_modes(evaluation), f"task-{i}", title, words)
        tasks.append({**vars(result), "policies": _list_marks(evaluation, order), "figure": Markup(figure)})
    return render_page(
        "summary",
        kind="summary",
        data={},
        colours=colour_sheet(order, []),
        tasks=tasks,
        grids=[result.grid for result in results if result.grid is not None],
        lowest=lowest_success(evaluations),
    )
