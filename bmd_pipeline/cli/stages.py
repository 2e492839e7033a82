"""One command per stage. Each checks its inputs and where it writes, and runs the stage's function."""

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Annotated

import typer

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.options import Job, make_reporter, need, new_file, new_folder, stage_command
from bmd_pipeline.config.overrides import base_name, list_evaluations
from bmd_pipeline.config.schema import MAX_SEED
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import is_there
from bmd_pipeline.io.layout import (
    FINETUNED_NAMES,
    LOCK_FILE,
    MANIFEST_FILE,
    MODES_NAMES,
    POLICY_NAMES,
    RUN_FILE,
    SUCCESS_PICTURES,
    TABLES,
    VIDEOS_FOLDER,
    Layout,
)
from bmd_pipeline.io.provenance import is_imported, read_manifest, require_own, require_own_demos
from bmd_pipeline.methods import EXPERT, METHODS, PRETRAINED, TAUGHT

_LOCK = str(Layout.state(Path()) / LOCK_FILE)  # beside the output


@stage_command("collect")
def collect(job: Job, output: o.Output = None) -> None:
    """Collects demonstrations with the task's scripted expert.

    Writes data/TASK/demos.zarr, and demos.manifest.json beside it.
    """
    job.run(**_demos_outputs(job, output))


def _demos_outputs(job: Job, output: Path | None) -> dict[str, Path]:
    store = output or job.layout.demos(job.task)
    if store.name in (MANIFEST_FILE, Layout.state(store.parent).name):
        raise ArtifactError(f"{store} can't be written: {store.name} beside a store is ours; give it another name")
    new_folder(store)
    return {"output": store, "manifest": job.take_file(None, store.with_name(MANIFEST_FILE), _LOCK)}


@stage_command("collect")
def import_demos(
    job: Job,
    store: Annotated[
        Path,
        typer.Argument(
            help="Your demonstrations: a zarr store or its zip file, the folder of a LeRobot or Minari dataset, or an "
            "HDF5 file of robomimic, ManiSkill or Minari."
        ),
    ],
    obs: o.Obs = None,
    bounds: Annotated[
        str,
        o.option(
            "--bounds",
            "What stands for the task's action bounds, where the file says otherwise or nothing: LOW:HIGH.",
        ),
    ] = "",
    clip: Annotated[bool, o.option("--clip", "Clip actions beyond their bounds, as some environments do.")] = False,
    keep_failures: Annotated[
        bool, o.option("--keep-failures", "Take episodes too that the file says have failed.")
    ] = False,
    output: o.Output = None,
) -> None:
    """Imports demonstrations that you have: checks them, and copies them to where `collect` would write.

    Their format is recognised. Writes data/TASK/demos.zarr, and demos.manifest.json beside it.
    """
    how = {"obs": o.split_names(obs), "bounds": bounds, "clip": clip, "keep_failures": keep_failures}
    job.run(store=store, **how, **_demos_outputs(job, output))


@stage_command("collect")
def export_demos(
    job: Job,
    to: Annotated[str, o.option("--to", "Format: zarr, as diffusion policy has it, or lerobot.")],
    demos: o.Demos = None,
    output: o.Output = None,
) -> None:
    """Exports demonstrations to the formats of other projects, with actions in the environment's units.

    Writes the new folder data/TASK/demos-FORMAT/.
    """
    if to not in EXPORT_FORMATS:
        raise ConfigError(f"--to must be one of {', '.join(EXPORT_FORMATS)}, got {to!r}")
    folder = new_folder(output or job.layout.demos(job.task).with_name(f"demos-{to}"))
    job.run(demos=_need_demos(job, demos), format=to, output=folder)


@stage_command("collect")
def import_policy(
    job: Job,
    policy: Annotated[
        Path,
        typer.Argument(
            help="Your policy: a folder with policy.safetensors and policy.json, a folder of LeRobot, or a checkpoint "
            "of DPPO."
        ),
    ],
    dppo_config: Annotated[
        Path | None, o.option("--dppo-config", "YAML file that DPPO trains or evaluates the checkpoint with.")
    ] = None,
    normalisation: Annotated[
        Path | None, o.option("--normalisation", "Bounds of DPPO's data, normalization.npz.")
    ] = None,
    output: o.Output = None,
) -> None:
    """Imports a policy that you have: checks it, and brings it to where `pretrain` would write.

    Writes results/TASK/policy/.
    """
    usual = job.layout.policy(job.task)
    in_place = policy.resolve() == (output or usual).resolve()  # then only its record is written
    folder = job.take_folder(output, usual, *((RUN_FILE,) if in_place else POLICY_NAMES))
    job.run(policy=policy, dppo_config=dppo_config, normalisation=normalisation, output=folder)


