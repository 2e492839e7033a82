"""Where a stage plays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bmd_pipeline.config.load import load_config
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.stages import runtime
from bmd_pipeline.stages.runtime import prepare_device, select_recorder, select_stage_device

ROOT = Path(__file__).parents[2]


def choose(task: str, *assignments: str) -> str:
    config = load_config(task, preset="cpu", assignments=assignments, config_dir=ROOT / "config")
    return str(select_stage_device(config))


def test_simulators_stay_on_the_cpu_beside_a_device_unless_they_are_sent_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose("AvoidPoint") == "cuda"
    assert choose("AvoidPoint", "execution.device=cpu") == "cpu"
    for task in ("PushT", "Reach", "Kitchen"):
        assert choose(task) == choose(task, "execution.device=cuda") == "cpu"
    assert choose("PushT", "task.physics=cuda") == "cuda"


def test_physics_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose("AvoidPoint") == choose("PushT") == "cpu"
    with pytest.raises(ConfigError, match=r"^task\.physics is cuda, but torch finds no CUDA device; set it to cpu"):
        choose("PushT", "task.physics=cuda")


def test_cuda_graphs_are_for_cuda_devices_and_those_who_ask() -> None:
    asking = load_config("AvoidPoint", assignments=["execution.cuda_graphs=true"], config_dir=ROOT / "config")
    plain = load_config("AvoidPoint", config_dir=ROOT / "config")
    assert select_recorder(asking, torch.device("cuda")) is not None
    assert select_recorder(asking, torch.device("cpu")) is None
    assert select_recorder(plain, torch.device("cuda")) is None


def test_what_plays_multiplies_matrices_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "select_stage_device", lambda config: torch.device("cuda"))
    told = []
    monkeypatch.setattr(runtime, "set_matmul", lambda device, how, _: told.append((device.type, how)) or how)
    config = load_config("AvoidPoint", assignments=["execution.cuda_matmul=tf32"], config_dir=ROOT / "config")
    assert prepare_device(config) == (torch.device("cuda"), None, "tf32")
    assert told == [("cuda", "tf32")]
