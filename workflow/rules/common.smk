"""Wiring that the rules share: settings, params and resources by task, and the files of each stage."""

import functools
import sys
from pathlib import Path

from bmd_pipeline.config.hashing import config_hash, source_hash, stage_hash, stage_slice
from bmd_pipeline.config.load import AUTO_GPU, has_cuda_device
from bmd_pipeline.config.overrides import (
    assign_codes,
    base_name,
    change_codes,
    configure_cell,
    configure_codes,
    configure_swept,
    find_cell,
    find_point,
    list_cells,
    list_points,
    modes_folder,
    swept_assignments,
)
from bmd_pipeline.config.resources import READERS, RESUMABLE, estimate_mem_mb, estimate_minutes, uses_device
from bmd_pipeline.config.schema import (
    PRETRAINED,
    TAUGHT,
    check_method,
    compared_policies,
    is_finetuned,
    judged_methods,
    list_pairs,
    uses_modes,
)
from bmd_pipeline.errors import BMDError
from bmd_pipeline.io.layout import Layout, VIDEO_TYPES, VIDEOS_FOLDER
from bmd_pipeline.io.provenance import find_edited_hash, hash_brought, may_collect, require_brought, require_trained
from bmd_pipeline.tasks.registry import get_entry, require_expert
from bmd_pipeline.workflow import put_command_on_path, read_workflow_config


wildcard_constraints:
    task="[A-Za-z][A-Za-z0-9_-]*",
    method=r"(?!(modes|pretrained|taught)/)[A-Za-z0-9-]+",  # any name gets in, so that check_method can answer
    policy=r"(?!modes/)[A-Za-z0-9-]+",
    point="[A-Za-z0-9.+-]+",
    codes="[1-9][0-9]*",
    seed="0|[1-9][0-9]*",


DEMOS = ["data/{task}/demos.zarr", "data/{task}/demos.manifest.json"]
NO_COLLECTION = "the demonstrations were brought along or edited by hand, nothing is collected"
POLICY = [f"results/{{task}}/policy/{name}" for name in ("policy.safetensors", "policy.json", "run.json")]
MODES = [f"results/{{task}}/modes/seed{{seed}}/{name}" for name in ("modes.safetensors", "modes.json", "run.json")]
TUNED = [f"results/{{task}}/{{method}}/seed{{seed}}/{name}" for name in ("tuned.safetensors", "tuned.json", "run.json")]
SWEPT = "results/{task}/lambda/{point}/seed{seed}"
SWEPT_TUNED = [f"{SWEPT}/{Path(path).name}" for path in TUNED]
CELL = "results/{task}/grid/{method}/k{codes}/{point}/seed{seed}"
CELL_TUNED = [f"{CELL}/{Path(path).name}" for path in TUNED]
CELL_MODES = "results/{task}/grid/modes/k{codes}/seed{seed}"
CELL_MODES_FILES = [f"{CELL_MODES}/{Path(path).name}" for path in MODES]
JUDGED_CELL = CELL.replace("{method}", "{policy}")  # evaluation's name for the method
JUDGED_CELL_TUNED = [path.replace("{method}", "{policy}") for path in CELL_TUNED]


def figure(path, name):
    """An output that `snakemake --report` shows, with its caption in workflow/report/."""
    return report(path, caption=f"../report/{name}.rst", category="{task}", labels={"shows": name.replace("_", " ")})


def or_refuse(function, *arguments):
    """Calls a function; what it refuses ends the run in one line, before any job starts."""
    try:
        return function(*arguments)
    except BMDError as error:
        sys.exit(f"error: {error}")


put_command_on_path()
SETTINGS = or_refuse(read_workflow_config, config)
OPTIONS = SETTINGS.command_options()
STORED = workflow.storage_settings.default_storage_provider is not None  # files are elsewhere; jobs get copies


