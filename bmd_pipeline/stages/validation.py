"""Stage `validation`: results/<Task>/modes/validation.json, whether the discovered modes are real."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.io.layout import RUN_FILE
from bmd_pipeline.io.provenance import RunStart, require_run
from bmd_pipeline.metrics.mode_checks import Trajectories, Validator
from bmd_pipeline.metrics.schemas import Validation, write_document
from bmd_pipeline.modes.modes import DiscoveredModes, load_modes, resample_track
from bmd_pipeline.reporting.narrative import describe_validation
from bmd_pipeline.rl.agent import Agent, make_base_agent, make_commanded_agent
from bmd_pipeline.rl.graphs import graph_agent
from bmd_pipeline.rl.rollout import Rollout, merge_rollouts, play_rounds
from bmd_pipeline.seeds import make_generator
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluate import label_episodes
from bmd_pipeline.stages.evaluations import make_head, make_rng, require_settings
from bmd_pipeline.stages.runtime import Context, episode_seeds, open_context
from bmd_pipeline.tasks.registry import load_labellings


def validation(
    config: RunConfig, *, policy: Path, modes: Mapping[int, Path], output: Path, num_workers: int, reporter: Reporter
) -> None:
    """Plays the frozen policy, by itself and commanded by every seed's modes, and writes validation.json.

    All of them meet the same starts. True modes are looked at for the comparison with them,
    and for nothing else.

    Raises:
        ArtifactError: policy or modes are missing, damaged, or were made under other settings.
        ConfigError: too few episodes for so many codes.
    """
    task = config.task.name
    inputs = {"policy": policy / RUN_FILE}
    inputs |= {f"modes/seed{seed}": folder / RUN_FILE for seed, folder in modes.items()}
    start = RunStart(reporter.warn, *inputs.values())
    require_run(policy, "pretrain", task)
    least = 2 * config.discover.num_modes
    if config.evaluate.episodes < least:
        raise ConfigError(
            f"evaluate.episodes must be >= {least}, twice discover.num_modes, to validate modes; "
            f"got {config.evaluate.episodes}"
        )
    for seed, folder in modes.items():
        command = f"bmd-pipeline discover --task {task} --seed {seed}"
        record = require_run(folder, "discover", task, seed=seed, command=command)
        require_settings(record.get("config_hash"), stage_hash(config, "discover"), folder, "discovered", command)
    num_envs = min(config.evaluate.num_envs, config.evaluate.episodes)
    with open_context(config, policy, num_envs, num_workers, reporter, disturbed=False) as context:
        found = {seed: load_modes(folder, context.policy, task=task) for seed, folder in modes.items()}
        first = next(iter(found.values()))
        player = _Player(config, context, first, reporter)
        rng = make_rng(config, "validation")
        validator = Validator(player.labelling.modes, config.evaluate.confidence, config.evaluate.alpha, rng)
        frozen = make_base_agent(context.policy)
        one, other = player.play(frozen, "base"), player.play(frozen, "paired")
        player.fit_scale(one)
        base = validator.describe_base(player.describe(one), player.describe(other))
        discovered = []
        for seed, own in found.items():
            commanded = make_commanded_agent(context.policy, own)
            played = player.describe(player.play(commanded, f"seed {seed}"))
            discovered.append(validator.describe_seed(seed, own.num_codes, played, base))
    document = Validation(
        **make_head(config, "validation", inputs, start),
        alpha=validator.alpha,
        labelling=player.labelling.name,
        modes=list(player.labelling.modes),
        features=[context.env.spec.track_names[column] for column in first.feature_columns],
        points=first.config.cluster_points,
        base=base,
        discovered=discovered,
    )
    write_document(output, document)
    for sentence in describe_validation(document):
        reporter.log(sentence)


class _Player:
    """Plays the pre-trained and the commanded policies on the same starts, and turns rollouts into `Trajectories`.

    Features, points and scale come from `modes`, any seed's.
    """

    def __init__(self, config: RunConfig, context: Context, modes: DiscoveredModes, reporter: Reporter) -> None:
        self.config, self.context, self.reporter = config, context, reporter
        self.columns = modes.feature_columns  # these three are the same for every seed
        self.points = modes.config.cluster_points
        self.shared_scale = modes.config.inference.scale == "shared"
        self.labelling = load_labellings(config.task.name)[0]
        self._scale = np.ones(len(self.columns))

    def fit_scale(self, played: Rollout) -> None:
        """Takes the scale of the features from the base policy's episodes."""
        values = self._resample(played).reshape(-1, len(self.columns))
        std = values.std(axis=0)
        if self.shared_scale:
            std = np.full_like(std, np.sqrt((std**2).mean()))
        self._scale = np.where(std > 1e-6, std, 1.0)

    def describe(self, played: Rollout) -> Trajectories:
        """Episodes as they are compared."""
        labelled = label_episodes(played, None, [self.labelling], "", 0, 1)
        return Trajectories(
            points=self._resample(played) / self._scale,
            code=labelled.code,
            success=labelled.success,
            mode=labelled.labellings[self.labelling.name].weights.argmax(axis=1),
        )

    def _resample(self, played: Rollout) -> NDArray[np.float64]:
        """Features at evenly spaced points, (num_episodes, points, num_features)."""
        flat = resample_track(played.track[..., list(self.columns)], played.length, self.points)
        return flat.double().cpu().numpy().reshape(len(flat), self.points, -1)

    def play(self, agent: Agent, name: str) -> Rollout:
        """Episodes of an agent; another name draws other noise on the same starts."""
        env, episodes = self.context.env, self.config.evaluate.episodes
        seeds = episode_seeds(self.config.seed, "evaluate", "validation", episodes=episodes, num_envs=env.num_envs)
        device = self.context.device
        generator = make_generator(self.config.seed, "evaluate", "validation", "noise", name, device=device)
        rounds, agent = [], graph_agent(agent, self.context.recorder)
        with self.reporter.progress(name, len(seeds)) as progress:
            warn = self.reporter.warn
            for played in play_rounds(env, agent, seeds, generator, feature_columns=self.columns, warn=warn):
                rounds.append(played)
                progress.advance(1)
        return merge_rollouts(rounds)
