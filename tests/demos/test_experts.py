import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bmd_pipeline.config.schema import TaskConfig
from bmd_pipeline.demos.collect import Attempt, ExpertPool, LocalPool, WorkerPool, make_pool
from bmd_pipeline.errors import SimulationError, TaskError

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGINS)


def toy(**env: object) -> TaskConfig:
    return TaskConfig(name="Toy", plugins=("toy_task",), env=env)


def one(index: int = 0):  # type: ignore[no-untyped-def]
    jobs = [(Attempt(index, 1), 5)]
    return lambda: jobs.pop() if jobs else None


@pytest.mark.parametrize("num_workers", [1, 2])
def test_pool_demonstrates(num_workers: int) -> None:
    with make_pool(toy(), num_workers) as pool:
        assert pool.behaviours == ("left", "right")
        attempt, episode = pool.run(one(3))
    assert attempt == Attempt(3, 1)
    assert episode.behaviour == 1
    assert not multiprocessing.active_children()


def make_worker(task: TaskConfig) -> ExpertPool:
    return WorkerPool(task, 1)


@pytest.mark.parametrize("make", [LocalPool, make_worker])
@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        ("raise", TaskError, "^task Toy failed in the expert .right, attempt 0.: ZeroDivisionError: the arm fell off"),
        ("task_error", TaskError, "^the toy is broken$"),
    ],
)
def test_failure_surfaces_with_its_reason(
    make: Callable[[TaskConfig], ExpertPool], failure: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message), make(toy(failure=failure)) as pool:
        pool.run(one())
    assert not multiprocessing.active_children()


def test_dead_worker_is_noticed_and_no_orphan_is_left() -> None:
    with (
        pytest.raises(SimulationError, match="ended with status 3"),
        make_pool(toy(failure="exit"), 2) as pool,
    ):
        pool.run(one())
    assert not multiprocessing.active_children()


def test_unknown_setting_of_the_task_is_reported_from_the_worker() -> None:
    with pytest.raises(Exception, match=r"env\.speed"), make_worker(toy(speed=3)):
        pass
    assert not multiprocessing.active_children()


PARENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from bmd_pipeline.config.schema import TaskConfig
from bmd_pipeline.demos.collect import ExpertPool, LocalPool, WorkerPool, make_pool
if __name__ == "__main__":
    pool = make_pool(TaskConfig(name="Toy", plugins=("toy_task",)), 2)
    print(*(worker.process.pid for worker in pool._workers), flush=True)
    time.sleep(60)
"""


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(PLUGINS)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        parent.send_signal(signal.SIGKILL)
    remaining = workers
    for _ in range(100):
        remaining = [pid for pid in remaining if is_running(pid)]
        if not remaining:
            break
        time.sleep(0.1)
    assert remaining == []


def is_running(pid: int) -> bool:
    """False for processes that are gone or zombies of an init that doesn't reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
