"""Environments in worker processes.

A simulator that holds Python's interpreter lock gains nothing from threads. Here each worker process hosts a
`VectorTask` with a contiguous share of the rows, and answers one message per chunk of actions, so that the
pipes cost little. Workers are daemons that ignore interrupts and end when their pipe closes: nothing outlives
the parent, however it ends.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, TaskSpec, Transition, VectorTask
from bmd_pipeline.errors import BMDError, SimulationError, TaskError

Factory = Callable[[int, int], VectorTask]
"""Builds environments from (num_envs, first_row); it travels to the workers, so it must be picklable. Whatever
it builds must derive the randomness of each row from the seed and the row's number among all workers' rows."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_TIME_FIRST = ("obs_path", "track_path", "reward")
"""Fields of a transition whose first axis is time and whose second is the environment."""
_CLOSE_SECONDS = 5.0


def make_parallel(factory: Factory, num_envs: int, num_workers: int, device: torch.device | str = "cpu") -> TaskEnv:
    """Builds environments in this process (num_workers <= 1, on the CPU) or in workers; results are the same."""
    workers = max(min(num_workers, num_envs), 1)
    if workers == 1 and torch.device(device).type == "cpu":
        return factory(num_envs, 0)
    return ParallelTask(factory, num_envs, workers, device)


def split_rows(num_envs: int, num_workers: int) -> list[tuple[int, int]]:
    """Contiguous shares (start, stop) of the rows, as even as can be."""
    edges = [num_envs * worker // num_workers for worker in range(num_workers + 1)]
    return list(itertools.pairwise(edges))


class ParallelTask:
    """A `TaskEnv` over worker processes.

    Args:
        factory: builds each worker's environments.
        num_envs: environments in all.
        num_workers: processes; they step on the CPU.
        device: where the tensors that go in and out live.

    Raises:
        BMDError: as raised by the factory in a worker.
        SimulationError: a worker died while it built its environments. Any later failure raises the same,
            stops all workers, and leaves the environment closed.
    """

    def __init__(self, factory: Factory, num_envs: int, num_workers: int, device: torch.device | str = "cpu") -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self._rows = split_rows(num_envs, num_workers)
        self._pipes: list[Connection] = []
        self._workers: list[BaseProcess] = []
        context = multiprocessing.get_context("spawn")
        with _single_threaded():
            for start, stop in self._rows:
                ours, theirs = context.Pipe()
                worker = context.Process(target=_work, args=(theirs, factory, stop - start, start), daemon=True)
                worker.start()
                theirs.close()
                self._pipes.append(ours)
                self._workers.append(worker)
        specs: list[TaskSpec] = self._collect()
        self.spec = specs[0]

    def reset(self, seed: int) -> Tensor:
        """Starts a new episode everywhere; returns the observation (num_envs, obs_dim)."""
        return self._join(self._ask("reset", [seed] * len(self._rows)))

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""
        return self._join(self._ask("track", [None] * len(self._rows)))

    def step(self, action: Tensor) -> Transition:
        """One control step with action (num_envs, action_dim)."""
        return self.step_chunk(action[:, None])

    def step_chunk(self, actions: Tensor) -> Transition:
        """Executes actions (num_envs, n, action_dim), one message to each worker."""
        if actions.ndim != 3 or actions.shape[0] != self.num_envs:
            raise TaskError(
                f"{self.spec.name}: actions must be ({self.num_envs}, n, {self.spec.action_dim}), "
                f"got {tuple(actions.shape)}"
            )
        whole = actions.detach().cpu().numpy()
        shares = [whole[start:stop] for start, stop in self._rows]
        parts: list[dict[str, Any]] = self._ask("step_chunk", shares)
        return Transition(
            **{name: self._join([part[name] for part in parts], int(name in _TIME_FIRST)) for name in parts[0]}
        )

    def close(self) -> None:
        """Ends the workers; calling it twice is harmless."""
        for pipe in self._pipes:
            pipe.close()  # a worker that waits for a message ends here
        for worker in self._workers:
            worker.join(_CLOSE_SECONDS)
            if worker.is_alive():
                worker.kill()
                worker.join()
        self._pipes, self._workers = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _join(self, parts: list[Any], axis: int = 0) -> Tensor:
        """Puts the workers' arrays together along the axis of the rows."""
        return torch.cat([torch.from_numpy(part) for part in parts], axis).to(self.device)

    def _ask(self, method: str, arguments: list[Any]) -> list[Any]:
        if not self._workers:
            raise SimulationError("the environment is closed, by a call of close() or an earlier failure")
        for index, (pipe, argument) in enumerate(zip(self._pipes, arguments, strict=True)):
            try:
                pipe.send((method, argument))
            except OSError:
                self._fail(self._obituary(index))
        return self._collect()

    def _collect(self) -> list[Any]:
        """Waits for one reply of each worker; the first failure stops them all."""
        replies: list[Any] = [None] * len(self._pipes)
        waiting = {id(pipe): index for index, pipe in enumerate(self._pipes)}
        while waiting:
            for ready in wait([self._pipes[index] for index in waiting.values()]):
                index = waiting.pop(id(ready))
                try:
                    answer, replies[index] = self._pipes[index].recv()
                except (EOFError, OSError):
                    self._fail(self._obituary(index))
                if answer == "error":
                    self._fail(replies[index])
        return replies

    def _obituary(self, index: int) -> SimulationError:
        worker, (start, stop) = self._workers[index], self._rows[index]
        worker.join(_CLOSE_SECONDS)
        code = worker.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        return SimulationError(
            f"simulation worker {index} (environments {start} to {stop - 1}) {how}; "
            "if memory ran out, use fewer environments or workers"
        )

    def _fail(self, error: Exception) -> NoReturn:
        for worker in self._workers:
            worker.kill()  # a worker in the middle of a chunk wouldn't notice a closed pipe for a while
        self.close()
        raise error


def _work(pipe: Connection, factory: Factory, num_envs: int, first_row: int) -> None:
    """Body of a worker process: builds its environments, then answers messages until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    torch.set_num_threads(1)
    try:
        try:
            task = factory(num_envs, first_row)
            pipe.send(("ok", task.spec))
            while True:
                method, argument = pipe.recv()
                pipe.send(("ok", _answer(task, method, argument)))
        except (EOFError, BrokenPipeError):
            return
        except BMDError as error:
            pipe.send(("error", error))
        except Exception:
            rows = f"environments {first_row} to {first_row + num_envs - 1}"
            report = f"a simulation worker ({rows}) failed:\n{traceback.format_exc()}"
            pipe.send(("error", SimulationError(report)))
    except OSError:  # the parent is gone
        return


def _answer(task: VectorTask, method: str, argument: Any) -> Any:
    """Runs one method; tensors travel as arrays."""
    if method == "step_chunk":
        transition = task.step_chunk(torch.from_numpy(argument))
        return {name: value.numpy() for name, value in vars(transition).items()}
    result: Tensor = task.reset(argument) if method == "reset" else task.track()
    return result.numpy()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started in here use one thread each: there are as many workers as cores."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
