"""The playground's course in JavaScript against the package's, step by step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.avoid_point.course import MODES, Course
from tests.docs.playground import DOCS, serve

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install one, e.g. `apt-get install chromium`"),
]

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

EPISODES = 60
PLAY = """
async ({ starts, actions }) => {
  const course = await import("/course.js");
  const posts = course.makePosts();
  return starts.map((position, episode) => {
    const walker = { position, steps: 0, gaps: [null, null, null], done: false, success: false };
    const rows = [];
    for (const action of actions[episode]) {
      course.step(walker, action, posts);
      rows.push({ position: walker.position, done: walker.done, success: walker.success });
    }
    return { rows, seen: [...course.observe(walker.position)], way: course.wayOf(walker) };
  });
}
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with serve(DOCS / "playground") as address, sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        opened = chromium.new_page()
        opened.goto(f"{address}/course.js")
        yield opened
        chromium.close()


def test_the_course_is_the_packages(page: Any) -> None:
    """Walks mostly upwards, so that they pass rows, touch posts, leave the field, finish, and run out of time."""
    env = registry.make_env("AvoidPoint", {}, EPISODES)
    seen = env.reset(0)
    starts = env.track().tolist()
    draws = np.random.default_rng(0)
    drift = draws.uniform((-1.0, -0.2), (1.0, 1.2), (EPISODES, 1, 2))
    actions = (drift + 0.5 * draws.standard_normal((EPISODES, env.spec.horizon, 2))).astype(np.float32)
    theirs = page.evaluate(PLAY, {"starts": starts, "actions": actions.tolist()})
    done = torch.zeros(EPISODES, dtype=torch.bool)
    success, tracks = torch.zeros(EPISODES, dtype=torch.bool), [env.track()]
    for step in range(env.spec.horizon):
        played = env.step(torch.from_numpy(actions[:, step]).clamp(-1.0, 1.0))
        done |= played.terminated | played.truncated
        success |= played.success
        seen = torch.where(done[:, None], seen, played.obs)
        tracks.append(env.track())
        rows = [episode["rows"][step] for episode in theirs]
        assert [row["position"] for row in rows] == env.track().tolist()
        assert [row["done"] for row in rows] == done.tolist()
        assert [row["success"] for row in rows] == success.tolist()
    assert 5 < int(success.sum()) < EPISODES - 5
    gaps = Course().trace(torch.stack(tracks))
    for episode, row in zip(theirs, gaps.tolist(), strict=True):
        way = None if -1 in row else MODES[next(i for i, mode in enumerate(Course().mode_gaps.tolist()) if mode == row)]
        assert episode["way"] == way
    last = registry.make_env("AvoidPoint", {}, EPISODES)
    last.reset(0)
    last.position.copy_(tracks[-1])  # type: ignore[attr-defined]
    expected = last._observe().numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose([episode["seen"] for episode in theirs], expected, atol=2e-6)
