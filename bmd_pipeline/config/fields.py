"""Kinds of settings that several groups share, with their bounds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

TASK_PATTERN = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
"""A task's name becomes a folder's name, and part of others."""


def _unrepeated(values: Sequence[Hashable]) -> Sequence[Hashable]:
    if len(set(values)) != len(values):
        raise ValueError(f"must not repeat, got {list(values)}")
    return values


Once = AfterValidator(_unrepeated)
"""Whatever is listed is listed once."""

Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""Seed of a run; derived seeds fit 64 bits whatever it is."""
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000), Once]
"""Seeds of repetitions."""
Width = Annotated[int, Field(ge=1, le=16_384)]
"""Units of a hidden layer."""
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)]
"""Hidden layers."""
Name = Annotated[str, Field(min_length=1, max_length=100)]
"""A name that a task gives to a part of it."""
Names = Annotated[tuple[Name, ...], Field(max_length=1000), Once]
"""Some of those."""
TaskName = Annotated[str, Field(pattern=f"^{TASK_PATTERN}$")]
"""Name of a task."""
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=200)]
"""Import path of a Python module."""
GivenPath = Annotated[
    str,
    Field(min_length=1, max_length=1000, pattern=r"^[^{}\x00-\x1f]+$"),
    AfterValidator(lambda path: str(Path(path))),
]
"""Path of something that the user brings; Snakemake would read braces in it as wildcards."""
