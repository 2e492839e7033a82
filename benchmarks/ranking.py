"""Does a critic's ranking of modes help in mid-episode? AvoidPoint, with the playground's policy of 24 codes.

In each episode the code is chosen anew at a random chunk: the present one, one that never failed in evaluation, any, or
the first or last of the critic's ranking. The worlds are that of training, and four with a post of the last row moved
into a gap, which no observation shows; there one critic has learnt as in training and another in that world.
docs/export.md has its numbers.

    python benchmarks/ranking.py [--learnt 4096] [--episodes 1024]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.export.critic import SwitchedAgent, fit_critic, play_moments
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import Adapter, Draws, PolicyInput
from bmd_pipeline.rl.agent import Agent, Plan
from bmd_pipeline.rl.rollout import roll_out
from bmd_pipeline.tasks import registry

FOLDER = Path(__file__).parents[1] / "docs" / "playground" / "tuned"
FACTS = json.loads((FOLDER / "policy.json").read_text())
NUM_CODES = len(FACTS["modes"])
BATCH, FIRST_CHUNK, LAST_CHUNK = 512, 1, 7
MOVED = {"1": (0.35, 0.28), "2": (0.35, 0.425), "3": (0.65, 0.575), "4": (0.65, 0.72)}
"""By gap of the last row the x in metres at which a post stands, and that in the gap to which it is moved."""
Choose = Callable[[PolicyInput], Tensor]


class Exported(Adapter):
    """The playground's graph, one row after another; conditions are observations as they are stacked."""

    def __init__(self) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(FOLDER / "policy.onnx", options)

    def act(self, x: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> tuple[Tensor, Draws]:
        stacked = inputs.cond.reshape(len(inputs.cond), FACTS["n_obs_steps"], -1)
        frames = torch.cat([stacked[:, :1], stacked[:, :1] - stacked[:, 1:]], dim=1)
        noise = torch.randn(len(frames), FACTS["noise_dim"], generator=generator)
        rows = {"obs": frames.numpy(), "code": inputs.code.numpy(), "noise": noise.numpy()}
        chunks = [
            self.session.run(None, {name: values[i : i + 1] for name, values in rows.items()})[0].reshape(-1)
            for i in range(len(frames))
        ]
        return torch.from_numpy(np.stack(chunks)), {}


class Choosing(SwitchedAgent):
    """Chooses the code at the chunk of the change."""

    def __init__(self, agent: Agent, start: Tensor, choose: Choose) -> None:
        super().__init__(agent, start, torch.zeros_like(start))
        self._choose = choose

    def plan(self, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> Plan:
        self._code = torch.where(self._start == self._chunk + 1, self._choose(inputs), self._code)
        return super().plan(inputs, generator, explore)


def make_exported_agent() -> Agent:
    shape = {name: FACTS[name] for name in ("horizon", "n_action_steps", "n_obs_steps", "obs_stride")}
    policy = DiffusionPolicy(PolicyConfig(**shape, hidden_sizes=(4,), clip_obs=1e6), FACTS["obs_dim"], 2)
    modes: Any = SimpleNamespace(num_codes=NUM_CODES, feature_columns=(0, 1))
    return Agent(policy, [Exported()], modes)


def make_world(gap: str | None) -> TaskEnv:
    env: Any = registry.make_env("AvoidPoint", {"reward": "shifted"}, BATCH)
    if gap:
        stands, goes = MOVED[gap]
        posts = env.referee._course.posts
        last_row = posts[:, 1] == posts[:, 1].max()
        posts[last_row & ((posts[:, 0] - stands).abs() < 1e-3), 0] = goes
    world: TaskEnv = env
    return world


def learn(env: TaskEnv, agent: Agent, episodes: int) -> nn.Sequential:
    torch.manual_seed(0)
    generator, seeds = torch.Generator().manual_seed(0), range(100, 100 + max(1, episodes // BATCH))
    network, measured = fit_critic(play_moments(env, agent, seeds, generator), NUM_CODES, generator)
    print("critic", {name: round(value, 3) for name, value in measured.items()}, flush=True)
    return network


@torch.no_grad()
def measure(env: TaskEnv, agent: Agent, choose: Choose, episodes: int) -> str:
    won = count = 0
    for seed in range(max(1, episodes // BATCH)):
        draws = torch.Generator().manual_seed(seed)
        start = torch.randint(FIRST_CHUNK, LAST_CHUNK + 1, (BATCH,), generator=draws)
        code = torch.arange(BATCH) % NUM_CODES
        played = roll_out(env, Choosing(agent, start, choose), seed=seed, code=code, generator=draws, explore=False)
        reached = played.last_decision > start
        won, count = won + int((played.success & reached).sum()), count + int(reached.sum())
    return f"{won / count:.3f} of {count}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learnt", type=int, default=4096)
    parser.add_argument("--episodes", type=int, default=1024)
    options = parser.parse_args()
    agent, draws = make_exported_agent(), torch.Generator().manual_seed(0)
    never_failed = max(range(NUM_CODES), key=lambda code: FACTS["modes"][code]["success_rate"])
    plain: dict[str, Choose] = {
        "present code": lambda inputs: inputs.code,
        "best as measured": lambda inputs: torch.full_like(inputs.code, never_failed),
        "any": lambda inputs: torch.randint(NUM_CODES, inputs.code.shape, generator=draws),
    }

    def by(critic: nn.Sequential) -> dict[str, Choose]:
        return {
            "critic's first": lambda inputs: critic(inputs.cond).argmax(dim=1),
            "critic's last": lambda inputs: critic(inputs.cond).argmin(dim=1),
        }

    usual = learn(make_world(None), agent, options.learnt)
    for gap in (None, *MOVED):
        env = make_world(gap)
        print(f"post moved into gap {gap}" if gap else "as in training")
        for name, choose in (plain | by(usual)).items():
            print(f"  {name}: {measure(env, agent, choose, options.episodes)}", flush=True)
        if gap:
            for name, choose in by(learn(env, agent, options.learnt)).items():
                print(f"  {name}, learnt here: {measure(env, agent, choose, options.episodes)}", flush=True)


if __name__ == "__main__":
    main()
