"""Experts at work, and which of their attempts become demonstrations."""

from __future__ import annotations

import math
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Protocol, Self

from bmd_pipeline import errors
from bmd_pipeline.compute import set_threads
from bmd_pipeline.config.schema import TaskConfig
from bmd_pipeline.environments.base import Episode, Expert
from bmd_pipeline.errors import BMDError, ConfigError, SimulationError, TrainingError
from bmd_pipeline.tasks import registry

# ---- Which attempts become demonstrations: a decision that does not depend on how many workers make them ----
#
# Attempts of a behaviour are numbered. The first successes in attempt order fill its quota, however fast
# later attempts come back, and across behaviours episodes are taken in turn: attempt 0 of each, attempt 1 of
# each, and so on. No attempt is started unless the quota needs it should all that are running succeed, so
# none is wasted and the count of failures is the same for any number of workers.


@dataclass(frozen=True, order=True)
class Attempt:
    """One try: ordered as episodes are taken."""

    index: int
    behaviour: int


@dataclass
class _Behaviour:
    name: str
    quota: int
    limit: int
    started: int = 0
    judged: int = 0
    accepted: int = 0
    waiting: dict[int, Episode] = field(default_factory=dict)

    @property
    def promised(self) -> int:
        """Demonstrations, should all attempts that are still running succeed."""
        arrived = sum(episode.success for episode in self.waiting.values())
        return self.accepted + arrived + self.started - self.judged - len(self.waiting)

    @property
    def filled(self) -> bool:
        return self.accepted >= self.quota


