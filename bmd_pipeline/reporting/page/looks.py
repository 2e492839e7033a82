"""Colours of a page in light and dark, as CSS variables: its paper and ink, and those of the figures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.colors import to_hex, to_rgb

from bmd_pipeline.reporting.style import BLACK, GREY, method_style, mode_colours

LIGHT = {
    "paper": "#ffffff",
    "wash": "#f7f6f3",
    "ink": "#1d1c1a",
    "soft": "#5d5b56",
    "line": "#e2dfd8",
    "strong": "#b9b5ac",
    "good": "#00704f",
    "bad": "#b34700",
    "open": "#6d6a64",
}
DARK = {
    "paper": "#15171a",
    "wash": "#1c1f23",
    "ink": "#ece9e2",
    "soft": "#aaa69d",
    "line": "#2d3136",
    "strong": "#555a61",
    "good": "#4fc59f",
    "bad": "#f19157",
    "open": "#aaa69d",
}
"""Background, background of figures, text, quieter text, thin and strong lines, and the tones of verdicts."""

_MIN_CONTRAST = 4.5


def colour_sheet(policies: Sequence[str], modes: Sequence[str]) -> str:
    """CSS that defines the colours, `--policy-<i>` and `--mode-<i>`; names of policies and modes stay out of it."""
    drawn = {f"policy-{i}": method_style(name).colour for i, name in enumerate(policies)}
    drawn |= {f"mode-{i}": colour for i, colour in enumerate(mode_colours(modes).values())}
    drawn["failed"] = GREY
    light = _declare("light", LIGHT | drawn)
    dark = _declare("dark", DARK | {name: on_dark(colour) for name, colour in drawn.items()})
    return (
        f":root {{ {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme]) {{ {dark} }} }}\n"
        f':root[data-theme="dark"] {{ {dark} }}\n'
        f"@media print {{ :root:root:root {{ {light} }} }}\n"
    )


def on_dark(colour: str) -> str:
    """The same hue for a dark page: black becomes its ink, others are mixed with white until they stand out.

    Source: WCAG 2.2, contrast (minimum).
    """
    if colour == BLACK:
        return DARK["ink"]
    mixed = colour
    for tenths in range(11):
        red, green, blue = (channel + tenths / 10 * (1 - channel) for channel in to_rgb(colour))
        mixed = to_hex((red, green, blue))
        if contrast(mixed, DARK["paper"]) >= _MIN_CONTRAST:
            break
    return mixed


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21. Source: WCAG 2.2, relative luminance."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _declare(scheme: str, colours: dict[str, str]) -> str:
    return " ".join([f"color-scheme: {scheme};", *(f"--{name}: {colour};" for name, colour in colours.items())])
