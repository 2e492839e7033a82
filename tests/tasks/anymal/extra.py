"""Tests of Anymal that need its robot's description."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from bmd_pipeline.tasks.anymal.model import find_urdf


def _have_wheel() -> bool:
    try:
        return find_urdf().is_file()
    except PackageNotFoundError:
        return False


needs_wheel = pytest.mark.skipif(not _have_wheel(), reason="needs the extra: pip install --editable '.[anymal]'")
