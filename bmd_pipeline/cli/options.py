"""Options that commands share, and the job that the command of a stage makes of them."""

import functools
import importlib
import inspect
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from bmd_pipeline.config.hashing import ENTRIES, Stage, stage_slice
from bmd_pipeline.config.load import (
    AUTO,
    AUTO_GPU,
    list_configured,
    list_paths,
    list_presets,
    load_config,
    read_settings,
    shorten,
)
from bmd_pipeline.config.readers import require_read
from bmd_pipeline.config.resources import usable_cores
from bmd_pipeline.config.schema import MAX_SEED, RunConfig, flatten
from bmd_pipeline.errors import ArtifactError, BMDError, ConfigError
from bmd_pipeline.io.files import MAX_NAME_BYTES
from bmd_pipeline.io.layout import LOCK_FILE, MANIFEST_FILE, METRICS_FILE, RUN_FILE, STORE_MARKS, Layout
from bmd_pipeline.io.provenance import list_imported, read_record, require_origin, require_own, require_same_preset
from bmd_pipeline.methods import METHODS, PRETRAINED, TAUGHT, check_method, is_finetuned, uses_modes
from bmd_pipeline.stages.console import Reporter, Stop
from bmd_pipeline.tasks.registry import env_model


def option(name: str, help: str, *short: str, **more: Any) -> Any:
    """An option that shows no default."""
    return typer.Option(name, *short, help=help, show_default=False, **more)


