"""Stage `pretrain`: a diffusion policy learns from demonstrations by behaviour cloning, until its success is flat."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from bmd_pipeline.compute import describe_training, select_device, set_matmul
from bmd_pipeline.config.hashing import stage_slice
from bmd_pipeline.config.schema import PolicyConfig, RunConfig
from bmd_pipeline.demos.comparison import compare_with_task
from bmd_pipeline.demos.store import Demos, load_demos
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.errors import DataError, DivergenceError, TrainingError
from bmd_pipeline.io.files import is_there, write_bytes
from bmd_pipeline.io.layout import MANIFEST_FILE, METRICS_FILE, POLICY_FILE
from bmd_pipeline.io.progress import add_prefix, take_prefix
from bmd_pipeline.io.provenance import RunStart, is_imported, read_manifest, require_disposable_policy, write_run
from bmd_pipeline.policies.bc import Cloner, Windows, make_windows, split_episodes
from bmd_pipeline.policies.checkpoint import SETTINGS_FILE, save_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.external import load_external, try_out
from bmd_pipeline.rl.agent import make_base_agent
from bmd_pipeline.rl.graphs import GraphRecorder, graph_agent
from bmd_pipeline.rl.rollout import Warn
from bmd_pipeline.rl.selection import score_candidate
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import Checkpoints, Snapshot, describe_stage, open_checkpoints, open_tracker
from bmd_pipeline.stages.console import Reporter, Stop, StoppableEnv
from bmd_pipeline.stages.runtime import episode_seeds, open_env, select_recorder, select_stage_device
from bmd_pipeline.tasks import registry

STAGE: Final = "pretrain"
STEP_FACTOR = 0.5
"""What a rollback does to the learning rate, for good."""
PROGRESS_INTERVAL = 20
"""Gradient steps between two updates of the progress bar."""
MAX_ROLLBACKS = 3
"""Times a loss that is not finite is answered by going back to the last good weights, before training gives up."""
VALIDATION_FRACTION = 0.05
"""Share of whole episodes held out for the validation loss."""
MIN_GAIN = 0.01
"""Gain of success over the last quarter of the steps below which it is flat, and training ends."""
MIN_ROUNDS = 3
"""Rounds of rollouts in the last quarter, and before it, from which it can be said whether success is flat."""
CHUNK_GAIN = 0.05
"""Success that another number of executed actions must gain to be recommended."""


def pretrain(
    config: RunConfig, *, demos: Path, output: Path, num_workers: int = 1, reporter: Reporter, stop: Stop | None = None
) -> None:
    """Trains the diffusion policy; an interrupted run goes on from its last checkpoint.

    Now and then the policy plays in the task, where its demonstrations come from. The weights that succeed most are
    kept, and training ends when success is flat.

    A policy of `pretrain.external_policy` is not trained: it is checked, measured once, and recorded.

    Writes policy.safetensors, policy.json, metrics.jsonl and run.json. On the CPU an interrupted and resumed run writes
    the same weights, byte for byte, as an uninterrupted one.

    Raises:
        DataError: the store is missing, damaged, of another task or in other units.
        ArtifactError: another job is writing the same folder, it holds a policy that was imported or is somebody
            else's, or its saved progress is damaged.
        TrainingError: the loss is not finite, however small the learning rate.
        ConfigError: the device of `execution.device` or `task.physics` is not there, or an external policy is not.
        TaskError: the code of an external policy fails.
        Stopped: somebody asked; progress is saved.
    """
    require_disposable_policy(output, config.task.name, STAGE)
    start = RunStart(reporter.warn, demos)
    if config.pretrain.external_policy:
        _adopt(config, demos, output, num_workers, reporter, stop or Stop(), start)
        return
    device = select_device(config.execution.device)
    data = load_task_demos(config, demos)
    split = split_episodes(data.num_episodes, VALIDATION_FRACTION, make_generator(config.seed, STAGE, "split"))
    # the held-out windows may be none
    training, held_out = (make_windows(data, config.pretrain.policy, chosen).to(device) for chosen in split)
    cloner = _make_cloner(config, data, training, device)
    reporter.log(
        f"{STAGE} {config.task.name}: {data.num_episodes} demonstrations, {len(training)} windows to train on, "
        f"{len(held_out)} held out; {sum(p.numel() for p in cloner.policy.parameters()):,} parameters"
    )
    bounded = cloner.policy.bounded_share(training.stacked)
    reporter.log(
        f"outside the bounds of actions: {data.clipped_share:.3%} of the demonstrated values; "
        f"bounded by clip_obs: {bounded:.3%} of the observations' values"
    )
    if data.clipped_share:
        reporter.warn(f"{demos}: {data.clipped_share:.3%} of the actions' values lie outside their bounds; clipped")
    collected = _find_collect_config(demos, start, reporter)
    stop = stop or Stop()
    # progress on other data is of no use here
    checkpoints = open_checkpoints(config, STAGE, output, stop, reporter, demos=start.hashes[demos])
    with _open_selection(config, cloner.policy, num_workers, stop, reporter) as selection, checkpoints:
        if selection is not None and (differences := compare_with_task(data, selection.env)):
            reporter.warn(f"{demos} does not look like {config.task.name}: {differences}")
        run = _Run(config, cloner, selection, held_out, checkpoints, reporter)
        reporter.log(f"on {device} with {torch.get_num_threads()} threads, matrix precision {run.matmul}")
        metrics = run.train()
        executed = run.compare_chunks()
        save_policy(run.kept(), output, config.task.name)
        write_bytes(output / METRICS_FILE, (checkpoints.folder / METRICS_FILE).read_bytes())
        record = describe_stage(
            config,
            STAGE,
            inputs={"demos": demos},
            start=start,
            device=device,
            collect_config=collected,
            windows=len(training),
            clipped_actions=data.clipped_share,
            bounded_obs=bounded,
            matmul_precision=run.matmul,
            metrics=metrics,
            iterations=cloner.step,
            kept=dict(zip(("iteration", "success_rate"), selection.best, strict=True)) if selection else None,
            success_by_n_action_steps=executed,
            rollbacks=run.rollbacks,
            warnings=reporter.warnings,
        )
        write_run(output, record, outputs=(POLICY_FILE, SETTINGS_FILE, METRICS_FILE))
        checkpoints.discard()


def _adopt(
    config: RunConfig, demos: Path, output: Path, num_workers: int, reporter: Reporter, stop: Stop, start: RunStart
) -> None:
    """Takes a user's policy as the pre-trained one.

    From the demonstrations come the scales of what steering policy, residual and critic see and do.
    """
    data, device = load_task_demos(config, demos), select_stage_device(config)
    sizes = {"obs_dim": data.obs.shape[1], "action_dim": data.action.shape[1]}
    policy = load_external(config.pretrain.external_policy, sizes, (data.action_low, data.action_high)).to(device)
    windows = make_windows(data, policy.config).to(device)
    policy.fit_normalisers(windows.chunk, windows.stacked)
    clipped = try_out(policy, windows.stacked)
    if clipped > 0.01:
        reporter.warn(
            f"{config.pretrain.external_policy}: {clipped:.1%} of its actions' values lie outside the bounds of the "
            "task's actions; they are clipped there"
        )
    identity, collected = policy.identify(), _find_collect_config(demos, start, reporter)
    episodes, metrics, names = config.pretrain.selection.episodes, {}, (config.task.name, STAGE)
    with open_checkpoints(config, STAGE, output, stop, reporter, demos=start.hashes[demos], external=identity) as lock:
        if episodes:
            opened = open_env(config.task, policy, episodes, disturbed=False, device=device, num_workers=num_workers)
            with closing(opened) as env:
                if differences := compare_with_task(data, env):
                    reporter.warn(f"{demos} does not look like {config.task.name}: {differences}")
                seeds = episode_seeds(config.seed, "select", *names, episodes=episodes, num_envs=episodes)
                draws = make_generator(config.seed, "select", *names, "noise", device=device)
                agent = make_base_agent(policy)
                played = score_candidate(StoppableEnv(env, stop), agent, 0, seeds, draws, reporter.warn)
            metrics["select/success_rate"] = played.success_rate
        with open_tracker(config, lock.folder.parent, stage_slice(config, STAGE), 0, folder=lock.folder) as tracker:
            tracker.log(0, metrics)
        save_policy(policy, output, config.task.name)
        write_bytes(output / METRICS_FILE, (lock.folder / METRICS_FILE).read_bytes())
        record = describe_stage(
            config,
            STAGE,
            inputs={"demos": demos},
            start=start,
            device=device,
            collect_config=collected,
            external_policy=identity,
            clipped_actions=clipped,
            metrics=metrics,
            warnings=reporter.warnings,
        )
        write_run(output, record, outputs=(POLICY_FILE, SETTINGS_FILE, METRICS_FILE))
        lock.discard()
    success = f", success {metrics['select/success_rate']:.3f} of {episodes} episodes" if metrics else ""
    reporter.log(f"{config.pretrain.external_policy} is the policy of {config.task.name}; nothing is trained{success}")


def load_task_demos(config: RunConfig, path: Path) -> Demos:
    """Reads demonstrations of the run's task.

    Raises:
        DataError: the store is missing, damaged, of another task or in other units.
    """
    spec = registry.make_spec(config.task.name, config.task.env)
    data = load_demos(path, obs_dim=spec.obs_dim, action_dim=spec.action_dim)
    task = data.attributes.get("task", config.task.name)  # stores of others don't say
    if task != config.task.name:
        raise DataError(f"{path} was collected for task {task}, not for {config.task.name}")
    if (data.action_low, data.action_high) != (spec.action_low, spec.action_high):
        raise DataError(
            f"{path}: its actions are between {list(data.action_low)} and {list(data.action_high)}, those of task "
            f"{config.task.name} between {list(spec.action_low)} and {list(spec.action_high)}; if they are in its "
            "units, give the store its bounds (attributes action_low, action_high): what lies beyond is clipped, as "
            "the environment does; else scale them with `import-demos --bounds`, or correct those of the task"
        )
    return data


def _make_cloner(config: RunConfig, data: Demos, training: Windows, device: torch.device) -> Cloner:
    with torch.random.fork_rng(devices=[]):
        # torch initialises layers from the global state only: borrow it, seeded, and give it back.
        torch.manual_seed(derive_seed(config.seed, STAGE, "weights"))
        policy = DiffusionPolicy(config.pretrain.policy, data.obs.shape[1], data.action.shape[1])
    policy.action_low, policy.action_high = data.action_low, data.action_high
    policy.to(device).fit_normalisers(training.chunk, training.stacked, torch.from_numpy(data.action).to(device))
    generator = make_generator(config.seed, STAGE, "batches", device=device)
    return Cloner(policy, config.pretrain, training.chunk, training.stacked, generator)


def _find_collect_config(demos: Path, start: RunStart, reporter: Reporter) -> dict[str, Any] | None:
    """The settings that demonstrations were collected under; None if nobody collected them.

    Warns of a store that is not what was collected; editing it is allowed.
    """
    manifest = demos.with_name(MANIFEST_FILE)
    record = read_manifest(manifest) if is_there(manifest) else {"outputs": {}}
    recorded = record["outputs"].get(demos.name)
    if recorded not in (None, start.hashes[demos]):
        reporter.warn(f"{demos} is not what {manifest} records: it was edited since")
    return record.get("config") if recorded is not None and not is_imported(manifest) else None


def is_flat(history: Sequence[tuple[int, float]]) -> bool:
    """Whether success has stopped rising.

    It has if the best of the last quarter of the steps gained less than MIN_GAIN on the best before. A policy that
    has never succeeded may still begin to. `history` is gradient steps and success rate of every round, in order.
    """
    now = history[-1][0] if history else 0
    before = [success for step, success in history if step <= 0.75 * now]
    late = [success for step, success in history if step > 0.75 * now]
    return min(len(before), len(late)) >= MIN_ROUNDS and 0.0 < max(late) < max(before) + MIN_GAIN


class _Selection:
    """Rollouts of the averaged weights on selection seeds."""

    def __init__(
        self, config: RunConfig, env: TaskEnv, policy: DiffusionPolicy, recorder: GraphRecorder | None, warn: Warn
    ) -> None:
        names = (config.task.name, STAGE)
        self.env = env
        self._warn = warn
        self._seeds = episode_seeds(config.seed, "select", *names, episodes=env.num_envs, num_envs=env.num_envs)
        self._make_draws = partial(make_generator, config.seed, "select", *names, "noise", device=env.device)
        # a copy of its own: a simulator's tensors may be elsewhere, and recordings need weights that stay in place
        self._agent = graph_agent(make_base_agent(copy.deepcopy(policy).to(env.device)), recorder)
        self.history: list[tuple[int, float]] = []  # gradient steps taken and success rate of every round, in order
        self.best_weights: dict[str, Tensor] = {}  # those of the best round

    @property
    def best(self) -> tuple[int, float]:
        """The round whose weights are kept; of equal ones the last."""
        return max(self.history, key=lambda played: (played[1], played[0]))

    def play(self, step: int, policy: DiffusionPolicy) -> float:
        """Success rate of the policy as it would be deployed; its weights are kept while none are better."""
        weights = policy.state_dict()
        self._agent.policy.load_state_dict(weights)
        # the same starts and draws in every round, so that rounds differ by their weights alone
        draws = self._make_draws()
        success = score_candidate(self.env, self._agent, step, self._seeds, draws, self._warn).success_rate
        self.history.append((step, success))
        if self.best[0] == step:
            self.best_weights = {name: tensor.clone() for name, tensor in weights.items()}
        return success

    def play_chunks(self, shape: PolicyConfig) -> dict[int, float]:
        """Success rate of the kept weights that execute half or twice as many actions of a chunk, by their number."""
        policy = copy.deepcopy(self._agent.policy)
        policy.load_state_dict(self.best_weights)
        agent = make_base_agent(policy)  # not recorded, since a recording holds one number of actions
        most = shape.horizon - (shape.unet.past_steps if shape.unet else 0)
        played = {}
        for count in sorted({max(shape.n_action_steps // 2, 1), min(2 * shape.n_action_steps, most)}):
            if count != shape.n_action_steps:
                policy.config = shape.model_copy(update={"n_action_steps": count})
                played[count] = score_candidate(self.env, agent, 0, self._seeds, self._make_draws()).success_rate
        return played

    def state(self) -> Snapshot:
        """All that later rounds and decisions depend on."""
        return add_prefix("best", self.best_weights), {"history": list(self.history)}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.history = [(step, success) for step, success in values["history"]]
        self.best_weights = take_prefix("best", tensors)


@contextmanager
def _open_selection(
    config: RunConfig, policy: DiffusionPolicy, num_workers: int, stop: Stop, reporter: Reporter
) -> Iterator[_Selection | None]:
    """Opens the task for the rollouts of selection; None if there are to be none."""
    episodes = config.pretrain.selection.episodes
    if episodes == 0:
        yield None
        return
    device = select_stage_device(config)
    recorder = select_recorder(config, device)
    opened = open_env(
        config.task, policy, episodes, disturbed=False, device=device, num_workers=num_workers, recorder=recorder
    )
    with closing(opened) as env:
        yield _Selection(config, StoppableEnv(env, stop), policy, recorder, reporter.warn)


@dataclass
class _Run:
    """The training loop with its progress."""

    config: RunConfig
    cloner: Cloner
    selection: _Selection | None
    held_out: Windows
    checkpoints: Checkpoints
    reporter: Reporter
    rollbacks: int = 0  # how often training went back to its last good weights
    reported: int = 0  # the step of the last line in the log
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        execution = self.config.execution
        matmul = set_matmul(self.cloner.device, execution.cuda_matmul, execution.cpu_matmul)
        self.matmul = describe_training(matmul, self.config.pretrain.precision)
        if (saved := self.checkpoints.load()) is not None:
            self._restore(*saved)
            self.rollbacks, self.metrics = saved[1]["rollbacks"], saved[1].get("metrics", {})
            self.reporter.recall(saved[1]["warnings"])
            self.reporter.log(f"resuming at iteration {self.cloner.step}")

    def train(self) -> dict[str, float]:
        """Trains to the end; returns the last metrics."""
        cloner = self.cloner
        good, shown = self._state(), cloner.step
        folder, settings = self.checkpoints.folder, stage_slice(self.config, STAGE)
        tracker = open_tracker(self.config, folder.parent, settings, self.reported, folder=folder)
        with tracker, self.reporter.progress(STAGE, self.config.pretrain.iterations, cloner.step) as bar:
            while True:
                try:
                    # A rollout may be stopped halfway, and goes on from here: so reports come after this point, not
                    # before it, and what was saved here has not been reported.
                    self.checkpoints.save_if_due(cloner.step, self._pack)
                    is_report_due = self._is_at(self.config.pretrain.log_interval) or self._is_selection_due()
                    if is_report_due and cloner.step > self.reported:
                        tracker.log(cloner.step, self._report())
                        good = self._state()
                    if cloner.step >= self.config.pretrain.iterations or self._is_flat():
                        break
                    cloner.train_step()
                except DivergenceError as error:
                    self._roll_back(good, error)
                if cloner.step % PROGRESS_INTERVAL == 0:
                    bar.advance(cloner.step - shown, **self.metrics)
                    shown = cloner.step
        return self.metrics

    def kept(self) -> DiffusionPolicy:
        """The averaged policy with the weights that are kept: the best ones, or the last."""
        policy = self.cloner.ema.average
        if self.selection is not None:
            step, success = self.selection.best
            policy.load_state_dict(self.selection.best_weights)
            why = "success is flat" if self._is_flat() else "pretrain.iterations"
            self.reporter.log(f"kept iteration {step} of {self.cloner.step} ({why}): selection success {success:.3f}")
        return policy

    def compare_chunks(self) -> dict[str, float]:
        """Success rate of the kept weights by `n_action_steps`: as configured, half of it and twice; empty without
        rollouts.

        How often a policy looks may decide more than how long it was trained, and needs no training to find out.
        """
        if self.selection is None:
            return {}
        shape, (_, success) = self.config.pretrain.policy, self.selection.best
        played = self.selection.play_chunks(shape)
        for count, rate in played.items():
            self.reporter.log(f"with {count} executed actions of a chunk: selection success {rate:.3f}")
        better = {count: rate for count, rate in played.items() if rate >= success + CHUNK_GAIN}
        if better:
            count = max(better, key=lambda number: better[number])
            self.reporter.warn(
                f"with pretrain.policy.n_action_steps={count} instead of {shape.n_action_steps} the same weights "
                f"succeed in {better[count]:.3f} of the selection episodes instead of {success:.3f}"
            )
        return {str(count): rate for count, rate in sorted({**played, shape.n_action_steps: success}.items())}

    def _is_flat(self) -> bool:
        return self.selection is not None and is_flat(self.selection.history)

    def _is_selection_due(self) -> bool:
        return self.selection is not None and self._is_at(self.config.pretrain.selection.interval)

    def _is_at(self, interval: int) -> bool:
        """Whether another interval is over, or all of training."""
        return self.cloner.step % interval == 0 or self.cloner.step == self.config.pretrain.iterations

    def _report(self) -> dict[str, float]:
        """Measures the weights as they are."""
        cloner = self.cloner
        cloner.require_finite()
        selected = {}
        # first, since the stage may be stopped in here, and the sum of losses must then still be whole
        if self.selection is not None and self._is_selection_due():
            success = self.selection.play(cloner.step, cloner.ema.average)
            selected["select/success_rate"] = success
            self.reporter.log(f"iteration {cloner.step}: selection success {success:.3f}")
        metrics = {"learning_rate": cloner.last_learning_rate, "train_loss": cloner.take_mean_loss()}
        if len(self.held_out):
            chunk, stacked = self.held_out.chunk, self.held_out.stacked
            generator = make_generator(self.config.seed, STAGE, "validation", device=chunk.device)
            metrics["validation_loss"] = cloner.validate(chunk, stacked, generator)
        self.reported = cloner.step
        self.metrics = metrics | selected
        return self.metrics

    def _pack(self) -> Snapshot:
        self.cloner.require_finite()  # what is saved can be gone on from
        tensors, values = self._state()
        more = {"rollbacks": self.rollbacks, "metrics": self.metrics, "warnings": self.reporter.warnings}
        return tensors, {**values, **more}

    def _state(self) -> Snapshot:
        """All that training depends on."""
        tensors, values = self.cloner.state()
        selected, history = self.selection.state() if self.selection else ({}, {})
        return {**tensors, **selected}, {**values, **history, "reported": self.reported}

    def _restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.cloner.restore(tensors, values)
        self.reported = values["reported"]
        if self.selection is not None:
            self.selection.restore(tensors, values)

    def _roll_back(self, good: Snapshot, error: DivergenceError) -> None:
        """Goes back to weights that were sound, with a smaller step.

        Raises:
            TrainingError: it has happened too often.
        """
        if self.rollbacks >= MAX_ROLLBACKS:
            raise TrainingError(
                f"{error}; going back {self.rollbacks} times, each time with half the learning rate, didn't help"
            ) from error
        self.rollbacks += 1
        factor = self.cloner.rate_factor * STEP_FACTOR
        self._restore(*good)
        self.cloner.rate_factor = factor
        self.reporter.warn(
            f"{error}; going back to iteration {self.cloner.step} with half the learning rate "
            f"(rollback {self.rollbacks} of at most {MAX_ROLLBACKS})"
        )
