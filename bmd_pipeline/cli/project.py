"""Commands for whole projects: one makes a folder to work in, one runs the workflow in the current folder."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from bmd_pipeline.cli import options as o
from bmd_pipeline.config.places import PACKAGED
from bmd_pipeline.config.resources import usable_cores
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import convert_os_errors

STARTER = Path(__file__).parent / "starter"
"""What `init` copies; the rest of a project comes from the package's own settings and profiles."""
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
"""Where Snakemake looks for a workflow."""
_EXAMPLE = "results/GaussianMixture/eval.json"
_ELSEWHERE = ("--cores", "-c", "--jobs", "-j", "--executor", "-e", "--profile", "--workflow-profile")
"""Options of Snakemake that say how many jobs there are, or where."""


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.", show_default=False)],
    debug: o.Debug = False,
) -> None:
    """Makes a folder for your own runs: Snakefile, config/, profiles/ and a README that says how to go on."""
    o.keep_store(folder, folder)
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder: name a new folder")
    with convert_os_errors(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise ArtifactError(f"{folder} is no empty folder: name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copytree(STARTER, folder, dirs_exist_ok=True)
            shutil.copy(PACKAGED / "config" / "config.yaml", folder / "config")
            shutil.copytree(PACKAGED / "profiles", folder / "profiles")
        except BaseException:
            for entry in folder.iterdir():  # the folder was empty: all of this was copied
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            raise
    typer.echo(f"{folder} is ready; {folder / 'README.md'} says how to go on")


def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET]... [-- OPTIONS]",
            help="Files to make, such as results/PushT/eval.json. Default: `all`, what the settings' `tasks` name, "
            "else PushT. Snakemake's own options go after --.",
            show_default=False,
        ),
    ] = None,
    cores: Annotated[
        int | None,
        o.option(
            "--cores",
            "Cores for jobs on this machine. Default: all there are for this process; none where Snakemake's options "
            "name a profile or an executor.",
            "-c",
            min=1,
        ),
    ] = None,
    debug: o.Debug = False,
) -> None:
    """Makes targets with Snakemake: by the Snakefile of the current folder, or by the package's if there is none.

    `bmd-pipeline run results/GaussianMixture-smoke/eval.json -- --config preset=smoke`. The exit status is Snakemake's.
    """
    words = words or []
    first = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    targets, options = words[:first], words[first:]
    own = next((name for name in SNAKEFILES if Path(name).is_file()), None)
    for target in () if own else targets:
        if target != "all" and not os.path.normpath(target).startswith(("data/", "results/")):
            raise ConfigError(f"{target} is no target: name what to make below data/ or results/, such as {_EXAMPLE}")
    snakefile = own or PACKAGED / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    if cores is None and not any(option.startswith(_ELSEWHERE) for option in options):
        cores = usable_cores()
    if cores is not None:
        command += ["--cores", str(cores)]
    # Jobs call `bmd-pipeline`: this one, whichever others there are.
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    sys.stdout.flush()
    os.execv(sys.executable, [*command, *targets, *options])