class Quota:
    """Hands out attempts and takes episodes in.

    Args:
        behaviours: names.
        num_episodes: demonstrations wanted; shared out evenly, the first behaviours take the remainder.
        max_attempts_factor: attempts per wanted demonstration before a behaviour counts as impossible.
        wanted: the behaviours to show; none named means all.

    Raises:
        ConfigError: fewer episodes than behaviours, or a wanted behaviour that the expert doesn't know.
    """

    def __init__(
        self,
        behaviours: Sequence[str],
        num_episodes: int,
        max_attempts_factor: float,
        wanted: Sequence[str] = (),
    ) -> None:
        for name in wanted:
            if name not in behaviours:
                raise ConfigError(f"collect.behaviours: the expert shows no {name!r}; it shows {', '.join(behaviours)}")
        shown = [name for name in behaviours if name in wanted or not wanted]
        if num_episodes < len(shown):
            raise ConfigError(
                f"collect.num_episodes must be >= the number of behaviours to show ({len(shown)}), got {num_episodes}"
            )
        share, remainder = divmod(num_episodes, len(shown))
        shares = {name: share + (i < remainder) for i, name in enumerate(shown)}
        quotas = [shares.get(name, 0) for name in behaviours]
        self._behaviours = [
            _Behaviour(name, quota, math.ceil(quota * max_attempts_factor))
            for name, quota in zip(behaviours, quotas, strict=True)
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

        Yields:
            The demonstrations that are now decided, in their final order.

        Raises:
            TrainingError: a behaviour used up its attempts.
        """
        self._behaviours[attempt.behaviour].waiting[attempt.index] = episode
        while not self.done:
            turn = min(Attempt(b.judged, i) for i, b in enumerate(self._behaviours) if not b.filled)
            behaviour = self._behaviours[turn.behaviour]
            arrived = behaviour.waiting.pop(turn.index, None)
            if arrived is None:
                return
            behaviour.judged += 1
            behaviour.accepted += arrived.success
            if arrived.success:
                yield arrived
            elif behaviour.judged >= behaviour.limit:
                raise TrainingError(
                    f"the expert showed {behaviour.name!r} {behaviour.accepted} times in "
                    f"{behaviour.judged} attempts, {behaviour.quota} are wanted; "
                    "repair the expert"
                )

    def counts(self) -> dict[str, dict[str, int]]:
        """Attempts, demonstrations and dropped failures by behaviour."""
        return {
            behaviour.name: {
                "attempts": behaviour.judged,
                "accepted": behaviour.accepted,
                "dropped": behaviour.judged - behaviour.accepted,
            }
            for behaviour in self._behaviours
            if behaviour.quota
        }


# ---- Experts at work: in this process, or in worker processes of their own ----

NextAttempt = Callable[[], tuple[Attempt, int] | None]
"""The next attempt and its seed, or None if there is nothing to start at the moment."""


class ExpertPool(Protocol):
    """Runs attempts and returns them as they finish, in any order.

    Attributes:
        behaviours: what the expert can show.
    """

    behaviours: tuple[str, ...]

    def run(self, next_attempt: NextAttempt) -> tuple[Attempt, Episode]:
        """Starts attempts while there is somebody idle to make them, and waits for one to finish."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_pool(task: TaskConfig, num_workers: int) -> ExpertPool:
    """Experts of a task in this process (one worker) or in several.

    Use it as a context manager: it stops the workers.
    """
    return LocalPool(task) if num_workers == 1 else WorkerPool(task, num_workers)


def make_expert(task: TaskConfig) -> Expert:
    """Builds the task's expert, registering what its settings bring along first."""
    registry.prepare(task)
    return registry.make_expert(task.name, task.env)


class LocalPool:
    """One expert in this process."""

    def __init__(self, task: TaskConfig) -> None:
        self._expert = make_expert(task)
        self.behaviours = self._expert.behaviours

    def run(self, next_attempt: NextAttempt) -> tuple[Attempt, Episode]:
        """Makes one attempt."""
        job = next_attempt()
        if job is None:
            raise SimulationError("collection has no attempt to start and none running")
        attempt, seed = job
        try:
            return attempt, self._expert.demonstrate(attempt.behaviour, seed)
        except BMDError:
            raise
        except Exception as error:
            raise SimulationError(_describe(attempt, traceback.format_exc())) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._expert.close()


_Question = tuple[Attempt, int] | None
"""What a worker is asked: an attempt and its seed, or None for the expert's behaviours."""


@dataclass(frozen=True)
class _Failure:
    """A worker's answer when its expert raised: the name of a `BMDError` and its message, or a traceback."""

    kind: str | None
    text: str


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    attempt: Attempt | None = None


class WorkerPool:
    """Experts in processes of their own; processes, since simulators hold Python's lock while they step.

    Workers end with this process: they are daemons, and they stop when their pipe closes.
    """

    def __init__(self, task: TaskConfig, num_workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        try:
            for index in range(num_workers):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, task), name=f"expert-{index}", daemon=True)
                process.start()
                there.close()  # so that the pipe ends when the worker does
                self._workers.append(_Worker(process, here))
            self.behaviours: tuple[str, ...] = self._ask(self._workers[0], None)
        except BaseException:
            self._stop(at_once=True)
            raise

    def run(self, next_attempt: NextAttempt) -> tuple[Attempt, Episode]:
        """Keeps all workers busy and returns the next finished attempt.

        Raises:
            SimulationError: a worker died, or its expert failed.
        """
        for worker in self._workers:
            if worker.attempt is None and (job := next_attempt()) is not None:
                worker.attempt = job[0]
                self._send(worker, job)
        busy = {worker.pipe: worker for worker in self._workers if worker.attempt is not None}
        if not busy:
            raise SimulationError("collection has no attempt to start and none running")
        worker = busy[wait(list(busy))[0]]  # type: ignore[index]
        attempt = worker.attempt
        assert attempt is not None  # it is among the busy ones
        episode: Episode = self._receive(worker)
        worker.attempt = None
        return attempt, episode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(at_once=kind is not None)

    def _ask(self, worker: _Worker, question: _Question) -> Any:
        self._send(worker, question)
        return self._receive(worker)

    def _send(self, worker: _Worker, question: _Question) -> None:
        try:
            worker.pipe.send(question)
        except OSError:
            raise self._death(worker) from None

    def _receive(self, worker: _Worker) -> Any:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            raise self._death(worker) from None
        if isinstance(answer, _Failure):
            if answer.kind is not None:
                raise getattr(errors, answer.kind)(answer.text)
            raise SimulationError(_describe(worker.attempt, answer.text))
        return answer

    def _death(self, worker: _Worker) -> SimulationError:
        worker.process.join(timeout=5)
        return SimulationError(
            f"collecting process {worker.process.name} died with exit code {worker.process.exitcode} "
            f"during {worker.attempt}; run the same command again"
        )

    def _stop(self, at_once: bool) -> None:
        for worker in self._workers:
            worker.pipe.close()
            if at_once:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _serve(pipe: Connection, task: TaskConfig) -> None:
    """Body of a worker: answers attempts with episodes, and None with the behaviours, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    set_threads(1)
    expert: Expert | None = None
    try:
        while True:
            question: _Question = pipe.recv()
            expert = expert or make_expert(task)
            if question is None:
                pipe.send(expert.behaviours)
            else:
                attempt, seed = question
                pipe.send(expert.demonstrate(attempt.behaviour, seed))
    except (EOFError, BrokenPipeError):
        return  # nobody is listening any more
    except BMDError as error:
        pipe.send(_Failure(type(error).__name__, str(error)))
    except Exception:
        pipe.send(_Failure(None, traceback.format_exc()))
    finally:
        if expert is not None:
            expert.close()


def _describe(attempt: Attempt | None, trace: str) -> str:
    when = f"at {attempt}" if attempt else "to start"
    return f"the expert failed {when}:\n{trace}"
