"""Where settings and the workflow are: in the current folder, and what it lacks comes with the package."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
PACKAGED = _PACKAGE / "project" if (_PACKAGE / "project").is_dir() else _PACKAGE.parent
"""Folder of the Snakefile, config/ and profiles/ that come with the package: inside it, or the checkout's root."""


def find_file(path: Path) -> Path:
    """A file of the current folder, or the packaged one if nothing is there.

    An absolute path is returned as it is.
    """
    packaged = PACKAGED / path
    return packaged if packaged.exists() and not os.path.lexists(path) else path


def list_stems(folder: Path) -> list[str]:
    """Names, without their ending, of the YAML files in a folder, those of the packaged folder included."""
    return sorted({path.stem for place in (PACKAGED / folder, folder) for path in place.glob("*.yaml")})
