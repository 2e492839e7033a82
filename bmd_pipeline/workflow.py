"""What Snakemake's rules ask for: settings, files, params and resources of each job, from Snakemake's `config` on.

Rules in workflow/rules/ name methods of `Pipeline` as their input functions and params.
"""

import os
import re
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

from bmd_pipeline.config.hashing import Stage, config_hash, hash_function, source_hash, stage_hash, stage_slice
from bmd_pipeline.config.load import (
    AUTO,
    AUTO_GPU,
    CONFIG_DIR,
    find_run_name,
    has_cuda_device,
    list_configured,
    load_config,
    merge_settings,
    read_settings,
    resolve_preset,
)
from bmd_pipeline.config.overrides import GridCell, base_name, list_cells, list_discoveries, list_evaluations
from bmd_pipeline.config.readers import leave_out, list_unread, write_assignments
from bmd_pipeline.config.resources import RESUMABLE, list_demands, usable_cores, uses_device
from bmd_pipeline.config.schema import MAX_SEED, RunConfig, Untyped
from bmd_pipeline.errors import BMDError, ConfigError, TaskError, suggest
from bmd_pipeline.io.files import hash_file, read_json
from bmd_pipeline.io.layout import (
    FINETUNED_NAMES,
    MANIFEST_FILE,
    MODES_NAMES,
    POLICY_NAMES,
    RUN_FILE,
    VIDEO_TYPES,
    VIDEOS_FOLDER,
    Layout,
)
from bmd_pipeline.io.provenance import (
    describe_place,
    find_edited_hash,
    is_imported,
    list_imported,
    read_cost,
    read_manifest,
    require_demos,
    require_disposable_demos,
    require_disposable_policy,
    require_own,
    require_own_demos,
    require_same_preset,
)
from bmd_pipeline.methods import check_method, is_finetuned, list_pairs, uses_modes
from bmd_pipeline.tasks.registry import DISTURBANCE, get_entry, require_expert

PRESET_VARIABLE = "BMD_PRESET"
_STATE = Path(".snakemake")
"""Snakemake's own folder."""

TASK = "[A-Za-z][A-Za-z0-9_-]*"

Wildcards = Any
"""Snakemake's: `task` always, and what else the rule's outputs name."""
Files = Callable[[Wildcards], list[str]]

P = ParamSpec("P")
R = TypeVar("R")


def refuse(why: object) -> NoReturn:
    """Ends the run in one line, before any job starts."""
    sys.exit(f"error: {why}")


