"""CPU time counts work, also that of processes that still run."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

from bmd_pipeline.io.provenance import measure_cpu_seconds

WORK_S = 0.3


def _work(pipe: Connection) -> None:
    while time.process_time() < WORK_S:
        pass
    pipe.send("done")
    pipe.recv()


def test_work_counts_and_waiting_does_not() -> None:
    before = measure_cpu_seconds()
    time.sleep(0.2)
    waited = measure_cpu_seconds()
    end = time.process_time() + WORK_S
    while time.process_time() < end:
        pass
    assert waited - before < 0.1
    assert measure_cpu_seconds() - waited + 0.01 >= WORK_S


def test_a_worker_counts_while_it_runs_and_after_it_has_ended() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    before = measure_cpu_seconds()
    worker = context.Process(target=_work, args=(theirs,))
    worker.start()
    assert ours.recv() == "done"
    running = measure_cpu_seconds() - before
    ours.send("end")
    worker.join()
    assert running >= 0.9 * WORK_S
    assert measure_cpu_seconds() - before >= 0.9 * WORK_S
