"""Result tables: rows from finished runs into docs/results/table.json, and tables from it into the documents.

    python -m benchmarks.tables collect RUN... --task AnymalLate [--method dppo-bmd] [--variant "lambda 0"] [--world W]
        [--join]
    python -m benchmarks.tables write

RUN is a folder with `results/<Task>[-base<k>]/<method>/seed<k>/`. A document says where a table stands:

    <!-- table: AnymalLate, PushTShifted; rows: dppo | dppo-bmd, lambda 0; columns: policy success solved obeyed -->
    <!-- end table -->
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_table import (
    FURTHER,
    METRICS,
    TABLE,
    BaseRow,
    CodeEntry,
    Costs,
    ModeEntry,
    Number,
    ResultsTable,
    Row,
    load_table,
    save_table,
)
from bmd_pipeline.config.overrides import split_base
from bmd_pipeline.config.schema import Disturbance
from bmd_pipeline.errors import ArtifactError, BMDError
from bmd_pipeline.io.files import write_text
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.logger import load_metrics
from bmd_pipeline.io.provenance import read_record
from bmd_pipeline.methods import PRETRAINED, TAUGHT, is_finetuned, uses_modes
from bmd_pipeline.metrics.compare import student_interval
from bmd_pipeline.metrics.episodes import Episodes, load_episodes
from bmd_pipeline.metrics.schemas import Evaluation, PolicyBlock, load_document, require_tables
from bmd_pipeline.metrics.summary import summarise_policy

ROOT = Path(__file__).parents[1]
EMPTY = "Rows appear here as they are made: `python -m benchmarks.tables`."
FEW_BASES = 3
"""Up to so many base policies a cell also lists the value of each."""
_BLOCK = re.compile(r"(<!-- table: (?P<name>[^>]*?) -->\n).*?(<!-- end table -->)", re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One evaluated policy and seed.

    Attributes:
        base: root seed of its base policy.
        seed: fine-tuning seed.
        document: its eval.json.
        block: its policy's part of it.
        episodes: the rows beside it, with the behaviours of the codes.
        made: run.json of the stage that made the policy.
        metrics: what that stage logged; empty if it logs nothing.
        form: how it has its codes.
    """

    base: int
    seed: int
    document: Evaluation
    block: PolicyBlock
    episodes: Episodes
    made: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    form: Literal["coded", "published", "none"]


def find_runs(roots: Iterable[Path], task: str) -> dict[str, list[Run]]:
    """Evaluated runs of a task below some folders, by method.

    Raises:
        ArtifactError: a file is missing or damaged, or two folders hold the same run.
    """
    runs: dict[str, dict[tuple[int, int], Run]] = {}
    for root in roots:
        for path in sorted(root.glob("results/*/*/seed*/eval.json")):
            name, method = path.parts[-4], path.parts[-3]
            if split_base(name)[0] == task:
                run = load_run(root, name, method, path)
                known = runs.setdefault(method, {})
                if (run.base, run.seed) in known:
                    raise ArtifactError(f"{path}: base policy {run.base}, seed {run.seed} was found before")
                known[run.base, run.seed] = run
    return {method: [found[key] for key in sorted(found)] for method, found in runs.items()}


def load_run(root: Path, name: str, method: str, path: Path) -> Run:
    """Reads one run.

    Args:
        root: folder that holds `results/`.
        name: the task under which it was made, with or without its base policy.
        method: the policy.
        path: its eval.json.

    Raises:
        ArtifactError: a file is missing or damaged, or is not about this policy.
    """
    document = load_document(path, Evaluation)
    block = document.policies.get(method)
    if block is None or len(block.seeds) != 1 or document.task != name:
        raise ArtifactError(f"{path}: must be the evaluation of {method} on {name}, one seed")
    require_tables(document, path, "episodes.parquet")
    (episodes,) = load_episodes(path.with_name("episodes.parquet"))
    labellings = {block.labelling: block, **block.labellings}
    behaviours = {key: tuple(row.behaviour for row in labelled.codes) for key, labelled in labellings.items()}
    layout, seed = Layout(root), block.seeds[0].seed
    folder = {PRETRAINED: layout.policy(name), TAUGHT: layout.modes(name, seed)}.get(method, path.parent)
    log = folder / METRICS_FILE
    modes = layout.modes(name, seed)
    base = split_base(name)[1]
    return Run(
        base=int(document.provenance.config["seed"]) if base is None else base,
        seed=seed,
        document=document,
        block=block,
        episodes=replace(episodes, behaviours=behaviours),
        made=read_record(folder / RUN_FILE),
        metrics=load_metrics(log) if is_finetuned(method) else [],
        form=_find_form(read_record(modes / RUN_FILE), modes) if uses_modes(method) else "none",
    )


