"""Experts at work, and which of their attempts become demonstrations."""

import math
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait

import numpy as np

from bmd_pipeline.config.schema import TaskConfig
from bmd_pipeline.environments.base import LARGEST, Episode, Expert
from bmd_pipeline.environments.workers import Service, Worker, stop_workers
from bmd_pipeline.errors import BMDError, ConfigError, SimulationError, TaskError, TrainingError
from bmd_pipeline.tasks import registry

# ---- Which attempts become demonstrations: a decision that does not depend on how many workers make them ----
#
# Attempts of a behaviour are numbered. The first successes in attempt order fill its quota, however fast
# later attempts come back, and across behaviours episodes are taken in turn: attempt 0 of each, attempt 1 of
# each, and so on. An attempt starts only if the quota would stay unfilled even if all running attempts succeeded. So
# no attempt is wasted, and the number of failures does not depend on the number of workers.


@dataclass(frozen=True, order=True)
class Attempt:
    """One attempt of one behaviour; attempts compare in the order in which episodes enter the store."""

    index: int
    behaviour: int


@dataclass
class _Behaviour:
    name: str
    quota: int
    limit: int
    started: int = 0
    decided: int = 0
    accepted: int = 0
    waiting: dict[int, Episode] = field(default_factory=dict)
    unusable: str = ""  # the first value that can't be used

    @property
    def promised(self) -> int:
        """Demonstrations, should all attempts that are still running succeed."""
        arrived = sum(episode.success for episode in self.waiting.values())
        return self.accepted + arrived + self.started - self.decided - len(self.waiting)

    @property
    def filled(self) -> bool:
        return self.accepted >= self.quota


class Quota:
    """Hands out attempts and takes episodes in.

    Demonstrations are shared out evenly over the wanted behaviours, the first ones taking the remainder; none wanted
    means all. `max_attempts_factor` is attempts per demonstration before a behaviour counts as impossible.

    Raises:
        ConfigError: fewer episodes than behaviours, or a wanted behaviour that the expert doesn't know.
    """

    def __init__(
        self, behaviours: Sequence[str], num_episodes: int, max_attempts_factor: float, wanted: Sequence[str] = ()
    ) -> None:
        for name in wanted:
            if name not in behaviours:
                raise ConfigError(f"collect.behaviours: the expert shows no {name!r}; it shows {', '.join(behaviours)}")
        shown = [name for name in behaviours if name in wanted] or behaviours
        if num_episodes < len(shown):
            raise ConfigError(
                f"collect.num_episodes must be >= the number of behaviours to show ({len(shown)}), got {num_episodes}"
            )
        share, remainder = divmod(num_episodes, len(shown))
        quotas = dict.fromkeys(behaviours, 0) | {name: share + (i < remainder) for i, name in enumerate(shown)}
        self._behaviours = [
            _Behaviour(name, quota, math.ceil(quota * max_attempts_factor)) for name, quota in quotas.items()
        ]

    @property
    def done(self) -> bool:
        """Whether every behaviour has its share."""
        return all(behaviour.filled for behaviour in self._behaviours)

    def next_attempt(self) -> Attempt | None:
        """The attempt to start next, or None if those running may be enough."""
        wanting = [
            Attempt(behaviour.started, i)
            for i, behaviour in enumerate(self._behaviours)
            if behaviour.promised < behaviour.quota and behaviour.started < behaviour.limit
        ]
        if not wanting:
            return None
        attempt = min(wanting)
        self._behaviours[attempt.behaviour].started += 1
        return attempt

    def finish(self, attempt: Attempt, episode: Episode) -> Iterator[Episode]:
        """Takes the episode of an attempt in.

        An episode with a value that can't be used is a failure.

        Yields:
            The demonstrations that are now decided, in their final order.

        Raises:
            TrainingError: a behaviour used up its attempts.
        """
        shown = self._behaviours[attempt.behaviour]
        if wrong := find_unusable(episode):
            episode = replace(episode, success=False)
            shown.unusable = shown.unusable or f"; attempt {attempt.index} had {wrong}"
        shown.waiting[attempt.index] = episode
        while not self.done:
            turn = min(Attempt(b.decided, i) for i, b in enumerate(self._behaviours) if not b.filled)
            behaviour = self._behaviours[turn.behaviour]
            arrived = behaviour.waiting.pop(turn.index, None)
            if arrived is None:
                return
            behaviour.decided += 1
            behaviour.accepted += arrived.success
            if arrived.success:
                yield arrived
            elif behaviour.decided >= behaviour.limit:
                raise TrainingError(
                    f"the expert showed {behaviour.name!r} {behaviour.accepted} times in {behaviour.decided} attempts, "
                    f"{behaviour.quota} are wanted{behaviour.unusable}; repair the expert"
                )

    def counts(self) -> dict[str, dict[str, int]]:
        """Attempts, demonstrations and dropped failures by behaviour."""
        return {
            behaviour.name: {
                "attempts": behaviour.decided,
                "accepted": behaviour.accepted,
                "dropped": behaviour.decided - behaviour.accepted,
            }
            for behaviour in self._behaviours
            if behaviour.quota
        }


