"""Stage `pretrain`: a diffusion policy learns from demonstrations by behaviour cloning."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np
import torch

from bmd_pipeline.artifacts.atomic import write_bytes
from bmd_pipeline.artifacts.hashing import hash_tree
from bmd_pipeline.artifacts.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.artifacts.progress_state import TrainingState
from bmd_pipeline.artifacts.provenance import write_run
from bmd_pipeline.artifacts.tracking import Tracker
from bmd_pipeline.compute import enable_fast_matmul, select_device, set_matmul, set_threads
from bmd_pipeline.config.hashing import hash_values, stage_hash, stage_slice
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.demos.store import Demos, load_demos
from bmd_pipeline.demos.windows import Windows, make_windows, split_episodes
from bmd_pipeline.errors import DataError
from bmd_pipeline.policies.checkpoint import save_policy
from bmd_pipeline.policies.cloning import Cloner
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.tasks import registry

STAGE: Final = "pretrain"
PROGRESS_INTERVAL = 20
"""Gradient steps between two updates of the progress bar."""


def pretrain(config: RunConfig, *, demos: Path, output: Path, reporter: Reporter) -> None:
    """Trains the diffusion policy; an interrupted run goes on from its last checkpoint.

    On the CPU an interrupted and resumed run writes the same weights, byte for byte, as an uninterrupted one.

    Args:
        config: the run.
        demos: the demonstration store.
        output: folder for `policy.safetensors`, `policy.json`, `metrics.jsonl` and, last, `run.json`.
        reporter: where progress goes.

    Raises:
        DataError: the store is missing, damaged, or of another task.
        ArtifactError: another job is writing the same folder, or its saved progress is damaged.
        TrainingError: the loss is not finite.
        ConfigError: `execution.device` is not there.
    """
    started = time.time()
    device = select_device(config.execution.device)
    set_threads(config.execution.threads.pretrain)
    data = _load(config, demos)
    training, held_out = _make_windows(config, data, device)
    cloner = _make_cloner(config, data, training, device)
    reporter.log(
        f"{STAGE} {config.task.name}: {data.num_episodes} demonstrations, {len(training)} windows to train on, "
        f"{len(held_out)} held out; {sum(p.numel() for p in cloner.policy.parameters()):,} parameters"
    )
    # Progress on other data is of no use here, so the data is part of what the state is for.
    identity = hash_values({"config": stage_hash(config, STAGE), "demos": hash_tree(demos)})
    with TrainingState(Layout.state(output), identity) as state:
        (output / RUN_FILE).unlink(missing_ok=True)  # from here on the folder is not complete
        matmul = _resume(cloner, state, reporter)
        reporter.log(f"on {device} with {torch.get_num_threads()} threads, matrix precision {matmul}")
        metrics = _train(config, cloner, held_out, state, reporter, matmul)
        save_policy(cloner.ema.average, output, config.task.name)
        write_bytes(output / METRICS_FILE, (state.folder / METRICS_FILE).read_bytes())
        write_run(
            output,
            stage=STAGE,
            task=config.task.name,
            config=stage_slice(config, STAGE),
            config_hash=stage_hash(config, STAGE),
            seed=config.seed,
            inputs={"demos": demos},
            started=started,
            device=device,
            extra={"windows": len(training), "matmul_precision": matmul, "metrics": metrics},
        )
        state.discard()


def _load(config: RunConfig, path: Path) -> Demos:
    spec = registry.make_spec(config.task.name, config.task.env)
    data = load_demos(path, obs_dim=spec.obs_dim, action_dim=spec.action_dim)
    task = data.attributes.get("task", config.task.name)  # stores of others don't say
    if task != config.task.name:
        raise DataError(f"{path} was collected for task {task}, not for {config.task.name}")
    beyond = np.abs(data.action).max(axis=1) > 1.0 + 1e-6
    if beyond.any():
        row = int(beyond.argmax())
        raise DataError(
            f"{path}: actions must be in [-1, 1], got {data.action[row].tolist()} in row {row}; "
            "scale them to the task's units"
        )
    return data


def _make_windows(config: RunConfig, data: Demos, device: torch.device) -> tuple[Windows, Windows]:
    """Windows to train on and held-out ones, which may be none."""
    settings = config.pretrain
    generator = make_generator(config.seed, STAGE, "split")
    chosen, held_out = split_episodes(data.num_episodes, settings.validation_fraction, generator)
    return (
        make_windows(data, settings.policy, chosen).to(device),
        make_windows(data, settings.policy, held_out).to(device),
    )


def _make_cloner(config: RunConfig, data: Demos, training: Windows, device: torch.device) -> Cloner:
    with torch.random.fork_rng(devices=[]):
        # torch initialises layers from the global state only: borrow it, seeded, and give it back.
        torch.manual_seed(derive_seed(config.seed, STAGE, "weights"))
        policy = DiffusionPolicy(config.pretrain.policy, data.obs.shape[1], data.action.shape[1])
    policy.to(device).fit_normalisers(training.chunk, training.stacked)
    generator = make_generator(config.seed, STAGE, "batches", device=device)
    return Cloner(policy, config.pretrain, training.chunk, training.stacked, generator)


def _resume(cloner: Cloner, state: TrainingState, reporter: Reporter) -> str:
    """Restores saved progress, if any, and chooses the matrix kernels; returns their name."""
    settings = cloner.config
    matmul = enable_fast_matmul(settings.batch_size, max(settings.policy.hidden_sizes))
    saved = state.load()
    if saved is not None:
        tensors, values = saved
        cloner.restore(tensors, values)
        matmul = values["matmul"]  # other kernels round differently
        set_matmul(matmul)
        reporter.log(f"resuming at iteration {cloner.step}")
    return matmul


def _train(
    config: RunConfig,
    cloner: Cloner,
    held_out: Windows,
    state: TrainingState,
    reporter: Reporter,
    matmul: str,
) -> dict[str, float]:
    """Trains to the end; returns the last metrics."""
    settings = config.pretrain
    metrics: dict[str, float] = {}
    tracker = Tracker(
        state.folder / METRICS_FILE,
        config.execution.tracker,
        name=f"{config.task.name}/policy",
        group=config.task.name,
        config=stage_slice(config, STAGE),
        resume_step=cloner.step,
    )
    with tracker, reporter.progress(STAGE, settings.iterations, cloner.step) as bar:
        while cloner.step < settings.iterations:
            metrics["learning_rate"] = cloner.learning_rate
            cloner.train_step()
            last = cloner.step == settings.iterations
            if last or cloner.step % settings.log_interval == 0:
                metrics["train_loss"] = cloner.take_mean_loss()
                if len(held_out):
                    generator = make_generator(config.seed, STAGE, "validation", device=held_out.chunk.device)
                    metrics["validation_loss"] = cloner.validate(held_out.chunk, held_out.stacked, generator)
                tracker.log(cloner.step, metrics)
            if cloner.step % PROGRESS_INTERVAL == 0:
                bar.advance(PROGRESS_INTERVAL, **metrics)
            if cloner.step % settings.checkpoint_interval == 0 and not last:
                tensors, values = cloner.state()
                state.save(tensors, {**values, "matmul": matmul})
    return metrics