@functools.cache
def settings(task):
    """All settings of a task, validated when its first job is planned."""
    run = or_refuse(SETTINGS.load, task)
    locked = run.task.env["disturbance"]["locked_action"]
    if workflow.is_main_process and (run.discover.inference.features or locked is not None):
        from bmd_pipeline.stages.runtime import check_settings  # asks the task, which takes torch

        or_refuse(check_settings, run)
    return run


def validated(wildcards):
    """An input function that needs no files, only sound settings."""
    settings(wildcards.task)
    return []


def files(*templates):
    """An input function: files of earlier stages. Deleted ones are made again, with all that depends on them;
    Snakemake by itself would miss them only when a job that reads them runs anyway."""

    def filled(wildcards):
        paths = [template.format(**wildcards) for template in templates]
        if workflow.is_main_process and not STORED:
            workflow.dag.forcefiles.update(path for path in paths if not Path(path).exists())
        return paths

    return filled


def collection(wildcards):
    """An input function: what `collect` needs, which is nothing but a task with an expert, and that nobody loses a store.
    Where demonstrations are somebody's own it names a file that nobody has. Such a rule makes nothing, so that Snakemake
    takes the store that is there as it is, and removes it under no circumstances."""
    run = settings(wildcards.task)
    if run.collect.store is not None:
        return [NO_COLLECTION]
    if workflow.is_main_process and not STORED:
        layout = Layout()
        store, manifest = layout.demos(wildcards.task), layout.demos_manifest(wildcards.task)
        if not or_refuse(may_collect, store, manifest, stage_hash(run, "collect")):
            return [NO_COLLECTION]
        or_refuse(require_expert, run.task.name)
    return []


def collected_files(wildcards):
    """An input function: the demonstrations that `pretrain` reads, unless the user brings something."""
    if workflow.is_main_process and not STORED:
        or_refuse(require_trained, Layout().policy(wildcards.task))
    return [] if brought_files(wildcards) else files(*DEMOS)(wildcards)


def brought_files(wildcards):
    """An input function: what the user brings in their place. It is followed by its content, see `brought`. Snakemake
    would go without `pretrain` if it were missing and an earlier policy there."""
    setting, paths = name_brought(settings(wildcards.task))
    if workflow.is_main_process and not STORED:
        or_refuse(require_brought, setting, paths)
    return paths


def name_brought(run):
    """The setting by which the user brings what `pretrain` reads, and the files that it names; none if they are made."""
    if run.pretrain.policy_folder is not None:
        folder = Path(run.pretrain.policy_folder)
        return "pretrain.policy_folder", [str(folder / Path(path).name) for path in POLICY[:2]]
    return "collect.store", [] if run.collect.store is None else [run.collect.store]


def modes_of(wildcards, method):
    """Files of the modes that a method builds on; plain ones build on none."""
    if method != TAUGHT:
        or_refuse(check_method, method)
    return files(*MODES)(wildcards) if uses_modes(method) else []


def modes_of_every_seed(wildcards):
    """Files of the modes that the settings' seeds discovered."""
    return files(*expand(MODES, task=wildcards.task, seed=settings(wildcards.task).seeds))(wildcards)


def beside(evaluations, *names):
    """An input function: tables that stand beside evaluations and are read with them."""

    def filled(wildcards):
        folders = [Path(path).parent for path in evaluations(wildcards)]
        return files(*(str(folder / name) for folder in folders for name in names))(wildcards)

    return filled


def taught_on(wildcards):
    """An input function: the demonstrations that a coded policy is taught on."""
    run = settings(wildcards.task)
    if run.discover.form == "published":
        return []
    if run.collect.store is None:
        return files(*DEMOS)(wildcards)
    if workflow.is_main_process and not STORED:
        or_refuse(require_brought, "collect.store", [run.collect.store])
    return [run.collect.store]


