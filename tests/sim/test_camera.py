"""Where in a picture places are."""

from __future__ import annotations

import math

import numpy as np

from bmd_pipeline.sim.render import Camera


def test_projects_by_hand_computed_shares() -> None:
    camera = Camera(
        eye=(-1.0, 0.0, 0.0), target=(0.0, 0.0, 0.0), fov=math.pi / 2
    )  # looks along x: half a picture is 1 m
    places = np.array([(0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -0.5, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)])
    middle, left, right, top, farther = camera.project(places)
    np.testing.assert_allclose(middle, (0.5, 0.5))
    np.testing.assert_allclose(left, (0.0, 0.5), atol=1e-12)  # +y is on the left of one who looks along +x
    np.testing.assert_allclose(right, (0.75, 0.5))
    np.testing.assert_allclose(top, (0.5, 0.0), atol=1e-12)
    np.testing.assert_allclose(farther, (0.25, 0.5))  # twice as far, half the size


def test_the_target_is_in_the_middle_wherever_the_camera_stands() -> None:
    camera = Camera(eye=(0.3, -0.8, 0.7), target=(-0.1, 0.2, 0.05))
    np.testing.assert_allclose(camera.project(np.array([camera.target])), [(0.5, 0.5)])
