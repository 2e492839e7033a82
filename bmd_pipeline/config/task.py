"""Settings of the task itself."""

from __future__ import annotations

from typing import Any

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
    env: dict[str, Any] = {}
    """The task's own settings; `bmd-pipeline tasks NAME` lists them."""
