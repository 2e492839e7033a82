"""The command line: one line and the right exit status, whatever goes wrong."""

from __future__ import annotations

import errno
import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
import yaml

import bmd_pipeline
from bmd_pipeline.cli.doctor import examine
from bmd_pipeline.cli.main import EXAMPLES, app, main
from bmd_pipeline.cli.options import Job
from bmd_pipeline.config.hashing import stage_slice
from bmd_pipeline.config.load import load_config
from bmd_pipeline.demos.store import DemoWriter
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import ArtifactError, SimulationError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.stages.checkpoints import make_identity
from bmd_pipeline.tasks import registry

ROOT = Path(__file__).parents[2]
TASK = "GaussianMixture"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project: settings, and no data or results."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], command: str) -> tuple[int, str, str]:
    status = main(command.split())
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def make_output(folder: Path, stage: str, task: str = "GaussianMixture", **more: object) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema_version": 1, "stage": stage, "task": task, **more}))


@pytest.fixture
def made(project: Path) -> Path:
    """A project in which every stage has run with the smoke preset, as far as their records tell."""
    config = load_config("GaussianMixture", preset="smoke")
    layout, settings = Layout(project, "smoke"), functools.partial(stage_slice, config)
    make_output(layout.policy(TASK), "pretrain", config=settings("pretrain"), collect_config=settings("collect"))
    make_output(layout.modes(TASK, 0), "discover", seed=0, config=settings("discover"))
    for method in ("dppo", "dppo-bmd"):
        make_output(
            layout.finetuned(TASK, method, 0), "finetune", seed=0, method=method, config=settings("finetune", method)
        )
    layout.demos(TASK).mkdir(parents=True)
    record = {"schema_version": 1, "task": TASK, "outputs": {"demos.zarr": ""}, "config": settings("collect")}
    layout.demos_manifest(TASK).write_text(json.dumps(record))
    return project


