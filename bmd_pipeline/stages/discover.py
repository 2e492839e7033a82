"""The stage `discover`: which behaviours are there, and how is each commanded?"""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.config.hashing import stage_hash, stage_slice
from bmd_pipeline.config.schema import RegulariserConfig, RunConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.errors import TrainingError
from bmd_pipeline.io.files import hash_file, hash_tree
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.logger import Tracker
from bmd_pipeline.io.progress import add_prefix, take_prefix
from bmd_pipeline.io.provenance import describe_run, require_own_demos, require_run, write_run
from bmd_pipeline.modes.inference import fit_inference
from bmd_pipeline.modes.modes import CENTRES, DOCUMENT, WEIGHTS, DiscoveredModes, make_modes
from bmd_pipeline.modes.teaching import Clusters, cluster_demos, describe_demos, teach_codes
from bmd_pipeline.policies.bc import make_windows
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import Agent, make_base_agent, make_commanded_agent
from bmd_pipeline.rl.rollout import (
    Rollout,
    compute_code_success,
    compute_obeyed,
    measure_commanded,
    merge_rollouts,
    play_rounds,
    read_behaviours,
)
from bmd_pipeline.rl.trainer import Trainer, unpack_trainer
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import Checkpoints, Snapshot, make_identity, make_wait
from bmd_pipeline.stages.console import Reporter, Stop
from bmd_pipeline.stages.pretrain import load_task_demos
from bmd_pipeline.stages.runtime import Context, episode_seeds, open_context, resolve_features

# ---- The phases of a discovery, each of which a killed run goes on from ----

MIN_INFORMATION = 0.1
"""Held-out M in nats below which a discovery warns that it found no modes: two codes that are always told apart have
.69, and an inference model that knows nothing scatters around 0."""
STRENGTH_MARGIN = 0.01
"""By how much more episodes must succeed as told for codes to be stretched further."""


