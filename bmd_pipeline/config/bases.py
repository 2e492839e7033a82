"""Base policies of their own: the name `<Task>-base<k>` is the task with root seed k.

Fine-tuning seeds share one base policy, so they say nothing about another one. Under such a name a task has
demonstrations, a policy, modes and results of its own, and everything that can be made for a task can be made for it.
"""

from __future__ import annotations

import re

from bmd_pipeline.config.run import RunConfig

_NAME = re.compile(r"(?P<task>(?:(?!-base\d).)+)-base(?P<seed>0|[1-9]\d*)")


def base_name(task: str, seed: int) -> str:
    """Name of the task with this root seed."""
    return f"{task}-base{seed}"


def split_base(name: str) -> tuple[str, int | None]:
    """The task and the root seed of such a name; of another one, itself and None."""
    found = _NAME.fullmatch(name)
    return (found["task"], int(found["seed"])) if found else (name, None)


def configure_base(config: RunConfig, seed: int) -> RunConfig:
    """The run under such a name, as `load_config` makes it."""
    task = config.task
    changes = {"name": base_name(task.name, seed), "extends": task.extends or task.name}
    return config.model_copy(update={"task": task.model_copy(update=changes), "seed": seed})
