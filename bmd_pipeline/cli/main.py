"""The command line: puts the commands together and turns failures into one line and an exit status.

| status | meaning |
|---|---|
| 0 | done |
| 1 | our fault or the machine's: a bug, a dead simulation worker |
| 2 | the user's to put right: a setting, a path, a damaged file, a full disk |
| 75 | a stage stopped because it was asked to; the same command goes on from there (see `stages/console.py`) |
| 130 | interrupted with nothing to save |
"""

import functools
import io
import itertools
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, cast

import typer

from bmd_pipeline import __version__
from bmd_pipeline.cli import doctor, modes, project, stages, tools
from bmd_pipeline.cli.options import open_config
from bmd_pipeline.config.load import shorten
from bmd_pipeline.config.readers import leave_out, list_unread
from bmd_pipeline.errors import AlreadyWritten, BMDError, ConfigError, TaskError
from bmd_pipeline.stages.console import STOPPED, Stopped

USER_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
LONGEST_MESSAGE = 600
_COMMAND = re.compile("`(bmd-pipeline [^`]*--task [^`]*)`")
_SHARED = ("--preset", "--config", "--set", "--root")

# typer has its own copy of click and keeps the base of its usage errors to itself
_UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bmd-pipeline {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Fine-tune multimodal diffusion policies without losing their behavioural modes.

    The stages, in order: collect, pretrain, discover, finetune, evaluate, summarise. Each reads what the one
    before left in data/ and results/. `bmd-pipeline run results/PushT/eval.json` runs them all.
    """


_PANELS = {
    "Whole projects": (project.init, project.run),
    "Stages": (
        *(stages.collect, stages.pretrain, stages.discover, stages.finetune),
        *(stages.evaluate, stages.curve, stages.summarise),
    ),
    "Your own data": (stages.import_demos, stages.import_policy, tools.inspect_demos, stages.export_demos),
    "Evidence": (stages.validation, stages.compare, stages.verdict, stages.grid, stages.pool),
    "Deployment": (stages.export,),
    "Pages and clips": (stages.report, stages.summary, stages.play),
    "Help": (tools.tasks, tools.check_task, doctor.doctor),
}
EXAMPLES = {
    "init": "my-project",
    "run": "results/PushT/eval.json --cores 2 -- --dry-run",
    "collect": "--task PushT --threads 2",
    "pretrain": "--task PushT --preset smoke",
    "discover": "--task PushT --seed 0",
    "finetune": "--task PushT --method dppo-bmd --seed 0 --set finetune.iterations=50",
    "evaluate": "--task PushT --method dppo-bmd --seed 0",
    "curve": "--task PushT --method dppo-bmd --set finetune.snapshot_interval=20",
    "summarise": "--task PushT",
    "import-demos": "mine.zarr --task MyTask",
    "import-policy": "mine/ --task MyTask",
    "inspect-demos": "mine.hdf5 --picture mine.png",
    "export-demos": "--task PushT --to lerobot",
    "validation": "--task PushT",
    "compare": "--task PushT",
    "verdict": "--task PushT --set verdict.success_margin=0.05",
    "grid": "--task PushT --config mine.yaml",
    "pool": "--task PushT --set pool.bases=[0,1,2]",
    "report": "--task PushT --output page.html",
    "summary": "PushT AvoidPoint",
    "export": "--task PushT --method dppo-bmd --output my_robot/export",
    "play": (
        "--task Reach\n"
        "--task Reach --method dppo-bmd --seed 0\n"
        "--task Reach --method dppo-bmd --exported results/Reach/dppo-bmd/seed0/export"
    ),
    "tasks": "AvoidPointShifted",
    "check-task": "MyTask --set task.plugins=[my_task]",
    "doctor": "--task PushT --preset smoke",
}
"""What stands behind a command in the example of its help, or in several, by lines."""

for _panel, _commands in _PANELS.items():
    for _command in _commands:
        _name = _command.__name__.replace("_", "-")
        _examples = "\n\n".join(f"Example: `bmd-pipeline {_name} {_line}`" for _line in EXAMPLES[_name].splitlines())
        app.command(_name, rich_help_panel=_panel, epilog=_examples)(_command)
app.add_typer(modes.modes_app, name="modes", rich_help_panel="Stages")
app.add_typer(tools.config_app, name="config", rich_help_panel="Help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, that of the process if None, and returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    _prepare_process()
    try:
        try:
            Path.cwd()  # fails if it is gone, which ends some libraries' processes as they load
            _check_text(arguments)
            status = app(args=arguments or ["--help"], prog_name="bmd-pipeline", standalone_mode=False)
        finally:
            if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                # Python's own end takes a while: a further Ctrl-C cuts it short, without a traceback.
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    except AlreadyWritten as reason:
        _say(str(reason))
        return 0
    except Stopped as reason:
        _say(f"stopped by {reason}; run the same command again to go on")
        return STOPPED
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except SystemExit as reason:  # nothing of this package does that, and a status of 0 would say that all is done
        if isinstance(reason.__context__, BrokenPipeError):  # typer's way to end: who read has seen enough (`| head`)
            return 0
        if _is_from_typer(reason):  # it completed a line for a shell, or said how to
            return int(reason.code or 0)
        return _fail(
            TaskError(f"code of the task ended the command (sys.exit, {reason.code!r}): it must not do that"), arguments
        )
    except Exception as error:
        if debug and not isinstance(error, _UsageError):
            traceback.print_exc()
        return _fail(error, arguments)
    if status == INTERRUPTED:  # typer may have caught Ctrl-C itself
        _say("interrupted")
    return status if isinstance(status, int) else 0


def _prepare_process() -> None:
    """Sets what must be set before torch is loaded and anything is printed."""
    # OpenMP's threads sleep while they wait: spinning, they would take the cores of other jobs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["MPLBACKEND"] = "agg"  # pictures go into files, whatever backend is set for windows
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started the process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - open until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the encoding lacks is shown as an escape


def _is_from_typer(reason: SystemExit) -> bool:
    """Whether typer raised it, and no code of a task."""
    *_, (raised_in, _) = traceback.walk_tb(reason.__traceback__)
    return str(raised_in.f_globals.get("__name__")).startswith("typer.")


def _check_text(arguments: Sequence[str]) -> None:
    """Refuses what could not be written into a run's records."""
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{word!r} is not UTF-8; give it another name, or set LC_ALL=C.UTF-8") from None


def _fail(error: Exception, argv: Sequence[str]) -> int:
    """Says in one line what failed; returns the exit status.

    Commands that a message names get the settings that they read, and the root, of the one that failed.
    """
    kind, status, advice = "error", USER_ERROR, " (run again with --debug for the traceback)"
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        advice = f" (see `{context.command_path if context else 'bmd-pipeline'} --help`)"
        if message.startswith("No such option") and context and context.info_name == "run":
            advice = f"; Snakemake's own options go after --{advice}"
    elif isinstance(error, BMDError):
        message, advice = str(error), ""
    elif isinstance(error, OSError):
        unnamed = "the current folder" if isinstance(error, FileNotFoundError) else "what the command prints"
        message = f"{error.filename or unnamed}: {error.strerror or error}"
    else:
        message, kind, status = f"{type(error).__name__}: {error}", "internal error", INTERNAL_ERROR
    text = " ".join((message + advice).split())
    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)  # what a terminal would obey
    given = [argv[i : i + (1 if "=" in word else 2)] for i, word in enumerate(argv) if word.split("=")[0] in _SHARED]
    whole = _COMMAND.sub(lambda found: f"`{found[1]}{_share(found[1], given)}`", text)
    text = whole if len(whole) <= LONGEST_MESSAGE else text
    # damaged files may have long names for things
    _say(f"{kind}: {shorten(text, LONGEST_MESSAGE)}")
    return status


def _share(command: str, given: Sequence[Sequence[str]]) -> str:
    """Of options given to another command, what this one gets: of the settings those that it reads."""
    words = shlex.split(command)
    pairs = [(found[0], found[1]) if found[1:] else found[0].partition("=")[::2] for found in given]
    named: dict[str, str] = dict([*itertools.pairwise(words), *pairs])
    sets = [value for name, value in pairs if name == "--set"]
    unread: list[str] = []
    with suppress(BMDError):
        file = Path(named["--config"]) if "--config" in named else None
        load = functools.partial(open_config, named["--task"], named.get("--preset"), file)
        unread = list_unread(load(sets), words[1].replace("-", "_"), named.get("--method"), sets, load)
    shared = ""
    for found, (name, value) in zip(given, pairs, strict=True):
        left = leave_out([value], unread) if name == "--set" else [value]
        shared += "".join(f" {shlex.join(found if text == value else [name, text])}" for text in left)
    return shared


def _say(line: str) -> None:
    """Prints a line for people; the exit status is the same if none of them can read it any more."""
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
