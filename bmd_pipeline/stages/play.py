"""Stage `play`: a clip of each mode, for people."""

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bmd_pipeline.config.hashing import Stage
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.environments.base import LARGEST, ModeLabelling, TaskEnv, VectorTask, from_bounds
from bmd_pipeline.environments.wrappers import DisturbedEnv
from bmd_pipeline.errors import ArtifactError, ConfigError, TaskError, TrainingError
from bmd_pipeline.io.files import MAX_NAME_BYTES, convert_os_errors, hash_file, read_json, write_bytes, write_json
from bmd_pipeline.io.layout import RUN_FILE
from bmd_pipeline.io.provenance import RunStart, require_run
from bmd_pipeline.methods import EXPERT
from bmd_pipeline.reporting.clips import Strip, draw_path, draw_strips, encode_gif
from bmd_pipeline.reporting.sources import MAX_VIDEO_BYTES
from bmd_pipeline.rl.agent import Agent
from bmd_pipeline.rl.rollout import Warn, roll_out
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.sim.render import Camera, EpisodeRecorder, Filming, Recording, Renderer, find_task
from bmd_pipeline.stages.checkpoints import describe_stage
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluate import load_player, require_inputs
from bmd_pipeline.stages.runtime import disturb, require_action
from bmd_pipeline.tasks import registry

# ---- Playing the episodes: by an expert, or by a policy ----

ATTEMPTS = 20
"""Episodes that are played for each one that is shown, at most: only successes are."""


@dataclass(frozen=True)
class Clip:
    """One episode that succeeded, and is shown."""

    target: str  # what it was played for: a behaviour, a mode, or a mode code
    mode: str  # its true mode, by the task's main labelling
    seed: int  # what the task was reset with
    attempts: int  # episodes that were played for it since the one before, itself included
    recording: Recording


@dataclass(frozen=True)
class Player:
    """Who plays, and what for."""

    groups: Sequence[tuple[str, ...]]  # targets to play for; one episode can serve any target of its group
    labelling: ModeLabelling  # the task's true modes
    recorder: EpisodeRecorder  # holds the last episode
    make_seed: Callable[[int, int], int]  # (index of the group, number of the attempt) -> seed of the task's reset
    try_episode: Callable[[int, int], bool]  # (index of the group, seed) -> whether the episode succeeded

    def play(self, episodes: int, log: Callable[[str], None]) -> Iterator[Clip]:
        """Plays for one group after the other, until `episodes` succeeded for each target; logs where too few do."""
        for index, group in enumerate(self.groups):
            found, since = dict.fromkeys(group, 0), dict.fromkeys(group, 0)
            for attempt in range(ATTEMPTS * episodes * len(group)):
                seed = self.make_seed(index, attempt)
                since = {target: count + 1 for target, count in since.items()}
                if not self.try_episode(index, seed):
                    continue
                mode = find_mode(self.labelling, self.recorder.recording)
                target = group[0] if len(group) == 1 else mode
                if found[target] == episodes:
                    continue
                yield Clip(target, mode, seed, since[target], self.recorder.recording)
                found[target], since[target] = found[target] + 1, 0
                if min(found.values()) == episodes:
                    break
            for target in group:
                if found[target] < episodes:
                    log(f"{target}: no success in {since[target]} episodes, no clip")


@contextmanager
def open_expert_player(config: RunConfig, filming: Filming) -> Iterator[Player]:
    """The task's expert, which plays for its behaviours.

    Seeds are those of the attempts that `collect` makes, in their order, so what is seen are demonstrations.
    """
    task = config.task
    with closing(registry.make_expert(task.name, task.env)) as expert:
        yield Player(
            groups=[(behaviour,) for behaviour in expert.behaviours],
            labelling=registry.load_labellings(task.name)[0],
            recorder=EpisodeRecorder(find_task(expert), filming),
            make_seed=lambda index, attempt: derive_seed(config.seed, "collect", expert.behaviours[index], attempt),
            try_episode=lambda index, seed: expert.demonstrate(index, seed).success,
        )


Try = Callable[[TaskEnv, int, int], bool]
"""Plays an episode in an environment under a code from a seed, and says whether it succeeded."""


