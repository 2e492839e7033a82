"""Stages `grid` and `pool`: scores over combinations of settings, and over base policies."""

from pathlib import Path

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.overrides import GridCell, configure_base, list_cells, list_evaluations
from bmd_pipeline.config.schema import RunConfig, grid_methods, grid_seeds
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file
from bmd_pipeline.io.layout import EPISODES_FILE, EVAL_FILE, RUN_FILE, Layout
from bmd_pipeline.io.provenance import RunStart, require_run
from bmd_pipeline.methods import PRETRAINED, TAUGHT, list_pairs
from bmd_pipeline.metrics.compare import pool_pair, pool_scores, score_seeds
from bmd_pipeline.metrics.episodes import Episodes, load_episodes
from bmd_pipeline.metrics.hypotheses import smallest_p
from bmd_pipeline.metrics.schemas import (
    Cell,
    CellScores,
    Evaluation,
    Grid,
    PolicyBlock,
    Pool,
    PooledScore,
    load_document,
    require_tables,
    write_document,
)
from bmd_pipeline.reporting.figures import plot_grid, save_figure
from bmd_pipeline.reporting.narrative import describe_grid
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluations import (
    Evaluated,
    hash_policy_settings,
    load_evaluated,
    make_evidence_head,
    make_head,
    make_rng,
    require_one_origin,
    require_settings,
    resample,
)

# ---- Stage `grid`: results/<Task>/grid.json, scores in every cell ----


def grid(config: RunConfig, *, layout: Layout, output: Path, reporter: Reporter) -> None:
    """Gathers the runs of a grid: those of the cells, methods and seeds that `config.grid` says.

    Writes grid.json (`output`) and a picture of its name beside it.

    Raises:
        ArtifactError: a run is missing or damaged, or was trained or evaluated under other settings.
    """
    task, methods = config.task.name, grid_methods(config)
    cells, axis = list_cells(config), _find_axis(config)
    folders = [layout.finetuned(task, folder, seed) for folder, seed in list_evaluations(config, "grid")]
    start = RunStart(reporter.warn, *(folder / name for folder in folders for name in (EVAL_FILE, RUN_FILE)))
    if axis is not None:
        cells.sort(key=lambda cell: float(cell.changes[axis] or 0.0))
    runs = {
        (cell.name, method): [_load_run(config, cell, method, seed, layout) for seed in grid_seeds(config)]
        for cell in cells
        for method in methods
    }
    require_one_origin([part for row in runs.values() for part in row], share_modes=False)
    sample = resample(config, {"/".join(key): row for key, row in runs.items()})
    inputs = {
        str(file.relative_to(layout.summary(task).parent)): file
        for row in runs.values()
        for evaluated in row
        for file in (evaluated.path, evaluated.path.with_name(RUN_FILE))
    }
    document = Grid(
        **make_evidence_head(config, "grid", sample, inputs, start),
        axis=axis,
        cells=[
            Cell(
                name=cell.name,
                changes=cell.changes,
                methods={
                    method: CellScores(
                        folder=cell.folder(method),
                        metrics=score_seeds(sample.scores[key], sample.resampled[key], config.evaluate.confidence),
                    )
                    for method, key in ((method, f"{cell.name}/{method}") for method in methods)
                },
            )
            for cell in cells
        ],
    )
    output.unlink(missing_ok=True)  # an old grid.json must not vouch for a new picture
    save_figure(plot_grid(document), output.with_suffix(""))
    write_document(output, document)
    for sentence in describe_grid(document):
        reporter.log(sentence)


def _load_run(config: RunConfig, cell: GridCell, method: str, seed: int, layout: Layout) -> Evaluated:
    """Reads one run and checks that it was trained and evaluated as the settings say."""
    task = config.task.name
    folder = layout.finetuned(task, cell.folder(method), seed)
    again = f"snakemake --cores 2 {layout.grid(task)}"
    evaluated = load_evaluated(cell.config, folder / EVAL_FILE, wanted=(method, seed), again=again)
    record = require_run(folder, "finetune", task, method=method, seed=seed, command=again)
    expected = stage_hash(cell.config, "finetune", method)
    require_settings(record.get("config_hash"), expected, folder / RUN_FILE, "trained", again)
    if evaluated.find_input("finetuned") not in (None, hash_file(folder / RUN_FILE)):
        raise ArtifactError(f"{evaluated.path}: not of the policy in {folder}; delete it and run `{again}`")
    return evaluated


def _find_axis(config: RunConfig) -> str | None:
    """The one setting that takes several values, if these are numbers; others are the same in every cell."""
    varied = [name for name, values in config.grid.axes.items() if len(values) > 1]
    numbers = len(varied) == 1 and all(type(value) in (int, float) for value in config.grid.axes[varied[0]])
    return varied[0] if numbers else None


