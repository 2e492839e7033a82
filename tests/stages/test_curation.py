"""What a person decides about the modes: written down, carried out by `discover`, and shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bmd_pipeline.cli.main import main
from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.schema import ModesConfig
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.io.files import hash_file
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.rl.agent import load_agent
from bmd_pipeline.rl.rollout import roll_out
from bmd_pipeline.stages import curation
from bmd_pipeline.stages.evaluate import evaluate
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.gaussian_mixture.env import GOALS

from .small import OFTEN, QUIET, TASK, find_modes, make_config


@given(st.lists(st.integers(0, 4), min_size=3, max_size=12), st.data())
def test_codes_are_numbered_by_their_first_modes(labels: list[int], data: st.DataObject) -> None:
    """Modes with one label are merged, and label 4 is dropped: the codes say the same, and have no gaps."""
    groups = [[mode for mode, label in enumerate(labels) if label == wanted] for wanted in range(4)]
    drop = [mode for mode, label in enumerate(labels) if label == 4]
    merge = data.draw(st.permutations([group for group in groups if len(group) > 1]))
    values = {"demonstrations": [1] * len(labels), "drop": drop, "merge": merge}
    if sum(bool(group) for group in groups) < 2:
        with pytest.raises(ValidationError, match="must leave two codes"):
            ModesConfig.model_validate(values)
        return
    codes = ModesConfig.model_validate(values).codes()
    assert [code is None for code in codes] == [label == 4 for label in labels]
    firsts = sorted(group[0] for group in groups if group)
    for group in filter(None, groups):
        assert {codes[mode] for mode in group} == {firsts.index(group[0])}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"drop": [0]}, "demonstrations must say"),
        ({"demonstrations": [5, 5, 5], "drop": [3]}, "there is no mode 3"),
        ({"demonstrations": [5, 5, 5], "drop": [0], "merge": [[0, 1]]}, "mode 0 must be dropped or merged once"),
        ({"demonstrations": [5, 5, 5], "names": ["a"]}, "names must be 3"),
        ({"demonstrations": [5, 5, 5], "names": ["a", "a", ""]}, "two are called a"),
        ({"demonstrations": [5, 5, 5], "names": ["a\n", "", ""]}, "names must be printable"),
    ],
)
def test_decisions_that_contradict_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModesConfig.model_validate(values)


def test_a_name_is_that_of_the_first_mode_that_has_one() -> None:
    decided = {"demonstrations": [5, 5, 5, 5], "merge": [[0, 2]], "drop": [1], "names": ["", "x", "left", ""]}
    assert ModesConfig.model_validate(decided).names_by_code() == ("left", None)


def _sizes(modes: Path) -> list[int]:
    sizes: list[int] = json.loads((modes / "modes.json").read_text())["findings"]["cluster_sizes"]
    return sizes


def test_dropped_modes_have_no_code_and_merged_ones_share_one(
    policy: Path, demos: Path, modes: Path, tmp_path: Path
) -> None:
    """By where the taught policy goes: a code for each goal as found, then two goals share one and one has none."""
    goals = torch.tensor(GOALS)

    def reach(folder: Path) -> list[list[float]]:
        """Share of each code's episodes that end at each goal."""
        agent = load_agent(load_policy(policy), folder, None, "taught", task=TASK)
        codes = torch.arange(120) % agent.num_codes
        env = registry.make_env(TASK, OFTEN["env"], 120)
        played = roll_out(env, agent, seed=9, code=codes, generator=torch.Generator().manual_seed(0), explore=False)
        goal = torch.cdist(played.track[played.length, torch.arange(120)], goals).argmin(dim=1)
        return [
            (torch.bincount(goal[codes == code], minlength=4) / (codes == code).sum()).tolist()
            for code in range(agent.num_codes)
        ]

    own = [row.index(max(row)) for row in reach(modes)]  # goal of each mode
    decided = {"demonstrations": _sizes(modes), "drop": [1], "merge": [[0, 2]]}
    find_modes(make_config(modes=decided), policy, demos, tmp_path)
    shared, single = reach(tmp_path)
    assert shared[own[0]] + shared[own[2]] > 0.8
    assert min(shared[own[0]], shared[own[2]]) > 0.1
    assert single[own[3]] > 0.8
    assert max(shared[own[1]], single[own[1]]) < 0.1
    loaded = load_agent(load_policy(policy), tmp_path, None, "taught", task=TASK).modes
    assert loaded is not None
    counts = _sizes(modes)
    assert loaded.shares() == pytest.approx([(counts[0] + counts[2]) / (40 - counts[1]), counts[3] / (40 - counts[1])])


