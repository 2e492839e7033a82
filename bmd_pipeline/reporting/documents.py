"""Reading eval.json."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from bmd_pipeline.artifacts.documents import read_json
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.metrics.evaluation import Evaluation


def load_evaluation(path: Path) -> Evaluation:
    """Reads and validates an eval.json.

    Raises:
        ArtifactError: it is missing, damaged or of another schema version.
    """
    document = read_json(path, "evaluation")
    try:
        return Evaluation.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"evaluation: {path} doesn't fit the schema: {where}: {first['msg']}") from None
