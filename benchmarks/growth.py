"""What time and memory grow with, and what a fine-tuning process holds: docs/results/speed.json, speed.md, a figure.

Each size is measured in a process of its own, on one thread: processor time of the work, and the largest memory.

    python -m benchmarks.growth [--axes environments transitions codes seeds clustered jobs memory]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.speed_table import PAGE, TABLE, Growth, Memory, load_table, save_table, write_page
from bmd_pipeline.errors import BMDError
from bmd_pipeline.reporting.figures import BLUE, GREY, VERMILION, house_style

ROOT = Path(__file__).resolve().parent.parent
FIGURE = Path("docs/results/growth.png")

# ---- What is timed: modules are imported where they are used, so that a process holds what its work needs ----


@dataclass
class Clock:
    """Adds up the processor time of what is timed, with that of processes which it starts and waits for."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts what is done inside."""
        started = os.times()
        yield
        ended = os.times()
        self.seconds += sum(ended[:4]) - sum(started[:4])  # user and system, of this process and of its children


def train(size: int, clock: Clock, *, axis: str) -> None:
    """An iteration of `dppo-bmd` on GaussianMixture, of that many environments or codes, after a small one."""
    import torch

    from bmd_pipeline.config.load import load_config
    from bmd_pipeline.modes.modes import CodedClusters, make_modes
    from bmd_pipeline.policies.diffusion import DiffusionPolicy
    from bmd_pipeline.rl.agent import make_agent
    from bmd_pipeline.rl.trainer import Trainer
    from bmd_pipeline.tasks.registry import make_env

    def iterate(num_envs: int, codes: int) -> None:
        settings = {"finetune.num_envs": num_envs, "discover.num_modes": codes, "finetune.ppo.minibatch_size": 256}
        config = load_config("GaussianMixture", assignments=[f"{name}={value}" for name, value in settings.items()])
        env = make_env("GaussianMixture", config.task.env, num_envs)
        policy = DiffusionPolicy(config.pretrain.policy, env.spec.obs_dim, env.spec.action_dim)
        policy.fit_normalisers(torch.rand(64, policy.noise_dim) * 2 - 1, torch.randn(64, policy.cond_dim))
        modes = make_modes(config.discover, policy, tuple(range(env.spec.track_dim)))
        centres = torch.randn(codes, config.discover.cluster_points * policy.obs_dim)
        modes.clusters = CodedClusters(centres, torch.arange(codes))
        agent = make_agent("dppo-bmd", policy, modes, config.finetune, config.discover.steering)
        trainer = Trainer(env, agent, config.finetune)
        with clock.running():
            trainer.iterate(iteration=0, seed=0, generator=torch.Generator().manual_seed(0))

    torch.manual_seed(0)
    iterate(64, 2)
    clock.seconds = 0.0
    iterate(*((size, 4) if axis == "environments" else (1024, size)))


