"""What each stage depends on, as a slice of the settings and its hash.

A rule's params are exactly its stage's slice, so that editing λ reruns fine-tuning and what follows but
never collection. `execution` is in no slice: cores and trackers change no result, and another device only its rounding
and its random draws. Where the physics is computed is in `task`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, get_args

from bmd_pipeline.config.methods import uses_modes
from bmd_pipeline.config.run import RunConfig

Stage = Literal[
    "collect",
    "pretrain",
    "discover",
    "finetune",
    "evaluate",
    "curve",
    "compare",
    "verdict",
    "sweep",
    "grid",
    "pool",
    "validation",
]
STAGES: tuple[Stage, ...] = get_args(Stage)

_EVIDENCE: dict[str, tuple[str, ...]] = {
    "curve": ("evaluate",),
    "compare": ("methods", "seeds", "evaluate"),
    "verdict": ("methods", "seeds", "evaluate", "compare"),
    "sweep": ("evaluate", "compare"),
    "validation": ("seeds", "evaluate"),
    "grid": ("methods", "seeds", "evaluate", "compare"),
    "pool": ("methods", "seeds", "evaluate"),
}
"""Stages that nothing is trained on, with the settings beside their own that they go by."""

_UNDISTURBED = ("collect", "pretrain", "discover", "validation")
"""Stages in the demonstrations' own world."""

_OWNERS = {"denoiser": "dppo", "residual": "res"}
"""Parts of `finetune` that one method alone reads."""


def stage_slice(config: RunConfig, stage: Stage, method: str | None = None) -> dict[str, Any]:
    """The settings that a stage's result depends on, ready for JSON.

    Args:
        config: the whole run.
        stage: one of `STAGES`.
        method: fine-tuning method; plain ones know nothing of the intrinsic reward. None: all of it.
    """
    values = _dump(config)
    if stage == "collect":  # experts play on the CPU
        values["task"].pop("physics", None)
    if stage in _UNDISTURBED:
        values["task"]["env"].pop("disturbance", None)
    chosen = {name: values[name] for name in ("task", "seed", stage, *_EVIDENCE.get(stage, ()))}
    if stage == "discover":  # the bound on log q is one setting for both stages; λ is not among them
        chosen["finetune"] = {"regulariser": {"floor": values["finetune"]["regulariser"]["floor"]}}
    if stage == "finetune":
        plain = method is not None and not uses_modes(method)
        others = {name for name, owner in _OWNERS.items() if method is not None and not method.startswith(owner)}
        steered = method is None or method.startswith("dsrl") or (not plain and config.discover.form == "published")
        unread = {"regulariser", "feed_codes"} if plain else set()
        unread |= set() if steered else {"readout", "initial_std", "target_entropy"}
        for name in others | unread:
            del chosen["finetune"][name]
        shared = (("steering",) if steered else ()) + (() if plain else ("form",))
        chosen["discover"] = {name: values["discover"][name] for name in shared}
    for name in ("checkpoint_interval", "log_interval"):  # they decide what is kept and told, not what is computed
        chosen[stage].pop(name, None)
    return chosen


def stage_hash(config: RunConfig, stage: Stage, method: str | None = None) -> str:
    """SHA-256 of a stage's slice, as hex."""
    return hash_values(stage_slice(config, stage, method))


def config_hash(config: RunConfig) -> str:
    """SHA-256 of everything that decides what a run computes, up to its evaluation, as hex."""
    values = _dump(config)
    return hash_values({name: part for name, part in values.items() if name not in ("execution", *_EVIDENCE)})


def _dump(config: RunConfig) -> dict[str, Any]:
    """All settings as JSON values, without those that decide nothing here.

    Those of stages whose output was brought along are left out, and so is where it was brought from: its content
    reaches the stages that read it as an input. So is the choice of physics where it is the usual one: what was made
    before there was a choice counts as made.
    """
    values = config.model_dump(mode="json")
    if values["task"]["physics"] == "cpu":
        del values["task"]["physics"]
    has_policy = values["pretrain"].pop("policy_folder") is not None
    has_demos = values["collect"].pop("store") is not None
    if has_policy:
        values["pretrain"] = {}
    if has_policy or has_demos:
        values["collect"] = {}
    return values


def hash_values(values: dict[str, Any]) -> str:
    """SHA-256 of JSON values; the order of keys doesn't matter."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
