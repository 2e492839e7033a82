"""Reading JSON documents that other stages wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bmd_pipeline.errors import ArtifactError


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: the file.
        what: what it is, for the message ("policy settings").

    Raises:
        ArtifactError: the file is missing, unreadable or holds no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{what}: {path} is missing") from None
    except OSError as error:
        raise ArtifactError(f"{what}: {path} can't be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{what}: {path} is damaged ({reason}); delete it and make it again") from None
    if not isinstance(document, dict):
        raise ArtifactError(f"{what}: {path} must hold a JSON object, got {type(document).__name__}")
    return document
