"""Demonstrations and policies of the user's own: what is checked, and what is left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.schema import PolicyConfig, RunConfig
from bmd_pipeline.demos.store import DemoWriter
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import ArtifactError, BMDError, DataError
from bmd_pipeline.io.files import hash_tree
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.io.provenance import is_imported, require_run
from bmd_pipeline.policies.checkpoint import save_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.stages import imports as stage
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.imports import import_demos, import_policy

TASK = "GaussianMixture"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config(TASK, preset="smoke", config_dir=ROOT / "config")


def write_store(store: Path, obs_dim: int = 2, seed: int = 0, **attributes: object) -> Path:
    rng = np.random.default_rng(seed)
    with DemoWriter(store, obs_dim, 2, attributes) as writer:
        for _ in range(4):
            obs, action = rng.uniform(-1, 1, (10, obs_dim)), rng.uniform(-1, 1, (10, 2))
            writer.append(Episode(obs.astype(np.float32), action.astype(np.float32), success=True, behaviour=0))
    return store


def write_policy(folder: Path, obs_dim: int = 2, task: str = TASK) -> Path:
    folder.mkdir()
    save_policy(DiffusionPolicy(PolicyConfig(hidden_sizes=(8,)), obs_dim, 2), folder, task=task)
    return folder


@pytest.fixture
def bring_demos(config: RunConfig, tmp_path: Path) -> Callable[[Path], Path]:
    """Imports a store to data/demos.zarr; returns its manifest."""
    output = tmp_path / "data" / "demos.zarr"
    manifest = output.with_name("demos.manifest.json")

    def bring(store: Path) -> Path:
        import_demos(config, store=store, output=output, manifest=manifest, reporter=Reporter("quiet"))
        return manifest

    return bring


def test_what_is_no_data_is_refused_before_all_below_it_is_read(
    tmp_path: Path, bring_demos: Callable[[Path], Path]
) -> None:
    (tmp_path / "films").mkdir()
    with (tmp_path / "films" / "long").open("wb") as file:
        file.truncate(1 << 43)  # reading it would take hours
    with pytest.raises(DataError, match="films is of no format that is read"):
        bring_demos(tmp_path / "films")


def test_a_store_is_copied_with_a_manifest_once(tmp_path: Path, bring_demos: Callable[[Path], Path]) -> None:
    store = write_store(tmp_path / "mine.zarr")
    (store / ".snakemake_timestamp").touch()
    manifest = bring_demos(store)
    record = json.loads(manifest.read_text())
    copy = manifest.with_name("demos.zarr")
    assert is_imported(manifest)
    assert record["outputs"] == {"demos.zarr": hash_tree(store)} == {"demos.zarr": hash_tree(copy)}
    assert (record["episodes"], record["steps"]) == (4, 40)
    assert {path.name for path in manifest.parent.iterdir()} == {"demos.zarr", "demos.manifest.json"}
    before = manifest.read_bytes()
    bring_demos(store)
    assert manifest.read_bytes() == before
    bring_demos(write_store(tmp_path / "other.zarr", seed=1))
    assert manifest.read_bytes() != before
    assert hash_tree(copy) != hash_tree(store)


def test_a_store_in_its_place_is_kept_as_it_is_and_replaced_by_no_other(
    tmp_path: Path, bring_demos: Callable[[Path], Path]
) -> None:
    place = write_store(tmp_path / "data" / "demos.zarr")
    content = hash_tree(place)
    with pytest.raises(ArtifactError, match="was not made by `collect`, and `import-demos` would replace it"):
        bring_demos(write_store(tmp_path / "other.zarr", seed=1))
    bring_demos(place)
    with pytest.raises(ArtifactError, match="was imported, and `import-demos` would replace it"):
        bring_demos(tmp_path / "other.zarr")
    assert hash_tree(place) == content


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda store: store, "no demonstrations at"),
        (lambda store: write_store(store, obs_dim=3), "data/obs has dimension 3, the task has 2"),
        (lambda store: write_store(store, task="Reach"), "was collected for task Reach, not for GaussianMixture"),
        (lambda store: write_store(store, action_low=[-2.0] * 2, action_high=[2.0] * 2), "correct those of the task"),
    ],
)
def test_what_is_no_store_of_the_task_is_refused_and_nothing_written(
    tmp_path: Path, bring_demos: Callable[[Path], Path], make: Callable[[Path], Path], message: str
) -> None:
    store = make(tmp_path / "mine.zarr")
    with pytest.raises(DataError, match=message) as caught:
        bring_demos(store)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_an_import_that_fails_halfway_leaves_what_was_there(
    tmp_path: Path, bring_demos: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = bring_demos(write_store(tmp_path / "mine.zarr"))
    content = hash_tree(manifest.parent)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises(ArtifactError, match="No space left on device"):
        bring_demos(write_store(tmp_path / "other.zarr", seed=1))
    shutil.rmtree(manifest.parent / "checkpoints")
    assert hash_tree(manifest.parent) == content


def test_a_store_that_changes_while_it_is_copied_is_refused(
    tmp_path: Path, bring_demos: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, copytree = write_store(tmp_path / "mine.zarr"), shutil.copytree

    def copy_and_edit(*arguments: Any, **options: Any) -> None:
        copytree(*arguments, **options)
        (store / "late").touch()

    monkeypatch.setattr(shutil, "copytree", copy_and_edit)
    with pytest.raises(ArtifactError, match=r"mine\.zarr changed while it was read; give the same command again"):
        bring_demos(store)
    assert not (tmp_path / "data" / "demos.zarr").exists()
    assert not (tmp_path / "data" / "demos.manifest.json").exists()


def test_a_policy_that_changes_after_it_was_checked_is_refused(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, output = write_policy(tmp_path / "mine"), tmp_path / "results" / "policy"
    edit = (policy / "policy.json").write_text
    monkeypatch.setattr(stage, "require_disposable_policy", lambda *_: edit("{}"))
    with pytest.raises(ArtifactError, match=r"policy\.json changed while it was read"):
        import_policy(config, policy=policy, output=output, reporter=Reporter("quiet"))
    assert not output.exists()


def test_a_policy_is_copied_with_a_record_once(tmp_path: Path, config: RunConfig) -> None:
    policy, output = write_policy(tmp_path / "mine"), tmp_path / "results" / "policy"
    output.mkdir(parents=True)
    for name in ("policy.safetensors", "metrics.jsonl", "run.json"):  # as training leaves them
        (output / name).write_text('{"step": 0, "cpu_seconds": 0}')
    reporter = Reporter("quiet")
    import_policy(config, policy=policy, output=output, reporter=reporter)
    record = require_run(output, "pretrain", TASK)
    assert record["imported"] is True
    assert set(record["outputs"]) == {path.name for path in policy.iterdir()}
    assert {path.name for path in output.iterdir()} == {*record["outputs"], "run.json"}
    before = (output / "run.json").read_bytes()
    import_policy(config, policy=policy, output=output, reporter=reporter)
    assert (output / "run.json").read_bytes() == before
    import_policy(config, policy=write_policy(tmp_path / "other"), output=output, reporter=reporter)
    assert (output / "policy.safetensors").read_bytes() == (tmp_path / "other/policy.safetensors").read_bytes()


def test_a_policy_in_its_place_is_kept_as_it_is(tmp_path: Path, config: RunConfig) -> None:
    place = write_policy(tmp_path / "policy")
    weights = (place / "policy.safetensors").read_bytes()
    other = write_policy(tmp_path / "other")
    with pytest.raises(ArtifactError, match="holds a policy that `pretrain` did not make, and `import-policy` would"):
        import_policy(config, policy=other, output=place, reporter=Reporter("quiet"))
    import_policy(config, policy=place, output=place, reporter=Reporter("quiet"))
    with pytest.raises(ArtifactError, match="was imported, and `import-policy` would replace it"):
        import_policy(config, policy=other, output=place, reporter=Reporter("quiet"))
    assert (place / "policy.safetensors").read_bytes() == weights


def test_a_policy_that_does_not_fit_is_refused_and_nothing_written(tmp_path: Path, config: RunConfig) -> None:
    foreign, wide = write_policy(tmp_path / "foreign", task="Reach"), write_policy(tmp_path / "wide", obs_dim=3)
    for folder in (foreign, wide, tmp_path / "none"):
        with pytest.raises(BMDError) as caught:
            import_policy(config, policy=folder, output=tmp_path / "policy", reporter=Reporter("quiet"))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "policy").exists()
    with FolderLock(tmp_path / "policy" / "checkpoints"), pytest.raises(ArtifactError, match="another job is writing"):
        import_policy(
            config, policy=write_policy(tmp_path / "mine"), output=tmp_path / "policy", reporter=Reporter("quiet")
        )
