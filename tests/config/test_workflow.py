"""From Snakemake's config to its jobs' settings."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from bmd_pipeline.cli.main import main
from bmd_pipeline.config import load
from bmd_pipeline.config.load import merge_layers, parse_assignment
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.workflow import (
    PRESET_VARIABLE,
    Pipeline,
    put_command_on_path,
    read_workflow_config,
)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRESET_VARIABLE, "")  # so that what the code sets is undone afterwards


def test_assignments_say_the_same_as_the_config(config_dir: Path) -> None:
    config = {
        "preset": "smoke",
        "set": ["seeds=[4]"],
        "finetune": {"ppo": {"gamma": "0.9"}, "iterations": 3},
        "task": {"env": {"start_std": "0.5"}},
        "execution": {"group": "3", "require_lock": "false"},
        "grid": {"axes": {}},
    }
    found = read_workflow_config(config | {"methods": None}, config_dir=config_dir)  # left blank: not there
    texts = found.list_assignments(found.load("GaussianMixture"))
    assert merge_layers([parse_assignment(text) for text in texts]) == {
        "finetune": {"ppo": {"gamma": 0.9}, "iterations": 3},
        "task": {"env": {"start_std": 0.5}},
        "execution": {"group": "3", "require_lock": False},
        "grid": {"axes": {}},
        "seeds": [4],
    }


def test_jobs_take_the_preset_that_was_decided_first(config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert read_workflow_config({"preset": "auto"}, config_dir=config_dir).preset == "cpu"
    assert os.environ[PRESET_VARIABLE] == "cpu"
    monkeypatch.setattr(load, "has_cuda_device", lambda: True)
    for asked in ({"preset": "auto"}, {}):
        assert read_workflow_config(asked, config_dir=config_dir).preset == "cpu"  # a job elsewhere, asked the same
    monkeypatch.setenv(PRESET_VARIABLE, "")
    assert read_workflow_config({"preset": "auto"}, config_dir=config_dir).preset == "auto-gpu"
    assert os.environ[PRESET_VARIABLE] == "auto-gpu"
    monkeypatch.setenv(PRESET_VARIABLE, "gpu")  # a job on another node, started by a run that chose gpu
    assert read_workflow_config({}, config_dir=config_dir).preset == "gpu"


@pytest.mark.parametrize("value", [{"a": 1}, 3, [3]])
def test_set_must_be_a_list_of_assignments(config_dir: Path, value: object) -> None:
    with pytest.raises(ConfigError, match="set must be a list of name=value"):
        read_workflow_config({"set": value}, config_dir=config_dir)


@pytest.mark.parametrize("value", [{"a": 1}, 3, [3], ["Reach", "Reach"]])
def test_tasks_must_be_a_list_of_different_names(config_dir: Path, value: object) -> None:
    with pytest.raises(ConfigError, match="tasks must"):
        read_workflow_config({"tasks": value}, config_dir=config_dir)


def test_tasks_are_no_setting_of_a_run(config_dir: Path) -> None:
    found = read_workflow_config({"tasks": ["Reach", "Lift"], "seed": 3}, config_dir=config_dir)
    assert found.tasks == ("Reach", "Lift")
    assert found.overrides == {"seed": 3}


def test_one_assignment_needs_no_brackets(config_dir: Path) -> None:
    assert read_workflow_config({"set": "seed=3"}, config_dir=config_dir).assignments == ("seed=3",)


def test_jobs_find_the_command_without_an_active_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    put_command_on_path()
    assert os.environ["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/nowhere"]


HANGUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1:] else signal.SIG_DFL)
from bmd_pipeline.workflow import Pipeline
Pipeline({"preset": "smoke"}, stored=False, planning=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))  # as Snakemake does, once its jobs begin
os.kill(os.getpid(), signal.SIGHUP)
signal.pause() if not sys.argv[1:] else None
"""