@contextmanager
def open_agent_player(config: RunConfig, filming: Filming, agent: Agent, seed: int, warn: Warn) -> Iterator[Player]:
    """A policy on the CPU, which plays for its mode codes; without codes for the task's modes, as it takes them.

    Episodes start from seeds of the family `evaluate`, which no training stage uses. `warn` is that of `roll_out`.

    Raises:
        TaskError: the task is not stepped in this process.
        ConfigError: the disturbance locks an action that the task does not have.
    """
    generator = make_generator(config.seed, "evaluate", "clips", seed)

    def try_code(world: TaskEnv, code: int, start: int) -> bool:
        codes = torch.tensor([code])
        played = roll_out(world, agent, seed=start, code=codes, generator=generator, explore=False, warn=warn)
        return bool(played.success[0])

    def enter(env: TaskEnv) -> TaskEnv:
        return disturb(env, config.task, agent.policy)

    codes = None if agent.modes is None else agent.num_codes
    with _open_player(config, filming, seed, codes, enter, try_code) as player:
        yield player


@contextmanager
def open_export_player(config: RunConfig, filming: Filming, folder: Path, seed: int) -> Iterator[Player]:
    """An export, which plays as on a robot and for what the policy that it is of would play; see `open_agent_player`.

    Raises:
        ArtifactError: a file of it is missing or damaged.
        TaskError: onnxruntime is not installed, or, while it plays, the task shows what the export refuses.
        ConfigError: observations are disturbed, in a unit that an export doesn't know.
    """
    if find_spec("onnxruntime") is None:
        raise TaskError('an export needs onnxruntime: pip install "bmd-pipeline[export]"')
    from bmd_pipeline.export.run_policy import Policy, PolicyError

    task = config.task
    world, spec = registry.load_disturbance(task.env), registry.make_spec(task.name, task.env)
    if world.obs_noise:
        raise ConfigError("task.env.disturbance.obs_noise has a unit that no export knows: play its --method instead")
    try:
        robot = Policy(folder, seed)
    except PolicyError as error:
        raise ArtifactError(str(error)) from None
    low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)

    def try_code(env: TaskEnv, code: int, start: int) -> bool:
        robot.reset(code if robot.facts["modes"] else None)
        obs = env.reset(start)[0]
        for step in range(spec.horizon):
            try:
                answer = robot.act(obs.numpy())
            except PolicyError as error:
                raise TaskError(f"{task.name}: {error} (step {step}, seed {start}), as {folder} says") from None
            action = from_bounds(torch.from_numpy(answer), low, high)
            moved = env.step_chunk(action[None, None])
            shown = {"observation": moved.obs_path, "track": moved.track_path, "reward": moved.reward[..., None]}
            for what, values in shown.items():
                for *_, column in (~(values.abs() <= LARGEST)).nonzero()[:1].tolist():
                    raise TaskError(
                        f"{task.name}: {what} column {column} is not finite or beyond {LARGEST:g} (step {step + 1}, "
                        f"seed {start}): correct the task, `bmd-pipeline check-task {task.name}` helps"
                    )
            if bool(moved.done[0]):
                return bool(moved.success[0])
            obs = moved.obs_path[-1, 0]
        return False

    def enter(env: TaskEnv) -> TaskEnv:
        return DisturbedEnv(env, world, torch.zeros(spec.obs_dim))

    codes = len(robot.facts["modes"]) or None
    with _open_player(config, filming, seed, codes, enter, try_code) as player:
        yield player


@contextmanager
def _open_player(
    config: RunConfig,
    filming: Filming,
    seed: int,
    codes: int | None,
    enter: Callable[[TaskEnv], TaskEnv],
    try_code: Try,
) -> Iterator[Player]:
    """Who plays for each of so many codes, or without codes for the task's modes, in the world that `enter` makes."""
    task = config.task
    labelling = registry.load_labellings(task.name)[0]
    require_action(registry.make_spec(task.name, task.env), task.env, "task.env")
    with closing(registry.make_env(task.name, task.env, 1)) as env:
        if not isinstance(env, VectorTask):
            raise TaskError(f"{task.name} can't be filmed: it is not stepped in this process")
        recorder = EpisodeRecorder(env, filming)
        world = enter(env)
        yield Player(
            groups=[labelling.modes] if codes is None else [(f"code{z}",) for z in range(codes)],
            labelling=labelling,
            recorder=recorder,
            make_seed=lambda _, attempt: derive_seed(config.seed, "evaluate", seed, attempt),
            try_episode=lambda code, start: try_code(world, code, start),
        )


