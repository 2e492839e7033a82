"""What `mkdocs` makes beside the files in docs/: the first page from README.md, and references from the code itself."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from bmd_pipeline.cli.main import app
from bmd_pipeline.config.documented import describe_fields
from bmd_pipeline.config.load import find_model, list_paths
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.tasks.registry import list_entries, options_model

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / ".onnxruntime-web" / "package" / "dist"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    made = {
        "index.md": (ROOT / "README.md").read_text().replace("](docs/", "]("),
        "cite.md": _cite(),
        "reference/settings.md": "\n".join(_describe_settings()),
        "reference/commands.md": "\n".join(_describe_commands()),
        "reference/python.md": "# Python\n\n::: bmd_pipeline.api\n",
    }
    made["site.css"] = "td:first-child code { word-break: normal; }\n"  # names are broken nowhere
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Puts the runtime of the playground beside it, where `make playground` has fetched it."""
    target = Path(config.site_dir) / "playground" / "ort"
    for source in RUNTIME.glob("*"):
        target.mkdir(exist_ok=True)
        shutil.copy(source, target)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files that are no part of the site become their names."""
    folder = Path(page.file.src_uri).parent

    def keep_inside(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = _normalise(Path(*Path("/", folder, target).parts[1:]))
        if path == "README.md":  # the first page
            return f"[{text}]({os.path.relpath('index.md', folder)}{anchor or ''})"
        inside = files.get_file_from_path(path) is not None
        return match[0] if inside or image else text

    return "".join(
        part if part.startswith("```") else _LINK.sub(keep_inside, part)
        for part in re.split(r"(```.*?```)", markdown, flags=re.DOTALL)
    )


def _normalise(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part not in ("..", "."):
            parts.append(part)
    return "/".join(parts)


def _cite() -> str:
    citation = (ROOT / "CITATION.cff").read_text()
    return f"# How to cite\n\nThis file stands in the repository's root:\n\n```yaml\n{citation}```\n"


def _describe_settings() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Every setting, its default and what it means; `config/tasks/` has what each task changes."
    yield "[How to change them](../configuration.md)."
    for name in RunConfig.model_fields:
        group = find_model(RunConfig, (name,))
        if group is None:
            continue
        yield from ("", f"## {name}", "", _say(group.__doc__ or ""), "")
        yield from _tabulate(group, f"{name}.")
    yield from ("", "## Beside the groups", "")
    yield from _tabulate(RunConfig, "", groups=False)
    yield from ("", "## Settings of the tasks", "")
    for entry in list_entries():
        model = options_model(entry.name)
        if model.model_fields:
            yield from (f"### {entry.name}", "", f"{entry.summary}.", "", *_tabulate(model, "task.env."), "")


def _tabulate(model: type[BaseModel], prefix: str, *, groups: bool = True) -> Iterator[str]:
    yield "| setting | default | meaning |"
    yield "|---|---|---|"
    for path in list_paths(model):
        *parents, last = path.split(".")
        if parents and not groups:
            continue
        group = find_model(model, tuple(parents)) or model
        field = group.model_fields[last]
        default = field.get_default(call_default_factory=True)
        shown = "must be given" if default is PydanticUndefined else f"`{_show(default)}`"
        yield f"| `{prefix}{path}` | {shown} | {_say(describe_fields(group).get(last, ''))} |"


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if value == "":
        return "''"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value) if isinstance(value, tuple) else value).replace("|", "\\|")


def _say(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("{", "&#123;")


def _describe_commands() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield "What `bmd-pipeline COMMAND --help` says. Exit status: 0 done, 1 our fault or the machine's, 2 yours to put"
    yield "right, 75 stopped with its progress saved, 130 interrupted."
    command = typer.main.get_command(app)
    yield from _describe_group(command, "bmd-pipeline")


def _describe_group(group: Any, name: str) -> Iterator[str]:
    for child in group.commands.values():
        full = f"{name} {child.name}"
        if hasattr(child, "commands"):
            yield from ("", f"## {full}", "", child.help or "")
            yield from _describe_group(child, full)
            continue
        yield from ("", f"## {full}", "", child.help or "", "")
        yield from (*(f"    {example}" for example in re.findall(r"Example: `([^`]+)`", child.epilog or "")), "")
        yield "| option | meaning |"
        yield "|---|---|"
        for parameter in child.params:
            names = ", ".join(f"`{option}`" for option in parameter.opts)
            if parameter.param_type_name == "argument":
                names = f"`{parameter.metavar or parameter.name.upper()}`"
            yield f"| {names} | {_say(getattr(parameter, 'help', None) or '')} |"
