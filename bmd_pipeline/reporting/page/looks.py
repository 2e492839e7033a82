"""Colours of a page: those of the figures, one per policy and one per mode, for light and dark, as CSS variables."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.colors import to_hex, to_rgb

from bmd_pipeline.reporting.style import BLACK, GREY, method_style, mode_colours

DARK_PAPER, DARK_INK = "#15171a", "#ece9e2"
"""Background and text in dark mode."""

_MIN_CONTRAST = 4.5


def colour_sheet(policies: Sequence[str], modes: Sequence[str]) -> str:
    """CSS that defines `--policy-<i>`, `--mode-<i>` and `--failed`; names of policies and modes stay out of it."""
    colours = {f"--policy-{i}": method_style(name).colour for i, name in enumerate(policies)}
    colours |= {f"--mode-{i}": colour for i, colour in enumerate(mode_colours(modes).values())}
    colours["--failed"] = GREY
    light = _declare(colours)
    dark = _declare({name: on_dark(colour) for name, colour in colours.items()})
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
        return DARK_INK
    mixed = colour
    for tenths in range(11):
        red, green, blue = (channel + tenths / 10 * (1 - channel) for channel in to_rgb(colour))
        mixed = to_hex((red, green, blue))
        if contrast(mixed, DARK_PAPER) >= _MIN_CONTRAST:
            break
    return mixed


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21. Source: WCAG 2.2, relative luminance."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _declare(colours: dict[str, str]) -> str:
    return " ".join(f"{name}: {colour};" for name, colour in colours.items())
