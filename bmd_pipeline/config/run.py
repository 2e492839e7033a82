"""The settings of a whole run on one task."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.collect import CollectConfig
from bmd_pipeline.config.compare import CompareConfig
from bmd_pipeline.config.discover import DiscoverConfig
from bmd_pipeline.config.evaluate import CurveConfig, EvaluateConfig
from bmd_pipeline.config.execution import ExecutionConfig
from bmd_pipeline.config.finetune import METHODS, FinetuneConfig
from bmd_pipeline.config.grid import GridConfig
from bmd_pipeline.config.pretrain import PretrainConfig
from bmd_pipeline.config.sweep import SweepConfig
from bmd_pipeline.config.task import TaskConfig
from bmd_pipeline.config.verdict import VerdictConfig


class RunConfig(Section):
    """Everything that decides what a run computes, by stage."""

    task: TaskConfig
    """The task."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Root seed: every generator of the run derives from it."""
    methods: tuple[str, ...] = Field(("dsrl", "dsrl-bmd"), min_length=1)
    """Fine-tuning methods that results/<Task>/eval.json compares."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Fine-tuning seeds that results/<Task>/eval.json compares."""
    collect: CollectConfig = CollectConfig()
    """Demonstrations."""
    pretrain: PretrainConfig = PretrainConfig()
    """Behaviour cloning."""
    discover: DiscoverConfig = DiscoverConfig()
    """Mode discovery."""
    finetune: FinetuneConfig = FinetuneConfig()
    """Fine-tuning."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Evaluation."""
    curve: CurveConfig = CurveConfig()
    """Learning curves."""
    compare: CompareConfig = CompareConfig()
    """Comparison of methods."""
    verdict: VerdictConfig = VerdictConfig()
    """Hypotheses."""
    sweep: SweepConfig = SweepConfig()
    """The λ sweep."""
    grid: GridConfig = GridConfig()
    """λ and K, crossed with methods and seeds."""
    execution: ExecutionConfig = ExecutionConfig()
    """Devices, cores and tracking."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"methods: {method!r} is not one of {', '.join(METHODS)}")
        if len(set(self.methods)) != len(self.methods) or len(set(self.seeds)) != len(self.seeds):
            raise ValueError("methods and seeds must not repeat")
        codes, envs = self.discover.num_modes, self.finetune.num_envs
        if codes > envs:
            raise ValueError(f"discover.num_modes must be <= finetune.num_envs ({envs}), got {codes}")
        envs = min(envs, self.discover.num_envs)
        if self.grid.num_modes and self.grid.num_modes[-1] > envs:
            raise ValueError(f"grid.num_modes must be <= num_envs ({envs}), got {self.grid.num_modes[-1]}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must be >= 0, got {min(self.seeds)}")
        for name in ("discover", "finetune"):
            ppo = getattr(self, name).ppo
            if ppo.minibatch_size < 8:
                raise ValueError(f"{name}.ppo.minibatch_size must be >= 8, got {ppo.minibatch_size}")
        return self