def test_a_closed_terminal_ends_snakemake_as_sigterm_does_unless_it_is_ignored() -> None:
    for words, status in (((), 7), (("nohup",), 0)):
        done = subprocess.run(
            [sys.executable, "-c", HANGUP, *words], cwd=Path(__file__).parents[2], check=False, timeout=60
        )
        assert done.returncode == status


class Wildcards(dict[str, str]):
    """As Snakemake hands them: values by name and by attribute."""

    def __getattr__(self, name: str) -> str:
        return self[name]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pipeline:
    (tmp_path / "config").symlink_to(Path(__file__).parents[2] / "config")
    monkeypatch.chdir(tmp_path)
    config = {"preset": "smoke", "methods": ["dppo", "dppo-bmd"], "seeds": [0, 1]}
    return Pipeline(config, stored=False, planning=True)


def test_what_is_refused_ends_the_run_in_one_line(pipeline: Pipeline) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*dpo"):
        pipeline.modes(Wildcards(task="GaussianMixture", method="dpo", seed="0"))
    with pytest.raises(SystemExit, match=r"^error: "):
        pipeline.settings("Nowhere")


@pytest.mark.parametrize("text", ["seed: 010", "seed: 1\nseed: 2"])
def test_what_snakemake_reads_otherwise_is_refused_where_jobs_are_planned(pipeline: Pipeline, text: str) -> None:
    Path("mine.yaml").write_text(text)
    with pytest.raises(SystemExit, match=r"^error: mine\.yaml:\d:"):
        dataclasses.replace(pipeline, config_files=[Path("mine.yaml")])
    dataclasses.replace(pipeline, config_files=[Path("mine.yaml")], planning=False)


def test_a_clip_that_is_a_link_to_nowhere_ends_no_planning(pipeline: Pipeline) -> None:
    videos = Path("results/GaussianMixture-smoke/videos")
    videos.mkdir(parents=True)
    (videos / "a.gif").symlink_to("nowhere")
    assert list(pipeline.clips(Wildcards(task="GaussianMixture"))) == ["a.gif"]


def test_a_manifest_without_outputs_is_refused_in_one_line(pipeline: Pipeline) -> None:
    manifest = Path("data/GaussianMixture-smoke/demos.manifest.json")
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"imported": true, "outputs": null}')
    with pytest.raises(SystemExit, match=r"^error: .*demos\.manifest\.json is damaged \(outputs is no object\)"):
        pipeline.own_demos(Wildcards(task="GaussianMixture"))


def test_jobs_on_an_imported_policy_get_no_settings_of_its_training(pipeline: Pipeline) -> None:
    pipeline = dataclasses.replace(pipeline, config=pipeline.config | {"set": ["pretrain.iterations=9"]})
    job, output = Wildcards(task="GaussianMixture", method="dppo", seed="0"), ["results/GaussianMixture-smoke/x"]
    assert "pretrain.iterations=9" in pipeline.options("finetune")(job, output, 1)
    policy = Path("results/GaussianMixture-smoke/policy")
    policy.mkdir(parents=True)
    (policy / "run.json").write_text('{"imported": true}')
    planned = dataclasses.replace(pipeline)
    assert "pretrain.iterations=9" not in planned.options("finetune")(job, output, 1)
    planned = dataclasses.replace(pipeline, stored=True)  # which the command refuses, where it sees the policy
    assert "pretrain.iterations=9" in planned.options("finetune")(job, output, 1)


def test_only_training_in_a_cell_of_the_grid_is_told_when_to_stop(pipeline: Pipeline) -> None:
    axes = {"finetune.regulariser.mi_weight": [0.5]}
    pipeline = dataclasses.replace(pipeline, config={**pipeline.config, "grid": {"axes": axes}})
    job = Wildcards(task="GaussianMixture", method="dppo-bmd", cell="mi_weight=0.5", seed="0")
    resources = SimpleNamespace(runtime=60, get=lambda name, default: 5)
    output = ["results/GaussianMixture-smoke/grid/mi_weight=0.5/dppo-bmd/seed0/eval.json"]
    waiting, resumable = (
        pipeline.in_cell(shared("finetune"))(job, output, 1, resources)
        for shared in (pipeline.waiting, pipeline.resumable)
    )
    assert "finetune.regulariser.mi_weight=0.5" in waiting
    assert "--max-minutes" not in waiting
    assert resumable[resumable.index("--max-minutes") + 1] == 55


