"""Values, texts and documents that nobody should send, drawn at random."""

from __future__ import annotations

import copy
import random
import string
from typing import Any

SCALARS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 7, 2**31, -(2**63), 2**64, 10**30, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf")),
    *(True, False, None, "", " ", "x", "0", "1e9999", "null", "ä☃", "'", '"', "\\", "a" * 5000, "../../x", "/"),
    *(10**400, "$\\frac{$", "010", "3_0", "yes"),
    *("x; touch pwned", "$(touch pwned)", "<script>alert(1)</script>", "{{7*7}}", "%s%n", "-", "--help", "\t", ".."),
)
YAML = (
    *("&a [*a]", "[&a {b: 1}, *a]", "<<: &a {b: *a}"),
    *("*x", "!!python/object/apply:os.system [touch pwned]", "!!binary aGk=", "{a: {a: 1}}", "? [x]: 1"),
    *("[" * 60, "- - - 1", "2001-13-45", "1:30:00", "0x_", "0o8", ".inf", "~", "|\n  x", "%YAML 9.9", "{1: 2}"),
    *("<<: {a: 1}", "9" * 5000, "[1, 2", "'", "\x00", "\ufeff", "!!set {a}", "2024-01-01", "{seed: 1, seed: 2}"),
    *("yes", "off", "010", "3_0", "0x" + "f" * 5000, "!!int 1:30", "!!int '9_9'"),
    *("=", "@", "`", "- [", "? ?", "!!float x", "!!int 0x", "!<x> y"),
)


def scalar(rng: random.Random) -> Any:
    """A plain value: an edge of something, or random text."""
    if rng.random() < 0.2:
        return "".join(rng.choices(string.printable, k=rng.randrange(12)))
    return rng.choice(SCALARS)


def value(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value, rarely a deep or a wide one."""
    kind = rng.random()
    if depth > 3 or kind < 0.7:
        return scalar(rng)
    if kind < 0.72 and depth == 0:
        nested: Any = 1
        for _ in range(rng.choice((10, 60, 150))):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        return nested
    if kind < 0.86:
        return [value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 5)))]
    return {str(scalar(rng)): value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2)))}


def mutate(rng: random.Random, document: Any) -> Any:
    """A copy of a JSON document that is wrong in one to three places."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = _mutate_once(rng, document)
    return document


def _mutate_once(rng: random.Random, document: Any) -> Any:
    places = list(_places(document))
    if not places or rng.random() < 0.02:
        return value(rng)
    holder, key = rng.choice(places)
    what = rng.randrange(6)
    if what == 0 and isinstance(holder, dict):
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[str(scalar(rng))] = value(rng)
    elif what == 2:
        holder[key] = copy.deepcopy(_get(*rng.choice(places)))  # what belongs somewhere else
    elif what == 3 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice((-1, 0, 2, 1000, 1e30, 1.5)) + rng.choice((0, 1, -1))
    elif what == 4 and isinstance(holder, list):
        holder.append(holder[key]) if rng.random() < 0.5 else holder.pop(key)
    else:
        holder[key] = value(rng)
    return document


def _places(node: Any) -> Any:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, part in pairs:
        yield node, key
        yield from _places(part)


def _get(holder: Any, key: Any) -> Any:
    return holder[key]


def scramble(rng: random.Random, content: bytes) -> bytes:
    """A file's content, truncated, flipped, doubled or with a piece of noise in it."""
    at = rng.randrange(len(content) + 1)
    return rng.choice(
        (
            content[:at],
            content[:at] + rng.randbytes(rng.choice((1, 4, 64))) + content[at:],
            content[:at] + rng.randbytes(min(8, len(content) - at)) + content[at + 8 :],
            content + content,
            b"",
            rng.randbytes(rng.choice((1, 100, 5000))),
        )
    )
