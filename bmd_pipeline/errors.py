"""Every failure that a user can cause, as one tree; messages say what is wrong, where, and what to do, in one line."""

import difflib
from collections.abc import Iterable


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
    """Training can't go on: a loss, a policy or a behaviour set is unusable."""


class DivergenceError(TrainingError):
    """Numbers of an update ran away: not finite, or beyond what the guard allows. A smaller step may mend it."""


class SimulationError(RuntimeError):
    """A simulation worker died, by our fault or the machine's; the message carries its traceback (exit status 1)."""


class AlreadyWritten(Exception):  # noqa: N818 - nothing went wrong
    """While this job waited, another one wrote the same; the message says what."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or all of them, as the tail of a message."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
