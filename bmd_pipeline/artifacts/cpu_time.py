"""CPU time of a job, with its worker processes."""

from __future__ import annotations

import multiprocessing
import os
import resource
from pathlib import Path


def measure_cpu_seconds() -> float:
    """Seconds of CPU that this process and its children have used since it began.

    Children that have ended are counted by the system; those that still run, as a simulator's workers do when a stage
    writes its record, by Linux' /proc, and not at all elsewhere.
    """
    own = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(_read_cpu_seconds(child.pid) for child in multiprocessing.active_children())
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + running


def _read_cpu_seconds(pid: int | None) -> float:
    """User and system time of a running process; 0 if it is gone or nobody says."""
    try:
        # The name before the last parenthesis may hold anything; utime and stime are the 14th and 15th field.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
