"""Reading the documents that stages wrote: eval.json, compare.json, verdict.json, grid.json and those below modes/ and
lambda/.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, get_args

from pydantic import ValidationError

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import read_json
from bmd_pipeline.metrics.comparison import Comparison
from bmd_pipeline.metrics.document import Block
from bmd_pipeline.metrics.evaluation import Evaluation
from bmd_pipeline.metrics.grid import Grid
from bmd_pipeline.metrics.sweep import Sweep
from bmd_pipeline.metrics.validation import Validation
from bmd_pipeline.metrics.verdict import Verdict

Document = TypeVar("Document", bound=Block)


def load_evaluation(path: Path) -> Evaluation:
    """Reads and validates an eval.json; this and the others below raise as `load_document` does."""
    return load_document(path, Evaluation, "evaluation")


def load_comparison(path: Path) -> Comparison:
    """Reads and validates a compare.json."""
    return load_document(path, Comparison, "comparison")


def load_verdict(path: Path) -> Verdict:
    """Reads and validates a verdict.json."""
    return load_document(path, Verdict, "verdict")


def load_sweep(path: Path) -> Sweep:
    """Reads and validates a lambda/sweep.json."""
    return load_document(path, Sweep, "sweep")


def load_grid(path: Path) -> Grid:
    """Reads and validates a grid.json."""
    return load_document(path, Grid, "grid")


def load_validation(path: Path) -> Validation:
    """Reads and validates a modes/validation.json."""
    return load_document(path, Validation, "validation")


def load_document(path: Path, model: type[Document], what: str) -> Document:
    """Reads and validates a document.

    Args:
        path: the file.
        model: what it must hold.
        what: what it is, for the message.

    Raises:
        ArtifactError: it is missing, damaged or of another schema version.
    """
    document = read_json(path, what)
    (needed,) = get_args(model.model_fields["schema_version"].annotation)
    if (found := document.get("schema_version")) != needed:
        raise ArtifactError(
            f"{what}: {path} has schema version {found}, this release reads {needed}; "
            f"delete it and make it again, with `snakemake --cores 2 {path}` or as it was made"
        )
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{what}: {path} doesn't fit the schema: {where}: {first['msg']}") from None