def test_a_second_attempt_gets_more_memory_and_what_starts_over_more_time(pipeline: Pipeline) -> None:
    job = Wildcards(task="GaussianMixture")
    assert pipeline.mem_mb("finetune")(job, 2) == 2 * pipeline.mem_mb("finetune")(job, 1)
    assert pipeline.runtime("compare")(job, 2) == 2 * pipeline.runtime("compare")(job, 1)
    assert pipeline.runtime("finetune")(job, 2) == pipeline.runtime("finetune")(job, 1) >= 1


def test_demonstrations_are_needed_where_a_cell_teaches_on_them(pipeline: Pipeline) -> None:
    axes = {"discover.form": ["coded", "published"]}
    pipeline = dataclasses.replace(pipeline, config={**pipeline.config, "grid": {"axes": axes}})
    coded, published = (
        Wildcards(task="GaussianMixture", cell=f"form={form}", seed="0") for form in ("coded", "published")
    )
    assert pipeline.discover_demos(coded)
    assert pipeline.discover_demos(published) == []


def test_a_comparison_reads_what_the_command_reads(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    planned = pipeline.evaluations("compare")(Wildcards(task="GaussianMixture"))
    assert "results/GaussianMixture-smoke/taught/seed1/eval.json" in planned
    for path in planned:
        Path(path).parent.mkdir(parents=True)
        options = pipeline.options("compare")(Wildcards(task="GaussianMixture"), [], 1)
        assert main(["compare", "--task", "GaussianMixture", *map(str, options)]) == 2
        assert f"{path} is missing" in capsys.readouterr().err
        Path(path).touch()


def test_a_summary_shows_the_tasks_that_it_was_planned_for(pipeline: Pipeline) -> None:
    for task in ("Lift", "Reach"):
        pipeline.layout.summary(task).parent.mkdir(parents=True)
        pipeline.layout.summary(task).touch()
    assert pipeline.summary_tasks(Wildcards()) == ["Lift", "Reach"]
    assert pipeline.summary_options(Wildcards(), ["results/summary-smoke.html"], 1) == ["--run", "smoke"]
    named = dataclasses.replace(pipeline, config={**pipeline.config, "tasks": ["Lift"]}, stored=True)
    assert named.summary_tasks(Wildcards()) == ("Lift",)
    assert named.summary_options(Wildcards(), ["copies/results/summary-smoke.html"], 1)[2:] == ["--root", "copies/"]


def test_clips_ask_for_what_the_settings_say(pipeline: Pipeline) -> None:
    job = Wildcards(task="GaussianMixture")
    assert (pipeline.mem_mb("play")(job, 2), pipeline.runtime("play")(job, 2)) == (2 * 2200, 2 * 60)
    settings = {"execution": {"mem_mb": 500, "runtime_minutes": 7}}
    pipeline = dataclasses.replace(pipeline, config={**pipeline.config, **settings})
    assert (pipeline.mem_mb("play")(job, 1), pipeline.runtime("play")(job, 1)) == (500, 7)


@pytest.mark.parametrize(
    ("target", "right"),
    [
        ("results/PushT/eval.json", "results/PushT-smoke/eval.json"),
        ("data/PushT-base0/demos.zarr", "data/PushT-base0-smoke/demos.zarr"),
        ("results/PushT-other/policy/run.json", "results/PushT-other-smoke/policy/run.json"),
        ("results/summary.html", "results/summary-smoke.html"),
    ],
)
def test_targets_of_another_run_are_refused_with_the_right_one(pipeline: Pipeline, target: str, right: str) -> None:
    assert re.fullmatch(pipeline.other_targets(), target)
    assert not re.fullmatch(pipeline.other_targets(), right)
    with pytest.raises(SystemExit, match=f"^error: {target} is another run's, .* the name smoke: ask for {right}$"):
        pipeline.refuse_target(Wildcards(target=target))


def test_without_a_name_targets_of_runs_with_one_are_refused(pipeline: Pipeline) -> None:
    plain = dataclasses.replace(pipeline, config={"preset": "cpu"})
    assert re.fullmatch(plain.other_targets(), "results/summary-smoke.html")
    for target in ("results/summary.html", "results/PushT/eval.json"):
        assert not re.fullmatch(plain.other_targets(), target)
    with pytest.raises(SystemExit, match=r"this run has no name: ask for results/summary\.html$"):
        plain.refuse_target(Wildcards(target="results/summary-smoke.html"))
    with pytest.raises(SystemExit, match=r"results/PushT-smoke is of the run smoke of PushT: give the preset"):
        plain.settings("PushT-smoke")


def test_a_task_has_no_run_of_its_own(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "config").unlink()
    shutil.copytree(Path(__file__).parents[2] / "config", tmp_path / "config")
    with (tmp_path / "config" / "tasks" / "Reach.yaml").open("a") as file:
        file.write("\nrun: own\n")
    plain = dataclasses.replace(pipeline, config={"preset": "cpu"})
    with pytest.raises(SystemExit, match=r"^error: run must not be a task's own setting: it is 'own' for Reach alone"):
        plain.settings("Reach")


def make_job(rule: str, *output: str, log: str = "", benchmark: str = "", **wildcards: str) -> SimpleNamespace:
    return SimpleNamespace(
        rule=SimpleNamespace(name=rule),
        output=output,
        log=[log] if log else [],
        benchmark=benchmark or None,
        wildcards=Wildcards(task="GaussianMixture", **wildcards),
    )


def write_record(folder: str, stage: str, **more: object) -> str:
    path = Path(folder, "run.json")
    path.parent.mkdir(parents=True)
    record = {"schema_version": 1, "task": "GaussianMixture", "stage": stage, "preset": "smoke", **more}
    path.write_text(json.dumps(record))
    return str(path)


def test_each_command_gets_the_settings_that_it_reads(pipeline: Pipeline) -> None:
    config = {
        **pipeline.config,
        "finetune": {"iterations": "3", "denoiser": {"eta": "0.5"}},
        "verdict": {"success_margin": 0.1},
        "set": ["discover.num_modes=4"],
    }
    pipeline = dataclasses.replace(pipeline, config=config)

    def sets(command: str, **wildcards: str) -> list[object]:
        options = pipeline.options(command)(Wildcards(task="GaussianMixture", **wildcards), [], 1)
        return [text for name, text in itertools.pairwise(options) if name == "--set"]

    always = ['methods=["dppo", "dppo-bmd"]', "seeds=[0, 1]"]
    assert sets("pretrain") == always
    assert sets("discover", seed="0") == [*always, "discover.num_modes=4"]
    tuned = 'finetune={"iterations": 3, "denoiser": {"eta": 0.5}}'
    assert sets("finetune", method="dppo", seed="0") == [*always, tuned]
    assert sets("evaluate", policy="dsrl", seed="0") == [*always, 'finetune={"iterations": 3}']
    assert sets("verdict") == [*always, tuned, 'verdict={"success_margin": 0.1}', "discover.num_modes=4"]


def test_text_of_a_file_is_text_and_that_of_the_command_line_may_be_a_number(pipeline: Pipeline) -> None:
    Path("mine.yaml").write_text("finetune: {iterations: '3', ppo: {gamma: 0.5}}")
    given = {"preset": "smoke", "finetune": {"iterations": "3", "ppo": {"gamma": 0.5}}}
    assert dataclasses.replace(pipeline, config=given).settings("GaussianMixture").finetune.iterations == 3
    read = dataclasses.replace(pipeline, config=given, config_files=[Path("mine.yaml")])
    with pytest.raises(SystemExit, match=r"^error: finetune\.iterations must be a number, got '3'"):
        read.settings("GaussianMixture")


def test_what_will_be_replaced_is_announced_with_its_cost(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    modes = write_record("results/GaussianMixture-smoke/modes/seed0", "discover", cpu_seconds=1800)
    tuned = write_record("results/GaussianMixture-smoke/dppo/seed0", "finetune", cpu_seconds=5400)
    page = "results/GaussianMixture-smoke/report.html"
    pipeline.announce([make_job("report", page)])
    assert capsys.readouterr().err == ""  # nothing is there
    pipeline.announce([make_job("discover", modes, seed="0"), make_job("finetune", tuned, method="dppo", seed="0")])
    assert capsys.readouterr().err == (f"will be replaced: {tuned}, {modes}; making it took 2.0 hours of CPU time\n")


def test_before_the_first_job_nobodys_files_and_no_other_presets_are_given_up(pipeline: Pipeline) -> None:
    modes = write_record("results/GaussianMixture-smoke/modes/seed0", "discover", preset="gpu")
    job = make_job("discover", modes, seed="0")
    with pytest.raises(SystemExit, match="was made with preset gpu and would be replaced with preset smoke"):
        pipeline.announce([job])
    dataclasses.replace(pipeline, config={**pipeline.config, "force": "true"}).announce([job])
    tuned = write_record("results/GaussianMixture-smoke/dppo/seed0", "finetune", method="res", seed=0)
    with pytest.raises(SystemExit, match=r"finetune --task GaussianMixture --method dppo --seed 0` did not write it"):
        pipeline.announce([make_job("grid_finetune", tuned, method="dppo", seed="0")])
    page = Path("results/GaussianMixture-smoke/report.html")
    page.write_text("mine")
    with pytest.raises(SystemExit, match=r"^error: .*report\.html would be replaced"):
        pipeline.announce([make_job("report", str(page))])
    dataclasses.replace(pipeline, stored=True).announce([make_job("report", str(page))])


@pytest.mark.parametrize("place", ["log", "benchmark"])
@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("victim"),
        lambda path: path.symlink_to("gone"),
        lambda path: path.hardlink_to("logs/Task/victim"),
        Path.mkdir,
        os.mkfifo,
    ],
)
def test_what_jobs_print_goes_through_no_link(pipeline: Pipeline, place: str, make: Callable[[Path], None]) -> None:
    folder = Path("logs/Task")
    folder.mkdir(parents=True)
    (folder / "victim").write_text("mine")
    (folder / "old").write_text("of an earlier job")
    pipeline.announce([make_job("report", log="logs/Task/old", benchmark="logs/Other/new")])
    make(folder / "taken")
    with pytest.raises(SystemExit, match=r"^error: logs/Task/taken is a link, a second name of a file, or no file"):
        pipeline.announce([make_job("report", **{place: "logs/Task/taken"})])
    dataclasses.replace(pipeline, stored=True).announce([make_job("report", **{place: "logs/Task/taken"})])


def test_a_file_where_snakemake_wants_a_folder_is_named(pipeline: Pipeline) -> None:
    Path("logs").mkdir()
    Path("logs/Task").write_text("mine")
    with pytest.raises(
        SystemExit, match=r"^error: logs/Task is no folder, and logs/Task/x\.log would be written there"
    ):
        pipeline.announce([make_job("report", log="logs/Task/x.log")])
    Path(".snakemake").write_text("mine")
    dataclasses.replace(pipeline, planning=False)
    with pytest.raises(SystemExit, match=r"^error: \.snakemake is no folder"):
        dataclasses.replace(pipeline)


def test_force_is_true_or_false(config_dir: Path) -> None:
    for given, force in (("true", True), ("false", False), (True, True), (None, False)):
        assert read_workflow_config({"force": given}, config_dir=config_dir).force is force
    with pytest.raises(ConfigError, match="force must be true or false, got 'true'"):
        read_workflow_config({"force": "true"}, {"force": "true"}, config_dir=config_dir)  # in quotes in a file
    with pytest.raises(ConfigError, match="force must be true or false, got 'perhaps'"):
        read_workflow_config({"force": "perhaps"}, config_dir=config_dir)
