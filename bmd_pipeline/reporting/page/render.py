"""From a template and its values to one self-contained HTML file.

Nothing in a page may reach beyond it: styles, scripts and data are written into it, and its security policy
refuses every request and every script but the page's own. Values are escaped by the template engine, data by `tojson`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bmd_pipeline import __version__
from bmd_pipeline.reporting.page import numbers

_ASSETS = files("bmd_pipeline.reporting.page") / "assets"

SCRIPTS = (
    "elements",
    "scales",
    "chart",
    "theme",
    "labels",
    "scatter",
    "paths",
    "panels",
    "curves",
    "codes",
    "sweep",
    "replay",
    "start",
)
"""Parts of the script in the order in which they are joined; they share one scope."""

_FILTERS = (
    "percent",
    "percent_range",
    "fixed",
    "interval",
    "grouped",
    "counted",
    "listed",
    "even_modes",
    "p_value",
    "duration",
    "signed",
)


def render_page(template: str, *, data: dict[str, Any], colours: str, **values: Any) -> str:
    """Fills a template.

    Args:
        template: its name below assets, without suffix.
        data: JSON values for the scripts.
        colours: CSS that defines the colours of policies and modes.
        values: what the template shows.
    """
    script = _join_scripts()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(f"{template}.html.j2")
        .render(
            **values,
            version=__version__,
            style=_read("page.css") + colours,
            script=script,
            script_hash=f"sha256-{digest}",
            data=data,
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bmd_pipeline.reporting.page", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False, "allow_nan": False}
    environment.filters |= {name: getattr(numbers, name) for name in _FILTERS}
    environment.filters["pretty"] = functools.partial(json.dumps, indent=2, ensure_ascii=False)
    return environment


@functools.cache
def _join_scripts() -> str:
    parts = "\n".join(_read(f"script/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _read(name: str) -> str:
    return _ASSETS.joinpath(name).read_text(encoding="utf-8")