@stage_command("pretrain", resumable=True)
def pretrain(job: Job, demos: o.Demos = None, output: o.Output = None) -> None:
    """Trains the diffusion policy on the demonstrations until its success is flat.

    Writes results/TASK/policy/.
    """
    folder = job.take_folder(output, job.layout.policy(job.task), *POLICY_NAMES)
    job.run(demos=_need_demos(job, demos), output=folder)


@stage_command("discover", resumable=True)
def discover(
    job: Job, seed: o.Seed = 0, policy: o.Policy = None, demos: o.Demos = None, output: o.Output = None
) -> None:
    """Finds the behaviours in the demonstrations, and teaches the policy a code for each.

    In the published form (discover.form) it finds those of the frozen policy. Writes results/TASK/modes/seedN/.
    """
    folder = job.take_folder(output, job.layout.modes(job.task, seed), *MODES_NAMES, seed=seed)
    base = job.need_policy(policy)
    store = None
    if job.config.discover.form == "coded":
        require_own_demos(base, demos or job.layout.demos(job.task))
        store = _need_demos(job, demos)
    job.run(policy=base, demos=store, seed=seed, output=folder)


@stage_command("finetune", resumable=True)
def finetune(
    job: Job,
    method: o.Method,
    seed: o.Seed = 0,
    policy: o.Policy = None,
    modes: o.Modes = None,
    output: o.Output = None,
) -> None:
    """Fine-tunes the policy with reinforcement learning.

    Methods ending in -bmd keep the discovered modes. Writes results/TASK/METHOD/seedN/.
    """
    usual = job.layout.finetuned(job.task, method, seed)
    folder = job.take_folder(output, usual, *FINETUNED_NAMES, method=method, seed=seed)
    inputs = job.need_inputs(method, seed, policy, modes)
    job.run(method=method, seed=seed, output=folder, **inputs)


@stage_command("evaluate")
def evaluate(
    job: Job,
    method: o.Evaluated = PRETRAINED,
    seed: o.Seed = 0,
    policy: o.Policy = None,
    modes: o.Modes = None,
    finetuned: o.Finetuned = None,
    output: o.Output = None,
) -> None:
    """Evaluates one policy on episodes that no training saw.

    Writes eval.json, the episodes and a picture to results/TASK/METHOD/seedN/.
    """
    usual = job.layout.evaluation(job.task, method, seed)
    file = job.take_file(output, usual, *TABLES, _LOCK, method=method, seed=seed)
    inputs = job.need_inputs(method, seed, policy, modes, finetuned)
    job.run(method=method, seed=seed, output=file, **inputs)


@stage_command("evaluate")
def curve(
    job: Job,
    method: o.Method,
    seed: o.Seed = 0,
    policy: o.Policy = None,
    modes: o.Modes = None,
    finetuned: o.Finetuned = None,
    output: o.Output = None,
) -> None:
    """Evaluates the snapshots of a fine-tuning run: success and modes over training.

    Needs finetune.snapshot_interval. Writes curve.json to results/TASK/METHOD/seedN/.
    """
    file = job.take_file(output, job.layout.curve(job.task, method, seed), method=method, seed=seed)
    inputs = job.need_inputs(method, seed, policy, modes, finetuned)
    job.run(method=method, seed=seed, output=file, **inputs)


EXPORT_FORMATS = ("zarr", "lerobot")


