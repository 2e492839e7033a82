"""Which evaluations a stage reads: one list for Snakemake's rules and the commands."""

from bmd_pipeline.config.overrides import list_cells
from bmd_pipeline.config.schema import RunConfig, compared_policies, grid_methods, grid_seeds, paired_methods


def list_evaluations(config: RunConfig, stage: str) -> list[tuple[str, int]]:
    """Folder below results/<Task> and seed of every evaluation that `summarise`, `compare`, `verdict` or `grid` reads.

    A ConfigError says that a verdict has no pair of methods, or a grid no axes.
    """
    if stage == "grid":
        folders = [cell.folder(method) for cell in list_cells(config) for method in grid_methods(config)]
        return [(folder, seed) for folder in folders for seed in grid_seeds(config)]
    paired = stage == "verdict"
    policies = paired_methods(config.methods) if paired else compared_policies(config.methods, config.discover.form)
    return [(policy, seed) for policy in policies for seed in config.seeds]