def find_unusable(episode: Episode) -> str:
    """The first value of a demonstration that is not finite or beyond `LARGEST`, and where; empty if there is none."""
    for name, rows in (("observation", episode.obs), ("action", episode.action)):
        for step, column in np.argwhere(~(np.abs(rows) <= LARGEST))[:1].tolist():
            return f"{name} {rows[step, column]:g} at step {step}, column {column}"
    return ""


def require_episode(shown: object, behaviour: int, who: str) -> Episode:
    """What an expert that was asked for a behaviour returned, its rows as arrays; `who` says which expert it was.

    Raises a TaskError if it is no episode, or one of another behaviour.
    """
    if not isinstance(shown, Episode):
        raise TaskError(f"{who} must return an Episode, got {type(shown).__name__}")
    rows = {}
    for name in ("obs", "action"):
        given = getattr(shown, name)
        try:
            rows[name] = np.asarray(given)
        except ValueError:  # rows of different lengths
            rows[name] = np.zeros(0)
        if rows[name].ndim != 2 or rows[name].dtype.kind not in "biuf":
            got = f"{rows[name].dtype} {rows[name].shape}" if isinstance(given, np.ndarray) else type(given).__name__
            raise TaskError(f"{who} must return an Episode whose {name} are an array of numbers (T, dim), got {got}")
    if not isinstance(shown.success, (bool, np.bool_)):
        raise TaskError(f"{who} must return an Episode whose success is a bool, got {shown.success!r}")
    if shown.behaviour != behaviour:
        raise TaskError(f"{who} was asked for behaviour {behaviour}, its episode says {shown.behaviour!r}")
    return replace(shown, obs=rows["obs"], action=rows["action"])


# ---- Experts at work: in this process, or in worker processes of their own ----

Job = tuple[Attempt, int]
"""An attempt and its seed."""
NextJob = Callable[[], Job | None]
"""The next attempt, or None if there is nothing to start at the moment."""


def _make_expert(task: TaskConfig) -> Expert:
    registry.prepare(task)
    return registry.make_expert(task.name, task.env)


def _demonstrate(task: str, expert: Expert, job: Job) -> Episode:
    attempt, seed = job
    who = f"the expert ({expert.behaviours[attempt.behaviour]}, attempt {attempt.index})"
    try:
        with registry.blame_task(task, who):
            shown = expert.demonstrate(attempt.behaviour, seed)
    except (BMDError, SimulationError):
        raise
    except Exception as error:
        raise SimulationError(f"the expert failed at {attempt}:\n{traceback.format_exc()}") from error
    return require_episode(shown, attempt.behaviour, f"task {task}: {who}")


class ExpertPool(AbstractContextManager["ExpertPool"]):
    """Runs attempts and returns them as they finish, in any order.

    Leaving its `with` block releases the experts, after a failure also in the middle of an episode.
    """

    behaviours: tuple[str, ...]  # what the expert can show

    @abstractmethod
    def run(self, next_job: NextJob) -> tuple[Attempt, Episode]:
        """Gives each idle expert its next attempt, then waits for one attempt to finish.

        Raises:
            TaskError: the expert of a task outside this package failed, or returned something else than an episode.
            SimulationError: one of ours failed, or its process died.
        """


class LocalPool(ExpertPool):
    """One expert in this process."""

    def __init__(self, task: TaskConfig) -> None:
        self._task = task.name
        self._expert = _make_expert(task)
        self.behaviours = self._expert.behaviours

    def run(self, next_job: NextJob) -> tuple[Attempt, Episode]:
        job = next_job()
        assert job is not None  # nothing runs here between calls, so an unfilled quota has a next attempt
        return job[0], _demonstrate(self._task, self._expert, job)

    def __exit__(self, *_: object) -> None:
        self._expert.close()


class WorkerPool(ExpertPool):
    """Experts in processes of their own, since simulators hold Python's lock while they step."""

    def __init__(self, task: TaskConfig, num_workers: int) -> None:
        advice = "run the same command again"
        self._workers = [Worker(f"collecting process {i}", advice, _build_expert, task) for i in range(num_workers)]
        self._attempts: dict[Worker, Attempt] = {}
        try:
            shown = [worker.receive() for worker in self._workers]  # each says it once its expert is built
        except BaseException:
            stop_workers(self._workers, at_once=True)
            raise
        self.behaviours = shown[0]

    def run(self, next_job: NextJob) -> tuple[Attempt, Episode]:
        for worker in self._workers:
            if worker not in self._attempts and (job := next_job()) is not None:
                self._attempts[worker] = job[0]
                worker.send(job)
        busy = {worker.pipe: worker for worker in self._attempts}
        worker = busy[wait(list(busy))[0]]  # type: ignore[index]
        episode: Episode = worker.receive()
        return self._attempts.pop(worker), episode

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stop_workers(self._workers, at_once=kind is not None)


def _build_expert(task: TaskConfig) -> Service:
    expert = _make_expert(task)
    return expert.behaviours, lambda job: _demonstrate(task.name, expert, job), expert.close


def make_pool(task: TaskConfig, num_workers: int) -> ExpertPool:
    """Experts of a task in this process (one worker) or in several."""
    return LocalPool(task) if num_workers == 1 else WorkerPool(task, num_workers)
