"""Stage `discover`: finds behavioural modes and a code that commands each."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.config.schema import RegulariserConfig, RunConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.errors import ArtifactError, TrainingError
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE
from bmd_pipeline.io.logger import Tracker
from bmd_pipeline.io.progress import add_prefix, take_prefix
from bmd_pipeline.io.provenance import RunStart, require_own_demos, require_run, write_run
from bmd_pipeline.modes.inference import fit_inference
from bmd_pipeline.modes.modes import (
    DOCUMENT,
    DROPPED,
    WEIGHTS,
    CodedClusters,
    DiscoveredModes,
    make_modes,
    take_clusters,
)
from bmd_pipeline.modes.teaching import Clusters, Teacher, cluster_demos, describe_demos
from bmd_pipeline.policies.bc import make_windows
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import Agent, make_base_agent, make_commanded_agent
from bmd_pipeline.rl.graphs import graph_agent
from bmd_pipeline.rl.rollout import (
    Rollout,
    compute_code_success,
    compute_obeyed_by_cluster,
    find_dead_codes,
    measure_commanded,
    merge_rollouts,
    play_rounds,
    read_behaviours,
)
from bmd_pipeline.rl.trainer import Trainer, unpack_trainer
from bmd_pipeline.seeds import Family, derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import Checkpoints, Snapshot, describe_stage, open_checkpoints, open_tracker
from bmd_pipeline.stages.console import Reporter, Stop
from bmd_pipeline.stages.pretrain import load_task_demos
from bmd_pipeline.stages.runtime import Context, episode_seeds, open_context, resolve_features

# ---- The phases of a discovery, each of which a killed run goes on from ----

MIN_INFORMATION = 0.1
"""published: held-out mutual information M in nats below which `discover` warns that codes do nothing. Two codes that
are always told apart have 0.69; an untrained model scores about 0."""
STRENGTH_MARGIN = 0.01
"""By how much more episodes must succeed as told for codes to be stretched further."""
TEACHING_POINT = 50
"""Gradient steps between two points from which teaching can go on; a step takes some hundredths of a second."""


@dataclass
class Discovery:
    """Trains modes in place, phase by phase, and measures them."""

    config: RunConfig
    context: Context  # task and policy
    modes: DiscoveredModes  # untrained at first, then what has been found so far
    demos: Demos | None  # None in the published form
    seed: int  # which repetition this is
    output: Path  # folder of metrics.jsonl
    checkpoints: Checkpoints
    reporter: Reporter
    rollbacks: int = 0  # how often an iteration of the warm-up was rolled back
    _done: list[str] = field(default_factory=list)  # phases
    _step: int = 0  # boundaries so far
    _rounds: list[Rollout] = field(default_factory=list)  # of the present phase
    _teaching: dict[str, Tensor] = field(default_factory=dict)  # progress of teaching, while that goes on
    _draws: torch.Generator | None = None  # of the present phase
    _saved_draws: Tensor | None = None
    _trainer: Trainer | None = None  # of the warm-up
    _iteration: int = 0  # of the warm-up
    _trained: Snapshot | None = None  # progress of the warm-up

    def run(self) -> None:
        """Goes through the phases that are still to be done."""
        self._resume()
        settings = self.config.discover.model_dump(mode="json")
        with open_tracker(self.config, self.output, settings, self._iteration) as tracker:
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
        """Marks a phase as done and saves progress.

        Raises:
            TrainingError: a weight is not finite.
        """
        for name, tensor in self.modes.networks().state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise TrainingError(f"discovery made {name} not finite: look for huge values in demonstrations or task")
        self._done.append(phase)
        self._rounds, self._draws, self._trainer, self._teaching = [], None, None, {}
        self._register_point(save=True)

    # phases ------------------------------------------------------------------------------------------

    def _teach(self) -> None:
        """Clusters the demonstrations, and teaches the denoiser a code for each cluster."""
        settings, policy = self.config.discover, self.context.policy
        assert self.demos is not None  # the stage has seen to both
        assert isinstance(policy, DiffusionPolicy)
        windows = make_windows(self.demos, policy.config).to(self.context.device)
        cond = policy.encode(windows.stacked)
        points = describe_demos(self.demos, cond, policy.obs_dim, settings.cluster_points)
        clusters = cluster_demos(points, settings, derive_seed(*self._seed_root, "clusters"))
        self._report_clusters(clusters)
        cluster_codes = clusters.find_codes(self.config.modes)
        num_codes = int(cluster_codes.max()) + 1
        self._remake_networks(num_codes)
        lengths = torch.from_numpy(self.demos.episode_ends - self.demos.episode_starts).to(self.context.device)
        code = cluster_codes[clusters.cluster].repeat_interleave(lengths)
        taught = code != DROPPED
        drawn = torch.get_rng_state()
        teacher = Teacher(
            policy,
            policy.normalise_chunk(windows.chunk)[taught],
            cond[taught],
            code[taught],
            num_codes,
            settings.teaching,
            self._make_draws("teach"),
        )
        if self._teaching:
            teacher.load_state(self._teaching)
            torch.set_rng_state(drawn)  # saved after a network had been made, as it has been here again
        with self.reporter.progress("teaching codes", settings.teaching.steps, teacher.step) as progress:
            while teacher.step < settings.teaching.steps:
                if teacher.step % TEACHING_POINT == 0:
                    self._teaching = teacher.state()
                    self._register_point()
                teacher.train_step()
                progress.advance(1)
        self.modes.coded = teacher.finish()
        self.modes.clusters = CodedClusters(clusters.centres, cluster_codes)
        self.modes.findings["cluster_sizes"] = clusters.sizes

    def _report_clusters(self, clusters: Clusters) -> None:
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
        agent = make_commanded_agent(self.context.policy, modes)
        played = self._play_codes(agent, f"strength {strength:g}", "strength")
        success = compute_code_success(played, modes.num_codes)
        obeyed = compute_obeyed_by_cluster(read_behaviours(modes, played), played, modes.num_codes)
        as_told = float((success * obeyed).mean())
        self.modes.findings.setdefault("as_told_by_strength", []).append(as_told)
        self.reporter.log(
            f"codes stretched by {strength:g}: success {float(success.mean()):.3f}, as told {as_told:.3f}"
        )

    def _choose_strength(self) -> None:
        """Takes, of the strengths in rising order, each that beats the last taken by more than STRENGTH_MARGIN."""
        strengths = sorted(self.config.discover.teaching.strengths)
        scores = self.modes.findings["as_told_by_strength"]
        chosen = 0
        for index, score in enumerate(scores):
            if score > scores[chosen] + STRENGTH_MARGIN:
                chosen = index
        self.modes.coded = self._stretch(strengths[chosen])
        self.modes.findings["strength"] = strengths[chosen]

    def _stretch(self, strength: float) -> DiffusionPolicy:
        """A copy of the taught policy with the effect of its codes strengthened."""
        stretched = copy.deepcopy(self.modes.coded)
        assert stretched is not None
        stretched.denoiser.stretch_codes(strength)
        return stretched

    def _learn_in_hindsight(self) -> None:
        """Fits the inference model to episodes of the taught policy labelled with the behaviour they show, and
        calibrates it to the codes that commanded them."""
        modes, settings = self.modes, self.config.discover
        agent = make_commanded_agent(self.context.policy, modes)
        played = self._play_codes(agent, "hindsight", episodes=settings.hindsight_episodes)
        modes.inference.fit_scale(played.features[1:], played.active_mask)
        shown = read_behaviours(modes, played)
        # what failed may have shown nothing; without enough successes it is all there is
        coded = shown != DROPPED
        won = played.success & coded
        taken = played.active_mask & (won if int(won.sum()) >= modes.num_codes else coded)
        if not bool(taken.any()):
            raise TrainingError("every episode of the taught policy shows a mode that was dropped (modes.drop)")
        histories = played.histories(modes.inference)[1:]
        modes.inference.requires_grad_(True)
        fit_inference(modes.inference, histories[taken], shown.expand_as(taken)[taken], self._make_draws("inference"))
        modes.inference.requires_grad_(False)
        modes.inference.calibrate(played.taken(histories), played.taken(played.code.expand_as(played.active_mask)))

    def _fit_scale(self) -> None:
        """The scale of the features, from episodes of the base policy."""
        agent, episodes = make_base_agent(self.context.policy), self.config.discover.num_envs
        draws = self._make_draws("scale")
        played = self._play(agent, "playing the base policy", episodes=episodes, draws=draws, explore=True)
        self.modes.inference.fit_scale(played.features[1:], played.active_mask)

    def _remake_networks(self, num_codes: int) -> None:
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
        context, settings, warn = self.context, self.config.finetune, self.reporter.warn
        agent = make_commanded_agent(context.policy, self.modes)
        self.modes.networks().requires_grad_(True)
        context.policy.requires_grad_(False)
        settings = settings.model_copy(update={"regulariser": RegulariserConfig(floor=settings.regulariser.floor)})
        trainer = Trainer(context.env, agent, settings, recorder=context.recorder, warn=warn)
        if self._trained is not None:
            unpack_trainer(trainer, *self._trained)
        trainer.rollbacks = self.rollbacks
        self._trainer = trainer
        total = self.config.discover.warmup_iterations
        with self.reporter.progress("discovering modes", total, self._iteration) as progress:
            while (iteration := self._iteration) < total:
                trainer.remember()
                self._register_point()
                names = ("warm-up", iteration)
                metrics = trainer.iterate(
                    iteration=iteration,
                    seed=derive_seed(*self._seed_root, *names, "episodes"),
                    generator=make_generator(*self._seed_root, *names, "noise", device=context.device),
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
        self, agent: Agent, what: str, *names: str, episodes: int, draws: torch.Generator, explore: bool = False
    ) -> Rollout:
        """Plays the rounds that an earlier job has not played, and joins all of them; `names` fix their starts."""
        env, known, columns = self.context.env, len(self._rounds), self.modes.feature_columns
        agent = graph_agent(agent, self.context.recorder)
        seeds = episode_seeds(*self._seed_root, *names, episodes=episodes, num_envs=env.num_envs)
        warn = self.reporter.warn
        rounds = play_rounds(env, agent, seeds, draws, explore=explore, feature_columns=columns, first=known, warn=warn)
        with self.reporter.progress(what, len(seeds), known) as progress:
            for _ in range(known, len(seeds)):
                self._register_point()
                self._rounds.append(next(rounds))
                progress.advance(1)
        return merge_rollouts(self._rounds)

    def _play_codes(
        self, agent: Agent, what: str, purpose: str | None = None, *, episodes: int | None = None
    ) -> Rollout:
        """Episodes with codes in equal numbers, as deployed; their starts depend on the purpose alone."""
        purpose, episodes = purpose or what, episodes or self.config.discover.heldout_episodes
        return self._play(agent, what, purpose, episodes=episodes, draws=self._make_draws(purpose, "noise"))

    @property
    def _seed_root(self) -> tuple[int, Family, str, int]:
        """What all seeds are derived from."""
        return self.config.seed, "discover", self.config.task.name, self.seed

    def _make_draws(self, *names: str) -> torch.Generator:
        """The generator of a phase, where it was when progress was saved, or fresh."""
        self._draws = make_generator(*self._seed_root, *names, device=self.context.device)
        if self._saved_draws is not None:
            self._draws.set_state(self._saved_draws)
            self._saved_draws = None
        return self._draws

    # progress ----------------------------------------------------------------------------------------

    def _register_point(self, *, save: bool = False) -> None:
        """Registers a point to resume from; saves there if due, and stops if asked to."""
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
            **add_prefix("teaching", self._teaching),
            "torch": torch.get_rng_state(),  # layers that are made later draw from it
        }
        if modes.clusters is not None:
            tensors |= modes.clusters.tensors()
        if draws is not None:
            tensors["draws"] = draws
        return tensors, {
            **values,
            "done": self._done,
            "iteration": self._iteration,
            "rollbacks": self.rollbacks if trainer is None else trainer.rollbacks,
            "findings": modes.findings,
            "num_codes": modes.num_codes,
            "warnings": self.reporter.warnings,
        }

    def _resume(self) -> None:
        """Puts saved progress back."""
        saved = self.checkpoints.load()
        if saved is None:
            return
        tensors, values = saved
        device = self.context.device
        self._remake_networks(values["num_codes"])
        self.modes.networks().load_state_dict(take_prefix("modes", tensors))
        clusters = take_clusters(tensors)
        self.modes.clusters = clusters and CodedClusters(*(part.to(device) for part in clusters))
        self.modes.findings = values["findings"]
        self._rounds = unpack_rounds(take_prefix("rounds", tensors), self.modes.feature_columns, device)
        self._teaching = take_prefix("teaching", tensors)
        self._saved_draws = tensors.get("draws")
        torch.set_rng_state(tensors["torch"])
        self._done, self._step, self._iteration = values["done"], values["step"], values["iteration"]
        self._trained = saved if "policy_optimizer" in values else None
        self.rollbacks = values["rollbacks"]
        self.reporter.recall(values["warnings"])
        done = f"after {', '.join(self._done)}" if self._done else "from the start"
        self.context.log_resume(f"saved progress ({done})", self.reporter)


# ---- Played rounds of episodes as tensors, so that a checkpoint can hold them ----


def pack_rounds(rounds: Sequence[Rollout]) -> dict[str, Tensor]:
    """Tensors of rollouts without draws, by `<round>.<field>`."""
    return {
        f"{index}.{name}": value.clone()  # rounds may share one, which a file of tensors can't
        for index, played in enumerate(rounds)
        for name, value in vars(played).items()
        if isinstance(value, Tensor)
    }


def unpack_rounds(
    tensors: Mapping[str, Tensor], feature_columns: tuple[int, ...], device: torch.device
) -> list[Rollout]:
    """Restores what `pack_rounds` took; the columns of the track are no tensor."""
    rounds = []
    for index in range(len({key.partition(".")[0] for key in tensors})):
        fields: dict[str, Any] = {name: part.to(device) for name, part in take_prefix(str(index), tensors).items()}
        rounds.append(Rollout(**fields, feature_columns=feature_columns, draws={}))
    return rounds


# ---- The stage itself ----


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
    """Finds behaviours without labels, and makes a policy that shows each on command.

    In the coded form they are those of the demonstrations, and the policy is taught a code for each; in the published
    form, which needs no demonstrations, they are those of the frozen policy, commanded through its noise.

    Writes modes.safetensors, modes.json, metrics.jsonl and run.json. A killed run goes on from its last checkpoint when
    the same command is given again. On the CPU, native tasks then give the same modes, byte for byte, as an
    uninterrupted run.

    Raises:
        ArtifactError: the policy is missing or does not fit, or the coded form is given no demonstrations.
        ConfigError: an imported policy is to be taught codes on demonstrations that were not imported.
        DataError: the demonstrations are missing, damaged or of another task.
        TrainingError: there are too few demonstrations to cluster, or training diverged.
        Stopped: somebody asked; progress is saved.
    """
    task = config.task.name
    settings = config.discover
    stop = stop or Stop()
    inputs = {"policy": policy / RUN_FILE}
    if settings.form == "coded":
        if demos is None:
            raise ArtifactError(f"discover.form coded needs the output of `bmd-pipeline collect --task {task}`")
        inputs["demos"] = demos
    start = RunStart(reporter.warn, *inputs.values())
    require_run(policy, "pretrain", task)
    data = None
    if "demos" in inputs:
        require_own_demos(policy, inputs["demos"])
        data = load_task_demos(config, inputs["demos"])
    # progress made from another policy or other demonstrations is of no use here
    origins = {name: start.hashes[path] for name, path in inputs.items()}
    with open_context(config, policy, settings.num_envs, num_workers, reporter, stop, disturbed=False) as context:
        columns = resolve_features(context.env.spec, settings.inference.features)
        torch.manual_seed(derive_seed(config.seed, "discover", task, seed, "weights"))
        modes = make_modes(settings, context.policy, columns)
        modes.networks().to(context.device)
        with open_checkpoints(config, "discover", output, stop, reporter, seed=seed, **origins) as checkpoints:
            discovery = Discovery(config, context, modes, data, seed, output, checkpoints, reporter)
            discovery.run()
            modes = discovery.modes
            _log_findings(modes, reporter)
            modes.save(output, task, context.policy)
            record = describe_stage(
                config,
                "discover",
                inputs=inputs,
                start=start,
                seed=seed,
                device=context.device,
                findings=modes.findings,
                matmul_precision=context.matmul,
                rollbacks=discovery.rollbacks,
                warnings=reporter.warnings,
            )
            write_run(output, record, outputs=(WEIGHTS, DOCUMENT, METRICS_FILE))
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
    if modes.coded is None and found["information"] < MIN_INFORMATION:  # of the coded form, obedience tells
        reporter.warn(
            f"codes hardly change what the policy does: M = {found['information']:.3f} nats is below "
            f"{MIN_INFORMATION}. Train longer or otherwise if it has several behaviours, and collect more varied "
            "demonstrations if it has one: results/<Task>/modes/validation.json tests which"
        )
    if dead := find_dead_codes(found["obeyed_per_code"]):
        reporter.warn(
            f"dead codes: commanding {', '.join(map(str, dead))} brings about its own behaviour no more often than "
            f"chance ({1.0 / modes.num_codes:.2f}); there may be fewer behaviours than codes ({modes.num_codes})"
        )