def _find_form(record: Mapping[str, Any], folder: Path) -> Literal["coded", "published"]:
    form = record.get("config", {}).get("discover", {}).get("form")
    if form not in ("coded", "published"):
        raise ArtifactError(f"{folder}/run.json: its settings have no discover.form; discover the modes again")
    return cast(Literal["coded", "published"], form)


def make_row(task: str, method: str, runs: Sequence[Run], *, variant: str = "", world: str | None = None) -> Row:
    """One row from the runs of a policy.

    Args:
        task: the task, without base policy.
        method: the policy.
        runs: one per base policy and seed; every base policy has the same seeds.
        variant: what differs from the task's settings.
        world: None reads it from `task.env.disturbance`.

    Raises:
        ArtifactError: base policies have different seeds, or runs differ in form, modes or number of episodes.
    """
    by_base: dict[int, list[Run]] = {}
    for run in runs:
        by_base.setdefault(run.base, []).append(run)
    first = runs[0]
    seeds = [run.seed for run in by_base[first.base]]
    for base, group in by_base.items():
        if [run.seed for run in group] != seeds:
            raise ArtifactError(f"{task}, {method}: base policy {base} has other seeds than base policy {first.base}")
    for run in runs:
        if _setup(run) != _setup(first):
            raise ArtifactError(
                f"{task}, {method}: base policy {run.base}, seed {run.seed} differs from base policy {first.base}, "
                f"seed {first.seed} in its form, modes, thresholds or number of episodes"
            )
    blocks = {base: _summarise(group) for base, group in by_base.items()}
    further = [name for name in FURTHER if None not in (_measure(block, name) for block in blocks.values())]
    return Row(
        task=task,
        method=method,
        form=first.form,
        variant=variant,
        world=world or _find_world(first),
        **{name: _pool(list(blocks.values()), name, first.document.confidence) for name in METRICS},
        further={name: _pool(list(blocks.values()), name, first.document.confidence) for name in further},
        total_modes=first.block.solved.total,
        tau=first.block.solved.tau,
        confidence=first.document.confidence,
        bases=[
            BaseRow(
                base=base,
                **{name: getattr(block, name).mean for name in METRICS},
                further={name: _measure(block, name).mean for name in further},
            )
            for base, block in blocks.items()
        ],
        seeds=seeds,
        episodes=len(first.episodes),
        codes=[
            CodeEntry(base=base, **{name: getattr(row, name) for name in CodeEntry.model_fields if name != "base"})
            for base, block in blocks.items()
            for row in block.codes
        ],
        modes=[
            ModeEntry(
                mode=row.mode,
                share=float(np.mean([block.per_mode[i].share for block in blocks.values()])),
                success_rate=float(np.mean([block.per_mode[i].success_rate for block in blocks.values()])),
            )
            for i, row in enumerate(first.block.per_mode)
        ],
        costs=_measure_costs(runs),
        machine=f"{first.document.provenance.platform}, {first.document.provenance.device}",
        commit=", ".join(dict.fromkeys(str(run.made.get("git_commit")) for run in runs)),
        command=re.sub(r" --root \S+", "", str(first.made["command"])),  # where on a machine is of no use elsewhere
    )


def _setup(run: Run) -> tuple[object, ...]:
    block = run.block
    modes = tuple(row.mode for row in block.per_mode)
    return run.form, modes, block.solved.tau, run.document.confidence, len(run.episodes)


def _summarise(runs: Sequence[Run]) -> PolicyBlock:
    """The block of one base policy, over its seeds and episodes."""
    first = runs[0]
    return summarise_policy(
        [run.episodes for run in runs],
        config_hash="",
        tau=first.block.solved.tau,
        confidence=first.document.confidence,
        rng=np.random.default_rng(0),
    )


def _find_world(run: Run) -> str:
    config = run.document.provenance.config
    tested = config.get("evaluate", {}).get("disturbance")
    disturbance = config["task"].get("env", {}).get("disturbance") if tested is None else tested
    return Disturbance.model_validate(disturbance or {}).describe() or "own"