def test_decisions_about_other_modes_are_refused(policy: Path, demos: Path, tmp_path: Path) -> None:
    config = make_config(modes={"demonstrations": [20, 10, 10], "drop": [1]})
    with pytest.raises(ConfigError, match=r"modes.demonstrations are \[20, 10, 10\], but the modes that were found"):
        find_modes(config, policy, demos, tmp_path)
    with pytest.raises(ValidationError, match="must be empty in the published form"):
        make_config(modes={"demonstrations": [20, 20]}, discover={"form": "published", "num_modes": 4})


def test_names_train_nothing_again() -> None:
    sizes = [10, 10, 10, 10]
    named = make_config(modes={"demonstrations": sizes, "names": ["a", "b", "", ""]})
    dropped = make_config(modes={"demonstrations": sizes, "drop": [1]})
    assert stage_hash(named, "discover") == stage_hash(make_config(), "discover") != stage_hash(dropped, "discover")
    assert stage_hash(dropped, "pretrain") == stage_hash(make_config(), "pretrain")


@pytest.fixture
def project(policy: Path, modes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings and the small run's modes, and their evaluation before fine-tuning."""
    results = tmp_path / "results" / TASK
    results.mkdir(parents=True)
    (results / "policy").symlink_to(policy)
    (results / "modes").mkdir()
    (results / "modes" / "seed0").symlink_to(modes)
    config = make_config(evaluate={"episodes": 32, "num_envs": 32, "selection_episodes": 8})
    output = results / "taught" / "seed0" / "eval.json"
    evaluate(
        config,
        policy=policy,
        modes=modes,
        finetuned=None,
        output=output,
        method="taught",
        seed=0,
        num_workers=1,
        reporter=QUIET,
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_modes_are_shown_named_dropped_and_merged(
    project: Path, modes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = project / "picture.png"
    assert main(["modes", "show", "--task", TASK, "--output", str(picture), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [mode["code"] for mode in shown] == [0, 1, 2, 3]
    assert [mode["demonstrations"] for mode in shown] == _sizes(modes)
    assert picture.read_bytes().startswith(b"\x89PNG")
    for words in (("rename", "2", "west"), ("drop", "1"), ("merge", "0", "3")):
        assert main(["modes", *words, "--task", TASK]) == 0
    written = yaml.safe_load((project / "config" / "modes" / f"{TASK}.yaml").read_text())
    decided = {"drop": [1], "merge": [[0, 3]], "names": ["", "", "west", ""]}
    assert written == {"modes": {"demonstrations": _sizes(modes), **decided}}
    config = load_config(TASK)
    assert config.modes.codes() == (0, None, 1, 0)
    assert config.modes.names_by_code() == (None, "west")
    assert load_config(TASK, preset="smoke").modes == ModesConfig()  # another run
    assert main(["modes", "show", "--task", TASK, "--output", str(picture)]) == 2
    told = capsys.readouterr().err
    assert f"under other decisions than the present ones (config/modes/{TASK}.yaml): run `bmd-pipeline discover" in told


def test_a_code_that_succeeds_on_other_seeds_alone_is_shown_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mode = {"mode": 0, "name": None, "demonstrations": 20, "share": 0.5, "code": 0}
    found = [{**mode, "success_rate": 0.0625, "obeyed": 0.0, "behaviour": None}]
    monkeypatch.setattr(curation, "show", lambda *_: found)
    monkeypatch.chdir(tmp_path)
    assert main(["modes", "show", "--task", TASK, "--preset", "smoke"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "20 (50%) 0 0.062 0.000 – –: the code had no success on selection seeds" in shown
    assert f"`bmd-pipeline play --task {TASK} --method taught --seed 0`, with the same settings" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("drop", "7"), "there is no mode 7"),
        (("drop", "0", "1", "2"), "drop and merge must leave two codes, and leave 1"),
        (("merge", "1"), "modes.merge[0] must have at least 2 entries"),
        (("rename", "0", "x" * 41), "modes.names[0] must have at most 40 characters"),
    ],
)
def test_what_cannot_be_is_not_written(
    project: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["modes", *words, "--task", TASK]) == 2
    assert message in capsys.readouterr().err
    assert not (project / "config" / "modes").exists()


def test_a_file_of_somebodys_own_is_kept(project: Path, modes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "config" / "modes" / f"{TASK}.yaml"
    path.parent.mkdir(parents=True)
    for text, message in (
        ("seed: 3\n", "also holds seed, which would be lost"),
        ("# why\nmodes: {demonstrations: [%s]}\n", "also holds comments, which would be lost"),
        ("modes: {demonstrations: [3, 4, 5]}\n", "modes.demonstrations are [3, 4, 5], but the modes that were found"),
    ):
        text = text.replace("%s", ", ".join(map(str, _sizes(modes))))
        path.write_text(text)
        assert main(["modes", "drop", "1", "--task", TASK]) == 2
        assert message in capsys.readouterr().err
        assert path.read_text() == text
    path.unlink()
    assert main(["modes", "rename", "1", "a #b", "--task", TASK]) == 0
    assert main(["modes", "rename", "1", "c", "--task", TASK]) == 0
    path.rename(project / "mine.yaml")
    path.symlink_to(project / "mine.yaml")
    assert main(["modes", "rename", "1", "d", "--task", TASK]) == 2
    assert "is a link" in capsys.readouterr().err


def test_modes_of_another_seed_or_edited_and_swapped_tables_are_refused(
    project: Path, modes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, taught = project / "results" / TASK / "modes", project / "results" / TASK / "taught" / "seed0"
    shutil.copytree(modes, folder / "seed1")
    assert main(["modes", "rename", "0", "left", "--task", TASK, "--seed", "1"]) == 2
    assert "was made for seed 0, not for seed 1" in capsys.readouterr().err
    (folder / "seed0").unlink()
    shutil.copytree(modes, folder / "seed0")
    text = (modes / "modes.json").read_text()
    for findings in ("[]", '{"cluster_sizes": [0, 0]}', '{"cluster_sizes": ["a"]}'):
        document, record = json.loads(text), json.loads((modes / "run.json").read_text())
        (folder / "seed0" / "modes.json").write_text(json.dumps(document | {"findings": json.loads(findings)}))
        assert main(["modes", "show", "--task", TASK]) == 2
        assert "modes.json is damaged or edited" in capsys.readouterr().err
        record["outputs"]["modes.json"] = hash_file(folder / "seed0" / "modes.json")
        (folder / "seed0" / "run.json").write_text(json.dumps(record))
        assert main(["modes", "show", "--task", TASK]) == 2
        assert "has no modes of demonstrations" in capsys.readouterr().err
        shutil.copy(modes / "run.json", folder / "seed0")
    (folder / "seed0" / "modes.json").write_text(text)
    assert main(["modes", "show", "--task", TASK]) == 0
    (taught / "trajectories.parquet").write_bytes((taught / "trajectories.parquet").read_bytes() + b"x")
    assert main(["modes", "show", "--task", TASK]) == 2
    assert "trajectories.parquet: not the table that" in capsys.readouterr().err


def test_a_run_without_modes_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published_modes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["modes", "show", "--task", TASK]) == 2
    assert "modes.json is missing: make it with `bmd-pipeline discover" in capsys.readouterr().err
    folder = tmp_path / "results" / TASK / "modes" / "seed0"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(published_modes)
    assert main(["modes", "show", "--task", TASK]) == 2
    assert "has no modes of demonstrations" in capsys.readouterr().err
