"""The whole chain on PushT with the smoke preset, in ManiSkill's physics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bmd_pipeline.config.load import load_config
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.stages.collect import collect
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.discover import discover
from bmd_pipeline.stages.evaluate import evaluate, summarise
from bmd_pipeline.stages.finetune import finetune
from bmd_pipeline.stages.pretrain import pretrain
from tests.stages.small import QUIET

TASK = "PushT"
CONFIG_DIR = Path(__file__).parents[2] / "config"


def test_every_stage_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", "/none")
    config = load_config(
        TASK, preset="smoke", assignments=["methods=[dppo-bmd]", "execution.threads.pretrain=1"], config_dir=CONFIG_DIR
    )
    here, reporter = Layout(tmp_path), Reporter("quiet")
    demos, policy, modes = here.demos(TASK), here.policy(TASK), here.modes(TASK, 0)
    collect(config, output=demos, manifest=here.demos_manifest(TASK), num_workers=1, reporter=reporter)
    pretrain(config, demos=demos, output=policy, reporter=reporter)
    discover(config, policy=policy, demos=demos, output=modes, seed=0, num_workers=1, reporter=reporter)
    finetuned = here.finetuned(TASK, "dppo-bmd", 0)
    finetune(
        config,
        policy=policy,
        modes=modes,
        output=finetuned,
        method="dppo-bmd",
        seed=0,
        num_workers=1,
        reporter=reporter,
    )
    evaluations = []
    for method in ("pretrained", "taught", "dppo-bmd"):
        output = here.evaluation(TASK, method, 0)
        evaluate(
            config,
            policy=policy,
            modes=modes,
            finetuned=finetuned if method == "dppo-bmd" else None,
            output=output,
            method=method,
            seed=0,
            num_workers=1,
            reporter=reporter,
        )
        evaluations.append(output)
    summarise(config, evaluations=evaluations, output=here.summary(TASK), reporter=QUIET)
    document = json.loads(here.summary(TASK).read_text())
    assert list(document["policies"]) == ["pretrained", "taught", "dppo-bmd"]
    for block in document["policies"].values():
        assert block["success_rate"]["n"] == 8
        assert [row["mode"] for row in block["per_mode"]] == ["clockwise", "counterclockwise"]
        assert list(block["labellings"]) == ["turn-side"]
