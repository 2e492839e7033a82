"""Stages `evaluate`, `summarise` and `curve`: policies play seeds that nothing before has seen."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.config.hashing import Stage
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.environments.base import ModeLabelling, TaskEnv
from bmd_pipeline.errors import ArtifactError, TaskError
from bmd_pipeline.io.files import write_bytes, write_json
from bmd_pipeline.io.layout import EPISODES_FILE, PATHS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.io.provenance import RunStart, require_run
from bmd_pipeline.methods import check_method, is_finetuned, order_policies, uses_modes
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights, concat_episodes, encode_episodes
from bmd_pipeline.metrics.schemas import Evaluation, require_tables, write_document
from bmd_pipeline.metrics.scores import SCORES, choose_behaviours, measure_deviations
from bmd_pipeline.modes.modes import resample_track
from bmd_pipeline.policies.external import BasePolicy
from bmd_pipeline.reporting.figures import plot_success_modes, plot_trajectories, save_figure
from bmd_pipeline.reporting.trajectories import NUM_POINTS, PathBook, PlanarPath, encode_paths, load_paths, merge_books
from bmd_pipeline.rl.agent import Agent, load_agent, remove_steering
from bmd_pipeline.rl.graphs import GraphRecorder, graph_agent
from bmd_pipeline.rl.rollout import Rollout, Warn, compute_information, play_rounds
from bmd_pipeline.seeds import Family, derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import lock_folder
from bmd_pipeline.stages.console import Progress, Reporter
from bmd_pipeline.stages.evaluations import (
    PATHS_PICTURE,
    SUCCESS_PICTURE,
    describe_block,
    hash_policy_settings,
    load_evaluated,
    make_block,
    make_document,
    make_head,
    require_one_origin,
)
from bmd_pipeline.stages.runtime import count_rounds, load_task_policy, open_env, prepare_device, require_action
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.registry import load_labellings

# ---- Episodes with their true modes: what evaluation is made of ----


def label_episodes(
    played: Rollout,
    information: Tensor | None,
    labellings: Sequence[ModeLabelling],
    method: str,
    seed: int,
    num_codes: int,
) -> Episodes:
    """Rows of a rollout's episodes under every labelling, for a policy of K = `num_codes` codes and its training seed.

    `information` (N,) is the mean log q(z|h) − log p(z) over each episode's states, in nats; None without codes.

    Raises:
        TaskError: a labelling breaks its contract.
    """
    episode_return = played.reward.sum(dim=0)
    information = torch.zeros_like(episode_return) if information is None else information
    return Episodes(
        policy=method,
        seed=seed,
        num_codes=num_codes,
        code=played.code.cpu().numpy().astype(np.int64),
        success=played.success.cpu().numpy().astype(np.bool_),
        length=played.length.cpu().numpy().astype(np.int64),
        episode_return=episode_return.cpu().numpy().astype(np.float64),
        information=information.cpu().numpy().astype(np.float64),
        deviation=np.zeros(len(information)),  # measured where the paths of all episodes are at hand
        labellings={labelling.name: _label_modes(labelling, played) for labelling in labellings},
    )


def _label_modes(labelling: ModeLabelling, played: Rollout) -> ModeWeights:
    raw = labelling.label(played.track, played.length, played.success).double().cpu().numpy()
    sums = raw.sum(axis=1)
    if not (np.all(raw >= 0) and np.allclose(sums, 1.0, atol=1e-4)):
        worst = int(np.argmax(np.abs(sums - 1.0)))
        raise TaskError(
            f"labelling {labelling.name!r}: weights must be >= 0 with rows that sum to 1, "
            f"got {raw[worst].tolist()} for episode {worst}"
        )
    return ModeWeights(tuple(labelling.modes), raw / sums[:, None])


Purpose = tuple[Family, *tuple[str | int, ...]]
"""What the initial states of episodes, or the draws of an agent, are derived from."""


@dataclass(frozen=True)
class _Examiner:
    """Plays policies as deployed, and labels their episodes with their true modes."""

    config: RunConfig
    env: TaskEnv
    labellings: Sequence[ModeLabelling]
    method: str
    seed: int
    warn: Warn

    def examine(
        self, agent: Agent, starts: Purpose, noise: Purpose, reporter: Reporter | None = None
    ) -> tuple[Episodes, NDArray[np.float32]]:
        """Rows of as many episodes as are configured, and their planar paths (episodes, NUM_POINTS, 2).

        A policy with codes first plays selection seeds, which show the behaviour of each code. A reporter shows how far
        the episodes are that count.

        Raises:
            ArtifactError: the policy leads to numbers that are not finite.
            TaskError: a labelling breaks its contract, or what the task shows can't be used, as of `roll_out`.
        """
        settings = self.config.evaluate
        behaviours: dict[str, tuple[str | None, ...]] = {}
        if agent.num_codes > 1:
            select: Purpose = ("select", "behaviours", self.seed)
            shown, _ = self._play(agent, settings.selection_episodes, select, (*select, "noise"))
            behaviours = {labelling.name: choose_behaviours(shown, labelling.name) for labelling in self.labellings}
        with reporter.progress(f"evaluate {self.method}", settings.episodes) if reporter else nullcontext() as progress:
            episodes, paths = self._play(agent, settings.episodes, starts, noise, progress)
        return replace(episodes, behaviours=behaviours), paths

    def _play(
        self, agent: Agent, episodes: int, starts: Purpose, noise: Purpose, progress: Progress | None = None
    ) -> tuple[Episodes, NDArray[np.float32]]:
        env, root = self.env, self.config.seed
        columns = [env.spec.track_names.index(name) for name in env.spec.planar]
        # one episode in every environment a round; which of the last round are dropped does not depend on them
        seeds = [derive_seed(root, *starts, index) for index in range(count_rounds(episodes, env.num_envs))]
        draws = make_generator(root, *noise, device=env.device)
        parts, paths, dropped, reach = [], [], 0, np.zeros(env.spec.obs_dim)
        for index, played in enumerate(play_rounds(env, agent, seeds, draws, warn=self.warn)):
            kept = min(env.num_envs, episodes - index * env.num_envs)
            dropped += int(played.dropped[:kept].sum())
            reach = np.maximum(reach, played.reach[:kept].amax(dim=0).cpu().numpy())
            information = None if agent.modes is None else compute_information(agent.modes.inference, played)[0]
            part = label_episodes(played, information, self.labellings, self.method, self.seed, agent.num_codes)
            resampled = resample_track(played.track[:, :, columns], played.length, NUM_POINTS, keep_start=True)
            drawn = resampled.cpu().numpy().reshape(-1, NUM_POINTS, 2)
            if not all(np.isfinite(values).all() for values in (part.episode_return, part.information, drawn)):
                who = f"{self.method}, seed {self.seed}"
                raise ArtifactError(f"{who}: its weights lead to numbers that are not finite; train again")
            parts.append(part)
            paths.append(drawn)
            if progress is not None:
                progress.advance(kept, success=float(part.success.mean()))
        labelled, points = concat_episodes(parts, episodes), np.concatenate(paths)[:episodes]
        deviations = measure_deviations(points, labelled.success, labelled.labellings[self.labellings[0].name].weights)
        return replace(labelled, deviation=deviations, dropped=dropped, obs_reach=tuple(reach.tolist())), points


@contextmanager
def _open_examiner(
    config: RunConfig,
    policy: BasePolicy,
    method: str,
    seed: int,
    num_workers: int,
    device: torch.device,
    recorder: GraphRecorder | None,
    reporter: Reporter,
) -> Iterator[_Examiner]:
    """Opens the task for the evaluation of one method and training seed; `policy` is the pre-trained one."""
    num_envs = min(config.evaluate.num_envs, config.evaluate.episodes)
    task, world = config.task, config.evaluate.disturbance
    if world is not None:
        task = task.model_copy(update={"env": {**task.env, registry.DISTURBANCE: world.model_dump()}})
        require_action(registry.make_spec(task.name, task.env), task.env, "evaluate")
    opened = open_env(task, policy, num_envs, disturbed=True, device=device, num_workers=num_workers, recorder=recorder)
    with closing(opened) as env:
        yield _Examiner(config, env, load_labellings(config.task.name), method, seed, reporter.warn)


# ---- Stage `evaluate`: plays a policy on seeds that nothing before has seen, and writes eval.json ----


def evaluate(
    config: RunConfig,
    *,
    policy: Path,
    modes: Path | None,
    finetuned: Path | None,
    output: Path,
    method: str,
    seed: int,
    num_workers: int,
    reporter: Reporter,
) -> None:
    """Evaluates one policy and writes eval.json (`output`), with per-episode rows and a picture beside it.

    Initial states depend on the root seed and on `seed`, not on the method: methods of a task meet the same
    ones, so that their differences are not luck. A killed evaluation starts over.

    Policies with codes need modes. The method is "pretrained", "taught" or a fine-tuning method, which needs its
    fine-tuned policy.

    Raises:
        ConfigError: unknown method.
        ArtifactError: an input is missing, damaged or made for something else, or another job writes the same output.
        TaskError: a labelling breaks its contract.
        AlreadyWritten: a job that computes the same did, and has finished meanwhile.
    """
    inputs, start = require_inputs(config.task.name, method, seed, policy, modes, finetuned, reporter.warn)
    device, recorder, _ = prepare_device(config)
    agent = graph_agent(load_player(config, policy, modes, finetuned, method, device), recorder)
    identity: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "policy": hash_policy_settings(config, method),
        "inputs": {name: start.hashes[path] for name, path in inputs.items()},
    }
    with lock_folder(config, "evaluate", output.parent, reporter, **identity) as lock:
        opened = _open_examiner(config, agent.policy, method, seed, num_workers, device, recorder, reporter)
        with opened as examiner:
            episodes, paths = examiner.examine(agent, ("evaluate", seed), ("evaluate", "noise", seed), reporter)
        block = make_block(config, [episodes])
        axes, labelling = examiner.env.spec.planar_labels, examiner.labellings[0]
        book = _make_book(axes, labelling, episodes, paths[: config.evaluate.pictured_episodes])
        tables = _encode_tables([episodes], book)
        document = make_document(config, {method: block}, inputs, seed, start, tables, device)
        _write_evaluation(output, document, book, tables)
        lock.discard()
    reporter.log(f"{method}, seed {seed}: {describe_block(block)}")
    far = ", ".join(f"{distance:.2g}" for distance in episodes.obs_reach)
    reporter.log(f"farthest observation from the demonstrations' mean, by column, in standard deviations: {far}")
    if episodes.dropped:
        reporter.log(f"{episodes.dropped} of {len(episodes)} episodes showed unusable numbers and count as failed")


def require_inputs(
    task: str,
    method: str,
    seed: int,
    policy: Path,
    modes: Path | None,
    finetuned: Path | None,
    warn: Callable[[str], None],
) -> tuple[dict[str, Path], RunStart]:
    """Checks the folders that the method needs: finished, undamaged, of this task, method and seed.

    Returns their records by name, and what held before they were read; for `warn` see `RunStart`.
    """
    check_method(method, evaluating=True)
    needed: dict[str, tuple[Path | None, Stage, dict[str, Any]]] = {"policy": (policy, "pretrain", {})}
    if uses_modes(method):
        needed["modes"] = (modes, "discover", {"seed": seed})
    if is_finetuned(method):
        needed["finetuned"] = (finetuned, "finetune", {"method": method, "seed": seed})
    inputs = {}
    for name, (folder, stage, _) in needed.items():
        if folder is None:
            raise ArtifactError(f"evaluating {method} needs the output of `bmd-pipeline {stage} --task {task}`")
        inputs[name] = folder / RUN_FILE
    start = RunStart(warn, *inputs.values())
    for name, (_, stage, origin) in needed.items():
        require_run(inputs[name].parent, stage, task, **origin)
    return inputs, start


def load_player(
    config: RunConfig,
    policy: Path,
    modes: Path | None,
    finetuned: Path | None,
    method: str,
    device: torch.device | str = "cpu",
) -> Agent:
    """The agent of a method as `evaluate.steering` wants it, whose policy fits the run's task; see `load_agent`."""
    base = load_task_policy(config, policy, device)
    agent = load_agent(base, modes, finetuned, method, task=config.task.name)
    return agent if config.evaluate.steering else remove_steering(agent)


