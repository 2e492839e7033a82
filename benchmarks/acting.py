"""How long a decision takes on one thread: the package's own policy at batch 1, and its export in onnxruntime.

Weights are random, of the sizes that the task's settings say; both sides encode observations and draw noise. Rounds are
interleaved. docs/export.md has its numbers.

    python benchmarks/acting.py [AvoidPoint|PushT|…] [--rounds 9] [--decisions 200]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bmd_pipeline.config.load import load_config
from bmd_pipeline.export.graph import PolicyFunction, write_graphs
from bmd_pipeline.export.run_policy import FORMAT, Policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy, ObsHistory
from bmd_pipeline.rl.adapters import PolicyInput
from bmd_pipeline.rl.agent import make_base_agent
from bmd_pipeline.stages.export import describe_agent, hash_graphs
from bmd_pipeline.tasks import registry


def measure(decide: Callable[[], object], decisions: int) -> float:
    """Milliseconds of the processor per decision: unlike wall time, they don't count other people's load."""
    start = time.process_time()
    for _ in range(decisions):
        decide()
    return 1e3 * (time.process_time() - start) / decisions


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", nargs="?", default="AvoidPoint")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--decisions", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(options.task)
    spec = registry.make_spec(config.task.name, config.task.env)
    coded = DiffusionPolicy(config.pretrain.policy, spec.obs_dim, spec.action_dim, num_codes=4)
    agent = make_base_agent(coded.requires_grad_(False).eval())
    function, generator = PolicyFunction(agent), torch.Generator()
    window = ObsHistory(coded.config.n_obs_steps, coded.config.obs_stride)
    obs, code = torch.zeros(1, spec.obs_dim), torch.zeros(1, dtype=torch.int64)
    window.start(obs)

    def decide() -> torch.Tensor:
        inputs = PolicyInput(coded.encode(window.extend(obs[None])), code)
        plan = agent.plan(inputs, generator, explore=False)
        return agent.act(plan, 0, inputs, generator, explore=False)[0]

    with tempfile.TemporaryDirectory() as folder:
        write_graphs([function], Path(folder))
        graphs = hash_graphs(Path(folder))
        facts = {"schema_version": FORMAT, "modes": [], "graphs": graphs, **describe_agent(agent, function)}
        (Path(folder) / "policy.json").write_text(json.dumps(facts))
        robot = Policy(folder)

        def decide_exported() -> object:
            robot.reset()
            return robot.act(obs[0].numpy())

        sides = {"package": decide, "export": decide_exported}
        found = np.array([[measure(side, options.decisions) for side in sides.values()] for _ in range(options.rounds)])
    times = ", ".join(f"{name} {ms:.3f} ms" for name, ms in zip(sides, np.median(found, axis=0), strict=True))
    print(f"{options.task}, {len(coded.timesteps)} denoising steps, layers {coded.config.hidden_sizes}: {times}")


if __name__ == "__main__":
    main()
