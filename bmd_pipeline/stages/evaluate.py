"""Stages `evaluate`, `summarise` and `curve`: policies play seeds that nothing before has seen."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.config.hashing import Stage
from bmd_pipeline.config.schema import RunConfig, check_method, is_finetuned, order_policies, uses_modes
from bmd_pipeline.environments.base import ModeLabeler, TaskEnv
from bmd_pipeline.errors import ArtifactError, TaskError
from bmd_pipeline.io.files import hash_file, remove_leftovers, write_bytes, write_json
from bmd_pipeline.io.layout import RUN_FILE, Layout
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.io.provenance import require_run
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights, concat_episodes, encode_episodes
from bmd_pipeline.metrics.scores import SCORES, choose_behaviours
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.reporting.figures import plot_success_modes, plot_trajectories, save_figure
from bmd_pipeline.reporting.trajectories import (
    PathBook,
    PlanarPath,
    encode_paths,
    load_paths,
    merge_books,
    resample_paths,
)
from bmd_pipeline.rl.agent import Agent, load_agent, remove_steering
from bmd_pipeline.rl.graphs import graph_agent
from bmd_pipeline.rl.rollout import EpisodeBatch, describe_episodes, play_rounds
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import make_identity, make_wait
from bmd_pipeline.stages.console import Reporter, Stop
from bmd_pipeline.stages.evaluations import (
    EPISODES_FILE,
    PATHS_FILE,
    PATHS_PICTURE,
    SUCCESS_PICTURE,
    describe_block,
    hash_policy_settings,
    load_evaluated,
    make_block,
    make_document,
    make_head,
)
from bmd_pipeline.stages.runtime import open_env, select_recorder, select_stage_device
from bmd_pipeline.tasks.registry import load_labellings

# ---- Episodes with their true modes: what evaluation is made of ----


def label_episodes(
    batch: EpisodeBatch, labellings: Sequence[ModeLabeler], method: str, seed: int, num_codes: int
) -> Episodes:
    """Rows of a batch of episodes under every labelling.

    Args:
        batch: what was played.
        labellings: the task's true modes.
        method: name of the policy in the rows.
        seed: training seed of the policy.
        num_codes: mode codes K of the agent.

    Raises:
        TaskError: a labelling breaks its contract.
    """

    def to_array(values: Tensor, dtype: type[np.generic]) -> NDArray[Any]:
        return values.cpu().numpy().astype(dtype)

    information = torch.zeros_like(batch.episode_return) if batch.information is None else batch.information
    return Episodes(
        policy=method,
        seed=seed,
        num_codes=num_codes,
        code=to_array(batch.code, np.int64),
        success=to_array(batch.success, np.bool_),
        length=to_array(batch.length, np.int64),
        episode_return=to_array(batch.episode_return, np.float64),
        information=to_array(information, np.float64),
        labellings={labelling.name: _weigh(labelling, batch) for labelling in labellings},
    )


def _weigh(labelling: ModeLabeler, batch: EpisodeBatch) -> ModeWeights:
    raw = labelling.label(batch.track, batch.length, batch.success).double().cpu().numpy()
    expected = (len(batch.success), len(labelling.modes))
    if raw.shape != expected:
        raise TaskError(f"labelling {labelling.name!r}: weights must be {expected}, got {raw.shape}")
    sums = raw.sum(axis=1)
    if not (np.all(raw >= 0) and np.allclose(sums, 1.0, atol=1e-4)):
        worst = int(np.argmax(np.abs(sums - 1.0)))
        raise TaskError(
            f"labelling {labelling.name!r}: weights must be >= 0 with rows that sum to 1, "
            f"got {raw[worst].tolist()} for episode {worst}"
        )
    return ModeWeights(tuple(labelling.modes), raw / sums[:, None])


def evaluate_policy(
    env: TaskEnv,
    agent: Agent,
    labellings: Sequence[ModeLabeler],
    *,
    method: str,
    seed: int,
    start_seed: Callable[[int], int],
    generator: torch.Generator,
    episodes: int,
    advance: Callable[..., None] = lambda n, **fields: None,
) -> tuple[Episodes, NDArray[np.float32]]:
    """Plays a policy as deployed, and labels its episodes with their true modes.

    Args:
        env: the task, without automatic reset.
        agent: who acts.
        labellings: the task's true modes.
        method: name of the policy in the rows.
        seed: training seed of the policy.
        start_seed: seed of the initial states of a round, one episode in every environment, from its number.
        generator: draws of the agent.
        episodes: how many to keep; which of the last round are dropped does not depend on them.
        advance: counts the episodes of each round, with their success rate, as a progress does.

    Returns:
        Rows of the episodes, and their planar paths (episodes, NUM_POINTS, 2).

    Raises:
        ArtifactError: the policy leads to numbers that are not finite.
        TaskError: a labelling breaks its contract.
    """
    columns = [env.spec.track_names.index(name) for name in env.spec.planar]
    seeds = [start_seed(index) for index in range(-(-episodes // env.num_envs))]
    parts, paths = [], []
    for index, played in enumerate(play_rounds(env, agent, seeds, generator)):
        batch = describe_episodes(agent, played)
        part = label_episodes(batch, labellings, method, seed, agent.num_codes)
        drawn = resample_paths(batch.track[:, :, columns].cpu().numpy(), part.length)
        if not all(np.isfinite(values).all() for values in (part.episode_return, part.information, drawn)):
            raise ArtifactError(f"{method}, seed {seed}: its weights lead to numbers that are not finite; train again")
        parts.append(part)
        paths.append(drawn)
        advance(min(env.num_envs, episodes - index * env.num_envs), success=float(part.success.mean()))
    return concat_episodes(parts, episodes), np.concatenate(paths)[:episodes]


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
    """Evaluates one policy and writes eval.json, with per-episode rows and a picture beside it.

    Initial states depend on the root seed and on `seed`, not on the method: methods of a task meet the same
    ones, so that their differences are not luck. A policy with codes first plays selection seeds, which show the
    behaviour of each code. A killed evaluation starts over.

    Args:
        config: the run.
        policy: folder of the pre-trained policy.
        modes: folder of the discovered modes, for policies with codes.
        finetuned: folder of the fine-tuned policy; None before fine-tuning.
        output: the eval.json to write, last of all.
        method: "pretrained", "taught" or a fine-tuning method.
        seed: training seed of the policy.
        num_workers: simulator processes; results don't depend on it.
        reporter: where progress goes.

    Raises:
        ConfigError: unknown method.
        ArtifactError: an input is missing, damaged or made for something else, or another job writes the same output.
        TaskError: a labelling breaks its contract.
        AlreadyWritten: a job that computes the same did, and has finished meanwhile.
    """
    started = time.time()
    task = config.task.name
    inputs = require_inputs(task, method, policy, modes, finetuned)
    device = select_stage_device(config)
    agent = load_agent(policy, modes, finetuned, method, task=task, device=device)
    if not config.evaluate.steering:
        agent = remove_steering(agent)
    recorder = select_recorder(config, device)
    agent = graph_agent(agent, recorder)
    labellings = load_labellings(task)
    identity = make_identity(
        config,
        "evaluate",
        method=method,
        seed=seed,
        policy=hash_policy_settings(config, method),
        inputs={name: hash_file(path) for name, path in inputs.items()},
    )
    with FolderLock(Layout.state(output.parent), identity, make_wait(config, Stop(), reporter)) as lock:
        remove_leftovers(output.parent)
        num_envs = min(config.evaluate.num_envs, config.evaluate.episodes)
        world = open_env(
            config.task,
            agent.policy,
            num_envs,
            disturbed=True,
            device=device,
            num_workers=num_workers,
            recorder=recorder,
        )
        with closing(world) as env:
            behaviours = find_behaviours(config, env, agent, labellings, method, seed)
            wanted = config.evaluate.episodes
            with reporter.progress(f"evaluate {method}", wanted) as progress:
                episodes, paths = evaluate_policy(
                    env,
                    agent,
                    labellings,
                    method=method,
                    seed=seed,
                    start_seed=partial(derive_seed, config.seed, "evaluate", seed),
                    generator=make_generator(config.seed, "evaluate", "noise", seed, device=env.device),
                    episodes=wanted,
                    advance=progress.advance,
                )
            episodes = replace(episodes, behaviours=behaviours)
            axes = env.spec.planar_labels
        block = make_block(config, [episodes])
        document = make_document(config, {method: block}, inputs, seed, started, device)
        book = _make_book(axes, labellings[0], episodes, paths[: config.evaluate.pictured_episodes])
        output.unlink(missing_ok=True)  # an old eval.json must not vouch for new rows
        write_bytes(output.with_name(EPISODES_FILE), encode_episodes([episodes]))
        write_bytes(output.with_name(PATHS_FILE), encode_paths(book))
        save_figure(plot_trajectories(document, book), output.with_name(PATHS_PICTURE))
        write_json(output, document.model_dump(mode="json"))
        lock.discard()
    reporter.log(f"{method}, seed {seed}: {describe_block(block)}")


def require_inputs(task: str, method: str, policy: Path, modes: Path | None, finetuned: Path | None) -> dict[str, Path]:
    """Checks the folders that the method needs; returns their records by name."""
    check_method(method, evaluating=True)
    needed: dict[str, tuple[Path | None, Stage]] = {"policy": (policy, "pretrain")}
    if uses_modes(method):
        needed["modes"] = (modes, "discover")
    if is_finetuned(method):
        needed["finetuned"] = (finetuned, "finetune")
    inputs = {}
    for name, (folder, stage) in needed.items():
        if folder is None:
            raise ArtifactError(f"evaluating {method} needs the output of `bmd-pipeline {stage} --task {task}`")
        require_run(folder, stage, task)
        inputs[name] = folder / RUN_FILE
    return inputs


def find_behaviours(
    config: RunConfig, env: TaskEnv, agent: Agent, labellings: Sequence[ModeLabeler], method: str, seed: int
) -> dict[str, tuple[str | None, ...]]:
    """Plays selection seeds and sees what each code does there, by labelling; nothing without codes.

    Args:
        config: the run.
        env: the task.
        agent: who acts.
        labellings: the task's true modes.
        method: name of the policy.
        seed: its training seed.

    Raises:
        TaskError: a labelling breaks its contract.
    """
    if agent.num_codes == 1:
        return {}
    played, _ = evaluate_policy(
        env,
        agent,
        labellings,
        method=method,
        seed=seed,
        start_seed=partial(derive_seed, config.seed, "select", "behaviours", seed),
        generator=make_generator(config.seed, "select", "behaviours", seed, "noise", device=env.device),
        episodes=config.evaluate.selection_episodes,
    )
    return {labelling.name: choose_behaviours(played, labelling.name) for labelling in labellings}


def _make_book(
    axes: tuple[str, str], labelling: ModeLabeler, episodes: Episodes, paths: NDArray[np.float32]
) -> PathBook:
    labels = episodes.labellings[labelling.name].labels()
    return PathBook(
        axes=axes,
        labelling=labelling.name,
        modes=tuple(labelling.modes),
        paths=[
            PlanarPath(
                policy=episodes.policy,
                seed=episodes.seed,
                code=int(episodes.code[i]),
                mode=labels[i],
                success=bool(episodes.success[i]),
                xy=xy,
            )
            for i, xy in enumerate(paths)
        ],
    )


# ---- Stage `summarise`: results/<Task>/eval.json, all evaluated policies of a task side by side ----


def summarise(config: RunConfig, *, evaluations: Sequence[Path], output: Path, reporter: Reporter) -> None:
    """Merges the evaluations of single policies and seeds, and draws them side by side.

    Intervals are computed anew from the per-episode rows, over seeds and episodes.

    Args:
        config: the run.
        evaluations: eval.json of each policy and seed, with its tables beside it.
        output: the eval.json to write, last of all; tables and pictures go beside it.
        reporter: where the numbers are logged.

    Raises:
        ArtifactError: a file is missing or damaged, is of another task or other settings, or repeats a seed.
    """
    started = time.time()
    parts = [load_evaluated(config, path) for path in evaluations]
    order = order_policies({part.episodes.policy for part in parts}, config.methods)
    parts.sort(key=lambda part: (order.index(part.episodes.policy), part.episodes.seed))
    for one, other in itertools.pairwise(parts):
        if one.name == other.name:
            raise ArtifactError(f"{one.path} and {other.path} both hold {one.name}")
    blocks = {
        policy: make_block(config, [part.episodes for part in parts if part.episodes.policy == policy])
        for policy in dict.fromkeys(part.episodes.policy for part in parts)
    }
    document = make_document(
        config, blocks, inputs={part.name: part.path for part in parts}, seed=config.seed, started=started
    )
    book = merge_books([load_paths(part.path.with_name(PATHS_FILE)) for part in parts])
    output.unlink(missing_ok=True)  # an old eval.json must not vouch for new rows
    write_bytes(output.with_name(EPISODES_FILE), encode_episodes([part.episodes for part in parts]))
    write_bytes(output.with_name(PATHS_FILE), encode_paths(book))
    save_figure(plot_trajectories(document, book), output.with_name(PATHS_PICTURE))
    save_figure(plot_success_modes(document), output.with_name(SUCCESS_PICTURE))
    write_json(output, document.model_dump(mode="json"))
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
    """Evaluates every snapshot of a fine-tuning run, all on the same episodes, and writes curve.json.

    Args: as those of `evaluate`.

    Raises:
        ArtifactError: there are no snapshots, or an input is missing, damaged or made for something else.
    """
    started = time.time()
    task = config.task.name
    inputs = require_inputs(task, method, policy, modes, finetuned)
    folders = sorted(path for path in Layout.snapshots(finetuned).glob("*") if path.is_dir())
    if not folders:
        raise ArtifactError(
            f"{finetuned}: holds no snapshots; run `bmd-pipeline finetune --task {task} --method {method} "
            f"--seed {seed} --set finetune.snapshot_interval=20`"
        )
    device = select_stage_device(config)
    labellings = load_labellings(task)
    base = load_policy(policy, task=task, device=device)
    num_envs = min(config.evaluate.num_envs, config.evaluate.episodes)
    world = open_env(config.task, base, num_envs, disturbed=True, device=device, num_workers=num_workers)
    points = []
    with closing(world) as env, reporter.progress(f"curve of {method}", len(folders)) as progress:
        for folder in folders:
            agent = load_agent(policy, modes, folder, method, task=task, device=device)
            episodes, _ = evaluate_policy(  # every snapshot meets the same starts and draws
                env,
                agent,
                labellings,
                method=method,
                seed=seed,
                start_seed=partial(derive_seed, config.seed, "evaluate", "curve", seed),
                generator=make_generator(config.seed, "evaluate", "curve", seed, "noise", device=env.device),
                episodes=config.evaluate.episodes,
            )
            behaviours = find_behaviours(config, env, agent, labellings, method, seed)
            block = make_block(config, [replace(episodes, behaviours=behaviours)]).model_dump(mode="json")
            shares = {row["mode"]: row["share"] for row in block["per_mode"]}
            measured = {name: block[name] for name in SCORES if name != "episode_return"}
            points.append({"iteration": int(folder.name), **measured, "mode_shares": shares})
            progress.advance(success=block["success_rate"]["mean"])
    head = make_head(config, "curve", inputs, started, seed=seed, device=device)
    document = head | {
        "config_hash": hash_policy_settings(config, method),
        "provenance": head["provenance"].model_dump(mode="json"),
        "method": method,
        "seed": seed,
        "points": points,
    }
    write_json(output, document)