@pytest.mark.parametrize(
    ("command", "setting", "stage", "folder"),
    [
        ("discover", "collect.num_episodes=99", "collect", "policy"),
        ("discover", "pretrain.iterations=99", "pretrain", "policy"),
        ("finetune --method dppo", "collect.num_episodes=99", "collect", "policy"),
        ("finetune --method dppo", "pretrain.policy.n_action_steps=1", "pretrain", "policy"),
        ("finetune --method dppo-bmd", "discover.num_modes=3", "discover", "modes/seed0"),
        ("evaluate", "pretrain.policy.n_action_steps=1", "pretrain", "policy"),
        ("evaluate", "seed=3", "collect", "policy"),
        ("evaluate --method taught", "discover.num_modes=3", "discover", "modes/seed0"),
        ("evaluate --method dppo", "finetune.iterations=99", "finetune", "dppo/seed0"),
        ("evaluate --method dppo", "task.env.goal_radius=0.2", "collect", "policy"),
        ("evaluate --method dppo", "task.env.disturbance.action_gain=2", "finetune", "dppo/seed0"),
        ("curve --method dppo-bmd", "finetune.iterations=99", "finetune", "dppo-bmd/seed0"),
        ("play --method dppo", "finetune.iterations=99", "finetune", "dppo/seed0"),
        ("validation", "discover.teaching.steps=9", "discover", "modes/seed0"),
    ],
)
def test_settings_of_an_earlier_stage_are_refused_by_its_name(
    made: Path, capsys: pytest.CaptureFixture[str], command: str, setting: str, stage: str, folder: str
) -> None:
    before = sorted(made.rglob("*"))
    status, _, err = run(capsys, f"{command} --task {TASK} --preset smoke --set seeds=[0] --set {setting}")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {setting.partition('=')[0]} is ")
    what = f"{'the demonstrations of ' if stage == 'collect' else ''}results/{TASK}-smoke"
    assert f"but `{stage}` made {what}/{folder} with " in err
    assert f"which `{command.split()[0]}` can't change: give the settings that it was made with" in err
    assert sorted(made.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("discover --policy {0}/dppo/seed0", "dppo/seed0 was made by stage finetune, not by pretrain"),
        ("finetune --method dppo-bmd --modes {0}/policy", "policy was made by stage pretrain, not by discover"),
        ("evaluate --method dppo --finetuned {0}/dppo-bmd/seed0", "was made for method dppo-bmd, not for method dppo"),
        ("evaluate --method taught --seed 1 --modes {0}/modes/seed0", "was made for seed 0, not for seed 1"),
        ("curve --method dppo --finetuned {0}/modes/seed0", "modes/seed0 was made by stage discover, not by finetune"),
    ],
)
def test_a_folder_of_another_stage_is_called_that(
    made: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    given = command.format(f"results/{TASK}-smoke")
    status, _, err = run(capsys, f"{given} --task {TASK} --preset smoke")
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


@pytest.mark.parametrize("mark", ["zarr.json", ".zgroup", ".zattrs"])
@pytest.mark.parametrize(
    "command",
    [
        *("import-demos x.zarr --output x.zarr/inner", "collect --output x.zarr/deep/er", "pretrain --output x.zarr"),
        *("evaluate --output x.zarr/zarr.json", "evaluate --output link/eval.json", "play --output x.zarr/e.json"),
    ],
)
def test_nothing_is_written_into_a_store(
    made: Path, capsys: pytest.CaptureFixture[str], command: str, mark: str
) -> None:
    store = made / "x.zarr"
    (store / "data").mkdir(parents=True)
    (store / mark).write_text("{}")
    (made / "link").symlink_to(store / "data")
    before = sorted(made.rglob("*"))
    status, _, err = run(capsys, f"{command} --task {TASK} --preset smoke")
    assert (status, err.count("\n")) == (2, 1)
    assert f"can't be written: {store} is a zarr store; write outside of it" in err
    assert sorted(made.rglob("*")) == before


def test_so_are_those_of_demonstrations_and_of_another_preset(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, f"pretrain --task {TASK} --preset smoke --set collect.num_episodes=99")
    assert f"collect.num_episodes is 99, but `collect` made data/{TASK}-smoke/demos.zarr with " in err
    _, _, err = run(capsys, f"evaluate --task {TASK} --preset cpu --set run=smoke")
    assert "collect.num_episodes is " in err
    assert "which `evaluate` can't change" in err


@pytest.mark.parametrize(
    "command",
    [
        "pretrain --set pretrain.iterations=99",
        "discover --set discover.num_modes=3",
        "finetune --method dppo --set finetune.iterations=99",
        "finetune --method dppo-bmd --set task.env.disturbance.action_gain=2",
        "evaluate --method dppo --set evaluate.episodes=99",
        "evaluate --method taught --set task.env.disturbance.action_gain=2",  # modes are discovered without it
    ],
)
def test_settings_of_the_stage_itself_are_not(made: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    words, _, setting = command.partition(" --set ")
    _, _, err = run(capsys, f"{words} --task {TASK} --preset smoke --set {setting}")
    assert "can't be read as a zarr store" in err or "policy.json is missing" in err  # there are records and no more


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("pretrain", "finetune.iterations=99"),
        ("evaluate", "finetune.iterations=99"),
        ("evaluate --method dppo", "discover.num_modes=3"),
        ("evaluate --method dsrl", "finetune.denoiser.eta=0.5"),
        ("finetune --method dsrl", "discover.num_modes=3"),
    ],
)
def test_settings_that_no_stage_behind_a_command_reads_are_refused(
    made: Path, capsys: pytest.CaptureFixture[str], command: str, setting: str
) -> None:
    before = sorted(made.rglob("*"))
    status, _, err = run(capsys, f"{command} --task {TASK} --preset smoke --set {setting}")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {setting.partition('=')[0]} has no effect on `{command.split()[0]}")
    assert sorted(made.rglob("*")) == before
    (made / "mine.yaml").write_text(f"{setting.replace('.', ': {').replace('=', ': ')}{'}' * setting.count('.')}")
    assert "no effect" not in run(capsys, f"{command} --task {TASK} --preset smoke --config mine.yaml")[2]


@pytest.mark.parametrize("command", ["pretrain --output mine", "discover", "export-demos --to lerobot"])
def test_a_folder_without_a_name_is_no_store(made: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    for folder in ("/", "."):
        status, _, err = run(capsys, f"{command} --demos {folder} --task {TASK} --preset smoke")
        assert (status, err.count("\n")) == (2, 1)


def test_what_was_imported_has_no_settings(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(made, "smoke")
    layout.demos_manifest(TASK).write_text(json.dumps({"stage": "collect", "task": TASK, "imported": True}))
    status, _, err = run(capsys, f"pretrain --task {TASK} --preset smoke --set collect.num_episodes=99")
    assert (status, err.partition("; ")[0]) == (
        2,
        "error: collect.num_episodes has no effect on `pretrain`: the demonstrations were imported, and no setting of "
        "`collect` made them",
    )
    (layout.policy(TASK) / "run.json").write_text(json.dumps({"stage": "pretrain", "task": TASK, "imported": True}))
    own = layout.policy(TASK).rename(made / "own")
    for command in ("evaluate --policy own", "finetune --method dppo --policy own", "discover --policy own"):
        status, _, err = run(capsys, f"{command} --task {TASK} --preset smoke --set pretrain.iterations=99")
        assert (status, err.count("\n")) == (2, 1)
        assert "the policy was imported, and no setting of `pretrain` made it; leave it out" in err
    own.rename(layout.policy(TASK))
    _, _, err = run(capsys, f"evaluate --task {TASK} --preset smoke --set pretrain.iterations=99")
    assert "the policy was imported" in err


def test_others_beside_what_was_imported_have_settings(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(made, "smoke")
    trained = shutil.copytree(layout.policy(TASK), made / "trained")
    collected = shutil.copytree(layout.demos_manifest(TASK).parent, made / "collected")
    for path in (layout.policy(TASK) / "run.json", layout.demos_manifest(TASK)):
        path.write_text(json.dumps({"stage": path.stem, "task": TASK, "imported": True}))
    given = f"--task {TASK} --preset smoke --set collect.num_episodes=99"
    for command, made_it in (
        (f"evaluate --policy {trained} {given}", "the demonstrations of "),
        (f"pretrain --demos {collected / 'demos.zarr'} --output mine {given}", ""),
    ):
        assert f"`collect` made {made_it}" in run(capsys, command)[2]
    _, _, err = run(capsys, f"pretrain --output mine --task {TASK} --preset smoke --set pretrain.iterations=99")
    assert "no effect" not in err


def test_commands_in_messages_have_the_settings_and_the_root_of_the_one_that_failed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = "--preset smoke --set pretrain.iterations=7 --set=seed=1 --root elsewhere"
    idle = '--set finetune.iterations=7 --set finetune={"denoiser":{"eta":0.5}}'  # without an effect on pre-training
    _, _, err = run(capsys, f"finetune --task PushT --method dppo --quiet {given} {idle}")
    assert err.endswith(f"make it with `bmd-pipeline pretrain --task PushT {given}`\n")
    _, _, err = run(capsys, f"finetune --task PushT --method dsrl --root {'x' * 600}")
    assert len(err) < 700


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("collect --task PusT", "unknown task 'PusT'; did you mean 'PushT'?"),
        ("collect --task ../../x", "a task's name is letters"),
        ("collect --task PushT --preset smok", "unknown preset 'smok'; did you mean 'smoke'?"),
        ("collect --task PushT --config none.yaml", "none.yaml does not exist"),
        ("collect --task PushT --set collect.num_episodes=1", "collect.num_episodes must be >= 4, got 1"),
        ("collect --task PushT --set colect.num_episodes=9", "unknown setting colect; did you mean 'collect'?"),
        ("pretrain --task PushT", "data/PushT/demos.zarr is missing: make it with `bmd-pipeline collect --task PushT`"),
        ("collect --task PushT --set collect.store=mine", "unknown setting collect.store"),
        ("pretrain --task PushT --demos mine.zarr", "mine.zarr is no folder: --demos must name a zarr store"),
        ("pretrain --task PushT --policy mine", "No such option: --policy"),
        ("import-demos mine.zarr --task PushT", "no demonstrations at mine.zarr"),
        ("import-demos config --task PushT", "config is of no format that is read: a zarr store"),
        ("import-demos config --task PushT --output x/config.yaml", "config is of no format that is read"),
        ("import-demos --task PushT", "Missing argument 'store'"),
        ("import-policy mine --task PushT", "policy: mine/policy.json is missing"),
        ("import-policy config --task PushT --output /dev/null", "what is there is no folder"),
        ("discover --task PushT", "results/PushT/policy/run.json is missing: make it with `bmd-pipeline pretrain"),
        ("finetune --task PushT --method dsr", "unknown method 'dsr'; did you mean 'dsrl'?"),
        ("finetune --task PushT --method pretrained", "unknown method 'pretrained'"),
        ("finetune --task PushT --method dsrl", "results/PushT/policy/run.json is missing"),
        ("evaluate --task PushT --policy nowhere", "nowhere/run.json is missing"),
        ("summarise --task PushT", "`bmd-pipeline evaluate --task PushT --method pretrained --seed 0`"),
        ("tasks PusT", "unknown task 'PusT'"),
        ("doctor --preset smok", "--preset, --config and --set go with --task"),
        ("doctor --set a=b", "--preset, --config and --set go with --task"),
        ("doctor --config none.yaml", "--preset, --config and --set go with --task"),
        ("check-task PusT", "unknown task 'PusT'"),
        ("config show --task PusT", "unknown task 'PusT'"),
        ("collect --task GaussianMixture --output /dev/null", "/dev/null can't be written: what is there is no folder"),
        (
            "collect --task GaussianMixture --output config",
            "config holds something else than demonstrations, which would",
        ),
        (
            "collect --task GaussianMixture --output n/checkpoints",
            "checkpoints beside a store is ours",
        ),
        ("collect --task GaussianMixture --output n/demos.manifest.json", "demos.manifest.json beside a store is ours"),
        (
            f"collect --task GaussianMixture --output n/{'a' * 229}",
            "its name has more than 228 bytes",
        ),
        (
            f"evaluate --task GaussianMixture --output n/{'é' * 113}.json",
            "its name has more than 228 bytes",
        ),
        ("collect --task GaussianMixture --output ..", ".. can't be written: it has no name of its own"),
        ("summary --output config", "config can't be written: what is there is no file"),
        (
            "play --task PushT --method pretrained",
            "results/PushT/policy/run.json is missing: make it with `bmd-pipeline",
        ),
        ("play --task PushT --method exprt", "unknown method 'exprt'"),
        (
            "play --task PushT --finetuned x",
            "--finetuned goes with the --method that it belongs to, got --method expert",
        ),
        ("play --task PushT --method taught --exported x --modes y", "--exported plays by itself: leave --modes out"),
        ("play --task PushT --method taught --exported x", "x/run.json is missing: make it with `bmd-pipeline export"),
        ("play --task PushT --seed 0", "--seed goes with the --method that it belongs to, got --method expert"),
        ("play --task PushT --output x.gif", "x.gif can't be written: its name must end in .json"),
        ("play --task PushT --episodes 0", "Invalid value for '--episodes'"),
        ("collect", "Missing option '--task'"),
        ("colect --task PushT", "No such command 'colect'"),
        ("collect --task PushT --sed 3", "No such option: --sed"),
        ("discover --task PushT --seed -1", "Invalid value for '--seed'"),
        ("discover --task PushT --seed x", "Invalid value for '--seed'"),
        ("collect --task PushT --threads 0", "Invalid value for '--threads'"),
    ],
)
def test_the_users_mistakes_are_one_line_and_status_2(
    project: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    before = sorted(project.rglob("*"))
    status, out, err = run(capsys, command)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(project.rglob("*")) == before  # nothing written


def test_a_missing_extra_ends_in_one_line_too(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(registry.get_entry("GaussianMixture"), extra="rare", requires=("no_such_simulator",))
    others = {name: other for name, other in registry._REGISTRY.items() if not name.startswith(entry.name)}
    monkeypatch.setattr(registry, "_REGISTRY", others | {entry.name: entry})
    before = sorted(project.rglob("*"))
    for command in ("collect", "check-task"):
        status, out, err = run(capsys, f"{command} {'--task ' * (command == 'collect')}GaussianMixture")
        assert (status, out) == (2, "")
        assert err == "error: task GaussianMixture needs no_such_simulator: pip install 'bmd-pipeline[rare]'\n"
    assert sorted(project.rglob("*")) == before  # nothing written
    assert run(capsys, "tasks")[1].count("(extra rare)") == 2  # the variant's too
    (extras,) = (finding for finding in examine() if finding.name == "extras")
    assert (extras.verdict, "no_such_simulator (GaussianMixture)" in extras.text) == ("note", True)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("finetune --method dsrl-bmd --seed 3", "results/GaussianMixture/modes/seed3/run.json is missing: make it with "
         "`bmd-pipeline discover --task GaussianMixture --seed 3`"),
        ("evaluate --method dsrl --seed 3", "results/GaussianMixture/dsrl/seed3/run.json is missing: make it with "
         "`bmd-pipeline finetune --task GaussianMixture --method dsrl --seed 3`"),
        ("evaluate --method taught", "results/GaussianMixture/modes/seed0/run.json is missing: make it with "
         "`bmd-pipeline discover --task GaussianMixture --seed 0`"),
        ("evaluate --method taught --finetuned x", "results/GaussianMixture/modes/seed0/run.json is missing"),
        ("discover", "data/GaussianMixture/demos.zarr is missing: make it with `bmd-pipeline collect --task "
         "GaussianMixture`"),
        ("finetune --method taught", "unknown method 'taught'"),
        ("finetune --method dsrl --modes x", "--modes goes with a -bmd method, got --method dsrl"),
        ("evaluate --method pretrained --finetuned x", "--finetuned goes with the --method that made it"),
    ],
)  # fmt: skip
def test_stages_ask_for_what_their_method_needs(
    project: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    make_output(project / "results" / "GaussianMixture" / "policy", "pretrain")
    status, _, err = run(capsys, f"{command} --task GaussianMixture")
    assert (status, message in err) == (2, True), err


@pytest.mark.parametrize(
    ("task", "opengl", "what"),
    [
        ("Reach", "", "no Vulkan device"),
        ("Kitchen", "none-such", "no OpenGL"),
        ("Kitchen", "glfw", "no OpenGL"),  # needs a display
    ],
)
def test_a_missing_renderer_is_one_line_that_says_what_to_install(
    project: Path, task: str, opengl: str, what: str
) -> None:
    """In a process of its own: simulators look for what renders when they are imported."""
    pytest.importorskip("mujoco")
    hidden = os.environ | {"VK_ICD_FILENAMES": "/none", "VK_DRIVER_FILES": "/none", "MUJOCO_GL": opengl, "DISPLAY": ""}
    start = "from bmd_pipeline.cli.main import main; import sys; sys.exit(main())"
    command = [sys.executable, "-c", start, "play", "--task", task]
    done = subprocess.run(command, env=hidden, capture_output=True, text=True, check=False, cwd=project)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {what}")
    assert "apt-get install" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (project / "results").exists()


@pytest.mark.parametrize(
    ("error", "status", "start"),
    [
        (RuntimeError("two\nlines"), 1, "internal error: RuntimeError: two lines (run again with --debug"),
        (RuntimeError("\x1b[2J"), 1, "internal error: RuntimeError: \\x1b[2J (run"),  # not what clears a screen
        (SimulationError("worker 3 died"), 1, "internal error: SimulationError: worker 3 died"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_our_failures_are_one_line_too(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    start: str,
) -> None:
    def fail(job: object) -> None:
        raise error

    monkeypatch.setattr(Job, "need_policy", lambda job, given: fail(job))
    found, _, err = run(capsys, "discover --task GaussianMixture")
    assert found == status
    assert err.startswith(start)
    assert err.count("\n") == 1
    if status == 1:
        assert "Traceback" in run(capsys, "discover --task GaussianMixture --debug")[2]


def test_a_stage_that_was_stopped_says_how_to_go_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "collect --task GaussianMixture --preset smoke --quiet")[0] == 0
    command = "pretrain --task GaussianMixture --preset smoke --quiet --set pretrain.iterations=20"
    status, out, err = run(capsys, f"{command} --max-minutes 0")
    assert (status, out) == (75, "")
    assert err == "stopped by its time limit of 0 min; run the same command again to go on\n"
    assert run(capsys, f"{command} --set execution.max_minutes=1e-9")[0] == 75
    assert run(capsys, command)[0] == 0


def test_what_another_job_writes_is_waited_for(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = make_identity(load_config("GaussianMixture", preset="smoke"), "collect")
    command = "collect --task GaussianMixture --preset smoke --plain"
    (project / "data").mkdir()
    with FolderLock(project / "data" / "GaussianMixture-smoke" / "checkpoints", identity) as other:
        status, _, err = run(capsys, command)
        assert (status, err.count("another job is writing")) == (2, 1)
        ends = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: other.discard())  # while it is waited for
        monkeypatch.setattr("bmd_pipeline.io.progress.time", ends)
        status, _, err = run(capsys, f"{command} --set execution.wait_minutes=5")
    assert status == 0
    assert "waiting for it" in err
    assert err.endswith("another job has written data/GaussianMixture-smoke meanwhile\n")


@pytest.fixture
def mine(project: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder of somebody's, beside demonstrations and a policy of ours."""
    for command in ("collect", "pretrain --set pretrain.iterations=5"):
        assert run(capsys, f"{command} --task GaussianMixture --preset smoke --quiet")[0] == 0
    folder = project / "mine"
    for part in (folder, folder / "checkpoints", folder / "snapshots" / "000000"):
        part.mkdir(parents=True)
        (part / "epoch100.ckpt").write_text("mine")
    return folder


def test_a_stage_leaves_alone_what_it_did_not_write(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(mine.rglob("*.ckpt"))
    common = "--task GaussianMixture --preset smoke --quiet --output mine"
    common += " --set pretrain.iterations=5"
    tune = f"finetune --method dppo {common} --set finetune.iterations=1 --set finetune.snapshot_interval=1"
    for _ in range(2):  # what is its own may be replaced
        status, _, err = run(capsys, tune)
        assert status == 0, err
    status, _, err = run(capsys, f"pretrain {common}")
    assert (status, "mine/run.json would be replaced" in err) == (2, True)
    (mine / "run.json").unlink()
    assert run(capsys, f"pretrain {common}")[0] == 0
    assert sorted(mine.rglob("*.ckpt")) == before
    assert {path.read_text() for path in before} == {"mine"}
    assert not (mine / "checkpoints" / "lock").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("collect --output mine/x.zarr", "demos.manifest.json"),
        ("collect --output mine/x.zarr", "checkpoints/lock"),
        ("pretrain --output mine", "metrics.jsonl"),
        ("pretrain --output mine", "checkpoints/metrics.jsonl"),
        ("pretrain --output mine", "policy.json"),
        ("discover --output mine", "run.json"),
        ("discover --output mine", "modes.json"),
        ("discover --output mine", "modes.safetensors"),
        ("finetune --method dppo --output mine", "checkpoints/lock"),
        ("finetune --method dppo --output mine", "snapshots/000000/finetuned.json"),
        ("evaluate --output mine/eval.json", "eval.json"),
        ("evaluate --output mine/eval.json", "episodes.parquet"),
        ("evaluate --output mine/eval.json", "trajectories.svg"),
        ("import-policy results/GaussianMixture-smoke/policy --output mine", "run.json"),
        ("play --output mine/expert.json", "expert.webp"),
        ("play --output mine/expert.json", "expert-east.gif"),
    ],
)
def test_somebodys_file_is_refused_before_the_work_starts(
    mine: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    (mine / name).write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in mine.rglob("*")}
    status, _, err = run(capsys, f"{command} --task GaussianMixture --preset smoke --quiet")
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith(f"error: mine/{name} would be replaced, and `bmd-pipeline "), err
    assert {path: path.stat().st_mtime_ns for path in mine.rglob("*")} == before


def test_what_another_preset_made_is_replaced_by_force_alone(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "pretrain --task GaussianMixture --quiet --set run=smoke --preset cpu --config smoke.yaml"
    shown = run(capsys, "config show --task GaussianMixture --preset smoke --set pretrain.iterations=5")[1]
    Path("smoke.yaml").write_text(yaml.safe_dump({k: v for k, v in yaml.safe_load(shown).items() if k != "preset"}))
    status, _, err = run(capsys, command)
    assert (status, err.count("\n")) == (2, 1)
    assert "policy/run.json was made with preset smoke and would be replaced with preset cpu" in err
    assert run(capsys, f"{command} --force")[0] == 0


def test_only_stages_that_can_go_on_have_a_time_limit(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("pretrain", "discover", "finetune"):
        assert "--max-minutes" in run(capsys, f"{command} --help")[1], command
    for command in ("collect", "evaluate", "summarise"):
        assert "--max-minutes" not in run(capsys, f"{command} --help")[1], command


def test_what_the_file_system_refuses_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: object) -> None:
        raise OSError(28, "No space left on device", "results/metrics.jsonl")

    monkeypatch.setattr(Job, "need_policy", lambda job, given: fail(job))
    status, _, err = run(capsys, "discover --task GaussianMixture")
    assert status == 2
    assert err.startswith("error: results/metrics.jsonl: No space left on device (run again with --debug")
    assert err.count("\n") == 1


def test_no_more_cores_are_used_than_there_are(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmd_pipeline.cli.options.usable_cores", lambda: 3)
    taken: list[int] = []
    monkeypatch.setattr(Job, "run", lambda job, **_: taken.append(job.num_workers))
    for options in ("--threads 8", "--set execution.threads.collect=8", "--threads 3", "--threads 2"):
        status, _, err = run(capsys, f"collect --task GaussianMixture {options}")
        assert status == 0
        said = "[collect GaussianMixture] uses 3 of the 8 cores asked for: there are no more for this process\n"
        assert err == (said if options == "--threads 8" else "")
    assert taken == [3, 3, 3, 2]


def test_a_file_system_without_locks_is_refused_or_done_with_as_the_settings_say(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refuse)
    before = {path for path in project.rglob("*") if path.is_file()}
    few = "--task GaussianMixture --preset smoke --quiet"
    status, _, err = run(capsys, f"collect {few}")
    assert (status, err.count("\n")) == (2, 1)
    assert "without locks (flock: Function not implemented)" in err
    assert {path for path in project.rglob("*") if path.is_file()} == before
    for command in (
        *("collect", "pretrain", "import-demos data/GaussianMixture-smoke/demos.zarr --output mine/demos.zarr"),
        *("import-policy results/GaussianMixture-smoke/policy --output mine/policy", "evaluate"),
    ):
        given = few if command in ("collect", "pretrain", "evaluate") else "--task GaussianMixture --preset smoke"
        assert run(capsys, f"{command} {given}")[0] == 2
        status, _, err = run(capsys, f"{command} {given} --set execution.require_lock=false")
        assert status == 0, err


START = "from bmd_pipeline.cli.main import main; import sys; sys.exit(main())"


@pytest.mark.parametrize(
    "command", ["tasks", "--help", "config schema", "config show --task GaussianMixture", "tasks X"]
)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_lacks_is_shown_as_an_escape(project: Path, command: str, encoding: str) -> None:
    (project / "mine.yaml").write_text("execution: {group: λ}")
    shown = f"{command} --config mine.yaml" if command.startswith("config show") else command
    done = subprocess.run(
        [sys.executable, "-c", START, *shown.split()],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        cwd=project,
        capture_output=True,
        check=False,
    )
    assert done.returncode == (2 if command == "tasks X" else 0), done.stderr
    assert done.stderr.count(b"\n") == (command == "tasks X")
    if "--config" in shown:
        assert yaml.safe_load(done.stdout)["execution"]["group"] == "λ"
    if command == "config schema":
        assert json.loads(done.stdout)["$defs"]["PPOConfig"]


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "2>/dev/full"])
def test_output_that_nobody_takes_stops_nothing(project: Path, closed: str) -> None:
    arguments = ("collect", "--task", "GaussianMixture", "--preset", "smoke")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", START, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (project / "data/GaussianMixture-smoke/demos.manifest.json").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_exit_status_is_the_same_if_nobody_can_be_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", START, "nonsense"], stderr=full, check=False)
    assert done.returncode == 2


def test_names_that_no_record_could_hold_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"mine\xff")
    for command in ("collect --task GaussianMixture --output", "config show --task", "tasks"):
        assert main([*command.split(), name]) == 2
        assert (
            capsys.readouterr().err
            == "error: 'mine\\udcff' is not UTF-8; give it another name, or set LC_ALL=C.UTF-8\n"
        )
    assert not list(project.glob("mine*"))


