"""Pages are self-contained, and nothing in their data is read as markup."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

import bmd_pipeline.reporting as package
from bmd_pipeline.config import hashing
from bmd_pipeline.config.hashing import source_hash
from bmd_pipeline.reporting.report import SCRIPTS, build_report, build_summary, load_results
from tests.reporting.made_up import MadeUpRun

ASSETS = Path(package.__file__).parent / "assets"
HOSTILE = "</script><img src=x onerror=pwned()>'\"&\u2028{{ 1 }} $_{x$"


@pytest.fixture(scope="module")
def pages(finished: MadeUpRun, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    hostile = MadeUpRun(
        tmp_path_factory.mktemp("hostile"),
        HOSTILE,
        seeds=(0,),
        modes=(f"{HOSTILE}1", f"{HOSTILE}2"),
        axes=(HOSTILE, HOSTILE),
    )
    summary = build_summary(load_results(hostile.layout, [HOSTILE]))
    return [build_report(finished.load()), build_report(hostile.load()), summary]


def test_nothing_points_outside(pages: list[str]) -> None:
    for page in pages:
        assert not re.search(r"\b(?:src|href)=\"(?!#|data:|[\w%/-]+/report\.html\")", page)
        assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest|WebSocket|//cdn|import\(", page)
        addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
        assert not addresses
        assert "default-src 'none'" in page


def test_only_the_pages_own_script_may_run(pages: list[str]) -> None:
    for page in pages:
        ((script),) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in page
        assert len(re.findall(r"<script\b", page)) == 2  # the other one is data
        assert len(re.findall(r"<style\b", page)) == 1  # figures bring none, which would hold for the whole page


def test_hostile_names_stay_text(pages: list[str]) -> None:
    for page in pages:
        assert "<img" not in page
        assert "onerror=pwned()>" not in page  # neither in markup nor inside the data
    assert "&lt;/script&gt;&lt;img src=x onerror=pwned()&gt;" in pages[1]
    assert "{{ 1 }}" in pages[1]  # nor as a template


def test_every_part_of_the_script_is_joined() -> None:
    assert sorted(SCRIPTS) == sorted(path.stem for path in (ASSETS / "script").glob("*.js"))
    for path in ASSETS.rglob("*.js"):
        text = path.read_text()
        assert len(text.splitlines()) <= 250
        assert "innerHTML" not in text  # texts become text nodes, never markup


def test_editing_an_asset_reruns_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_hash("report", "bmd_pipeline.tasks.gaussian_mixture")
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: real(path) + b" " * (path.name == "page.css"))
    for cached in (source_hash, hashing._content):
        cached.cache_clear()
    try:
        assert source_hash("report", "bmd_pipeline.tasks.gaussian_mixture") != before
    finally:
        for cached in (source_hash, hashing._content):
            cached.cache_clear()
