"""Names of fine-tuning methods, as paths and commands use them."""

from __future__ import annotations

from bmd_pipeline.config.finetune import METHODS
from bmd_pipeline.config.messages import suggest
from bmd_pipeline.errors import ConfigError

PRETRAINED = "pretrained"
"""What evaluation calls the policy before fine-tuning."""


def check_method(method: str, *, evaluating: bool = False) -> None:
    """Checks a method's name; evaluation also knows the pre-trained policy.

    Raises:
        ConfigError: unknown method; suggests the nearest.
    """
    known = (PRETRAINED, *METHODS) if evaluating else METHODS
    if method not in known:
        raise ConfigError(f"unknown method {method!r}; {suggest(method, known)}")


def uses_modes(method: str) -> bool:
    """Whether a method builds on discovered modes."""
    return method.endswith("-bmd")