@stage_command("evaluate")
def export(
    job: Job,
    method: Annotated[
        str,
        o.option(
            *("--method", f"What to export: {', '.join((PRETRAINED, TAUGHT, *METHODS))}.", "-m"),
            autocompletion=o.complete_policies,
        ),
    ],
    seed: o.Seed = 0,
    policy: o.Policy = None,
    modes: o.Modes = None,
    finetuned: o.Finetuned = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes",
            min=0,
            max=1_000_000,
            help="Episodes that show what to expect of each code from here, else evaluate.episodes; 0: no critic.",
            show_default=False,
        ),
    ] = None,
    output: o.Output = None,
) -> None:
    """Exports a policy for a robot: ONNX, and one file that runs it without this package.

    Writes results/TASK/METHOD/seedN/export/.
    """
    folder = new_folder(output or job.layout.export(job.task, method, seed))
    if job.config.pretrain.external_policy:
        raise ConfigError("a policy of pretrain.external_policy can't be exported: it runs on a robot by its own code")
    inputs = job.need_inputs(method, seed, policy, modes, finetuned)
    job.claim(folder.parent / _LOCK, folder / RUN_FILE, method=method, seed=seed)  # the stage looks at the rest
    evaluation = job.layout.evaluation(job.task, method, seed)
    job.run(method=method, seed=seed, episodes=episodes, evaluation=evaluation, output=folder, **inputs)


_EVALUATIONS = "The eval.json files. Default: all that are needed, from results/TASK/METHOD/seedN/."
Evaluations = Annotated[list[Path] | None, typer.Argument(help=_EVALUATIONS, show_default=False)]


def _need_evaluations(job: Job, given: Sequence[Path] | None) -> list[Path]:
    """The eval.json files that the command reads, or those that the user named."""
    expected = {
        job.layout.evaluation(job.task, policy, seed): f"--method {policy} --seed {seed}"
        for policy, seed in list_evaluations(job.config, job.command)
    }
    unknown = "--method METHOD --seed SEED"
    return [
        need(path, f"bmd-pipeline evaluate --task {job.task} {expected.get(path, unknown)}")
        for path in given or expected
    ]


@stage_command("evaluate")
def summarise(job: Job, evaluations: Evaluations = None, output: o.Output = None) -> None:
    """Puts a task's evaluations side by side.

    Writes results/TASK/eval.json, all episodes and the pictures of before and after.
    """
    paths = _need_evaluations(job, evaluations)
    names = (*TABLES, *SUCCESS_PICTURES, _LOCK)
    job.run(evaluations=paths, output=job.take_file(output, job.layout.summary(job.task), *names))


@stage_command("evaluate")
def compare(job: Job, evaluations: Evaluations = None, output: o.Output = None) -> None:
    """Compares all methods and seeds, with intervals and tests.

    Writes results/TASK/compare.json.
    """
    paths = _need_evaluations(job, evaluations)
    job.run(evaluations=paths, output=job.take_file(output, job.layout.comparison(job.task)))


@stage_command("evaluate")
def verdict(job: Job, evaluations: Evaluations = None, output: o.Output = None) -> None:
    """Decides the hypotheses on success and modes, method by method.

    Writes results/TASK/verdict.json.
    """
    paths = _need_evaluations(job, evaluations)
    job.run(evaluations=paths, output=job.take_file(output, job.layout.verdict(job.task)))


@stage_command("evaluate")
def validation(job: Job, policy: o.Policy = None, output: o.Output = None) -> None:
    """Puts the discovered modes to the test: are they distinct behaviours?

    Plays the frozen policy with the modes of every seed. Writes results/TASK/modes/validation.json.
    """
    base = job.need_policy(policy)
    modes = {seed: job.need_modes(seed) for seed in job.config.seeds}
    job.run(policy=base, modes=modes, output=job.take_file(output, job.layout.validation(job.task)))


@stage_command("evaluate")
def grid(job: Job, output: o.Output = None) -> None:
    """Gathers the runs of a grid: every combination of the values in `grid.axes`.

    Snakemake makes them: snakemake --cores 8 results/TASK/grid.json. Writes that file and a picture.
    """
    target = job.layout.grid(job.task)
    for folder, seed in list_evaluations(job.config, job.command):
        need(job.layout.evaluation(job.task, folder, seed), f"snakemake --cores 2 {target}")
    stem = (output or target).stem
    job.run(output=job.take_file(output, target, f"{stem}.png", f"{stem}.svg"))


@stage_command("evaluate")
def pool(job: Job, output: o.Output = None) -> None:
    """Pools base policies: every policy's scores over TASK-base0, TASK-base1 and so on, each made from demonstrations.

    Snakemake makes them: snakemake --cores 8 results/TASK/pool.json. Writes that file.
    """
    target = job.layout.pool(job.task)
    for base in job.config.pool.bases:
        need(job.layout.summary(base_name(job.task, base)), f"snakemake --cores 2 {target}")
    job.run(output=job.take_file(output, target))


