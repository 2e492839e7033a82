"""Does a task keep the contract? For authors of tasks, and for the tests of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bmd_pipeline.tasks import checks
from bmd_pipeline.tasks.registry import MissingExpertError, load_labellings, make_env, make_expert, make_spec


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: what was checked.
        passed: whether the task does it right.
        detail: the numbers if it passed, the reason if it did not.
        skipped: whether there was nothing to check, which is no failure; the detail says what goes without.
    """

    name: str
    passed: bool
    detail: str
    skipped: bool = False


def check_task(
    name: str,
    env_values: dict[str, Any],
    *,
    num_envs: int = 4,
    seeds: tuple[int, int] = (0, 1),
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    expert_episodes: int = 3,
) -> list[CheckResult]:
    """Runs every check of the task contract.

    Args:
        name: registered task.
        env_values: its `env` settings.
        num_envs: environments to step together.
        seeds: two different ones.
        device: where the task's tensors must live.
        num_workers: simulator processes.
        expert_episodes: demonstrations asked for per behaviour.

    Returns:
        One result per check, in a fixed order. A broken task is a result, not an exception.

    Raises:
        TaskError: the task is unknown or its simulator isn't installed.
        ConfigError: a setting of the task is wrong.
    """
    spec = make_spec(name, env_values)
    frozen, renewing = (
        make_env(name, env_values, num_envs, device=device, num_workers=num_workers, auto_reset=auto_reset)
        for auto_reset in (False, True)
    )
    bench = checks.Bench(spec, frozen, renewing, torch.device(device), *seeds)
    battery: dict[str, Callable[[], str]] = {
        "spec is consistent": lambda: checks.check_spec(bench),
        "shapes, types, devices and finite values": lambda: checks.check_tensors(bench),
        "same seed, same trajectory": lambda: checks.check_determinism(bench),
        "different seeds differ": lambda: checks.check_seeds_differ(bench),
        "actions are clipped to [-1, 1]": lambda: checks.check_clipping(bench),
        "a chunk equals its single steps": lambda: checks.check_chunk(bench),
        "time limit at the horizon": lambda: checks.check_time_limit(bench),
        "ended episodes stay frozen": lambda: checks.check_freezing(bench),
        "automatic reset keeps the final observation": lambda: checks.check_auto_reset(bench),
        "mode weights are distributions": lambda: checks.check_labellings(bench, load_labellings(name)),
        "expert succeeds in every behaviour": lambda: checks.check_expert(
            make_expert(name, env_values), bench, expert_episodes
        ),
    }
    try:
        return [_run(title, check) for title, check in battery.items()]
    finally:
        frozen.close()
        renewing.close()


def _run(title: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(title, True, check())
    except MissingExpertError as missing:
        return CheckResult(title, True, str(missing), skipped=True)
    except checks.BrokenContractError as broken:
        return CheckResult(title, False, str(broken))
    except Exception as error:  # a task's own code may raise anything; the other checks still run
        reason = str(error).splitlines()[0] if str(error) else ""
        return CheckResult(title, False, f"raised {type(error).__name__}: {reason}")
