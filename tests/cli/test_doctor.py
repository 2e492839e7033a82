"""What the doctor finds."""

from __future__ import annotations

import pytest

from bmd_pipeline.cli import doctor
from bmd_pipeline.cli.main import main


def test_every_check_answers_here() -> None:
    findings = list(doctor.examine())
    assert len({finding.name for finding in findings}) == len(findings) >= 10
    assert all(finding.text for finding in findings)
    assert not [finding for finding in findings if finding.verdict == "missing"]


def test_a_broken_installation_is_reported_not_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _check_torch() -> doctor.Finding:
        raise ImportError("libcudart.so.13: cannot open\nshared object")

    monkeypatch.setattr(doctor, "_check_torch", _check_torch)
    for name in ("_check_device", "_check_matmul", "_check_simulator", "_check_renderer"):
        monkeypatch.setattr(doctor, name, doctor._check_cores)  # slow, and tested above
    assert main(["doctor"]) == 2
    assert "libcudart.so.13: cannot open shared object" in capsys.readouterr().out