class Discovery:
    """Trains modes in place, phase by phase, and measures them.

    Args:
        config: the run.
        context: task and policy.
        modes: untrained networks.
        demos: the demonstrations; None in the published form.
        seed: which repetition this is.
        output: folder of metrics.jsonl.
        checkpoints: progress, and who may ask to stop.
        reporter: progress for people.

    Attributes:
        modes: what has been found so far.
        rollbacks: how often an iteration of the warm-up was rolled back.
    """

    def __init__(
        self,
        config: RunConfig,
        context: Context,
        modes: DiscoveredModes,
        demos: Demos | None,
        seed: int,
        output: Path,
        checkpoints: Checkpoints,
        reporter: Reporter,
    ) -> None:
        self.config = config
        self.context = context
        self.modes = modes
        self.demos = demos
        self.names = (config.task.name, seed)
        self.output = output
        self.checkpoints = checkpoints
        self.reporter = reporter
        self.rollbacks = 0
        self._done: list[str] = []  # phases
        self._step = 0  # boundaries so far
        self._rounds: list[Rollout] = []  # of the present phase
        self._draws: torch.Generator | None = None  # of the present phase
        self._saved_draws: Tensor | None = None
        self._trainer: Trainer | None = None  # of the warm-up
        self._iteration = 0  # of the warm-up
        self._trained: Snapshot | None = None  # progress of the warm-up

    def run(self) -> None:
        """Goes through the phases that are still to be done."""
        self._resume()
        with self._open_tracker() as tracker:
            phases: dict[str, Callable[[], None]]
            if self.config.discover.form == "coded":
                strengths = sorted(self.config.discover.teaching.strengths)
                phases = {
                    "teach": self._teach,
                    **{f"strength {value}": functools.partial(self._try_strength, value) for value in strengths},
                    "stretch": self._choose_strength,
                    "hindsight": self._learn_in_hindsight,
                }
            else:
                phases = {"scale": self._fit_scale, "warm-up": functools.partial(self._warm_up, tracker)}
            phases |= {"base": self._measure_base, "commanded": self._measure_commanded}
            for name, phase in phases.items():
                if name not in self._done:
                    phase()
                    self._finish(name)

    def _finish(self, phase: str) -> None:
        """Saves what a phase has made, once it is sure to be of use."""
        for name, tensor in self.modes.networks().state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise TrainingError(f"discovery made {name} not finite: look for huge values in demonstrations or task")
        self._done.append(phase)
        self._rounds, self._draws, self._trainer = [], None, None
        self._mark(save=True)

    # phases ------------------------------------------------------------------------------------------

    def _teach(self) -> None:
        """Clusters the demonstrations, and teaches the denoiser a code for each cluster."""
        settings, policy = self.config.discover, self.context.policy
        assert self.demos is not None  # the stage has seen to that
        windows = make_windows(self.demos, policy.config).to(self.context.device)
        cond = policy.encode(windows.stacked)
        points = describe_demos(self.demos, cond, policy.obs_dim, settings.cluster_points)
        clusters = cluster_demos(points, settings, self._derive("clusters"))
        self._tell_clusters(clusters)
        self._resize(len(clusters.centres))
        lengths = torch.from_numpy(self.demos.episode_ends - self.demos.episode_starts).to(self.context.device)
        with self.reporter.progress("teaching codes", settings.teaching.steps) as progress:
            self.modes.coded = teach_codes(
                policy,
                policy.normalise_chunk(windows.chunk),
                cond,
                clusters.code.repeat_interleave(lengths),
                len(clusters.centres),
                settings.teaching,
                self._begin("teach"),
                progress.advance,
            )
        self.modes.centres = clusters.centres
        self.modes.findings["cluster_sizes"] = clusters.sizes

    def _tell_clusters(self, clusters: Clusters) -> None:
        settings, sizes = self.config.discover, clusters.sizes
        if clusters.by_density:
            shares = ", ".join(f"{size / sum(sizes):.1%}" for size in sorted(sizes, reverse=True))
            more = ", as many as discover.num_modes allows" if len(sizes) == settings.num_modes else ""
            self.reporter.log(f"{len(sizes)} behaviours in {sum(sizes)} demonstrations ({shares}){more}")
        elif settings.clustering == "density":
            self.reporter.warn(
                f"no gap divides the {sum(sizes)} demonstrations into behaviours; k-means cuts them into "
                f"discover.num_modes ({settings.num_modes}). Look at them before you trust the codes"
            )

    def _try_strength(self, strength: float) -> None:
        """Plays the taught policy with its codes stretched, and counts the successes that show what was asked for."""
        modes = replace(self.modes, coded=self._stretch(strength))
        played = self._play_codes(
            make_commanded_agent(self.context.policy, modes), f"strength {strength:g}", "strength"
        )
        success = compute_code_success(played, modes.num_codes)
        obeyed = compute_obeyed(read_behaviours(modes, played), played, modes.num_codes)
        as_told = float((success * obeyed).mean())
        self.modes.findings.setdefault("as_told_by_strength", []).append(as_told)
        self.reporter.log(
            f"codes stretched by {strength:g}: success {float(success.mean()):.3f}, as told {as_told:.3f}"
        )

    def _choose_strength(self) -> None:
        """Stretches the codes as far as paid, and no further than that."""
        strengths = sorted(self.config.discover.teaching.strengths)
        scores = self.modes.findings["as_told_by_strength"]
        chosen = 0
        for index, score in enumerate(scores):
            if score > scores[chosen] + STRENGTH_MARGIN:
                chosen = index
        self.modes.coded = self._stretch(strengths[chosen])
        self.modes.findings["strength"] = strengths[chosen]

    def _stretch(self, strength: float) -> DiffusionPolicy:
        """A copy of the taught policy whose codes speak louder."""
        stretched = copy.deepcopy(self.modes.coded)
        assert stretched is not None
        stretched.denoiser.stretch_codes(strength)
        return stretched

    def _learn_in_hindsight(self) -> None:
        """Teaches the inference model what each behaviour looks like, then how often a command is obeyed."""
        modes, settings = self.modes, self.config.discover
        agent = make_commanded_agent(self.context.policy, modes)
        played = self._play_codes(agent, "hindsight", episodes=settings.hindsight_episodes)
        modes.inference.fit_scale(played.features[1:], played.active_mask)
        shown = read_behaviours(modes, played)
        # what failed may have shown nothing; without enough successes it is all there is
        kept = played.success if int(played.success.sum()) >= modes.num_codes else torch.ones_like(played.success)
        taken = played.active_mask & kept
        histories = played.histories(modes.inference)[1:]
        modes.inference.requires_grad_(True)
        fit_inference(modes.inference, histories[taken], shown.expand_as(taken)[taken], self._begin("inference"))
        modes.inference.requires_grad_(False)
        modes.inference.calibrate(played.taken(histories), played.taken(played.code.expand_as(played.active_mask)))

    def _fit_scale(self) -> None:
        """The scale of the features, from episodes of the base policy."""
        agent, seeds = make_base_agent(self.context.policy), self._seeds(episodes=self.config.discover.num_envs)
        played = self._play(agent, "playing the base policy", seeds, self._begin("scale"), explore=True)
        self.modes.inference.fit_scale(played.features[1:], played.active_mask)

    def _resize(self, num_codes: int) -> None:
        """Makes the networks anew for another number of codes."""
        if num_codes == self.modes.num_codes:
            return
        config = self.modes.config.model_copy(update={"num_modes": num_codes})
        fresh = make_modes(config, self.context.policy, self.modes.feature_columns)
        fresh.networks().to(self.context.device)
        fresh.findings = self.modes.findings
        self.modes = fresh

    def _warm_up(self, tracker: Tracker) -> None:
        """E_wp rounds on the intrinsic reward alone (BMD, arXiv 2605.11387)."""
        settings = self.config.discover
        agent = make_commanded_agent(self.context.policy, self.modes)
        self.modes.networks().requires_grad_(True)
        self.context.policy.requires_grad_(False)
        regulariser = RegulariserConfig(floor=self.config.finetune.regulariser.floor)
        trainer = Trainer(
            self.context.env,
            agent,
            self.config.finetune.ppo,
            regulariser,
            recorder=self.context.recorder,
            warn=self.reporter.warn,
        )
        if self._trained is not None:
            unpack_trainer(trainer, *self._trained)
        trainer.rollbacks = self.rollbacks
        self._trainer = trainer
        total = settings.warmup_iterations
        with self.reporter.progress("discovering modes", total, self._iteration) as progress:
            while (iteration := self._iteration) < total:
                trainer.remember()
                self._mark()
                names = ("warm-up", iteration)
                metrics = trainer.iterate(
                    iteration=iteration,
                    seed=self._derive(*names, "episodes"),
                    generator=self._make_generator(*names, "noise"),
                    intrinsic_only=True,
                )
                self._iteration, self.rollbacks = iteration + 1, trainer.rollbacks
                tracker.log(self._iteration, metrics)
                progress.advance(
                    1, M=round(metrics["modes/information"], 3), success=round(metrics["rollout/success_rate"], 3)
                )

    def _measure_base(self) -> None:
        """The base policy plays the held-out episodes too, so that the price of commanding it is not luck."""
        played = self._play_codes(make_base_agent(self.context.policy), "held-out")
        self.modes.findings["base_success_rate"] = float(played.success.float().mean())

    def _measure_commanded(self) -> None:
        """Multimodality and success of the commanded, still frozen policy, on held-out episodes."""
        played = self._play_codes(make_commanded_agent(self.context.policy, self.modes), "held-out")
        self.modes.findings |= measure_commanded(self.modes, played)

    # playing -----------------------------------------------------------------------------------------

    def _play(
        self, agent: Agent, what: str, seeds: Sequence[int], generator: torch.Generator, *, explore: bool
    ) -> Rollout:
        """Plays a round per seed, except those that an earlier job has played, and joins them."""
        known = len(self._rounds)
        columns = self.modes.feature_columns
        rounds = play_rounds(
            self.context.env, agent, seeds, generator, explore=explore, feature_columns=columns, first=known
        )
        with self.reporter.progress(what, len(seeds), known) as progress:
            for _ in range(known, len(seeds)):
                self._mark()
                self._rounds.append(next(rounds))
                progress.advance(1)
        return merge_rollouts(self._rounds)

    def _play_codes(
        self, agent: Agent, what: str, purpose: str | None = None, *, episodes: int | None = None
    ) -> Rollout:
        """Episodes with codes in equal numbers, as deployed; their starts depend on the purpose alone."""
        purpose = purpose or what
        seeds = self._seeds(purpose, episodes=episodes or self.config.discover.heldout_episodes)
        return self._play(agent, what, seeds, self._begin(purpose, "noise"), explore=False)

    def _seeds(self, *names: str, episodes: int) -> list[int]:
        num_envs = self.config.discover.num_envs
        return episode_seeds(self.config.seed, "discover", *self.names, *names, episodes=episodes, num_envs=num_envs)

    def _derive(self, *names: str | int) -> int:
        return derive_seed(self.config.seed, "discover", *self.names, *names)

    def _make_generator(self, *names: str | int) -> torch.Generator:
        return make_generator(self.config.seed, "discover", *self.names, *names, device=self.context.device)

    def _begin(self, *names: str | int) -> torch.Generator:
        """The generator of a phase, where it was when progress was saved, or fresh."""
        self._draws = self._make_generator(*names)
        if self._saved_draws is not None:
            self._draws.set_state(self._saved_draws)
            self._saved_draws = None
        return self._draws

    # progress ----------------------------------------------------------------------------------------

    def _mark(self, *, save: bool = False) -> None:
        """A point from which a later job can go on."""
        self._step += 1
        draws = None if self._draws is None else self._draws.get_state()  # a round that is begun moves it on
        self.checkpoints.save_if_due(self._step, functools.partial(self._pack, draws), save=save)

    def _pack(self, draws: Tensor | None) -> Snapshot:
        modes, trainer = self.modes, self._trainer
        tensors, values = trainer.before if trainer is not None else ({}, {})
        tensors = {
            **tensors,
            **add_prefix("modes", modes.networks().state_dict()),
            **add_prefix("rounds", pack_rounds(self._rounds)),
            "torch": torch.get_rng_state(),  # layers that are made later draw from it
        }
        if modes.centres is not None:
            tensors[CENTRES] = modes.centres
        if draws is not None:
            tensors["draws"] = draws
        return tensors, {
            **values,
            "done": self._done,
            "iteration": self._iteration,
            "rollbacks": self.rollbacks if trainer is None else trainer.rollbacks,
            "findings": modes.findings,
            "num_codes": modes.num_codes,
            "feature_columns": list(self._rounds[0].feature_columns) if self._rounds else [],
            "warnings": self.reporter.warnings,
        }

    def _resume(self) -> None:
        """Puts saved progress back."""
        saved = self.checkpoints.load()
        if saved is None:
            return
        tensors, values = saved
        device = self.context.device
        self._resize(values["num_codes"])
        self.modes.networks().load_state_dict(take_prefix("modes", tensors))
        self.modes.centres = tensors[CENTRES].to(device) if CENTRES in tensors else None
        self.modes.findings = values["findings"]
        self._rounds = unpack_rounds(take_prefix("rounds", tensors), values["feature_columns"], device)
        self._saved_draws = tensors.get("draws")
        torch.set_rng_state(tensors["torch"])
        self._done, self._step, self._iteration = values["done"], values["step"], values["iteration"]
        self._trained = saved if "policy_optimizer" in values else None
        self.rollbacks = values["rollbacks"]
        self.reporter.recall(values["warnings"])
        done = f"after {', '.join(self._done)}" if self._done else "from the start"
        self.context.log_resume(f"saved progress ({done})", self.reporter)

    def _open_tracker(self) -> Tracker:
        return Tracker(
            self.output / METRICS_FILE,
            self.config.execution.tracker,
            name=self.output.as_posix(),
            group=self.config.execution.group or self.config.task.name,
            config=self.config.discover.model_dump(mode="json"),
            resume_step=self._iteration,
        )


