"""Is there room? Asked before a stage begins, so that an hour of work doesn't end in a full disk."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.stages.needs import estimate_needs
from bmd_pipeline.tasks import registry

CGROUP = Path("/sys/fs/cgroup")


def require_room(config: RunConfig, stage: str, output: Path, *, method: str | None = None, workers: int = 1) -> None:
    """Refuses a stage that would run out of memory or disk.

    Args:
        config: the run.
        stage: its command.
        output: what it writes, there or not.
        method: what is fine-tuned or judged.
        workers: cores it may use.

    Raises:
        ConfigError: too little memory for these settings.
        ArtifactError: too little room where the output goes.
    """
    spec = registry.make_spec(config.task.name, config.task.env)
    simulator = registry.get_entry(config.task.name).simulator
    needs = estimate_needs(config, stage, spec, method=method, workers=workers, simulator=simulator)
    memory, disk = free_memory(), free_disk(output)
    if memory is not None and needs.memory > memory:
        why = f"lower {needs.because}, or free some" if needs.because else "free some"
        raise ConfigError(f"{stage} needs about {tell(needs.memory)} of memory, {tell(memory)} is available: {why}")
    if needs.disk > disk:
        raise ArtifactError(
            f"{stage} needs about {tell(needs.disk)} of disk for {output}, {tell(disk)} is free there: make room"
        )


def free_memory() -> float | None:
    """Bytes that this process could still get, of the machine or its control group; None if the system doesn't say."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024.0 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):  # "max" sets no limit
        limit = int((CGROUP / "memory.max").read_text())
        found.append(float(max(0, limit - int((CGROUP / "memory.current").read_text()))))
    return min(found, default=None)


def free_disk(path: Path) -> float:
    """Bytes that this user may still write where a path is, or would be."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return float(shutil.disk_usage(place).free)


def tell(size: float) -> str:
    """A size for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
