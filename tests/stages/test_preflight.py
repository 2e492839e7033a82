"""Whether there is room, before a stage begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bmd_pipeline.cli.main import main
from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.rl.ppo import Critic
from bmd_pipeline.stages import runtime
from bmd_pipeline.stages.runtime import Needs, count_critic, estimate_needs, free_disk, free_memory, require_room, tell
from bmd_pipeline.tasks.registry import make_spec

ROOT = Path(__file__).parents[2]
TASK = "GaussianMixture"
STAGE = ["--task", TASK, "--preset", "smoke", "--quiet", "--set", "pretrain.iterations=20"]


def read(*assignments: str) -> RunConfig:
    return load_config(TASK, preset="smoke", assignments=assignments, config_dir=ROOT / "config")


def estimate(stage: str, *assignments: str, method: str | None = None) -> Needs:
    config = read(*assignments)
    return estimate_needs(config, stage, make_spec(TASK, config.task.env), method=method)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            "free_disk",
            "error: collect needs about 1.1 MB of disk for data/GaussianMixture/demos.zarr, 10 kB is free there",
        ),
        (
            "free_memory",
            "error: collect needs about 401.1 MB of memory, 10 kB is available: lower collect.num_episodes, ",
        ),
    ],
)
def test_a_stage_without_room_does_not_begin(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], limit: str, message: str
) -> None:
    monkeypatch.setattr(runtime, limit, lambda *path: 1e4)
    before = sorted(project.rglob("*"))
    assert main(["collect", *STAGE]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert sorted(project.rglob("*")) == before


def test_estimates_cover_what_stages_leave_and_not_much_more(project: Path) -> None:
    assert main(["collect", *STAGE]) == 0
    store = size(project / "data" / TASK / "demos.zarr")
    assert store < estimate("collect").disk < 2 * store
    assert main(["pretrain", *STAGE]) == 0
    weights = (project / "results" / TASK / "policy" / "policy.safetensors").stat().st_size
    assert 8 * weights < estimate("pretrain").disk < 20 * weights  # with its progress, twice


@pytest.mark.parametrize(
    ("stage", "setting", "method"),
    [
        ("collect", "collect.num_episodes=100000", None),
        ("pretrain", "pretrain.policy.hidden_sizes=[4096, 4096]", None),
        ("discover", "discover.hindsight_episodes=100000", None),
        ("finetune", "finetune.num_envs=100000", "dsrl"),
        ("finetune", "pretrain.policy.hidden_sizes=[4096, 4096]", "dppo"),
        ("finetune", "finetune.residual.hidden_sizes=[4096, 4096]", "res"),
        ("finetune", "discover.steering.hidden_sizes=[4096, 4096]", "dsrl-bmd"),
        ("evaluate", "evaluate.episodes=100000", None),
        ("validation", "evaluate.episodes=100000", None),
    ],
)
def test_needs_grow_with_what_they_are_said_to_depend_on(stage: str, setting: str, method: str | None) -> None:
    before, after = estimate(stage, method=method), estimate(stage, setting, method=method)
    assert after.memory > before.memory + 10e6
    assert after.disk > before.disk or stage == "validation" or setting.startswith("finetune.num_envs")
    assert setting.split("=")[0].split(".")[-1] in after.because


def test_plain_methods_need_no_room_for_what_they_never_train() -> None:
    wide = "finetune.residual.hidden_sizes=[4096, 4096]"
    assert estimate("finetune", wide, method="dsrl") == estimate("finetune", method="dsrl")


def test_a_simulator_counts_once_per_worker() -> None:
    config = read()
    spec = make_spec(TASK, config.task.env)
    one, four, native = (
        estimate_needs(config, "finetune", spec, workers=workers, simulator=simulator).memory
        for workers, simulator in ((1, "ManiSkill"), (4, "ManiSkill"), (4, "native"))
    )
    assert native < one < four - 1e9


def test_parameters_of_the_critic_are_those_that_are_made() -> None:
    config = read("discover.num_modes=5")
    spec = make_spec(TASK, config.task.env)
    cond = config.pretrain.policy.n_obs_steps * spec.obs_dim
    critic = Critic(cond, spec.track_dim, 5, 2, (32, 16))
    assert count_critic(config, spec, (32, 16)) == sum(parameter.numel() for parameter in critic.parameters())


def test_the_machine_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = free_memory()
    assert here is None or here > 1e8
    monkeypatch.setattr(runtime, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert free_memory() == 2e6
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() != 2e6
    assert free_disk(tmp_path / "not" / "there") == shutil.disk_usage(tmp_path).free


def test_require_room_names_what_to_lower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "free_memory", lambda: 1e9)
    with pytest.raises(ConfigError, match=r"^finetune needs about .* GB of memory, 1\.0 GB is available: lower f"):
        require_room(read("finetune.num_envs=1000000"), "finetune", tmp_path, method="dsrl")
    monkeypatch.setattr(runtime, "free_disk", lambda path: 5e5)
    with pytest.raises(ArtifactError, match=r"^report needs about 1\.0 MB of disk for .*, 500 kB is free there"):
        require_room(read(), "report", tmp_path / "report.html")
    assert tell(2.34e9) == "2.3 GB"
