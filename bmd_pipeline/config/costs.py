"""What playing and judging episodes costs, as measured: docs/results/resources.md, docs/results/speed.md.

Two estimates read it. stages/needs.py says whether a stage fits this machine, and knows the task; config/resources.py
says what its job asks a cluster for, and is worked out by Snakemake for every job, so without torch. Nothing here adds
a margin.
"""

from __future__ import annotations

from bmd_pipeline.config.run import RunConfig

NATIVE = "native"
"""What a task without a simulator says its simulator is."""
PLAYERS = ("collect", "pretrain", "discover", "finetune", "evaluate", "curve", "validation", "film")
"""Commands that play episodes."""

PROCESS_MB = 400.0
"""Python with torch and what else a stage imports."""
SIMULATOR_MB = 250.0
"""What a simulator adds to the process that steps it."""
WORKER_MB = 400.0
"""One worker process of a simulator."""
DECISION_MB = 0.0045
"""One decision in a rollout and in the batches made of it."""
STEP_MB = 0.00035
"""One control step of the episodes that are judged at once."""
EPISODE_MB = 0.0015
"""Rows and path of one judged episode."""

STEPS_PER_S = {NATIVE: 50_000.0, "ManiSkill": 1400.0, "MuJoCo": 370.0}
"""Control steps of one core by simulator. ManiSkill's is that of Lift and Reach, its slowest tasks."""
EXPERT_SHARE = 0.18
"""Share of them that is left while a scripted expert plays; PushT's plans, others take less."""


def steps_per_s(simulator: str) -> float:
    """Control steps of one core; a simulator that was not measured counts as the slowest."""
    return STEPS_PER_S.get(simulator, min(STEPS_PER_S.values()))


def processes_mb(stage: str, simulator: str, workers: int) -> float:
    """Memory of a stage's processes, before they hold anything.

    Args:
        stage: its command.
        simulator: what steps the task.
        workers: cores; a simulator has as many processes, if more than one.
    """
    if stage not in PLAYERS or simulator == NATIVE:
        return PROCESS_MB
    if stage == "film" or workers == 1:  # films are played in one process
        return PROCESS_MB + SIMULATOR_MB
    return PROCESS_MB + workers * WORKER_MB


def rollout_mb(config: RunConfig, stage: str, decisions: float) -> float:
    """Memory of a rollout that a stage learns from or selects by, with so many decisions in an episode."""
    envs = {
        "pretrain": config.pretrain.selection.episodes,
        "discover": config.discover.num_envs,
        "finetune": config.finetune.num_envs,
    }
    return envs.get(stage, 0) * decisions * DECISION_MB


def discovered_episodes(config: RunConfig) -> int:
    """Episodes that a discovery plays, beside those it trains on: held-out ones of the base policy and under codes; in
    the coded form also those for each strength of the codes and for hindsight, in the published one exploring ones."""
    settings = config.discover
    if settings.form == "published":
        return 3 * settings.heldout_episodes + settings.num_envs
    return (2 + len(settings.teaching.strengths)) * settings.heldout_episodes + settings.hindsight_episodes


def judged_mb(config: RunConfig, stage: str, horizon: int) -> float:
    """Memory of the episodes that a stage judges: those that it holds step by step, and what is kept of all."""
    settings = config.evaluate
    kept = {"evaluate": settings.episodes, "curve": config.curve.episodes, "validation": settings.episodes}.get(
        stage, 0
    )
    # validation compares whole rollouts: the base policy's two, and one of a seed's codes
    held = 3 * kept if stage == "validation" else min(settings.num_envs, kept)
    return held * horizon * STEP_MB + kept * EPISODE_MB


def validated_steps(config: RunConfig, horizon: int) -> int:
    """Control steps that `validation` plays: the base policy twice, each seed's codes, and under each disturbance."""
    settings = config.validation
    changed = [int(changes.get("horizon", horizon)) for changes in settings.dynamics.values()]
    plain = len(settings.disturbances()) - len(changed)
    return round_up(config, config.evaluate.episodes) * (
        2 * horizon + len(config.seeds) * ((1 + plain) * horizon + sum(changed))
    )


def evaluated_episodes(config: RunConfig) -> int:
    """Episodes that `evaluate` plays of a policy with codes, those on selection seeds among them."""
    together = min(config.evaluate.num_envs, config.evaluate.episodes)
    return sum(-(-n // together) * together for n in (config.evaluate.selection_episodes, config.evaluate.episodes))


def round_up(config: RunConfig, episodes: int) -> int:
    """Episodes that are played where so many are judged: whole rounds of `evaluate.num_envs`."""
    together = min(config.evaluate.num_envs, episodes)
    return -(-episodes // together) * together
