"""Stage `finetune`: the pre-trained policy learns from its own episodes, with or without mode codes."""

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.compute import describe_training
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.progress import add_prefix, take_prefix
from bmd_pipeline.io.provenance import RunStart, require_run, write_run
from bmd_pipeline.methods import check_method, method_family, uses_modes
from bmd_pipeline.modes.modes import DiscoveredModes, load_modes
from bmd_pipeline.rl.agent import FINETUNED_DOCUMENT, FINETUNED_WEIGHTS, make_agent, save_trained, trained_state
from bmd_pipeline.rl.rollout import balanced_codes, merge_rollouts, roll_out
from bmd_pipeline.rl.selection import Candidate, CollapseWatch, score_candidate
from bmd_pipeline.rl.trainer import Trainer, compute_max_steps, unpack_trainer
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import Checkpoints, Snapshot, describe_stage, open_checkpoints, open_tracker
from bmd_pipeline.stages.console import Reporter, Stop
from bmd_pipeline.stages.runtime import Context, count_rounds, episode_seeds, open_context
from bmd_pipeline.tasks import registry


def finetune(
    config: RunConfig,
    *,
    policy: Path,
    modes: Path | None,
    output: Path,
    method: str,
    seed: int,
    num_workers: int,
    reporter: Reporter,
    stop: Stop | None = None,
) -> None:
    """Fine-tunes a policy and keeps the iteration that is best on the selection seeds.

    A killed run goes on from its last checkpoint when the same command is given again. On the CPU, native tasks then
    give the same weights, byte for byte, as an uninterrupted run. Every iteration starts its episodes anew, so no
    simulator has to save one in the middle.

    Writes finetuned.safetensors, finetuned.json, metrics.jsonl and run.json. `-bmd` methods need modes, others ignore
    them.

    Raises:
        ConfigError: unknown method.
        ArtifactError: an input is missing or does not fit.
        TrainingError: training diverged, however small its steps.
        Stopped: somebody asked; progress is saved.
    """
    task = config.task.name
    check_method(method)
    inputs = {"policy": policy / RUN_FILE}
    if uses_modes(method):
        if modes is None:
            raise ArtifactError(f"{method} needs the output of `bmd-pipeline discover --task {task} --seed {seed}`")
        inputs["modes"] = modes / RUN_FILE
    start = RunStart(reporter.warn, *inputs.values())
    require_run(policy, "pretrain", task)
    if "modes" in inputs:
        require_run(inputs["modes"].parent, "discover", task, seed=seed)
    # progress made from another policy or other modes is of no use here
    origins = {name: start.hashes[path] for name, path in inputs.items()}
    precision = config.finetune.denoiser.precision if method_family(method) == "dppo" else "float32"
    identity: dict[str, Any] = {"method": method, "seed": seed, "inputs": origins}
    stop = stop or Stop()
    with open_context(config, policy, config.finetune.num_envs, num_workers, reporter, stop, disturbed=True) as context:
        found = load_modes(inputs["modes"].parent, context.policy, task=task) if "modes" in inputs else None
        run = _Run(config, context, found, method, seed, output, reporter)
        with open_checkpoints(config, "finetune", output, stop, reporter, **identity) as checkpoints:
            best = run.train(checkpoints)
            record = describe_stage(
                config,
                "finetune",
                inputs=inputs,
                start=start,
                seed=seed,
                method=method,
                device=context.device,
                kept=asdict(best),
                matmul_precision=describe_training(context.matmul, precision),
                rollbacks=run.trainer.rollbacks,
                warnings=reporter.warnings,
            )
            write_run(output, record, outputs=(FINETUNED_WEIGHTS, FINETUNED_DOCUMENT, METRICS_FILE))
            checkpoints.discard()


