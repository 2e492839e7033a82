"""The `env` settings of Gym."""

import re
from typing import Annotated

from pydantic import Field, field_validator

from bmd_pipeline.config.schema import NUMBER, Section

SUCCESS = re.compile(rf"(?P<key>info\.\S+)|(?P<sum>reward|return) *>= *(?P<bound>{NUMBER})")
"""How `success` is written."""


class Options(Section):
    """A gymnasium or ManiSkill environment, by its id."""

    id: str = Field(pattern=r"^\S+$", max_length=200)
    """The environment's id, as `gymnasium.make` takes it; MODULE:ID where importing a module registers it."""
    success: str = Field(max_length=200)
    """When an episode succeeds: `info.KEY` or `reward >= NUMBER`, at a step, which then ends the episode, or
    `return >= NUMBER`, at the episode's end."""
    track: tuple[Annotated[str, Field(max_length=200)], ...] = Field(min_length=1, max_length=100)
    """Columns in which behaviours differ, such as `obs.0` or `info.position`; a name stands for all that begin with it.
    The first two are those that pictures show."""
    horizon: int | None = Field(None, ge=1, le=100_000)
    """Time limit in control steps; null: the environment's own."""
    arguments: dict[str, bool | int | float | str] = {}
    """Arguments of `gymnasium.make`, such as `control_mode` of ManiSkill."""

    @field_validator("success")
    @classmethod
    def _is_judgement(cls, value: str) -> str:
        if not SUCCESS.fullmatch(value):
            raise ValueError(f"must be info.KEY, reward >= NUMBER or return >= NUMBER, got {value!r}")
        return value
