"""docs/tasks.md says what the registry and config/tasks/ say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from bmd_pipeline.config.load import load_config, read_settings
from bmd_pipeline.tasks.registry import get_entry, list_entries, load_labellings, make_spec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tasks.md").read_text()
ROWS = {
    cells[0]: cells[1:] for cells in re.findall(r"^\| ([A-Z]\w+)" + r" \| ([^|]+?)" * 7 + r" \|$", PAGE, re.MULTILINE)
}


def test_every_task_has_a_row_or_is_named_as_a_variant() -> None:
    # A variant shares its task's package; other tests may have registered variants of their own.
    shipped = {entry.package for entry in list_entries() if entry.package.startswith("bmd_pipeline.")}
    shipped.remove(get_entry("Gym").package)  # a template
    assert {get_entry(name).package for name in ROWS} == shipped
    assert len(ROWS) == len(shipped)
    files = (ROOT / "config" / "tasks").glob("*.yaml")
    assert [path for path in files if "extends" in read_settings(path) and f"`{path.stem}`" not in PAGE] == []


@pytest.mark.parametrize("name", [name for name in ROWS if get_entry(name).simulator != "native"])
def test_a_picture_shows_the_modes_of_a_simulated_task(name: str) -> None:
    (picture,) = re.findall(rf"!\[{name}'s .*\]\((tasks/\w+\.webp)\)", PAGE)
    with Image.open(ROOT / "docs" / picture) as image:
        assert image.format == "WEBP"
    assert (ROOT / "docs" / picture).stat().st_size < 150_000


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_the_task_is_like(name: str) -> None:
    simulator, _, modes, obs, action, steps, extra = ROWS[name]
    entry = get_entry(name)
    spec = make_spec(name, load_config(name, config_dir=ROOT / "config").task.env)
    assert (simulator, extra.replace("–", "")) == (entry.simulator, entry.extra or "")
    numbers = [int(cell.split(":")[0]) for cell in (modes, obs, action, steps)]
    assert numbers == [len(load_labellings(name)[0].modes), spec.obs_dim, spec.action_dim, spec.horizon]