def or_refuse(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function; what it refuses ends the run."""
    try:
        return function(*args, **kwargs)
    except BMDError as error:
        refuse(error)


@dataclass(frozen=True)
class WorkflowSettings:
    """What the user said to Snakemake about the settings."""

    preset: str  # resolved name, never "auto"; may be "auto-gpu"
    overrides: dict[str, Any]  # nested settings of --configfile and --config
    assignments: tuple[str, ...]  # `name=value`, from `--config 'set=[...]'`
    tasks: tuple[str, ...]  # those that a run without targets makes; none were named if empty
    force: bool = False  # whether what was made with another preset may be replaced

    def load(self, task: str) -> RunConfig:
        """Settings of a run on a task; errors as in `load_config`."""
        return load_config(task, preset=self.preset, overrides=self.overrides, assignments=self.assignments)

    def find_run_name(self) -> str:
        """Name of the run; errors as in `config.load.find_run_name`."""
        return find_run_name(self.preset, self.overrides, self.assignments)

    def list_assignments(self, config: RunConfig) -> list[str]:
        """The same settings as assignments of `--set`, as they were read for a run."""
        return [*write_assignments(self.overrides, config), *self.assignments]


def read_workflow_config(
    config: Mapping[str, Any], files: Mapping[str, Any] | None = None, *, config_dir: Path = CONFIG_DIR
) -> WorkflowSettings:
    """Reads Snakemake's `config`: settings as in config/, and `preset`, `set` and `tasks`.

    What "auto" means is decided once, where Snakemake was started, and handed to its jobs in the environment:
    they read the Snakefile again, maybe on a node with other devices. Snakemake hands over as text what is nested in
    --config: text may be a number, or true or false, unless it is text in `files`, the settings of --configfile.

    Raises:
        ConfigError: there is no such preset, `set` is no list of `name=value` or `tasks` none of names, or `force` is
            not true or false.
    """
    asked = config.get("preset") or AUTO
    if asked == AUTO:  # or what config.yaml says, where nothing was asked for
        asked = os.environ.get(PRESET_VARIABLE) or config.get("preset")
    preset = resolve_preset(asked or None, config_dir=config_dir)
    os.environ[PRESET_VARIABLE] = preset
    assignments = _read_texts(config, "set", "name=value")
    tasks = _read_texts(config, "tasks", "names")
    if len(set(tasks)) != len(tasks):
        raise ConfigError(f"tasks must not repeat, got {', '.join(tasks)}")
    force = _mark_untyped(config.get("force") or False, (files or {}).get("force"))
    if isinstance(force, Untyped) and force in ("true", "false"):
        force = force == "true"
    if not isinstance(force, bool):
        raise ConfigError(f"force must be true or false, got {force!r}")
    own = ("preset", "set", "tasks", "force")
    # what is left blank counts as not there, as in `read_settings`
    given = {name: value for name, value in config.items() if name not in own and value is not None}
    overrides = _mark_untyped(given, files or {})
    return WorkflowSettings(preset, overrides, assignments, tasks, force)


def _mark_untyped(value: Any, said: Any) -> Any:
    """A value whose texts are marked as untyped, but for those that a file says there."""
    if isinstance(value, Mapping):
        below = said if isinstance(said, Mapping) else {}
        return {name: _mark_untyped(part, below.get(name)) for name, part in value.items()}
    if isinstance(value, list):
        return value if value == said else [_mark_untyped(part, None) for part in value]
    return Untyped(value) if isinstance(value, str) and value != said else value


def _read_texts(config: Mapping[str, Any], name: str, what: str) -> tuple[str, ...]:
    values = config.get(name) or ()
    if isinstance(values, str):
        values = (values,)
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise ConfigError(f"{name} must be a list of {what}, got {values!r}")
    return tuple(values)


def put_command_on_path() -> None:
    """Lets jobs find `bmd-pipeline` beside this Python, though the environment may not be active."""
    if shutil.which("bmd-pipeline") is None:
        folder = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join((folder, os.environ.get("PATH", os.defpath)))


def end_with_terminal() -> None:
    """Lets a closed terminal (SIGHUP) end Snakemake as SIGTERM does; by itself it would leave its jobs and its lock."""
    in_main = threading.current_thread() is threading.main_thread()  # Python hands signals to no other
    if in_main and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # under nohup it is ignored, and stays so
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def fill(templates: Iterable[str], wildcards: Wildcards, **values: object) -> list[str]:
    """Paths of templates, filled from a job's wildcards and `values`."""
    return [template.format(**{**dict(wildcards.items()), **values}) for template in templates]


def within(folder: str, names: Iterable[str]) -> list[str]:
    """Paths of files in a folder."""
    return [f"{folder}/{name}" for name in names]


class RulePaths:
    """Paths of the rules' outputs in a layout, with wildcards."""

    def __init__(self, layout: Layout) -> None:
        self.results = str(layout.results("{task}"))
        self.logs = str(layout.logs("{task}"))
        self.demos = (str(layout.demos("{task}")), str(layout.demos_manifest("{task}")))
        self.policy = within(str(layout.policy("{task}")), POLICY_NAMES)
        self.modes = within(str(layout.modes("{task}", "{seed}")), MODES_NAMES)
        self.finetuned = str(layout.finetuned("{task}", "{method}", "{seed}"))
        self.cell = str(layout.finetuned("{task}", "grid/{cell}/{method}", "{seed}"))
        self.evaluated_cell = self.cell.replace("{method}", "{policy}")  # evaluation's name for the method
        self.cell_modes = self.cell.replace("{method}", "modes")


@dataclass
class Pipeline:
    """What the rules ask for."""

    config: Mapping[str, Any]  # Snakemake's
    stored: bool  # whether files live in a storage plug-in, and jobs get copies: local files then tell nothing
    planning: bool  # whether this process plans the jobs; those that run one read the Snakefile again
    config_files: Sequence[Path] = ()  # of --configfile, which Snakemake has read into `config`
    cores: int | None = None  # that Snakemake was given for jobs on this machine
    settings_given: WorkflowSettings = field(init=False)
    layout: Layout = field(init=False)  # of this run
    paths: RulePaths = field(init=False)
    _runs: dict[str, RunConfig] = field(init=False, default_factory=dict)
    _cells: dict[str, dict[str, GridCell]] = field(init=False, default_factory=dict)
    _read: dict[tuple[str | None, ...], list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        put_command_on_path()
        if self.planning:
            end_with_terminal()
        if self.planning and os.path.lexists(_STATE) and not _STATE.is_dir():
            refuse(f"{_STATE} is no folder, and Snakemake keeps its records in one of that name: move it away")
        files: dict[str, Any] = {}
        for path in self.config_files if self.planning else ():  # Snakemake takes 010 for 8, and the last of two values
            files = merge_settings(files, or_refuse(read_settings, path))
        self.settings_given = or_refuse(read_workflow_config, self.config, files)
        self.layout = Layout(run=or_refuse(self.settings_given.find_run_name))
        self.paths = RulePaths(self.layout)
        usable = usable_cores()
        if self.planning and self.cores is not None and self.cores > usable:
            more = "further jobs at the same time only take memory and each other's time"
            sys.stderr.write(f"warning: --cores {self.cores}, but there are {usable} for this process: {more}\n")

    @property
    def _may_read_files(self) -> bool:
        """Whether files that are there may be looked at."""
        return self.planning and not self.stored

    # ---- Settings ----

    def settings(self, task: str) -> RunConfig:
        """All settings of a task, validated when its first job is planned."""
        if task not in self._runs:
            run = or_refuse(self._load, task)
            locked = run.task.env[DISTURBANCE]["locked_action"]
            if self.planning and (run.discover.inference.features or locked is not None):
                from bmd_pipeline.stages.runtime import check_settings  # asks the task, which takes torch

                or_refuse(check_settings, run)
            self._runs[task] = run
        return self._runs[task]

    def _load(self, task: str) -> RunConfig:
        try:
            run = self.settings_given.load(task)
        except TaskError as error:
            stem, _, name = task.rpartition("-")
            if self.layout.run or stem not in list_configured():
                raise
            why = f"results/{task} is of the run {name} of {stem}: give the preset that brings this name, or run={name}"
            raise TaskError(f"{error}; {why}") from error
        if run.run != self.layout.run:
            raise ConfigError(f"run must not be a task's own setting: it is {run.run!r} for {task} alone")
        return run

    def _run(self, wildcards: Wildcards) -> RunConfig:
        """The run that a job is part of: in a cell of the grid, with what the cell changes."""
        if int(wildcards.get("seed", 0)) > MAX_SEED:
            refuse(f"seed must be <= {MAX_SEED}, got {wildcards.seed}")
        return self._cell(wildcards).config if wildcards.get("cell") else self.settings(wildcards.task)

    def validated(self, wildcards: Wildcards) -> list[str]:
        """Input: no files, only sound settings."""
        self._run(wildcards)
        return []

    def announce(self, jobs: Iterable[Any]) -> None:
        """Says before the first job what the jobs of Snakemake's plan will replace, and how much CPU time it took.

        Refuses to replace what no stage wrote, and without the setting `force` what was made with another preset; and
        to write what jobs print through a link.
        """
        if not self._may_read_files:
            return
        costs: dict[str, float] = {}  # of outputs that are there, CPU time in seconds
        for job in jobs:
            for path in (*job.log, job.benchmark):
                if path:
                    _require_plain(Path(path))
            found = [Path(path) for path in job.output if os.path.lexists(path)]
            stage = {"play_policy": "play"}.get(job.rule.name, job.rule.name.removeprefix("grid_"))
            task = job.wildcards.get("task")
            of = {"method": _method_of(job.wildcards) or None, "seed": _seed_of(job.wildcards)}
            or_refuse(require_own, [path for path in found if not path.is_dir()], stage, task, **of)
            if task and not self.settings_given.force:
                or_refuse(require_same_preset, found, self._run(job.wildcards).preset)
            if found:
                name = str(found[0] if len(job.output) == 1 else found[0].parent)
                costs[name] = costs.get(name, 0.0) + sum(map(read_cost, found))
        if costs:
            names, total = sorted(costs, key=lambda name: -costs[name])[:5], sum(costs.values())
            more = f" and {len(costs) - 5} more" if len(costs) > 5 else ""
            took = f"{total / 3600:.1f} hours" if total >= 3600 else f"{total:.0f} s"
            print(f"will be replaced: {', '.join(names)}{more}; making it took {took} of CPU time", file=sys.stderr)

    def other_targets(self) -> str:
        """Pattern of the targets of other runs: no rule makes them, and what is there would count as made."""
        pages = rf"(?!{re.escape(str(self.layout.overview()))})results/summary(?:-\w+)?\.html"
        folders = rf"(?:data|results)/[^/]+(?<!{self.layout.folder('')})/.+"
        return f"{pages}|{folders}" if self.layout.run else pages

    def refuse_target(self, wildcards: Wildcards) -> NoReturn:
        """Input of no job: refuses a target of another run with the right one."""
        top, folder, *rest = wildcards.target.split("/")
        right = "/".join((top, self.layout.folder(folder), *rest)) if rest else self.layout.overview()
        name = f"the name {self.layout.run}" if self.layout.run else "no name"
        refuse(f"{wildcards.target} is another run's, and this run has {name}: ask for {right}")

    # ---- Input: files of earlier stages ----

    def collectable(self) -> str:
        """Pattern of the tasks whose demonstrations `collect` makes: not of those that were imported, or edited since.

        To Snakemake these are files that no rule makes: it takes them as they are, and removes them under no
        circumstances.
        """

        def is_kept(task: str) -> bool:
            store, manifest = self.layout.demos(task), self.layout.demos_manifest(task)
            with suppress(BMDError, OSError):  # what is damaged is refused where it is needed
                return is_imported(manifest) or find_edited_hash(store, manifest) is not None
            return False

        return self._all_but(is_kept, "data", MANIFEST_FILE)

    def trainable(self) -> str:
        """Pattern of the tasks whose policy `pretrain` trains: not of those whose policy was imported."""
        policy = self.layout.policy
        return self._all_but(lambda task: is_imported(policy(task) / RUN_FILE), "results", f"policy/{RUN_FILE}")

    def _all_but(self, is_kept: Callable[[str], bool], top: str, record: str) -> str:
        end = self.layout.folder("")
        folders = [path.parts[1] for path in Path().glob(f"{top}/*{end}/{record}")] if self._may_read_files else []
        kept = [re.escape(folder) for folder in sorted(folders) if is_kept(folder.removesuffix(end))]
        return rf"(?!(?:{'|'.join(kept)})/){TASK}" if kept else TASK

    def collect_inputs(self, wildcards: Wildcards) -> list[str]:
        """Input of `collect`: none. Refuses a task without an expert, and a store that would be lost."""
        if self._may_read_files:
            task, store = wildcards.task, self.layout.demos(wildcards.task)
            or_refuse(require_disposable_demos, store, self.layout.demos_manifest(task), task, "collect")
            or_refuse(require_expert, self._run(wildcards).task.name)
        return self.validated(wildcards)

    def pretrain_inputs(self, wildcards: Wildcards) -> list[str]:
        """Input of `pretrain`: the demonstrations. Refuses a policy that would be lost."""
        if self._may_read_files:
            or_refuse(require_disposable_policy, self.layout.policy(wildcards.task), wildcards.task, "pretrain")
        return self._demos(wildcards)

    def _demos(self, wildcards: Wildcards) -> list[str]:
        if self._may_read_files:
            task = wildcards.task
            made_under = stage_hash(self._run(wildcards), "collect")
            or_refuse(require_demos, self.layout.demos(task), self.layout.demos_manifest(task), task, made_under)
        return fill(self.paths.demos, wildcards)

    def policy(self, wildcards: Wildcards) -> list[str]:
        """Input: the base policy."""
        files = fill(self.paths.policy, wildcards)
        if self._may_read_files and is_imported(Path(files[-1])):
            place = describe_place(self.layout.policy(wildcards.task), wildcards.task)
            again = f"import the policy again with `bmd-pipeline import-policy FOLDER {place}`"
            if missing := [path for path in files if not Path(path).exists()]:
                refuse(f"{missing[0]} is missing: {again}")
        return files

    def discover_demos(self, wildcards: Wildcards) -> list[str]:
        """Input of `discover`: the demonstrations that a coded policy is taught on; none in the published form."""
        if self._run(wildcards).discover.form == "published":
            return []
        if self._may_read_files:
            or_refuse(require_own_demos, self.layout.policy(wildcards.task), self.layout.demos(wildcards.task))
        return self._demos(wildcards)

    def modes(self, wildcards: Wildcards) -> list[str]:
        """Input: the modes that a method builds on; plain ones build on none."""
        method = _method_of(wildcards)
        if is_finetuned(method) or wildcards.get("cell"):
            or_refuse(check_method, method, evaluating=True)
        return within(self._modes_folder(wildcards), MODES_NAMES) if uses_modes(method) else []

    def snapshots(self, wildcards: Wildcards) -> list[str]:
        """Input of `curve`: what fine-tuning made, which holds no snapshots unless the settings ask for them."""
        if not self._run(wildcards).finetune.snapshot_interval:
            refuse("a curve needs snapshots: give `--config 'set=[finetune.snapshot_interval=20]'` or another interval")
        return self.finetuned(wildcards)

    def finetuned(self, wildcards: Wildcards) -> list[str]:
        """Input: what fine-tuning made of a policy, and its modes."""
        method = _method_of(wildcards)
        folder = self.paths.cell if wildcards.get("cell") else self.paths.finetuned
        made = within(folder, FINETUNED_NAMES) if is_finetuned(method) else []
        return self.modes(wildcards) + fill(made, wildcards, method=method)

    def modes_of_every_seed(self, wildcards: Wildcards) -> list[str]:
        """Input: the modes that the settings' seeds discovered."""
        return [path for seed in self._run(wildcards).seeds for path in fill(self.paths.modes, wildcards, seed=seed)]

    def evaluations(self, stage: str) -> Files:
        """Input: the evaluations that `summarise`, `compare`, `verdict` or `grid` reads."""

        def paths_of(wildcards: Wildcards) -> list[str]:
            found = or_refuse(list_evaluations, self._run(wildcards), stage)
            return [str(self.layout.evaluation(wildcards.task, folder, seed)) for folder, seed in found]

        return paths_of

    def pool_inputs(self, wildcards: Wildcards) -> list[str]:
        """Input of `pool`: results on every base policy."""
        bases = self._run(wildcards).pool.bases
        return [str(self.layout.summary(base_name(wildcards.task, base))) for base in bases]

    def report_inputs(self, wildcards: Wildcards) -> list[str]:
        """Input of `report`: what a task's page shows.

        Comparison and verdict are cheap and always made; the validation of modes and the grid are shown where
        someone asked for them.
        """
        run, task = self._run(wildcards), wildcards.task
        made = [self.layout.summary(task), self.layout.comparison(task), self.layout.policy(task) / RUN_FILE]
        made += [self.layout.finetuned(task, method, seed) / RUN_FILE for method in run.methods for seed in run.seeds]
        if list_pairs(run.methods):
            made.append(self.layout.verdict(task))
        shown = [self.layout.validation(task), *([self.layout.grid(task)] if run.grid.axes else [])]
        made += [path for path in shown if path.exists()]
        return self.evaluations("summarise")(wildcards) + list(map(str, made))

    def summary_tasks(self, wildcards: Wildcards) -> Sequence[str]:
        """Params of `summary`: the tasks that the settings name, or all that have results."""
        return self.settings_given.tasks or self.layout.list_tasks()

    def summary_inputs(self, wildcards: Wildcards) -> list[str]:
        """Input of `summary`: results and pages of its tasks."""
        tasks = self.summary_tasks(wildcards)
        if not tasks:
            refuse("no task has results yet; make some, e.g. with snakemake --cores 2 results/PushT/report.html")
        pages = [str(path) for task in tasks for path in (self.layout.summary(task), self.layout.report(task))]
        return pages + self._grids(tasks)

    def default_targets(self, wildcards: Wildcards) -> list[str]:
        """Input: what a run without targets makes, the tasks and grids that the settings name."""
        tasks = self.settings_given.tasks or ("PushT",)
        return [str(self.layout.summary(task)) for task in tasks] + self._grids(tasks)

    def beside(self, evaluations: Files, *names: str) -> Files:
        """Input: tables that stand beside evaluations and are read with them."""
        return lambda wildcards: [
            path for found in evaluations(wildcards) for path in within(str(Path(found).parent), names)
        ]

    def _grids(self, tasks: Iterable[str]) -> list[str]:
        return [str(self.layout.grid(task)) for task in tasks if self.settings(task).grid.axes]

    def _cell(self, wildcards: Wildcards) -> GridCell:
        """The cell of the name that a job has, or the discovery of that name."""
        task, name = wildcards.task, wildcards.cell
        if task not in self._cells:
            cells = or_refuse(list_cells, self.settings(task))
            self._cells[task] = list_discoveries(cells) | {cell.name: cell for cell in cells}
        known = self._cells[task]
        return known[name] if name in known else refuse(f"grid.axes makes no cell {name!r}; {suggest(name, known)}")

    def _modes_folder(self, wildcards: Wildcards) -> str:
        modes = self._cell(wildcards).modes if wildcards.get("cell") else "modes"
        return str(self.layout.finetuned(wildcards.task, modes, wildcards.seed))

    # ---- Params: what a job's result depends on ----

    def stage_params(self, stage: Stage) -> Callable[[Wildcards], dict[str, Any]]:
        """Params: the settings that a stage depends on, with the hashes of an imported policy."""

        def values_of(wildcards: Wildcards) -> dict[str, Any]:
            values = stage_slice(self._run(wildcards), stage, wildcards.get("method"))
            if stage not in ("collect", "pretrain") and "pretrain" in self._list_imported(wildcards.task):
                record = self.layout.policy(wildcards.task) / RUN_FILE
                values["imported_policy"] = read_json(record, "record").get("outputs")
            return values

        return values_of

    def all_settings(self, wildcards: Wildcards) -> str:
        """Params: hash of all settings, without those of stages whose output was imported."""
        return config_hash(self._run(wildcards), self._list_imported(wildcards.task))

    def _list_imported(self, task: str) -> tuple[Stage, ...]:
        """The stages whose output was imported; none where files are elsewhere, which jobs see."""
        return () if self.stored else list_imported(self.layout.policy(task), self.layout.demos_manifest(task))

    def source(self, stage: str) -> Callable[[Wildcards], str]:
        """Params: hash of the code behind a stage."""

        def hash_of(wildcards: Wildcards) -> str:
            config = self._run(wildcards)  # registers plug-ins and variants
            found, function = source_hash(stage, get_entry(config.task.name).package), config.pretrain.external_policy
            return found + hash_function(function) if function and stage == "pretrain" else found

        return hash_of

    def summary_source(self) -> str:
        """Hash of the code behind the page of all tasks."""
        return source_hash("summary", "bmd_pipeline.tasks")

    def own_demos(self, wildcards: Wildcards) -> str | None:
        """Params: hash of the demonstrations if they are the user's: imported, or edited; None where files are
        elsewhere."""
        store, manifest = map(Path, fill(self.paths.demos, wildcards))
        if self.stored:
            return None
        found = or_refuse(find_edited_hash, store, manifest)
        if found is None and is_imported(manifest):
            found = or_refuse(read_manifest, manifest)["outputs"].get(store.name)
        return found

    def discover_own_demos(self, wildcards: Wildcards) -> str | None:
        """Params: the same, where a policy is taught its codes on them."""
        return None if self._run(wildcards).discover.form == "published" else self.own_demos(wildcards)

    def clips(self, wildcards: Wildcards) -> dict[str, str]:
        """Params: the clips on a task's page, with their hashes; no input, since who has some may lack what renders."""
        folder = self.layout.results(wildcards.task) / VIDEOS_FOLDER
        clips = sorted(path for path in folder.glob("*") if path.suffix in VIDEO_TYPES)
        return {path.name: "a link" if path.is_symlink() else hash_file(path) for path in clips}

    def unasked_grid(self, wildcards: Wildcards) -> str | None:
        """Params: hash of the grid.json that a task's page shows though the settings name no axes; no input, since
        without axes nothing could make it."""
        grid = self.layout.grid(wildcards.task)
        shown = not self.stored and not self._run(wildcards).grid.axes and grid.is_file()
        return hash_file(grid) if shown else None

    # ---- Params: options of a job's command ----

    def options(self, command: str) -> Callable[..., list[object]]:
        """Params: what a command gets, with those of the settings that it reads.

        Snakemake records no params that depend on threads, so that a setting reruns only the stages whose slice it
        is in.
        """

        def options_of(wildcards: Wildcards, output: Sequence[str], threads: int) -> list[object]:
            sets = [part for text in self._assignments(command, wildcards) for part in ("--set", text)]
            shared = ["--threads", threads, "--preset", self.settings_given.preset]
            return [*shared, *sets, *self._root(output, wildcards)]

        return options_of

    def _assignments(self, command: str, wildcards: Wildcards) -> list[str]:
        """The settings that a command reads, with what a cell of the grid changes."""
        config, method, task = self._run(wildcards), _method_of(wildcards) or None, wildcards.task
        changes = self._cell(wildcards).assignments() if wildcards.get("cell") else []
        given = [*self.settings_given.list_assignments(config), *changes]
        job = (command, method, task, *given)
        if job not in self._read:
            load = partial(_load_assigned, task, self.settings_given.preset)
            unread = list_unread(config, command, method, given, load, self._list_imported(task))
            self._read[job] = leave_out(given, unread)
        return self._read[job]

    def summary_options(self, wildcards: Wildcards, output: Sequence[str], threads: int) -> list[str]:
        """Params: what the command of all tasks' page gets beside its tasks; not recorded either."""
        name = ["--run", self.layout.run] if self.layout.run else []
        return [*name, *self._root(output, wildcards)]

    def _root(self, output: Sequence[str], wildcards: Wildcards) -> list[str]:
        return ["--root", self._root_of(output, wildcards)] if self.stored else []

    def _root_of(self, output: Sequence[str], wildcards: Wildcards) -> str:
        """The folder that holds data/ and results/ in a job: that of its local copies, where files are elsewhere."""
        path = str(output[0])
        task = wildcards.get("task")
        inner = f"{self.layout.folder(task)}/" if task else self.layout.overview().name
        tops = [path.rfind(f"{top}/{inner}") for top in ("data", "results")]
        return path[: max(tops)] or "."

    def waiting(self, command: str) -> Callable[..., list[object]]:
        """Params: the same, and how long to wait for another job that writes the same output, its time limit: jobs may
        outlive the Snakemake that started them."""

        def options_of(wildcards: Wildcards, output: Sequence[str], threads: int, resources: Any) -> list[object]:
            limit = _time_limit(resources) or resources.runtime
            shared = self.options(command)(wildcards, output, threads)
            return [*shared, "--set", f"execution.wait_minutes={limit}"]

        return options_of

    def resumable(self, command: str) -> Callable[..., list[object]]:
        """Params: the same, and on a cluster when to save and stop."""

        def options_of(wildcards: Wildcards, output: Sequence[str], threads: int, resources: Any) -> list[object]:
            limit = _time_limit(resources)
            shared = self.waiting(command)(wildcards, output, threads, resources)
            return shared + (["--max-minutes", limit] if limit else [])

        return options_of

    def in_cell(self, shared: Callable[..., list[object]], **paths: str) -> Callable[..., list[object]]:
        """Params: the options of a stage in a cell of the grid, then the cell's files.

        Args:
            shared: what `waiting` or `resumable` gives for the stage.
            paths: templates by the option that they are given under.
        """

        def options_in(wildcards: Wildcards, output: Sequence[str], threads: int, resources: Any) -> list[object]:
            root = Path(self._root_of(output, wildcards))
            found = {name: fill([path], wildcards)[0] for name, path in paths.items()}
            if uses_modes(_method_of(wildcards)):
                found["modes"] = self._modes_folder(wildcards)
            parts = [part for name, path in found.items() for part in (f"--{name}", str(root / path))]
            return [*shared(wildcards, output, threads, resources), *parts]

        return options_in

    # ---- Resources ----

    def threads(self, stage: Stage) -> Callable[[Wildcards], int]:
        """Cores that the settings give to a stage."""
        return lambda wildcards: int(getattr(self._run(wildcards).execution.threads, stage))

    def mem_mb(self, stage: str) -> Callable[[Wildcards, int], int]:
        """Memory of a job, and as much again with each attempt."""
        return lambda wildcards, attempt: (
            attempt * (self._run(wildcards).execution.mem_mb or self._ask(stage, wildcards)[0])
        )

    def runtime(self, stage: str) -> Callable[[Wildcards, int], int]:
        """Time limit of a job in minutes, and as much again with each attempt of a stage that would start over."""

        def minutes(wildcards: Wildcards, attempt: int) -> int:
            times = 1 if stage in RESUMABLE else attempt
            return times * (self._run(wildcards).execution.runtime_minutes or self._ask(stage, wildcards)[1])

        return minutes

    def gpu(self, stage: str) -> Callable[[Wildcards], int]:
        """CUDA devices that a job uses."""

        def devices(wildcards: Wildcards) -> int:
            run = self._run(wildcards)
            expected = self.settings_given.preset in ("gpu", AUTO_GPU) or has_cuda_device()
            return int(uses_device(run, stage, simulator=get_entry(run.task.name).simulator, expected=expected))

        return devices

    def _ask(self, stage: str, wildcards: Wildcards) -> tuple[int, int]:
        """Memory and minutes that a job asks for where the settings don't say."""
        name = {"curve": "evaluate", "validation": "evaluate"}.get(stage, stage)  # as their rules say
        run = self._run(wildcards)
        threads = getattr(run.execution.threads, name, 1)
        simulator, on_device = get_entry(run.task.name).simulator, bool(self.gpu(stage)(wildcards))
        return list_demands(stage, threads=threads, simulator=simulator, on_device=on_device)


def _load_assigned(task: str, preset: str, assignments: Sequence[str]) -> RunConfig:
    return load_config(task, preset=preset, assignments=assignments)


def _require_plain(path: Path) -> None:
    """Ends the run if something else than one file is where a job's output is written as it is printed."""
    folder = next(parent for parent in path.parents if os.path.lexists(parent))
    if not folder.is_dir():
        refuse(f"{folder} is no folder, and {path} would be written there: move it away")
    if os.path.lexists(path) and (not stat.S_ISREG((found := path.lstat()).st_mode) or found.st_nlink > 1):
        refuse(f"{path} is a link, a second name of a file, or no file, and would be written: move it away")


def _method_of(wildcards: Wildcards) -> str:
    """The method that a job is for, which evaluation calls a policy; empty where modes are discovered."""
    return str(wildcards.get("method") or wildcards.get("policy") or "")


def _seed_of(wildcards: Wildcards) -> int | None:
    """The seed that a job is for, if it is for one."""
    return int(wildcards.seed) if wildcards.get("seed") else None


def _time_limit(resources: Any) -> int | None:
    """Minutes below the scheduler's limit by the resource stop_margin, which cluster profiles set; elsewhere None."""
    margin = resources.get("stop_margin", 0)
    return max(1, resources.runtime - margin) if margin else None