def _measure(block: PolicyBlock, name: str) -> Any:
    """The estimate at a path such as `blocked/favourite/told/success` in a block; None where it was not measured."""
    return functools.reduce(lambda part, key: part and getattr(part, key), name.split("/"), block)


def _pool(blocks: Sequence[PolicyBlock], name: str, confidence: float) -> Number:
    """Student's interval over base policies; of one alone, that over its seeds and episodes."""
    if len(blocks) == 1:
        only = _measure(blocks[0], name)
        return Number(mean=only.mean, low=only.low, high=only.high)
    return _pool_values([_measure(block, name).mean for block in blocks], name, blocks[0].solved.total, confidence)


def _pool_values(of_bases: Sequence[float], name: str, total: float, confidence: float) -> Number:
    values: NDArray[np.float64] = np.array(of_bases)
    most = {"present": total, "solved": total, "mode_entropy": float(np.log(total))}
    bounds = (0.0, most.get(name, 1.0))
    if name in ("episode_return", "mode_spread") or name.endswith("/trials"):
        bounds = (-np.inf if name == "episode_return" else 0.0, np.inf)
    found = student_interval(values, confidence, bounds)
    return Number(mean=found.value, low=found.low, high=found.high)


def _measure_costs(runs: Sequence[Run]) -> Costs:
    """Means over runs. A log counts time over all jobs of a fine-tuning, a record that of the last job."""

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    if not runs[0].metrics:
        before = dict.fromkeys(name for name in Costs.model_fields if name not in ("cpu_seconds", "wall_s"))
        return Costs(
            **before,
            cpu_seconds=mean([float(run.made["cpu_seconds"]) for run in runs]),
            wall_s=mean([float(run.made["wall_s"]) for run in runs]),
        )

    def count(key: str, *, kept: bool) -> float:
        sums = []
        for run in runs:
            last = run.made["kept"]["iteration"] if kept else run.metrics[-1]["step"]
            sums.append(sum(float(line[key]) for line in run.metrics if line["step"] <= last))
        return mean(sums)

    return Costs(
        iterations=mean([float(run.metrics[-1]["step"]) for run in runs]),
        gradient_steps=count("losses/policy_steps", kept=False),
        gradient_steps_kept=count("losses/policy_steps", kept=True),
        control_steps=count("rollout/control_steps", kept=False),
        control_steps_kept=count("rollout/control_steps", kept=True),
        cpu_seconds=mean([float(run.metrics[-1]["cpu_seconds"]) for run in runs]),
        wall_s=mean([float(run.metrics[-1]["wall_s"]) for run in runs]),
    )


def collect(roots: Sequence[Path], task: str, *, methods: Sequence[str], variant: str, world: str | None) -> list[Row]:
    """Rows of a task's methods, or of those that are named, from finished runs.

    Raises:
        ArtifactError: there are none, or they are damaged or don't fit each other.
    """
    found = find_runs(roots, task)
    chosen = methods or list(found)
    if lacking := [method for method in chosen if method not in found] or ([task] if not chosen else []):
        raise ArtifactError(f"{', '.join(map(str, roots))}: hold no evaluation of {', '.join(lacking)} on {task}")
    rows = []
    for method in chosen:
        apart = variant if method in methods or is_finetuned(method) else ""  # variants start from the same policies
        rows.append(make_row(task, method, found[method], variant=apart, world=world))
    return rows


