"""Who may ask a stage to stop, and what a second signal does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from bmd_pipeline.errors import SimulationError, TaskError
from bmd_pipeline.stages.console import Stop, StoppableEnv, Stopped
from bmd_pipeline.tasks import registry


def test_nobody_asked() -> None:
    stop = Stop()
    stop.check()
    assert stop.reason is None


def test_a_time_limit_counts_from_the_start() -> None:
    now = [100.0]
    stop = Stop(2.0, clock=lambda: now[0])
    now[0] = 219.9
    stop.check()
    now[0] = 220.0
    with pytest.raises(Stopped, match="its time limit of 2 min"):
        stop.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_only_leaves_a_note_and_handlers_are_put_back(number: signal.Signals) -> None:
    outside = signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup, which ignores one of them
    try:
        with Stop() as stop:
            os.kill(os.getpid(), number)
            assert stop.reason == number.name
            with pytest.raises(Stopped, match=number.name):
                stop.check()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, outside)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_from_the_start_stays_so(number: signal.Signals) -> None:
    """As nohup does, and a shell's script for what it starts in the background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), number)
            assert stop.reason is None
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


TWICE = """
import os, signal
from bmd_pipeline.stages.console import Stop
with Stop():
    os.kill(os.getpid(), signal.SIGTERM)
    print("first", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("second", flush=True)
"""


def test_a_second_signal_ends_the_process_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert done.stdout == "first\n"
    assert done.returncode == -signal.SIGINT


def test_workers_that_died_of_the_same_signal_are_no_failure() -> None:
    with pytest.raises(Stopped, match="SIGTERM"), Stop():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        raise SimulationError("worker 3 died")
    with pytest.raises(SimulationError), Stop():
        raise SimulationError("worker 3 died")
    with pytest.raises(TaskError), Stop():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        raise TaskError("something else")


def test_it_can_be_used_outside_the_main_thread() -> None:
    def use() -> None:
        with Stop() as stop:
            stop.check()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()


def test_an_environment_stops_between_chunks() -> None:
    now = [0.0]
    env = StoppableEnv(registry.make_env("GaussianMixture", {}, 3), Stop(1.0, clock=lambda: now[0]))
    env.reset(0)
    moved = env.step_chunk(torch.zeros(3, 2, 2))
    assert env.num_envs == len(moved.success) == 3
    assert env.track().shape[0] == 3
    now[0] = 60.0
    with pytest.raises(Stopped):
        env.step_chunk(torch.zeros(3, 2, 2))
    with pytest.raises(Stopped):
        env.step(torch.zeros(3, 2))
    env.close()
