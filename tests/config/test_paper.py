"""The preset `paper`: what was published, whatever the task says, and nothing of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.config.load import list_paths, load_config, read_settings
from bmd_pipeline.config.schema import DenoiserConfig, RunConfig, flatten

ROOT = Path(__file__).parents[2]
TASKS = [path.stem for path in (ROOT / "config" / "tasks").glob("*.yaml")]
PPO: dict[str, Any] = {"gamma": 0.99, "gae_lambda": 0.95, "clip_ratio": 0.2, "learning_rate": 3e-4}
NO_PPO: dict[str, Any] = {
    "learning_rate_schedule": "constant",
    "target_kl": 10.0,
    "value_warmup": 0,
    "entropy_weight": 0.0,
}


def of_ppo(values: dict[str, Any]) -> dict[str, Any]:
    return {f"finetune.ppo.{name}": value for name, value in values.items()}


PUBLISHED: dict[str, Any] = {
    "seeds": [0, 1, 2],
    "pretrain.policy.hidden_sizes": [512, 512, 512],
    "pretrain.policy.denoising_steps": 20,
    "pretrain.policy.sampler": "ddim",
    "pretrain.policy.ddim_steps": 2,
    "discover.num_modes": 8,
    "discover.form": "published",
    "discover.steering.hidden_sizes": [256, 256, 256],
    "discover.inference.features": [],
    "discover.inference.hidden_sizes": [256, 256, 256],
    "finetune.residual.learning_rate": 3e-4,
    "evaluate.episodes": 1024,
    "evaluate.tau": 0.8,
    **of_ppo(PPO),
    **of_ppo({"value_learning_rate": 3e-4}),
}
OFF: dict[str, Any] = {
    "pretrain.precision": "float32",
    "pretrain.policy.clip_obs": 1e6,
    "discover.steering.noise_components": 0,
    "discover.steering.max_noise": 10.0,
    "discover.inference.scale": "feature",
    "discover.inference.history_steps": 1,
    "finetune.deterministic": True,
    "finetune.obedience": None,
    "finetune.snapshot_interval": 0,
    **{f"finetune.denoiser.{name}": value for name, value in DenoiserConfig().model_dump().items()},  # DPPO's own
    "finetune.target_entropy": None,
    "finetune.regulariser.inference_steps": None,
    "finetune.regulariser.floor": -100.0,
    "finetune.selection.interval": 1_000_000,
    "finetune.selection.min_obeyed_share": 0.0,
    "evaluate.steering": True,
    **of_ppo(NO_PPO),
}
OURS = {
    "discover.inference.input_noise",
    "discover.inference.steps_per_iteration",
    "finetune.residual.hidden_sizes",
    "finetune.regulariser.mi_weight",
    "finetune.curriculum.start_fraction",
    "finetune.curriculum.iterations",
}
"""Set by the preset where the paper gives no number, or one that doesn't work."""


@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs_as_published_with_nothing_of_ours(task: str) -> None:
    found = flatten(load_config(task, preset="paper", config_dir=ROOT / "config").model_dump(mode="json"))
    wanted = PUBLISHED | OFF
    assert {name: found.get(name, []) for name in wanted} == wanted
    assert 0.0 < found["finetune.curriculum.start_fraction"] < 1.0
    assert found["discover.inference.input_noise"] > 0.0
    assert found["discover.inference.steps_per_iteration"] > 0


@pytest.mark.parametrize(
    ("task", "horizon"), [("Reach", 100), ("Lift", 200), ("Avoid", 300), ("Anymal", 200), ("Kitchen", 280)]
)
def test_horizons_are_the_published_ones(task: str, horizon: int) -> None:
    assert load_config(task, preset="paper", config_dir=ROOT / "config").task.env["horizon"] == horizon


def test_the_preset_wins_over_whatever_a_task_says(tmp_path: Path) -> None:
    for folder in ("presets", "tasks"):
        (tmp_path / folder).mkdir()
    for name in ("config.yaml", "presets/paper.yaml"):
        (tmp_path / name).write_text((ROOT / "config" / name).read_text())
    (tmp_path / "tasks" / "PushT.yaml").write_text(
        "pretrain: {policy: {clip_obs: 2, hidden_sizes: [8]}}\ndiscover: {form: coded}\n"
        "finetune: {deterministic: false, ppo: {value_warmup: 3, target_kl: 0.01}, target_entropy: 0.5,\n"
        "  obedience: 0.9}\n"
    )
    found = flatten(load_config("PushT", preset="paper", config_dir=tmp_path).model_dump(mode="json"))
    assert {name: found.get(name, []) for name in PUBLISHED | OFF} == PUBLISHED | OFF


def test_the_preset_sets_exactly_what_is_listed_here() -> None:
    """Nothing that isn't listed above; and its head names the most important of what stays the task's."""
    text = (ROOT / "config" / "presets" / "paper.yaml").read_text()
    assert set(flatten(read_settings(ROOT / "config" / "presets" / "paper.yaml"))) == {*PUBLISHED, *OFF, *OURS}
    assert {*PUBLISHED, *OFF, *OURS} <= set(list_paths(RunConfig))
    for name in ("num_envs", "finetune.iterations", "discover.warmup_iterations", "ppo.epochs", "ppo.minibatch_size"):
        assert name in text.split("seeds:")[0]
