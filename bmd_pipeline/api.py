"""The package from Python: each command as a function of a run, and the policy that comes out, to act with.

    import bmd_pipeline as bmd

    run = bmd.Run("GaussianMixture")
    bmd.collect(run)
    bmd.pretrain(run)
    bmd.discover(run)
    bmd.finetune(run, "dppo-bmd")
    print(bmd.evaluate(run, "dppo-bmd").success_rate.mean)

Everything stands where the commands put it, below `data/` and `results/`, and is found there again: a run may be begun
here and go on in Snakemake. Errors are those of `bmd_pipeline.errors`, with the line that the command would print.
"""

import functools
import json
import operator
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bmd_pipeline.cli import stages
from bmd_pipeline.cli.options import open_config
from bmd_pipeline.config.readers import leave_out, list_unread
from bmd_pipeline.config.schema import MAX_SEED, RunConfig
from bmd_pipeline.environments.base import TaskEnv, to_bounds
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.io.provenance import list_imported
from bmd_pipeline.methods import check_method, is_finetuned, uses_modes
from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.schemas import Evaluation, PolicyBlock, load_document
from bmd_pipeline.policies.diffusion import ObsHistory
from bmd_pipeline.rl.adapters import PolicyInput
from bmd_pipeline.rl.agent import Agent
from bmd_pipeline.rl.rollout import compute_information, roll_out
from bmd_pipeline.seeds import make_generator
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluate import label_episodes, load_player, require_inputs
from bmd_pipeline.stages.runtime import open_env
from bmd_pipeline.tasks import registry

_MOST_EPISODES = 1_000_000
"""At the same time; settings have the same bound."""


@dataclass(frozen=True)
class Run:
    """A task with its settings, and where its data and results are.

    Attributes:
        task: name of the task, as `bmd-pipeline tasks` lists them.
        preset: how much to compute; None takes that of config/config.yaml.
        settings: values by dotted name, such as `{"finetune.iterations": 50}`, over those of the files in config/.
        root: folder that holds data/ and results/.
        quiet: print warnings only.
    """

    task: str
    preset: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    root: str | Path = "."
    quiet: bool = True

    def __post_init__(self) -> None:
        values = {"task": self.task, "settings": self.settings, "root": self.root}
        kinds: dict[str, tuple[type, ...]] = {"task": (str,), "settings": (Mapping,), "root": (str, Path)}
        for name, value in values.items():
            if not isinstance(value, kinds[name]):
                raise ConfigError(f"Run: {name} can't be a {type(value).__name__}: {value!r:.80}")
        if "\0" in str(self.root):  # no file's name holds one
            raise ConfigError(f"Run: root can't be a path with a NUL character: {str(self.root)!r:.80}")

    @property
    def config(self) -> RunConfig:
        """All settings as they are resolved; a `ConfigError` if one is unknown or out of bounds."""
        return open_config(self.task, self.preset, assign=self._assignments())

    @property
    def layout(self) -> Layout:
        """Where each stage reads and writes."""
        return Layout(Path(self.root), self.config.run)

    def _assignments(self) -> list[str]:
        return [f"{name}={_write_setting(name, value)}" for name, value in self.settings.items()]

    def _options(self, command: str, method: str | None = None) -> dict[str, Any]:
        """What every command takes, with the settings that this one reads."""
        assigned = self._assignments()
        load = functools.partial(open_config, self.task, self.preset, None)
        policy = None if command == "pretrain" else self.layout.policy(self.task)
        imported = list_imported(policy, self.layout.demos_manifest(self.task))
        assign = leave_out(assigned, list_unread(self.config, command, method, assigned, load, imported))
        shared = {"task": self.task, "preset": self.preset, "assign": assign}
        return {**shared, "root": Path(self.root), "quiet": self.quiet, "plain": True}

    def _folders(self, method: str, seed: int) -> dict[str, Path | None]:
        """Where a policy plays from."""
        check_method(str(method), evaluating=True)
        seed = _read_number("seed", seed)
        layout = self.layout  # which reads the settings
        return {
            "policy": layout.policy(self.task),
            "modes": layout.modes(self.task, seed) if uses_modes(method) else None,
            "finetuned": layout.finetuned(self.task, method, seed) if is_finetuned(method) else None,
        }


