"""Base policies of their own: `<Task>-base<k>` is the task with root seed k."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.overrides import base_name, configure_base, split_base
from bmd_pipeline.errors import TaskError

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PushT-base0", ("PushT", 0)),
        ("my-task-base12", ("my-task", 12)),
        ("PushT", ("PushT", None)),
        ("PushT-base", ("PushT-base", None)),
        ("PushT-base01", ("PushT-base01", None)),
        ("PushT-base1-base2", ("PushT-base1-base2", None)),
        ("-base1", ("-base1", None)),
    ],
)
def test_names(name: str, expected: tuple[str, int | None]) -> None:
    assert split_base(name) == expected
    if expected[1] is not None:
        assert base_name(*expected) == name


@pytest.mark.parametrize("task", ["GaussianMixture", "GaussianMixtureShifted"])
def test_a_task_of_that_name_is_the_task_with_that_seed(task: str) -> None:
    """Also with a variant, whose code is that of the task it extends."""
    plain = load_config(task, preset="cpu", config_dir=CONFIG, assignments=("finetune.iterations=7",))
    named = load_config(
        f"{task}-base3", preset="cpu", config_dir=CONFIG, assignments=("finetune.iterations=7", "seed=5")
    )
    assert named.seed == 3
    assert named.task.extends == "GaussianMixture"
    assert named == configure_base(plain, 3)
    assert named.model_copy(update={"task": plain.task, "seed": plain.seed}) == plain


def test_a_file_of_that_name_is_a_task_of_its_own(config_dir: Path) -> None:
    (config_dir / "tasks" / "GaussianMixture-base1.yaml").write_text("extends: GaussianMixture\nseed: 8\n")
    assert load_config("GaussianMixture-base1", config_dir=config_dir).seed == 8


@pytest.mark.parametrize("name", ["Nothing-base1", "GaussianMixture-base01"])
def test_an_unknown_task_stays_unknown(name: str) -> None:
    with pytest.raises(TaskError, match="unknown task"):
        load_config(name, preset="cpu", config_dir=CONFIG)
