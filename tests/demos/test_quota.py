import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.demos.collect import Attempt, Quota
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import ConfigError, TrainingError

ROW = np.zeros((1, 1), np.float32)
NAMES = ("left", "right", "over")


def succeeds(attempt: Attempt, rate: float) -> bool:
    return random.Random(f"{attempt.behaviour}/{attempt.index}").random() < rate


def collect(quota: Quota, workers: int, order: random.Random, rate: float) -> list[tuple[int, int]]:
    """Plays a pool whose attempts finish in random order; returns what was accepted, in order."""
    running: list[Attempt] = []
    accepted = []
    while not quota.done:
        while len(running) < workers and (attempt := quota.next_attempt()) is not None:
            running.append(attempt)
        attempt = running.pop(order.randrange(len(running)))
        row = np.full((1, 1), attempt.index, np.float32)
        episode = Episode(row, ROW, succeeds(attempt, rate), attempt.behaviour)
        accepted += [(e.behaviour, int(e.obs[0, 0])) for e in quota.finish(attempt, episode)]
    assert not running  # no attempt was started in vain
    return accepted


@given(
    workers=st.integers(1, 7),
    order=st.integers(0, 1000),
    num_episodes=st.integers(3, 20),
    rate=st.floats(0.3, 1.0),
)
def test_what_is_accepted_does_not_depend_on_workers(workers: int, order: int, num_episodes: int, rate: float) -> None:
    serial, parallel = (Quota(NAMES, num_episodes, 1000) for _ in range(2))
    expected = collect(serial, 1, random.Random(0), rate)
    assert collect(parallel, workers, random.Random(order), rate) == expected
    assert parallel.counts() == serial.counts()

    # brute force: the first successes of each behaviour, and nothing after them
    for behaviour, name in enumerate(NAMES):
        quota = num_episodes // 3 + (behaviour < num_episodes % 3)
        firsts = [i for i in range(1000) if succeeds(Attempt(i, behaviour), rate)][:quota]
        assert [index for who, index in expected if who == behaviour] == firsts
        count = serial.counts()[name]
        assert count == {
            "attempts": firsts[-1] + 1,
            "accepted": quota,
            "dropped": firsts[-1] + 1 - quota,
        }


def test_behaviours_take_turns() -> None:
    assert collect(Quota(NAMES, 7, 2), 4, random.Random(0), 1.0) == [
        *((b, 0) for b in range(3)),
        *((b, 1) for b in range(3)),
        (0, 2),
    ]


@given(st.integers(1, 5), st.floats(1.0, 3.0))
def test_gives_up_on_what_the_expert_cannot_do(workers: int, factor: float) -> None:
    quota = Quota(NAMES, 6, factor)
    limit = math.ceil(2 * factor)
    with pytest.raises(TrainingError, match=f"'left' 0 times in {limit} attempts, 2 are wanted"):
        collect(quota, workers, random.Random(0), 0.0)


def test_more_behaviours_than_episodes() -> None:
    with pytest.raises(ConfigError, match=r"num_episodes must be >= .* \(3\), got 2"):
        Quota(NAMES, 2, 3.0)


def test_only_wanted_behaviours_are_shown() -> None:
    quota = Quota(NAMES, 5, 1000, wanted=("over", "left"))
    assert [who for who, _ in collect(quota, 2, random.Random(0), 1.0)] == [0, 2, 0, 2, 0]
    assert quota.counts().keys() == {"left", "over"}
    with pytest.raises(ConfigError, match="'under'; it shows left, right, over"):
        Quota(NAMES, 5, 1000, wanted=("under",))


@pytest.mark.parametrize("name", ["observation", "action"])
def test_a_demonstration_with_a_value_that_is_not_finite_is_a_failure(name: str) -> None:
    broken = np.full((2, 3), np.nan, np.float32)
    broken[0] = 0.0
    obs, action = (broken, np.zeros((2, 1))) if name == "observation" else (np.zeros((2, 1)), broken)
    quota = Quota(("left",), 1, 2.0)
    attempt = quota.next_attempt()
    assert attempt is not None
    assert list(quota.finish(attempt, Episode(obs, action, True, 0))) == []
    assert quota.counts()["left"] == {"attempts": 1, "accepted": 0, "dropped": 1}
    attempt = quota.next_attempt()
    assert attempt is not None
    with pytest.raises(TrainingError, match=f"1 are wanted; attempt 0 had {name} nan at step 1, column 0; repair"):
        list(quota.finish(attempt, Episode(obs, action, True, 0)))


def test_a_number_beyond_what_a_task_may_show_makes_a_failure() -> None:
    quota = Quota(("left",), 1, 1.0)
    attempt = quota.next_attempt()
    assert attempt is not None
    with pytest.raises(TrainingError, match=r"attempt 0 had observation 1e\+20 at step 0, column 0; repair the expert"):
        list(quota.finish(attempt, Episode(np.full((1, 1), 1e20, np.float32), ROW, True, 0)))