@dataclass
class _Run:
    """One fine-tuning run with its progress."""

    config: RunConfig
    context: Context
    modes: DiscoveredModes | None
    method: str
    seed: int
    output: Path
    reporter: Reporter
    start: Candidate | None = None  # until it has been scored
    best: Candidate | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config, context, settings, warn = self.config, self.context, self.config.finetune, self.reporter.warn
        self.names = (config.task.name, self.method, self.seed)
        torch.manual_seed(derive_seed(config.seed, "train", *self.names, "weights"))
        agent = make_agent(self.method, context.policy, self.modes, settings, config.discover.steering)
        self.trainer = Trainer(context.env, agent.to(context.device), settings, recorder=context.recorder, warn=warn)
        self.agent = self.trainer.agent  # its decisions may be recorded
        episodes = settings.num_envs * count_rounds(settings.selection.episodes, settings.num_envs)
        self.watch = CollapseWatch(self.agent.entropy_dims, episodes, warn)

    def train(self, checkpoints: Checkpoints) -> Candidate:
        """Trains to the end, writes the kept weights, and returns how they scored."""
        settings = self.config.finetune
        first = self._resume(checkpoints)
        tracker = open_tracker(self.config, self.output, settings.model_dump(mode="json"), first)
        with tracker, self.reporter.progress(self.method, settings.iterations, done=first) as progress:
            if self.best is None:  # nothing to go on from
                self._calibrate()
                self._select(0)
                self._remove_snapshots()  # of an earlier run
                self._snapshot(0)
            for iteration in range(first, settings.iterations):
                self.trainer.remember()
                checkpoints.save_if_due(iteration, self._pack)
                metrics = self._iterate(iteration)
                done = iteration + 1
                self.watch.see_metrics(done, metrics)
                if done % settings.selection.interval == 0 or done == settings.iterations:
                    scored = self._select(done)
                    metrics["select/success_rate"] = scored.success_rate
                    if self.modes is not None:
                        metrics["select/obeyed"] = scored.obeyed
                        metrics["select/lowest_success"] = min(scored.success_per_code)
                tracker.log(done, metrics)
                progress.advance(1, success=round(metrics["rollout/success_rate"], 3))
                self._snapshot(done)
        assert self.best is not None  # the start has been scored
        same_world = not registry.load_disturbance(self.config.task.env).describe()
        found = self.modes.findings if self.modes and same_world else {}  # of the demonstrations' world
        self.watch.see_kept(self.best, found.get("base_success_rate"), self.trainer.learner.demand)
        self._write_weights(self.output, self.best_weights, {"kept": asdict(self.best)})
        self.reporter.log(f"kept iteration {self.best.iteration}: selection success {self.best.success_rate:.3f}")
        return self.best

    def _calibrate(self) -> None:
        """Recalibrates the inference model on exploring episodes of the fine-tuning environment.

        Discovery calibrated it without disturbance and exploration. An over-confident model would pay large negative
        log-ratios where many episodes fail, and drown the environment's reward.
        """
        if self.modes is None or self.modes.coded is None:
            return
        settings, env, agent = self.config.finetune, self.context.env, self.agent
        for adapter in agent.adapters:
            adapter.begin_iteration(0)
        names = (*self.names, "calibration")
        generator = make_generator(self.config.seed, "train", *names, "noise", device=self.context.device)
        episodes = settings.selection.episodes
        rounds = []
        for seed in episode_seeds(self.config.seed, "train", *names, episodes=episodes, num_envs=env.num_envs):
            code = balanced_codes(env.num_envs, agent.num_codes, generator)
            warn = self.reporter.warn
            rounds.append(roll_out(env, agent, seed=seed, code=code, generator=generator, explore=True, warn=warn))
        played = merge_rollouts(rounds)
        histories = played.histories(self.modes.inference)[1:]
        self.modes.inference.calibrate(played.taken(histories), played.taken(played.code.expand_as(played.active_mask)))

    def _iterate(self, iteration: int) -> dict[str, float]:
        settings = self.config.finetune
        names = (*self.names, iteration)
        return self.trainer.iterate(
            iteration=iteration,
            seed=derive_seed(self.config.seed, "train", *names, "episodes"),
            generator=make_generator(self.config.seed, "train", *names, "noise", device=self.context.device),
            max_steps=compute_max_steps(settings.curriculum, iteration, self.context.env.spec.horizon),
            policy=iteration >= settings.ppo.value_warmup,
        )

    def _select(self, iteration: int) -> Candidate:
        """Scores the present weights on the selection seeds and keeps them if they are the best so far."""
        settings = self.config.finetune
        env, episodes, names = self.context.env, settings.selection.episodes, (*self.names, "selection")
        seeds = episode_seeds(self.config.seed, "select", *names, episodes=episodes, num_envs=env.num_envs)
        draws = make_generator(self.config.seed, "select", *names, "noise", device=self.context.device)
        scored = score_candidate(env, self.agent, iteration, seeds, draws, self.reporter.warn)
        self.watch.see_candidate(scored)
        self.start = self.start or scored
        if self.best is None or scored.is_better_than(self.best, self.start, settings.selection.min_obeyed_share):
            self.best = scored
            self.best_weights = trained_state(self.agent)
        self.reporter.log(
            f"iteration {iteration}: selection success {scored.success_rate:.3f}"
            + (f", obeyed {scored.obeyed:.3f}, lowest code {min(scored.success_per_code):.3f}" if self.modes else "")
        )
        return scored

    def _snapshot(self, iteration: int) -> None:
        """Keeps the present weights for the learning curve, if this is an iteration to keep."""
        interval = self.config.finetune.snapshot_interval
        if interval and (iteration % interval == 0 or iteration == self.config.finetune.iterations):
            folder = Layout.snapshots(self.output) / f"{iteration:06d}"
            self._write_weights(folder, trained_state(self.agent), {"iteration": iteration})

    def _remove_snapshots(self) -> None:
        for folder in Layout.snapshots(self.output).glob("*"):
            with suppress(OSError):  # with somebody's file in it, it stays
                for name in (FINETUNED_WEIGHTS, FINETUNED_DOCUMENT):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()

    def _write_weights(self, folder: Path, weights: dict[str, Tensor], extra: dict[str, Any]) -> None:
        document: dict[str, Any] = {
            "task": self.config.task.name,
            "method": self.method,
            "finetune": self.config.finetune.model_dump(mode="json"),
            "steering": self.config.discover.steering.model_dump(mode="json"),
            "policy_sha256": self.context.policy.fingerprint,
            "modes_sha256": self.modes.fingerprint if self.modes else None,
        }
        save_trained(folder, weights, document | extra)

    def _pack(self) -> Snapshot:
        """Progress as it was before the present iteration."""
        assert self.best is not None  # the start is scored before the first iteration
        assert self.start is not None
        tensors, values = self.trainer.before
        return tensors | add_prefix("best", self.best_weights), {
            **values,
            "best": asdict(self.best),
            "start": asdict(self.start),
            "rollbacks": self.trainer.rollbacks,
            "watch": self.watch.state(),
            "warnings": self.reporter.warnings,
        }

    def _resume(self, checkpoints: Checkpoints) -> int:
        """Puts saved progress back; returns the iterations already done."""
        saved = checkpoints.load()
        if saved is None:
            return 0
        tensors, values = saved
        unpack_trainer(self.trainer, tensors, values)
        self.best, self.start = Candidate(**values["best"]), Candidate(**values["start"])
        self.best_weights = take_prefix("best", tensors)
        self.trainer.rollbacks = values["rollbacks"]
        self.watch.load_state(values["watch"])
        self.reporter.recall(values["warnings"])
        done = int(values["step"])
        self.context.log_resume(f"iteration {done}", self.reporter)
        return done
