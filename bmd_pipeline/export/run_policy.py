"""Runs an exported policy on a robot, with numpy and onnxruntime alone. This file is yours to edit.

    policy = Policy("export")              # the folder with policy.json and policy.onnx
    policy.reset(mode="left")              # before each episode: a mode's name, its code, or None for the best one
    while running:
        action = policy.act(observation)   # once per control step, in the environment's units
        ...                                # policy.switch("right") changes the mode in mid-episode

`python run_policy.py` prints the modes and how long a decision takes on this machine.
"""

from __future__ import annotations  # types of Python 3.10, which Python 3.8 reads over

import hashlib
import json
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray

FORMAT = 1


class PolicyError(Exception):
    """What was given does not fit the policy, or its folder is not whole; one line."""


class Policy:
    """A policy that acts in chunks: it decides on several control steps at once, and then executes them.

    `facts` is the content of policy.json, where names of modes and of observations may be edited. The seed fixes all
    draws. Raises `PolicyError` for a file that is missing, damaged, of another export or of another format.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent, seed: int = 0) -> None:
        graph, document = Path(folder) / "policy.onnx", Path(folder) / "policy.json"
        again = "copy the whole folder that `bmd-pipeline export` wrote"
        for path in (document, graph):
            if not path.is_file():
                raise PolicyError(f"{path} is missing: {again}")
        try:
            self.facts: dict[str, Any] = json.loads(document.read_text(encoding="utf-8"))
            found, sha256 = self.facts.get("schema_version"), self.facts.get("graph_sha256")
        except (AttributeError, ValueError) as error:
            raise PolicyError(f"{document} is damaged ({error}): {again}") from None
        if found != FORMAT:
            raise PolicyError(f"{document} has format {found}, this file reads {FORMAT}: use the one exported with it")
        if hashlib.sha256(graph.read_bytes()).hexdigest() != sha256:
            raise PolicyError(f"{graph} is damaged, or of another export than {document.name} beside it: {again}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # such small networks gain nothing from more
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._noise = np.random.default_rng([seed, 1])
        self._trials = np.random.default_rng(seed)
        self._stride: int = self.facts["obs_stride"]
        self._span: int = (self.facts["n_obs_steps"] - 1) * self._stride + 1  # control steps that a history covers
        self._history: deque[NDArray[np.float32]] = deque(maxlen=self._span)
        self._queue: deque[NDArray[np.float32]] = deque()
        self.reset()

    def reset(self, mode: str | int | None = None) -> None:
        """Begins an episode in a mode, by name or code; None takes the first of `rank_modes`."""
        self.code = self._find_code(mode)
        self._history.clear()
        self._queue.clear()

    def switch(self, mode: str | int) -> None:
        """Changes the mode in mid-episode: the next action is planned anew."""
        self.code = self._find_code(mode)
        self._queue.clear()

    def act(self, obs: ArrayLike) -> NDArray[np.float32]:
        """The action (action_dim,) for an observation (obs_dim,), both in the environment's units.

        Call it once per control step: it remembers observations. Raises `PolicyError` for an observation of another
        shape, or with a number that is not finite, which it forgets.
        """
        try:
            seen = np.array(obs, np.float32)
        except (TypeError, ValueError):  # texts, lists of different lengths
            raise PolicyError(f"an observation must be numbers, got {obs!r:.80}") from None
        if seen.shape != (size := self.facts["obs_dim"],):
            raise PolicyError(f"an observation must have shape ({size},), got {seen.shape}")
        if len(wrong := np.flatnonzero(~np.isfinite(seen))):
            raise PolicyError(
                f"observation {self.facts['obs_names'][wrong[0]]} is {seen[wrong[0]]}, not a finite number"
            )
        self._history.extend(
            [seen] * (1 if self._history else self._span)
        )  # the first one also stands for those before
        if not self._queue:
            self._queue.extend(self._plan()[: self.facts["n_action_steps"]])
        return self._queue.popleft()

    def rank_modes(self) -> list[int]:
        """All codes by their measured success rate, best first; those never measured come last."""
        rates = [mode["success_rate"] for mode in self.facts["modes"]]
        return sorted(range(len(rates)), key=lambda code: 1.0 if rates[code] is None else -rates[code])

    def next_mode(self, outcomes: Iterable[tuple[str | int, bool]]) -> int:
        """The code to try next, from the outcomes (mode, success) of the robot's own trials so far: Thompson sampling.

        Each code's success rate is drawn from its posterior Beta(1 + successes, 1 + failures); the highest is taken.
        """
        counts = np.zeros((2, max(1, len(self.facts["modes"]))))
        for mode, success in outcomes:
            counts[0 if success else 1, self._find_code(mode)] += 1
        return int(self._trials.beta(1 + counts[0], 1 + counts[1]).argmax())

    def _plan(self) -> NDArray[np.float32]:
        """A chunk of actions (horizon, action_dim)."""
        frames = np.stack(list(self._history)[:: -self._stride])  # (n_obs_steps, obs_dim), the latest first
        noise = self._noise.standard_normal((1, self.facts["noise_dim"]), dtype=np.float32)
        inputs = {"obs": frames[None], "code": np.array([self.code], np.int64), "noise": noise}
        chunk: NDArray[np.float32] = self._session.run(["actions"], inputs)[0][0]
        return chunk

    def _find_code(self, mode: str | int | None) -> int:
        modes, ranking = self.facts["modes"], self.rank_modes()
        if mode is None:
            return ranking[0] if modes else 0  # a policy without modes has no use for a code
        for code in ranking:
            if mode == modes[code]["name"] or (mode == code and not isinstance(mode, bool)):
                return code
        if not modes:
            raise PolicyError(f"unknown mode {mode!r}: this policy has no modes")
        known = [str(of["code"]) + (f" ({of['name']})" if of["name"] else "") for of in modes]
        raise PolicyError(f"unknown mode {mode!r}; known: {', '.join(known)}")


if __name__ == "__main__":
    try:
        policy = Policy(sys.argv[1] if sys.argv[1:] else Path(__file__).parent)
    except PolicyError as error:
        sys.exit(f"error: {error}")
    for code in policy.rank_modes():
        print(policy.facts["modes"][code])
    times = []
    for _ in range(1000):
        start = time.perf_counter()
        policy.switch(policy.code)  # drops what was planned
        policy.act(np.zeros(policy.facts["obs_dim"]))
        times.append(1e3 * (time.perf_counter() - start))
    print(f"{np.median(times):.3f} ms per decision on {policy.facts['n_action_steps']} control steps (median of 1000)")