@stage_command("evaluate")
def report(job: Job, output: o.Output = None) -> None:
    """Writes a task's page: what was run, what came of it, and how to make it again.

    One file that needs no network: results/TASK/report.html.
    """
    need(job.layout.summary(job.task), f"bmd-pipeline summarise --task {job.task}")
    job.run(output=job.take_file(output, job.layout.report(job.task)))


def summary(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tasks. Default: all that have results.", show_default=False, autocompletion=o.complete_tasks
        ),
    ] = None,
    output: o.Output = None,
    root: o.Root = Path(),
    run: o.Run = "",
    quiet: o.Quiet = False,
    plain: o.Plain = False,
    debug: o.Debug = False,
) -> None:
    """Writes the page of all tasks, with a link to each one's report: results/summary.html."""
    from bmd_pipeline.stages.report import summary as write

    layout = Layout(root, run)
    file = new_file(output, layout.overview())
    require_own([file], "summary", None)
    write(layout=layout, tasks=tasks, output=file, reporter=make_reporter("summary", quiet, plain))


@stage_command("evaluate")
def play(
    job: Job,
    method: Annotated[
        str,
        typer.Option(
            *("--method", "-m"),
            help="Who plays: expert, pretrained, taught, or a fine-tuning method.",
            autocompletion=o.complete_policies,
        ),
    ] = EXPERT,
    seed: Annotated[
        int | None, o.option("--seed", "The policy's seed, 0 by default.", "-s", min=0, max=MAX_SEED)
    ] = None,
    policy: o.Policy = None,
    modes: o.Modes = None,
    finetuned: o.Finetuned = None,
    exported: Annotated[
        Path | None, o.option("--exported", "Folder of an export of the method, which plays as on a robot.")
    ] = None,
    episodes: Annotated[int, typer.Option("--episodes", min=1, max=100, help="Clips of each mode, or code.")] = 1,
    size: Annotated[int, typer.Option("--size", min=64, max=1024, help="Pixels of a clip's side.")] = 320,
    output: o.Output = None,
) -> None:
    """Rolls out the expert, a policy, or an exported policy, to a GIF of each mode.

    Native tasks are drawn; simulators need something to render with, such as Mesa's software renderers. Writes
    results/TASK/videos/.
    """
    inputs: dict[str, Path | None] = {"policy": policy, "modes": modes, "finetuned": finetuned}
    if method == EXPERT:
        others = {**inputs, "exported": exported, "seed": seed}
        if named := [name for name, given in others.items() if given is not None]:
            raise ConfigError(f"--{named[0]} goes with the --method that it belongs to, got --method {EXPERT}")
    elif exported is not None:
        if named := [name for name, given in inputs.items() if given is not None]:
            raise ConfigError(f"--exported plays by itself: leave --{named[0]} out")
        need(exported / RUN_FILE, f"bmd-pipeline export --task {job.task} --method {method} --seed {seed or 0}")
        inputs = {"exported": exported}
    else:
        inputs = job.need_inputs(method, seed or 0, **inputs)
    who = method if method == EXPERT else f"{method}-seed{seed or 0}"
    usual = job.layout.results(job.task) / VIDEOS_FOLDER / f"{who}.json"
    stem, folder = (output or usual).stem, (output or usual).parent
    clips = sorted(path.name for path in folder.glob(f"{escape(stem)}-*.gif"))
    of = None if method == EXPERT else seed or 0
    file = job.take_file(output, usual, f"{stem}.webp", *clips, method=method, seed=of)
    job.run(method=method, seed=seed, episodes=episodes, size=size, output=file, **inputs)


def _need_demos(job: Job, given: Path | None) -> Path:
    if given:
        given = given if given.name not in ("", "..") else given.resolve()  # its manifest is beside it
        o.require_store(given, job.task)
    store = given or need(job.layout.demos(job.task), f"bmd-pipeline collect --task {job.task}")
    manifest = store.with_name(MANIFEST_FILE)
    if is_there(manifest) and not is_imported(manifest):
        record = read_manifest(manifest)
        if store.name in record["outputs"]:
            job.require_settings("collect", record.get("config"), str(store))
    return store