def clone(size: int, clock: Clock) -> None:
    """Behaviour cloning of that many transitions: windows, normalisers, 50 steps, and a validation on a tenth."""
    import torch

    from bmd_pipeline.config.schema import PretrainConfig
    from bmd_pipeline.demos.store import Demos
    from bmd_pipeline.policies.bc import Cloner, make_windows
    from bmd_pipeline.policies.diffusion import DiffusionPolicy

    draw = np.random.default_rng(0)
    obs = draw.standard_normal((size, 8), np.float32)
    action = 2.0 * draw.random((size, 2), np.float32) - 1.0
    demos = Demos(obs, action, np.arange(100, size + 1, 100), {})
    config = PretrainConfig()
    torch.manual_seed(0)
    with clock.running():
        windows = make_windows(demos, config.policy)
        policy = DiffusionPolicy(config.policy, 8, 2)
        policy.fit_normalisers(windows.chunk, windows.stacked)
        generator = torch.Generator().manual_seed(0)
        cloner = Cloner(policy, config, windows.chunk, windows.stacked, generator)
        for _ in range(50):
            cloner.train_step()
        held_out = slice(size // 10)
        cloner.validate(windows.chunk[held_out], windows.stacked[held_out], generator)


def cluster(size: int, clock: Clock) -> None:
    """Density clusters of that many demonstrations of eight behaviours."""
    import torch

    from bmd_pipeline.modes.clustering import cluster_by_density

    generator = torch.Generator().manual_seed(0)
    centres = 4.0 * torch.randn(8, 24, generator=generator)
    points = centres[torch.randint(8, (size,), generator=generator)] + torch.randn(size, 24, generator=generator)
    with clock.running():
        cluster_by_density(points, 30, 32)


def summarise(size: int, clock: Clock) -> None:
    """Summary of a policy's evaluations of that many seeds, 4096 episodes in four modes each."""
    from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
    from bmd_pipeline.metrics.summary import summarise_policy

    draw, count, modes = np.random.default_rng(0), 4096, 4

    def make_part(seed: int) -> Episodes:
        mode, success = draw.integers(modes, size=count), draw.random(count) < 0.9
        names = tuple(f"mode {index}" for index in range(modes))
        return Episodes(
            policy="dppo-bmd",
            seed=seed,
            num_codes=modes,
            code=np.arange(count) % modes,
            success=success,
            length=np.full(count, 100),
            episode_return=success.astype(np.float64),
            information=draw.standard_normal(count),
            deviation=np.where(success, 0.1, 0.0),
            labellings={"way": ModeWeights(names, np.eye(modes)[mode])},
            behaviours={"way": names},
        )

    parts = [make_part(seed) for seed in range(size)]
    with clock.running():
        summarise_policy(parts, config_hash="", tau=0.8, confidence=0.95, rng=np.random.default_rng(0))


def plan(size: int, clock: Clock) -> None:
    """Snakemake's plan of a grid of 25 cells with that many seeds of two tasks, where nothing has been made yet."""
    grid = {"finetune.regulariser.mi_weight": [0.03, 0.1, 0.3, 1.0, 3.0], "discover.num_modes": [2, 4, 8, 16, 32]}
    lists = {"tasks": ["AvoidPoint", "PushT"], "methods": ["dsrl", "dsrl-bmd"], "seeds": list(range(size))}
    with tempfile.TemporaryDirectory() as name:
        Path(name, "grid.yaml").write_text(json.dumps(lists | {"grid": {"axes": grid}}), encoding="utf-8")
        command = ("snakemake", "--snakefile", str(ROOT / "Snakefile"), "--dry-run", "--configfile", "grid.yaml")
        with clock.running():
            subprocess.run(command, cwd=name, capture_output=True, check=True)


@dataclass(frozen=True)
class Axis:
    """Something that grows."""

    title: str
    sizes: tuple[int, ...]
    work: Callable[[int, Clock], None]
    settings: dict[str, Any] = field(default_factory=dict)


AXES = {
    "environments": Axis(
        "environments of an iteration", (64, 1024, 4096, 16384), lambda n, t: train(n, t, axis="environments")
    ),
    "codes": Axis("codes K, 1024 environments", (2, 8, 32, 64), lambda size, clock: train(size, clock, axis="codes")),
    "transitions": Axis("transitions cloned, 50 steps", (1000, 100_000, 1_000_000, 10_000_000), clone),
    "clustered": Axis("demonstrations clustered", (1000, 10_000, 100_000), cluster),
    "seeds": Axis("seeds summarised, 4096 episodes each", (1, 10, 50), summarise),
    "jobs": Axis("seeds of a grid planned, about 125 jobs each", (1, 9, 50), plan),
}

# ---- What a fine-tuning process holds ----


def read_rss() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def watch_finetuning() -> list[Memory]:
    """Resident memory of a process that fine-tunes PushT by `dppo`, after each thing that it takes up."""
    steps = []

    def note(step: str) -> None:
        steps.append(Memory(step=step, rss_mb=round(read_rss(), 1)))

    import torch

    note("Python, NumPy, torch")
    torch.optim.Adam([torch.zeros(1, requires_grad=True)], fused=True)
    note("an optimiser")
    import bmd_pipeline.stages.finetune  # noqa: F401
    from bmd_pipeline.config.load import load_config
    from bmd_pipeline.policies.diffusion import DiffusionPolicy
    from bmd_pipeline.rl.agent import make_agent
    from bmd_pipeline.rl.trainer import Trainer
    from bmd_pipeline.sim.backend import enable_headless
    from bmd_pipeline.tasks.registry import make_env

    note("what the stage imports")
    enable_headless()
    import mani_skill.envs  # noqa: F401

    note("ManiSkill and SAPIEN")
    config = load_config("PushT")
    make_env("PushT", config.task.env, 1)
    note("one scene")
    env = make_env("PushT", config.task.env, config.finetune.num_envs)
    note(f"{config.finetune.num_envs} more scenes")
    policy = DiffusionPolicy(config.pretrain.policy, env.spec.obs_dim, env.spec.action_dim)
    policy.fit_normalisers(torch.rand(64, policy.noise_dim) * 2 - 1, torch.randn(64, policy.cond_dim))
    agent = make_agent("dppo", policy, None, config.finetune, config.discover.steering)
    trainer = Trainer(env, agent, config.finetune)
    note("policy, agent, critic")
    for iteration in range(2):
        trainer.iterate(iteration=iteration, seed=iteration, generator=torch.Generator().manual_seed(0))
        note(f"iteration {iteration + 1}")
    return steps


# ---- The command ----


def run_apart(*arguments: str) -> Any:
    """What a process of this module prints with these arguments, as JSON.

    Raises:
        CalledProcessError: it failed; its own words are on the terminal.
    """
    command = [sys.executable, "-m", "benchmarks.growth", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def measure_point(axis: str, size: int) -> dict[str, float]:
    """Processor time and largest memory of one size, in this process."""
    import torch

    torch.set_num_threads(1)
    clock = Clock()
    AXES[axis].work(size, clock)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**10
    return {"seconds": round(clock.seconds, 4), "peak_mb": round(peak, 1)}


@house_style()
def plot_growth(points: list[Growth]) -> Figure:
    """A panel per axis: processor time, peak memory, and a line of slope 1 through the largest size."""
    figure = Figure(figsize=(10.5, 2.4), layout="constrained")
    axes = [axis for axis in AXES if any(point.axis == AXES[axis].title for point in points)]
    for panel, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        found = sorted((point for point in points if point.axis == AXES[axis].title), key=lambda point: point.size)
        sizes = np.array([point.size for point in found])
        panel.loglog(sizes, [point.seconds for point in found], color=BLUE, marker="o", markersize=3, label="CPU s")
        panel.loglog(sizes, [point.peak_mb / 1024 for point in found], color=VERMILION, marker="s", markersize=3,
                     label="peak GB")  # fmt: skip
        linear = found[-1].seconds * sizes / sizes[-1]
        panel.loglog(sizes, linear, color=GREY, linewidth=0.8, linestyle=":", label="linear")
        panel.set_title(axis)
        panel.minorticks_off()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return figure


def main() -> None:
    """Measures axes, and writes each at once; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*AXES, "memory"]
    parser.add_argument("--axes", nargs="+", default=known, choices=known)
    parser.add_argument("--point", nargs=2, metavar=("AXIS", "SIZE"), help="one size, in this process, as JSON")
    parser.add_argument("--watch", action="store_true", help="memory of one fine-tuning, in this process, as JSON")
    given = parser.parse_args()
    if given.watch:
        print(json.dumps([step.model_dump() for step in watch_finetuning()]))
        return
    if given.point:
        print(json.dumps(measure_point(given.point[0], int(given.point[1]))))
        return
    mpl.use("agg")
    try:
        table = load_table(ROOT / TABLE)
    except BMDError as error:
        parser.error(str(error))
    for axis in given.axes:
        if axis == "memory":
            table = table.model_copy(update={"memory": [Memory(**step) for step in run_apart("--watch")]})
        else:
            title = AXES[axis].title
            points = [
                Growth(axis=title, size=size, **run_apart("--point", axis, str(size))) for size in AXES[axis].sizes
            ]
            others = [point for point in table.growth if point.axis != title]
            table = table.model_copy(update={"growth": [*others, *points]})
        print(axis, flush=True)
        save_table(table, ROOT / TABLE)
    write_page(table, ROOT / PAGE)
    plot_growth(table.growth).savefig(ROOT / FIGURE, dpi=130)


if __name__ == "__main__":
    main()
