"""A policy of the user's own: examples/own_policy runs end to end, and what can't be is one line."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import zarr

import bmd_pipeline as bmd
from bmd_pipeline.cli.main import main
from bmd_pipeline.config import hashing
from bmd_pipeline.errors import ArtifactError, BMDError, ConfigError, TaskError
from bmd_pipeline.policies.checkpoint import load_policy, save_policy
from bmd_pipeline.policies.diffusion import stack_frames
from bmd_pipeline.policies.external import ExternalPolicy, load_external
from bmd_pipeline.rl.agent import load_agent

ROOT = Path(__file__).parents[2]
TASK = "GaussianMixture"
SIZES, BOUNDS = {"obs_dim": 2, "action_dim": 2}, ((-1.0, -1.0), (1.0, 1.0))
EXTERNAL = {"pretrain.external_policy": "flow:load", "methods": ["dsrl", "res"], "discover.form": "published"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bmd.Run]:
    """A run of the example, pre-trained."""
    folder = tmp_path_factory.mktemp("external")
    shutil.copy(ROOT / "examples/own_policy/flow.py", folder)
    (folder / "config").symlink_to(ROOT / "config")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        made = bmd.Run(TASK, preset="smoke", settings=EXTERNAL, root=folder)
        bmd.collect(made)
        importlib.import_module("flow").train(str(made.layout.demos(TASK)), steps=100)
        bmd.pretrain(made)
        yield made
        del sys.modules["flow"]


def test_it_is_adopted_without_training(run: bmd.Run) -> None:
    folder = run.layout.policy(TASK)
    record, settings = (json.loads((folder / name).read_text()) for name in ("run.json", "policy.json"))
    assert record["external_policy"] == settings["external"]
    assert record["external_policy"]["function"] == "flow:load"
    assert 0.0 <= record["metrics"]["select/success_rate"] <= 1.0
    policy = load_policy(folder, task=TASK, external="flow:load")
    assert isinstance(policy, ExternalPolicy)
    frames, noise = torch.rand(2, 5, 2) * 40 - 20, torch.randn(5, 16)  # far from the demonstrations, too
    chunk = policy.to_action(policy.sample(noise, policy.encode(stack_frames(frames.unbind()))))
    own = sys.modules["flow"].load()(noise.reshape(5, 8, 2), frames.flip(0).transpose(0, 1))
    torch.testing.assert_close(chunk, own.clamp(-1.0, 1.0), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", ["dsrl", "res", "dsrl-bmd"])
def test_methods_that_leave_the_policy_alone_run(run: bmd.Run, method: str) -> None:
    if method.endswith("-bmd"):
        bmd.discover(run)
    bmd.finetune(run, method)
    assert 0.0 <= bmd.evaluate(run, method).success_rate.mean <= 1.0
    assert bmd.load_policy(run, method).act([0.0, 0.0]).shape == (2,)


def test_others_are_refused(run: bmd.Run) -> None:
    for settings, message in (
        ({"methods": ["dppo"]}, r"methods must be res, dsrl or those with -bmd for pretrain.external_policy.*got dppo"),
        ({"methods": ["res-bmd"], "discover.form": "coded"}, r"discover.form must be published for -bmd methods"),
    ):
        with pytest.raises(ConfigError, match=message):
            bmd.Run(TASK, settings=EXTERNAL | settings).config  # noqa: B018
    with pytest.raises(ArtifactError, match=r"method dppo trains a denoiser.*use res or dsrl"):
        bmd.finetune(run, "dppo")
    coded = bmd.Run(TASK, "smoke", EXTERNAL | {"discover.form": "coded"}, run.root)
    with pytest.raises(ConfigError, match=r"discover.form must be published for a policy of pretrain.external_policy"):
        bmd.discover(coded)


def test_another_code_or_other_weights_are_another_policy(run: bmd.Run, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(run.layout.policy(TASK), folder)
    policy, tuned = load_policy(folder, external="flow:load"), run.layout.finetuned(TASK, "dsrl", 0)
    assert (tuned / "finetuned.json").is_file()
    policy.fingerprint = "other"
    with pytest.raises(ArtifactError, match="fine-tuned from another policy"):
        load_agent(policy, None, tuned, "dsrl", task=TASK)
    settings = json.loads((folder / "policy.json").read_text())
    for name, message in (("source_sha256", "the code of its module changed"), ("weights_sha256", "its weights chang")):
        other = settings | {"external": settings["external"] | {name: "0"}}
        (folder / "policy.json").write_text(json.dumps(other))
        with pytest.raises(ArtifactError, match=f"flow:load, but {message}.*run `bmd-pipeline pretrain` again"):
            load_policy(folder, external="flow:load")


READING = """
import pathlib, torch
from bmd_pipeline.policies.external import PolicySpec