# ---- Played rounds of episodes as tensors, so that a checkpoint can hold them ----


def pack_rounds(rounds: Sequence[Rollout]) -> dict[str, Tensor]:
    """Tensors of rollouts by `<round>.<field>`; those of the record by `<round>.record.<name>`."""
    tensors: dict[str, Tensor] = {}
    for index, played in enumerate(rounds):
        for field in dataclasses.fields(played):
            value = getattr(played, field.name)
            parts = value if isinstance(value, dict) else {"": value}
            for name, part in parts.items():
                if isinstance(part, Tensor):  # rounds may share one, which a file of tensors can't
                    tensors[f"{index}.{field.name}.{name}".rstrip(".")] = part.clone()
    return tensors


def unpack_rounds(tensors: Mapping[str, Tensor], feature_columns: Sequence[int], device: torch.device) -> list[Rollout]:
    """Restores what `pack_rounds` took.

    Args:
        tensors: from `pack_rounds`.
        feature_columns: what the rollouts say of their track, which is no tensor.
        device: where to put them.
    """
    found: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, field, *name = key.split(".", 2)
        values = found.setdefault(int(index), {"record": {}, "feature_columns": tuple(feature_columns)})
        if name:
            values[field][name[0]] = tensor.to(device)
        else:
            values[field] = tensor.to(device)
    return [Rollout(**found[index]) for index in sorted(found)]