def join(old: Row, new: Row) -> Row:
    """One row of two whose runs are on other base policies, as where those of a session could not be kept.

    Raises:
        ArtifactError: a base policy is in both, or they differ in seeds, episodes, modes or thresholds.
    """
    if both := {base.base for base in old.bases} & {base.base for base in new.bases}:
        raise ArtifactError(
            f"{', '.join(filter(None, new.key))}: base policy {min(both)} is in the table; leave --join"
        )
    for name in ("seeds", "episodes", "total_modes", "tau", "confidence"):
        if getattr(old, name) != getattr(new, name):
            raise ArtifactError(
                f"{', '.join(filter(None, new.key))}: {name} {getattr(new, name)}, in the table {getattr(old, name)}"
            )
    bases = sorted([*old.bases, *new.bases], key=lambda row: row.base)
    share = len(new.bases) / len(bases)

    def mean(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else (1 - share) * one + share * other

    def pool(name: str) -> Number:
        values = [base.further[name] if name in FURTHER else getattr(base, name) for base in bases]
        return _pool_values(values, name, old.total_modes, old.confidence)

    further = [name for name in old.further if name in new.further]
    modes = {mode.mode: mode for mode in new.modes}
    costs = {name: mean(getattr(old.costs, name), getattr(new.costs, name)) for name in Costs.model_fields}
    update: dict[str, Any] = {
        **{name: pool(name) for name in METRICS},
        "further": {name: pool(name) for name in further},
        "bases": [
            base.model_copy(update={"further": {name: base.further[name] for name in further}}) for base in bases
        ],
        "codes": sorted([*old.codes, *new.codes], key=lambda code: (code.base, code.seed, code.code)),
        "modes": [
            mode.model_copy(
                update={name: mean(getattr(mode, name), getattr(modes[mode.mode], name)) for name in _OF_MODES}
            )
            for mode in old.modes
        ],
        "costs": Costs.model_validate(costs),
        **{name: ", ".join(dict.fromkeys((getattr(old, name), getattr(new, name)))) for name in ("machine", "commit")},
    }
    return old.model_copy(update=update)


_OF_MODES = ("share", "success_rate")


def _plain(value: float, digits: int) -> str:
    """A number as the documents write it: `.984`, `1.000`, `23.8`."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if digits >= 3 and text.startswith("0.") else text


def _number(row: Row, name: str, digits: int) -> str:
    """Mean and interval; with few base policies also the value of each. Of what never differs, the number alone."""
    number: Number | None = row.further.get(name) if name in FURTHER else getattr(row, name)
    if number is None:
        return "–"
    text, low, high = (_plain(value, digits) for value in (number.mean, number.low, number.high))
    if low == high:
        return text
    text += f" [{low}, {high}]"
    if 1 < len(row.bases) <= FEW_BASES:
        values = [base.further[name] if name in FURTHER else getattr(base, name) for base in row.bases]
        text += f" ({', '.join(_plain(value, digits) for value in values)})"
    return text


def _count(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:.0f}"


def _per_code(row: Row) -> str:
    rates = [code.success_rate for code in row.codes]
    return f"{_plain(min(rates), 3)} to {_plain(max(rates), 3)}" if rates else "–"


def _name_policy(row: Row) -> str:
    return row.method + (f", {row.variant}" if row.variant else "")


COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "task": ("task", lambda row: row.task),
    "world": ("world", lambda row: row.world),
    "policy": ("policy", _name_policy),
    "form": ("codes", lambda row: row.form),
    "success": ("success", lambda row: _number(row, "success_rate", 3)),
    "codes": ("success per code", _per_code),
    "present": (
        "present",
        lambda row: f"{_number(row, 'present', 1)} of {row.total_modes}",
    ),
    "solved": ("solved", lambda row: f"{_number(row, 'solved', 1)} of {row.total_modes}"),
    "entropy": ("H (nats)", lambda row: _number(row, "mode_entropy", 2)),
    "obeyed": ("obeyed", lambda row: _number(row, "obeyed", 3)),
    "worst": ("obeyed, worst code", lambda row: _number(row, "obeyed_worst", 3)),
    "return": ("return", lambda row: _number(row, "episode_return", 2)),
    "spread": ("spread within a mode", lambda row: _number(row, "mode_spread", 4)),
    "retry": ("favourite blocked, tries again", lambda row: _number(row, "blocked/favourite/retry/success", 3)),
    "told": ("told another code", lambda row: _number(row, "blocked/favourite/told/success", 3)),
    "finds": ("finds one by trials", lambda row: _number(row, "blocked/favourite/thompson/success", 3)),
    "retry_trials": ("trials, tries again", lambda row: _number(row, "blocked/favourite/retry/trials", 2)),
    "finds_trials": ("trials, finds one", lambda row: _number(row, "blocked/favourite/thompson/trials", 2)),
    "any_retry": ("any mode blocked, tries again", lambda row: _number(row, "blocked/any_mode/retry/success", 3)),
    "any_told": ("told another code", lambda row: _number(row, "blocked/any_mode/told/success", 3)),
    "any_finds": ("finds one by trials", lambda row: _number(row, "blocked/any_mode/thompson/success", 3)),
    "shares": ("shares of the modes", lambda row: " / ".join(_plain(mode.share, 3) for mode in row.modes)),
    "runs": ("base policies × seeds × episodes", lambda row: f"{len(row.bases)} × {len(row.seeds)} × {row.episodes}"),
    "iterations": ("iterations", lambda row: _count(row.costs.iterations)),
    "gradient_steps": ("gradient steps", lambda row: _count(row.costs.gradient_steps)),
    "control_steps": ("control steps", lambda row: _count(row.costs.control_steps)),
    "cpu": ("CPU s", lambda row: _count(row.costs.cpu_seconds)),
    "wall": ("wall s", lambda row: _count(row.costs.wall_s)),
}
"""By name: head and cell of a column."""
DEFAULT_COLUMNS = ("policy", "form", "success", "codes", "present", "solved", "entropy", "obeyed", "worst", "runs")


def render_table(table: ResultsTable, name: str) -> str:
    """A Markdown table of the rows of some tasks, in the order in which they are named.

    Args:
        table: all rows.
        name: tasks, separated by commas, and after semicolons maybe `rows:` with policies, separated by `|`, and
            `columns:` with names of `COLUMNS`, separated by spaces.

    Raises:
        ArtifactError: there is no such column, or no row of a policy that is named.
    """
    tasks, *parts = (part.strip() for part in name.split(";"))
    given = {key.strip(): value for key, _, value in (part.partition(":") for part in parts)}
    if unknown := given.keys() - {"rows", "columns"}:
        raise ArtifactError(f"table {name!r}: no part {min(unknown)!r}; there are rows and columns")
    words = given.get("columns", "").split()
    if unknown := {word for word in words if word not in COLUMNS}:
        raise ArtifactError(f"table {name!r}: no column {min(unknown)!r}; there are {', '.join(COLUMNS)}")
    wanted = [task.strip() for task in tasks.split(",")]
    rows = [row for task in wanted for row in table.rows if row.task == task]
    policies = [policy.strip() for policy in given.get("rows", "").split("|") if policy.strip()]
    if policies and rows:
        if lacking := set(policies) - {_name_policy(row) for row in rows}:
            raise ArtifactError(f"table {name!r}: no row {min(lacking)!r}")
        rows = [row for row in rows if _name_policy(row) in policies]
    if not rows:
        return f"{EMPTY}\n"
    columns = words or [*(("task",) if len(wanted) > 1 else ()), *DEFAULT_COLUMNS]
    if not words and any(row.world != "own" for row in rows):
        columns.insert(columns.index("policy"), "world")
    lines = [" | ".join(COLUMNS[column][0] for column in columns), "|".join("---" for _ in columns)]
    lines += [" | ".join(COLUMNS[column][1](row) for column in columns) for row in rows]
    head, rule, *body = lines
    return "".join(f"{line}\n" for line in (f"| {head} |", f"|{rule}|", *(f"| {line} |" for line in body)))


def fill(text: str, table: ResultsTable) -> str:
    """A document with its tables made anew."""
    return _BLOCK.sub(lambda found: found[1] + render_table(table, found["name"]) + found[3], text)


def list_documents(root: Path) -> list[Path]:
    """Documents that may hold tables."""
    return [root / "README.md", *sorted((root / "docs" / "results").glob("*.md"))]


def write(root: Path, table: ResultsTable) -> None:
    """Makes the tables of all documents anew."""
    for path in list_documents(root):
        text = path.read_text(encoding="utf-8")
        if (filled := fill(text, table)) != text:
            write_text(path, filled)


def main() -> None:
    """Collects rows, or writes tables; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="rows from finished runs, then the tables")
    collecting.add_argument("roots", nargs="+", type=Path, metavar="RUN")
    collecting.add_argument("--task", required=True)
    collecting.add_argument("--method", action="append", default=[], help="may be given again; all if never")
    collecting.add_argument("--variant", default="", help="what differs from the task's settings")
    collecting.add_argument("--world", help="the disturbance; read from the settings if not given")
    collecting.add_argument("--join", action="store_true", help="add base policies to the rows that there are")
    commands.add_parser("write", help="the tables of README.md and docs/results/*.md")
    given = parser.parse_args()
    try:
        table = load_table(ROOT / TABLE)
        if given.command == "collect":
            rows = collect(given.roots, given.task, methods=given.method, variant=given.variant, world=given.world)
            known = {row.key: row for row in table.rows} if given.join else {}
            table = table.with_rows([join(known[row.key], row) if row.key in known else row for row in rows])
            save_table(table, ROOT / TABLE)
        write(ROOT, table)
    except BMDError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