EARLY = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "rich.console":  # while modules are read
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
runpy.run_module("bmd_pipeline", run_name="__main__")
"""


def test_ctrl_c_shows_no_traceback_while_modules_are_read() -> None:
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


TWICE = """
import atexit, os, signal, sys
from bmd_pipeline.cli import main as cli
from bmd_pipeline.stages.console import Stopped

def stop(**_):
    raise {first}

atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))  # while Python ends
cli.app = stop
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("Stopped('SIGINT')", "stopped by SIGINT; run the same command again to go on\n"),
        ("KeyboardInterrupt", "interrupted\n"),
        ("SystemExit(0)", "error: code of the task ended the command (sys.exit, 0): it must not do that\n"),
    ],
)
def test_a_second_interrupt_ends_what_is_left_at_once(first: str, said: str) -> None:
    script = TWICE.format(first=first)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, said)


def test_threads_that_wait_leave_their_core_to_others() -> None:
    script = "from bmd_pipeline.cli.main import main; main(['--version']); import torch"
    variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for given, rests in (({}, True), ({"OMP_WAIT_POLICY": "ACTIVE"}, False)):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=variables | {"OMP_DISPLAY_ENV": "VERBOSE"} | given,
            capture_output=True,
            text=True,
            check=True,
        )
        if "GOMP_SPINCOUNT" not in done.stderr:
            pytest.skip("torch comes with another OpenMP")
        assert ("GOMP_SPINCOUNT = '0'" in done.stderr) == rests  # says OpenMP itself


