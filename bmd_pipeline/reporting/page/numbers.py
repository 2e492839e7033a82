"""Numbers as people read them; thin no-break spaces keep them on one line."""

from __future__ import annotations

import math

_SPACE = "\u202f"
_TO = "\u2060–\u2060"
MINUS = "\u2212"


def percent(share: float, digits: int = 1) -> str:
    """A share as `97.2 %`; never rounded up to 100 or down to 0."""
    value = 100 * share
    unit = 10.0**-digits
    if 0 < value < 100:
        value = min(max(value, unit), 100 - unit)
    return f"{value:.{digits}f}{_SPACE}%"


def rough(share: float) -> str:
    """A share in whole percents, but with a decimal where almost nothing is missing: `99.9 %`."""
    return percent(share, 1 if 0.99 < share < 1 else 0)


def percent_range(low: float, high: float) -> str:
    """Shares as `89–97 %`, or as one if they look the same."""
    one, other = rough(low), rough(high)
    return one if one == other else f"{one.removesuffix(f'{_SPACE}%')}{_TO}{other}"


def number_range(low: float, high: float, digits: int = 1) -> str:
    """Numbers as `1.0–4.0`, or as one if they look the same."""
    one, other = fixed(low, digits), fixed(high, digits)
    return one if one == other else f"{one}{_TO}{other}"


def fixed(value: float, digits: int = 2) -> str:
    """A number with so many decimals and a real minus sign; never `−0.00`."""
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) != 0 else text.removeprefix("-")


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign."""
    text = fixed(value, digits)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def interval(low: float, high: float, digits: int = 2, scale: float = 1.0) -> str:
    """An interval as `[0.96, 0.98]`."""
    return f"[{fixed(scale * low, digits)}, {fixed(scale * high, digits)}]"


def grouped(count: float) -> str:
    """A count as `21 504`."""
    return f"{round(count):,}".replace(",", _SPACE)


def counted(count: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{grouped(count)} {noun}{'' if count == 1 else 's'}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def even_modes(entropy: float) -> str:
    """How many equally frequent modes have this entropy: exp(H)."""
    return fixed(math.exp(entropy), 1)


def p_value(p: float) -> str:
    """A p-value as `p < .001` or `p = .034`."""
    if p < 0.001:
        return "p < .001"
    return f"p = {p:.3f}".replace("0.", ".", 1) if p < 0.9995 else "p = 1"


def duration(seconds: float) -> str:
    """A duration as `48 s`, `12 min` or `3 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)}{_SPACE}s"
    return f"{minutes}{_SPACE}min" if minutes < 60 else f"{minutes // 60}{_SPACE}h {minutes % 60:02d}{_SPACE}min"
