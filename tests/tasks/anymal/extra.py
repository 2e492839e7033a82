"""Tests of Anymal that need its robot's description."""

from __future__ import annotations

import pytest

from bmd_pipeline.tasks.registry import find_missing, get_entry

needs_wheel = pytest.mark.skipif(
    bool(find_missing(get_entry("Anymal"))), reason="needs the extra: pip install 'bmd-pipeline[anymal]'"
)
