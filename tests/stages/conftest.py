"""A small policy and its modes, made once for all tests that build on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.pretrain import pretrain

from .small import QUIET, find_modes, make_config


@pytest.fixture(scope="session")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations of the small run."""
    root = tmp_path_factory.mktemp("demos")
    collect(
        make_config(),
        output=root / "demos.zarr",
        manifest=root / "demos.manifest.json",
        num_workers=1,
        reporter=QUIET,
    )
    return root / "demos.zarr"


@pytest.fixture(scope="session")
def policy(demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy that learnt from them."""
    output = tmp_path_factory.mktemp("policy")
    pretrain(make_config(), demos=demos, output=output, reporter=QUIET)
    return output


@pytest.fixture(scope="session")
def modes(policy: Path, demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its modes, in the coded form."""
    output = tmp_path_factory.mktemp("modes")
    find_modes(make_config(), policy, demos, output)
    return output


@pytest.fixture(scope="session")
def published_modes(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its modes, in the published form."""
    output = tmp_path_factory.mktemp("published")
    find_modes(make_config(discover={"form": "published", "num_modes": 4}), policy, None, output)
    return output