def _complete(candidates: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A shell's completion: the candidates that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in candidates() if name.startswith(incomplete)]

    return complete


def _complete_settings(context: typer.Context, incomplete: str) -> list[str]:
    names = list(list_paths(RunConfig))
    task = context.params.get("task") or ""
    with suppress(BMDError):  # none was named as yet, or one that can't be read
        open_config(task)  # registers variants and plug-ins
        names += list_paths(env_model(task), "task.env.")
    return [f"{name}=" for name in names if name.startswith(incomplete)]


complete_tasks = _complete(list_configured)
_setting = functools.partial(option, rich_help_panel="Settings")
_message = functools.partial(option, rich_help_panel="Messages")

_TASK = "The task; `bmd-pipeline tasks` lists them."
Task = Annotated[str, option("--task", _TASK, "-t", autocompletion=complete_tasks)]
_METHOD = f"How to fine-tune: {', '.join(METHODS)}."
Method = Annotated[str, option("--method", _METHOD, "-m", autocompletion=_complete(lambda: METHODS))]
_EVALUATED = "What to evaluate: a fine-tuning method, pretrained, or taught."
complete_policies = _complete(lambda: (PRETRAINED, TAUGHT, *METHODS))
Evaluated = Annotated[str, typer.Option("--method", "-m", help=_EVALUATED, autocompletion=complete_policies)]
Seed = Annotated[int, typer.Option("--seed", "-s", min=0, max=MAX_SEED, help="Seed of discovery and fine-tuning.")]
Output = Annotated[Path | None, option("--output", "Where to write instead.", "-o")]
Demos = Annotated[Path | None, option("--demos", "Demonstration store. Default: data/TASK/demos.zarr.")]
_OBS = "Arrays that make an observation, where the file holds several: names with commas between."
Obs = Annotated[str | None, option("--obs", _OBS)]
Policy = Annotated[Path | None, option("--policy", "Folder of the base policy. Default: results/TASK/policy.")]
Modes = Annotated[Path | None, option("--modes", "Folder of the discovered modes. Default: results/TASK/modes/seedN.")]
Finetuned = Annotated[
    Path | None, option("--finetuned", "Folder of the fine-tuned policy. Default: results/TASK/METHOD/seedN.")
]

_PRESETS = "How much to compute: smoke, cpu, gpu, paper, auto, auto-gpu. Default: what config/config.yaml says."
_complete_presets = _complete(lambda: (*list_presets(), AUTO, AUTO_GPU))
Preset = Annotated[str | None, _setting("--preset", _PRESETS, autocompletion=_complete_presets)]
ConfigFile = Annotated[Path | None, _setting("--config", "YAML file of settings laid over those in config/.")]
_ASSIGN = "One setting that the command reads, e.g. seed=7; may be repeated."
Assign = Annotated[
    list[str] | None, _setting("--set", _ASSIGN, metavar="NAME=VALUE", autocompletion=_complete_settings)
]
_THREADS = (
    "Cores to use, at most those there are for this process; simulator tasks start as many workers. "
    "Default: execution.threads."
)
Threads = Annotated[int | None, _setting("--threads", _THREADS, min=1, max=1024)]
_MAX_MINUTES = (
    "Save and stop after that many minutes, with exit status 75; the same command goes on from there. "
    "Default: execution.max_minutes."
)
MaxMinutes = Annotated[float | None, _setting("--max-minutes", _MAX_MINUTES, min=0.0, max=1e6)]
Root = Annotated[Path, _setting("--root", "Folder that holds data/ and results/.")]
Force = Annotated[bool, _setting("--force", "Replace what was made with another preset.")]
DryRun = Annotated[bool, _setting("--dry-run", "Check settings and files, say what would be done, and do nothing.")]
Run = Annotated[str, _setting("--run", "Name of the run, as `run` in the settings.")]

Quiet = Annotated[bool, _message("--quiet", "Warnings only.", "-q")]
Plain = Annotated[bool, _message("--plain", "Lines instead of bars; taken by itself in a pipe.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Debug = Annotated[bool, _message("--debug", "Show the traceback of an error.")]


def open_config(
    task: str, preset: str | None = None, config_file: Path | None = None, assign: Sequence[str] | None = None
) -> RunConfig:
    """Loads the settings that the shared options describe."""
    return load_config(
        task,
        preset=preset,
        overrides=read_settings(config_file) if config_file else None,
        overrides_path=config_file,
        assignments=assign or (),
    )


def print_json(document: object) -> None:
    """Prints a document for scripts; with escapes, which its readers understand, where the encoding lacks a letter."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not takes_unicode(), default=str) + "\n")


def takes_unicode() -> bool:
    """Whether all of a document can be printed as it is."""
    return (sys.stdout.encoding or "").lower().startswith("utf")


def print_lines(*lines: str) -> None:
    """Prints lines for people, each broken where the terminal ends, with its own indentation; in a pipe at 80."""
    width = shutil.get_terminal_size().columns
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        wrapped = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        sys.stdout.write("\n".join(wrapped) + "\n")


def make_reporter(label: str, quiet: bool, plain: bool) -> Reporter:
    """A reporter in the mode that the shared options ask for."""
    return Reporter("quiet" if quiet else "plain" if plain else None, label=label)


def need(path: Path, command: str = "") -> Path:
    """A file or folder; raises `ArtifactError`, with the command that makes it, if it is not there."""
    if not path.exists():
        raise ArtifactError(f"{path} is missing" + (f": make it with `{command}`" if command else ""))
    return path


def split_names(given: str | None) -> tuple[str, ...]:
    """Names with commas between them; none if nothing was given."""
    return tuple(name for name in (given or "").split(",") if name)


def require_store(path: Path, task: str) -> None:
    """Checks that a path may be a demonstration store, which whoever loads it sees.

    Raises:
        ArtifactError: it is something else; of demonstrations in another format, the command that imports them.
    """
    from bmd_pipeline.demos.formats import recognise  # not before: it takes a while

    if not path.name:
        raise ArtifactError(f"{path} is no demonstration store: --demos must name a zarr store")
    found = recognise(path)
    is_store = found == "zarr" and (not (path / "data/action").is_dir() or _has_observations(path))
    if found and not is_store:
        raise ArtifactError(
            f"{path} is no demonstration store but {found}: import it with `bmd-pipeline import-demos {path} --task "
            f"{task}`"
        )
    if not path.is_dir():
        raise ArtifactError(f"{path} is no folder: --demos must name a zarr store")


def _has_observations(store: Path) -> bool:
    return any((store / "data" / name).is_dir() for name in ("obs", "state"))


def new_file(given: Path | None, usual: Path) -> Path:
    """Where a file may be written: as given, or where it usually is.

    Raises:
        ArtifactError: a folder or a device is there, it is inside of a zarr store, or the name is too long, or ends
            otherwise, as those of files beside it do.
    """
    path = given or usual
    _new(path, Path.is_file, "file")
    if path.suffix != usual.suffix:
        raise ArtifactError(f"{path} can't be written: its name must end in {usual.suffix}")
    return path


def new_folder(path: Path) -> Path:
    """Where files may be written into; raises `ArtifactError` if something else than a folder is there, it is inside of
    a zarr store, or its name is too long."""
    return _new(path, Path.is_dir, "folder")


def _new(path: Path, is_such: Callable[[Path], bool], kind: str) -> Path:
    if path.name in ("", ".."):
        raise ArtifactError(f"{path} can't be written: it has no name of its own")
    if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
        raise ArtifactError(f"{path} can't be written: its name has more than {MAX_NAME_BYTES} bytes")
    if path.exists() and not is_such(path):
        raise ArtifactError(f"{path} can't be written: what is there is no {kind}")
    keep_store(path.parent, path)
    return path


_WRITTEN = ("manifest", "output")
"""Arguments of stages that say where they write; paths in others are read."""


def keep_store(folder: Path, path: Path) -> None:
    """Raises `ArtifactError` if a folder is a zarr store or inside of one: what is written there, `path`, would become
    part of it."""
    real = folder.resolve()
    for parent in (real, *real.parents):
        if any((parent / name).exists() for name in STORE_MARKS):
            raise ArtifactError(f"{path} can't be written: {parent} is a zarr store; write outside of it")


@dataclass(frozen=True)
class Job:
    """One stage on one task."""

    command: str  # the stage's name
    config: RunConfig
    layout: Layout  # where everything is
    reporter: Reporter  # what the stage prints through
    num_workers: int  # cores it may use
    stop: Stop  # who may ask the stage to stop
    force: bool  # whether what was made with another preset may be replaced
    dry: bool = False  # whether to say what would be done, and do nothing

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.config.task.name

    def take_file(self, given: Path | None, usual: Path, *beside: str, **of: object) -> Path:
        """Where the stage may write a file, with others `beside` it; errors as in `new_file` and `require_own`."""
        path = new_file(given, usual)
        self.claim(path, *(path.parent / name for name in beside), **of)
        return path

    def take_folder(self, given: Path | None, usual: Path, *names: str, **of: object) -> Path:
        """Where the stage may write files of these names, and its progress; as `take_file`."""
        folder = new_folder(given or usual)
        keep_store(folder, folder)
        state = Layout.state(folder)
        paths = [*(folder / name for name in (*names, METRICS_FILE)), state / LOCK_FILE, state / METRICS_FILE]
        snapshots = Layout.snapshots(folder).glob("*/finetuned.*") if self.command == "finetune" else ()
        self.claim(*paths, *snapshots, **of)
        return folder

    def claim(self, *paths: Path, **of: object) -> None:
        """Checks that the stage may write these files; errors as in `require_own` and `require_same_preset`."""
        stage = {"import_demos": "collect", "import_policy": "pretrain"}.get(self.command, self.command)
        require_own(paths, stage, self.task, **of)
        if not self.force:
            require_same_preset(paths, self.config.preset)

    def need_policy(self, given: Path | None = None) -> Path:
        """Folder of the pre-trained policy, or the one that the user named.

        Raises:
            ArtifactError: it is missing or not finished, or was made under other settings of its stage and those before
                than the present ones, which could have no effect.
        """
        return self._need_folder(given or self.layout.policy(self.task), "pretrain")

    def need_modes(self, seed: int, given: Path | None = None) -> Path:
        """Folder of the discovered modes; as `need_policy`."""
        return self._need_folder(given or self.layout.modes(self.task, seed), "discover", seed=seed)

    def need_inputs(
        self, method: str, seed: int, policy: Path | None, modes: Path | None, finetuned: Path | None = None
    ) -> dict[str, Path | None]:
        """Folders that a method plays from, by name: `policy`, `modes` and `finetuned`, None where it needs none.

        Those that the user named are taken, and the layout's for None.

        Raises:
            ArtifactError: as in `need_policy`.
            ConfigError: unknown method, or the user named a folder that it has no use for.
        """
        check_method(method, evaluating=self.command in ("evaluate", "export", "play"))
        base, found, weights = self.need_policy(policy), None, None
        if uses_modes(method):
            found = self.need_modes(seed, modes)
        elif modes:
            raise ConfigError(f"--modes goes with a -bmd method, got --method {method}")
        if self.command == "finetune":  # makes them
            return {"policy": base, "modes": found}
        if is_finetuned(method):
            folder = finetuned or self.layout.finetuned(self.task, method, seed)
            weights = self._need_folder(folder, "finetune", method=method, seed=seed)
        elif finetuned:
            raise ConfigError(f"--finetuned goes with the --method that made it, got --method {method}")
        return {"policy": base, "modes": found, "finetuned": weights}

    def run(self, **arguments: Any) -> None:
        """Calls the stage's function.

        It gets `arguments`, the settings, and of cores, reporter, stop and layout what it has parameters for. Torch is
        imported here: check everything cheap before. A dry run ends before that.
        """
        if self.dry:
            typer.echo("\n".join(self._describe(arguments)))
            return
        from bmd_pipeline.compute import set_threads

        set_threads(self.num_workers)
        module, _, name = ENTRIES[self.command][0].partition(":")
        stage = getattr(importlib.import_module(f"bmd_pipeline.{module}"), name)
        for shared in inspect.signature(stage).parameters.keys() & {"num_workers", "reporter", "stop", "layout"}:
            arguments[shared] = getattr(self, shared)
        stage(self.config, **arguments)

    def _describe(self, arguments: Mapping[str, Any]) -> Iterator[str]:
        """What `run` would do with these arguments: a line for the stage, and one for each file or folder."""
        cores = f"{self.num_workers} core{'s' * (self.num_workers > 1)}"
        yield f"{self.command.replace('_', '-')} {self.task}: would run on {cores}"
        for name, value in sorted(arguments.items(), key=lambda item: item[0] in _WRITTEN):
            for path in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]:
                if isinstance(path, Path) and name in _WRITTEN:
                    yield f"  writes {path}{' (replaces what is there)' if path.exists() else ''}"
                elif isinstance(path, Path) and name != "evaluation":
                    yield f"  reads  {need(path)}"
                elif isinstance(path, Path) and path.exists():  # an export does without
                    yield f"  reads  {path}"

    def _need_folder(self, folder: Path, stage: Stage, method: str | None = None, seed: int | None = None) -> Path:
        named = {"task": self.task, "method": method, "seed": seed}
        options = [f"--{name} {value}" for name, value in named.items() if value is not None]
        again = " ".join(["bmd-pipeline", stage, *options])
        record = read_record(need(folder / RUN_FILE, again), f"make it again with `{again}`")
        require_origin(folder, record, stage, self.task, method=method, seed=seed)
        self.require_settings("collect", record.get("collect_config"), f"the demonstrations of {folder}")
        self.require_settings(stage, record.get("config"), str(folder), method)
        return folder

    def require_settings(self, stage: Stage, made_under: object, what: str, method: str | None = None) -> None:
        """Checks that what a stage made was made under its present settings; what was imported has none.

        The stage has done its work: what the settings say of it must be what was, since later hashes build on them.

        Raises:
            ArtifactError: they are others; it names the first.
        """
        if not isinstance(made_under, dict) or not made_under:
            return
        made, present = flatten(made_under), flatten(stage_slice(self.config, stage, method))
        others = [name for name in sorted({*made, *present}) if made.get(name) != present.get(name)]
        if others:
            name, more = others[0], f" (and {len(others) - 1} more)" if others[1:] else ""
            then, now = (shorten(json.dumps(values.get(name)), 60) for values in (made, present))
            raise ArtifactError(
                f"{name} is {now}, but `{stage}` made {what} with {then}{more}, which `{self.command}` can't change: "
                "give the settings that it was made with, as `command` in its record says, or make it again"
            )


Command = Callable[..., None]


def stage_command(threads_of: Stage, *, resumable: bool = False) -> Callable[[Command], Command]:
    """Makes a command of a function of a job: adds the shared options to its own.

    It takes the number of threads of a stage. Resumable stages save their progress when they are asked to stop; others
    end at once, and have no time limit.
    """

    def decorate(run: Command) -> Command:
        def open_job(
            *,
            task: Task,
            preset: Preset = None,
            config: ConfigFile = None,
            assign: Assign = None,
            threads: Threads = None,
            max_minutes: MaxMinutes = None,
            root: Root = Path(),
            force: Force = False,
            dry_run: DryRun = False,
            quiet: Quiet = False,
            plain: Plain = False,
            debug: Debug = False,
            **own: Any,
        ) -> None:
            settings = open_config(task, preset, config, assign)
            load, layout = functools.partial(open_config, task, preset, config), Layout(root, settings.run)
            imported = _list_imported(run.__name__, layout, task, own)
            require_read(settings, run.__name__, own.get("method"), assign or (), load, imported)
            label = " ".join(
                [run.__name__, task, *(str(own[name]) for name in ("method", "seed") if own.get(name) is not None)]
            )
            stop = Stop(settings.execution.max_minutes if max_minutes is None else max_minutes)
            asked = threads or getattr(settings.execution.threads, threads_of)
            workers, reporter = min(asked, usable_cores()), make_reporter(label, quiet, plain)
            if threads and workers < threads:
                reporter.log(f"uses {workers} of the {threads} cores asked for: there are no more for this process")
            with stop if resumable else nullcontext():
                run(Job(run.__name__, settings, layout, reporter, workers, stop, force, dry_run), **own)

        return add_options(open_job, run, *(() if resumable else ("max_minutes",)))

    return decorate


def _list_imported(command: str, layout: Layout, task: str, own: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages before a command whose output was imported; files that the user named are among its `own` options."""
    policy, demos = own.get("policy"), own.get("demos")
    manifest = demos.parent / MANIFEST_FILE if demos else None if policy else layout.demos_manifest(task)
    return list_imported(None if command == "pretrain" else policy or layout.policy(task), manifest)


def add_options(command: Command, run: Command, *without: str) -> Command:
    """Gives a command the name, the help and the options of the function that it runs, beside its own options.

    Args:
        command: takes a task, other options, and as `own` those of `run`.
        run: its first parameter comes from the command.
        without: options of the command to leave out.
    """
    first = next(iter(inspect.signature(run).parameters))
    shared, own = _list_parameters(command, "own", *without), _list_parameters(run, first)
    # typer reads names, types and defaults from the signature; the task comes first
    parameters = {"task": shared["task"], **own, **shared}
    command.__name__, command.__doc__ = run.__name__, run.__doc__
    command.__annotations__ = {name: item.annotation for name, item in parameters.items()}
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    return command


def _list_parameters(function: Callable[..., Any], *skipped: str) -> dict[str, inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return {
        name: item.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, item in inspect.signature(function).parameters.items()
        if name not in skipped
    }
