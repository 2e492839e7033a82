"""Demonstrations and policies of the user's own: imported, they reach every stage, and nothing ever removes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bmd_pipeline.cli.main import main
from bmd_pipeline.demos.store import DemoWriter, load_demos
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.io.files import hash_tree
from tests.workflow.conftest import TARGET, Project
from tests.workflow.test_reruns import AFTER_POLICY, EVERYTHING

pytestmark = pytest.mark.workflow

AFTER_STORE = {**AFTER_POLICY, "pretrain": 1}
PLACE = "data/GaussianMixture-smoke/demos.zarr"
POLICY = "results/GaussianMixture-smoke/policy"
TASK = ("--task", "GaussianMixture", "--preset", "smoke", "--quiet")


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


@pytest.fixture
def own_policy(finished: Project, tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("policy.safetensors", "policy.json"):
        shutil.copy(finished.folder / POLICY / name, folder)
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs `bmd-pipeline` in a project's folder."""

    def run(project: Project, *words: object) -> None:
        monkeypatch.chdir(project.folder)
        assert main([*map(str, words), *TASK]) == 0

    return run


def refuse(project: Project, message: str, *settings: str, **options: str) -> None:
    """Wants one line of refusal from a dry run and from a forced one, with no job started."""
    for how in (("--dry-run",), ("--forceall",)):
        config = ("--config", "preset=smoke", "seeds=[0]", *settings)
        done = project.snakemake("--cores", "1", *how, options.get("target", TARGET), *config)
        assert done.returncode != 0
        assert done.stderr.splitlines()[-1].startswith(f"error: {message}"), done.stderr
        assert "Traceback" not in done.stderr
        assert "Job stats" not in done.stdout + done.stderr


def test_a_store_in_the_collections_place_survives_and_is_imported_there(
    project: Project, own_store: Path, command: Callable[..., None]
) -> None:
    place = project.folder / PLACE
    shutil.copytree(own_store, place)
    content = hash_tree(own_store)
    refuse(
        project,
        f"{PLACE} was not made by `collect`, and `collect` would replace it: keep it with `bmd-pipeline import-demos "
        f"{PLACE} --task GaussianMixture --output {PLACE}`",
    )
    assert hash_tree(place) == content
    command(project, "import-demos", PLACE)
    assert project.plan() == AFTER_STORE
    forced = project.snakemake("--cores", "1", "--forceall", f"{POLICY}/run.json", "--config", "preset=smoke")
    assert forced.returncode == 0, forced.stderr
    assert "rule collect" not in forced.stderr
    assert hash_tree(place) == content


def test_edits_survive_other_settings_and_force(
    copy_of_finished: Callable[[], Project], finished: Project, command: Callable[..., None]
) -> None:
    project = copy_of_finished()
    place = project.folder / PLACE
    write_own(place, project.folder / "mine.zarr", 20)
    for path in (project.folder / "mine.zarr").rglob("c/*/*"):
        shutil.copy(path, place / path.relative_to(project.folder / "mine.zarr"))
    content = hash_tree(place)
    other = "set=[collect.num_episodes=24]"
    refuse(
        project,
        f"{PLACE} was edited after its collection under other settings: keep it with `bmd-pipeline import-demos "
        f"{PLACE} --task GaussianMixture --output {PLACE}`",
        other,
    )
    forced = project.snakemake("--dry-run", "--cores", "1", "--forceall", TARGET, "--config", "preset=smoke")
    assert "pretrain" in forced.stdout + forced.stderr
    assert "rule collect" not in forced.stdout + forced.stderr
    again = project.snakemake("--dry-run", "--cores", "1", TARGET, "--forcerun", "collect", "--config", "preset=smoke")
    assert again.returncode == 0, again.stderr
    assert "rule collect" not in again.stdout + again.stderr
    assert hash_tree(place) == content
    write_own(finished.folder / PLACE, project.folder / "whole.zarr", 20)
    shutil.rmtree(place)
    shutil.move(project.folder / "whole.zarr", place)
    command(project, "import-demos", PLACE)
    assert project.plan(other) == AFTER_STORE


def test_another_store_moved_into_the_place_of_a_collected_one_survives(
    copy_of_finished: Callable[[], Project], own_store: Path
) -> None:
    project = copy_of_finished()
    shutil.rmtree(project.folder / PLACE)
    shutil.move(own_store, project.folder / PLACE)
    refuse(project, f"{PLACE} was not made by `collect`")
    manifest = project.folder / "data/GaussianMixture-smoke/demos.manifest.json"
    manifest.touch()  # so that the store looks older
    refuse(project, f"{PLACE} was not made by `collect`")
    assert (project.folder / PLACE / "zarr.json").is_file()


