"""Results that don't fit together are named in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file
from bmd_pipeline.reporting.sources import remake_command
from tests.reporting.made_up import MadeUpRun, write_sealed


@pytest.fixture
def run(finished: MadeUpRun, tmp_path: Path) -> MadeUpRun:
    """A copy that a test may damage."""
    shutil.copytree(finished.layout.root, tmp_path, dirs_exist_ok=True)
    copy = MadeUpRun.__new__(MadeUpRun)
    copy.__dict__ = finished.__dict__ | {"layout": type(finished.layout)(tmp_path)}
    return copy


def test_sound_results_are_read(run: MadeUpRun) -> None:
    sources = run.load()
    keys = [(policy, seed) for policy in ("pretrained", "dsrl", "dsrl-bmd") for seed in (0, 1)]
    assert list(sources.episodes) == list(sources.paths) == list(sources.parts) == keys
    assert list(sources.finetuned) == list(sources.curves) == keys[2:]
    assert list(sources.discovered) == [0, 1]
    assert sources.pretraining is not None
    assert sources.pretraining.step == [2, 4, 6, 8, 10]
    assert sources.pretraining.values == {"selected": [0.16, 0.32, 0.48, 0.64, 0.8]}
    assert sources.demos is None
    assert all((sources.evidence.comparison, sources.evidence.verdict, sources.evidence.grid))
    assert sources.videos == []


def test_a_manifest_is_shown_if_the_policy_learnt_from_its_store(run: MadeUpRun) -> None:
    manifest, base = run.layout.demos_manifest(run.task), run.layout.policy(run.task) / "run.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"stage": "collect", "outputs": {"demos.zarr": "abc"}}))
    assert run.load().demos is None  # edited, or not what the policy learnt from
    run.layout.validation(run.task).unlink()  # names the record that is edited here
    write_sealed(base, json.loads(base.read_text()) | {"inputs": {"demos": {"path": "x", "sha256": "abc"}}})
    found = run.load().demos
    assert found is not None
    assert found["stage"] == "collect"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def edit(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        write_sealed(path, json.loads(path.read_text()) | changes)

    return change


def change_settings(path: Path) -> None:
    document = json.loads(path.read_text())
    next(iter(document["policies"].values()))["config_hash"] = "others"
    write_sealed(path, document)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("eval.json", Path.unlink, "eval.json is missing"),
        ("eval.json", truncate, "eval.json is damaged"),
        ("eval.json", edit(task="Other"), "evaluation of task Other, not of Toy"),
        ("episodes.parquet", truncate, "damaged episode table"),
        ("episodes.parquet", Path.unlink, "missing episode table"),
        ("trajectories.parquet", truncate, "damaged trajectories"),
        ("policy/run.json", Path.unlink, "make it with `bmd-pipeline pretrain --task Toy`"),
        ("modes/seed1/run.json", truncate, "modes/seed1/run.json is damaged"),
        ("modes/seed1/run.json", edit(wall_s="long"), "is damaged (wall_s is no value of its type)"),
        ("modes/seed1/run.json", edit(config={"discover": 5}), "is damaged (discover is no object)"),
        ("dsrl/seed1/eval.json", Path.unlink, "`bmd-pipeline evaluate --task Toy --method dsrl --seed 1`"),
        ("dsrl/seed1/eval.json", truncate, "dsrl/seed1/eval.json is damaged"),
        ("dsrl/seed1/eval.json", change_settings, "evaluated under other settings"),
        ("dsrl/seed1/eval.json", edit(config_hash="later"), "not the file that"),
        ("dsrl/seed1/run.json", Path.unlink, "`bmd-pipeline finetune --task Toy --method dsrl --seed 1`"),
        ("dsrl/seed1/run.json", edit(wall_s=9), "is not the run that was evaluated"),
        ("dsrl/seed1/metrics.jsonl", Path.unlink, "metrics.jsonl is missing"),
        ("dsrl/seed1/metrics.jsonl", truncate, "cut short or edited"),
        ("dsrl/seed1/metrics.jsonl", drop_last_line, "cut short or edited"),
        ("compare.json", truncate, "compare.json is damaged"),
        ("compare.json", edit(task="Other"), "comparison of task Other, not of Toy"),
        ("verdict.json", edit(alpha=2), "verdict.json doesn't fit the schema: alpha"),
        ("grid.json", truncate, "grid.json is damaged"),
        ("modes/validation.json", truncate, "validation.json is damaged"),
        ("modes/validation.json", edit(task="Other"), "validation of task Other, not of Toy"),
    ],
)
def test_damage_is_named(run: MadeUpRun, name: str, damage: Callable[[Path], None], message: str) -> None:
    damage(run.folder / name)
    with pytest.raises(ArtifactError) as error:
        run.load()
    assert message in str(error.value)
    assert str(run.folder / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_command_that_is_none_is_not_repeated(run: MadeUpRun) -> None:
    evaluation = run.load().evaluation
    provenance = evaluation.provenance.model_copy(update={"command": "evaluate --preset 'smoke"})
    command = remake_command(evaluation.model_copy(update={"provenance": provenance}), "Toy")
    assert command == "snakemake --cores 2 results/Toy/report.html"


def test_tables_of_another_run_are_refused(run: MadeUpRun, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = MadeUpRun(tmp_path_factory.mktemp("other"), episodes=41)
    for name, message in (("episodes.parquet", "not the episodes of"), ("trajectories.parquet", "not the paths of")):
        kept = (run.folder / name).read_bytes()
        shutil.copy(other.folder / name, run.folder / name)
        with pytest.raises(ArtifactError, match=message):
            run.load()
        (run.folder / name).write_bytes(kept)


def test_evidence_about_other_evaluations_is_refused(run: MadeUpRun) -> None:
    path = run.layout.verdict(run.task)
    document = json.loads(path.read_text())
    document["provenance"]["inputs"]["dsrl/seed0"]["sha256"] = "0"
    write_sealed(path, document)
    with pytest.raises(ArtifactError, match=r"verdict\.json was made from another dsrl/seed0"):
        run.load()


@pytest.mark.parametrize("name", ["policy", "modes/seed1"])
def test_a_policy_or_modes_that_were_not_evaluated_are_refused(run: MadeUpRun, name: str) -> None:
    """A backup may have brought back another run of the same settings."""
    for path in (run.layout.comparison(run.task), run.layout.verdict(run.task), run.layout.grid(run.task)):
        path.unlink()
    run.layout.validation(run.task).unlink()
    record, part = run.folder / name / "run.json", run.layout.evaluation(run.task, "dsrl-bmd", 1)
    document, summary = json.loads(part.read_text()), json.loads(run.layout.summary(run.task).read_text())
    file = {"path": str(record), "sha256": hash_file(record)}
    document["provenance"]["inputs"][name.split("/")[0]] = file
    write_sealed(part, document)
    summary["provenance"]["inputs"]["dsrl-bmd/seed1"]["sha256"] = hash_file(part)
    write_sealed(run.layout.summary(run.task), summary)
    run.load()
    write_sealed(record, json.loads(record.read_text()) | {"wall_s": 77})
    with pytest.raises(ArtifactError, match=rf"{name}/run\.json is not the run that was evaluated; run `bmd"):
        run.load()


def test_tables_are_those_that_the_summary_names(run: MadeUpRun) -> None:
    path = run.layout.summary(run.task)
    for name in ("episodes.parquet", "trajectories.parquet"):
        write_sealed(path, json.loads(path.read_text()) | {"tables": {name: hash_file(run.folder / name)}})
        run.load()
        write_sealed(path, json.loads(path.read_text()) | {"tables": {name: "0"}})
        with pytest.raises(ArtifactError, match=f"{name}: not the table that .*eval.json names"):
            run.load()


def test_a_validation_of_other_modes_is_refused(run: MadeUpRun) -> None:
    path = run.layout.modes(run.task, 1) / "run.json"
    write_sealed(path, json.loads(path.read_text()) | {"wall_s": 77})
    with pytest.raises(ArtifactError, match=r"validation\.json was made from another modes/seed1 than the present one"):
        run.load()
