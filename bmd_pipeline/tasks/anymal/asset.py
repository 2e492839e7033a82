"""Where the robot's description comes from: the wheel `example-robot-data`, a folder of files."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

WHEEL = "example-robot-data"
_URDF = "cmeel.prefix/share/example-robot-data/robots/anymal_c_simple_description/urdf/anymal.urdf"


def find_urdf() -> Path:
    """The description of ANYmal C (Copyright ANYbotics, BSD-3-Clause).

    Raises:
        PackageNotFoundError: the wheel is not installed; a `ModuleNotFoundError` that names it.
    """
    return Path(str(distribution(WHEEL).locate_file(_URDF)))
