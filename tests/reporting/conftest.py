"""One made-up run for all tests of pages."""

from __future__ import annotations

import pytest

from tests.reporting.made_up import MadeUpRun
from tests.reporting.made_up_evidence import write_evidence


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    """Two methods, two seeds, three modes, and all evidence; tests only look at it."""
    run = MadeUpRun(tmp_path_factory.mktemp("finished"))
    write_evidence(run)
    return run
