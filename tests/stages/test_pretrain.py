import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError, DataError, TrainingError
from bmd_pipeline.io.files import hash_tree, load_weights
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.io.provenance import require_run
from bmd_pipeline.policies.bc import Cloner
from bmd_pipeline.policies.checkpoint import load_policy, save_policy
from bmd_pipeline.stages import pretrain as stage
from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.console import Progress, Reporter, Stop, Stopped
from bmd_pipeline.stages.pretrain import pretrain

SETTINGS: dict[str, Any] = {
    "policy": {"horizon": 3, "n_action_steps": 2, "hidden_sizes": [16, 16]},
    "iterations": 120,
    "batch_size": 16,
    "log_interval": 20,
    "selection": {"episodes": 0},  # the toy has no environment
}
FILES = {"policy.safetensors", "policy.json", "metrics.jsonl", "run.json"}


def make_config(**pretrain_settings: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "task": {"name": "Toy", "plugins": ["toy_task"]},
            "collect": {"num_episodes": 12},
            "pretrain": {**SETTINGS, **pretrain_settings},
            "execution": {"checkpoint_minutes": 0.0},  # saves wherever it can
        }
    )


@pytest.fixture(autouse=True)
def toy_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "demos" / "plugins")
    import toy_task  # noqa: F401  (registers the task, as loading a config does)


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    output = tmp_path / "data" / "demos.zarr"
    manifest = output.with_name("demos.manifest.json")
    collect(make_config(), output=output, manifest=manifest, num_workers=1, reporter=Reporter("quiet"))
    return output


class InterruptedRunError(Exception):
    pass


class InterruptingReporter(Reporter):
    """Stops the run once the bar reaches a step, as a killed job would."""

    def __init__(self, at: int) -> None:
        super().__init__("quiet")
        self.at = at

    def progress(self, description: str, total: int, done: int = 0) -> Progress:
        bar = super().progress(description, total, done)
        count = done

        class Counting(type(bar)):  # type: ignore[misc]
            def advance(counting, n: int = 1, **fields: Any) -> None:
                nonlocal count
                count += n
                if count >= self.at:
                    raise InterruptedRunError

        bar.__class__ = Counting
        return bar


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("wall_s", "cpu_seconds")} for line in lines]


def run(config: RunConfig, demos: Path, output: Path, reporter: Reporter | None = None) -> None:
    pretrain(config, demos=demos, output=output, reporter=reporter or Reporter("quiet"))


def test_outputs(tmp_path: Path, demos: Path) -> None:
    output = tmp_path / "policy"
    run(make_config(), demos, output)
    assert {path.name for path in output.iterdir()} == FILES
    record = require_run(output, "pretrain", "Toy")
    assert set(record["outputs"]) == FILES - {"run.json"}
    lines = metrics(output)
    assert [line["step"] for line in lines] == [20, 40, 60, 80, 100, 120]
    assert set(lines[0]) == {"step", "learning_rate", "train_loss", "validation_loss"}
    assert lines[-1]["validation_loss"] < lines[0]["validation_loss"]
    assert record["metrics"]["validation_loss"] == lines[-1]["validation_loss"]
    assert record["clipped_actions"] == record["bounded_obs"] == 0.0
    policy = load_policy(output, task="Toy", obs_dim=2, action_dim=1)
    assert policy.config == make_config().pretrain.policy
    noise = torch.randn(5, policy.noise_dim)
    assert torch.isfinite(policy.sample(noise, policy.encode(torch.zeros(5, policy.cond_dim)))).all()


def test_what_tensorboard_shows_lies_beside_the_policy(tmp_path: Path, demos: Path) -> None:
    config = make_config(iterations=20)
    tracked = config.model_copy(update={"execution": config.execution.model_copy(update={"tracker": "tensorboard"})})
    run(tracked, demos, tmp_path / "policy")
    assert {path.name for path in (tmp_path / "policy").iterdir()} == FILES | {"tensorboard"}