def taught_on_brought(wildcards):
    """Params: hash of the demonstrations that the user brought for that."""
    run = settings(wildcards.task)
    unread = STORED or run.collect.store is None or run.discover.form == "published"
    return None if unread else hash_brought([run.collect.store])


def discover_options(wildcards, input, output, threads, resources):
    """Params: what every command gets, and where a job finds demonstrations that the user brought."""
    options = resumable_options(wildcards, output, threads, resources)
    brought = settings(wildcards.task).collect.store is not None and input.demos
    return options + (["--demos", str(input.demos)] if brought else [])


def evaluated_files(wildcards):
    """Files of the policy that is judged, and of its modes."""
    if wildcards.policy == PRETRAINED:
        return []
    if wildcards.policy == TAUGHT:
        return modes_of(wildcards, TAUGHT)
    tuned = [path.replace("{method}", wildcards.policy) for path in TUNED]
    return files(*tuned)(wildcards) + modes_of(wildcards, wildcards.policy)


def compared_evaluations(wildcards):
    """Evaluations that the settings ask to compare."""
    run = settings(wildcards.task)
    paths = expand(
        "results/{{task}}/{policy}/seed{seed}/eval.json",
        policy=compared_policies(run.methods, run.discover.form),
        seed=run.seeds,
    )
    return files(*paths)(wildcards)


def weighed_evaluations(wildcards):
    """Evaluations of the policies that fine-tuning begins with and ends at, which are tested against each other."""
    run = settings(wildcards.task)
    policies = (PRETRAINED, *run.methods)
    return files(*expand("results/{{task}}/{policy}/seed{seed}/eval.json", policy=policies, seed=run.seeds))(wildcards)


def judged_evaluations(wildcards):
    """Evaluations of the methods that a verdict is about."""
    run = settings(wildcards.task)
    policies = or_refuse(judged_methods, run.methods)
    return files(*expand("results/{{task}}/{policy}/seed{seed}/eval.json", policy=policies, seed=run.seeds))(wildcards)


def swept_evaluations(wildcards):
    """Evaluations of every point and seed of the λ sweep."""
    run = settings(wildcards.task)
    names = [point.name for point in list_points(run)]
    return files(*expand(f"{SWEPT}/eval.json", task=wildcards.task, point=names, seed=run.sweep.seeds))(wildcards)


def swept_slice_of(stage):
    """Params: the settings that the stage depends on at a point of the sweep."""

    def slice_at(wildcards):
        run = settings(wildcards.task)
        here = configure_swept(run, or_refuse(find_point, run, wildcards.point))
        return stage_slice(here, stage, run.sweep.method)

    return slice_at


def point_options(wildcards):
    """Params: the method of the sweep and what a point changes, as options of a command."""
    run = settings(wildcards.task)
    return ["--method", run.sweep.method, *swept_assignments(or_refuse(find_point, run, wildcards.point))]


def cell_of(wildcards):
    """The cell of the grid that a job is for."""
    method = wildcards.get("method") or wildcards.policy
    return or_refuse(find_cell, settings(wildcards.task), f"{method}/k{wildcards.codes}/{wildcards.point}")


def cell_slice_of(stage):
    """Params: the settings that the stage depends on in a cell of the grid."""

    def slice_in(wildcards):
        cell = cell_of(wildcards)
        return stage_slice(configure_cell(settings(wildcards.task), cell), stage, cell.method)

    return slice_in


def cell_modes(wildcards):
    """Folder of the modes that a cell builds on."""
    folder = modes_folder(settings(wildcards.task), int(wildcards.codes))
    return f"results/{wildcards.task}/{folder}/seed{wildcards.seed}"


def cell_modes_files(wildcards):
    """Files of the modes that a cell builds on."""
    return files(*(f"{cell_modes(wildcards)}/{Path(path).name}" for path in MODES))(wildcards)


