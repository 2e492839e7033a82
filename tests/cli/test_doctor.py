"""What the doctor finds."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NoReturn

import pytest

from bmd_pipeline.cli import doctor
from bmd_pipeline.cli.main import main
from bmd_pipeline.config.load import load_config


def test_every_check_answers_here() -> None:
    findings = list(doctor.examine())
    assert len({finding.name for finding in findings}) == len(findings) >= 10
    assert all(finding.text for finding in findings)
    assert not [finding for finding in findings if finding.verdict == "missing"]


def test_a_broken_installation_is_reported_not_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _check_torch(settings: object) -> doctor.Found:
        raise ImportError("libcudart.so.13: cannot open\nshared object")

    monkeypatch.setattr(doctor, "_check_torch", _check_torch)
    for name in ("_check_device", "_check_simulator", "_check_renderer"):
        monkeypatch.setattr(doctor, name, doctor._check_cores)  # slow, and tested above
    assert main(["doctor"]) == 2
    assert "libcudart.so.13: cannot open shared object" in capsys.readouterr().out


def examine(monkeypatch: pytest.MonkeyPatch, task: str, *assignments: str) -> dict[str, doctor.Finding]:
    monkeypatch.setattr(doctor, "_check_renderer", doctor._check_python)  # slow, and tested above
    root = Path(__file__).parents[2]
    settings = load_config(task, preset="smoke", assignments=assignments, config_dir=root / "config")
    return {finding.name: finding for finding in doctor.examine(settings)}


def test_a_run_is_told_where_cores_are_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examine(monkeypatch, "GaussianMixture", "execution.threads.collect=1000")
    assert "a stage asks for 1000" in found["cores"].text
    assert {finding.verdict for finding in found.values()} <= {"ok", "note"}


@pytest.mark.parametrize("setting", ["pretrain.precision", "finetune.denoiser.precision"])
def test_bfloat16_is_advised_against_where_it_is_slow(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for units in (True, False):
        monkeypatch.setattr("bmd_pipeline.compute.has_bfloat16_units", lambda units=units: units)
        found = examine(monkeypatch, "GaussianMixture")["torch"]
        assert (found.verdict, "units for bfloat16" in found.text) == ("ok", units)
        found = examine(monkeypatch, "GaussianMixture", f"{setting}=bfloat16")["torch"]
        assert found.verdict == ("ok" if units else "note")
        assert (setting in found.text) or units


def test_a_simulator_is_missed_only_by_tasks_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", lambda name: missing(name) if name == "mani_skill" else "1.0")
    assert examine(monkeypatch, "GaussianMixture")["simulator"].verdict == "ok"
    found = examine(monkeypatch, "PushT")["simulator"]
    assert (found.verdict, found.text[:37]) == ("missing", "mani_skill is not installed: Anymal, ")
    assert found.text.endswith("; `pip install mani_skill`")


def test_advice_needs_no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmd_pipeline.tasks.registry.find_missing", lambda entry: list(entry.requires))
    monkeypatch.setattr(doctor, "find_missing", lambda entry: list(entry.requires))
    texts = [finding.text for finding in examine(monkeypatch, "Kitchen").values()]
    assert "not installed: mujoco gymnasium-robotics (Kitchen); `pip install 'bmd-pipeline[kitchen]'`" in texts
    assert not [text for text in texts if "make setup" in text or "editable" in text]


def test_a_cuda_device_is_missed_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert examine(monkeypatch, "GaussianMixture")["device"].verdict == "note"
    found = examine(monkeypatch, "GaussianMixture", "execution.device=cuda")["device"]
    assert (found.verdict, "execution.device" in found.text) == ("missing", True)
    found = examine(monkeypatch, "PushT", "task.physics=cuda")["device"]
    assert (found.verdict, "task.physics" in found.text) == ("missing", True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a device")
    found = examine(monkeypatch, "PushT", "task.physics=cuda")["device"]
    assert (found.verdict, "never run" in found.text) == ("note", True)
    assert examine(monkeypatch, "PushT")["device"].verdict == "ok"
