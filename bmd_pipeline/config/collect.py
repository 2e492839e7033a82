"""Settings of demonstration collection."""

from __future__ import annotations

from pydantic import Field

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import GivenPath, Names


class CollectConfig(Section):
    """How many demonstrations to collect."""

    num_episodes: int = Field(400, ge=4, le=1_000_000)
    """Successful episodes to keep, balanced over the expert's behaviours."""
    behaviours: Names = ()
    """The expert's behaviours to show, by name; none named means all. A base policy of fewer modes is a control."""
    max_attempts_factor: float = Field(3.0, ge=1.0, le=100.0)
    """Give up on a behaviour after this many attempts per wanted episode: the expert can't do it."""
    chunk_rows: int = Field(65_536, ge=256, le=10_000_000)
    """Rows per zarr chunk; stores are loaded whole, so large chunks read fastest."""
    store: GivenPath | None = None
    """Demonstrations that exist already, a zarr store: nothing is collected, and nobody writes there. The number of
    episodes, from which memory is estimated, should be theirs."""
