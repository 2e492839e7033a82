"""Side by side: the simulator's own `env.step` against this project's stepping of the same scenes.

Both sides command the same motions, drawn afresh each step, with observation and success test included. Rounds are
interleaved, so that noise of the machine hits both.

    python benchmarks/stepping.py [PushT|Avoid|Reach|Lift|Kitchen|Anymal] [--rounds 7] [--steps 100] [--scenes 16]
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.sim import backend
from bmd_pipeline.tasks.pusht.env import skip_recolouring
from bmd_pipeline.tasks.registry import get_entry, make_env

CHUNK = 4


def make_stock(task: str) -> Any:
    """The task's environment as ManiSkill or gymnasium-robotics builds it."""
    if task == "Kitchen":
        gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
        return gymnasium.make("FrankaKitchen-v1").unwrapped
    if task == "PushT":
        skip_recolouring()
        return backend.make_maniskill_env("PushT-v1", control_mode="pd_ee_delta_pose")
    return backend.make_maniskill_env(importlib.import_module(f"{get_entry(task).package}.maniskill").ENV_ID)


def run_stock(env: Any, drawn: int, steps: int, generator: np.random.Generator) -> int:
    """Steps the stock environment by `drawn` random components; returns how many environment steps were made."""
    env.reset(seed=0)
    for _ in range(steps):
        action = np.zeros(env.action_space.shape, np.float32)
        action[:drawn] = generator.uniform(-0.4, 0.4, drawn)
        env.step(action)
    return steps


def run_ours(env: TaskEnv, steps: int, generator: np.random.Generator) -> int:
    """Steps our environments in chunks; returns how many environment steps were made. Ended episodes stand still."""
    env.reset(0)
    made = 0
    for _ in range(steps // CHUNK):
        actions = generator.uniform(-0.4, 0.4, (env.num_envs, CHUNK, env.spec.action_dim))
        made += int(env.step_chunk(torch.from_numpy(actions).float()).steps.sum())
    return made


def cpu_seconds() -> float:
    """Processor time of this process and its workers: unlike wall time, it doesn't count other people's load."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system time
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measure(run: Callable[[], int]) -> tuple[float, float]:
    """Environment steps per second of wall time, and per second of processor time."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    steps = run()
    return steps / (time.perf_counter() - wall), steps / (cpu_seconds() - cpu)


def main() -> None:
    """Runs the comparison and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = ("PushT", "Avoid", "Reach", "Lift", "Kitchen", "Anymal")
    parser.add_argument("task", nargs="?", default="PushT", choices=tasks)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100, help="control steps per round and environment")
    parser.add_argument("--scenes", type=int, default=16, help="scenes per process")
    parser.add_argument("--workers", type=int, default=2, help="processes of the parallel side")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    task, settings = arguments.task, {"horizon": 10_000}
    stock = make_stock(task)
    single = make_env(task, settings, arguments.scenes)
    parallel = make_env(task, settings, arguments.scenes * arguments.workers, num_workers=arguments.workers)
    sides: dict[str, Callable[[], int]] = {
        "stock env.step": lambda: run_stock(stock, single.spec.action_dim, 3 * arguments.steps, generator),
        f"ours, 1 process, {arguments.scenes} scenes": lambda: run_ours(single, arguments.steps, generator),
        f"ours, {arguments.workers} workers, {arguments.scenes} scenes each": lambda: run_ours(
            parallel, arguments.steps, generator
        ),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, run in sides.items():
            rates[name].append(measure(run))
    parallel.close()
    single.close()
    baseline = np.array(rates["stock env.step"])
    table = Table(
        "",
        "steps / s",
        "steps / core s",
        "× stock",
        "× stock per core",
        title=f"{task} on a CPU, medians of rounds",
    )
    for name in sides:
        rate = np.array(rates[name])  # (rounds, 2)
        wall, core = np.median(rate, 0)
        wall_ratio, core_ratio = np.median(rate / baseline, 0)
        table.add_row(name, f"{wall:.0f}", f"{core:.0f}", f"{wall_ratio:.1f}", f"{core_ratio:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