def _make_book(
    axes: tuple[str, str], labelling: ModeLabelling, episodes: Episodes, paths: NDArray[np.float32]
) -> PathBook:
    labels = episodes.labellings[labelling.name].labels()
    rows = zip(episodes.code.tolist(), labels, episodes.success.tolist(), paths, strict=False)  # of the first episodes
    drawn = [PlanarPath(episodes.policy, episodes.seed, *row) for row in rows]
    return PathBook(axes, labelling.name, tuple(labelling.modes), drawn)


def _encode_tables(episodes: Sequence[Episodes], book: PathBook) -> dict[str, bytes]:
    """The tables beside an eval.json, by name."""
    return {EPISODES_FILE: encode_episodes(episodes), PATHS_FILE: encode_paths(book)}


def _write_evaluation(
    output: Path, document: Evaluation, book: PathBook, tables: Mapping[str, bytes], *, success_modes: bool = False
) -> None:
    """Writes eval.json (`output`) last, with the tables and the pictures beside it."""
    output.unlink(missing_ok=True)  # an old eval.json must not vouch for new rows
    for name, content in tables.items():
        write_bytes(output.with_name(name), content)
    save_figure(plot_trajectories(document, book), output.with_name(PATHS_PICTURE))
    if success_modes:
        save_figure(plot_success_modes(document), output.with_name(SUCCESS_PICTURE))
    write_document(output, document)


