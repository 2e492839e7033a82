"""Settings of the task itself."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bmd_pipeline.config.base import Section


class TaskConfig(Section):
    """Which task runs; every stage depends on it."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    """Name of the task, or of a variant of one."""
    extends: str | None = None
    """For a variant: the task whose code and settings it starts from (`extends:` in its file)."""
    plugins: tuple[str, ...] = ()
    """Modules to import that register tasks of your own."""
    env: dict[str, Any] = {}
    """The task's own settings; `bmd-pipeline tasks NAME` lists them."""
