"""Demonstrations and policies of the user's own: they reach every stage, and nothing ever removes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bmd_pipeline.demos.store import DemoWriter, load_demos
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.io.files import hash_tree

from .conftest import TARGET, Project
from .test_reruns import AFTER_POLICY, EVERYTHING

pytestmark = pytest.mark.workflow

AFTER_STORE = {**AFTER_POLICY, "pretrain": 1}
PLACE = "data/GaussianMixture/demos.zarr"


def write_own(source: Path, store: Path, episodes: int) -> None:
    """A store as a user writes one, with episodes of another."""
    demos = load_demos(source)
    with DemoWriter(store, 2, 2, {}, chunk_rows=256) as writer:
        for start, end in list(zip(demos.episode_starts, demos.episode_ends, strict=True))[:episodes]:
            writer.append(Episode(demos.obs[start:end], demos.action[start:end], success=True, behaviour=0))


@pytest.fixture
def own_store(finished: Project, tmp_path: Path) -> Path:
    store = tmp_path / "mine.zarr"
    write_own(finished.folder / PLACE, store, 20)
    return store


def refuse(project: Project, message: str, *settings: str) -> None:
    """Wants one line of refusal from a dry run and from a forced one, with no job started."""
    for options in (("--dry-run",), ("--forceall",)):
        config = ("--config", "preset=smoke", "seeds=[0]", *settings)
        done = project.snakemake("--cores", "1", *options, TARGET, *config)
        assert done.returncode != 0
        assert done.stderr.splitlines()[-1].startswith(f"error: {message}"), done.stderr
        assert "Traceback" not in done.stderr
        assert "Job stats" not in done.stdout + done.stderr


def test_a_store_in_the_collections_place_survives_and_can_be_used_there(project: Project, own_store: Path) -> None:
    place = project.folder / PLACE
    shutil.copytree(own_store, place)
    content = hash_tree(own_store)
    refuse(
        project,
        f"{PLACE} was not made by `collect`, and `collect` would replace it: train on it with collect.store={PLACE}",
    )
    assert hash_tree(place) == content
    own = f"set=[collect.store={PLACE}]"
    assert project.plan(own) == AFTER_STORE
    forced = project.snakemake(
        *("--cores", "1", "--forceall", "results/GaussianMixture/policy/run.json", "--config", "preset=smoke", own)
    )
    assert forced.returncode == 0, forced.stderr
    assert "rule collect" not in forced.stderr
    assert hash_tree(place) == content


def test_edits_survive_other_settings_and_force(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    place = project.folder / PLACE
    write_own(place, project.folder / "mine.zarr", 20)
    for path in (project.folder / "mine.zarr").rglob("c/*/*"):
        shutil.copy(path, place / path.relative_to(project.folder / "mine.zarr"))
    content = hash_tree(place)
    refuse(
        project,
        f"{PLACE} was edited after its collection, and `collect` would replace it under other settings: train on it "
        f"with collect.store={PLACE}",
        "set=[collect.num_episodes=24]",
    )
    done = project.snakemake("--dry-run", "--cores", "1", "--forceall", TARGET, "--config", "preset=smoke")
    assert "pretrain" in done.stdout + done.stderr
    assert "rule collect" not in done.stdout + done.stderr
    assert hash_tree(place) == content


def test_another_store_moved_into_the_place_of_a_collected_one_survives(
    copy_of_finished: Callable[[], Project], own_store: Path
) -> None:
    project = copy_of_finished()
    shutil.rmtree(project.folder / PLACE)
    shutil.move(own_store, project.folder / PLACE)
    manifest = project.folder / "data/GaussianMixture/demos.manifest.json"
    manifest.touch()  # so that the store looks older
    refuse(project, f"{PLACE} was not made by `collect`")
    assert (project.folder / PLACE / "zarr.json").is_file()


def test_own_demonstrations_reach_all_results_and_are_followed_by_content(project: Project, own_store: Path) -> None:
    own = f"set=[collect.store={own_store}]"
    content = hash_tree(own_store)
    assert project.plan(own) == AFTER_STORE
    done = project.run(own)
    assert done.returncode == 0, done.stderr
    assert not (project.folder / "data").exists()
    record = json.loads((project.folder / "results/GaussianMixture/policy/run.json").read_text())
    assert record["inputs"] == {"demos": {"path": str(own_store), "sha256": content}}
    report = project.snakemake(
        *("--cores", "2", "results/GaussianMixture/report.html", "--config", "preset=smoke", "seeds=[0]", own)
    )
    assert report.returncode == 0, report.stderr
    for path in [*own_store.rglob("*"), own_store]:
        path.touch()
    assert project.plan(f"set=[collect.store={own_store}, collect.num_episodes=24]") == {}
    assert hash_tree(own_store) == content
    write_own(own_store, own_store.with_name("other.zarr"), 10)
    shutil.rmtree(own_store)
    own_store.with_name("other.zarr").rename(own_store)
    assert project.plan(own) == AFTER_STORE
    assert project.plan() == EVERYTHING
    shutil.rmtree(own_store)
    assert project.snakemake("--dry-run", TARGET, "--config", "preset=smoke", own).stderr.splitlines()[-1] == (
        f"error: collect.store: {own_store} doesn't exist"
    )


def test_an_own_policy_takes_the_place_of_the_trained_one(project: Project, finished: Project, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("policy.safetensors", "policy.json"):
        shutil.copy(finished.folder / "results/GaussianMixture/policy" / name, folder)
    content = hash_tree(folder)
    refuse(
        project,
        "discover.form must be published for a policy that comes without demonstrations",
        f"set=[pretrain.policy_folder={folder}]",
    )
    own = f"set=[pretrain.policy_folder={folder}, discover.form=published]"
    untaught = {**AFTER_STORE, "evaluate": AFTER_STORE["evaluate"] - 1}
    assert project.plan(own) == untaught
    target = "results/GaussianMixture/policy/run.json"
    done = project.snakemake("--cores", "1", target, "--config", "preset=smoke", own)
    assert done.returncode == 0, done.stderr
    assert not (project.folder / "data").exists()
    assert json.loads((project.folder / target).read_text())["taken_over"] is True
    for path in folder.iterdir():
        path.touch()
    changed = "pretrain.iterations=301, collect.num_episodes=24"
    assert (
        project.plan(f"set=[pretrain.policy_folder={folder}, discover.form=published, {changed}]", target=target) == {}
    )
    assert hash_tree(folder) == content
    (folder / "policy.json").write_text((folder / "policy.json").read_text() + " ")
    assert project.plan(own, target=target) == {"pretrain": 1}
    (folder / "policy.json").unlink()
    assert project.snakemake("--dry-run", TARGET, "--config", "preset=smoke", own).stderr.splitlines()[-1] == (
        f"error: pretrain.policy_folder: {folder}/policy.json doesn't exist"
    )


def test_an_own_policy_is_taught_on_own_demonstrations(
    project: Project, finished: Project, own_store: Path, tmp_path: Path
) -> None:
    """Both are followed by content: another store teaches anew, and takes over nothing again."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("policy.safetensors", "policy.json"):
        shutil.copy(finished.folder / "results/GaussianMixture/policy" / name, folder)
    own = f"set=[pretrain.policy_folder={folder}, collect.store={own_store}]"
    modes = "results/GaussianMixture/modes/seed0/run.json"
    assert project.plan(own) == AFTER_STORE
    done = project.snakemake("--cores", "1", modes, "--config", "preset=smoke", own)
    assert done.returncode == 0, done.stderr
    record = json.loads((project.folder / modes).read_text())
    assert record["inputs"]["demos"] == {"path": str(own_store), "sha256": hash_tree(own_store)}
    assert project.plan(own, target=modes) == {}
    write_own(own_store, own_store.with_name("other.zarr"), 10)
    shutil.rmtree(own_store)
    own_store.with_name("other.zarr").rename(own_store)
    assert project.plan(own, target=modes) == {"discover": 1}
    published = own.replace("]", ", discover.form=published]")
    assert project.plan(published, target="results/GaussianMixture/modes/seed1/run.json") == {"discover": 1}
    grid = 'set=["discover.clustering=kmeans", "grid.axes.discover.num_modes=[2, 3]", '
    told = project.snakemake(
        *("--dry-run", "-p", "--cores", "1", "results/GaussianMixture/grid/num_modes=3/modes/seed0/run.json"),
        *("--config", "preset=smoke", f'{grid}"pretrain.policy_folder={folder}", "collect.store={own_store}"]'),
    )
    assert f"--demos {own_store}" in told.stdout + told.stderr
    shutil.rmtree(own_store)
    refuse(project, f"collect.store: {own_store} doesn't exist", own)


def test_a_policy_in_the_trained_ones_place_survives(project: Project, finished: Project) -> None:
    place = project.folder / "results/GaussianMixture/policy"
    place.mkdir(parents=True)
    for name in ("policy.safetensors", "policy.json"):
        shutil.copy(finished.folder / "results/GaussianMixture/policy" / name, place)
    content = hash_tree(place)
    refuse(project, "results/GaussianMixture/policy holds a policy that `pretrain` did not make and would replace")
    assert hash_tree(place) == content
