"""How a stage is asked to stop: a signal, or a time limit.

Whoever asks only leaves a note. The stage looks at it where it can go on from later, saves, and stops; the same
command goes on from there. A second signal doesn't wait for that.

| what happens | exit status |
|---|---|
| SIGTERM, SIGINT (Ctrl-C) or `--max-minutes`: progress is saved | 75, as EX_TEMPFAIL of sysexits.h: try again |
| a second signal: at once, and what was saved before stays | that of the signal, 143 or 130 in a shell |
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from bmd_pipeline.errors import SimulationError

if TYPE_CHECKING:  # the command line reads this module before anything heavy is needed
    from torch import Tensor

    from bmd_pipeline.environments.base import TaskEnv, TaskSpec, Transition

STOPPED = 75
"""Exit status of a stage that stopped to be run again."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A stage stopped because it was asked to; the message says by what."""


class Stop:
    """Whether a stage was asked to stop. As a context manager it listens to signals.

    Args:
        max_minutes: time limit from now on; None sets none.
        clock: seconds that never jump, for tests.
    """

    def __init__(self, max_minutes: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_minutes = max_minutes
        self._clock = clock
        self._started = clock()
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str | None:
        """Who asked, or None."""
        if self._signal is not None:
            return self._signal.name
        if self._max_minutes is not None and self._clock() - self._started >= 60.0 * self._max_minutes:
            return f"its time limit of {self._max_minutes:g} min"
        return None

    def check(self) -> None:
        """Raises `Stopped` if somebody asked."""
        if (reason := self.reason) is not None:
            raise Stopped(reason)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python hands signals to no other
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, SimulationError) and self._signal is not None:
            # Schedulers signal whole process groups: the workers died of it before the stage could stop them.
            raise Stopped(self._signal.name) from error

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = signal.Signals(number)


class StoppableEnv:
    """An environment in which a stage can stop between two chunks of actions.

    A rollout may take minutes, and schedulers grant seconds between the signal and the end.

    Args:
        env: the environment.
        stop: asked before every chunk.
    """

    def __init__(self, env: TaskEnv, stop: Stop) -> None:
        self._env = env
        self._stop = stop
        self.spec: TaskSpec = env.spec
        self.num_envs = env.num_envs
        self.device = env.device

    def reset(self, seed: int) -> Tensor:
        """As the environment's."""
        return self._env.reset(seed)

    def track(self) -> Tensor:
        """As the environment's."""
        return self._env.track()

    def step(self, action: Tensor) -> Transition:
        """As the environment's; raises `Stopped` if somebody asked."""
        self._stop.check()
        return self._env.step(action)

    def step_chunk(self, actions: Tensor) -> Transition:
        """As the environment's; raises `Stopped` if somebody asked."""
        self._stop.check()
        return self._env.step_chunk(actions)

    def close(self) -> None:
        """As the environment's."""
        self._env.close()
