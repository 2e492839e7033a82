"""What each stage's settings are, and what a change reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmd_pipeline.config.hashing import STAGES, config_hash, hash_values, stage_hash, stage_slice
from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.schema import RunConfig, Untyped, flatten
from bmd_pipeline.methods import METHODS

CONFIG_DIR = Path(__file__).parents[2] / "config"
STAGE_METHODS = [
    *((stage, None) for stage in STAGES if stage != "finetune"),
    *(("finetune", method) for method in METHODS),
]


def read(*assignments: str) -> RunConfig:
    return load_config("GaussianMixture", preset="cpu", assignments=assignments, config_dir=CONFIG_DIR)


def changed(*assignments: str, form: str = "coded") -> set[str]:
    """Stages whose hash the assignments change."""
    before, after = (read(f"discover.form={form}", *more) for more in ((), assignments))
    return {
        method or stage
        for stage, method in STAGE_METHODS
        if stage_hash(before, stage, method) != stage_hash(after, stage, method)
    }


WITH_MODES = {method for method in METHODS if method.endswith("-bmd")}
REGULARISED = WITH_MODES - {"fbc-bmd"}
AFTER_EVALUATION = {"curve", "compare", "verdict", "grid", "pool", "validation"}
ALL = {"collect", "pretrain", "discover", "evaluate", *METHODS, *AFTER_EVALUATION}


@pytest.mark.parametrize(
    ("assignment", "stages"),
    [
        ("finetune.regulariser.mi_weight=0.7", REGULARISED),
        ("finetune.iterations=3", set(METHODS)),
        ("finetune.denoiser.learning_rate=2e-4", {"dppo", "dppo-bmd"}),
        ("finetune.denoiser.kl_weight=0.1", {"dppo", "dppo-bmd"}),
        ("finetune.denoiser.noise_floor=0.2", {"dppo", "dppo-bmd", "fbc", "fbc-bmd"}),
        ("finetune.cloning.steps=3", {"fbc", "fbc-bmd"}),
        ("finetune.ppo.gamma=0.9", set(METHODS) - {"fbc", "fbc-bmd"}),
        ("finetune.balance_codes=false", WITH_MODES),
        ("finetune.residual.scale=0.1", {"res", "res-bmd"}),
        ("evaluate.tau=0.5", {"evaluate", *AFTER_EVALUATION}),
        ("verdict.success_margin=0.1", {"verdict"}),
        ("compare.min_seeds=3", {"compare", "verdict"}),
        ("grid.axes={discover.num_modes: [2, 4]}", {"grid"}),
        ("discover.num_modes=5", {"discover"}),
        ("discover.form=published", {"discover", *WITH_MODES}),
        ("discover.teaching.steps=3", {"discover"}),
        ("discover.steering.max_noise=1.0", {"dsrl", "dsrl-bmd"}),
        ("discover.warmup_iterations=3", set()),
        ("discover.inference.steps_per_iteration=3", set()),
        ("finetune.ppo.learning_rate=7e-4", {"dsrl", "dsrl-bmd"}),
        ("finetune.ppo.clip_ratio=0.15", {"dsrl", "dsrl-bmd", "res", "res-bmd"}),
        ("finetune.selection.min_obeyed_share=0.5", WITH_MODES),
        ("finetune.regulariser.floor=-1.0", REGULARISED),
        ("finetune.obedience=0.9", REGULARISED),
        ("pretrain.iterations=3", {"pretrain"}),
        ("collect.num_episodes=8", {"collect"}),
        ("seed=3", ALL),
        ("task.env.horizon=30", ALL),
        ("task.env.disturbance.action_delay=1", ALL - {"collect", "pretrain", "discover", "validation"}),
        ("seeds=[5]", {"compare", "verdict", "grid", "pool", "validation"}),
        ("methods=[dsrl]", {"compare", "verdict", "grid", "pool"}),
        ("execution.device=cpu", set()),
        ("execution.threads.finetune=7", set()),
        ("execution.tracker=wandb", set()),
    ],
)
def test_a_setting_reaches_the_stages_that_read_it_and_no_other(assignment: str, stages: set[str]) -> None:
    assert changed(assignment) == stages


def test_settings_of_what_was_imported_decide_nothing() -> None:
    other = read("collect.num_episodes=8")
    assert config_hash(other, ["collect"]) == config_hash(read(), ["collect"]) != config_hash(read())
    trained = read("pretrain.iterations=3")
    assert config_hash(trained, ["collect"]) != config_hash(read(), ["collect"])
    assert config_hash(trained, ["collect", "pretrain"]) == config_hash(read(), ["collect", "pretrain"])


def test_the_same_value_written_differently_changes_nothing(tmp_path: Path) -> None:
    assert changed("finetune.regulariser.mi_weight=5e-1", "task.env.start_std=5e-2") == changed()
    plain = {"finetune": {"ppo": {"gamma": 0.9, "epochs": 2}}}
    shuffled = {"finetune": {"ppo": {"epochs": Untyped("2"), "gamma": Untyped("0.90")}}}  # as of snakemake --config
    hashes = {
        config_hash(load_config("GaussianMixture", preset="cpu", overrides=values, config_dir=CONFIG_DIR))
        for values in (plain, shuffled)
    }
    assert len(hashes) == 1


def test_execution_is_in_no_hash_but_all_else_is() -> None:
    assert config_hash(read("execution.mem_mb=999")) == config_hash(read())
    assert config_hash(read("seeds=[5]")) != config_hash(read())


def test_what_is_made_of_evaluations_does_not_change_them() -> None:
    later = read("verdict.success_margin=0.1", "compare.min_seeds=3", "grid.seeds=[4]")
    assert config_hash(later) == config_hash(read())


@pytest.mark.parametrize(
    ("assignment", "stages"),
    [
        ("discover.teaching.steps=3", set()),
        ("discover.hindsight_episodes=64", set()),
        ("finetune.obedience=0.9", set()),
        ("finetune.regulariser.gamma=0.9", set()),
        ("discover.steering.max_noise=1.0", {"discover", "dsrl", *WITH_MODES}),
        ("finetune.ppo.learning_rate=7e-4", {"discover", "dsrl", *REGULARISED}),
    ],
)
def test_the_published_form_reads_nothing_of_the_coded_one(assignment: str, stages: set[str]) -> None:
    assert changed(assignment, form="published") == stages


def test_discovery_in_the_published_form_goes_by_the_ppo_of_fine_tuning() -> None:
    for change in ("finetune.ppo.gamma=0.9", "finetune.regulariser.floor=-1.0"):
        for form, reached in (("published", True), ("coded", False)):
            before, after = read(f"discover.form={form}"), read(f"discover.form={form}", change)
            assert (stage_hash(before, "discover") != stage_hash(after, "discover")) is reached


def test_slices_are_plain_json() -> None:
    for stage, method in STAGE_METHODS:
        values = stage_slice(read(), stage, method)
        assert json.loads(json.dumps(values)) == values
        assert {"task", "seed", "evaluate" if stage in ("curve", "validation") else stage} <= set(values)


def test_without_a_method_the_fine_tuning_slice_holds_that_of_every_method() -> None:
    config = read()
    everything = flatten(stage_slice(config, "finetune"))
    for method in METHODS:
        assert flatten(stage_slice(config, "finetune", method)).keys() <= everything.keys()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)),
)
def test_hashes_are_equal_exactly_where_values_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert hash_values(one) == hash_values(dict(reversed(one.items())))
    assert (hash_values(one) == hash_values(other)) == (one == other)


def test_physics_on_a_device_is_another_result_of_what_is_played() -> None:
    """What was made on the CPU is no result of the other engine; demonstrations know neither."""
    here, there = (
        load_config("PushT", preset="cpu", assignments=[f"task.physics={name}"], config_dir=CONFIG_DIR)
        for name in ("cpu", "cuda")
    )
    same = {stage for stage in STAGES if stage_hash(here, stage) == stage_hash(there, stage)}
    assert same == {"collect"}
    assert config_hash(here) != config_hash(there)
    assert "physics" not in stage_slice(here, "finetune")["task"]  # hashes from before there was a choice still hold


def test_policies_from_before_there_were_other_kinds_still_count() -> None:
    kinds = {"residual_network", "unet", "ddim_spacing"}
    usual, other = (stage_slice(read(*given), "pretrain")["pretrain"] for given in ((), ("pretrain.policy.unet={}",)))
    assert not kinds & usual["policy"].keys()
    assert "external_policy" not in usual
    assert kinds & other["policy"].keys() == {"unet"}


def test_the_physics_of_a_native_task_is_nobodys_business() -> None:
    assert changed("task.physics=cuda") == set()
    assert config_hash(read("task.physics=cuda")) == config_hash(read())
