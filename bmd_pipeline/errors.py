"""Exceptions.

Those below `BMDError` are failures that a user can put right (exit status 2): one line says what is wrong, where, and
what to do. Outside of it: `SimulationError` (exit status 1), and `AlreadyWritten`, which is no failure.
"""

import difflib
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class BMDError(Exception):
    """Base of the failures that a user can put right (exit status 2)."""


class ConfigError(BMDError):
    """A setting is unknown, out of bounds, or contradicts another setting."""


class TaskError(BMDError):
    """A task is unknown or breaks the task contract, or what it needs on this machine is missing."""


class DataError(BMDError):
    """A demonstration store is damaged, foreign, or does not fit the task."""


class ArtifactError(BMDError):
    """A stage's output is missing, damaged, or was made for something else."""


class TrainingError(BMDError):
    """Too few demonstrations, a reward or a network that is not finite, training that diverges however small its steps,
    or no success to show."""


class DivergenceError(TrainingError):
    """An update diverged: a loss, gradient or weight is not finite, or the KL or the critic's error exceeds its bound.
    Training tries it again with smaller learning rates."""


class SimulationError(RuntimeError):
    """A simulation worker died, by our fault or the machine's; the message carries its traceback (exit status 1)."""


class AlreadyWritten(Exception):  # noqa: N818 - nothing went wrong
    """While this job waited, another one wrote the same; the message says what."""


@contextmanager
def blame(who: str, module: str, what: str = "") -> Iterator[None]:
    """What code outside this package, such as that of a task, raises in here is a TaskError: its fault, not ours.

    `module` is where `who` is imported from ("task MyTask"), and `what` says what it was asked for.
    """
    try:
        yield
    except (BMDError, SimulationError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # sys.exit, and what is derived from nothing else
        if module.startswith(f"{__package__}."):
            raise
        calls = list(traceback.walk_tb(error.__traceback__))
        folder = module.partition(".")[0]  # the last line of its own says more than one of a library that it called
        own = [call for call in calls if str(call[0].f_globals.get("__name__")).partition(".")[0] == folder]
        frame, line = (own or calls)[-1]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        place = f"{frame.f_code.co_filename}:{line}"
        raise TaskError(f"{who} failed{f' in {what}' if what else ''}: {reason} ({place})") from error


def suggest(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or all of them, as the tail of a message."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