# ---- The stage `discover`: which behaviours are there, and how is each commanded? ----


def discover(
    config: RunConfig,
    *,
    policy: Path,
    demos: Path | None,
    output: Path,
    seed: int,
    num_workers: int,
    reporter: Reporter,
    stop: Stop | None = None,
) -> None:
    """Finds behaviours without labels, and makes a policy that shows each on command; writes both to `output`.

    In the coded form they are those of the demonstrations, and the policy is taught a code for each; in the published
    form they are those of the frozen policy, commanded through its noise.

    A killed run goes on from its last checkpoint when the same command is given again. On the CPU, native tasks then
    give the same modes, byte for byte, as an uninterrupted run.

    Args:
        config: the run.
        policy: folder of the pre-trained policy.
        demos: the demonstration store; the published form needs none.
        output: folder for modes.safetensors, modes.json, metrics.jsonl and run.json.
        seed: which repetition this is.
        num_workers: simulator processes.
        reporter: progress.
        stop: who may ask to stop early.

    Raises:
        ArtifactError: the policy is missing or does not fit.
        ConfigError: an imported policy is to be taught codes on demonstrations that were not imported.
        DataError: the demonstrations are missing, damaged or of another task.
        TrainingError: there are too few demonstrations to cluster, or training diverged.
        Stopped: somebody asked; progress is saved.
    """
    started = time.time()
    task = config.task.name
    require_run(policy, "pretrain", task)
    settings = config.discover
    stop = stop or Stop()
    inputs = {"policy": policy}
    data = None
    origins = {"policy": hash_file(policy / RUN_FILE)}
    if settings.form == "coded":
        inputs["demos"] = demos = demos or Layout().demos(task)
        require_own_demos(policy, demos)
        data, origins["demos"] = load_task_demos(config, demos), hash_tree(demos)
    identity = make_identity(config, "discover", seed=seed, **origins)
    with open_context(config, policy, settings.num_envs, num_workers, reporter, stop, disturbed=False) as context:
        columns = resolve_features(context.spec, settings.inference.features)
        torch.manual_seed(derive_seed(config.seed, "discover", task, seed, "weights"))
        modes = make_modes(settings, context.policy, columns)
        modes.networks().to(context.device)
        checkpoints = Checkpoints(
            output, identity, stop, minutes=config.execution.checkpoint_minutes, wait=make_wait(config, stop, reporter)
        )
        with checkpoints:
            (output / RUN_FILE).unlink(missing_ok=True)  # from here on the folder is not complete
            discovery = Discovery(config, context, modes, data, seed, output, checkpoints, reporter)
            discovery.run()
            modes = discovery.modes
            _log_findings(modes, reporter)
            modes.save(output, task, context.policy)
            write_run(
                output,
                describe_run(
                    stage="discover",
                    task=task,
                    config=stage_slice(config, "discover"),
                    config_hash=stage_hash(config, "discover"),
                    seed=seed,
                    inputs=inputs,
                    started=started,
                    device=context.device,
                    extra={
                        "findings": modes.findings,
                        "matmul_precision": context.matmul,
                        "rollbacks": discovery.rollbacks,
                        "warnings": reporter.warnings,
                    },
                ),
                outputs=(WEIGHTS, DOCUMENT, METRICS_FILE),
            )
            checkpoints.discard()


