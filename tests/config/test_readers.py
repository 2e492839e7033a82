"""Settings without an effect on a command."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from bmd_pipeline.config.hashing import Stage
from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.readers import leave_out, list_unread, require_read
from bmd_pipeline.errors import ConfigError

CONFIG_DIR = Path(__file__).parents[2] / "config"


def find_unread(command: str, method: str | None, *assignments: str) -> list[str]:
    def load(given: list[str] | tuple[str, ...]) -> object:
        return load_config("GaussianMixture", preset="cpu", assignments=given, config_dir=CONFIG_DIR)

    config = load(assignments)
    return list_unread(config, command, method, assignments, load)


@pytest.mark.parametrize(
    ("command", "method", "setting"),
    [
        ("collect", None, "pretrain.iterations=9"),
        ("import_demos", None, "collect.num_episodes=9"),
        ("import_policy", None, "pretrain.iterations=9"),
        ("pretrain", None, "finetune.iterations=99"),
        ("pretrain", None, "pretrain={iterations: 9}"),
        ("discover", None, "discover.steering.max_noise=2.0"),
        ("finetune", "dppo", "discover.num_modes=3"),
        ("finetune", "dppo", "discover.steering.max_noise=2.0"),
        ("finetune", "dsrl", "discover.num_modes=3"),
        ("finetune", "dppo-bmd", "evaluate.episodes=99"),
        ("finetune", "res-bmd", "finetune.denoiser.eta=0.5"),
        ("evaluate", "pretrained", "finetune.iterations=99"),
        ("evaluate", "pretrained", "discover.num_modes=3"),
        ("evaluate", "taught", "finetune.iterations=99"),
        ("evaluate", "dsrl", "finetune.denoiser.eta=0.5"),
        ("evaluate", "dppo-bmd", "verdict.success_margin=0.1"),
        ("play", None, "evaluate.tau=0.5"),
        ("validation", None, "finetune.iterations=99"),
        ("compare", None, "verdict.success_margin=0.1"),
        ("summarise", None, "finetune.cloning.steps=3"),
    ],
)
def test_what_no_stage_of_the_chain_reads_has_no_effect(command: str, method: str | None, setting: str) -> None:
    read = setting.startswith("pretrain=")
    assert find_unread(command, method, setting) == ([] if read else [setting.partition("=")[0]])


@pytest.mark.parametrize(
    ("command", "method", "setting"),
    [
        ("collect", None, "task.env.disturbance.action_delay=1"),
        ("pretrain", None, "collect.num_episodes=99"),
        ("pretrain", None, "pretrain.log_interval=7"),
        ("pretrain", None, "pretrain.policy.unet=null"),
        ("discover", None, "modes={}"),
        ("finetune", "dsrl", "discover.steering.max_noise=2.0"),
        ("finetune", "dppo-bmd", "discover.num_modes=3"),
        ("evaluate", "dppo", "finetune.iterations=99"),
        ("evaluate", "pretrained", "execution.device=cpu"),
        ("curve", "dppo", "finetune.snapshot_interval=9"),
        ("export", "taught", "discover.num_modes=3"),
        ("compare", None, "methods=[res]"),
        ("verdict", None, "verdict.success_margin=0.1"),
        ("grid", None, "grid.axes={discover.form: [coded, published]}"),
        ("pool", None, "pool.bases=[0, 1]"),
        ("report", None, "compare.min_seeds=3"),
        ("finetune", "dpo", "discover.num_modes=3"),  # no such method: another message says so
    ],
)
def test_what_a_stage_of_the_chain_reads_is_taken(command: str, method: str | None, setting: str) -> None:
    assert find_unread(command, method, setting) == []


def test_a_grid_reads_what_any_of_its_cells_reads() -> None:
    steering = "discover.steering.max_noise=2.0"
    coded, both = (
        f"grid.axes={axes}" for axes in ("{discover.num_modes: [2, 4]}", "{discover.form: [coded, published]}")
    )
    assert find_unread("grid", None, coded, steering) == ["discover.steering.max_noise"]
    assert find_unread("grid", None, both, steering) == []


def test_what_others_are_not_valid_without_is_taken() -> None:
    needed = ("discover.num_modes=600", "discover.num_envs=600", "finetune.num_envs=600")
    assert find_unread("discover", None, *needed, "finetune.cloning.steps=3") == ["finetune.cloning.steps"]
    assert find_unread("discover", None, "finetune.num_envs=600") == ["finetune.num_envs"]


def test_of_a_group_the_rest_is_left() -> None:
    text = "finetune={iterations: 3, ppo: {gamma: 0.5}, denoiser: {eta: 0.5}}"
    assert leave_out([text, "seed=1"], ["finetune.denoiser.eta"]) == [
        'finetune={"iterations": 3, "ppo": {"gamma": 0.5}}',
        "seed=1",
    ]
    assert leave_out([text], ["finetune.iterations", "finetune.ppo.gamma", "finetune.denoiser.eta"]) == []


@pytest.mark.parametrize(
    ("imported", "setting", "reason"),
    [
        (("collect",), "collect.num_episodes=9", "the demonstrations were imported, and no setting of `collect`"),
        (("collect", "pretrain"), "collect.num_episodes=9", "the policy was imported, and no setting of `collect`"),
        (("collect", "pretrain"), "pretrain.policy.horizon=8", "the policy was imported, and no setting of `pretrain`"),
    ],
)
@pytest.mark.parametrize(
    ("command", "method"),
    [("discover", None), ("finetune", "dppo"), ("evaluate", "taught"), ("play", "dsrl"), ("compare", None)],
)
def test_what_was_imported_was_made_by_no_setting(
    command: str, method: str | None, imported: tuple[Stage, ...], setting: str, reason: str
) -> None:
    config = load_config("GaussianMixture", preset="cpu", assignments=[setting], config_dir=CONFIG_DIR)
    with pytest.raises(ConfigError, match=f"has no effect on .*: {reason} made"):
        require_read(config, command, method, [setting], lambda given: None, imported)
    # an expert plays by them all the same, and a policy of one's own demonstrations is trained
    assert list_unread(config, "play", "expert", ["collect.num_episodes=9"], lambda given: None, imported) == []
    assert list_unread(config, "pretrain", None, ["pretrain.iterations=9"], lambda given: None, ("collect",)) == []


@pytest.mark.parametrize(
    ("command", "method", "setting", "message"),
    [
        ("import_demos", None, "finetune.iterations=3", r"no effect on `import-demos`: `finetune` reads it; leave it"),
        ("evaluate", "dsrl", "finetune.residual.scale=0.1", r"--method dsrl`: `finetune` reads it for res, res-bmd;"),
        ("discover", None, "discover.warmup_iterations=3", r"nothing reads it with discover\.form=coded"),
        ("collect", None, "evaluate.tau=0.5", r"`evaluate` reads it"),
    ],
)
def test_the_refusal_says_who_reads_it(command: str, method: str | None, setting: str, message: str) -> None:
    load = functools.partial(load_config, "GaussianMixture", preset="cpu", config_dir=CONFIG_DIR)
    with pytest.raises(ConfigError, match=message) as caught:
        require_read(load(assignments=[setting]), command, method, [setting], lambda given: load(assignments=given))
    assert "\n" not in str(caught.value)
