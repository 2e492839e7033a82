"""Pages in a real headless Chromium: they load quietly, ask for nothing, and their controls change what is drawn."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.reporting.report import build_report, build_summary, load_results
from tests.reporting.made_up import MadeUpRun
from tests.reporting.made_up_evidence import write_evidence
from tests.reporting.test_render import HOSTILE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install one, e.g. `apt-get install chromium`"),
]

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@dataclass
class Visit:
    """An opened page, and what went wrong while it was open.

    Attributes:
        page: the browser's page.
        complaints: console errors and uncaught exceptions.
        requests: addresses that it asked for beside itself.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def picture(self, selector: str) -> str:
        """What a canvas shows now."""
        return str(self.page.locator(selector).evaluate("canvas => canvas.toDataURL()"))

    def check(self) -> None:
        """Fails if anything went wrong."""
        assert self.complaints == []
        assert self.requests == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of four methods with all evidence, its summary, and both of a task with hostile names."""
    root = tmp_path_factory.mktemp("pages")
    run = MadeUpRun(root, methods=("dsrl", "res", "dsrl-bmd", "res-bmd"), axes=("turn (rad)", "distance (m)"))
    write_evidence(run)
    clips = run.folder / "videos"
    clips.mkdir()
    (clips / "clip.gif").write_bytes(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;")
    hostile = MadeUpRun(root, HOSTILE, seeds=(0,), modes=(f"{HOSTILE}1", f"{HOSTILE}2"), axes=(HOSTILE, HOSTILE))
    (root / "report.html").write_text(build_report(run.load()))
    (root / "hostile.html").write_text(build_report(hostile.load()))
    (root / "summary.html").write_text(build_summary(load_results(run.layout, ["Toy", HOSTILE])))
    return root


def visit(browser: Any, path: Path, **options: Any) -> Visit:
    """Opens a file and waits until its script has run."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    page = context.new_page()
    page.set_default_timeout(60_000)
    seen = Visit(page)
    page.on("console", lambda message: seen.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    own = path.as_uri()
    page.on(
        "request",
        lambda request: seen.requests.append(request.url) if not request.url.startswith((own, "data:")) else None,
    )
    page.goto(own)
    page.wait_for_selector("html[data-ready]", state="attached")
    return seen


@pytest.fixture
def seen(browser: Any, folder: Path) -> Iterator[Visit]:
    """The report, on a desktop; whatever the test does, nothing may go wrong."""
    opened = visit(browser, folder / "report.html")
    yield opened
    opened.check()
    opened.page.context.close()


def test_every_section_is_drawn(seen: Visit) -> None:
    count = seen.page.locator
    assert count("#outcome .drawn svg").count() == 1
    assert count("#paths .drawn svg").count() == 1
    assert count("#curves .drawn svg").count() == 2 + 1  # families, and pre-training
    assert count("#codes .drawn svg").count() == 2
    assert count("#validation .drawn svg").count() == 1
    assert count("#grid .drawn svg").count() == 1
    assert count("#verdict article").count() == 3
    assert count("#videos img").count() == 1
    assert "turn (rad)" in count("#paths .prose").inner_text()


def test_replay_follows_its_selectors(seen: Visit) -> None:
    page = seen.page
    pictures = {seen.picture("#replay-canvas")}
    for field_name, value in (("policy", "1"), ("seed", "1"), ("mode", "0"), ("policy", "3"), ("code", "0")):
        page.locator(f"#replay-{field_name}").select_option(value)
        pictures.add(seen.picture("#replay-canvas"))
    assert len(pictures) == 6
    assert "dsrl-bmd, seed 1:" in page.locator("#replay-note").inner_text()
    assert page.locator("#replay-code").is_enabled()
    page.locator("#replay-policy").select_option("0")
    assert page.locator("#replay-code").is_disabled()  # the pre-trained policy has no codes


def test_replay_plays_pauses_and_seeks(seen: Visit) -> None:
    page = seen.page
    time = page.locator("#replay-time")
    end = int(time.get_attribute("max"))
    assert time.input_value() == str(end)
    page.get_by_role("button", name="Play").click()
    for _ in range(200):  # the page's security policy forbids the browser to evaluate a condition by itself
        if 0 < int(time.input_value()) < end:
            break
        page.wait_for_timeout(25)
    page.get_by_role("button", name="Pause").click()
    stopped = time.input_value()
    assert 0 < int(stopped) <= end
    picture = seen.picture("#replay-canvas")
    page.wait_for_timeout(150)
    assert seen.picture("#replay-canvas") == picture
    time.focus()
    page.keyboard.press("Home")
    assert page.locator("#replay-step").inner_text() == f"step 0 of {end}"
    assert seen.picture("#replay-canvas") != picture


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("name", ["report.html", "summary.html"])
def test_nothing_is_wider_than_the_screen(browser: Any, folder: Path, name: str, width: int) -> None:
    opened = visit(browser, folder / name, viewport={"width": width, "height": 800})
    opened.page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.check()


def test_on_paper_everything_is_open(seen: Visit) -> None:
    page = seen.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#replay").is_hidden()
    assert page.locator("#record table").is_visible()
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#record table").is_hidden()


@pytest.mark.parametrize("name", ["hostile.html", "summary.html"])
def test_hostile_names_do_nothing(browser: Any, folder: Path, name: str) -> None:
    opened = visit(browser, folder / name)
    page = opened.page
    assert page.locator("img").count() == 0
    assert HOSTILE.replace("\u2028", "") in page.locator("body").inner_text().replace("\u2028", "")
    if name == "hostile.html":
        assert HOSTILE in page.locator("#replay-mode").inner_html().replace("&lt;", "<").replace("&gt;", ">").replace(
            "&amp;", "&"
        )
    opened.check()


def test_the_security_policy_stops_what_escaping_would_miss(browser: Any, folder: Path) -> None:
    opened = visit(browser, folder / "report.html")
    opened.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x: onerror=\"window.pwned=1\">')")
    opened.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned=1'}))"
    )
    assert opened.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert opened.page.evaluate("window.pwned") is None
    assert any("Content Security Policy" in text for text in opened.complaints)


def test_summary_draws_and_links(browser: Any, folder: Path) -> None:
    opened = visit(browser, folder / "summary.html")
    assert opened.page.locator("#pictures .drawn svg").count() == 2
    opened.check()
