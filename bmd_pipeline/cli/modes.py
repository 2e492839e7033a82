"""Commands that show the modes which discovery found, and write down which of them the robot keeps, and their names."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from bmd_pipeline.cli import options as o
from bmd_pipeline.config.load import modes_path
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.io.provenance import require_own
from bmd_pipeline.methods import TAUGHT
from bmd_pipeline.stages import curation

modes_app = typer.Typer(
    help="Look at the modes that discovery found in the demonstrations, name them, and say which the robot keeps."
)

Mode = Annotated[int, typer.Argument(help="Number of the mode, as `modes show` has it.", min=0, show_default=False)]
Modes = Annotated[list[int], typer.Argument(help="Numbers of modes, as `modes show` has them.", min=0)]


class Discovery(NamedTuple):
    """What a command is about: the modes of one discovery."""

    config: RunConfig
    layout: Layout
    seed: int

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.config.task.name


def _command(run: Callable[..., None]) -> Callable[..., None]:
    """Makes a command of a function of a discovery: adds the options that say which."""

    def open_discovery(
        *,
        task: o.Task,
        seed: o.Seed = 0,
        preset: o.Preset = None,
        config: o.ConfigFile = None,
        assign: o.Assign = None,
        root: o.Root = Path(),
        debug: o.Debug = False,
        **own: Any,
    ) -> None:
        settings = o.open_config(task, preset, config, assign)
        run(Discovery(settings, Layout(root, settings.run), seed), **own)

    return o.add_options(open_discovery, run)


@modes_app.command(epilog="Example: `bmd-pipeline modes show --task PushT`")
@_command
def show(
    found: Discovery,
    output: Annotated[
        Path | None, o.option("--output", "Picture to write (.png), with an .svg beside it.", "-o")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Lists the modes: demonstrations, success and obedience of each, and a picture of what their codes do.

    Reads the evaluation of the taught policy, the codes before fine-tuning.
    """
    task, seed = found.task, found.seed
    picture = o.new_file(output, found.layout.modes(task, seed) / "modes.png")
    require_own([picture, picture.with_suffix(".svg")], "modes", task)
    modes = curation.show(*found, picture)
    if as_json:
        o.print_json(modes)
        return
    o.print_lines(f"{'mode':>4}  {'name':<16} demonstrations  code  success  obeyed  shows")
    for mode in modes:
        o.print_lines(_format(mode))
    if any(mode["code"] is not None and mode["behaviour"] is None for mode in modes):
        o.print_lines("", "–: the code had no success on selection seeds")
    clips = f"bmd-pipeline play --task {task} --method {TAUGHT} --seed {seed}"
    o.print_lines("", f"picture: {picture}", f"clips: `{clips}`, with the same settings")
    if found.config.modes.demonstrations:
        o.print_lines(f"decided in {modes_path(task, found.config.run)}")


@modes_app.command(epilog="Example: `bmd-pipeline modes rename 0 left --task PushT`")
@_command
def rename(
    found: Discovery,
    mode: Mode,
    name: Annotated[str, typer.Argument(help="What to call it; an empty text takes the name away.")],
) -> None:
    """Names a mode. Nothing is trained again: pages and exports show the name."""
    _report(curation.rename(*found, mode, name))


@modes_app.command(epilog="Example: `bmd-pipeline modes drop 2 --task PushT`")
@_command
def drop(found: Discovery, modes: Modes) -> None:
    """Takes modes out, as unsafe or unwanted: no code is taught their demonstrations.

    Discovery, and what builds on it, is to be run again.
    """
    _report(curation.drop(*found, modes), retrain=True)


@modes_app.command(epilog="Example: `bmd-pipeline modes merge 1 3 --task PushT`")
@_command
def merge(found: Discovery, modes: Modes) -> None:
    """Makes several modes one, which shares a code. Discovery, and what builds on it, is to be run again."""
    _report(curation.merge(*found, modes), retrain=True)


def _format(mode: dict[str, Any]) -> str:
    name, count = mode["name"] or "–", f"{mode['demonstrations']} ({mode['share']:.0%})"
    start = f"{mode['mode']:>4}  {name:<16} {count:>14}"
    if mode["code"] is None:
        return f"{start}  dropped"
    shows = mode["behaviour"] or "–"
    return f"{start}  {mode['code']:>4}  {mode['success_rate']:>7.3f}  {mode['obeyed']:>6.3f}  {shows}"


def _report(path: Path, *, retrain: bool = False) -> None:
    again = "; now run `bmd-pipeline discover` with the same settings, or the workflow, again" if retrain else ""
    o.print_lines(f"{path}: written{again}")
