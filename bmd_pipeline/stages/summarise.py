"""Stage `summarise`: results/<Task>/eval.json, all evaluated policies of a task side by side."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bmd_pipeline.config.schema import RunConfig, order_policies
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import write_bytes, write_json
from bmd_pipeline.metrics.episodes import Episodes, encode_episodes
from bmd_pipeline.metrics.summary import summarise_policy
from bmd_pipeline.reporting.figures import draw_success_modes, draw_trajectories
from bmd_pipeline.reporting.trajectories import PathBook, encode_paths, load_paths, merge_books
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.eval_document import (
    EPISODES_FILE,
    PATHS_FILE,
    PATHS_PICTURE,
    SUCCESS_PICTURE,
    describe_block,
    hash_policy_settings,
    make_bootstrap_generator,
    make_document,
)
from bmd_pipeline.stages.evaluated import Evaluated, load_evaluated


def summarise(
    config: RunConfig, *, evaluations: Sequence[Path], output: Path, reporter: Reporter | None = None
) -> None:
    """Merges the evaluations of single policies and seeds, and draws them side by side.

    Intervals are computed anew from the per-episode rows, over seeds and episodes.

    Args:
        config: the run.
        evaluations: eval.json of each policy and seed, with its tables beside it.
        output: the eval.json to write, last of all; tables and pictures go beside it.
        reporter: where the numbers are told, if anywhere.

    Raises:
        ArtifactError: a file is missing or damaged, is of another task or other settings, or repeats a seed.
    """
    started = time.time()
    parts = [_load(config, path) for path in evaluations]
    order = order_policies({part.episodes.policy for part in parts}, config.methods)
    parts.sort(key=lambda part: (order.index(part.episodes.policy), part.episodes.seed))
    for one, other in itertools.pairwise(parts):
        if one.evaluated.name == other.evaluated.name:
            paths = f"{one.evaluated.path} and {other.evaluated.path}"
            raise ArtifactError(f"{paths} both hold {one.evaluated.name}")
    blocks = {
        policy: summarise_policy(
            [part.episodes for part in parts if part.episodes.policy == policy],
            config_hash=hash_policy_settings(config, policy),
            tau=config.evaluate.tau,
            confidence=config.evaluate.confidence,
            rng=make_bootstrap_generator(config),
        )
        for policy in dict.fromkeys(part.episodes.policy for part in parts)
    }
    document = make_document(
        config,
        blocks,
        inputs={part.evaluated.name: part.evaluated.path for part in parts},
        seed=config.seed,
        started=started,
    )
    book = merge_books([part.book for part in parts])
    output.unlink(missing_ok=True)  # an old eval.json must not vouch for new rows
    write_bytes(output.with_name(EPISODES_FILE), encode_episodes([part.episodes for part in parts]))
    write_bytes(output.with_name(PATHS_FILE), encode_paths(book))
    draw_trajectories(document, book, output.with_name(PATHS_PICTURE))
    draw_success_modes(document, output.with_name(SUCCESS_PICTURE))
    write_json(output, document.model_dump(mode="json"))
    if reporter is not None:
        for name, block in blocks.items():
            reporter.log(f"{name}: {describe_block(block)}")


@dataclass(frozen=True)
class _Part:
    """One policy and seed as it was evaluated, with its paths."""

    evaluated: Evaluated
    book: PathBook

    @property
    def episodes(self) -> Episodes:
        return self.evaluated.episodes


def _load(config: RunConfig, path: Path) -> _Part:
    return _Part(load_evaluated(config, path), load_paths(path.with_name(PATHS_FILE)))
