"""What the documents say can be typed: commands that there are, in lines that a screen holds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from bmd_pipeline.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *sorted(path for path in ROOT.glob("docs/**/*.md") if path.parent.name != "archive")]
PAGES += ROOT.glob("bmd_pipeline/cli/starter/*.md")
COMMAND = re.compile(r"^(?: {4}|\$ )?(?:\w+=\S+ )*bmd-pipeline (.+)$")
MARKUP = ("|", "<", "![", "<!--")
"""Rows of tables, HTML and pictures can't be broken."""
GENERATED = re.compile(r"<!-- (\w+): .*?<!-- end \1 -->", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_fit_a_screen(page: Path) -> None:
    lines = GENERATED.sub("", page.read_text(encoding="utf-8")).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(MARKUP)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_can_be_given(page: Path) -> None:
    is_output = page.name == "install.md"  # a transcript, whose refusals are meant
    for line in page.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        if (found := COMMAND.match(line)) and not is_output:
            read(shlex.split(found[1], comments=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_in_the_repository_too(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_every_picture_is_shown() -> None:
    pictures = [path for kind in ("png", "svg", "webp", "gif") for path in ROOT.glob(f"docs/**/*.{kind}")]
    shown = "".join(page.read_text(encoding="utf-8") for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    assert [path.name for path in pictures if path.name not in shown] == []


def read(words: list[str]) -> None:
    """Reads a command line as the command does, or raises."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    if not {"--help", "--version"} & {*words}:
        command.make_context(command.name, words)