@pytest.mark.parametrize("interruptions", [(80,), (40, 40, 100), (20,)])
def test_interrupted_equals_uninterrupted(tmp_path: Path, demos: Path, interruptions: tuple[int, ...]) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    run(make_config(), demos, straight)
    for at in interruptions:
        with pytest.raises(InterruptedRunError):
            run(make_config(), demos, resumed, InterruptingReporter(at))
        assert not (resumed / "run.json").exists()
        torch.randn(7)  # the global state must not matter
    run(make_config(), demos, resumed)
    for name in ("policy.safetensors", "policy.json"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()
    assert metrics(resumed) == metrics(straight)
    assert {path.name for path in resumed.iterdir()} == FILES


def test_resumes_from_the_checkpoint_and_not_from_the_start(
    tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InterruptedRunError):
        run(make_config(), demos, tmp_path / "policy", InterruptingReporter(100))
    run(make_config(), demos, tmp_path / "policy", Reporter("plain"))
    assert "resuming at iteration 99" in capsys.readouterr().err


def test_progress_of_other_settings_or_other_data_is_not_used(
    tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "policy"
    with pytest.raises(InterruptedRunError):
        run(make_config(), demos, output, InterruptingReporter(100))
    with pytest.raises(InterruptedRunError):
        run(make_config(learning_rate=5e-4), demos, output, InterruptingReporter(100))
    zarr.open_group(demos, mode="r+")["data/action"][0, 0] = 0.25  # type: ignore[index]
    run(make_config(learning_rate=5e-4), demos, output, Reporter("plain"))
    assert "resuming" not in capsys.readouterr().err


def test_the_record_says_what_matrices_were_multiplied_in(tmp_path: Path, demos: Path) -> None:
    for precision, recorded in (("float32", "float32"), ("bfloat16", "bfloat16 in training, else float32")):
        run(make_config(precision=precision, iterations=2), demos, tmp_path / precision)
        record = json.loads((tmp_path / precision / "run.json").read_text())
        assert record["matmul_precision"].removesuffix(" by oneDNN") == recorded


def test_seed_decides_the_weights(tmp_path: Path, demos: Path) -> None:
    contents = []
    for i, seed in enumerate((0, 0, 1)):
        config = make_config(iterations=5).model_copy(update={"seed": seed})
        run(config, demos, tmp_path / str(i))
        contents.append((tmp_path / str(i) / "policy.safetensors").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_no_held_out_episodes(tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmd_pipeline.stages.pretrain.VALIDATION_FRACTION", 0.0)
    run(make_config(iterations=20), demos, tmp_path / "policy")
    assert "validation_loss" not in metrics(tmp_path / "policy")[0]


def test_second_job_is_refused(tmp_path: Path, demos: Path) -> None:
    output = tmp_path / "policy"
    with FolderLock(output / "checkpoints"), pytest.raises(ArtifactError, match="another job is writing"):
        run(make_config(), demos, output)


def test_rerun_replaces_a_finished_policy_only_by_a_finished_one(tmp_path: Path, demos: Path) -> None:
    output = tmp_path / "policy"
    run(make_config(iterations=20), demos, output)
    with pytest.raises(InterruptedRunError):
        run(make_config(iterations=40), demos, output, InterruptingReporter(20))
    with pytest.raises(ArtifactError, match=r"run\.json is missing"):
        require_run(output, "pretrain", "Toy")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda g: g.attrs.update(task="PushT"), "collected for task PushT, not for Toy"),
        (lambda g: g.attrs.update(action_high=[1.5]), r"actions are between \[-1.0\] and \[1.5\], those of task Toy"),
        (lambda g: g["data/obs"].__setitem__((3, 0), np.nan), "not finite"),
    ],
)
def test_bad_data_is_one_line_and_writes_nothing(tmp_path: Path, demos: Path, edit: Any, message: str) -> None:
    edit(zarr.open_group(demos, mode="r+"))
    with pytest.raises(DataError, match=message) as caught:
        run(make_config(), demos, tmp_path / "policy")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "policy").exists()


def test_diverging_training_leaves_no_policy(tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "bmd_pipeline.policies.diffusion.DiffusionPolicy.denoising_loss",
        lambda self, x0, *_: self.denoiser.first.weight.sum() * float("inf"),
    )
    with pytest.raises(
        TrainingError, match=r"after 1 iterations; lower pretrain\.learning_rate .*half the learning rate"
    ):
        run(make_config(), demos, tmp_path / "policy")
    assert not (tmp_path / "policy" / "policy.json").exists()


