"""Stage `film`: a clip of each mode, for people."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bmd_pipeline.config.hashing import Stage, stage_hash, stage_slice
from bmd_pipeline.config.schema import EXPERT, RunConfig
from bmd_pipeline.errors import ArtifactError, TrainingError
from bmd_pipeline.io.files import naming, read_json, write_bytes, write_json
from bmd_pipeline.io.provenance import describe_run
from bmd_pipeline.reporting.clips import Strip, draw_strips
from bmd_pipeline.reporting.sources import MAX_VIDEO_BYTES
from bmd_pipeline.rl.agent import load_agent, remove_steering
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluate import require_inputs
from bmd_pipeline.stages.shooting import shoot_clip, shoot_stills
from bmd_pipeline.stages.takes import AgentPlayer, ExpertPlayer, Missed, Player, Take
from bmd_pipeline.tasks import registry

CLIP_BYTES = 600_000
"""Size of a clip at most; where there are many, all of them together stay within what a page carries."""
FEW = 6
"""Clips up to which the picture of all shows several moments of each."""
MOMENTS, END = (0.35, 0.7, 1.0), (1.0,)
"""Shares of an episode at which it is shown there."""
FEW_LOOK, MANY_LOOK = (2, 176), (6, 160)
"""Episodes side by side there, and pixels of a still's side."""


def film(
    config: RunConfig,
    *,
    output: Path,
    method: str = EXPERT,
    seed: int = 0,
    policy: Path | None = None,
    modes: Path | None = None,
    tuned: Path | None = None,
    episodes: int = 1,
    size: int = 320,
    reporter: Reporter,
) -> None:
    """Plays episodes until each mode succeeded, and writes a clip of each, a picture of all, and a document about them.

    Clips are `<who>-<mode>.gif` (with mode codes `<who>-code<z>-<mode>.gif`), the picture is `<who>.webp`, where `who`
    is the document's name. Clips that an earlier document of that name lists and that are not made again are removed.

    Args:
        config: the run.
        output: the document to write, last; the rest goes beside it.
        method: "expert", "pretrained", "taught" or a fine-tuning method.
        seed: the policy's seed.
        policy: folder of the pre-trained policy; not for the expert.
        modes: folder of the discovered modes, for policies with codes.
        tuned: folder of the fine-tuned policy; None before fine-tuning.
        episodes: clips of each mode, or of each mode code.
        size: pixels of a clip's side.
        reporter: where progress goes.

    Raises:
        TaskError: the task can't be filmed, or nothing on this machine renders; nothing is played or written then.
        ArtifactError: a folder is missing, damaged or made for something else.
        TrainingError: no episode succeeded.
    """
    started = time.time()
    task = config.task.name
    filming = registry.load_filming(task)
    filming.require_renderer()
    inputs: dict[str, Path] = {}
    player: Player
    if method == EXPERT:
        player = ExpertPlayer(config, filming)
    else:
        if policy is None:
            raise ArtifactError(f"filming {method} needs the output of `bmd-pipeline pretrain --task {task}`")
        inputs = require_inputs(task, method, policy, modes, tuned)
        agent = load_agent(policy, modes, tuned, method, task=task)
        if not config.evaluate.steering:
            agent = remove_steering(agent)
        player = AgentPlayer(config, filming, agent, seed)
    clips: dict[str, dict[str, Any]] = {}
    strips: list[Strip] = []
    count = episodes * len(player.roles)
    moments = MOMENTS if count <= FEW else END
    max_bytes = min(CLIP_BYTES, MAX_VIDEO_BYTES // count)
    hertz = registry.make_spec(task, config.task.env).control_hz
    with (
        closing(player),
        closing(filming.make_studio(size)) as studio,
        reporter.progress(f"film {output.stem}", count) as bar,
    ):
        for take in player.play(episodes):
            if isinstance(take, Missed):
                reporter.log(f"{take.role}: no success in {take.attempts} episodes, no clip")
                continue
            path = _name_clip(output, take, clips)
            clip = shoot_clip(take.recording, studio, hertz, max_bytes)
            write_bytes(path, clip)
            clips[path.name] = _describe(take, clip)
            caption = path.stem.removeprefix(f"{output.stem}-")
            strips.append(shoot_stills(take.recording, studio, filming.camera, caption=caption, moments=moments))
            bar.advance()
    if not clips:
        raise TrainingError(f"{task}: no episode of {output.stem} succeeded, so there is nothing to show")
    write_bytes(output.with_suffix(".webp"), draw_strips(strips, *(FEW_LOOK if count <= FEW else MANY_LOOK)))
    _remove_old(output, clips)
    depends_on: Stage = "collect" if method == EXPERT else "evaluate"
    document = describe_run(
        stage="film",
        task=task,
        config=stage_slice(config, depends_on),
        config_hash=stage_hash(config, depends_on),
        seed=seed,
        inputs=inputs,
        started=started,
        extra={"method": method, "clips": clips},
    )
    write_json(output, document)
    total = sum(clip["bytes"] for clip in clips.values())
    reporter.log(f"{output.parent}: {len(clips)} clips of {output.stem}, {total / 1e6:.1f} MB")


def _name_clip(output: Path, take: Take, taken: Mapping[str, object]) -> Path:
    """Where the clip of a take goes; those after the first of their kind are numbered."""
    parts = [output.stem, take.role, *([take.mode] if take.role.startswith("code") else [])]
    stem, number = "-".join(parts), 1
    while (name := f"{stem}{f'-{number}' if number > 1 else ''}.gif") in taken:
        number += 1
    return output.with_name(name)


def _describe(take: Take, clip: bytes) -> dict[str, Any]:
    return {
        "role": take.role,
        "mode": take.mode,
        "seed": take.seed,
        "steps": take.recording.length,
        "attempts": take.attempts,
        "bytes": len(clip),
        "sha256": hashlib.sha256(clip).hexdigest(),
    }


def _remove_old(output: Path, made: Mapping[str, object]) -> None:
    """Removes the clips that the present document lists and that were not made again."""
    try:
        listed = read_json(output, "film").get("clips", {})
    except ArtifactError:  # there is none, or nobody knows what it lists
        return
    with naming(output.parent):
        for name in set(listed) - set(made):
            if Path(name).name == name and name.endswith(".gif"):  # nothing but a clip beside it
                output.with_name(name).unlink(missing_ok=True)
