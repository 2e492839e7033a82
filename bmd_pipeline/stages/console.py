"""What a stage says while it works, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO, cast
from unicodedata import category

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from bmd_pipeline.errors import SimulationError

if TYPE_CHECKING:
    from torch import Tensor

    from bmd_pipeline.environments.base import TaskEnv, Transition

Mode = Literal["normal", "plain", "quiet"]
Field = float | int | str

_CONTROLS = ("Cc", "Cf", "Cs")
"""Unicode's categories of what is no letter: terminals obey some of it."""
PLAIN_SECONDS = 10.0
PLAIN_FRACTION = 0.1
PLAIN_MIN_SECONDS = 1.0
"""A plain line comes after 10 s or 10 %, but short jobs don't chatter: never twice within a second."""


def format_seconds(seconds: float) -> str:
    """A duration as people say it: `48 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_fields(fields: dict[str, Field]) -> str:
    """Values beside a bar: `loss 0.0312, success 0.57`."""
    parts = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in fields.items())
    return ", ".join(parts)


def format_rate(done: float, total: int, elapsed: float) -> str:
    """Rate and time left: `165.2/s, 48 s left`."""
    if done <= 0 or elapsed <= 0:
        return ""
    rate = done / elapsed
    speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
    if done >= total:
        return f"{speed}, took {format_seconds(elapsed)}"
    return f"{speed}, {format_seconds((total - done) / rate)} left"


class Progress(AbstractContextManager["Progress"]):
    """A running count, used as a context manager. This one shows nothing; the others add how it is shown.

    `done` is where it starts after a resume, and no part of the rate; `clock` tells seconds, for tests.
    """

    def __init__(self, description: str, total: int, done: int, clock: Callable[[], float]) -> None:
        self.description = description
        self.total = total
        self.done = done
        self.fields: dict[str, Field] = {}
        self._first = done
        self._clock = clock
        self._started = clock()

    def advance(self, n: int = 1, **fields: Field) -> None:
        """Counts n more; fields replace the values shown beside the bar."""
        self.done += n
        self.fields.update(fields)
        self._show()

    def status(self) -> str:
        """Rate, time left and fields as one text."""
        elapsed = self._clock() - self._started
        rate = format_rate(self.done - self._first, self.total - self._first, elapsed)
        return ", ".join(filter(None, (rate, format_fields(self.fields))))

    def _show(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Plain(Progress):
    """Progress as occasional lines."""

    def __init__(
        self, description: str, total: int, done: int, clock: Callable[[], float], write: Callable[[str], None]
    ) -> None:
        super().__init__(description, total, done, clock)
        self._write = write
        self._shown_at = self._started
        self._shown_done = done

    def _show(self) -> None:
        moved = self.done - self._shown_done
        patience = PLAIN_MIN_SECONDS if moved >= PLAIN_FRACTION * self.total else PLAIN_SECONDS
        is_due = moved > 0 if self.done >= self.total else self._clock() - self._shown_at >= patience
        if not is_due:
            return
        self._shown_at, self._shown_done = self._clock(), self.done
        share = f" ({100 * self.done // self.total}%)" if self.total else ""
        status = self.status()
        self._write(f"{self.description}: {self.done}/{self.total}{share}" + (f", {status}" if status else ""))


class _Live(Progress):
    """Progress as a bar on a terminal."""

    def __init__(self, description: str, total: int, done: int, clock: Callable[[], float], console: Console) -> None:
        super().__init__(description, total, done, clock)
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", style="dim"),
            console=console,
        )
        self._row = self._bar.add_task(escape(description), total=total, completed=done, status="")

    def _show(self) -> None:
        self._bar.update(self._row, completed=self.done, status=escape(self.status()))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class _Expendable:
    """A stream that stops nobody by its end: a terminal that was closed, a pipe that nobody reads, a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Reporter:
    """The only thing a stage prints through: to stderr, so that stdout stays free for data.

    | mode | for | looks like |
    |---|---|---|
    | normal | a terminal | colours and live bars |
    | plain | log files, pipes, CI | no control codes; a progress line about every 10 s or 10 % |
    | quiet | scripts | warnings only |

    Args:
        mode: normal, plain or quiet; None takes normal on a terminal and plain elsewhere.
        label: which job is speaking; starts every line where several may write to one place (plain, quiet).
        stream: where to write; stderr if None.
        clock: seconds, for tests.

    Attributes:
        warnings: what `warn` was given; stages put it into run.json.
    """

    def __init__(
        self,
        mode: Mode | None = None,
        *,
        label: str = "",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stream = cast(TextIO, _Expendable(sys.stderr if stream is None else stream))
        self.mode: Mode = mode or ("normal" if stream.isatty() else "plain")
        self.warnings: list[str] = []
        self._prefix = f"[{label}] " if label else ""
        self._stream = stream
        self._clock = clock
        self._console = Console(file=stream, highlight=False) if self.mode == "normal" else None

    def log(self, message: str) -> None:
        """Says what happened."""
        if self.mode != "quiet":
            self._line(message)

    def warn(self, message: str, example: str = "") -> None:
        """Says what may be wrong; the only thing that quiet mode shows. Given examples, the first alone is said."""
        if example and any(said.startswith(message) for said in self.warnings):
            return
        message += f" (first: {example})" if example else ""
        self.warnings.append(message)
        self._line(f"warning: {message}", style="yellow")

    def recall(self, warnings: list[str]) -> None:
        """Prepends the warnings of the interrupted run that this one resumes; prints nothing."""
        self.warnings[:] = dict.fromkeys([*warnings, *self.warnings])

    def progress(self, description: str, total: int, done: int = 0) -> Progress:
        """A context manager that counts; for the arguments see `Progress`."""
        if self._console is not None:
            return _Live(description, total, done, self._clock, self._console)
        if self.mode == "plain":
            return _Plain(description, total, done, self._clock, self._line)
        return Progress(description, total, done, self._clock)

    def _line(self, text: str, style: str = "") -> None:
        # names of files may hold what terminals obey
        text = "".join(ascii(char)[1:-1] if char != "\n" and category(char) in _CONTROLS else char for char in text)
        if self._console is not None:
            self._console.print(escape(text), style=style, soft_wrap=True)
        else:
            self._stream.write(f"{self._prefix}{text}\n")
            self._stream.flush()


STOPPED = 75
"""Exit status of a stage that stopped to be run again."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A stage stopped because it was asked to; the message says by what."""


class Stop:
    """Whether a stage was asked to stop, by a signal or a time limit. As a context manager it listens to signals.

    Training stages check it at points from which they can resume, save, and stop; the same command resumes. A second
    signal kills at once. Other stages end at the first signal. What was ignored from the start, as by nohup, stays so.

    | what happens | exit status |
    |---|---|
    | SIGTERM, SIGINT (Ctrl-C), SIGHUP or `--max-minutes`: progress is saved | 75 (EX_TEMPFAIL): try again |
    | a second signal: at once, and what was saved before stays | that of the signal, 143 or 130 in a shell |

    `max_minutes` is a time limit from now on, and `clock` tells seconds that never jump, for tests.
    """

    def __init__(self, max_minutes: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_minutes = max_minutes
        self._clock = clock
        self._started = clock()
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str | None:
        """What asked the stage to stop (a signal's name or the time limit), or None."""
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
            heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
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

    A rollout may take minutes, and schedulers grant seconds between the signal and the end. Before every chunk `step`
    and `step_chunk` raise `Stopped` if somebody asked.
    """

    def __init__(self, env: TaskEnv, stop: Stop) -> None:
        self.spec, self.num_envs, self.device = env.spec, env.num_envs, env.device
        self.reset, self.track, self.close = env.reset, env.track, env.close
        self._env = env
        self._stop = stop

    def step(self, action: Tensor) -> Transition:
        """As the environment's."""
        self._stop.check()
        return self._env.step(action)

    def step_chunk(self, actions: Tensor) -> Transition:
        """As the environment's."""
        self._stop.check()
        return self._env.step_chunk(actions)
