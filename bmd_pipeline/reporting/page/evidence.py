"""What other stages found out about a task's results, where they ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file
from bmd_pipeline.io.layout import RUN_FILE, Layout
from bmd_pipeline.metrics.schemas import Comparison, Evaluation, InputFile, Sweep, Validation, Verdict, load_document


@dataclass(frozen=True)
class Evidence:
    """Documents beside eval.json; None where their stage has not run.

    Attributes:
        comparison: compare.json.
        verdict: verdict.json.
        sweep: lambda/sweep.json.
        validation: modes/validation.json.
    """

    comparison: Comparison | None
    verdict: Verdict | None
    sweep: Sweep | None
    validation: Validation | None


def load_evidence(layout: Layout, evaluation: Evaluation) -> Evidence:
    """Reads the documents that are there, and checks that they are about these results.

    Raises:
        ArtifactError: one is damaged, of another task, or was made from other files than those that are here.
    """
    task = evaluation.task
    comparison, verdict = layout.comparison(task), layout.verdict(task)
    sweep, validation = layout.sweep(task), layout.validation(task)
    found = Evidence(
        comparison=load_document(comparison, Comparison) if comparison.is_file() else None,
        verdict=load_document(verdict, Verdict) if verdict.is_file() else None,
        sweep=load_document(sweep, Sweep) if sweep.is_file() else None,
        validation=load_document(validation, Validation) if validation.is_file() else None,
    )
    for path, document in ((comparison, found.comparison), (verdict, found.verdict)):
        if document is not None:
            _check_task(path, document.task, task)
            known = evaluation.provenance.inputs
            _check_inputs(path, document.provenance.inputs, {name: known[name].sha256 for name in known})
    if found.sweep is not None:
        _check_task(sweep, found.sweep.task, task)
        inputs = found.sweep.provenance.inputs
        _check_inputs(sweep, inputs, _hash_files({name: sweep.parent / name for name in inputs}))
    if found.validation is not None:
        _check_task(validation, found.validation.task, task)
        inputs = found.validation.provenance.inputs
        results = layout.summary(task).parent
        _check_inputs(validation, inputs, _hash_files({name: results / name / RUN_FILE for name in inputs}))
    return found


def _hash_files(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: hash_file(file) for name, file in files.items() if file.is_file()}


def _check_task(path: Path, found: str, task: str) -> None:
    if found != task:
        raise ArtifactError(f"{path}: is about task {found}, not {task}")


def _check_inputs(path: Path, inputs: Mapping[str, InputFile], present: Mapping[str, str]) -> None:
    for name, file in inputs.items():
        if present.get(name) != file.sha256:
            raise ArtifactError(f"{path} was made from another {name} than the present one; make it again")
