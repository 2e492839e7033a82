"""Names of fine-tuning methods, as paths and commands use them."""

from __future__ import annotations

from collections.abc import Sequence

from bmd_pipeline.config.finetune import METHODS
from bmd_pipeline.config.messages import suggest
from bmd_pipeline.errors import ConfigError

PRETRAINED = "pretrained"
"""What evaluation calls the policy before fine-tuning."""
TAUGHT = "taught"
"""What evaluation calls the policy that has learnt its codes, before fine-tuning."""
UNTUNED = (PRETRAINED, TAUGHT)
"""The policies before fine-tuning."""
EXPERT = "expert"
"""What films call the task's demonstrator, in the place of a method."""


def check_method(method: str, *, evaluating: bool = False) -> None:
    """Checks a method's name; evaluation also knows the policies before fine-tuning.

    Raises:
        ConfigError: unknown method; suggests the nearest.
    """
    known = (*UNTUNED, *METHODS) if evaluating else METHODS
    if method not in known:
        raise ConfigError(f"unknown method {method!r}; {suggest(method, known)}")


def uses_modes(method: str) -> bool:
    """Whether a method builds on discovered modes."""
    return method.endswith("-bmd") or method == TAUGHT


def compared_policies(methods: Sequence[str], form: str) -> tuple[str, ...]:
    """The policies that results/<Task>/eval.json compares.

    Args:
        methods: fine-tuning methods.
        form: of the discovery; a coded policy is judged before it is fine-tuned, too.
    """
    taught = (TAUGHT,) if form == "coded" and any(uses_modes(method) for method in methods) else ()
    return (PRETRAINED, *taught, *methods)


def list_pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Every `-bmd` method among some, with its plain counterpart where that is among them too."""
    pairs = [(method, method.removesuffix("-bmd")) for method in methods if uses_modes(method)]
    return [(method, plain) for method, plain in pairs if plain in methods]


def judged_methods(methods: Sequence[str]) -> list[str]:
    """The methods among some that a verdict is about: every pair of a `-bmd` method and its plain counterpart.

    Raises:
        ConfigError: there is no such pair.
    """
    pairs = list_pairs(methods)
    if not pairs:
        raise ConfigError(f"methods: a verdict needs a -bmd method and its plain counterpart, got {', '.join(methods)}")
    return [method for method in methods if any(method in pair for pair in pairs)]
