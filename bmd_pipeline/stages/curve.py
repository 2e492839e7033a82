"""Stage `curve`: success and modes over fine-tuning, from the snapshots that it kept.

One policy at the end can't tell whether modes stay or have merely not been lost yet.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import write_json
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.scores import COMPARED
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.rl.agent import load_agent
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluate import evaluate_policy, find_behaviours, require_inputs
from bmd_pipeline.stages.evaluations import hash_policy_settings, make_block, make_head
from bmd_pipeline.stages.runtime import open_env, select_stage_device
from bmd_pipeline.tasks.registry import load_labellings

SCHEMA_VERSION = 3


def curve(
    config: RunConfig,
    *,
    policy: Path,
    modes: Path | None,
    tuned: Path,
    output: Path,
    method: str,
    seed: int,
    num_workers: int,
    reporter: Reporter,
) -> None:
    """Evaluates every snapshot of a fine-tuning run, all on the same episodes, and writes curve.json.

    Args:
        config: the run.
        policy: folder of the pre-trained policy.
        modes: folder of the discovered modes, for `-bmd` methods.
        tuned: folder of the fine-tuned policy.
        output: the curve.json to write.
        method: a fine-tuning method.
        seed: training seed of the policy.
        num_workers: simulator processes; results don't depend on it.
        reporter: where progress goes.

    Raises:
        ArtifactError: there are no snapshots, or an input is missing, damaged or made for something else.
    """
    started = time.time()
    task = config.task.name
    inputs = require_inputs(task, method, policy, modes, tuned)
    folders = sorted(path for path in Layout.snapshots(tuned).glob("*") if path.is_dir())
    if not folders:
        raise ArtifactError(
            f"{tuned}: holds no snapshots; run `bmd-pipeline finetune --task {task} --method {method} "
            f"--seed {seed} --set finetune.snapshot_interval=20`"
        )
    device = select_stage_device(config)
    labellings = load_labellings(task)
    wanted = config.evaluate.episodes
    base = load_policy(policy, task=task, device=device)
    num_envs = min(config.evaluate.num_envs, wanted)
    world = open_env(config.task, base, num_envs, disturbed=True, device=device, num_workers=num_workers)
    points = []
    with closing(world) as env, reporter.progress(f"curve of {method}", len(folders)) as progress:
        for folder in folders:
            agent = load_agent(policy, modes, folder, method, task=task, device=device)
            episodes, _ = evaluate_policy(  # every snapshot meets the same starts and draws
                env,
                agent,
                labellings,
                method=method,
                seed=seed,
                start_seed=partial(derive_seed, config.seed, "evaluate", "curve", seed),
                generator=make_generator(config.seed, "evaluate", "curve", seed, "noise", device=env.device),
                episodes=wanted,
            )
            behaviours = find_behaviours(config, env, agent, labellings, method, seed)
            points.append(_measure(config, replace(episodes, behaviours=behaviours), int(folder.name)))
            progress.advance(success=points[-1]["success_rate"]["mean"])
    head = make_head(config, "curve", inputs, started, seed=seed, device=device)
    document = head | {
        "schema_version": SCHEMA_VERSION,
        "config_hash": hash_policy_settings(config, method),
        "provenance": head["provenance"].model_dump(mode="json"),
        "method": method,
        "seed": seed,
        "points": points,
    }
    write_json(output, document)


def _measure(config: RunConfig, episodes: Episodes, iteration: int) -> dict[str, Any]:
    """One point of the curve, in eval.json's terms."""
    block = make_block(config, [episodes]).model_dump(mode="json")
    measured = (*COMPARED[:-1], "mutual_information")
    shares = {row["mode"]: row["share"] for row in block["per_mode"]}
    return {"iteration": iteration} | {name: block[name] for name in measured} | {"mode_shares": shares}
