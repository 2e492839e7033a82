"""Reading the metrics that a training stage reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bmd_pipeline.errors import ArtifactError


def load_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics.jsonl: one object per report, numbers by metric, null where one was not finite.

    Raises:
        ArtifactError: the file is missing or empty, or a line of it is damaged.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from None
    if not texts:
        raise ArtifactError(f"{path} is empty; make it again")
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            line["step"] = int(line["step"])
        except (ValueError, KeyError, TypeError):
            raise ArtifactError(f"{path}, line {number}: damaged; make the file again") from None
        lines.append(line)
    return lines