def cell_options(shared, **paths):
    """Params: the shared options of the stage, and what is different in a cell."""
    named = {f"--{name}": path for name, path in paths.items()}

    def options_in(wildcards, output, threads, resources):
        root = Path(root_of(output, wildcards))
        paths = {"--modes": cell_modes(wildcards)} | {name: path.format(**wildcards) for name, path in named.items()}
        parts = [part for name, path in paths.items() for part in (name, str(root / path))]
        return shared(wildcards, output, threads, resources) + cell_of(wildcards).assignments() + parts

    return options_in


def gathered_evaluations(wildcards):
    """Evaluations of every cell and seed of the grid."""
    run = settings(wildcards.task)
    folders = [cell.folder for cell in list_cells(run)]
    return files(*expand("results/{{task}}/{folder}/seed{seed}/eval.json", folder=folders, seed=run.seeds))(wildcards)


def pooled_evaluations(wildcards):
    """Results on every base policy."""
    bases = settings(wildcards.task).pool.bases
    return files(*(f"results/{base_name(wildcards.task, base)}/eval.json" for base in bases))(wildcards)


def slice_of(stage):
    """Params: the settings that the stage depends on."""
    return lambda wildcards: stage_slice(settings(wildcards.task), stage, wildcards.get("method"))


def source_of(stage):
    """Params: a hash of the code behind the stage."""

    def hash_of(wildcards):
        name = settings(wildcards.task).task.name  # registers plug-ins and variants
        return source_hash(stage, get_entry(name).package)

    return hash_of


def root_of(output, wildcards):
    """The folder that holds data/ and results/ in a job: that of its local copies, where files are elsewhere."""
    path = str(output[0])
    tops = [path.rfind(f"{top}/{wildcards.task}/") for top in ("data", "results")]
    return path[: max(tops)] or "."


def options(wildcards, output, threads):
    """Params: what every command gets. Snakemake records no params that depend on threads, so that a setting
    reruns only the stages whose slice it is in."""
    return ["--threads", threads, *OPTIONS, *(["--root", root_of(output, wildcards)] if STORED else [])]


def time_limit(resources):
    """Minutes below the scheduler's limit by the resource stop_margin, which cluster profiles set; elsewhere None."""
    margin = resources.get("stop_margin", 0)
    return max(1, resources.runtime - margin) if margin else None


def waiting_options(wildcards, output, threads, resources):
    """Params: the same, and on a cluster how long to wait for another job that writes the same output: jobs may outlive
    the Snakemake that started them."""
    limit = time_limit(resources)
    return options(wildcards, output, threads) + (["--set", f"execution.wait_minutes={limit}"] if limit else [])


def resumable_options(wildcards, output, threads, resources):
    """Params: the same, and on a cluster when to save and stop."""
    limit = time_limit(resources)
    return waiting_options(wildcards, output, threads, resources) + (["--max-minutes", limit] if limit else [])


def codes_slice(wildcards):
    """Params: the settings that discovery depends on with another K."""
    return stage_slice(configure_codes(settings(wildcards.task), int(wildcards.codes)), "discover")


def codes_options(wildcards, input, output, threads, resources):
    """Params: what every discovery gets, another K, and where its modes go."""
    codes = change_codes(settings(wildcards.task), int(wildcards.codes))
    changes = [*assign_codes(codes), "--output", str(Path(output[0]).parent)]
    return discover_options(wildcards, input, output, threads, resources) + changes


def brought(wildcards):
    """Params: hash of what the user brought, or of the store if someone edited it after collection; not looked for
    where files are elsewhere."""
    if STORED:
        return None
    _, paths = name_brought(settings(wildcards.task))
    if paths:
        return hash_brought(paths)
    return find_edited_hash(*(Path(path.format(**wildcards)) for path in DEMOS))


def pretrain_options(wildcards, input, output, threads, resources):
    """Params: what every command gets, and where a job finds what the user brought."""
    options = resumable_options(wildcards, output, threads, resources)
    setting, paths = name_brought(settings(wildcards.task))
    if not paths:
        return options
    found = str(input[0])
    return options + (["--demos", found] if setting == "collect.store" else ["--policy", str(Path(found).parent)])


