"""The stages `compare` and `verdict`: what they write, and what they refuse."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmd_pipeline.cli.main import main
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError, BMDError, ConfigError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.schemas import Comparison, Evaluation, Verdict, load_document
from bmd_pipeline.metrics.scores import SCORES
from bmd_pipeline.stages.compare import compare, verdict
from bmd_pipeline.stages.evaluations import load_evaluated
from tests.metrics.drawn import draw_episodes
from tests.stages.evaluations import write_evaluation
from tests.stages.small import QUIET

TASK = "GaussianMixture"
POLICIES = {"pretrained": (0.7, [1, 1, 1, 1]), "dsrl": (0.97, [60, 1, 1, 1]), "dsrl-bmd": (0.96, [1, 1, 1, 1])}
Stage = Callable[..., None]
STAGES: dict[str, Stage] = {"compare": compare, "verdict": verdict}


def make_config(**changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "task": {"name": TASK},
        "methods": ("dsrl", "dsrl-bmd"),
        "seeds": (0, 1),
    }
    return RunConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six evaluations; tests work on copies."""
    root = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    for policy, (rate, shares) in POLICIES.items():
        for seed in (0, 1):
            part = draw_episodes(policy, seed, rates=[rate] * 4, shares=shares, n=200, rng=rng)
            write_evaluation(make_config(), Layout(root).evaluation(TASK, policy, seed), part)
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "run")
    return tmp_path / "run"


def paths_of(root: Path, stage: str = "compare") -> list[Path]:
    policies = [policy for policy in POLICIES if stage == "compare" or policy != "pretrained"]
    return [Layout(root).evaluation(TASK, policy, seed) for policy in policies for seed in (0, 1)]


def test_the_taught_policy_is_compared_where_it_was_evaluated(root: Path) -> None:
    rng = np.random.default_rng(1)
    taught = [Layout(root).evaluation(TASK, "taught", seed) for seed in (0, 1)]
    for seed, path in enumerate(taught):
        part = draw_episodes("taught", seed, rates=[0.9] * 4, shares=[1] * 4, n=200, rng=rng)
        write_evaluation(make_config(), path, part)
    output = Layout(root).comparison(TASK)
    compare(make_config(), evaluations=[*paths_of(root), *taught], output=output, reporter=QUIET)
    document = load_document(output, Comparison)
    assert list(document.policies) == ["pretrained", "taught", "dsrl", "dsrl-bmd"]
    assert ("taught", "pretrained") in [(pair.one, pair.other) for pair in document.comparisons]
    with pytest.raises(ArtifactError, match="the evaluation of taught/seed1 is missing"):
        compare(make_config(), evaluations=[*paths_of(root), taught[0]], output=output, reporter=QUIET)


def test_compare_writes_every_policy_pair_and_score(root: Path) -> None:
    output = Layout(root).comparison(TASK)
    compare(make_config(), evaluations=paths_of(root)[::-1], output=output, reporter=QUIET)
    document = load_document(output, Comparison)
    assert list(document.policies) == ["pretrained", "dsrl", "dsrl-bmd"]
    pairs = [(pair.one, pair.other, pair.kind) for pair in document.comparisons]
    assert pairs == [
        ("dsrl-bmd", "dsrl", "counterpart"),
        ("dsrl", "pretrained", "base"),
        ("dsrl-bmd", "pretrained", "base"),
    ]
    assert (document.seeds, document.episodes_per_seed, len(document.modes)) == ([0, 1], 200, 4)
    assert len(document.provenance.inputs) == 6
    for policy, row in document.policies.items():
        for k, seed in enumerate(document.seeds):
            block = load_document(Layout(root).evaluation(TASK, policy, seed), Evaluation).policies[policy]
            assert {name: score.seeds[k] for name, score in row.metrics.items()} == pytest.approx(
                {name: getattr(block.seeds[0], name) for name in SCORES}
            )


def test_verdict_decides_each_pair_by_its_thresholds(root: Path) -> None:
    output = Layout(root).verdict(TASK)
    documents = []
    for margin in (0.02, 0.2):
        config = make_config(verdict={"success_margin": margin})
        verdict(config, evaluations=paths_of(root, "verdict"), output=output, reporter=QUIET)
        documents.append(load_document(output, Verdict))
    first, lenient = documents
    assert [pair.one for pair in first.pairs] == ["dsrl-bmd"]
    found = {one.hypothesis: one.verdict for one in first.pairs[0].hypotheses}
    assert found["H3"] == "supported"
    assert lenient.pairs[0].hypotheses[0].verdict == "supported"
    assert first.family == 3
    assert first.min_seeds == 6
    assert (first.success_margin, lenient.success_margin) == (0.02, 0.2)
    assert first.config_hash != lenient.config_hash


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_input_gives_the_same_numbers(root: Path, stage: str) -> None:
    output = root / "out.json"
    model = {"compare": Comparison, "verdict": Verdict}[stage]
    numbers = []
    for _ in range(2):
        STAGES[stage](make_config(), evaluations=paths_of(root, stage), output=output, reporter=QUIET)
        numbers.append(load_document(output, model).model_dump(exclude={"provenance", "sha256"}))
    assert numbers[0] == numbers[1]


