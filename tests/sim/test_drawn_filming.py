"""Native tasks as drawings: what stands where, and clips without anything that renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bmd_pipeline.cli.main import main
from bmd_pipeline.sim.render import DrawnFilming, EpisodeRecorder, find_task
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.avoid_point.course import FINISH_Y, ROWS

SIZE = 180  # pixels; 200 to a metre


def test_a_drawing_is_to_scale() -> None:
    filming = registry.load_filming("AvoidPoint")
    assert isinstance(filming, DrawnFilming)
    filming.require_renderer()
    expert = registry.make_expert("AvoidPoint", {})
    recorder = EpisodeRecorder(find_task(expert), filming)
    assert expert.demonstrate(0, 3).success
    recording, renderer = recorder.recording, filming.make_renderer(SIZE)
    first, last = (renderer.render(recording.arrangements[step]).astype(int) for step in (0, -1))
    renderer.close()

    def look(frame: np.ndarray, x: float, y: float) -> tuple[int, ...]:
        column, row = (SIZE * filming.camera.project(np.array([(x, y, 0.0)]))[0]).astype(int)
        return tuple(frame[row, column].tolist())

    row = ROWS[0]
    grey = look(first, row.posts[0], row.y)
    for share in (-0.8, 0.8):
        assert look(first, row.posts[0] + share * row.radius, row.y) == grey
        assert look(first, row.posts[0] + np.sign(share) * (row.radius + 0.01), row.y) != grey
    assert look(first, 0.2, FINISH_Y)[1] > look(first, 0.2, FINISH_Y)[0]  # the finish is green
    (x, y, _), (far_x, far_y, _) = recording.places[0], recording.places[-1]
    body = look(first, x, y)
    assert body == look(last, far_x, far_y) != look(first, far_x, far_y)


def test_the_command_draws_a_native_task(tmp_path: Path) -> None:
    command = f"play --task GaussianMixture --size 96 --quiet --output {tmp_path}/expert.json"
    assert main(command.split()) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"expert.json", "expert.webp", *(f"expert-{way}.gif" for way in ("east", "west", "north", "south"))}
    with Image.open(tmp_path / "expert-north.gif") as clip:
        assert clip.size == (96, 96)
        assert clip.n_frames > 3
