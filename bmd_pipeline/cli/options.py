"""Options that several commands share, and the checks that go with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bmd_pipeline.config.schema import METHODS
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import RUN_FILE

_SETTINGS, _OUTPUT = "Settings", "Messages"

Task = Annotated[str, typer.Option("--task", "-t", help="The task; `bmd-pipeline tasks` lists them.")]
Method = Annotated[
    str, typer.Option("--method", "-m", help=f"How to fine-tune: {', '.join(METHODS)}.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", "-s", min=0, max=2**31 - 1, help="Seed; any number will do.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write.", show_default=False)]
Demos = Annotated[Path | None, typer.Option("--demos", help="Demonstration store.", show_default=False)]
Policy = Annotated[Path | None, typer.Option("--policy", help="Folder of the pre-trained policy.", show_default=False)]
Modes = Annotated[Path | None, typer.Option("--modes", help="Folder of the discovered modes.", show_default=False)]
Tuned = Annotated[Path | None, typer.Option("--tuned", help="Folder of the fine-tuned policy.", show_default=False)]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="How much to compute: smoke, cpu, gpu, paper, auto, auto-gpu. Default: what config/config.yaml says.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file of settings laid over those in config/.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
Assign = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="One setting, e.g. finetune.regulariser.mi_weight=0.3; may be repeated.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=1024,
        help="Cores to use; simulator tasks start as many workers. Default: execution.threads.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        "--max-minutes",
        min=0.0,
        max=1e6,
        help="Save and stop after that many minutes, with exit status 75; the same command goes on from there. "
        "Default: execution.max_minutes.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
Root = Annotated[
    Path,
    typer.Option(
        "--root",
        help="Folder that holds data/ and results/.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings only.", rich_help_panel=_OUTPUT)]
Plain = Annotated[
    bool,
    typer.Option("--plain", help="Lines instead of bars; taken by itself in a pipe.", rich_help_panel=_OUTPUT),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_OUTPUT)]


def need_folder(given: Path | None, default: Path, command: str) -> Path:
    """A finished output folder of an earlier stage.

    Args:
        given: what the user named.
        default: where the layout has it.
        command: what makes it, for the message.

    Raises:
        ArtifactError: it is not there or not finished.
    """
    folder = given or default
    if not (folder / RUN_FILE).is_file():
        raise ArtifactError(f"{folder / RUN_FILE} is missing: make it with `{command}`")
    return folder


def new_file(given: Path | None, default: Path) -> Path:
    """Where a file may be written: nothing is there, or an ordinary file.

    Raises:
        ArtifactError: a folder or a device is there.
    """
    path = _named(given or default)
    if path.exists() and not path.is_file():
        raise ArtifactError(f"{path} can't be written: what is there is no file")
    return path


def new_folder(given: Path | None, default: Path) -> Path:
    """Where files may be written into: nothing is there, or a folder.

    Raises:
        ArtifactError: something else is there.
    """
    path = _named(given or default)
    if path.exists() and not path.is_dir():
        raise ArtifactError(f"{path} can't be written: what is there is no folder")
    return path


def _named(path: Path) -> Path:
    if path.name in ("", ".."):
        raise ArtifactError(f"{path} can't be written: it has no name of its own")
    return path


def need_path(given: Path | None, default: Path, command: str) -> Path:
    """A file or store of an earlier stage; arguments and errors as in `need_folder`."""
    path = given or default
    if not path.exists():
        raise ArtifactError(f"{path} is missing: make it with `{command}`")
    return path