def find_mode(labelling: ModeLabelling, recording: Recording) -> str:
    """True mode of an episode that succeeded."""
    weights = labelling.label(recording.track, torch.tensor([recording.length]), torch.tensor([True]))
    return labelling.modes[int(weights[0].argmax())]


# ---- From a recorded episode to a clip of it, and to stills ----

MAX_FRAMES = 60
MAX_FRAME_MS = 100
"""Most frames of a clip, and longest time of a frame in ms: long episodes are thinned out and play faster than in
reality."""


def render_clip(
    recording: Recording, renderer: Renderer, camera: Camera, *, control_hz: float | None, max_bytes: int
) -> bytes:
    """A GIF of an episode with the path so far, of at most `max_bytes` where it can be made so small.

    The camera is the renderer's; `control_hz` is None for tasks without a clock.
    """
    places = camera.project(np.array(recording.places))
    every = math.ceil((recording.length + 1) / MAX_FRAMES)
    steps = [*range(0, recording.length, every), recording.length]
    frames = [draw_path(renderer.render(recording.arrangements[step]), places[: step + 1]) for step in steps]
    step_ms = 1000.0 / control_hz if control_hz else MAX_FRAME_MS
    return encode_gif(frames, round(min(every * step_ms, MAX_FRAME_MS)), max_bytes)


def render_stills(
    recording: Recording, renderer: Renderer, camera: Camera, *, caption: str, moments: Sequence[float]
) -> Strip:
    """Stills of an episode under a caption, at moments in shares of the episode; the camera is the renderer's."""
    places = camera.project(np.array(recording.places))
    steps = [round(moment * recording.length) for moment in moments]
    stills = [renderer.render(recording.arrangements[step]) for step in steps]
    return Strip(caption, stills, [places[: step + 1] for step in steps])


# ---- Stage `play`: a clip of each mode, for people ----

CLIP_BYTES = 600_000
"""Most bytes of a clip; with many clips, MAX_VIDEO_BYTES is shared among them."""
FEW = 6
"""Clips up to which the picture of all shows several moments of each."""
MOMENTS, END = (0.35, 0.7, 1.0), (1.0,)
"""Shares of an episode at which it is shown there."""
FEW_STRIPS, MANY_STRIPS = (2, 176), (6, 160)
"""(Episodes side by side, pixels of a still's side) in that picture, for few and for many clips."""