def test_own_demonstrations_reach_all_results_and_are_followed_by_content(
    project: Project, own_store: Path, command: Callable[..., None]
) -> None:
    content = hash_tree(own_store)
    command(project, "import-demos", own_store)
    assert project.plan() == AFTER_STORE
    one = "methods=[dppo-bmd]"  # pre-training and discovery both read the store
    page = ("results/GaussianMixture-smoke/report.html", "--config", "preset=smoke", "seeds=[0]", one)
    done = project.snakemake("--cores", "2", *page)
    assert done.returncode == 0, done.stderr
    assert "rule collect" not in done.stderr
    manifest = json.loads((project.folder / "data/GaussianMixture-smoke/demos.manifest.json").read_text())
    assert (manifest["imported"], manifest["episodes"]) == (True, 20)
    assert manifest["inputs"] == {"store": {"path": str(own_store), "sha256": content}}
    record = json.loads((project.folder / POLICY / "run.json").read_text())
    assert record["inputs"] == {"demos": {"path": PLACE, "sha256": content}}
    for path in [*own_store.rglob("*"), own_store]:
        path.touch()
    command(project, "import-demos", own_store)
    assert project.plan(one, "set=[collect.num_episodes=24]") == {}
    assert hash_tree(own_store) == hash_tree(project.folder / PLACE) == content
    write_own(own_store, own_store.with_name("other.zarr"), 10)
    shutil.rmtree(own_store)
    own_store.with_name("other.zarr").rename(own_store)
    assert project.plan(one) == {}
    command(project, "import-demos", own_store)
    assert project.plan(one) == {**AFTER_STORE, "finetune": 1, "evaluate": 3}
    assert hash_tree(own_store) == hash_tree(project.folder / PLACE)
    shutil.rmtree(project.folder / PLACE)
    refuse(project, f"{PLACE} was imported and is missing: import it again with `bmd-pipeline import-demos STORE")
    (project.folder / PLACE).with_name("demos.manifest.json").unlink()
    assert project.plan() == EVERYTHING


def test_imported_demonstrations_take_the_place_of_collected_ones(
    copy_of_finished: Callable[[], Project], own_store: Path, command: Callable[..., None]
) -> None:
    """Whatever Snakemake has recorded of their collection."""
    project = copy_of_finished()
    command(project, "import-demos", own_store)
    for setting in ("seed=0", "collect.num_episodes=24"):
        assert project.plan(f"set=[{setting}]") == AFTER_STORE


def test_an_own_policy_takes_the_place_of_the_trained_one(
    project: Project, own_policy: Path, command: Callable[..., None]
) -> None:
    content = hash_tree(own_policy)
    command(project, "import-policy", own_policy)
    refuse(project, "discover.form must be published for an imported policy without imported demonstrations: codes are")
    published = "discover.form=published"
    untaught = {**AFTER_POLICY, "evaluate": AFTER_POLICY["evaluate"] - 1}
    assert project.plan(f"set=[{published}]") == untaught
    done = project.snakemake(
        *("--cores", "1", "--forceall", "results/GaussianMixture-smoke/modes/seed0/run.json"),
        *("--config", "preset=smoke", f"set=[{published}]"),
    )
    assert done.returncode == 0, done.stderr
    assert not (project.folder / "data").exists()
    target = f"{POLICY}/run.json"
    record = (project.folder / target).read_text()
    assert json.loads(record)["imported"] is True
    for path in own_policy.iterdir():
        path.touch()
    command(project, "import-policy", own_policy)
    assert (project.folder / target).read_text() == record
    changed = f"set=[{published}, pretrain.iterations=301, collect.num_episodes=24]"
    modes = "results/GaussianMixture-smoke/modes/seed0/run.json"
    assert project.plan(changed, target=modes) == {}
    assert hash_tree(own_policy) == content
    (own_policy / "policy.json").write_text((own_policy / "policy.json").read_text() + " ")
    command(project, "import-policy", own_policy)
    assert project.plan(changed, target=modes) == {"discover": 1}
    (project.folder / POLICY / "policy.json").unlink()
    refuse(
        project, f"{POLICY}/policy.json is missing: import the policy again with `bmd-pipeline import-policy", changed
    )
    shutil.rmtree(project.folder / POLICY)
    assert project.plan(changed, target=modes) == {"collect": 1, "pretrain": 1, "discover": 1}


def test_an_own_policy_is_taught_on_own_demonstrations(
    project: Project, own_policy: Path, own_store: Path, command: Callable[..., None]
) -> None:
    """Both are followed by content: another store teaches anew."""
    command(project, "import-policy", own_policy)
    command(project, "import-demos", own_store)
    modes = "results/GaussianMixture-smoke/modes/seed0/run.json"
    assert project.plan() == AFTER_POLICY
    done = project.snakemake("--cores", "1", modes, "--config", "preset=smoke")
    assert done.returncode == 0, done.stderr
    record = json.loads((project.folder / modes).read_text())
    assert record["inputs"]["demos"] == {"path": PLACE, "sha256": hash_tree(own_store)}
    assert project.plan(target=modes) == {}
    write_own(own_store, own_store.with_name("other.zarr"), 10)
    command(project, "import-demos", own_store.with_name("other.zarr"))
    assert project.plan(target=modes) == {"discover": 1}
    published = "set=[discover.form=published]"
    assert project.plan(published, target="results/GaussianMixture-smoke/modes/seed1/run.json") == {"discover": 1}
    grid = 'set=["discover.clustering=kmeans", "grid.axes.discover.num_modes=[2, 3]"]'
    cell = "results/GaussianMixture-smoke/grid/num_modes=3/modes/seed0"
    planned = project.snakemake(
        *("--dry-run", "-p", "--cores", "1", f"{cell}/run.json", "--config", "preset=smoke", grid)
    )
    assert f"--output {cell}" in planned.stdout + planned.stderr
    assert "rule pretrain" not in planned.stdout + planned.stderr
    shutil.rmtree(project.folder / PLACE)
    refuse(project, f"{PLACE} was imported and is missing")


def test_a_policy_in_the_trained_ones_place_survives(
    project: Project, own_policy: Path, own_store: Path, command: Callable[..., None]
) -> None:
    place = project.folder / POLICY
    place.parent.mkdir(parents=True)
    shutil.copytree(own_policy, place)
    content = hash_tree(place)
    refuse(project, f"{POLICY} holds a policy that `pretrain` did not make, and `pretrain` would replace it: keep it")
    assert hash_tree(place) == content
    command(project, "import-policy", POLICY)
    command(project, "import-demos", own_store)
    assert project.plan() == AFTER_POLICY
