"""Which stages meet the disturbance: those that fine-tune and evaluate policies, and no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.schema import Disturbance, PolicyConfig, RunConfig
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.discover import discover
from bmd_pipeline.stages.evaluate import curve, evaluate
from bmd_pipeline.stages.finetune import finetune
from bmd_pipeline.stages.pretrain import pretrain
from bmd_pipeline.stages.runtime import check_settings, open_env
from bmd_pipeline.tasks import registry

ROOT = Path(__file__).parents[2]
QUIET = Reporter("quiet")
SMALL = {
    "task": {"env": {"goal_radius": 0.3}},
    "collect": {"num_episodes": 40},
    "pretrain": {"iterations": 400, "batch_size": 128, "policy": {"hidden_sizes": [64, 64]}},
    "discover": {
        "form": "published",
        "num_modes": 2,
        "num_envs": 16,
        "warmup_iterations": 1,
        "heldout_episodes": 16,
        "inference": {"steps_per_iteration": 1},
    },
    "finetune": {
        "iterations": 1,
        "num_envs": 16,
        "snapshot_interval": 1,
        "ppo": {"minibatch_size": 16, "value_warmup": 0},
        "selection": {"interval": 1, "episodes": 16},
    },
    "evaluate": {"episodes": 64, "num_envs": 32},
}
PLAIN, WEAK = "action_gain: 1", "action_gain: 0.1"
"""So weak a robot does not get to a goal in time."""


def configure(disturbance: str) -> RunConfig:
    assignments = [f"task.env.disturbance={{{disturbance}}}"]
    return load_config(
        "GaussianMixture", preset="cpu", overrides=SMALL, assignments=assignments, config_dir=ROOT / "config"
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of all stages' outputs, without a disturbance and with one."""
    folders = {}
    for name, text in (("plain", PLAIN), ("weak", WEAK)):
        config, folder = configure(text), tmp_path_factory.mktemp(name)
        demos, policy, modes, finetuned = (folder / part for part in ("demos.zarr", "policy", "modes", "finetuned"))
        collect(config, output=demos, manifest=folder / "demos.json", num_workers=1, reporter=QUIET)
        pretrain(config, demos=demos, output=policy, reporter=QUIET)
        discover(config, policy=policy, demos=demos, output=modes, seed=0, num_workers=1, reporter=QUIET)
        rest: dict[str, Any] = {"seed": 0, "num_workers": 1, "reporter": QUIET}
        finetune(config, policy=policy, modes=None, output=finetuned, method="dppo", **rest)
        for method, weights in (("pretrained", None), ("dppo", finetuned)):
            output = folder / method / "eval.json"
            evaluate(config, policy=policy, modes=None, finetuned=weights, output=output, method=method, **rest)
        output = folder / "curve.json"
        curve(config, policy=policy, modes=None, finetuned=finetuned, output=output, method="dppo", **rest)
        folders[name] = folder
    return folders


def same(runs: dict[str, Path], name: str) -> bool:
    one, other = ((folder / name).read_bytes() for folder in runs.values())
    return one == other


def test_what_comes_before_fine_tuning_is_made_in_the_demonstrations_world(runs: dict[str, Path]) -> None:
    assert same(runs, "policy/policy.safetensors")
    assert same(runs, "modes/modes.safetensors")
    for stage in ("policy", "modes"):
        one, other = (json.loads((folder / stage / "run.json").read_text()) for folder in runs.values())
        assert one["config_hash"] == other["config_hash"]


def test_fine_tuning_and_evaluation_of_policies_meet_the_disturbance(runs: dict[str, Path]) -> None:
    assert not same(runs, "finetuned/finetuned.safetensors")
    assert not same(runs, "dppo/episodes.parquet")
    plain, weak = (json.loads((folder / "pretrained/eval.json").read_text()) for folder in runs.values())
    assert plain["policies"]["pretrained"]["success_rate"]["mean"] > 0.2
    assert weak["policies"]["pretrained"]["success_rate"]["mean"] == 0.0
    plain, weak = (json.loads((folder / "curve.json").read_text())["points"][0] for folder in runs.values())
    assert plain["success_rate"]["mean"] > weak["success_rate"]["mean"] == 0.0


def test_what_discovery_measured_elsewhere_is_no_measure(runs: dict[str, Path], tmp_path: Path) -> None:
    """The base policy's success in the demonstrations' world is not held against what is fine-tuned in another."""
    policy, modes = (runs["weak"] / name for name in ("policy", "modes"))
    rest: dict[str, Any] = {"method": "dsrl-bmd", "seed": 0, "num_workers": 1, "reporter": QUIET}
    finetune(configure(WEAK), policy=policy, modes=modes, output=tmp_path, **rest)
    record = json.loads((tmp_path / "run.json").read_text())
    assert not any("than the base policy" in warning for warning in record["warnings"])


def test_evaluation_alone_may_meet_another_world(runs: dict[str, Path], tmp_path: Path) -> None:
    """A policy that was trained without a disturbance, tested under one, meets what `task.env.disturbance` would do."""
    plain = configure(PLAIN)
    tested = {"evaluate": plain.evaluate.model_copy(update={"disturbance": Disturbance(action_gain=0.1)})}
    rest: dict[str, Any] = {"modes": None, "finetuned": None, "seed": 0, "num_workers": 1, "reporter": QUIET}
    output, policy = tmp_path / "eval.json", runs["plain"] / "policy"
    evaluate(plain.model_copy(update=tested), policy=policy, output=output, method="pretrained", **rest)
    assert (
        output.with_name("episodes.parquet").read_bytes() == (runs["weak"] / "pretrained/episodes.parquet").read_bytes()
    )
    locked = {"evaluate": plain.evaluate.model_copy(update={"disturbance": Disturbance(locked_action=2)})}
    with pytest.raises(ConfigError, match=r"^evaluate\.disturbance\.locked_action must be < 2 for \w+, got 2$"):
        evaluate(plain.model_copy(update=locked), policy=policy, output=output, method="pretrained", **rest)


def test_settings_of_that_world_are_set_one_by_one() -> None:
    config = load_config(
        "GaussianMixture", assignments=["evaluate.disturbance.obs_noise=0.2"], config_dir=ROOT / "config"
    )
    assert config.evaluate.disturbance == Disturbance(obs_noise=0.2)


def test_a_component_that_the_action_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_settings(configure("locked_action: 1"))
    with pytest.raises(ConfigError, match=r"^task\.env\.disturbance\.locked_action must be < 2 for \w+, got 2$"):
        check_settings(configure("locked_action: 2"))
    monkeypatch.setattr(registry, "make_env", lambda *_, **__: pytest.fail("a simulator starts"))
    task, device = configure("locked_action: 2").task, torch.device("cpu")
    policy = DiffusionPolicy(PolicyConfig(), obs_dim=2, action_dim=2)
    with pytest.raises(ConfigError, match=r"^task\.env\.disturbance\.locked_action must be < 2"):
        open_env(task, policy, 4, disturbed=True, device=device, num_workers=1)