def _log_findings(modes: DiscoveredModes, reporter: Reporter) -> None:
    """Logs what was found, and warns where it is too little."""
    found = modes.findings
    if modes.coded is not None:
        reporter.log(
            f"codes are obeyed by {found['obeyed']:.3f} of their successes, the worst by "
            f"{min(found['obeyed_per_code']):.3f}; success per code {min(found['success_rate_per_code']):.3f} to "
            f"{max(found['success_rate_per_code']):.3f}"
        )
    reporter.log(
        f"held-out multimodality M = {found['information']:.3f} nats per state, {found['final_information']:.3f} "
        f"at the end (at most {found['information_bound']:.3f}); commanded success {found['success_rate']:.3f}, "
        f"base {found['base_success_rate']:.3f}"
    )
    if found["information"] < MIN_INFORMATION:
        reporter.warn(
            f"no modes found: M = {found['information']:.3f} nats is below {MIN_INFORMATION}. The "
            "policy behaves much the same whatever code it is given: look at results/<Task>/modes/validation.json, and "
            "collect more varied demonstrations if there is one behaviour alone"
        )
    chance = 1.0 / modes.num_codes
    dead = [k for k, share in enumerate(found["obeyed_per_code"]) if share <= chance]
    if dead:
        reporter.warn(
            f"dead codes: commanding {', '.join(map(str, dead))} brings about its own behaviour no more often than "
            f"chance ({chance:.2f}); there may be fewer behaviours than codes ({modes.num_codes})"
        )
