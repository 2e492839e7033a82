"""The settings of a whole run on one task."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.collect import CollectConfig
from bmd_pipeline.config.compare import CompareConfig
from bmd_pipeline.config.discover import DiscoverConfig
from bmd_pipeline.config.evaluate import CurveConfig, EvaluateConfig
from bmd_pipeline.config.execution import ExecutionConfig
from bmd_pipeline.config.fields import Once, Seed, Seeds
from bmd_pipeline.config.finetune import METHODS, FinetuneConfig
from bmd_pipeline.config.grid import GridConfig
from bmd_pipeline.config.messages import suggest
from bmd_pipeline.config.pool import PoolConfig
from bmd_pipeline.config.pretrain import PretrainConfig
from bmd_pipeline.config.sweep import SweepConfig
from bmd_pipeline.config.task import TaskConfig
from bmd_pipeline.config.validation import ValidationConfig
from bmd_pipeline.config.verdict import VerdictConfig


def _known(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; {suggest(method, METHODS)}")
    return method


Method = Annotated[str, AfterValidator(_known)]


class RunConfig(Section):
    """Everything that decides what a run computes, by stage."""

    task: TaskConfig
    """The task."""
    seed: Seed = 0
    """Root seed: every generator of the run derives from it."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=len(METHODS)), Once] = ("dppo", "dppo-bmd")
    """Fine-tuning methods that results/<Task>/eval.json compares."""
    seeds: Seeds = (0, 1, 2)
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
    validation: ValidationConfig = ValidationConfig()
    """Validation of discovered modes."""
    grid: GridConfig = GridConfig()
    """λ and K, crossed with methods and seeds."""
    pool: PoolConfig = PoolConfig()
    """Base policies."""
    execution: ExecutionConfig = ExecutionConfig()
    """Devices, cores and tracking."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pretrain.policy_folder is not None and self.collect.store is None and self.discover.form == "coded":
            raise ValueError(
                "discover.form must be published for a policy that comes without demonstrations "
                "(pretrain.policy_folder without collect.store): codes are taught on demonstrations"
            )
        codes, envs = self.discover.num_modes, self.finetune.num_envs
        if codes > envs:
            raise ValueError(f"discover.num_modes must be <= finetune.num_envs ({envs}), got {codes}")
        envs = min(envs, self.discover.num_envs)
        if self.grid.num_modes and self.grid.num_modes[-1] > envs:
            raise ValueError(f"grid.num_modes must be <= num_envs ({envs}), got {self.grid.num_modes[-1]}")
        return self
