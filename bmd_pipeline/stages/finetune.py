"""The stage `finetune`: reinforcement learning from the pre-trained policy, with or without mode codes."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.artifacts.atomic import write_json
from bmd_pipeline.artifacts.hashing import hash_file
from bmd_pipeline.artifacts.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.artifacts.progress_state import (
    TrainingState,
    add_prefix,
    pack_optimizer,
    take_prefix,
    unpack_optimizer,
)
from bmd_pipeline.artifacts.provenance import require_run, write_run
from bmd_pipeline.artifacts.tracking import Tracker
from bmd_pipeline.artifacts.weights import save_weights
from bmd_pipeline.config.hashing import hash_values, stage_hash, stage_slice
from bmd_pipeline.config.methods import check_method, uses_modes
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.modes.discovered import DiscoveredModes, load_modes
from bmd_pipeline.rl.agents import make_agent
from bmd_pipeline.rl.curriculum import compute_max_steps
from bmd_pipeline.rl.selection import Candidate, score_candidate
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.rl.tuned import TUNED_DOCUMENT, TUNED_WEIGHTS, load_trained, trained_state
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.workbench import Workbench, episode_seeds, open_workbench

SCHEMA_VERSION = 1


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
) -> None:
    """Fine-tunes a policy and keeps the iteration that is best on the selection seeds.

    A killed run goes on from its last checkpoint when the same command is given again.

    Args:
        config: the run.
        policy: folder of the pre-trained policy.
        modes: folder of the discovered modes; needed by `-bmd` methods, ignored by the others.
        output: folder for tuned.safetensors, tuned.json, metrics.jsonl and run.json.
        method: one of `config.finetune.METHODS`.
        seed: which repetition this is.
        num_workers: simulator processes.
        reporter: progress.

    Raises:
        ConfigError: unknown method.
        ArtifactError: an input is missing or does not fit.
        TrainingError: a loss is not finite.
    """
    started = time.time()
    task = config.task.name
    check_method(method)
    require_run(policy, "pretrain", task)
    inputs = {"policy": policy}
    if uses_modes(method):
        modes = modes or Layout().modes(task, seed)
        require_run(modes, "discover", task)
        inputs["modes"] = modes
    # progress made from another policy or other modes is of no use here
    identity = hash_values(
        {
            "config": stage_hash(config, "finetune", method),
            "method": method,
            "seed": seed,
            "inputs": {name: hash_file(path / RUN_FILE) for name, path in inputs.items()},
        }
    )
    with open_workbench(config, policy, config.finetune.num_envs, num_workers, reporter) as bench:
        found = load_modes(inputs["modes"], bench.policy, task=task) if "modes" in inputs else None
        run = _Run(config, bench, found, method, seed, output, reporter)
        with TrainingState(Layout.state(output), identity) as state:
            (output / RUN_FILE).unlink(missing_ok=True)  # from here on the folder is not complete
            best = run.train(state)
            write_run(
                output,
                stage="finetune",
                task=task,
                config=stage_slice(config, "finetune", method),
                config_hash=stage_hash(config, "finetune", method),
                seed=seed,
                inputs=inputs,
                outputs=(TUNED_WEIGHTS, TUNED_DOCUMENT, METRICS_FILE),
                started=started,
                device=bench.device,
                extra={"method": method, "kept": asdict(best)},
            )
            state.discard()


class _Run:
    """One fine-tuning run with its progress."""

    def __init__(
        self,
        config: RunConfig,
        bench: Workbench,
        modes: DiscoveredModes | None,
        method: str,
        seed: int,
        output: Path,
        reporter: Reporter,
    ) -> None:
        self.config = config
        self.bench = bench
        self.modes = modes
        self.method = method
        self.names = (config.task.name, method, seed)
        self.output = output
        self.reporter = reporter
        settings = config.finetune
        torch.manual_seed(derive_seed(config.seed, "train", *self.names, "weights"))
        self.agent = make_agent(method, bench.policy, modes, settings, config.discover.steering)
        self.agent.to(bench.device)
        self.trainer = Trainer(bench.env, self.agent, settings.ppo, config.discover, settings.regulariser)
        share = settings.selection.min_information_share
        self.required = share * float(modes.findings["final_information"]) if modes else 0.0
        self.best: Candidate | None = None  # until the start has been scored
        self.best_weights: dict[str, Tensor] = {}

    def train(self, state: TrainingState) -> Candidate:
        """Trains to the end, writes the kept weights, and returns how they scored."""
        settings = self.config.finetune
        first = self._resume(state)
        with (
            Tracker(
                self.output / METRICS_FILE,
                self.config.execution.tracker,
                name="-".join(map(str, self.names)),
                group=self.config.task.name,
                config=settings.model_dump(mode="json"),
                resume_step=first,
            ) as tracker,
            self.reporter.progress(self.method, settings.iterations, done=first) as progress,
        ):
            best = self.best or self._select(0)
            for iteration in range(first, settings.iterations):
                metrics = self._iterate(iteration)
                done = iteration + 1
                if done % settings.selection.interval == 0 or done == settings.iterations:
                    scored = self._select(done)
                    metrics["select/success_rate"] = scored.success_rate
                    metrics["select/information"] = scored.information
                tracker.log(done, metrics)
                progress.advance(1, success=round(metrics["rollout/success_rate"], 3))
                if done % settings.checkpoint_interval == 0:
                    self._save(state, done)
        best = self.best or best
        self._write(best)
        return best

    def _iterate(self, iteration: int) -> dict[str, float]:
        settings = self.config.finetune
        names = (*self.names, iteration)
        return self.trainer.iterate(
            iteration=iteration,
            seed=derive_seed(self.config.seed, "train", *names, "episodes"),
            generator=make_generator(self.config.seed, "train", *names, "noise", device=self.bench.device),
            max_steps=compute_max_steps(settings.curriculum, iteration, self.bench.spec.horizon),
            policy=iteration >= settings.ppo.value_warmup,
        )

    def _select(self, iteration: int) -> Candidate:
        """Scores the present weights on the selection seeds and keeps them if they are the best so far."""
        settings = self.config.finetune
        names = (*self.names, "selection")
        scored = score_candidate(
            self.bench.env,
            self.agent,
            iteration,
            episode_seeds(
                self.config.seed,
                "select",
                *names,
                episodes=settings.selection.episodes,
                num_envs=settings.num_envs,
            ),
            make_generator(self.config.seed, "select", *names, "noise", device=self.bench.device),
        )
        if self.best is None or scored.beats(self.best, self.required):
            self.best = scored
            self.best_weights = trained_state(self.agent)
        self.reporter.log(
            f"iteration {iteration}: selection success {scored.success_rate:.3f}"
            + (f", information {scored.information:.3f} nats" if self.modes else "")
        )
        return scored

    def _write(self, best: Candidate) -> None:
        save_weights(self.output / TUNED_WEIGHTS, self.best_weights)
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "task": self.config.task.name,
            "method": self.method,
            "finetune": self.config.finetune.model_dump(mode="json"),
            "steering": self.config.discover.steering.model_dump(mode="json"),
            "policy_sha256": self.bench.policy.fingerprint,
            "modes_sha256": self.modes.fingerprint if self.modes else None,
            "kept": asdict(best),
        }
        write_json(self.output / TUNED_DOCUMENT, document)
        self.reporter.log(f"kept iteration {best.iteration}: selection success {best.success_rate:.3f}")

    def _save(self, state: TrainingState, done: int) -> None:
        if self.best is None:
            return
        policy_tensors, policy_values = pack_optimizer(self.trainer.ppo.optimizer)
        tensors = (
            add_prefix("agent", trained_state(self.agent))
            | add_prefix("best", self.best_weights)
            | add_prefix("critic", self.trainer.critic.state_dict())
            | add_prefix("policy_optimizer", policy_tensors)
        )
        values: dict[str, Any] = {
            "step": done,
            "best": asdict(self.best),
            "policy_optimizer": policy_values,
        }
        if self.trainer.controller is not None:
            values["controller"] = self.trainer.controller.state()
        if self.trainer.inference_optimizer is not None:
            inference_tensors, values["inference_optimizer"] = pack_optimizer(self.trainer.inference_optimizer)
            tensors |= add_prefix("inference_optimizer", inference_tensors)
        state.save(tensors, values)

    def _resume(self, state: TrainingState) -> int:
        """Puts saved progress back; returns the iterations already done."""
        saved = state.load()
        if saved is None:
            return 0
        tensors, values = saved
        load_trained(self.agent, take_prefix("agent", tensors))
        self.trainer.critic.load_state_dict(take_prefix("critic", tensors))
        unpack_optimizer(
            self.trainer.ppo.optimizer, take_prefix("policy_optimizer", tensors), values["policy_optimizer"]
        )
        if self.trainer.controller is not None:
            self.trainer.controller.load_state(values["controller"])
        if self.trainer.inference_optimizer is not None:
            unpack_optimizer(
                self.trainer.inference_optimizer,
                take_prefix("inference_optimizer", tensors),
                values["inference_optimizer"],
            )
        self.best = Candidate(**values["best"])
        self.best_weights = take_prefix("best", tensors)
        self.reporter.log(f"going on from iteration {values['step']}")
        return int(values["step"])
