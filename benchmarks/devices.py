"""Native tasks on the CPU and on a CUDA device: steps per second against the number of environments.

Three things are timed for each size: the environment alone, whole episodes with the diffusion policy in the loop,
and whole iterations of training. Policies are untrained: that changes no speed. Medians of rounds.

    python benchmarks/devices.py [--task AvoidPoint] [--devices cpu cuda] [--sizes 256 1024 4096] [--rounds 3]
        [--matmul float32 tf32] [--graphs off on]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable

import torch

from bmd_pipeline.compute import set_matmul
from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.modes.modes import make_modes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import make_agent, make_base_agent
from bmd_pipeline.rl.graphs import CUDA, GraphRecorder, graph_agent, graph_env
from bmd_pipeline.rl.rollout import roll_out
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.tasks.registry import make_env


def time_once(run: Callable[[], int], device: str) -> float:
    """Steps per second of one call."""
    started = time.perf_counter()
    steps = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return steps / (time.perf_counter() - started)


def make_policy(config: RunConfig, env: TaskEnv) -> DiffusionPolicy:
    """An untrained policy of the configured shape."""
    torch.manual_seed(0)
    policy = DiffusionPolicy(config.pretrain.policy, env.spec.obs_dim, env.spec.action_dim)
    policy.fit_normalisers(torch.rand(64, policy.noise_dim) * 2 - 1, torch.randn(64, policy.cond_dim))
    return policy.to(env.device).requires_grad_(False).eval()


def make_runs(
    config: RunConfig, env: TaskEnv, device: str, recorder: GraphRecorder | None
) -> dict[str, Callable[[], int]]:
    """What is timed, by name; each returns the control steps that it made."""
    env = graph_env(env, recorder)
    policy = make_policy(config, env)
    chunk = config.pretrain.policy.n_action_steps
    generator = torch.Generator(device).manual_seed(0)

    def step() -> int:
        env.reset(0)
        for _ in range(env.spec.horizon // chunk):
            actions = torch.randn(env.num_envs, chunk, env.spec.action_dim, generator=generator, device=device)
            env.step_chunk(actions)
        return env.num_envs * (env.spec.horizon // chunk) * chunk

    agent = graph_agent(make_base_agent(policy), recorder)
    code = torch.zeros(env.num_envs, dtype=torch.int64, device=device)

    def play() -> int:
        return int(roll_out(env, agent, seed=0, code=code, generator=generator, explore=False).length.sum())

    runs = {"environment": step, "with policy": play}
    for method in ("dsrl-bmd", "dppo"):
        modes = make_modes(config.discover, policy, tuple(range(env.spec.track_dim))) if "bmd" in method else None
        if modes is not None:
            modes.networks().to(device)
        finetuned = make_agent(method, policy, modes, config.finetune, config.discover.steering).to(device)
        trainer = Trainer(env, finetuned, config.finetune, recorder=recorder)

        def train(trainer: Trainer = trainer) -> int:
            return int(trainer.iterate(iteration=0, seed=0, generator=generator)["rollout/control_steps"])

        runs[f"training {method}"] = train
    return runs


def main() -> None:
    """Runs the comparison and prints one JSON row per measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="AvoidPoint")
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 1024, 4096])
    parser.add_argument("--matmul", nargs="+", default=["float32"], help="on CUDA: float32, tf32")
    parser.add_argument("--graphs", nargs="+", default=["off"], choices=["off", "on"], help="on CUDA: CUDA graphs")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for device in arguments.devices:
        for size in arguments.sizes:
            # minibatches grow with the batch, as a user of many environments would set them
            minibatch = min(1024 * max(1, size // 1024), 8 * size)
            settings = [f"finetune.num_envs={size}", f"finetune.ppo.minibatch_size={minibatch}"]
            config = load_config(arguments.task, assignments=settings)
            env = make_env(arguments.task, config.task.env, size, device=device)
            ways = itertools.product(arguments.matmul, arguments.graphs) if device == "cuda" else [("float32", "off")]
            for matmul, graphs in ways:
                set_matmul(env.device, matmul, "mkl")
                runs = make_runs(config, env, device, CUDA if graphs == "on" else None)
                for name, run in runs.items():
                    run()  # warm-up, and most recordings
                    rate = statistics.median(time_once(run, device) for _ in range(arguments.rounds))
                    row = {"device": device, "envs": size, "matmul": matmul, "graphs": graphs, "what": name}
                    print(json.dumps(row | {"steps_per_s": round(rate)}), flush=True)


if __name__ == "__main__":
    main()
