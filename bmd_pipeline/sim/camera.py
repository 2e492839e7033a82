"""A camera: where it stands, and where in its picture a place is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Place = tuple[float, float, float]
"""(x, y, z) in metres."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that takes square pictures, upright: the world's z points up in them.

    Attributes:
        eye: where it stands; not straight above or below the target.
        target: what is in the middle of its pictures.
        fov: angle in rad that a picture covers, from edge to edge.
    """

    eye: Place
    target: Place
    fov: float = 0.9

    def project(self, places: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where places (n, 3) in metres are in the picture.

        Returns:
            (n, 2) shares of its width from the left and of its height from the top, outside of [0, 1] where the picture
            ends before; nothing is known of what hides them. Places must be before the camera.
        """
        forward = _unit(np.subtract(self.target, self.eye))
        right = _unit(np.cross(forward, (0.0, 0.0, 1.0)))
        down = np.cross(forward, right)
        offset = np.asarray(places, np.float64) - np.asarray(self.eye)
        depth = offset @ forward
        across = np.stack((offset @ right, offset @ down), 1) / depth[:, None]
        shares: NDArray[np.float64] = 0.5 + 0.5 * across / math.tan(self.fov / 2.0)
        return shares


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector))
