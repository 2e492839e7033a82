"""Environments in worker processes: same results, and clean ends."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec, VectorTask
from bmd_pipeline.environments.workers import ParallelTask, Service, Worker, make_parallel, split_rows, stop_workers
from bmd_pipeline.errors import SimulationError, TaskError


class Drift(VectorTask):
    """A point per row that moves with the action from a random start; one row can be made to fail."""

    spec = TaskSpec("Drift", obs_dim=2, action_dim=2, track_names=("x", "y"), planar=("x", "y"), horizon=6)

    def __init__(self, num_envs: int, first_row: int, failing_row: int = -1, failure: str = "") -> None:
        super().__init__(num_envs)
        self._first_row, self._failure = first_row, failure
        self._fails = first_row <= failing_row < first_row + num_envs
        self._at = torch.zeros(num_envs, 2)
        if failure == "refuse" and self._fails:
            raise TaskError("Drift: refused")
        if failure == "unbuilt" and self._fails:
            raise KeyError("no such asset")
        if failure == "leave" and self._fails:
            sys.exit(0)

    def _reset(self, seed: int) -> None:
        for row in range(self.num_envs):
            generator = np.random.default_rng((seed, self._first_row + row))
            self._at[row] = torch.from_numpy(generator.standard_normal(2)).float()

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._fails and self._failure == "raise":
            raise ValueError("row went mad")
        if self._fails and self._failure == "truncated":
            raise EOFError("asset ends early")
        if self._fails and self._failure == "stay":
            time.sleep(60.0)
        if self._fails and self._failure == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        self._at = torch.where(active[:, None], self._at + action, self._at)
        done = self._at[:, 0] > 1.5
        return self._at.sum(1), done, done

    def _observe(self) -> Tensor:
        return self._at.clone()

    def track(self) -> Tensor:
        return self._at.clone()


def _rollout(num_workers: int) -> list[Tensor]:
    env = make_parallel(Drift, 5, num_workers)
    generator = torch.Generator().manual_seed(0)
    seen = [env.reset(7), env.track()]
    for _ in range(4):
        transition = env.step_chunk(2.0 * torch.rand(5, 3, 2, generator=generator) - 1.0)
        seen += [value.clone() for value in vars(transition).values()]
    seen.append(env.step(torch.zeros(5, 2)).obs)
    env.close()
    return seen


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    alone, together = _rollout(1), _rollout(2)
    assert len(alone) == len(together)
    for expected, got in zip(alone, together, strict=True):
        assert expected.dtype == got.dtype
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_actions_of_the_wrong_shape_are_refused() -> None:
    with closing(ParallelTask(Drift, 4, 2)) as env:
        env.reset(0)
        with pytest.raises(TaskError, match=r"actions must be \(4, n, 2\), got \(5, 1, 2\)"):
            env.step(torch.zeros(5, 2))
        assert env.step(torch.zeros(4, 2)).obs.shape == (4, 2)  # nothing was harmed


def test_one_worker_means_this_process() -> None:
    assert isinstance(make_parallel(Drift, 5, 1), Drift)
    assert isinstance(make_parallel(Drift, 1, 8), Drift)


def test_rows_are_split_evenly_and_contiguously() -> None:
    assert split_rows(7, 3) == [(0, 2), (2, 4), (4, 7)]
    assert split_rows(4, 4) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_a_user_error_in_a_worker_stays_one() -> None:
    with pytest.raises(TaskError, match=r"^Drift: refused$"):
        ParallelTask(functools.partial(Drift, failing_row=3, failure="refuse"), 4, 2)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("failure", "reason"), [("unbuilt", "KeyError: 'no such asset'"), ("leave", "SystemExit: 0")])
def test_a_plug_in_that_can_not_be_built_in_a_worker_is_its_own_fault(failure: str, reason: str) -> None:
    with pytest.raises(TaskError, match=rf"^task Drift failed in its constructor: {reason} \(.*test_workers\.py:\d+\)"):
        ParallelTask(functools.partial(Drift, failing_row=3, failure=failure), 4, 2)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        ("raise", TaskError, r"^task Drift failed in step: ValueError: row went mad \(.*test_workers\.py:\d+\)"),
        ("truncated", TaskError, r"^task Drift failed in step: EOFError: asset ends early \("),
        ("die", SimulationError, "environments 2 to 3.* by signal 9"),
    ],
)
def test_a_failing_worker_stops_them_all(failure: str, error: type[Exception], message: str) -> None:
    env = ParallelTask(functools.partial(Drift, failing_row=3, failure=failure), 4, 2)
    env.reset(0)
    with pytest.raises(error, match=message) as caught:
        env.step(torch.zeros(4, 2))
    if error is TaskError:
        assert "\n" not in str(caught.value)  # --debug shows the rest
        assert "Traceback" in "".join(traceback.format_exception(caught.value)).partition("TaskError: ")[2]
    assert multiprocessing.active_children() == []
    with pytest.raises(SimulationError, match="closed"):
        env.reset(0)
    env.close()
    env.close()


def test_workers_end_with_their_parent_even_in_the_middle_of_their_work() -> None:
    script = (
        "import functools, multiprocessing, os, signal, sys, threading\n"
        "import torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_workers import Drift\n"
        "from bmd_pipeline.environments.workers import ParallelTask\n"
        "if __name__ == '__main__':\n"
        "    env = ParallelTask(functools.partial(Drift, failing_row=3, failure='stay'), 4, 2)\n"
        "    env.reset(0)\n"
        "    print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)\n"
        "    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()\n"
        "    env.step(torch.zeros(4, 2))\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]  # to its end is to that of the workers
        assert parent.wait() == -signal.SIGKILL
    assert len(pids) == 2
    deadline = time.monotonic() + 60.0
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)


def _report_pid() -> Service:
    return os.getpid(), lambda message: message, lambda: None


def test_an_interrupt_is_not_a_workers_to_hear_from_its_first_moment_on() -> None:
    worker = Worker("worker", "no advice", _report_pid)
    assert worker.process.pid is not None
    os.kill(worker.process.pid, signal.SIGINT)  # it has not come to its first line yet
    assert worker.receive() == worker.process.pid
    os.kill(worker.process.pid, signal.SIGINT)
    worker.send("still there")
    assert worker.receive() == "still there"
    stop_workers([worker])
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())  # here it is heard


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