def test_a_loss_that_diverges_once_is_taken_back(
    tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Cloner.train_step
    spoilt = 0

    def spoil(self: Cloner) -> None:
        nonlocal spoilt
        step(self)
        if self.step == 70 and spoilt < 2:
            spoilt += 1
            with torch.no_grad():
                next(self.policy.parameters()).fill_(torch.nan)

    monkeypatch.setattr(Cloner, "train_step", spoil)
    output = tmp_path / "policy"
    run(make_config(), demos, output)
    record = require_run(output, "pretrain", "Toy")
    assert record["rollbacks"] == spoilt == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split("warning: ")[1] for line in told] == record["warnings"]
    assert "going back to iteration 60 with half the learning rate (rollback 2 of at most 3)" in told[1]
    lines = metrics(output)
    assert [line["step"] for line in lines] == [20, 40, 60, 80, 100, 120]
    assert [line["learning_rate"] for line in lines][2:] == [6e-4, 2e-4, 2.5e-4, 2.5e-4]  # warming up, halved twice
    load_policy(output)


def test_progress_that_is_not_finite_is_never_saved(
    tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints lie between two looks at the loss."""
    step = Cloner.train_step

    def spoil(self: Cloner) -> None:
        step(self)
        if self.step == 25:
            with torch.no_grad():
                next(self.policy.parameters()).fill_(torch.nan)

    monkeypatch.setattr(Cloner, "train_step", spoil)
    output = tmp_path / "policy"
    with pytest.raises(TrainingError, match="weights are not finite after 25 iterations"):
        run(make_config(log_interval=120), demos, output)
    [saved] = output.rglob("state.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_weights(saved).values())


def test_it_stops_when_it_is_asked_and_goes_on_from_that_very_step(
    tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run(make_config(), demos, straight)
    for asks in (47, 20):
        stop = Stop(1.0, clock=iter([0.0] * asks + [60.0] * 9).__next__)
        with pytest.raises(Stopped):
            pretrain(make_config(), demos=demos, output=stopped, reporter=Reporter("quiet"), stop=stop)
    capsys.readouterr()
    run(make_config(), demos, stopped, Reporter("plain"))
    assert "resuming at iteration" in capsys.readouterr().err
    assert (stopped / "policy.safetensors").read_bytes() == (straight / "policy.safetensors").read_bytes()
    assert metrics(stopped) == metrics(straight)


def test_a_store_that_is_not_what_was_collected_is_reported(
    tmp_path: Path, demos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(make_config(iterations=20), demos, tmp_path / "before")
    assert "warning" not in capsys.readouterr().err
    zarr.open_group(demos, mode="r+")["data/action"][0, 0] = 0.25  # type: ignore[index]
    run(make_config(iterations=20), demos, tmp_path / "after")
    assert f"{demos} is not what" in capsys.readouterr().err
    assert len(require_run(tmp_path / "after", "pretrain", "Toy")["warnings"]) == 1


def test_a_pipe_is_not_taken_for_a_missing_manifest(tmp_path: Path, demos: Path) -> None:
    manifest = demos.with_name("demos.manifest.json")
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(ArtifactError, match=f"^{manifest} is no regular file but"):
        run(make_config(), demos, tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_the_record_names_the_demonstrations_that_were_read(
    tmp_path: Path, demos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, collected = hash_tree(demos), json.loads(demos.with_name("demos.manifest.json").read_text())

    def replace_store(*arguments: Any) -> None:
        zarr.open_group(demos, mode="r+")["data/action"][0, 0] = 0.25  # type: ignore[index]
        save_policy(*arguments)

    monkeypatch.setattr(stage, "save_policy", replace_store)
    run(make_config(iterations=20), demos, tmp_path / "policy")
    record = require_run(tmp_path / "policy", "pretrain", "Toy")
    assert record["inputs"]["demos"] == {"path": str(demos), "sha256": read, "changed": True}
    assert read == collected["outputs"]["demos.zarr"] != hash_tree(demos)
    assert [f"{demos} changed while pretrain ran" in warning for warning in record["warnings"]] == [True]
    assert record["collect_config"] == collected["config"]


def test_threads_are_those_that_the_command_was_given(demos: Path, tmp_path: Path) -> None:
    config = make_config(iterations=2)
    before = torch.get_num_threads()
    try:
        for count in (1, 2):  # what `--threads` has set, whatever execution.threads says
            torch.set_num_threads(count)
            pretrain(config, demos=demos, output=tmp_path / str(count), reporter=Reporter("quiet"))
            assert json.loads((tmp_path / str(count) / "run.json").read_text())["threads"] == count
    finally:
        torch.set_num_threads(before)
