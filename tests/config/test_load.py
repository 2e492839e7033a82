"""From files, presets and the command line to a validated config."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bmd_pipeline.config import load
from bmd_pipeline.config.hashing import config_hash
from bmd_pipeline.config.load import (
    AUTO_GPU,
    find_run_name,
    has_cuda_device,
    list_configured,
    list_presets,
    load_config,
    parse_assignment,
    read_settings,
    resolve_preset,
)
from bmd_pipeline.config.schema import Disturbance, FinetuneConfig, Untyped
from bmd_pipeline.errors import BMDError, ConfigError, TaskError
from bmd_pipeline.tasks.registry import get_entry

ROOT = Path(__file__).parents[2]


def test_each_layer_lies_over_the_one_before(config_dir: Path) -> None:
    def read(**arguments: Any) -> tuple[int, int, int]:
        config = load_config("GaussianMixture", config_dir=config_dir, **arguments)
        return config.finetune.iterations, config.finetune.num_envs, config.evaluate.episodes

    assert read() == (10, 20, 1024)  # config.yaml, tasks/, default
    assert read(preset="gpu") == (10, 4000, 1024)  # presets/ over tasks/
    assert read(preset="smoke") == (2, 4, 24)  # the task's own part of the preset over presets/
    assert read(preset="smoke", overrides={"evaluate": {"episodes": 32}}) == (2, 4, 32)
    assert read(preset="smoke", overrides={"evaluate": {"episodes": 32}}, assignments=["evaluate.episodes=40"]) == (
        2,
        4,
        40,
    )


def test_overrides_may_choose_the_preset_but_an_argument_wins(config_dir: Path) -> None:
    overrides = {"preset": "smoke"}
    assert load_config("GaussianMixture", overrides=overrides, config_dir=config_dir).finetune.num_envs == 4
    config = load_config("GaussianMixture", preset="gpu", overrides=overrides, config_dir=config_dir)
    assert config.finetune.num_envs == 4000


def test_a_run_is_named_by_its_settings_and_a_preset_may_do_so(config_dir: Path) -> None:
    (config_dir / "presets" / "smoke.yaml").write_text("run: trial\nfinetune: {iterations: 2}")

    def name(preset: str, *assignments: str, **overrides: Any) -> str:
        run = load_config(
            "GaussianMixture", preset=preset, overrides=overrides, assignments=assignments, config_dir=config_dir
        ).run
        assert find_run_name(preset, overrides, assignments, config_dir=config_dir) == run
        return run

    assert (name("cpu"), name("smoke"), name("smoke", run="mine"), name("smoke", 'run=""')) == ("", "trial", "mine", "")
    assert (name("cpu", "run=yours", run="mine"), name(AUTO_GPU)) == ("yours", "")


@pytest.mark.parametrize("name", ["base0", "a-b", "../x", "a b", "x" * 33, "[a]", "3"])
def test_a_runs_name_is_part_of_a_folders(config_dir: Path, name: str) -> None:
    for read in (
        lambda: load_config("GaussianMixture", assignments=[f"run={name}"], config_dir=config_dir),
        lambda: find_run_name("cpu", {}, [f"run={name}"], config_dir=config_dir),
    ):
        with pytest.raises(ConfigError, match=r"^run must"):
            read()


def test_a_run_does_not_take_the_folder_of_another_task(config_dir: Path) -> None:
    (config_dir / "tasks" / "Shifted-mine.yaml").write_text("extends: GaussianMixture")
    assert load_config("Shifted-mine", config_dir=config_dir).task.name == "Shifted-mine"
    with pytest.raises(ConfigError, match=r"^run must not be mine: results/Shifted-mine is .* \(--set run=mine\)$"):
        load_config("Shifted", assignments=["run=mine"], config_dir=config_dir)


def test_preset_and_name_of_a_run_are_known_and_decide_no_result(config_dir: Path) -> None:
    plain, named = (
        load_config("GaussianMixture", preset="cpu", assignments=given, config_dir=config_dir)
        for given in ([], ["run=mine"])
    )
    assert (plain.preset, named.run) == ("cpu", "mine")
    assert config_hash(plain) == config_hash(named) == config_hash(named.model_copy(update={"preset": "gpu"}))


def test_auto_takes_gpu_only_where_a_device_is_visible(config_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for found, preset in ((True, AUTO_GPU), (False, "cpu")):
        monkeypatch.setattr(load, "has_cuda_device", lambda found=found: found)
        assert resolve_preset("auto", config_dir=config_dir) == preset
    monkeypatch.undo()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not has_cuda_device()


def test_the_tasks_own_settings_are_filled_in(config_dir: Path) -> None:
    env = load_config("GaussianMixture", assignments=["task.env.horizon=7"], config_dir=config_dir).task.env
    assert env["horizon"] == 7
    assert env["reward"] == "equal"
    assert env["disturbance"] == Disturbance().model_dump()


def test_a_variant_shares_code_and_settings_under_its_own_name(config_dir: Path) -> None:
    config = load_config("Shifted", preset="smoke", config_dir=config_dir)
    assert config.task.name == "Shifted"
    assert config.task.env["reward"] == "shifted"
    assert config.evaluate.episodes == 24  # from the presets of the task that it extends
    assert config.seed == 9
    assert get_entry("Shifted").package == get_entry("GaussianMixture").package


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("extends: Nowhere", TaskError, "unknown task 'Nowhere'"),
        ("extends: Shifted", ConfigError, r"but Shifted is itself a variant"),
        ("extends: ../x", ConfigError, "extends must be the name of a task"),
        ("extends: [a]", ConfigError, "extends must be the name of a task"),
    ],
)
def test_bad_variants_are_refused(config_dir: Path, text: str, error: type[BMDError], message: str) -> None:
    (config_dir / "tasks" / "Other.yaml").write_text(text)
    with pytest.raises(error, match=message):
        load_config("Other", config_dir=config_dir)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("finetune.ppo.gamma=2", r"^finetune\.ppo\.gamma must be <= 1\.0, got 2 \(--set finetune\.ppo\.gamma=2\)$"),
        ("finetune.ppo.gamma=0", r"^finetune\.ppo\.gamma must be > 0\.0, got 0 "),
        ("evaluate.episodes=3", r"^evaluate\.episodes must be >= 8, got 3 "),
        ("evaluate.confidence=1", r"^evaluate\.confidence must be < 1\.0, got 1 "),
        ("finetune.ppo.gamma=.nan", r"^finetune\.ppo\.gamma must be a finite number, got nan"),
        ("finetune.ppo.gamma=high", r"^finetune\.ppo\.gamma must be a number, got 'high'"),
        ("finetune.iterations=1.5", r"^finetune\.iterations must be a whole number, got 1\.5"),
        ("finetune.iterations=true", r"^finetune\.iterations must be a number, got True \(--set"),
        ("seeds=[0, true]", r"^seeds must be a list of numbers, got \[0, True\]"),
        ("task.env.disturbance.action_gain=true", r"^task\.env\.disturbance\.action_gain must be a number, got True"),
        ("preset=smoke", r"^unknown setting preset; `--preset` names it"),
        ("tasks=[PushT]", r"^unknown setting tasks; the workflow alone reads it"),
        ("finetune=3", r"^finetune must be a group of settings, got 3"),
        ("pretrain.policy=", r"^pretrain\.policy must be a group of settings, got nothing"),
        ("seeds=[0, x]", r"^seeds\[1\] must be a whole number, got 'x'"),
        ("seeds=5", r"^seeds must be a list, got 5"),
        ("seeds=[]", r"^seeds must have at least 1 entry, got \[\]"),
        ("discover.form=best", r"^discover\.form must be 'coded' or 'published', got 'best'"),
        ("finetune.ppo.gama=1", r"^unknown setting finetune\.ppo\.gama; did you mean 'gamma'\?"),
        ("mi_weight=1", r"^unknown setting mi_weight; did you mean 'finetune\.regulariser\.mi_weight'\?"),
        ("task.env.horizn=1", r"^unknown setting task\.env\.horizn; did you mean 'horizon'\? \(--set"),
        ("task.env.horizon=0", r"^task\.env\.horizon must be >= 1, got 0 \(--set"),
        (
            "task.env.disturbance.action_delay=-1",
            r"^task\.env\.disturbance\.action_delay must be >= 0, got -1 \(--set task\.env\.dist",
        ),
        ("task.env.disturbance.gain=2", r"^unknown setting task\.env\.disturbance\.gain; did you mean 'action_gain'\?"),
        ("task.env.gain=2", r"^unknown setting task\.env\.gain; "),
        ("task.env.disturbance=3", r"^task\.env\.disturbance must be a group of settings, got 3"),
        (
            "task.env.disturbance.action_noise=-1",
            r"^task\.env\.disturbance\.action_noise must be >= 0\.0, got -1 \(--set",
        ),
        ("pretrain.policy.n_action_steps=99", r"^pretrain\.policy\.n_action_steps must be <= horizon \(8\), got 99"),
        ("methods=[dsrl, sac]", r"^methods\[1\]: unknown method 'sac'; known: dppo, .* \(--set"),
        ("methods=[dsrl, dsrl]", r"^methods must not repeat, got \['dsrl', 'dsrl'\] "),
        ("seeds=[-1, 0]", r"^seeds\[0\] must be >= 0, got -1 \(--set"),
        ("gird.axes={}", r"^unknown setting gird; did you mean 'grid'\?"),
        (
            "grid.axes.finetune.regulariser.mi_weight=[-1]",
            r"^grid\.axes\.finetune\.regulariser\.mi_weight: not -1: .*set",
        ),
        (
            "grid.axes.finetune.iterations=[2, .nan]",
            r"^grid\.axes\.finetune\.iterations\[1\] must be a finite number, text, true, false or null, got nan ",
        ),
        ("grid.axes.finetune.iterations=[[1]]", r"^grid\..*\[0\] must be a finite number, .* got \[1\] \(--set"),
        ("pretrain.policy.ddim_steps=21", r"^pretrain\.policy\.ddim_steps must be <= denoising_steps \(20\), got 21"),
        ("discover.num_modes=1", r"^discover\.num_modes must be >= 2, got 1"),
        ("discover.num_modes=21", r"^discover\.num_modes must be <= finetune\.num_envs \(20\), got 21"),
        ("discover={num_modes: 16, num_envs: 8}", r"^discover\.num_modes must be <= num_envs \(8\), got 16"),
        ("finetune.ppo.value_warmup=10", r"^finetune\.ppo\.value_warmup must be < iterations \(10\), .* got 10"),
        (
            "finetune.ppo.minibatch_size=121",
            r"^finetune\.ppo\.minibatch_size must be <= a rollout "
            r"\(20 environments times 6 decisions = 120\), got 121 \(--set finetune",
        ),
        ("pretrain.policy.hidden_sizes=[8, 0]", r"^pretrain\.policy\.hidden_sizes\[1\] must be >= 1, got 0 \(--set"),
        ("discover.teaching.strengths=[0]", r"^discover\.teaching\.strengths\[0\] must be > 0\.0, got 0"),
        ("discover.teaching.strengths=[]", r"^discover\.teaching\.strengths must have at least 1 entry, got \[\]"),
        ("task.plugins=['os; x']", r"^task\.plugins\[0\] must match "),
        ("seed=" + "9" * 5000, r"^--set seed=9+\.\.\.: not YAML: Exceeds the limit"),
        ("seed=" + "[" * 2000, r"^--set seed=\[+\.\.\.: not YAML: nested too deeply"),
        (
            "task.env={a: &x [1, *x]}",
            r"^--set task\.env=.*: a reference \(\*name\) leads to what it is part of",
        ),
        ("task.name=PushT", r"^task\.name must be GaussianMixture, got PushT \(--set task\.name=PushT\)"),
        ("task.plugins=[no_such_module]", r"^task\.plugins: 'no_such_module' can't be imported"),
        ("presets.smoke.seed=1", r"^unknown setting presets"),
    ],
)
def test_bad_values_say_what_where_and_the_limit_in_one_line(config_dir: Path, assignment: str, message: str) -> None:
    with pytest.raises(BMDError, match=message) as caught:
        load_config("GaussianMixture", assignments=[assignment], config_dir=config_dir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["010", "3_0", " 3", "٣", "nan", True])
@pytest.mark.parametrize("kind", [str, Untyped])
def test_only_what_is_written_as_a_number_is_one(config_dir: Path, text: object, kind: type[str]) -> None:
    text = kind(text) if isinstance(text, str) else text
    load = functools.partial(load_config, "GaussianMixture", config_dir=config_dir)
    with pytest.raises(ConfigError, match=r"^seed must be a number, got .* \(--configfile or --config\)$"):
        load(overrides={"seed": text})
    with pytest.raises(ConfigError, match=r"^seeds must be a list of numbers, got "):
        load(overrides={"seeds": [Untyped("0"), text]})
    with pytest.raises(ConfigError, match=r"^evaluate\.tau must be a number, got "):
        load(overrides={"evaluate": {"tau": text}})
    with pytest.raises(ConfigError, match=r"^grid\.axes"):
        load(overrides={"grid": {"axes": {"finetune.iterations": [text]}}})


def test_snakemakes_text_may_be_a_number_or_a_truth(config_dir: Path) -> None:
    values = {
        "seeds": [Untyped("0"), Untyped("30")],
        "evaluate": {"tau": Untyped("5e-1")},
        "finetune": {"deterministic": Untyped("false")},
        "task": {"env": {"horizon": Untyped("30")}},
    }
    config = load_config("GaussianMixture", overrides=values, config_dir=config_dir)
    assert (config.seeds, config.evaluate.tau, config.finetune.deterministic) == ((0, 30), 0.5, False)
    assert config.task.env["horizon"] == 30


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed='3'", r"^seed must be a number, got '3'"),
        ("seeds=[0, '3']", r"^seeds must be a list of numbers, got "),
        ("finetune.iterations='2.0'", r"^finetune\.iterations must be a number, got '2\.0'"),
        ("finetune.obedience='0.5'", r"^finetune\.obedience must be a number"),
        ("finetune.deterministic='no'", r"^finetune\.deterministic must be true or false, got 'no'"),
        ("finetune.deterministic='true'", r"^finetune\.deterministic must be true or false, got 'true'"),
        ("finetune.deterministic=0", r"^finetune\.deterministic must be true or false, got 0"),
        ("task.env.horizon='30'", r"^task\.env\.horizon must be a number, got '30'"),
        ("modes.merge=[['0', 1]]", r"^modes\.merge must be a list of numbers"),
        ("grid.axes={finetune.iterations: ['3']}", r"^grid\.axes\.finetune\.iterations: not 3: .* must be a number"),
    ],
)
def test_what_stands_in_quotes_is_text(config_dir: Path, assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("GaussianMixture", assignments=[assignment], config_dir=config_dir)
    path = config_dir / "mine.yaml"
    path.write_text(json.dumps(dict(parse_assignment(assignment).values)))
    with pytest.raises(ConfigError, match=rf"{message}.*mine\.yaml:1\)$"):
        load_config("GaussianMixture", overrides=read_settings(path), overrides_path=path, config_dir=config_dir)


def test_a_base_policys_number_without_end_is_no_number(config_dir: Path) -> None:
    with pytest.raises(TaskError, match="a task's name is letters"):
        load_config("GaussianMixture-base" + "9" * 5000, config_dir=config_dir)


def test_errors_name_the_file_that_a_value_came_from(config_dir: Path) -> None:
    path = config_dir / "tasks" / "GaussianMixture.yaml"
    path.write_text("# mine\nfinetune:\n  ppo: {gamma: 2.0}\n")
    with pytest.raises(ConfigError) as caught:
        load_config("GaussianMixture", config_dir=config_dir)
    assert str(caught.value) == f"finetune.ppo.gamma must be <= 1.0, got 2.0 ({path}:3)"
    path.write_text("presets:\n  smoke:\n    finetune:\n      ppo:\n        gamma: 2.0\n")
    with pytest.raises(ConfigError) as caught:
        load_config("GaussianMixture", preset="smoke", config_dir=config_dir)
    assert str(caught.value).endswith(f"({path}:5)")
    path.write_text("seeds: [3,\n  4,\n  x]\nsed: 1\n")
    with pytest.raises(ConfigError, match=rf"^unknown setting sed; did you mean 'seed'\? .*\({path}:4\)$"):
        load_config("GaussianMixture", config_dir=config_dir)
    path.write_text("seeds: [3,\n  4,\n  x]\n")
    with pytest.raises(ConfigError, match=rf"^seeds\[2\] must be a whole number, got 'x' \({path}:3\)$"):
        load_config("GaussianMixture", config_dir=config_dir)


def test_unknown_names_are_answered_with_the_nearest(config_dir: Path) -> None:
    with pytest.raises(TaskError, match=r"unknown task 'GausianMixture'; did you mean 'GaussianMixture'\?"):
        load_config("GausianMixture", config_dir=config_dir)
    with pytest.raises(ConfigError, match=r"unknown preset 'smok'; did you mean 'smoke'\?"):
        load_config("GaussianMixture", preset="smok", config_dir=config_dir)
    (config_dir / "tasks" / "GaussianMixture.yaml").write_text("presets: {smok: {}}")
    with pytest.raises(ConfigError, match=r"unknown preset presets\.smok .*did you mean 'smoke'\?"):
        load_config("GaussianMixture", config_dir=config_dir)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "x; touch pwned", "", "-x", "a.b"])
def test_names_that_are_no_names_never_become_paths(config_dir: Path, name: str) -> None:
    with pytest.raises(TaskError, match="a task's name is letters"):
        load_config(name, config_dir=config_dir)


def test_what_the_current_folder_lacks_comes_with_the_package(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"other/config\.yaml does not exist"):
        load_config("GaussianMixture", config_dir=config_dir / "other")  # a folder that was asked for has to have it
    monkeypatch.chdir(config_dir.parent)
    assert load_config("GaussianMixture").finetune.num_envs == 20
    (config_dir / "tasks" / "GaussianMixture.yaml").unlink()
    packaged = load_config("GaussianMixture", preset="cpu", config_dir=ROOT / "config")
    assert load_config("GaussianMixture").pretrain == packaged.pretrain
    assert load_config("GaussianMixture").finetune.iterations == 10  # config.yaml is the current folder's
    assert {"Shifted", "GaussianMixture", "PushT"} <= set(list_configured())
    assert list_presets() == ["cpu", "gpu", "paper", "smoke"]


def test_configs_are_frozen(config_dir: Path) -> None:
    config = load_config("GaussianMixture", config_dir=config_dir)
    with pytest.raises(ValidationError):
        config.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("task", [path.stem for path in (ROOT / "config" / "tasks").glob("*.yaml")])
@pytest.mark.parametrize("preset", [*list_presets(ROOT / "config"), "auto-gpu"])
def test_the_settings_that_we_ship_are_sound(task: str, preset: str) -> None:
    if task in ("Kitchen", "KitchenLate") and preset == "gpu":
        message = r"^task\.physics must be cpu for Kitchen\w*: MuJoCo runs on no device, .* \(.*presets/gpu\.yaml:5\)$"
        with pytest.raises(ConfigError, match=message):
            load_config(task, preset=preset, config_dir=ROOT / "config")
        return
    assert load_config(task, preset=preset, config_dir=ROOT / "config").task.name == task


@pytest.mark.parametrize("task", [path.stem for path in (ROOT / "config" / "tasks").glob("*.yaml")])
def test_auto_moves_native_tasks_to_a_device_and_leaves_simulators_where_they_are_tried(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "has_cuda_device", lambda: True)
    found = load_config(task, preset="auto", config_dir=ROOT / "config")
    native = get_entry(task).simulator == "native"
    assert found == load_config(task, preset="gpu" if native else "cpu", config_dir=ROOT / "config")
    assert found.task.physics == "cpu"
    assert (found.finetune.num_envs == 4096) == native


def test_auto_reads_the_simulator_of_plug_ins_and_variants_wherever_they_are_named(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "has_cuda_device", lambda: True)
    assert load_config("Shifted", preset="auto", config_dir=config_dir).finetune.num_envs == 4000
    assert load_config("PushT", preset="auto", config_dir=config_dir).finetune.num_envs == 10
    with pytest.raises(ConfigError, match=r"^unknown setting task\.nme"):
        load_config("Shifted", preset="auto", assignments=["task.nme=1"], config_dir=config_dir)


@pytest.mark.parametrize("task", [path.stem for path in (ROOT / "config" / "tasks").glob("*.yaml")])
def test_many_environments_take_larger_minibatches_instead_of_many_more_steps(task: str) -> None:
    if task in ("Kitchen", "KitchenLate"):
        return
    many, few = (load_config(task, preset=preset, config_dir=ROOT / "config") for preset in ("gpu", "cpu"))
    assert (many.execution.mem_mb, many.execution.runtime_minutes) == (None, None)  # stages ask for what they need
    assert many.task.physics == ("cpu" if get_entry(task).simulator == "native" else "cuda")

    def count(stage: FinetuneConfig) -> float:
        return stage.num_envs * stage.ppo.epochs / stage.ppo.minibatch_size

    assert many.finetune.num_envs > few.finetune.num_envs
    assert count(many.finetune) <= 2 * count(few.finetune)


def test_physics_on_a_device_needs_one_and_a_simulator_that_has_it(config_dir: Path) -> None:
    def read(task: str, *assignments: str) -> str:
        return load_config(task, assignments=["task.physics=cuda", *assignments], config_dir=config_dir).task.physics

    assert read("GaussianMixture") == "cpu"  # nothing to choose
    assert read("PushT") == "cuda"
    with pytest.raises(ConfigError, match=r"^task\.physics must be cpu with execution\.device=cpu; got cuda \(--set"):
        read("PushT", "execution.device=cpu")
    with pytest.raises(ConfigError, match=r"^task\.physics must be cpu for Kitchen"):
        read("Kitchen")


def test_settings_load_without_torch() -> None:
    code = (
        "import sys; from bmd_pipeline.config.load import load_config; import bmd_pipeline.config.hashing;"
        "load_config('PushT', preset='cpu'); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