def test_no_line_is_longer_than_people_read(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: object) -> None:
        raise ArtifactError("made for task " + "a" * 5000)

    monkeypatch.setattr(Job, "need_policy", lambda job, given: fail(job))
    status, _, err = run(capsys, "discover --task GaussianMixture")
    assert (status, len(err) < 700, err[-4:]) == (2, True, "...\n")


def test_debug_shows_where_a_refusal_came_from(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "collect --task PusT --debug")
    assert status == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: unknown task")


def test_config_show_prints_what_was_loaded(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "mine.yaml").write_text("finetune: {iterations: 7}")
    status, out, _ = run(
        capsys, "config show --task GaussianMixture --preset smoke --config mine.yaml --set seed=5 --set seeds=[3]"
    )
    expected = load_config(
        "GaussianMixture",
        preset="smoke",
        overrides={"finetune": {"iterations": 7}},
        assignments=["seed=5", "seeds=[3]"],
    )
    assert status == 0
    assert yaml.safe_load(out) == expected.model_dump(mode="json")


def test_config_hashes_and_schema(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "config show --task GaussianMixture --hashes")
    assert {len(value) for value in yaml.safe_load(out).values()} == {64}
    _, out, _ = run(capsys, "config schema --task GaussianMixture")
    schema = json.loads(out)
    assert schema["$defs"]["PPOConfig"]["properties"]["gamma"]["maximum"] == 1.0
    assert "horizon" in schema["$defs"]["TaskConfig"]["properties"]["env"]["properties"]


