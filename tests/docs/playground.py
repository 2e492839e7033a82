"""The built playground in a real Chromium: a click, an episode, the way that was asked for; a post in the other's way.

python -m tests.docs.playground       # after `mkdocs build`; part of `make playground`
"""

import functools
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS, SITE = ROOT / "docs", ROOT / "site"
WAIT_MS = 60_000
LEFT, LOW, WIDTH = 0.1, -0.33, 0.8  # of the canvas, in metres


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serves a folder on this machine; yields the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def check(page: Any, address: str) -> list[str]:
    """Visits the playground; returns what is wrong."""
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"error in the page: {error}"))
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "blob:", "data:")) else wrong.append(request.url),
    )
    page.goto(f"{address}/playground/")
    page.wait_for_selector("#said[data-ready=yes]", timeout=WAIT_MS)
    canvas = page.locator("#course")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()

    def place(x: float, y: float) -> tuple[float, float]:
        scale = box["width"] / WIDTH
        return box["x"] + (x - LEFT) * scale, box["y"] + box["height"] - (y - LOW) * scale

    def outcome() -> tuple[str, str]:
        page.wait_for_selector("#said[data-told]", timeout=WAIT_MS)
        said = page.locator("#said")
        found = said.get_attribute("data-plain"), said.get_attribute("data-told")
        said.evaluate("said => { delete said.dataset.told; }")
        return found

    for (x, y), way in (((0.71, 0.26), "L-M-4"), ((0.355, 0.08), "L-L-4"), ((0.28, 0.26), "L-L-1")):
        page.mouse.click(*place(x, y))
        plain, told = outcome()
        print(f"told {way}: {told}; plainly fine-tuned: {plain}")
        if told != f"arrived by {way}":
            wrong.append(f"told {way}, it {told}")
    page.mouse.click(*place(0.71, 0.26))  # and while that is played, another one, which counts
    page.wait_for_timeout(200)
    page.mouse.click(*place(0.28, 0.26))
    plain, told = outcome()
    if told != "arrived by L-L-1":
        wrong.append(f"told L-L-1 while another way was played, it {told}")
    taken = plain.removeprefix("arrived by ")
    blocked = {"1": 0.28, "2": 0.425, "3": 0.575, "4": 0.72}[taken[-1]]
    page.mouse.move(*place(0.5, 0.26))
    page.mouse.down()
    page.mouse.move(*place(blocked, 0.26), steps=5)
    page.mouse.up()
    plain, told = outcome()
    print(f"a post in the way {taken}: told L-L-1, {told}; plainly fine-tuned: {plain}")
    if plain != "crashed" or told != "arrived by L-L-1":
        wrong.append("with a post in the way of the plain policy, it must crash, and the other arrive")
    return wrong


def check_unserved(page: Any, address: str) -> list[str]:
    """Visits it where its runtime is missing; returns what is wrong."""
    page.route("**/ort/*", lambda route: route.abort())
    page.goto(f"{address}/playground/")
    page.wait_for_timeout(1000)
    said = page.locator("#said").inner_text()
    return [] if "can't be loaded" in said else [f"without its runtime it says: {said}"]


def main() -> int:
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with serve(SITE) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        wrong = check(browser.new_page(), address) + check_unserved(browser.new_page(), address)
        browser.close()
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
