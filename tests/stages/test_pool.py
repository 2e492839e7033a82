"""The stage `pool`, on made-up runs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from bmd_pipeline.config.overrides import configure_base
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.io.provenance import RunStart
from bmd_pipeline.metrics.episodes import encode_episodes
from bmd_pipeline.metrics.schemas import Pool, write_document
from bmd_pipeline.metrics.summary import summarise_policy
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluations import hash_policy_settings, make_document
from bmd_pipeline.stages.grid import pool
from tests.metrics.drawn import draw_episodes
from tests.stages.small import QUIET

TASK = "GaussianMixture"
CONFIG = RunConfig.model_validate(
    {
        "task": {"name": TASK},
        "methods": ("dsrl", "dsrl-bmd"),
        "seeds": (0, 1),
        "pool": {"bases": (0, 4, 7)},
    }
)
POLICIES = {"pretrained": (0.6, [1, 1, 1, 1]), "dsrl": (0.95, [300, 1, 1, 1]), "dsrl-bmd": (0.95, [1, 1, 1, 1])}


def write_base(layout: Layout, base: int, policies: tuple[str, ...] = tuple(POLICIES)) -> Path:
    config, rng = configure_base(CONFIG, base), np.random.default_rng(base)
    blocks, rows = {}, []
    for policy in policies:
        rate, shares = POLICIES[policy]
        parts = [draw_episodes(policy, seed, rates=[rate] * 4, shares=shares, n=100, rng=rng) for seed in CONFIG.seeds]
        found = hash_policy_settings(config, policy)
        rows += parts
        blocks[policy] = summarise_policy(parts, config_hash=found, tau=0.8, confidence=0.95, rng=rng)
    path = layout.summary(config.task.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {"episodes.parquet": encode_episodes(rows)}
    path.with_name("episodes.parquet").write_bytes(tables["episodes.parquet"])
    write_document(path, make_document(config, blocks, {}, config.seed, RunStart(print), tables))
    return path


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    for base in CONFIG.pool.bases:
        write_base(layout, base)
    layout.pool(TASK).parent.mkdir(parents=True)
    return layout


def test_every_policy_is_scored_over_base_policies(layout: Layout) -> None:
    stream = io.StringIO()
    pool(CONFIG, layout=layout, output=layout.pool(TASK), reporter=Reporter("plain", stream=stream))
    document = Pool.model_validate_json(layout.pool(TASK).read_text())
    assert document.bases == [0, 4, 7]
    assert list(document.policies) == list(POLICIES)
    kept = {policy: scores["mode_entropy"].mean for policy, scores in document.policies.items()}
    assert kept["dsrl"].high < kept["dsrl-bmd"].low
    assert [(pair.one, pair.other) for pair in document.pairs] == [
        ("dsrl", "pretrained"),
        ("dsrl-bmd", "pretrained"),
        ("dsrl-bmd", "dsrl"),
    ]
    assert document.pairs[2].metrics["mode_entropy"].mean.low > 0.5
    assert document.smallest_p == 0.125
    assert "dsrl-bmd: success 0.9" in stream.getvalue()
    assert "of 4" in stream.getvalue()


def test_a_base_policy_without_a_method_is_named(layout: Layout) -> None:
    path = write_base(layout, 4, ("pretrained", "dsrl"))
    with pytest.raises(ArtifactError, match=rf"{path}: holds no dsrl-bmd; run `snakemake --cores 2 {path}`"):
        pool(CONFIG, layout=layout, output=layout.pool(TASK), reporter=QUIET)
    assert not layout.pool(TASK).exists()


def test_results_of_another_base_policy_in_its_place_are_refused(layout: Layout) -> None:
    target, other = (layout.summary(f"{TASK}-base{base}") for base in (4, 7))
    target.write_bytes(other.read_bytes())
    with pytest.raises(ArtifactError, match=f"evaluation of task {TASK}-base7, not of {TASK}-base4"):
        pool(CONFIG, layout=layout, output=layout.pool(TASK), reporter=QUIET)


def test_rows_of_other_results_are_refused(layout: Layout) -> None:
    path = layout.summary(f"{TASK}-base4")
    fewer = draw_episodes("dsrl", 0, rates=[0.9] * 4, shares=[1] * 4, n=10, rng=np.random.default_rng(0))
    path.with_name("episodes.parquet").write_bytes(encode_episodes([fewer]))
    with pytest.raises(ArtifactError, match=f"episodes.parquet: not the episodes of {path}"):
        pool(CONFIG, layout=layout, output=layout.pool(TASK), reporter=QUIET)


def test_results_under_other_settings_are_refused(layout: Layout) -> None:
    changed = CONFIG.model_copy(update={"finetune": CONFIG.finetune.model_copy(update={"iterations": 9})})
    with pytest.raises(ArtifactError, match="dsrl was evaluated under other settings"):
        pool(changed, layout=layout, output=layout.pool(TASK), reporter=QUIET)
    fewer = CONFIG.model_copy(update={"seeds": (0, 1, 2)})
    with pytest.raises(ArtifactError, match=r"pretrained has seeds \[0, 1\], not \[0, 1, 2\]"):
        pool(fewer, layout=layout, output=layout.pool(TASK), reporter=QUIET)
