"""requirements.lock: what it pins can be installed wherever the package says that it runs."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
FIRST_RELEASES = ("3.11.0", "3.12.0")
"""Systems keep the early releases of a Python: Debian 12 has 3.11.2."""


def test_what_is_pinned_asks_for_no_later_release_of_python() -> None:
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    asked = {name: metadata.metadata(name).get("Requires-Python") for name in pins}
    assert len(asked) > 100
    too_new = {name: text for name, text in asked.items() if text and set(FIRST_RELEASES) - set(_allowed(text))}
    assert too_new == {}


def _allowed(specifiers: str) -> list[str]:
    return list(SpecifierSet(specifiers).filter(FIRST_RELEASES))
