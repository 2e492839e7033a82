"""Settings of pooling over base policies."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import Once, Seed


class PoolConfig(Section):
    """Which base policies results/<Task>/pool.json speaks about."""

    bases: Annotated[tuple[Seed, ...], Field(min_length=2, max_length=1000), Once] = (0, 1, 2)
    """Root seeds: each k is the task <Task>-base<k>, with demonstrations, policy and modes of its own."""
