"""How far a reader has to go to follow one step of fine-tuning."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

import bmd_pipeline
from bmd_pipeline.config.schema import FinetuneConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.modes.modes import CodedClusters, DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.trainer import Trainer
from tests.rl.test_reach import Case, agent_of

PACKAGE = Path(bmd_pipeline.__file__).parent
MOST = 12


def files_entered(call: Callable[[], object]) -> list[str]:
    """The package's files whose functions a call runs, in the order of their first call."""
    entered: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            entered.setdefault(str(path.relative_to(PACKAGE)))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(entered)


def test_a_step_of_fine_tuning_is_read_in_few_files(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    agent = agent_of(Case("dppo-bmd", "coded", ()), policy, modes_of)
    assert agent.modes is not None
    discovery = agent.modes.config
    centres = torch.zeros(discovery.num_modes, discovery.cluster_points * policy.obs_dim)
    agent.modes.clusters = CodedClusters(centres, torch.arange(discovery.num_modes))  # as discovered
    config = FinetuneConfig()
    trainer = Trainer(env, agent, config)
    generator = torch.Generator().manual_seed(0)
    files = files_entered(lambda: trainer.iterate(iteration=0, seed=0, generator=generator))
    assert len(files) <= MOST, " ".join(files)
    told = (PACKAGE.parent / "docs" / "architecture.md").read_text().replace("<task>", "gaussian_mixture")
    assert [file for file in files if f"`{file}`" not in told] == []
    assert {"rl/trainer.py", "rl/rollout.py", "rl/agent.py", "rl/adapters.py", "rl/ppo.py"} <= set(files)
