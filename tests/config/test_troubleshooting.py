"""docs/troubleshooting.md quotes messages as the code has them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUOTED = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
SOURCE = "".join(path.read_text() for path in (ROOT / "bmd_pipeline").rglob("*.py"))
JOINED = re.sub(r'"\s*\n\s*f?"', "", SOURCE)  # texts over several lines


@pytest.mark.parametrize("message", QUOTED)
def test_the_message_exists(message: str) -> None:
    assert message in JOINED


def test_messages_were_found() -> None:
    assert len(QUOTED) > 15
