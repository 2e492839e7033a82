"""A policy that somebody brings takes the place of the one that `pretrain` would train."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from bmd_pipeline.config.hashing import stage_hash, stage_slice
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.io.files import write_bytes
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.io.provenance import write_run
from bmd_pipeline.policies.checkpoint import SETTINGS_FILE, WEIGHTS_FILE, load_policy
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.tasks import registry

FILES: Final = (WEIGHTS_FILE, SETTINGS_FILE)


def take_over(config: RunConfig, *, policy: Path, output: Path, reporter: Reporter) -> None:
    """Checks a policy and copies it to where later stages look for it, with a record of where it came from.

    Args:
        config: the run.
        policy: folder with the `policy.safetensors` and `policy.json` of `save_policy`.
        output: folder for the copies and, last, `run.json`.
        reporter: where it is told.

    Raises:
        ArtifactError: the policy is missing, damaged, or for another task or other sizes; or another job is writing
            the same folder.
        ConfigError: both folders are the same.
    """
    started = time.time()
    task = config.task.name
    if policy.resolve() == output.resolve():
        raise ConfigError(f"pretrain.policy_folder must not be {output}, where the policy is copied to")
    spec = registry.make_spec(task, config.task.env)
    found = load_policy(
        policy,
        task=task,
        obs_dim=spec.obs_dim,
        action_dim=spec.action_dim,
        action_bounds=(spec.action_low, spec.action_high),
    )
    contents = {name: (policy / name).read_bytes() for name in FILES}
    with FolderLock(Layout.state(output)) as lock:
        for name in (RUN_FILE, METRICS_FILE):  # of a policy that was there before
            (output / name).unlink(missing_ok=True)
        for name, content in contents.items():
            write_bytes(output / name, content)
        write_run(
            output,
            stage="pretrain",
            task=task,
            config=stage_slice(config, "pretrain"),
            config_hash=stage_hash(config, "pretrain"),
            seed=config.seed,
            inputs={name: policy / name for name in FILES},
            outputs=FILES,
            started=started,
            extra={"taken_over": True, "warnings": reporter.warnings},
        )
        lock.discard()
    size = sum(parameter.numel() for parameter in found.parameters())
    reporter.log(f"{task}: the policy in {policy} is used as it is, nothing was trained; {size:,} parameters")
