"""What the published result documents share: frozen blocks, provenance, and how their schemas are printed."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Block(BaseModel):
    """A frozen part of a document; unknown fields and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class InputFile(Block):
    """A file that was read."""

    path: str
    """Where it was."""
    sha256: str
    """Hash of its content."""


class Provenance(Block):
    """Where the numbers come from; fields as in run.json."""

    command: str
    """Command line that wrote the file."""
    git_commit: str | None
    """Commit of the code, "-dirty" if edited; null for an installed package."""
    packages: dict[str, str]
    """Versions of the packages that matter."""
    python: str
    """Version of Python."""
    platform: str
    """Operating system and processor."""
    device: str
    """Device that computed it."""
    threads: int = Field(ge=1)
    """Cores that torch used."""
    wall_s: float = Field(ge=0)
    """Wall time in seconds."""
    cpu_seconds: float = Field(ge=0)
    """CPU time of the process and its workers in seconds."""
    config: dict[str, Any]
    """The settings that the stage itself read."""
    inputs: dict[str, InputFile]
    """What it read, by name. A `run.json` there holds the hashes of everything beside it."""


def schema_text(model: type[Block], file: str) -> str:
    """JSON Schema of a document as text, as docs/ publishes it.

    Args:
        model: the document.
        file: name of the file that holds it.
    """
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="serialization"),
        "title": f"{file} of bmd-pipeline",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
