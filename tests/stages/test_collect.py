import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.demos.store import DemoWriter, load_demos
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import ArtifactError, ConfigError, SimulationError, TaskError, TrainingError
from bmd_pipeline.io.files import hash_tree
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.stages import collect as stage
from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.console import Reporter


@pytest.fixture(autouse=True)
def toy_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "demos" / "plugins")
    import toy_task  # noqa: F401  (registers the task, as loading a config does)


def make_config(num_episodes: int = 9, seed: int = 0, **env: object) -> RunConfig:
    task = {"name": "Toy", "plugins": ["toy_task"], "env": env}
    return RunConfig.model_validate({"task": task, "seed": seed, "collect": {"num_episodes": num_episodes}})


def run(config: RunConfig, folder: Path, num_workers: int = 1) -> tuple[Path, Path]:
    output, manifest = folder / "demos.zarr", folder / "demos.manifest.json"
    collect(config, output=output, manifest=manifest, num_workers=num_workers, reporter=Reporter("quiet"))
    return output, manifest


def test_store_and_manifest(tmp_path: Path) -> None:
    output, manifest = run(make_config(), tmp_path)
    demos = load_demos(output, obs_dim=2, action_dim=1)
    record = json.loads(manifest.read_text())
    assert demos.num_episodes == record["episodes"] == 9
    assert len(demos.obs) == record["steps"]
    assert record["outputs"] == {"demos.zarr": hash_tree(output)}
    assert demos.attributes["task"] == record["task"] == "Toy"
    assert demos.attributes["config_hash"] == record["config_hash"]
    counts = record["behaviours"]
    assert counts == demos.attributes["behaviours"]
    assert {name: count["accepted"] for name, count in counts.items()} == {"left": 5, "right": 4}
    assert sum(count["dropped"] for count in counts.values()) > 0  # the toy fails 3 times in 10
    # balanced, and in turns: the toy's actions are near -.5 for left and +.5 for right
    means = [demos.action[s:e].mean() for s, e in zip(demos.episode_starts, demos.episode_ends, strict=True)]
    assert sum(mean < 0 for mean in means) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"demos.zarr", "demos.manifest.json"}


def test_workers_change_nothing(tmp_path: Path) -> None:
    trees = {
        hash_tree(run(make_config(12, dawdle=workers > 1), tmp_path / str(workers), workers)[0] / "data")
        for workers in (1, 2)
    }
    assert len(trees) == 1
    assert not multiprocessing.active_children()


def test_seed_changes_the_demonstrations(tmp_path: Path) -> None:
    first, second = (load_demos(run(make_config(seed=seed), tmp_path / str(seed))[0]) for seed in (0, 1))
    assert not np.array_equal(first.obs[:3], second.obs[:3])


def test_incapable_expert_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="'right' 0 times in 12 attempts, 4 are wanted"):
        run(make_config(success_rate=0.0), tmp_path / "toy")
    assert not list((tmp_path / "toy").glob("demos*"))


@pytest.mark.parametrize(
    ("env", "num_workers", "error"),
    [
        ({"failure": "exit"}, 2, SimulationError),
        ({"failure": "raise"}, 1, TaskError),
        ({"failure": "raise"}, 2, TaskError),
    ],
)
def test_failed_collection_keeps_the_store_that_was_there(
    tmp_path: Path, env: dict[str, object], num_workers: int, error: type[Exception]
) -> None:
    output, _ = run(make_config(), tmp_path)
    before = hash_tree(output)
    with pytest.raises(error) as caught:
        run(make_config(**env), tmp_path, num_workers)
    assert "\n" not in str(caught.value)
    assert hash_tree(output) == before
    assert not multiprocessing.active_children()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_interrupted_collection_leaves_nothing_half_written_and_starts_over(
    tmp_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, _ = run(make_config(30), tmp_path / "straight")
    append, taken = DemoWriter.append, 0

    def interrupt(writer: DemoWriter, episode: Episode) -> None:
        nonlocal taken
        taken += 1
        if taken == 20:
            raise KeyboardInterrupt
        append(writer, episode)

    monkeypatch.setattr(DemoWriter, "append", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(make_config(30), tmp_path / "cut", num_workers)
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"checkpoints"}
    output, manifest = run(make_config(30), tmp_path / "cut", num_workers)
    assert hash_tree(output) == hash_tree(straight)
    assert json.loads(manifest.read_text())["behaviours"]["left"]["accepted"] == 15
    assert {path.name for path in output.parent.iterdir()} == {"demos.zarr", "demos.manifest.json"}


def test_a_store_that_a_killed_collection_had_put_in_place_is_collected_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(make_config(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"demos.zarr", "checkpoints"}
    run(make_config(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"demos.zarr", "demos.manifest.json"}


def test_two_jobs_do_not_collect_into_one_folder(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "checkpoints"), pytest.raises(ArtifactError, match="another job is writing"):
        run(make_config(), tmp_path)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.env\.speed") as caught:
        run(make_config(speed=1), tmp_path / "toy")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "toy").exists()