def _write_setting(name: str, value: object) -> str:
    """A setting as JSON; numbers of numpy and torch are numbers too."""
    try:
        return json.dumps(value, default=operator.methodcaller("item"))
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(f"{name} must be a number, a text, a list or a group, got {value!r:.80}") from None


def _read_number(name: str, value: object, least: int = 0, most: int = MAX_SEED) -> int:
    """A whole number in [least, most], of whichever package; a `ConfigError` if it is none."""
    with suppress(TypeError):
        number = operator.index(value)  # type: ignore[arg-type]
        if least <= number <= most:
            return number
    raise ConfigError(f"{name} must be a whole number from {least} to {most}, got {value!r:.80}")


# ---- The stages ----


def collect(run: Run) -> Path:
    """Collects demonstrations with the task's scripted expert; returns the store."""
    stages.collect(**run._options("collect"))
    return run.layout.demos(run.task)


def pretrain(run: Run) -> Path:
    """Trains the diffusion policy until its success is flat; returns its folder."""
    stages.pretrain(**run._options("pretrain"))
    return run.layout.policy(run.task)


def discover(run: Run, seed: int = 0) -> Path:
    """Finds the behaviours in the demonstrations and teaches the policy a code for each; returns the modes' folder."""
    seed = _read_number("seed", seed)
    stages.discover(**run._options("discover"), seed=seed)
    return run.layout.modes(run.task, seed)


def finetune(run: Run, method: str, seed: int = 0) -> Path:
    """Fine-tunes the policy by one of `bmd_pipeline.methods.METHODS`; returns the fine-tuned policy's folder."""
    check_method(str(method))
    seed = _read_number("seed", seed)
    stages.finetune(**run._options("finetune", method), method=method, seed=seed)
    return run.layout.finetuned(run.task, method, seed)


def evaluate(run: Run, method: str = "pretrained", seed: int = 0) -> PolicyBlock:
    """Evaluates a policy on episodes that no training saw; returns its part of eval.json (docs/metrics.md).

    The method is one of fine-tuning, "pretrained" or "taught".
    """
    check_method(str(method), evaluating=True)
    seed = _read_number("seed", seed)
    stages.evaluate(**run._options("evaluate", method), method=method, seed=seed)
    return load_document(run.layout.evaluation(run.task, method, seed), Evaluation).policies[method]


# ---- What comes out ----


class Policy:
    """A policy that acts, one observation after another; `reset`, `switch` and `act` are those of an export as well.

    Attributes:
        num_modes: mode codes that it can be commanded by; 0 for a policy without.
    """

    def __init__(self, agent: Agent, seed: int = 0) -> None:
        self._agent = agent
        self._draws = make_generator(seed, "evaluate", "acting")
        self.num_modes = agent.num_codes if agent.modes else 0
        self.reset()

    def reset(self, mode: int = 0) -> None:
        """Begins an episode under a mode code, 0 for a policy without; a `ConfigError` if there is none such."""
        self.switch(mode)
        self._history: ObsHistory | None = None

    def switch(self, mode: int) -> None:
        """Changes the mode in mid-episode: the next action is planned anew."""
        self._code = torch.tensor([_read_number("mode", mode, most=max(self.num_modes, 1) - 1)])
        self._done = 0  # control steps of the present chunk that have been taken
        self._waiting: list[Tensor] = []

    def act(self, obs: ArrayLike) -> NDArray[np.float32]:
        """The action (action_dim,) for an observation (obs_dim,), both in the task's units; once per control step.

        Raises a `ConfigError` for an observation of another shape, or with a number that is not finite.
        """
        agent, policy = self._agent, self._agent.policy
        seen = torch.empty(0)
        with suppress(TypeError, ValueError, RuntimeError), np.errstate(over="ignore"):  # texts, lists in lists
            seen = torch.as_tensor(np.asarray(obs, np.float32))
        if seen.shape != (policy.obs_dim,) or not bool(seen.isfinite().all()):
            raise ConfigError(f"obs must be {policy.obs_dim} finite numbers, got {' '.join(str(obs).split()):.80}")
        if self._history is None:
            self._history = ObsHistory(policy.config.n_obs_steps, policy.config.obs_stride)
            stacked = self._history.start(seen[None])
        else:
            stacked = self._history.extend(seen[None, None])
        if not self._waiting:
            inputs = PolicyInput(policy.encode(stacked), self._code)
            if self._done % policy.config.n_action_steps == 0:
                self._done, self._plan = 0, agent.plan(inputs, self._draws, explore=False)
            actions, _ = agent.act(self._plan, self._done, inputs, self._draws, explore=False)
            self._waiting = list(actions[0])
        self._done += 1
        action = to_bounds(self._waiting.pop(0).numpy(), np.array(policy.action_low), np.array(policy.action_high))
        return action.astype(np.float32)