PLUGIN = Path(__file__).parents[1] / "demos" / "plugins"


def test_commands_about_tasks_know_variants_and_plug_ins(project: Path) -> None:
    """In processes of their own: what is registered stays so in a process."""
    (project / "config" / "tasks" / "Toy.yaml").write_text("task: {plugins: [toy_task]}")
    (project / "config" / "tasks" / "ToyFast.yaml").write_text("extends: Toy")
    start = "from bmd_pipeline.cli.main import main; import sys; sys.exit(main())"
    root = str(Path(bmd_pipeline.__file__).parents[1])

    def command(words: str, *folders: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join((root, *folders))
        arguments = [sys.executable, "-P", "-c", start, *words.split()]
        return subprocess.run(
            arguments, cwd=project, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
        )

    for task in ("PushTShifted", "Toy", "ToyFast"):
        done = command(f"config schema --task {task}", str(PLUGIN))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["$defs"]["TaskConfig"]["properties"]["env"]["properties"]
    listed = [line.split()[:6] for line in command("tasks", str(PLUGIN)).stdout.splitlines()]
    assert ["Toy", "native", "2", "1", "10", "–"] in listed
    assert [row[0] for row in listed if row[:1] and row[0].startswith("Toy") and row[1] == "native"] == [
        "Toy",
        "ToyFast",
    ]
    done = command("tasks")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'toy_task' can't be imported: ModuleNotFoundError: No module named 'toy_task'; install it (" in done.stderr
    assert done.stderr.endswith("or put the folder that it is in on PYTHONPATH\n")


def test_tasks_lists_tasks_and_their_settings(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run(capsys, "tasks")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    titles, *rows = (line.split() for line in out.splitlines() if not line.startswith(" "))
    assert titles == ["task", "simulator", "obs", "action", "steps", "modes"]
    assert ["Reach", "ManiSkill", "20", "6", "100", "2"] in rows
    assert ["AvoidPointShifted", "native", "14", "2", "120", "24"] in rows
    _, out, _ = run(capsys, "tasks GaussianMixture")
    assert "task.env.horizon = " in out
    assert "task.env.disturbance.action_noise = 0.0\n    " in out
    _, out, _ = run(capsys, "tasks AvoidPointGust")
    assert out.startswith("AvoidPointGust: AvoidPoint with settings of its own; disturbed: action_noise=0.5\n")
    assert "task.env.disturbance.action_noise = 0.5\n    " in out  # its own value, not the default


@pytest.mark.parametrize("command", ["", "--help", "finetune --help", "config --help", "config show --help"])
def test_help_is_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    status, out, err = run(capsys, command)
    assert (status, err) == (0, "")
    assert "Usage: bmd-pipeline" in out


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_is_whole_at_80_columns_and_its_examples_can_be_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, f"{name} --help")
    assert "…" not in out
    shown = " ".join(out.split())
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    for example in EXAMPLES[name].splitlines():
        assert f"Example: bmd-pipeline {name} {example}" in shown
        command.make_context(name, example.split())  # reads all of it, or raises


def test_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    names = [*EXAMPLES, *(f"{name} {child}" for name in ("modes", "config") for child in commands[name].commands)]
    assert {name.split()[0] for name in names} == set(commands)
    for name in names:
        assert f"Example: bmd-pipeline {name}" in run(capsys, f"{name} --help")[1]


def test_what_scripts_read_is_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read(command: str) -> Any:
        return json.loads(run(capsys, f"{command} --json")[1])

    (task,) = (task for task in read("tasks") if task["task"] == "AvoidPointGust")
    assert (task["obs"], task["modes"], task["world"]) == (14, 24, "action_noise=0.5")
    shown = read("tasks GaussianMixture")
    assert {"task.env.horizon", "task.env.disturbance.action_noise"} <= {row["name"] for row in shown["settings"]}
    assert read("config show --task PushT")["task"]["name"] == "PushT"
    assert {"python", "torch"} <= {finding["name"] for finding in read("doctor")}
    assert all(result["passed"] for result in read("check-task GaussianMixture"))


def test_a_dry_run_checks_says_and_does_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(made.rglob("*"))
    status, out, err = run(capsys, f"finetune --task {TASK} --preset smoke --method dppo-bmd --seed 0 --dry-run")
    assert (status, err) == (0, "")
    folder = f"results/{TASK}-smoke"
    assert out.splitlines() == [
        f"finetune {TASK}: would run on 1 core",
        f"  reads  {folder}/policy",
        f"  reads  {folder}/modes/seed0",
        f"  writes {folder}/dppo-bmd/seed0 (replaces what is there)",
    ]
    assert run(capsys, f"finetune --task {TASK} --preset smoke --method dppo-bmd --seed 1 --dry-run")[0] == 2
    for command in ("import-demos nothing.hdf5", "import-policy nothing.pt"):
        found = run(capsys, f"{command} --task {TASK} --preset smoke --output new/place --dry-run")
        assert found == (2, "", f"error: {command.split()[1]} is missing\n")
    assert sorted(made.rglob("*")) == before


def test_shells_complete_tasks_methods_presets_and_settings() -> None:
    def complete(words: str) -> set[str]:
        environment = os.environ | {
            "_BMD_PIPELINE_COMPLETE": "complete_bash",
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        start = "import sys; from bmd_pipeline.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", start],
            cwd=ROOT,
            env=environment | {"COMP_WORDS": words},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")  # a shell would show it in the midst of the line
        return set(done.stdout.split())

    start = "bmd-pipeline finetune"
    assert complete(f"{start} --task AvoidPoint") == {"AvoidPoint", "AvoidPointGust", "AvoidPointShifted"}
    assert complete(f"{start} --method dppo") == {"dppo", "dppo-bmd"}
    assert complete(f"{start} --preset a") == {"auto", "auto-gpu"}
    assert complete(f"{start} --set finetune.ppo.gam") == {"finetune.ppo.gamma="}
    assert complete(f"{start} --task PushTShifted --set task.env.h") == {"task.env.horizon="}


def test_a_reader_that_has_seen_enough_ends_no_command_with_an_error() -> None:
    start = "from bmd_pipeline.cli.main import main; import sys; sys.exit(main())"
    for words in ("--help", "tasks", "config show --task PushT"):
        process = subprocess.Popen(
            [sys.executable, "-c", start, *words.split()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0


def test_what_can_not_be_printed_is_said(project: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(START)} config show --task PushT > /dev/full"
    done = subprocess.run(["sh", "-c", command], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: what the command prints: No space left on device" in done.stderr


def test_a_current_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    script = "mkdir gone && cd gone && rmdir ../gone && exec " + shlex.join([sys.executable, "-c", START, "tasks"])
    path = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the current folder: No such file or directory")


def test_a_backend_for_windows_is_nothing_to_us() -> None:
    code = "from bmd_pipeline.cli.main import main; main(['--version']); import matplotlib"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"MPLBACKEND": "bogus"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--version")
    assert status == 0
    assert out.startswith("bmd-pipeline ")


def test_the_command_line_starts_without_heavy_imports() -> None:
    heavy = "{'torch', 'numpy', 'zarr', 'mani_skill', 'wandb', 'matplotlib', 'scipy', 'pyarrow'}"
    code = f"import sys, bmd_pipeline.cli.main; sys.exit(', '.join({heavy} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_check_task_compares_the_demonstrations_that_are_there(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(path: Path, unit: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(0)
        with DemoWriter(path, 2, 2, {}) as writer:
            for _ in range(10):
                writer.append(Episode(unit * (0.05 * draw.normal(size=(1, 2)) + [0.0, 5.0]), np.zeros((1, 2)), True, 0))

    write(project / "data/GaussianMixture/demos.zarr", 1.0)
    write(project / "mine.zarr", 1000.0)
    status, out, err = run(capsys, "check-task GaussianMixture")
    assert status == 2
    assert "broken   demonstrations look like the task: column 1 of the observation is 5" in out
    assert err == "error: GaussianMixture breaks the task contract: 1 of 12 checks failed\n"
    status, out, _ = run(capsys, "check-task GaussianMixture --demos mine.zarr")
    assert "column 1 of the observation is 5e+03 ±" in out
    _, out, _ = run(capsys, "check-task GaussianMixture --preset smoke")
    assert "skipped  demonstrations look like the task: there are none yet" in out
    write(project / "data/GaussianMixture-smoke/demos.zarr", 1000.0)
    _, out, _ = run(capsys, "check-task GaussianMixture --preset smoke")
    assert "column 1 of the observation is 5e+03 ±" in out
    _, out, _ = run(capsys, "check-task GaussianMixture --root elsewhere")
    assert "skipped  demonstrations look like the task: there are none yet" in out
