"""Worker processes, and environments that are stepped in them.

A simulator that holds Python's interpreter lock gains nothing from threads. Here each worker hosts a `VectorTask` with
a contiguous share of the rows, and answers one message per chunk of actions, so that the pipes cost little. Workers
are daemons that hear no interrupts. They end when their pipe closes, and with the parent, however it ends and whatever
they are doing.
"""

import itertools
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, TaskSpec, Transition, VectorTask, require_shape
from bmd_pipeline.errors import BMDError, SimulationError, blame

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CLOSE_SECONDS = 5.0

# ---- One worker process ----

Service = tuple[Any, Callable[[Any], Any], Callable[[], None]]
"""(first reply, function from a message to its reply, clean-up function called when the pipe closes)."""


class Worker:
    """A process that builds an object and replies to messages in order.

    Error messages begin with `name`; if the process died they end with `advice`. `build` and `arguments` must be
    picklable.
    """

    def __init__(self, name: str, advice: str, build: Callable[..., Service], *arguments: Any) -> None:
        self._name, self._advice = name, advice
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, name, build, arguments), daemon=True)
        with _single_threaded(), _without_interrupts():
            self.process.start()
        theirs.close()  # so that the pipe ends when the worker does

    def send(self, message: Any) -> None:
        """Hands over a message; a dead worker is a SimulationError."""
        try:
            self.pipe.send(message)
        except OSError:
            raise self._describe_death() from None

    def receive(self) -> Any:
        """Waits for the next answer; the first is what `build` said.

        Raises:
            BMDError: as raised in the worker.
            SimulationError: likewise; or the worker died, or raised something else.
        """
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise self._describe_death() from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _describe_death(self) -> SimulationError:
        self.process.join(_CLOSE_SECONDS)
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        return SimulationError(f"{self._name} {how}; {self._advice}")


def stop_workers(workers: Sequence[Worker], at_once: bool = False) -> None:
    """Ends workers, if need be in the middle of a message, when a closed pipe would not be noticed for a while."""
    for worker in workers:
        if at_once:
            worker.process.kill()
        worker.pipe.close()
    for worker in workers:
        worker.process.join(_CLOSE_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _serve(pipe: Connection, name: str, build: Callable[..., Service], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with ExitStack() as stack, suppress(EOFError, OSError):  # the pipe is closed, or the parent gone
        reply = _attempt(name, build, *arguments)
        if not isinstance(reply, Exception):
            reply, answer, close = reply
            stack.callback(_attempt, name, close)  # nobody waits for what it says
        pipe.send(reply)
        while not isinstance(reply, Exception):
            reply = _attempt(name, answer, pipe.recv())
            pipe.send(reply)


def _end_with_parent() -> None:
    """Ends this process once its parent has, also in the middle of a message, which may take minutes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attempt(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, or the error to report for what it raised: never taken for one of the pipe."""
    try:
        return function(*arguments)
    except (BMDError, SimulationError) as error:
        if error.__cause__ is not None:
            error.add_note(traceback.format_exc())  # for --debug, since neither it nor the cause travels
        return error
    except Exception:
        return SimulationError(f"{name} failed:\n{traceback.format_exc()}")


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Processes started in here use one thread each: there are as many workers as cores."""
    before = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name in _THREAD_VARIABLES:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started in here hear no SIGINT, from their first moment on: it is the parent's to handle."""
    resource_tracker.ensure_running()  # which starting the first process would do, and unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- Environments in workers ----

Factory = Callable[[int, int], VectorTask]
"""Builds environments from (num_envs, first_row); it travels to the workers, so it must be picklable. Whatever
it builds must derive the randomness of each row from the seed and the row's number among all workers' rows."""

_TIME_FIRST = ("obs_path", "track_path", "reward")
"""Fields of a transition whose first axis is time and whose second is the environment."""


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


class ParallelTask(TaskEnv):
    """A `TaskEnv` of `num_envs` environments over `num_workers` processes, which step on the CPU.

    `device` is where the tensors that go in and out live. Any failure in a worker stops all workers and leaves the
    environment closed: a BMDError as it was raised there, else a SimulationError.
    """

    def __init__(self, factory: Factory, num_envs: int, num_workers: int, device: torch.device | str = "cpu") -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self._rows = split_rows(num_envs, num_workers)
        self._workers: list[Worker] = []
        for index, (start, stop) in enumerate(self._rows):
            name = f"simulation worker {index} (environments {start} to {stop - 1})"
            advice = "if memory ran out, use fewer environments or workers"
            self._workers.append(Worker(name, advice, _build_task, factory, stop - start, start))
        self.spec: TaskSpec = self._ask()[0]

    def reset(self, seed: int) -> Tensor:
        return self._join(self._ask([("reset", seed)] * len(self._rows)))

    def track(self) -> Tensor:
        return self._join(self._ask([("track", None)] * len(self._rows)))

    def step_chunk(self, actions: Tensor) -> Transition:
        require_shape(actions, self)
        rows = actions.detach().cpu().numpy()
        parts: list[dict[str, Any]] = self._ask([("step_chunk", rows[start:stop]) for start, stop in self._rows])
        whole = {name: self._join([part[name] for part in parts], int(name in _TIME_FIRST)) for name in parts[0]}
        return Transition(**whole)

    def close(self) -> None:
        stop_workers(self._workers)
        self._workers = []

    def _join(self, parts: list[Any], axis: int = 0) -> Tensor:
        """Puts the workers' arrays together."""
        return torch.cat([torch.from_numpy(part) for part in parts], axis).to(self.device)

    def _ask(self, messages: Sequence[tuple[str, Any]] = ()) -> list[Any]:
        """Sends each worker its message, if there are any, and waits for one answer of each.

        The first failure, whoever's, stops them all.
        """
        if not self._workers:
            raise SimulationError("the environment is closed, by a call of close() or an earlier failure")
        answers: list[Any] = [None] * len(self._workers)
        waiting = {worker.pipe: index for index, worker in enumerate(self._workers)}
        try:
            for worker, message in zip(self._workers, messages, strict=False):
                worker.send(message)
            while waiting:
                for ready in wait(list(waiting)):
                    index = waiting.pop(ready)  # type: ignore[call-overload]
                    answers[index] = self._workers[index].receive()
        except Exception:
            stop_workers(self._workers, at_once=True)
            self._workers = []
            raise
        return answers


def _build_task(factory: Factory, num_envs: int, first_row: int) -> Service:
    maker = getattr(factory, "func", factory)  # of a functools.partial
    with blame(f"task {getattr(maker, '__name__', 'of the plug-in')}", maker.__module__, "its constructor"):
        task = factory(num_envs, first_row)
        spec = task.spec

    def answer(message: tuple[str, Any]) -> Any:
        method, argument = message
        if method == "step_chunk":
            transition = task.step_chunk(torch.from_numpy(argument))
            return {name: value.numpy() for name, value in vars(transition).items()}  # tensors travel as arrays
        return (task.reset(argument) if method == "reset" else task.track()).numpy()

    return spec, answer, task.close
