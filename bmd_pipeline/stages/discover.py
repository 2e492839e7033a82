"""The stage `discover`: which behaviours are there, and how is each commanded?"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from bmd_pipeline.config.hashing import stage_hash, stage_slice
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.files import hash_file, hash_tree
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.provenance import require_run, write_run
from bmd_pipeline.modes.modes import DOCUMENT, WEIGHTS, DiscoveredModes, make_modes
from bmd_pipeline.seeds import derive_seed
from bmd_pipeline.stages.checkpoints import Checkpoints, make_identity, make_wait
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.discovery import Discovery
from bmd_pipeline.stages.pretrain import load_task_demos
from bmd_pipeline.stages.stopping import Stop
from bmd_pipeline.stages.workbench import open_workbench, resolve_features


def discover(
    config: RunConfig,
    *,
    policy: Path,
    demos: Path | None,
    output: Path,
    seed: int,
    num_workers: int,
    reporter: Reporter,
    stop: Stop | None = None,
) -> None:
    """Finds behaviours without labels, and makes a policy that shows each on command; writes both to `output`.

    In the coded form they are those of the demonstrations, and the policy is taught a code for each; in the published
    form they are those of the frozen policy, commanded through its noise.

    A killed run goes on from its last checkpoint when the same command is given again. On the CPU, native tasks then
    give the same modes, byte for byte, as an uninterrupted run.

    Args:
        config: the run.
        policy: folder of the pre-trained policy.
        demos: the demonstration store; the published form needs none.
        output: folder for modes.safetensors, modes.json, metrics.jsonl and run.json.
        seed: which repetition this is.
        num_workers: simulator processes.
        reporter: progress.
        stop: who may ask to stop early.

    Raises:
        ArtifactError: the policy is missing or does not fit.
        DataError: the demonstrations are missing, damaged or of another task.
        TrainingError: there are too few demonstrations to cluster, or training diverged.
        Stopped: somebody asked; progress is saved.
    """
    started = time.time()
    task = config.task.name
    require_run(policy, "pretrain", task)
    settings = config.discover
    stop = stop or Stop()
    inputs = {"policy": policy}
    data = None
    origins = {"policy": hash_file(policy / RUN_FILE)}
    if settings.form == "coded":
        inputs["demos"] = demos = demos or Layout().demos(task)
        data, origins["demos"] = load_task_demos(config, demos), hash_tree(demos)
    identity = make_identity(config, "discover", seed=seed, **origins)
    with open_workbench(config, policy, settings.num_envs, num_workers, reporter, stop, disturbed=False) as bench:
        columns = resolve_features(bench.spec, settings.inference.features)
        torch.manual_seed(derive_seed(config.seed, "discover", task, seed, "weights"))
        modes = make_modes(settings, bench.policy, columns)
        modes.networks().to(bench.device)
        checkpoints = Checkpoints(
            output, identity, stop, minutes=config.execution.checkpoint_minutes, wait=make_wait(config, stop, reporter)
        )
        with checkpoints:
            (output / RUN_FILE).unlink(missing_ok=True)  # from here on the folder is not complete
            discovery = Discovery(config, bench, modes, data, seed, output, checkpoints, reporter)
            discovery.run()
            modes = discovery.modes
            _tell(modes, reporter)
            modes.save(output, task, bench.policy)
            write_run(
                output,
                stage="discover",
                task=task,
                config=stage_slice(config, "discover"),
                config_hash=stage_hash(config, "discover"),
                seed=seed,
                inputs=inputs,
                outputs=(WEIGHTS, DOCUMENT, METRICS_FILE),
                started=started,
                device=bench.device,
                extra={
                    "findings": modes.findings,
                    "matmul_precision": discovery.matmul,
                    "rollbacks": discovery.rollbacks,
                    "warnings": reporter.warnings,
                },
            )
            checkpoints.discard()


def _tell(modes: DiscoveredModes, reporter: Reporter) -> None:
    """Says in plain words what was found."""
    found = modes.findings
    if modes.coded is not None:
        reporter.log(
            f"codes are obeyed by {found['obeyed']:.3f} of their successes, the worst by "
            f"{min(found['obeyed_per_code']):.3f}; success per code {min(found['success_rate_per_code']):.3f} to "
            f"{max(found['success_rate_per_code']):.3f}"
        )
    reporter.log(
        f"held-out multimodality M = {found['information']:.3f} nats per state, {found['final_information']:.3f} "
        f"at the end (at most {found['information_bound']:.3f}); commanded success {found['success_rate']:.3f}, "
        f"base {found['base_success_rate']:.3f}"
    )
    if found["information"] < modes.config.min_information:
        reporter.warn(
            f"no modes found: M = {found['information']:.3f} nats is below {modes.config.min_information}. The "
            "policy behaves much the same whatever code it is given: look at results/<Task>/modes/validation.json, and "
            "collect more varied demonstrations if there is one behaviour alone"
        )
    chance = 1.0 / modes.num_codes
    dead = [k for k, share in enumerate(found["obeyed_per_code"]) if share <= chance]
    if dead:
        reporter.warn(
            f"dead codes: commanding {', '.join(map(str, dead))} brings about its own behaviour no more often than "
            f"chance ({chance:.2f}); there may be fewer behaviours than codes ({modes.num_codes})"
        )