def threads_of(stage):
    """Cores that the settings give to the stage."""
    return lambda wildcards: getattr(settings(wildcards.task).execution.threads, stage)


def asked(setting, estimate, stage):
    """What a job asks for: as set, or estimated from the settings of its stage."""
    name = {"curve": "evaluate", "validation": "evaluate"}.get(stage, stage)  # as their rules say

    def amount(wildcards):
        run = settings(wildcards.task)
        simulator = get_entry(run.task.name).simulator
        threads = getattr(run.execution.threads, name, 1)
        on_device = stage not in ("collect", *READERS) and bool(gpu_of(stage)(wildcards))
        return getattr(run.execution, setting) or estimate(
            run, stage, threads=threads, simulator=simulator, on_device=on_device
        )

    return amount


def mem_mb_of(stage):
    """Memory of a job, and as much again with each attempt."""
    amount = asked("mem_mb", estimate_mem_mb, stage)
    return lambda wildcards, attempt: attempt * amount(wildcards)


def runtime_of(stage):
    """Time limit of a job in minutes, and as much again with each attempt of a stage that would start over."""
    amount = asked("runtime_minutes", estimate_minutes, stage)
    if stage in RESUMABLE:
        return amount
    return lambda wildcards, attempt: attempt * amount(wildcards)


def gpu_of(stage):
    """CUDA devices that a job uses."""

    def devices(wildcards):
        run = settings(wildcards.task)
        expected = SETTINGS.preset in ("gpu", AUTO_GPU) or has_cuda_device()
        return int(uses_device(run, stage, simulator=get_entry(run.task.name).simulator, expected=expected))

    return devices


def reported_files(wildcards):
    """What a task's page shows. Comparison and verdict are cheap and always made; the validation of modes and the λ sweep
    are shown where someone asked for them."""
    run = settings(wildcards.task)
    made = ["results/{task}/eval.json", "results/{task}/compare.json", POLICY[-1]]
    for policy in compared_policies(run.methods, run.discover.form):
        names = ["eval.json", "run.json"] if is_finetuned(policy) else ["eval.json"]
        made += expand("results/{{task}}/{policy}/seed{seed}/{name}", policy=policy, seed=run.seeds, name=names)
    if list_pairs(run.methods):
        made.append("results/{task}/verdict.json")
    for asked in ("results/{task}/modes/validation.json", "results/{task}/lambda/sweep.json"):
        if Path(asked.format(**wildcards)).exists():
            made.append(asked)
    return files(*made)(wildcards)


def shown_clips(wildcards):
    """Params: clips that a task's page shows, with their sizes. They are no input: who has some may lack what renders."""
    folder = Path("results") / wildcards.task / VIDEOS_FOLDER
    clips = sorted(path for path in folder.glob("*") if path.suffix in VIDEO_TYPES)
    return {path.name: path.stat().st_size for path in clips}


def reported_tasks(wildcards):
    """Results and pages of the tasks that the settings name, or of all that have any."""
    tasks = SETTINGS.tasks or sorted(path.parent.name for path in Path("results").glob("*/eval.json"))
    if not tasks:
        sys.exit("error: no task has results yet; make some, e.g. with snakemake --cores 2 results/PushT/report.html")
    return expand("results/{task}/{file}", task=tasks, file=("eval.json", "report.html")) + grids(tasks)


def grids(tasks):
    """Grids of the tasks whose settings ask for one."""
    return [f"results/{task}/grid.json" for task in tasks if settings(task).grid.is_asked]


def wanted(wildcards):
    """What a run without targets makes: the tasks and grids that the settings name."""
    tasks = SETTINGS.tasks or ("PushT",)
    return expand("results/{task}/eval.json", task=tasks) + grids(tasks)