def test_both_stages_measure_the_same_difference(root: Path) -> None:
    compare(make_config(), evaluations=paths_of(root), output=root / "compare.json", reporter=QUIET)
    verdict(make_config(), evaluations=paths_of(root, "verdict"), output=root / "verdict.json", reporter=QUIET)
    differences = load_document(root / "compare.json", Comparison).comparisons[0].metrics
    for found in load_document(root / "verdict.json", Verdict).pairs[0].hypotheses:
        assert found.difference.value == differences[found.metric].difference.value
        assert (
            min(1.0, 2 * min(found.p_above, found.p_below)) == pytest.approx(differences[found.metric].by_episode.p)
            or found.hypothesis == "H1"
        )


def refuse(
    root: Path, stage: str, match: str, config: RunConfig | None = None, paths: list[Path] | None = None
) -> None:
    """Runs a stage that must fail in one line and write nothing."""
    before = sorted(root.rglob("*"))
    with pytest.raises(BMDError, match=match) as error:
        STAGES[stage](
            config or make_config(),
            evaluations=paths or paths_of(root, stage),
            output=root / "out" / "out.json",
            reporter=QUIET,
        )
    assert "\n" not in str(error.value)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("stage", STAGES)
def test_what_does_not_belong_is_refused_by_name(root: Path, stage: str) -> None:
    paths = paths_of(root, stage)
    victim = paths[-1]
    refuse(root, stage, r"dsrl-bmd/seed1 is missing: make it with `bmd-pipeline evaluate", paths=paths[:-1])
    refuse(root, stage, "both hold dsrl/seed0", paths=[*paths, Layout(root).evaluation(TASK, "dsrl", 0)])
    refuse(root, stage, "/seed1 is not among", make_config(seeds=(0,)), paths)
    other = make_config(finetune={"regulariser": {"mi_weight": 3.0}})
    refuse(root, stage, "dsrl-bmd/seed0/eval.json: evaluated under other settings than the present ones", other)
    refuse(root, stage, f"evaluation of task {TASK}, not of PushT", make_config(task={"name": "PushT"}))

    contents, table = victim.read_text(), victim.with_name("episodes.parquet")
    victim.write_text(contents[:500])
    refuse(root, stage, f"{victim} is damaged")
    victim.write_text(contents)
    rows = table.read_bytes()
    table.write_bytes(rows[: len(rows) // 2])
    refuse(root, stage, f"{table}: damaged episode table")
    table.unlink()
    refuse(root, stage, f"{table}: missing episode table")


def test_policies_must_label_modes_alike(root: Path) -> None:
    part = draw_episodes("dsrl", 0, rates=[0.9] * 2, shares=[1, 1], n=200, rng=np.random.default_rng(0))
    write_evaluation(make_config(), Layout(root).evaluation(TASK, "dsrl", 0), part)
    refuse(root, "compare", "dsrl/seed0/eval.json: its modes are not those of")
    short = draw_episodes("dsrl", 0, rates=[0.9] * 4, shares=[1] * 4, n=100, rng=np.random.default_rng(0))
    write_evaluation(make_config(), Layout(root).evaluation(TASK, "dsrl", 0), short)
    refuse(root, "compare", "dsrl/seed0/eval.json: 100 episodes, 200 in")


def test_a_wanted_policy_and_seed_must_be_what_the_file_holds(root: Path) -> None:
    path = Layout(root).evaluation(TASK, "dsrl", 0)
    assert load_evaluated(make_config(), path, wanted=("dsrl", 0)).name == "dsrl/seed0"
    with pytest.raises(ArtifactError, match="holds dsrl/seed0, not dsrl/seed1"):
        load_evaluated(make_config(), path, wanted=("dsrl", 1))


def test_a_verdict_without_a_pair_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="a -bmd method and its plain counterpart, got dsrl"):
        verdict(make_config(methods=("dsrl",)), evaluations=[], output=root / "out.json", reporter=QUIET)


@pytest.mark.parametrize("command", ["compare", "verdict", "grid"])
def test_commands_name_the_first_missing_file(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").symlink_to(Path(__file__).parents[2] / "config")
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("grid: {axes: {finetune.regulariser.mi_weight: [0, 1]}}")
    assert main([command, "--task", TASK, "--preset", "cpu", "--config", "mine.yaml"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"error: results/{TASK}/" in message
    assert "eval.json is missing: make it with `" in message
    assert not (tmp_path / "results").exists()