def play(
    config: RunConfig,
    *,
    output: Path,
    method: str = EXPERT,
    seed: int | None = None,
    policy: Path | None = None,
    modes: Path | None = None,
    finetuned: Path | None = None,
    exported: Path | None = None,
    episodes: int = 1,
    size: int = 320,
    reporter: Reporter,
) -> None:
    """Plays episodes until each mode succeeded, and writes a clip of each, a picture of all, and a document about them.

    Clips are `<who>-<mode>.gif` (with mode codes `<who>-code<z>-<mode>.gif`), the picture is `<who>.webp`, where `who`
    is the document's name. Clips that an earlier document of that name lists and that are not made again are removed.

    Args:
        output: the document to write, last; the rest goes beside it.
        method: "expert", which needs no folders, "pretrained", "taught" or a fine-tuning method.
        seed: the policy's, 0 if None; the expert plays from the run's own.
        exported: folder of an export of the method and seed, which plays in the place of the other folders.
        episodes: clips of each mode, or of each mode code.
        size: pixels of a clip's side.

    Raises:
        TaskError: the task can't be filmed, or nothing on this machine renders; nothing is played or written then.
        ArtifactError: a folder is missing, damaged or made for something else, or names of clips would be too long.
        TrainingError: no episode succeeded.
    """
    task = config.task.name
    filming = registry.load_filming(task)
    filming.require_renderer()
    inputs: dict[str, Path] = {}
    if method == EXPERT:
        seed, opened, start = config.seed, open_expert_player(config, filming), RunStart(reporter.warn)
    elif exported is not None:
        seed = seed or 0
        inputs = {"exported": exported / RUN_FILE}
        start = RunStart(reporter.warn, *inputs.values())
        require_run(exported, "export", task, method=method, seed=seed)
        opened = open_export_player(config, filming, exported, seed)
    else:
        assert policy is not None  # the command has asked for it
        seed = seed or 0
        inputs, start = require_inputs(task, method, seed, policy, modes, finetuned, reporter.warn)
        agent = load_player(config, policy, modes, finetuned, method)
        opened = open_agent_player(config, filming, agent, seed, reporter.warn)
    clips: dict[str, dict[str, Any]] = {}
    strips: list[Strip] = []
    hertz = registry.make_spec(task, config.task.env).control_hz
    with opened as player, closing(filming.make_renderer(size)) as renderer:
        _require_short_names(output, player, episodes)
        count = episodes * sum(map(len, player.groups))
        moments = MOMENTS if count <= FEW else END
        max_bytes = min(CLIP_BYTES, MAX_VIDEO_BYTES // count)
        with reporter.progress(f"play {output.stem}", count) as bar:
            for clip in player.play(episodes, reporter.log):
                path = _name_clip(output, clip, clips)
                gif = render_clip(clip.recording, renderer, filming.camera, control_hz=hertz, max_bytes=max_bytes)
                write_bytes(path, gif)
                clips[path.name] = {
                    "target": clip.target,
                    "mode": clip.mode,
                    "seed": clip.seed,
                    "steps": clip.recording.length,
                    "attempts": clip.attempts,
                    "bytes": len(gif),
                    "sha256": hashlib.sha256(gif).hexdigest(),
                }
                caption = path.stem.removeprefix(f"{output.stem}-")
                strips.append(render_stills(clip.recording, renderer, filming.camera, caption=caption, moments=moments))
                bar.advance()
    if not clips:
        raise TrainingError(f"{task}: no episode of {output.stem} succeeded, so there is nothing to show")
    write_bytes(output.with_suffix(".webp"), draw_strips(strips, *(FEW_STRIPS if count <= FEW else MANY_STRIPS)))
    _remove_old(output, clips)
    depends_on: Stage = "collect" if method == EXPERT else "evaluate"
    document = describe_stage(config, depends_on, inputs=inputs, start=start, seed=seed)
    write_json(output, document | {"stage": "play", "method": method, "clips": clips})
    total = sum(clip["bytes"] for clip in clips.values())
    reporter.log(f"{output.parent}: {len(clips)} clips of {output.stem}, {total / 1e6:.1f} MB")


def _name_clip(output: Path, clip: Clip, taken: Mapping[str, object]) -> Path:
    """Where a clip goes; those after the first of their kind are numbered."""
    stem, number = _name_kind(output, clip.target, clip.mode), 1
    while (name := f"{stem}{f'-{number}' if number > 1 else ''}.gif") in taken:
        number += 1
    return output.with_name(name)


def _name_kind(output: Path, target: str, mode: str) -> str:
    """What the names of all clips of a kind begin with."""
    return "-".join([output.stem, target, *([mode] if target.startswith("code") else [])])


def _require_short_names(output: Path, player: Player, episodes: int) -> None:
    """Raises `ArtifactError` if a clip, once it is played, could not be called as it has to be."""
    targets = [target for group in player.groups for target in group]
    for target, mode in itertools.product(targets, player.labelling.modes):
        name = f"{_name_kind(output, target, mode)}-{episodes}.gif"
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            raise ArtifactError(
                f"{output} can't be written: {name} beside it would have more than {MAX_NAME_BYTES} bytes; shorten it"
            )


def _remove_old(output: Path, made: Mapping[str, object]) -> None:
    """Removes the clips that the present document lists and that were not made again."""
    try:
        listed = {name: clip.get("sha256") for name, clip in read_json(output, "play").get("clips", {}).items()}
    except (ArtifactError, AttributeError):  # there is none, or nobody knows what it lists
        return
    with convert_os_errors(output.parent):
        for name in set(listed) - set(made):
            clip = output.with_name(name) if Path(name).name == name and name.endswith(".gif") else None
            if clip and clip.is_file() and hash_file(clip) == listed[name]:  # as it was made
                clip.unlink()