class Reading:
    spec = PolicySpec(obs_dim=2, action_dim=2, horizon=8, n_action_steps=4, n_obs_steps=2)
    gain = float(pathlib.Path(__file__).with_name("gain.txt").read_text())
    def __call__(self, noise, obs):
        return self.gain * noise

def load():
    Reading.gain = float(pathlib.Path(__file__).with_name("gain.txt").read_text())
    return Reading()
"""


def test_what_no_hash_sees_is_seen_in_what_the_policy_does(
    run: bmd.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reading.py").write_text(READING)
    (gain := tmp_path / "gain.txt").write_text("0.25")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(run.layout.demos(TASK).parent, tmp_path / "data" / "GaussianMixture-smoke")
    given = EXTERNAL | {"pretrain.external_policy": "reading:load", "pretrain.selection.episodes": 0}
    own = bmd.Run(TASK, preset="smoke", settings=given, root=tmp_path)
    bmd.pretrain(own)
    folder = own.layout.policy(TASK)
    first = load_policy(folder, external="reading:load").fingerprint
    gain.write_text("0.251")  # less than what another machine may round
    assert load_policy(folder, external="reading:load").fingerprint == first
    gain.write_text("0.4")
    with pytest.raises(ArtifactError, match=r"reading:load: its actions are other ones than when .*pretrain` again"):
        bmd.finetune(own, "res")
    gain.write_text("0.6")  # what is clipped is said
    bmd.pretrain(own)
    warned = "of its actions' values lie outside the bounds of the task's actions; they are clipped there"
    assert warned in capsys.readouterr().err
    assert json.loads((folder / "run.json").read_text())["clipped_actions"] == pytest.approx(0.096, abs=0.03)
    assert load_policy(folder, external="reading:load").fingerprint != first


@pytest.mark.parametrize("damage", ["missing", "sizes", "empty"])
def test_a_policy_without_a_trial_of_its_sizes_is_refused(run: bmd.Run, tmp_path: Path, damage: str) -> None:
    policy = load_policy(run.layout.policy(TASK), external="flow:load")
    assert isinstance(policy, ExternalPolicy)
    damaged = {"missing": {}, "sizes": policy.trial | {"cond": torch.zeros(3, 1)}, "empty": policy.trial}[damage]
    policy.trial = {name: value[:0] for name, value in damaged.items()} if damage == "empty" else damaged
    save_policy(policy, tmp_path, TASK)
    with pytest.raises(ArtifactError, match="does not fit flow:load: run `bmd-pipeline pretrain` again"):
        load_policy(tmp_path, external="flow:load")


def test_a_file_makes_nothing_be_imported_that_the_settings_do_not_name(run: bmd.Run, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(run.layout.policy(TASK), folder)
    for external in ("", "flow:FlowPolicy"):
        with pytest.raises(
            ArtifactError, match=f"is of pretrain.external_policy 'flow:load', the settings say '{external}"
        ):
            load_policy(folder, external=external)


def test_its_code_is_that_of_its_module_without_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    hashes = []
    for name, text in (
        ("a", "def load(): return 1"),
        ("b", "def load():  # two\n    return 1"),
        ("c", "def load(): 2"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hashed_module.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path / name)
        hashing._find_source.cache_clear()
        hashing._find_outside.cache_clear()
        for cached in (hashing.hash_function, hashing._read, hashing._content, hashing._list_references):
            cached.cache_clear()
        hashes.append(hashing.hash_function("hashed_module:load").encode())
    assert len({*hashes[:2]}) == 1
    assert hashes[2] != hashes[0]


MODULE = """
import torch
from bmd_pipeline.policies.external import PolicySpec

class Own:
    def __init__(self, answer, **spec):
        self.spec = PolicySpec(**{"obs_dim": 2, "action_dim": 2, "horizon": 4, "n_action_steps": 2, **spec})
        self.answer = answer
    def __call__(self, noise, obs):
        return self.answer(noise)

def good(): return Own(lambda noise: noise)
def wide(): return Own(lambda noise: noise, obs_dim=3)
def long(): return Own(lambda noise: noise, n_action_steps=9)
def flat(): return Own(lambda noise: noise.flatten(1))
def nan(): return Own(lambda noise: noise * float("nan"))
def meta(): return Own(lambda noise: noise.to("meta"))
def late(): return Own(Late())
def clamping(): return Own(lambda noise: noise.clamp_(-0.1, 0.1))
class Late:
    calls = 0
    def __call__(self, noise):
        self.calls += 1
        return noise if self.calls < 5 else noise * float("nan")