# ---- Stage `summarise`: results/<Task>/eval.json, all evaluated policies of a task side by side ----


def summarise(config: RunConfig, *, evaluations: Sequence[Path], output: Path, reporter: Reporter) -> None:
    """Merges the evaluations of single policies and seeds, and draws them side by side.

    Intervals are computed anew from the per-episode rows, over seeds and episodes. `evaluations` are the eval.json of
    each policy and seed, with their tables beside them, as tables and pictures go beside `output`.

    Raises:
        ArtifactError: a file is missing or damaged, is of another task or other settings, or repeats a seed; or another
            job writes there.
    """
    start = RunStart(reporter.warn, *evaluations)
    parts = [load_evaluated(config, path) for path in evaluations]
    require_one_origin(parts)
    order = order_policies({part.episodes.policy for part in parts}, config.methods)
    parts.sort(key=lambda part: (order.index(part.episodes.policy), part.episodes.seed))
    for one, other in itertools.pairwise(parts):
        if one.name == other.name:
            raise ArtifactError(f"{one.path} and {other.path} both hold {one.name}")
    blocks = {
        policy: make_block(config, [part.episodes for part in parts if part.episodes.policy == policy])
        for policy in dict.fromkeys(part.episodes.policy for part in parts)
    }
    book = merge_books([load_paths(part.path.with_name(PATHS_FILE)) for part in parts])
    for part in parts:
        require_tables(part.document, part.path, PATHS_FILE)
    tables = _encode_tables([part.episodes for part in parts], book)
    inputs = {part.name: part.path for part in parts}
    document = make_document(config, blocks, inputs, config.seed, start, tables, stage="summarise")
    with FolderLock(Layout.state(output.parent), required=config.execution.require_lock) as lock:
        _write_evaluation(output, document, book, tables, success_modes=True)
        lock.discard()
    for name, block in blocks.items():
        reporter.log(f"{name}: {describe_block(block)}")