# ---- Stage `pool`: results/<Task>/pool.json, every policy's scores over base policies ----


def pool(config: RunConfig, *, layout: Layout, output: Path, reporter: Reporter) -> None:
    """Pools the results of every base policy: those of the `methods`, `seeds` and `pool.bases` of the run.

    Raises:
        ArtifactError: an eval.json is missing or damaged, lacks a policy or seed, or was made under other settings.
    """
    runs = {base: configure_base(config, base) for base in config.pool.bases}
    paths = {base: layout.summary(run.task.name) for base, run in runs.items()}
    start = RunStart(reporter.warn, *paths.values())
    documents, rows = zip(*(_load_base(run, paths[base]) for base, run in runs.items()), strict=True)
    taught = all(TAUGHT in document.policies for document in documents)
    policies = (PRETRAINED, *((TAUGHT,) if taught else ()), *config.methods)
    blocks = {policy: [document.policies[policy] for document in documents] for policy in policies}
    episodes = {policy: [row[policy] for row in rows] for policy in policies}
    first = blocks[PRETRAINED][0]
    for path, block in zip(paths.values(), blocks[PRETRAINED], strict=True):
        if (block.labelling, _modes(block)) != (first.labelling, _modes(first)):
            raise ArtifactError(f"{path}: its modes are not those of {paths[config.pool.bases[0]]}; evaluate again")
    confidence, rng = config.evaluate.confidence, make_rng(config, "pool")
    pairs = [(policy, PRETRAINED) for policy in policies if policy != PRETRAINED] + list_pairs(config.methods)
    document = Pool(
        **make_head(config, "pool", {run.task.name: paths[base] for base, run in runs.items()}, start),
        alpha=config.evaluate.alpha,
        labelling=first.labelling,
        modes=_modes(first),
        tau=first.solved.tau,
        seeds=list(config.seeds),
        episodes_per_seed=first.seeds[0].episodes,
        bases=list(config.pool.bases),
        policies={policy: pool_scores(rows, confidence) for policy, rows in blocks.items()},
        pairs=[pool_pair(blocks, episodes, one, other, confidence, rng) for one, other in pairs],
        smallest_p=smallest_p(len(runs)),
    )
    write_document(output, document)
    for policy, scores in document.policies.items():
        reporter.log(f"{policy}: {_describe_scores(scores, len(document.modes))}")


def _load_base(config: RunConfig, path: Path) -> tuple[Evaluation, dict[str, list[Episodes]]]:
    """The results on one base policy, if they are those that the settings ask for, and the episodes beside them by
    policy, seeds in rising order."""
    again = f"snakemake --cores 2 {path}"
    document = load_document(path, Evaluation, config.task.name)
    taught = (TAUGHT,) if TAUGHT in document.policies else ()
    for policy in (PRETRAINED, *taught, *config.methods):
        block = document.policies.get(policy)
        if block is None:
            raise ArtifactError(f"{path}: holds no {policy}; run `{again}`")
        expected = hash_policy_settings(config, policy)
        require_settings(block.config_hash, expected, path, f"{policy} was evaluated", again)
        found = [row.seed for row in block.seeds]
        if sorted(found) != sorted(config.seeds):
            raise ArtifactError(f"{path}: {policy} has seeds {found}, not {list(config.seeds)}; run `{again}`")
    table = path.with_name(EPISODES_FILE)
    parts = sorted(load_episodes(table), key=lambda part: part.seed)
    rows = {(policy, row.seed, row.episodes) for policy, block in document.policies.items() for row in block.seeds}
    if rows != {(part.policy, part.seed, len(part)) for part in parts}:
        raise ArtifactError(f"{table}: not the episodes of {path}; run `{again}`")
    require_tables(document, path, EPISODES_FILE)
    return document, {policy: [part for part in parts if part.policy == policy] for policy in document.policies}


def _modes(block: PolicyBlock) -> list[str]:
    return [row.mode for row in block.per_mode]


def _describe_scores(scores: dict[str, PooledScore], total_modes: int) -> str:
    """A policy's scores for people: success and modes, each base policy in brackets."""
    success, present, solved, entropy, obeyed, worst = (
        scores[name] for name in ("success_rate", "present", "solved", "mode_entropy", "obeyed", "obeyed_worst")
    )
    values = ", ".join(f"{value:.3f}" for value in success.bases)
    by_base = ", ".join(f"{value:.3g}" for value in solved.bases)
    return (
        f"success {success.mean.value:.3f} [{success.mean.low:.3f}, {success.mean.high:.3f}] ({values}), "
        f"present {present.mean.value:.3g}, solved {solved.mean.value:.3g} ({by_base}) of {total_modes} modes, "
        f"entropy {entropy.mean.value:.2f} nats, obeyed {obeyed.mean.value:.3f} (worst {worst.mean.value:.3f})"
    )