def load_policy(run: Run, method: str = "pretrained", seed: int = 0) -> Policy:
    """The policy that `evaluate` plays under a method; an `ArtifactError` if a stage before has not made it."""
    return Policy(_load_agent(run, method, seed), _read_number("seed", seed))


def make_env(run: Run, num_envs: int = 1, *, num_workers: int = 1) -> TaskEnv:
    """The run's task as a batch of environments, in the demonstrations' world; `play` plays in the other.

    `reset(seed)` begins episodes, and `step_chunk` takes actions (num_envs, n, action_dim) in [-1, 1]; `num_workers`
    processes simulate. Close it with `close()`.
    """
    config = run.config
    registry.prepare(config.task)
    num_envs = _read_number("num_envs", num_envs, 1, _MOST_EPISODES)
    num_workers = _read_number("num_workers", num_workers, 1, _MOST_EPISODES)
    return registry.make_env(config.task.name, config.task.env, num_envs, num_workers=num_workers)


@dataclass(frozen=True)
class Played:
    """Episodes that a policy played: rows by episode, and each one's track (steps + 1, episodes, track_dim)."""

    episodes: Episodes
    track: NDArray[np.float32]

    @property
    def modes(self) -> list[str | None]:
        """The true mode that each episode shows, by name; None where it shows none. For people, not for training."""
        return next(iter(self.episodes.labellings.values())).labels()


def play(run: Run, method: str = "pretrained", seed: int = 0, *, mode: int | None = None, episodes: int = 64) -> Played:
    """Plays a policy as it is evaluated, commanded by one mode code, or by all in turn.

    The same seed brings the same starts to every policy; they are none of evaluation's.
    """
    config, agent, seed = run.config, _load_agent(run, method, seed), _read_number("seed", seed)
    episodes = _read_number("episodes", episodes, 1, _MOST_EPISODES)
    mode = None if mode is None else _read_number("mode", mode, most=agent.num_codes - 1)
    code = torch.arange(episodes) % agent.num_codes if mode is None else torch.full((episodes,), mode)
    opened = open_env(config.task, agent.policy, episodes, disturbed=True, device=torch.device("cpu"), num_workers=1)
    with closing(opened) as env:
        draws = make_generator(config.seed, "evaluate", "play", seed)
        played = roll_out(env, agent, seed=seed, code=code, generator=draws, explore=False)
    information = None if agent.modes is None else compute_information(agent.modes.inference, played)[0]
    labellings = registry.load_labellings(config.task.name)
    rows = label_episodes(played, information, labellings, method, seed, agent.num_codes)
    return Played(rows, played.track.numpy())


def _load_agent(run: Run, method: str, seed: int) -> Agent:
    config, folders = run.config, run._folders(method, seed)
    policy = folders["policy"]
    assert policy is not None
    require_inputs(run.task, method, seed, policy, folders["modes"], folders["finetuned"], Reporter("quiet").warn)
    return load_player(config, policy, folders["modes"], folders["finetuned"], method)