# ---- Stage `curve`: success and modes over fine-tuning, from the snapshots that it kept ----
#
# The policy at the end does not show whether modes stay or would be lost if training went on.


def curve(
    config: RunConfig,
    *,
    policy: Path,
    modes: Path | None,
    finetuned: Path,
    output: Path,
    method: str,
    seed: int,
    num_workers: int,
    reporter: Reporter,
) -> None:
    """Evaluates every snapshot of a fine-tuning run, all on the same episodes, and writes curve.json (`output`).

    Raises:
        ArtifactError: there are no snapshots, or an input is missing, damaged or made for something else.
    """
    task = config.task.name
    inputs, start = require_inputs(task, method, seed, policy, modes, finetuned, reporter.warn)
    folders = sorted(path for path in Layout.snapshots(finetuned).glob("[0-9]*") if path.name.isdecimal())
    if not folders:
        raise ArtifactError(
            f"{finetuned}: holds no snapshots; run `bmd-pipeline finetune --task {task} --method {method} "
            f"--seed {seed} --set finetune.snapshot_interval=20`"
        )
    device, recorder, _ = prepare_device(config)
    base = load_task_policy(config, policy, device)
    starts: Purpose = ("evaluate", "curve", seed)  # every snapshot meets the same starts and draws
    points = []
    with (
        _open_examiner(config, base, method, seed, num_workers, device, recorder, reporter) as examiner,
        reporter.progress(f"curve of {method}", len(folders)) as progress,
    ):
        for folder in folders:
            agent = graph_agent(load_player(config, policy, modes, folder, method, device), recorder)
            episodes, _ = examiner.examine(agent, starts, (*starts, "noise"))
            block = make_block(config, [episodes]).model_dump(mode="json")
            shares = {row["mode"]: row["share"] for row in block["per_mode"]}
            measured = {name: block[name] for name in SCORES if name != "episode_return"}
            points.append({"iteration": int(folder.name), **measured, "mode_shares": shares})
            progress.advance(success=block["success_rate"]["mean"])
    head = make_head(config, "curve", inputs, start, seed=seed, device=device)
    document = head | {
        "config_hash": hash_policy_settings(config, method),
        "provenance": head["provenance"].model_dump(mode="json"),
        "method": method,
        "seed": seed,
        "points": points,
    }
    write_json(output, document)
