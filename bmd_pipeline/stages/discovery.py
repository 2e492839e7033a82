"""The phases of a discovery, each of which a killed run goes on from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bmd_pipeline.artifacts.layout import METRICS_FILE
from bmd_pipeline.artifacts.progress_state import add_prefix, take_prefix
from bmd_pipeline.artifacts.tracking import Tracker
from bmd_pipeline.config.finetune import RegulariserConfig
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.errors import TrainingError
from bmd_pipeline.modes.discovered import CENTRES, DiscoveredModes
from bmd_pipeline.rl.agents import Agent, make_base_agent, make_commanded_agent
from bmd_pipeline.rl.guard import Guard
from bmd_pipeline.rl.holding import explore_held, fit_held
from bmd_pipeline.rl.measuring import measure_commanded, measure_exploring
from bmd_pipeline.rl.rollout import Rollout, merge_rollouts, roll_out
from bmd_pipeline.rl.seeding import Clusters, find_clusters, seed_modes
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.rl.trainer_state import unpack_trainer
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import Checkpoints, Snapshot
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.rounds import pack_rounds, unpack_rounds
from bmd_pipeline.stages.workbench import Workbench, episode_seeds


class Discovery:
    """Trains modes in place, phase by phase, and measures them.

    Args:
        config: the run.
        bench: task and policy.
        modes: untrained networks.
        seed: which repetition this is.
        output: folder of metrics.jsonl.
        checkpoints: progress, and who may ask to stop.
        reporter: progress for people.

    Attributes:
        matmul: name of the matrix kernels in force.
        rollbacks: how often an iteration of the warm-up was taken back.
    """

    def __init__(
        self,
        config: RunConfig,
        bench: Workbench,
        modes: DiscoveredModes,
        seed: int,
        output: Path,
        checkpoints: Checkpoints,
        reporter: Reporter,
    ) -> None:
        self.config = config
        self.bench = bench
        self.modes = modes
        self.names = (config.task.name, seed)
        self.output = output
        self.checkpoints = checkpoints
        self.reporter = reporter
        self.matmul = bench.matmul
        self.rollbacks = 0
        self._done: list[str] = []  # phases
        self._step = 0  # boundaries so far
        self._rounds: list[Rollout] = []  # of the present phase
        self._draws: torch.Generator | None = None  # of the present phase
        self._saved_draws: Tensor | None = None
        self._guard: Guard | None = None  # of the warm-up
        self._iteration = 0  # of the warm-up
        self._trained: Snapshot | None = None  # progress of the warm-up

    def run(self) -> None:
        """Goes through the phases that are still to be done."""
        self._resume()
        with self._open_tracker() as tracker:
            phases: dict[str, Callable[[], None]] = {"start": self._start}
            if self.config.discover.strategy == "held":
                phases["calibration"] = self._calibrate
            else:
                phases["warm-up"] = functools.partial(self._warm_up, tracker)
            phases |= {"base": self._measure_base, "commanded": self._measure_commanded}
            if self.modes.steering is not None:  # behind held noise the frozen policy explores as it is deployed
                phases["exploring"] = self._measure_exploring
            for name, phase in phases.items():
                if name not in self._done:
                    phase()
                    self._finish(name)

    def _finish(self, phase: str) -> None:
        """Saves what a phase has made, once it is sure to be of use."""
        for name, tensor in self.modes.networks().state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise TrainingError(f"discovery made {name} not finite: lower discover.inference.learning_rate")
        self._done.append(phase)
        self._rounds, self._draws, self._guard = [], None, None
        self._mark(save=True)

    # phases ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Plays the base policy, and fits what can be fitted to it."""
        settings = self.config.discover
        generator = self._begin("start")
        agent = make_base_agent(self.bench.policy)
        code = torch.zeros(self.bench.env.num_envs, dtype=torch.int64, device=self.bench.device)
        # every strategy needs the scale of the features; only seeding needs many episodes of the base policy
        episodes = settings.seed_episodes if settings.strategy == "seeded" else settings.num_envs
        played = self._play(
            "playing the base policy",
            self._seeds(episodes=episodes),
            lambda seed, _: roll_out(
                self.bench.env,
                agent,
                seed=seed,
                code=code,
                generator=generator,
                explore=True,
                feature_columns=self.modes.feature_columns,
                keep_record=True,
            ),
        )
        self.modes.inference.fit_scale(played.features[1:], played.alive)
        if settings.strategy == "seeded":
            seed_modes(self.modes, played, self._cluster(played), settings, generator)
        elif settings.strategy == "held":
            self._explore(generator)

    def _explore(self, generator: torch.Generator) -> None:
        """Explores with held noise, and learns which noise leads to which behaviour."""
        settings = self.config.discover
        explorer = make_commanded_agent(self.bench.policy, self.modes)
        explored = self._play(
            "exploring with held noise",
            self._seeds("held", episodes=settings.seed_episodes),
            lambda seed, _: explore_held(self.bench.env, explorer, settings, [seed], generator),
            after=len(self._seeds(episodes=settings.num_envs)),
        )
        findings = self.modes.findings
        findings |= fit_held(self.modes, explored, self._cluster(explored), settings, generator)
        findings["exploring_success_rate"] = float(explored.success.float().mean())
        self.reporter.log(
            f"held noise: {findings['teaching_episodes']:.0f} of {len(explored.success)} episodes committed "
            f"clearly; the selector foresees {findings['selector_accuracy']:.2f} of held-out outcomes"
        )

    def _cluster(self, played: Rollout) -> Clusters:
        """Names the behaviours of successful episodes, and takes a code for each."""
        settings, modes = self.config.discover, self.modes
        clusters = find_clusters(played, modes.inference, settings, played.success, self._derive("clusters"))
        if len(clusters.centres) != modes.num_codes:
            modes.resize(len(clusters.centres), self.bench.policy)
        modes.centres = clusters.centres
        sizes = modes.findings["cluster_sizes"] = clusters.sizes(played.success)
        if clusters.by_density:
            shares = ", ".join(f"{size / sum(sizes):.1%}" for size in sorted(sizes, reverse=True))
            more = ", as many as discover.num_modes allows" if len(sizes) == settings.num_modes else ""
            self.reporter.log(f"{len(sizes)} behaviours in {sum(sizes)} successful episodes ({shares}){more}")
        elif settings.clustering == "density":
            self.reporter.warn(
                f"no gap divides the {sum(sizes)} successful episodes into behaviours; k-means cuts them into "
                f"discover.num_modes ({settings.num_modes}). Look at them before you trust the codes"
            )
        return clusters

    def _calibrate(self) -> None:
        """Held noise is taught by hindsight alone: its inference model must learn how well commands are obeyed."""
        played = self._play_codes(make_commanded_agent(self.bench.policy, self.modes), "calibration")
        histories = self.modes.inference.histories(played.features)[1:]
        self.modes.inference.calibrate(played.taken(histories), played.taken(played.code.expand_as(played.alive)))

    def _warm_up(self, tracker: Tracker) -> None:
        """E_wp rounds on the intrinsic reward alone (BMD, arXiv 2605.11387)."""
        settings = self.config.discover
        agent = make_commanded_agent(self.bench.policy, self.modes)
        self.modes.networks().requires_grad_(True)
        self.bench.policy.requires_grad_(False)
        regulariser = RegulariserConfig(floor=self.config.finetune.regulariser.floor)
        trainer = Trainer(
            self.bench.env,
            agent,
            settings.ppo,
            settings,
            regulariser,
            place="discover.ppo",
            recorder=self.bench.recorder,
        )
        if self._trained is not None:
            unpack_trainer(trainer, *self._trained)
        self._guard = Guard(trainer, settings.ppo.guard, self.reporter.warn)
        self._guard.rollbacks = self.rollbacks
        total = settings.warmup_iterations
        with self.reporter.progress("discovering modes", total, self._iteration) as progress:
            while (iteration := self._iteration) < total:
                self._guard.remember()
                self._mark()
                names = ("warm-up", iteration)
                metrics = self._guard.iterate(
                    iteration=iteration,
                    seed=self._derive(*names, "episodes"),
                    generator=self._make_generator(*names, "noise"),
                    intrinsic_only=True,
                    policy=iteration >= settings.ppo.value_warmup,
                )
                self._iteration, self.rollbacks = iteration + 1, self._guard.rollbacks
                tracker.log(self._iteration, metrics)
                progress.advance(
                    1, M=round(metrics["modes/information"], 3), success=round(metrics["rollout/success_rate"], 3)
                )

    def _measure_base(self) -> None:
        """The base policy plays the held-out episodes too, so that the price of commanding it is not luck."""
        played = self._play_codes(make_base_agent(self.bench.policy), "held-out")
        self.modes.findings["base_success_rate"] = float(played.success.float().mean())

    def _measure_commanded(self) -> None:
        """Multimodality and success of the commanded, still frozen policy, on held-out episodes."""
        played = self._play_codes(make_commanded_agent(self.bench.policy, self.modes), "held-out")
        self.modes.findings |= measure_commanded(self.modes, played)
        if self.modes.steering is None:
            self.modes.findings |= measure_exploring(self.modes, played)

    def _measure_exploring(self) -> None:
        """What controllers of λ are to hold, on held-out episodes as training plays them."""
        agent = make_commanded_agent(self.bench.policy, self.modes)
        played = self._play_codes(agent, "held-out", explore=True)
        self.modes.findings |= measure_exploring(self.modes, played)

    # playing -----------------------------------------------------------------------------------------

    def _play(self, what: str, seeds: list[int], play: Callable[[int, int], Rollout], after: int = 0) -> Rollout:
        """Plays a round per seed, except those that an earlier job has played, and joins them.

        Args:
            what: for the progress.
            seeds: of the rounds.
            play: makes a round from its seed and its number.
            after: rounds that the phase has played before these.
        """
        known = min(len(self._rounds) - after, len(seeds))
        with self.reporter.progress(what, len(seeds), known) as progress:
            for index in range(known, len(seeds)):
                self._mark()
                self._rounds.append(play(seeds[index], index))
                progress.advance(1)
        return merge_rollouts(self._rounds[after : after + len(seeds)])

    def _play_codes(self, agent: Agent, purpose: str, *, explore: bool = False) -> Rollout:
        """Episodes with codes in equal numbers, as deployed or exploring; their starts depend on the purpose alone."""
        num_envs = self.config.discover.num_envs
        generator = self._begin(purpose, "noise")

        def play(seed: int, index: int) -> Rollout:
            first = index * num_envs
            code = torch.arange(first, first + num_envs, device=self.bench.device) % agent.num_codes
            return roll_out(self.bench.env, agent, seed=seed, code=code, generator=generator, explore=explore)

        return self._play(purpose, self._seeds(purpose, episodes=self.config.discover.heldout_episodes), play)

    def _seeds(self, *names: str, episodes: int) -> list[int]:
        num_envs = self.config.discover.num_envs
        return episode_seeds(self.config.seed, "discover", *self.names, *names, episodes=episodes, num_envs=num_envs)

    def _derive(self, *names: str | int) -> int:
        return derive_seed(self.config.seed, "discover", *self.names, *names)

    def _make_generator(self, *names: str | int) -> torch.Generator:
        return make_generator(self.config.seed, "discover", *self.names, *names, device=self.bench.device)

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
        self.checkpoints.boundary(self._step, functools.partial(self._pack, draws), save=save)

    def _pack(self, draws: Tensor | None) -> Snapshot:
        modes, guard = self.modes, self._guard
        tensors, values = guard.before if guard is not None else ({}, {})
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
            "rollbacks": self.rollbacks if guard is None else guard.rollbacks,
            "findings": modes.findings,
            "num_codes": modes.num_codes,
            "feature_columns": list(self._rounds[0].feature_columns) if self._rounds else [],
            "warnings": self.reporter.warnings,
            "matmul": self.matmul,
        }

    def _resume(self) -> None:
        """Puts saved progress back."""
        saved = self.checkpoints.load()
        if saved is None:
            return
        tensors, values = saved
        device = self.bench.device
        if values["num_codes"] != self.modes.num_codes:
            self.modes.resize(values["num_codes"], self.bench.policy)
        self.modes.networks().load_state_dict(take_prefix("modes", tensors))
        self.modes.centres = tensors[CENTRES].to(device) if CENTRES in tensors else None
        self.modes.findings = values["findings"]
        self._rounds = unpack_rounds(take_prefix("rounds", tensors), values["feature_columns"], device)
        self._saved_draws = tensors.get("draws")
        torch.set_rng_state(tensors["torch"])
        self._done, self._step, self._iteration = values["done"], values["step"], values["iteration"]
        self._trained = saved if "policy_optimizer" in values else None
        self.rollbacks = values["rollbacks"]
        self.matmul = values["matmul"]
        self.reporter.recall(values["warnings"])
        done = f"after {', '.join(self._done)}" if self._done else "from the start"
        self.bench.resume_with(self.matmul, f"saved progress ({done})", self.reporter)

    def _open_tracker(self) -> Tracker:
        return Tracker(
            self.output / METRICS_FILE,
            self.config.execution.tracker,
            name=self.output.as_posix(),
            group=self.config.execution.sweep or self.config.task.name,
            config=self.config.discover.model_dump(mode="json"),
            resume_step=self._iteration,
        )
