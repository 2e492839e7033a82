"""Stage `pretrain`: a diffusion policy learns from demonstrations by behaviour cloning."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import torch

from bmd_pipeline.artifacts.atomic import write_bytes
from bmd_pipeline.artifacts.documents import read_json
from bmd_pipeline.artifacts.freshness import require_trained
from bmd_pipeline.artifacts.hashing import hash_tree
from bmd_pipeline.artifacts.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.artifacts.provenance import write_run
from bmd_pipeline.artifacts.tracking import Tracker
from bmd_pipeline.compute import choose_matmul, select_device, set_matmul
from bmd_pipeline.config.hashing import stage_hash, stage_slice
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.demos.store import Demos, load_demos
from bmd_pipeline.demos.windows import Windows, make_windows, split_episodes
from bmd_pipeline.errors import ConfigError, DataError, DivergenceError, TrainingError
from bmd_pipeline.policies.checkpoint import save_policy
from bmd_pipeline.policies.cloning import Cloner
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import Checkpoints, Snapshot, make_identity, make_wait
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.stopping import Stop
from bmd_pipeline.stages.taking_over import take_over
from bmd_pipeline.tasks import registry

STAGE: Final = "pretrain"
STEP_FACTOR = 0.5
"""What a rollback does to the learning rate, for good."""
PROGRESS_INTERVAL = 20
"""Gradient steps between two updates of the progress bar."""


def pretrain(
    config: RunConfig,
    *,
    demos: Path | None = None,
    policy: Path | None = None,
    output: Path,
    reporter: Reporter,
    stop: Stop | None = None,
) -> None:
    """Trains the diffusion policy; an interrupted run goes on from its last checkpoint.

    On the CPU an interrupted and resumed run writes the same weights, byte for byte, as an uninterrupted one.

    Args:
        config: the run.
        demos: the demonstration store.
        policy: folder of a policy that is taken over instead: nothing is trained then.
        output: folder for `policy.safetensors`, `policy.json`, `metrics.jsonl` and, last, `run.json`.
        reporter: where progress goes.
        stop: who may ask to stop early.

    Raises:
        DataError: the store is missing, damaged, or of another task.
        ArtifactError: another job is writing the same folder, it holds a policy of somebody else, or its saved progress
            is damaged; or the policy to take over can't be.
        TrainingError: the loss is not finite, however small the learning rate.
        ConfigError: `execution.device` is not there.
        Stopped: somebody asked; progress is saved.
    """
    require_trained(output)
    if policy is not None:
        take_over(config, policy=policy, output=output, reporter=reporter)
        return
    if demos is None:
        raise ConfigError("pretrain needs demonstrations, or a policy to take over")
    started = time.time()
    device = select_device(config.execution.device)
    data = _load(config, demos)
    training, held_out = _make_windows(config, data, device)
    cloner = _make_cloner(config, data, training, device)
    reporter.log(
        f"{STAGE} {config.task.name}: {data.num_episodes} demonstrations, {len(training)} windows to train on, "
        f"{len(held_out)} held out; {sum(p.numel() for p in cloner.policy.parameters()):,} parameters"
    )
    bounded = {"clipped_actions": data.clipped_share, "bounded_obs": cloner.policy.bounded_share(training.stacked)}
    reporter.log(
        f"outside the bounds of actions: {data.clipped_share:.3%} of the demonstrated values; "
        f"bounded by clip_obs: {bounded['bounded_obs']:.3%} of the observations' values"
    )
    if data.clipped_share:
        reporter.warn(f"{demos}: {data.clipped_share:.3%} of the actions' values lie outside their bounds; clipped")
    content = hash_tree(demos)
    _compare_with_manifest(demos, content, reporter)
    stop = stop or Stop()
    checkpoints = Checkpoints(
        output,
        make_identity(config, STAGE, demos=content),  # progress on other data is of no use here
        stop,
        minutes=config.execution.checkpoint_minutes,
        interval=config.pretrain.checkpoint_interval,
        wait=make_wait(config, stop, reporter),
    )
    with checkpoints:
        (output / RUN_FILE).unlink(missing_ok=True)  # from here on the folder is not complete
        run = _Run(config, cloner, held_out, checkpoints, reporter)
        reporter.log(f"on {device} with {torch.get_num_threads()} threads, matrix precision {run.matmul}")
        metrics = run.train()
        save_policy(cloner.ema.average, output, config.task.name)
        write_bytes(output / METRICS_FILE, (checkpoints.folder / METRICS_FILE).read_bytes())
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
            extra={
                "windows": len(training),
                **bounded,
                "matmul_precision": run.matmul,
                "metrics": metrics,
                "rollbacks": run.rollbacks,
                "warnings": reporter.warnings,
            },
        )
        checkpoints.discard()


def _load(config: RunConfig, path: Path) -> Demos:
    spec = registry.make_spec(config.task.name, config.task.env)
    data = load_demos(path, obs_dim=spec.obs_dim, action_dim=spec.action_dim)
    task = data.attributes.get("task", config.task.name)  # stores of others don't say
    if task != config.task.name:
        raise DataError(f"{path} was collected for task {task}, not for {config.task.name}")
    if (data.action_low, data.action_high) != (spec.action_low, spec.action_high):
        raise DataError(
            f"{path}: its actions are between {list(data.action_low)} and {list(data.action_high)}, those of task "
            f"{config.task.name} between {list(spec.action_low)} and {list(spec.action_high)}; bring them to its "
            "units and give the store its bounds (attributes action_low, action_high), or correct those of the task"
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
    policy.action_low, policy.action_high = data.action_low, data.action_high
    policy.to(device).fit_normalisers(training.chunk, training.stacked, torch.from_numpy(data.action).to(device))
    generator = make_generator(config.seed, STAGE, "batches", device=device)
    return Cloner(policy, config.pretrain, training.chunk, training.stacked, generator)


def _compare_with_manifest(demos: Path, content: str, reporter: Reporter) -> None:
    """Warns of a store that is not what was collected; editing it is allowed."""
    manifest = demos.with_name(Layout().demos_manifest("").name)
    recorded = read_json(manifest, "manifest").get("outputs", {}).get(demos.name) if manifest.is_file() else None
    if recorded not in (None, content):  # none of a store that was brought along
        reporter.warn(f"{demos} is not what {manifest} records: it was edited after its collection")


class _Run:
    """The training loop with its progress.

    Attributes:
        matmul: name of the matrix kernels in force.
        rollbacks: how often training went back to its last good weights.
    """

    def __init__(
        self, config: RunConfig, cloner: Cloner, held_out: Windows, checkpoints: Checkpoints, reporter: Reporter
    ) -> None:
        self.config = config
        self.cloner = cloner
        self.held_out = held_out
        self.checkpoints = checkpoints
        self.reporter = reporter
        self.rollbacks = 0
        self.metrics: dict[str, float] = {}
        settings = config.pretrain
        device, precision = cloner.device, config.execution.cuda_matmul
        self.matmul = choose_matmul(device, precision, settings.batch_size, max(settings.policy.hidden_sizes))
        saved = checkpoints.load()
        if saved is not None:
            tensors, values = saved
            cloner.restore(tensors, values)
            self.rollbacks = values["rollbacks"]
            self.matmul = values["matmul"]  # other kernels round differently
            set_matmul(device, self.matmul)
            reporter.recall(values["warnings"])
            reporter.log(f"resuming at iteration {cloner.step}")

    def train(self) -> dict[str, float]:
        """Trains to the end; returns the last metrics."""
        cloner, total = self.cloner, self.config.pretrain.iterations
        good, shown = cloner.state(), cloner.step
        tracker = Tracker(
            self.checkpoints.folder / METRICS_FILE,
            self.config.execution.tracker,
            name=self.checkpoints.folder.parent.as_posix(),
            group=self.config.execution.sweep or self.config.task.name,
            config=stage_slice(self.config, STAGE),
            resume_step=cloner.step,
        )
        with tracker, self.reporter.progress(STAGE, total, cloner.step) as bar:
            while cloner.step < total:
                try:
                    self.checkpoints.boundary(cloner.step, self._pack)
                    self.metrics["learning_rate"] = cloner.learning_rate
                    cloner.train_step()
                    if cloner.step == total or cloner.step % self.config.pretrain.log_interval == 0:
                        tracker.log(cloner.step, self._measure())
                        good = cloner.state()
                except DivergenceError as error:
                    self._roll_back(good, error)
                if cloner.step % PROGRESS_INTERVAL == 0:
                    bar.advance(cloner.step - shown, **self.metrics)
                    shown = cloner.step
        return self.metrics

    def _measure(self) -> dict[str, float]:
        self.metrics["train_loss"] = self.cloner.take_mean_loss()
        self.cloner.require_finite()
        if len(self.held_out):
            chunk, stacked = self.held_out.chunk, self.held_out.stacked
            generator = make_generator(self.config.seed, STAGE, "validation", device=chunk.device)
            self.metrics["validation_loss"] = self.cloner.validate(chunk, stacked, generator)
        return self.metrics

    def _pack(self) -> Snapshot:
        self.cloner.require_finite()  # what is saved can be gone on from
        tensors, values = self.cloner.state()
        kept = {"matmul": self.matmul, "rollbacks": self.rollbacks, "warnings": self.reporter.warnings}
        return tensors, values | kept

    def _roll_back(self, good: Snapshot, error: DivergenceError) -> None:
        """Goes back to weights that were sound, with a smaller step.

        Raises:
            TrainingError: it has happened too often.
        """
        limit = self.config.pretrain.max_rollbacks
        if self.rollbacks >= limit:
            raise TrainingError(
                f"{error}; going back {self.rollbacks} times, each time with half the learning rate, didn't help"
            ) from error
        self.rollbacks += 1
        factor = self.cloner.rate_factor * STEP_FACTOR
        self.cloner.restore(*good)
        self.cloner.rate_factor = factor
        self.reporter.warn(
            f"{error}; going back to iteration {self.cloner.step} with half the learning rate "
            f"(rollback {self.rollbacks} of at most {limit})"
        )
