"""Settings of the task itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import ModuleName, TaskName


class TaskConfig(Section):
    """Which task runs; every stage depends on it."""

    name: TaskName
    """Name of the task, or of a variant of one."""
    extends: TaskName | None = None
    """For a variant: the task whose code and settings it starts from (`extends:` in its file)."""
    plugins: tuple[ModuleName, ...] = Field((), max_length=100)
    """Modules to import that register tasks of your own."""
    physics: Literal["cpu", "cuda"] = "cpu"
    """Where a simulator steps the task. cuda: ManiSkill's GPU simulation, another engine with other results, in which
    networks and episodes stay on the device; it has not been run yet. Native tasks have no simulator, and ignore it."""
    env: dict[str, Any] = {}
    """The task's own settings; `bmd-pipeline tasks NAME` lists them."""
