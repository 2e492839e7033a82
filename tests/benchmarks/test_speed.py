"""The speed table: its file and its page agree, and what is compared is compared fairly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import speed
from benchmarks.peers import find_checkout, lift_loop
from benchmarks.speed import ROOT, STARTS, Peers, choose, measure
from benchmarks.speed_rows import WORK, PlainNetwork, Sides, decide, difference, make_policy
from benchmarks.speed_table import PAGE, TABLE, Growth, Ratio, Row, SpeedTable, fill, fit_exponent, load_table
from bmd_pipeline.errors import ArtifactError


def make_row(name: str, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "name": name,
        "title": name,
        "peer": "DPPO cc7234a, its loop",
        "wanted": 2.0,
        "cpu": Ratio(median=2.5, min=2.0, max=3.0),
        "wall": Ratio(median=2.0, min=1.0, max=3.0),
        "unit": "step",
        "ours_ms": 1.0,
        "theirs_ms": 2.5,
        "parity": "loss to 1e-06",
        "rounds": 15,
        "load": 0.5,
        "machine": "a machine",
        "commit": "0123456789" * 4,
    }
    return Row(**values | changes)


def test_the_page_agrees_with_the_table() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert text.count("<!-- speed:") == text.count("<!-- end speed -->") == 5
    assert fill(text, load_table(ROOT / TABLE)) == text, "run python -m benchmarks.speed --rows start/python"


def test_the_table_has_rows_that_can_be_made_again() -> None:
    table = load_table(ROOT / TABLE)
    assert {row.name for row in table.rows} <= set(WORK)
    assert {start.name for start in table.starts} <= set(STARTS)


def test_a_row_made_again_takes_the_place_of_the_old() -> None:
    table = SpeedTable(schema_version=1, rows=[], starts=[], memory=[], growth=[], success=[])
    order = ["one", "two"]
    for name in ("two", "one", "two"):
        table = table.with_row(make_row(name, ours_ms=float(len(table.rows))), order)
    assert [(row.name, row.ours_ms) for row in table.rows] == [("one", 1.0), ("two", 2.0)]
    text = fill("<!-- speed: rows -->\nold\n<!-- end speed -->\n", table)
    assert "old" not in text
    assert "| one | DPPO cc7234a, its loop | 1 ms | 2.5 ms | 2.50 | 2.00 to 3.00 | 2.00 | 2, met | loss to" in text
    assert "- a machine; commit 0123456: 2 of 2 rows" in text


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    path.write_text(
        '{"schema_version": 1, "rows": [], "starts": [], "memory": [], "growth": [], "success": [], "more": 1}'
    )
    with pytest.raises(ArtifactError, match=r"speed table: .*speed.json doesn't fit: more"):
        load_table(path)


def test_rows_are_chosen_by_name_or_folder() -> None:
    known = ["acting/1/dppo", "acting/64/dppo", "start/python"]
    assert choose(["acting"], known) == known[:2]
    assert choose(["start/python", "acting/1"], known) == [known[0], known[2]]
    assert choose([], known) == known
    with pytest.raises(ValueError, match="no row 'act'; there are acting/1/dppo, "):
        choose(["act"], known)


def test_a_missing_peer_is_named(tmp_path: Path) -> None:
    assert find_checkout(tmp_path, "dppo") is None
    why = Peers(tmp_path).missing(WORK["ppo/denoiser/float32"])
    assert why == "PEERS has no checkout dppo/ (https://github.com/irom-princeton/dppo)"


def test_ratios_are_taken_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slows down from call to call, and the other side takes three times as long per unit."""
    clock = [0.0]
    monkeypatch.setattr(speed, "time", SimpleNamespace(process_time=lambda: clock[0], perf_counter=lambda: clock[0]))
    load = [1.0]

    def work(seconds: float, units: float) -> float:
        load[0] *= 1.01
        clock[0] += seconds * load[0]
        return units

    cpu, wall, ours, theirs = measure(Sides(lambda: work(2.0, 10), lambda: work(3.0, 5), ""), rounds=4)
    assert cpu.median == wall.median == pytest.approx(3.0, rel=0.01)
    assert cpu.min < 3.0 < cpu.max  # who goes first changes
    assert theirs / ours == pytest.approx(3.0, rel=0.02)


def test_sides_that_differ_are_refused() -> None:
    assert difference([torch.ones(2)], [torch.ones(2)], 0.0) == 0.0
    with pytest.raises(AssertionError, match=r"differ by 0\.5, more than 0\.1"):
        difference([torch.ones(2)], [2.0 * torch.ones(2)], 0.1)


def test_a_loop_is_lifted_out_of_its_script(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("def run(self):\n    for epoch in range(self):\n        total = total + epoch\n    print(total)\n")
    names = {"self": 4, "total": 0}
    lift_loop(path, "epoch")(names)
    assert names["total"] == 6


def test_the_exponent_is_that_of_the_largest_sizes() -> None:
    points = [Growth(axis="a", size=size, seconds=1.0 + size**2, peak_mb=1.0) for size in (1, 1000, 10_000)]
    assert fit_exponent(points) == pytest.approx(2.0, abs=1e-3)
    assert fit_exponent(points[:1]) == 0.0


def test_an_exported_policy_decides() -> None:
    sides = decide(None, sizes=(8, 8))
    assert sides.ours() == sides.theirs() == 100


def test_the_plain_network_is_our_denoiser() -> None:
    policy = make_policy(hidden_sizes=(8, 8))
    network = PlainNetwork(policy)
    cond, x = torch.randn(3, policy.cond_dim), torch.randn(3, policy.noise_dim)
    signal = policy.alphas_cumprod[9]
    with torch.no_grad():
        clean = (x - (1 - signal).sqrt() * network(x, torch.tensor(9), cond)) / signal.sqrt()
        torch.testing.assert_close(policy.condition(cond)(x, 9), clean.clamp(-1.0, 1.0), atol=1e-5, rtol=1e-4)
