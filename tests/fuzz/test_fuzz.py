"""A few tries of each target; `make fuzz` makes a thousand (see `campaign`)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from ..faults.lab import Ended
from . import garbage
from .bench import Bench
from .targets import TARGETS, small_settings

TRIES = [(name, number) for name in TARGETS for number in range(1 if TARGETS[name] is small_settings else 2)]
"""Allowed settings play the whole chain: one try of them takes as long as fifteen of another."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("bench")) as bench:
        yield bench


@pytest.mark.parametrize(("name", "number"), TRIES)
def test_garbage_is_refused_or_used(bench: Bench, name: str, number: int) -> None:
    TARGETS[name](bench, random.Random(f"ci {name} {number}"))


def test_a_try_can_be_made_again() -> None:
    document = {"a": [1, {"b": "c"}], "d": 0.5}
    one, other = (garbage.mutate(random.Random("x"), document) for _ in range(2))
    assert repr(one) == repr(other)
    assert document == {"a": [1, {"b": "c"}], "d": 0.5}


@pytest.mark.parametrize(
    ("ended", "complaint"),
    [
        (Ended(1, "internal error: KeyError: 0", 0.0), "status 1"),
        (Ended(2, "Traceback (most recent call last):\nerror: no", 0.0), "Traceback"),
        (Ended(2, "no", 0.0), "status 2: no"),
    ],
)
def test_the_bench_notices_what_it_is_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ended: Ended, complaint: str
) -> None:
    project = bench.copy(finished=False)
    monkeypatch.setattr(bench, "call", lambda project, argv: ended)
    with pytest.raises(AssertionError, match=complaint):
        bench.refuse_or_finish(project, ["tasks"])
