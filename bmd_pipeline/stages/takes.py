"""Playing the episodes of a film: by a demonstrator, or by a policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.environments.base import Labelling, VectorTask
from bmd_pipeline.errors import TaskError
from bmd_pipeline.rl.agent import Agent
from bmd_pipeline.rl.rollout import play_episodes
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.sim.render import Filming, Recorder, Recording, find_task
from bmd_pipeline.stages.workbench import disturb
from bmd_pipeline.tasks import registry

ATTEMPTS = 20
"""Episodes that are played for each one that is shown, at most: only successes are."""


@dataclass(frozen=True)
class Take:
    """One episode that succeeded.

    Attributes:
        role: what it was played for: a behaviour, a mode, or a mode code.
        mode: its true mode, by the task's main labelling.
        seed: what the task was reset with.
        attempts: episodes that were played for it since the one before, itself included.
        recording: what happened.
    """

    role: str
    mode: str
    seed: int
    attempts: int
    recording: Recording


@dataclass(frozen=True)
class Missed:
    """What too few episodes succeeded at.

    Attributes:
        role: what was played for.
        attempts: episodes that were played for it in vain.
    """

    role: str
    attempts: int


class Player(Protocol):
    """Who plays. `roles` are what it can play for; it plays each until `episodes` succeeded."""

    roles: tuple[str, ...]

    def play(self, episodes: int) -> Iterator[Take | Missed]: ...

    def close(self) -> None: ...


class ExpertPlayer:
    """The task's demonstrator; its roles are its behaviours.

    Seeds are those of the attempts that `collect` makes, in their order, so what is seen are demonstrations.

    Args:
        config: the run.
        filming: how the task is filmed.
    """

    def __init__(self, config: RunConfig, filming: Filming) -> None:
        task = config.task
        self._root = config.seed
        self._labelling = registry.load_labellings(task.name)[0]
        self._expert = registry.make_expert(task.name, task.env)
        self._recorder = Recorder(find_task(self._expert), filming)
        self.roles = self._expert.behaviours

    def play(self, episodes: int) -> Iterator[Take | Missed]:
        """Plays one behaviour after the other."""
        for behaviour, role in enumerate(self.roles):
            found, since = 0, 0
            for attempt in range(ATTEMPTS * episodes):
                seed, since = derive_seed(self._root, "collect", role, attempt), since + 1
                if not self._expert.demonstrate(behaviour, seed).success:
                    continue
                recording = self._recorder.recording
                yield Take(role, find_mode(self._labelling, recording), seed, since, recording)
                found, since = found + 1, 0
                if found == episodes:
                    break
            if found < episodes:
                yield Missed(role, since)

    def close(self) -> None:
        """Releases the simulator."""
        self._expert.close()


class AgentPlayer:
    """A policy. With mode codes its roles are these, else the task's modes, which it takes as it likes.

    Starts are those of single episodes in `evaluate`: they depend on the root seed and on the policy's.

    Args:
        config: the run.
        filming: how the task is filmed.
        agent: the policy, on the CPU.
        seed: its seed.

    Raises:
        TaskError: the task is not stepped in this process.
    """

    def __init__(self, config: RunConfig, filming: Filming, agent: Agent, seed: int) -> None:
        task = config.task
        self._root, self._seed, self._agent = config.seed, seed, agent
        self._labelling = registry.load_labellings(task.name)[0]
        env = registry.make_env(task.name, task.env, 1)
        if not isinstance(env, VectorTask):
            raise TaskError(f"{task.name} can't be filmed: it is not stepped in this process")
        self._recorder = Recorder(env, filming)
        self._env = disturb(env, task, agent.policy)
        self._generator = make_generator(config.seed, "evaluate", "film", seed)
        self._coded = agent.modes is not None
        self.roles = tuple(f"code{z}" for z in range(agent.num_codes)) if self._coded else self._labelling.modes

    def play(self, episodes: int) -> Iterator[Take | Missed]:
        """Plays one code after the other; without codes, until each mode was seen often enough."""
        groups = [(role,) for role in self.roles] if self._coded else [self.roles]
        for code, group in enumerate(groups):
            found, since = dict.fromkeys(group, 0), dict.fromkeys(group, 0)
            for attempt in range(ATTEMPTS * episodes * len(group)):
                seed = derive_seed(self._root, "evaluate", self._seed, attempt)
                since = {role: count + 1 for role, count in since.items()}
                mode = self._try(seed, code)
                role = group[0] if self._coded else mode
                if mode is None or role is None or found[role] == episodes:
                    continue
                yield Take(role, mode, seed, since[role], self._recorder.recording)
                found[role], since[role] = found[role] + 1, 0
                if min(found.values()) == episodes:
                    break
            yield from (Missed(role, since[role]) for role in group if found[role] < episodes)

    def close(self) -> None:
        """Releases the simulator."""
        self._env.close()

    def _try(self, seed: int, code: int) -> str | None:
        """Plays one episode; returns its mode, or None where it failed."""
        codes = torch.tensor([code])
        batch = play_episodes(self._env, self._agent, seed=seed, codes=codes, generator=self._generator)
        return find_mode(self._labelling, self._recorder.recording) if bool(batch.success[0]) else None


def find_mode(labelling: Labelling, recording: Recording) -> str:
    """True mode of an episode that succeeded."""
    weights = labelling.weigh(recording.track, torch.tensor([recording.length]), torch.tensor([True]))
    return labelling.modes[int(weights[0].argmax())]
