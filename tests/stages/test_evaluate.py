"""The stages `evaluate` and `summarise`, on made-up agents and on a real, untrained one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.errors import ArtifactError, ConfigError, TaskError
from bmd_pipeline.io.files import hash_file
from bmd_pipeline.io.provenance import RunStart, describe_run, write_run
from bmd_pipeline.methods import is_finetuned, uses_modes
from bmd_pipeline.metrics.episodes import load_episodes
from bmd_pipeline.metrics.schemas import Evaluation, load_document
from bmd_pipeline.policies.checkpoint import save_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.reporting.trajectories import NUM_POINTS, load_paths
from bmd_pipeline.stages import evaluate as stage
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluate import curve, evaluate, summarise
from bmd_pipeline.stages.evaluations import hash_policy_settings, load_evaluations, make_block
from bmd_pipeline.tasks.gaussian_mixture.env import GOALS
from tests.stages.small import QUIET

TASK = "GaussianMixture"
SELECTED = 2
"""Rounds on selection seeds, which only policies with codes play."""


def make_config(**changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "task": {"name": TASK},
        "seeds": (0, 1),
        "evaluate": {"episodes": 50, "selection_episodes": 40, "num_envs": 20, "pictured_episodes": 12},
        "pretrain": {"policy": {"hidden_sizes": (8,), "horizon": 4}},
    }
    return RunConfig.model_validate(values | changes)


class Stage:
    """Evaluates fake policies: a walk to a goal that the code chooses, and fails at goal 3."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.root = root
        self.config = make_config()
        self.starts: dict[str, list[Tensor]] = {}
        self.save_figure = stage.save_figure
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(stage, "save_figure", lambda *_: None)  # pictures take most of an evaluation's time
        monkeypatch.setattr(stage, "load_task_policy", lambda *_: None)
        monkeypatch.setattr(stage, "load_agent", self._load_agent)
        monkeypatch.setattr(stage, "play_rounds", self._play)
        monkeypatch.setattr(stage, "compute_information", lambda _, played: (torch.full((len(played.code),), 1.25),))
        self.finish("pretrain", "policy")

    def draw(self) -> None:
        """From here on pictures are drawn."""
        self.monkeypatch.setattr(stage, "save_figure", self.save_figure)

    def finish(self, made_by: str, name: str, task: str = TASK, seed: int = 0, **extra: str) -> Path:
        """Makes a folder as a stage leaves it, but for its files."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        start, settings = RunStart(print), {"config": {}, "config_hash": ""}
        run = describe_run(stage=made_by, task=task, seed=seed, inputs={}, start=start, extra=extra, **settings)
        write_run(folder, run)
        return folder

    def _load_agent(self, policy: None, modes: Path | None, finetuned: Path | None, method: str, **_: object) -> Any:
        codes = 4 if uses_modes(method) else 1
        modes = SimpleNamespace(inference=None) if codes > 1 else None
        return SimpleNamespace(num_codes=codes, method=method, policy=None, modes=modes)

    def _play(
        self, env: TaskEnv, agent: Any, seeds: Sequence[int], generator: torch.Generator, **_: object
    ) -> Iterator[SimpleNamespace]:
        for index, seed in enumerate(seeds):
            first = index * env.num_envs
            codes = torch.arange(first, first + env.num_envs) % agent.num_codes
            yield self._play_round(env, agent, seed, codes, generator)

    def _play_round(
        self, env: TaskEnv, agent: Any, seed: int, codes: Tensor, generator: torch.Generator
    ) -> SimpleNamespace:
        self.starts.setdefault(agent.method, []).append(env.reset(seed))
        start = env.track()
        goal = codes if agent.num_codes > 1 else torch.zeros_like(codes)
        share = torch.linspace(0, 1, 9)[:, None, None]
        success = (goal != 3) & (torch.rand(env.num_envs, generator=generator) < 0.9)
        return SimpleNamespace(
            track=(1 - share) * start + share * torch.tensor(GOALS)[goal],
            length=torch.full_like(codes, 8),
            success=success,
            dropped=torch.zeros_like(success),
            reach=torch.full((env.num_envs, 2), 1.5),
            reward=torch.stack([success.float(), success.float()]),
            code=codes,
        )

    def run(self, method: str, seed: int = 0, **changes: Any) -> Path:
        output = self.root / method / f"seed{seed}" / "eval.json"
        modes, finetuned = self.root / f"modes{seed}", None
        if uses_modes(method) and not modes.exists():
            self.finish("discover", modes.name, seed=seed)
        if is_finetuned(method):
            finetuned = self.finish("finetune", f"finetuned/{method}{seed}", seed=seed, method=method)
        arguments = {
            "policy": self.root / "policy",
            "modes": modes if uses_modes(method) else None,
            "finetuned": finetuned,
            "method": method,
        }
        evaluate(
            self.config,
            **(arguments | changes),
            output=output,
            seed=seed,
            num_workers=1,
            reporter=Reporter("quiet"),
        )
        return output

    def run_all(self) -> list[Path]:
        return [self.run(method, seed) for method in ("dsrl-bmd", "taught", "pretrained", "dsrl") for seed in (1, 0)]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    return Stage(monkeypatch, tmp_path)


def test_numbers_and_files_of_one_policy(bench: Stage) -> None:
    bench.draw()
    output = bench.run("dsrl-bmd", seed=3)
    names = {path.name for path in output.parent.iterdir()}
    assert names == {
        "eval.json",
        "episodes.parquet",
        "trajectories.parquet",
        "trajectories.png",
        "trajectories.svg",
    }
    document = load_document(output, Evaluation)
    block = document.policies["dsrl-bmd"]
    (episodes,) = load_episodes(output.with_name("episodes.parquet"))
    assert (episodes.policy, episodes.seed, len(episodes)) == ("dsrl-bmd", 3, 50)
    # Codes go round over all rounds, also where a round is no multiple of them.
    np.testing.assert_array_equal(episodes.code, np.arange(50) % 4)
    assert block.success_rate.mean == episodes.success.mean()
    assert block.success_rate.n == 50
    assert block.solved.mean <= 3  # nobody succeeds in the south
    assert block.mutual_information.mean == 1.25
    assert (block.seeds[0].dropped, block.seeds[0].obs_reach) == (0, [1.5, 1.5])
    assert block.episode_return.mean == pytest.approx(2 * episodes.success.mean())
    assert [row.episodes for row in block.per_mode] == [13, 13, 12, 12]
    assert block.per_mode[3].success_rate == 0
    assert [max(row.mode_shares.values()) for row in block.codes] == [1, 1, 1, 0]
    assert [row.behaviour for row in block.codes] == [*episodes.labellings["goal"].modes[:3], None]
    assert [row.obeyed for row in block.codes] == [1, 1, 1, 0]
    assert (block.obeyed.mean, block.obeyed_worst.mean) == (0.75, 0)
    assert set(document.provenance.inputs) == {"policy", "modes", "finetuned"}
    assert document.provenance.config["evaluate"]["episodes"] == 50
    book = load_paths(output.with_name("trajectories.parquet"))
    assert len(book.paths) == 12
    assert book.paths[0].xy.shape == (NUM_POINTS, 2)
    assert book.axes == ("x", "y")


def test_the_taught_policy_has_codes_and_was_not_fine_tuned(bench: Stage) -> None:
    document = load_document(bench.run("taught"), Evaluation)
    assert [row.code for row in document.policies["taught"].codes] == [0, 1, 2, 3]
    assert set(document.provenance.inputs) == {"policy", "modes"}
    with pytest.raises(ArtifactError, match="evaluating taught needs the output of `bmd-pipeline discover"):
        bench.run("taught", modes=None)
    coded = make_config(discover={"num_modes": 3})
    assert hash_policy_settings(bench.config, "taught") != hash_policy_settings(coded, "taught")
    stronger = make_config(finetune={"regulariser": {"mi_weight": 3.0}})
    assert hash_policy_settings(bench.config, "taught") == hash_policy_settings(stronger, "taught")


def test_methods_meet_the_same_initial_states_and_seeds_do_not(bench: Stage) -> None:
    for method in ("pretrained", "dsrl-bmd"):
        bench.run(method, seed=0)
    selection = bench.starts["dsrl-bmd"][:SELECTED]
    for one, other in zip(bench.starts["pretrained"], bench.starts["dsrl-bmd"][SELECTED:], strict=True):
        assert torch.equal(one, other)
        assert not any(torch.equal(one, start) for start in selection)
    first, second, _ = bench.starts["pretrained"]
    assert not torch.equal(first, second)  # rounds differ
    bench.run("pretrained", seed=1)
    assert not torch.equal(bench.starts["pretrained"][3], first)


def test_evaluation_is_reproducible(bench: Stage) -> None:
    bench.draw()
    output = bench.run("dsrl-bmd")
    tables = [output.with_name(name) for name in ("episodes.parquet", "trajectories.parquet", "trajectories.svg")]
    before = [path.read_bytes() for path in tables]
    policies = load_document(output, Evaluation).policies
    bench.run("dsrl-bmd")
    assert [path.read_bytes() for path in tables] == before
    assert load_document(output, Evaluation).policies == policies


def test_summary_collects_policies_in_order(bench: Stage) -> None:
    paths = bench.run_all()
    output = bench.root / "eval.json"
    bench.draw()
    summarise(bench.config, evaluations=paths, output=output, reporter=QUIET)
    document = load_document(output, Evaluation)
    assert list(document.policies) == ["pretrained", "taught", "dsrl", "dsrl-bmd"]
    block = document.policies["dsrl-bmd"]
    singles = [load_document(path, Evaluation).policies["dsrl-bmd"] for path in paths[1::-1]]
    assert [row.seed for row in block.seeds] == [0, 1]
    assert block.seeds == [row for single in singles for row in single.seeds]
    assert block.success_rate.mean == pytest.approx(np.mean([single.success_rate.mean for single in singles]))
    assert block.success_rate.n == 100
    assert [(row.seed, row.code) for row in block.codes] == [(k, code) for k in (0, 1) for code in range(4)]
    plain, coded = document.policies["dsrl"].blocked, block.blocked
    assert plain is not None
    assert plain.favourite.retry.trials.mean == plain.max_trials  # it knows the east alone
    assert coded is not None
    assert coded.favourite.told is not None
    assert coded.favourite.told.success.mean > 0.6
    assert coded.favourite.thompson is not None
    assert coded.favourite.thompson.succeeded.mean > 0.95  # two codes of four still work
    assert set(document.provenance.inputs) == {
        f"{p}/seed{k}" for p in ("pretrained", "taught", "dsrl", "dsrl-bmd") for k in (0, 1)
    }
    assert block.mode_spread is not None
    assert 0.0 < block.mode_spread.mean < 1.0
    table = pq.read_table(output.with_name("episodes.parquet"))
    assert table.num_rows == 400
    assert {"goal", "goal/north", "episode_return"} <= set(table.column_names)
    for stem in ("trajectories", "success_modes"):
        for kind in ("png", "svg"):
            assert output.with_name(f"{stem}.{kind}").stat().st_size > 1000


def test_policies_before_fine_tuning_come_first_and_need_none(bench: Stage) -> None:
    """Also where the settings don't name the others' methods."""
    paths = [bench.run(method) for method in ("res-bmd", "dsrl", "taught", "pretrained")]
    assert set(load_document(paths[2], Evaluation).provenance.inputs) == {"policy", "modes"}
    output = bench.root / "eval.json"
    summarise(make_config(methods=("dsrl",)), evaluations=paths, output=output, reporter=QUIET)
    policies = load_document(output, Evaluation).policies
    assert list(policies) == ["pretrained", "taught", "dsrl", "res-bmd"]
    assert [row.code for row in policies["taught"].codes] == [0, 1, 2, 3]


def test_summary_refuses_what_does_not_belong(bench: Stage) -> None:
    paths = bench.run_all()
    output = bench.root / "eval.json"

    def refuse(match: str, evaluations: list[Path] = paths, config: RunConfig = bench.config) -> None:
        with pytest.raises(ArtifactError, match=match) as error:
            summarise(config, evaluations=evaluations, output=output, reporter=QUIET)
        assert "\n" not in str(error.value)
        assert not output.exists()

    refuse("missing", [*paths, bench.root / "dsrl" / "seed7" / "eval.json"])
    refuse("both hold dsrl/seed0", [*paths, paths[-1]])
    other = make_config(task={"name": "PushT"})
    refuse(f"{paths[0]}: evaluation of task {TASK}, not of PushT", config=other)
    stricter = make_config(
        evaluate={"episodes": 50, "selection_episodes": 40, "num_envs": 20, "pictured_episodes": 12, "tau": 0.9}
    )
    refuse("evaluated under other settings .* run `bmd-pipeline evaluate --task GaussianMixture", config=stricter)

    victim = paths[0]
    contents = victim.read_text()
    victim.write_text(contents[:500])
    refuse(f"{victim} is damaged")
    victim.write_text(json.dumps(json.loads(contents) | {"schema_version": 99}))
    refuse(f"{victim} has schema version 99, this release reads 3; delete it and make it again")
    victim.write_text(contents)
    shutil.copy(paths[1].with_name("episodes.parquet"), victim.with_name("episodes.parquet"))
    refuse("episodes.parquet: not the episodes of")


def test_eval_json_vouches_for_itself_and_for_the_tables_beside_it(bench: Stage) -> None:
    paths, output = [bench.run(method) for method in ("pretrained", "dsrl")], bench.root / "eval.json"
    summarise(bench.config, evaluations=paths, output=output, reporter=QUIET)
    assert not (output.parent / "checkpoints").exists()
    for path in (*paths, output):
        document = json.loads(path.read_text())
        assert document["stage"] == ("summarise" if path == output else "evaluate")
        tables = {name: path.with_name(name) for name in ("episodes.parquet", "trajectories.parquet")}
        assert document["tables"] == {name: hash_file(table) for name, table in tables.items()}
        own = document.pop("sha256")
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        assert own == hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(document | {"sha256": own}, indent=None))
        load_document(path, Evaluation)  # how it is laid out decides nothing
        document["policies"][next(iter(document["policies"]))]["success_rate"]["n"] += 1
        path.write_text(json.dumps(document | {"sha256": own}))
        with pytest.raises(ArtifactError, match=r"eval\.json was edited: its sha256 is of another content; delete it"):
            load_document(path, Evaluation)


@pytest.mark.parametrize("name", ["episodes.parquet", "trajectories.parquet"])
def test_tables_of_another_evaluation_of_the_same_policy_are_refused(bench: Stage, name: str) -> None:
    """They have the same rows, of the same policy and seed: the hash alone tells."""
    (path,), output = [bench.run("dsrl")], bench.root / "eval.json"
    kept = path.with_name(name).read_bytes()
    bench.config = make_config(seed=7)
    bench.run("dsrl")
    assert path.with_name(name).read_bytes() != kept
    path.with_name(name).write_bytes(kept)
    with pytest.raises(ArtifactError, match=f"{name}: not the table that .* names; delete both and make it again"):
        summarise(bench.config, evaluations=[path], output=output, reporter=QUIET)
    assert not output.exists()


def test_a_document_without_its_hash_is_refused(bench: Stage) -> None:
    path = bench.run("pretrained")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in document.items() if name not in ("sha256", "tables")}))
    with pytest.raises(ArtifactError, match=r"eval\.json has no sha256: it was edited or is old; delete it and make"):
        summarise(bench.config, evaluations=[path], output=bench.root / "eval.json", reporter=QUIET)


def test_inputs_are_those_that_were_played(bench: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.root / "policy" / "run.json"
    read = hash_file(record)

    def replace_record(*arguments: Any) -> Any:
        record.write_text(record.read_text() + " ")
        return make_block(*arguments)

    monkeypatch.setattr(stage, "make_block", replace_record)
    found = load_document(bench.run("pretrained"), Evaluation).provenance.inputs["policy"]
    assert (found.sha256, found.changed) == (read, True)
    assert hash_file(record) != read


def test_what_belongs_to_another_seed_or_method_is_refused(bench: Stage) -> None:
    modes = bench.finish("discover", "modes1", seed=1)
    other_seed = bench.finish("finetune", "a", seed=1, method="dsrl-bmd")
    other_method = bench.finish("finetune", "b", seed=0, method="res-bmd")
    with pytest.raises(ArtifactError, match="a was made for seed 1, not for seed 0"):
        bench.run("dsrl-bmd", finetuned=other_seed)
    with pytest.raises(ArtifactError, match="b was made for method res-bmd, not for method dsrl-bmd"):
        bench.run("dsrl-bmd", finetuned=other_method)
    with pytest.raises(ArtifactError, match="modes1 was made for seed 1, not for seed 0"):
        bench.run("taught", modes=modes)
    assert not list(bench.root.glob("*/seed*"))


def test_evaluations_of_two_base_policies_or_two_sets_of_modes_are_not_set_side_by_side(bench: Stage) -> None:
    """Settings, policies and seeds are the same: the content of what was evaluated tells."""
    output = bench.root / "eval.json"
    for origin, methods in (("policy", ("pretrained", "dsrl")), ("modes0", ("taught", "dsrl-bmd"))):
        paths = [bench.run(methods[0])]
        record = bench.root / origin / "run.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"wall_s": 77.0}))  # made anew
        paths.append(bench.run(methods[1]))
        why = f"its {origin.rstrip('0')} is another than that of .*; delete both"
        with pytest.raises(ArtifactError, match=why):
            summarise(bench.config, evaluations=paths, output=output, reporter=QUIET)
        with pytest.raises(ArtifactError, match="is another than that of"):
            load_evaluations(make_config(seeds=(0,), methods=("dsrl", "dsrl-bmd")), methods, paths)
        assert not output.exists()


def test_settings_of_other_methods_make_nothing_stale() -> None:
    base = make_config()
    stronger = make_config(finetune={"regulariser": {"mi_weight": 3.0}})
    assert hash_policy_settings(base, "pretrained") == hash_policy_settings(stronger, "pretrained")
    assert hash_policy_settings(base, "dsrl") == hash_policy_settings(stronger, "dsrl")
    assert hash_policy_settings(base, "dsrl-bmd") != hash_policy_settings(stronger, "dsrl-bmd")
    longer = make_config(discover={"teaching": {"steps": 7}})
    assert hash_policy_settings(base, "taught") == hash_policy_settings(stronger, "taught")
    assert hash_policy_settings(base, "taught") != hash_policy_settings(longer, "taught")
    assert hash_policy_settings(base, "pretrained") == hash_policy_settings(longer, "pretrained")
    more_seeds = make_config(seeds=(0, 1, 2))
    assert hash_policy_settings(base, "dsrl-bmd") == hash_policy_settings(more_seeds, "dsrl-bmd")


def test_bad_input_writes_nothing(bench: Stage) -> None:
    with pytest.raises(ConfigError, match="unknown method 'dsrl-bdm'"):
        bench.run("dsrl-bdm")
    with pytest.raises(ArtifactError, match="evaluating dsrl needs the output of `bmd-pipeline finetune"):
        bench.run("dsrl", finetuned=None)
    with pytest.raises(ArtifactError, match="evaluating dsrl-bmd needs the output of `bmd-pipeline discover"):
        bench.run("dsrl-bmd", modes=None)
    with pytest.raises(ArtifactError, match="evaluating taught needs the output of `bmd-pipeline discover"):
        bench.run("taught", modes=None)
    bench.finish("pretrain", "policy", task="PushT")
    with pytest.raises(ArtifactError, match="made for task PushT, not for GaussianMixture"):
        bench.run("pretrained")
    assert not list(bench.root.glob("*/seed*"))


def test_a_labelling_that_breaks_its_contract_is_refused(bench: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Improper:
        name, modes = "goal", ("a", "b")

        def label(self, track: Tensor, length: Tensor, success: Tensor) -> Tensor:
            return torch.full((len(length), 2), 0.4)

    monkeypatch.setattr(stage, "load_labellings", lambda task: (Improper(),))
    with pytest.raises(TaskError, match=r"rows that sum to 1, got \[0.4"):
        bench.run("pretrained")


def test_a_killed_evaluation_leaves_no_stale_eval_json(bench: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    output = bench.run("pretrained")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "plot_trajectories", die)
    with pytest.raises(KeyboardInterrupt):
        bench.run("pretrained")
    assert not output.exists()


def test_an_untrained_policy_is_played_for_real(tmp_path: Path) -> None:
    """No fakes: checkpoint, agent, rollout and task."""
    config = make_config()
    folder = tmp_path / "policy"
    folder.mkdir()

    def save(obs_dim: int) -> None:
        save_policy(DiffusionPolicy(config.pretrain.policy, obs_dim=obs_dim, action_dim=2), folder, TASK)
        origin: dict[str, Any] = {"config": {}, "config_hash": "", "seed": 0, "inputs": {}, "start": RunStart(print)}
        write_run(folder, describe_run(stage="pretrain", task=TASK, **origin))

    torch.manual_seed(0)
    save(obs_dim=2)
    output = tmp_path / "eval.json"
    rest: dict[str, Any] = {"seed": 0, "num_workers": 1, "reporter": QUIET, "method": "pretrained"}
    evaluate(config, policy=folder, modes=None, finetuned=None, output=output, **rest)
    block = load_document(output, Evaluation).policies["pretrained"]
    assert block.success_rate.n == 50
    assert block.codes == []
    (episodes,) = load_episodes(output.with_name("episodes.parquet"))
    assert episodes.length.max() <= 24
    save(obs_dim=3)
    (tmp_path / "finetuned" / "snapshots" / "000000").mkdir(parents=True)
    for play in (evaluate, curve):
        with pytest.raises(ArtifactError, match=r"has obs_dim 3, the task has 2"):
            play(config, policy=folder, modes=None, finetuned=tmp_path / "finetuned", output=output, **rest)