def drawn(): return Own(lambda noise: torch.randn_like(noise))
def failing(): return Own(lambda noise: 1 / 0)
def broken(): raise ValueError("no weights")
def plain(): return lambda noise, obs: noise
"""


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("nowhere:load", TaskError, r"'nowhere' can't be imported: ModuleNotFoundError.*on PYTHONPATH"),
        ("own_module:goood", ConfigError, r"own_module has no function 'goood'; did you mean 'good'"),
        ("own_module:broken", TaskError, r"own_module:broken failed in the function: ValueError: no weights \(.*own_m"),
        ("own_module:plain", ConfigError, r"must return a callable with a `spec`.*; got function"),
        ("own_module:wide", ArtifactError, r"own_module:wide: its spec has obs_dim 3, the task has 2"),
        (
            "own_module:long",
            ConfigError,
            r"own_module:long: its spec doesn't hold: .*n_action_steps must be <= horizon",
        ),
        ("own_module:flat", ArtifactError, r"a call must return floats \[\d+, 4, 2\], got torch.float32 \[\d+, 8\]"),
        ("own_module:nan", ArtifactError, r"a call returned actions that are not finite"),
        ("own_module:late", ArtifactError, r"own_module:late: a call returned actions that are not finite"),
        ("own_module:meta", ArtifactError, r"a call must return a chunk on cpu, as its arguments are, got one on meta"),
        ("own_module:drawn", ArtifactError, r"two calls with the same noise gave other actions"),
        ("own_module:failing", TaskError, r"own_module:failing failed in a call: ZeroDivisionError"),
    ],
)
def test_what_is_no_policy_is_refused_in_one_line_and_nothing_is_written(
    run: bmd.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, kind: type[BMDError], message: str
) -> None:
    (tmp_path / "own_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    shutil.copytree(run.layout.demos(TASK).parent, tmp_path / "data" / "GaussianMixture-smoke")
    own = bmd.Run(TASK, "smoke", EXTERNAL | {"pretrain.external_policy": function}, tmp_path)
    with pytest.raises(kind, match=message) as caught:
        bmd.pretrain(own)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "results").rglob("policy.*"))


def test_a_policy_may_change_its_copy_of_the_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    noise = torch.ones(3, 8)
    load_external("own_module:clamping", SIZES, BOUNDS).sample(noise, torch.zeros(3, 2))
    assert torch.equal(noise, torch.ones(3, 8))


def test_settings_of_training_have_no_effect(run: bmd.Run, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((run.layout.policy(TASK) / "run.json").read_text())
    assert record["config"]["pretrain"].keys() == {"external_policy", "selection"}
    given = [f"{name}={value}".replace("'", '"') for name, value in EXTERNAL.items() if name != "discover.form"]
    for setting in ("pretrain.iterations=99", "pretrain.policy.n_action_steps=1"):
        words = [part for text in (*given, setting) for part in ("--set", text)]
        command = ["pretrain", "--task", TASK, "--preset", "smoke", "--root", str(run.layout.root), *words]
        assert main(command) == 2
        told = f"{setting.partition('=')[0]} has no effect on `pretrain`: nothing is trained with pretrain.external"
        assert told in capsys.readouterr().err


def test_demonstrations_are_compared_with_the_task(
    run: bmd.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data" / "GaussianMixture-smoke"
    shutil.copytree(run.layout.demos(TASK).parent, data)
    store = zarr.open_group(data / "demos.zarr")
    store["data/obs"][:] = 100.0 * store["data/obs"][:]
    bmd.pretrain(bmd.Run(TASK, "smoke", EXTERNAL, tmp_path))
    record = json.loads((tmp_path / "results" / "GaussianMixture-smoke" / "policy" / "run.json").read_text())
    assert any("does not look like GaussianMixture" in warning for warning in record["warnings"])


def test_encoding_is_undone_far_beyond_the_demonstrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    policy = load_external("own_module:good", SIZES, BOUNDS)
    policy.fit_normalisers(torch.rand(50, 8), torch.randn(50, 2))
    seen = torch.tensor([[0.1, -2.0], [300.0, -5000.0], [6.0, 0.0]])
    encoded: Any = policy.encode(seen)
    assert float(encoded.abs().max()) < 20.0
    torch.testing.assert_close(policy._decode(encoded)[:, 0], seen, rtol=1e-4, atol=1e-5)
