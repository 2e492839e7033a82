"""Names of fine-tuning methods and of policies before fine-tuning, and what the names say."""

from collections.abc import Iterable, Sequence

from bmd_pipeline.errors import ConfigError, suggest

METHODS = ("dppo", "res", "dsrl", "fbc", "dppo-bmd", "res-bmd", "dsrl-bmd", "fbc-bmd")
"""Fine-tuning methods; `-bmd` adds mode codes and, but to `fbc`, the mutual-information regulariser."""
UNTRAINED = ("res", "dsrl")
"""Families that leave the policy's own weights as they are."""
PRETRAINED = "pretrained"
"""What evaluation calls the pre-trained policy."""
TAUGHT = "taught"
"""What evaluation calls the policy with codes before fine-tuning: modes were discovered, and can be commanded."""
EXPERT = "expert"
"""What `play` calls the task's expert, in the place of a method."""


def check_method(method: str, *, evaluating: bool = False) -> None:
    """Checks a method's name; evaluation also knows the policies before fine-tuning.

    Raises:
        ConfigError: there is no such method; it suggests the nearest.
    """
    known = (PRETRAINED, TAUGHT, *METHODS) if evaluating else METHODS
    if method not in known:
        raise ConfigError(f"unknown method {method!r}; {suggest(method, known)}")


def uses_modes(method: str) -> bool:
    """Whether a policy builds on discovered modes."""
    return method == TAUGHT or method.endswith("-bmd")


def method_family(method: str) -> str:
    """What a method trains, `dppo`, `res`, `dsrl` or `fbc`: its name without `-bmd`."""
    return method.removesuffix("-bmd")


def is_finetuned(method: str) -> bool:
    """Whether a policy is the result of fine-tuning, and not one that fine-tuning starts from."""
    return method not in (PRETRAINED, TAUGHT)


def order_policies(policies: Iterable[str], methods: Sequence[str]) -> list[str]:
    """Policies as they are shown: pre-trained, taught, the methods as they are configured, then others by name."""
    known = (PRETRAINED, TAUGHT, *methods)
    return sorted(policies, key=lambda name: (known.index(name) if name in known else len(known), name))


def compared_policies(methods: Sequence[str], form: str) -> tuple[str, ...]:
    """The policies that results/<Task>/eval.json compares; in the coded `form` also the one that was only taught."""
    taught = (TAUGHT,) if form == "coded" and any(uses_modes(method) for method in methods) else ()
    return (PRETRAINED, *taught, *methods)


def list_pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Every `-bmd` method among some, with its plain counterpart where that is among them too."""
    pairs = [(method, method_family(method)) for method in methods if method.endswith("-bmd")]
    return [(method, plain) for method, plain in pairs if plain in methods]


def paired_methods(methods: Sequence[str]) -> list[str]:
    """The methods among some that a verdict is about: every pair of a `-bmd` method and its plain counterpart.

    Raises:
        ConfigError: there is no such pair.
    """
    pairs = list_pairs(methods)
    if not pairs:
        raise ConfigError(f"methods: a verdict needs a -bmd method and its plain counterpart, got {', '.join(methods)}")
    return [method for method in methods if any(method in pair for pair in pairs)]
