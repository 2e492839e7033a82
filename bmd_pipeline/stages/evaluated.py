"""Reading the evaluation of one policy and seed, and whether it is the one that is wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.metrics.episodes import Episodes, load_episodes
from bmd_pipeline.metrics.schemas import Evaluation, load_document
from bmd_pipeline.stages.eval_document import EPISODES_FILE, hash_policy_settings


@dataclass(frozen=True)
class Evaluated:
    """One policy and seed as it was evaluated.

    Attributes:
        path: its eval.json.
        episodes: the rows beside it, with the behaviours of the codes.
    """

    path: Path
    episodes: Episodes

    @property
    def name(self) -> str:
        """Policy and seed."""
        return f"{self.episodes.policy}/seed{self.episodes.seed}"


def load_evaluated(
    config: RunConfig, path: Path, *, wanted: tuple[str, int] | None = None, again: str | None = None
) -> Evaluated:
    """Reads one evaluation and checks that it belongs here.

    Args:
        config: the run; for a point of a sweep, the run at this point.
        path: the eval.json.
        wanted: policy and seed that it must hold; None takes any.
        again: command that makes it, for messages; `bmd-pipeline evaluate` if None.

    Raises:
        ArtifactError: a file is missing or damaged, or is of another task, policy or seed, or other settings.
    """
    document = load_document(path, Evaluation)
    task = config.task.name
    if document.task != task:
        raise ArtifactError(f"{path}: evaluation of task {document.task}, not of {task}")
    if len(document.policies) != 1:
        raise ArtifactError(f"{path}: must hold one policy, holds {', '.join(document.policies)}")
    ((policy, block),) = document.policies.items()
    seed = block.seeds[0].seed
    if wanted is not None and wanted != (policy, seed):
        raise ArtifactError(f"{path}: holds {policy}/seed{seed}, not {wanted[0]}/seed{wanted[1]}")
    again = again or f"bmd-pipeline evaluate --task {task} --method {policy} --seed {seed}"
    if block.config_hash != hash_policy_settings(config, policy):
        raise ArtifactError(f"{path}: evaluated under other settings than the present ones; run `{again}`")
    parts = load_episodes(path.with_name(EPISODES_FILE))
    found = [(part.policy, part.seed, len(part)) for part in parts]
    labellings = {name: labelling.modes for name, labelling in parts[0].labellings.items()} if parts else {}
    told = {block.labelling: block, **block.labellings}
    modes = {name: tuple(row.mode for row in labelling.per_mode) for name, labelling in told.items()}
    if found != [(policy, seed, block.seeds[0].episodes)] or labellings != modes:
        raise ArtifactError(f"{path.with_name(EPISODES_FILE)}: not the episodes of {path}; run `{again}`")
    behaviours = {name: tuple(row.behaviour for row in labelling.codes) for name, labelling in told.items()}
    if parts[0].num_codes > 1 and any(len(row) != parts[0].num_codes for row in behaviours.values()):
        raise ArtifactError(f"{path}: must hold a row for each of {parts[0].num_codes} codes; run `{again}`")
    return Evaluated(path, replace(parts[0], behaviours=behaviours))
