"""One thread per test process: small tensors gain nothing from more, and tests run side by side. No test is timed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs of the whole workflow first: they take longest, and no process shall wait for another's at the end."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)
