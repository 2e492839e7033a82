"""Runs an exported policy on a robot, with numpy and onnxruntime alone. This file is yours to edit.

    policy = Policy("export")              # the folder with policy.json and its graphs
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

FORMAT = 2
FACTS = ("obs_dim", "obs_names", "obs_stride", "n_obs_steps", "noise_dim", "n_action_steps", "modes", "critic")
"""What is read of policy.json."""


class PolicyError(Exception):
    """What was given does not fit the policy, or its folder is not whole; one line."""


class Policy:
    """A policy that acts in chunks: it decides on several control steps at once, and then executes them.

    `facts` is the content of policy.json, where names of modes and of observations may be edited. The seed fixes all
    draws. Raises `PolicyError` for a file that is missing, damaged, of another export or of another format, or that
    this onnxruntime can't load.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent, seed: int = 0) -> None:
        document = Path(folder) / "policy.json"
        again = "copy the whole folder that `bmd-pipeline export` wrote"
        try:
            self.facts: dict[str, Any] = json.loads(document.read_text(encoding="utf-8"))
            found, graphs = self.facts.get("schema_version"), dict(self.facts.get("graphs", {}))
        except FileNotFoundError:
            raise PolicyError(f"{document} is missing: {again}") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise PolicyError(f"{document} is damaged ({error}): {again}") from None
        if found != FORMAT:
            raise PolicyError(f"{document} has format {found}, this file reads {FORMAT}: use the one exported with it")
        lacking = [name for name in FACTS if name not in self.facts] + ["policy.onnx"] * ("policy.onnx" not in graphs)
        if lacking:
            raise PolicyError(f"{document} lacks {', '.join(lacking)}: {again}")
        if len(self.facts["obs_names"]) != self.facts["obs_dim"]:
            raise PolicyError(f"{document}: obs_names must be {self.facts['obs_dim']} names, one for each number")
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # such small networks gain nothing from more
        for name, sha256 in graphs.items():
            path = Path(folder) / name
            if not path.is_file():
                raise PolicyError(f"{path} is missing: {again}")
            if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                raise PolicyError(f"{path} is damaged, or of another export than {document.name} beside it: {again}")
            try:
                session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # its own have no base of their own
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                found = f"onnxruntime {onnxruntime.__version__} can't load {path} ({reason})"
                raise PolicyError(f"{found}: install another one; 1.19 and 1.32 were tried") from None
            self._sessions[path.stem] = session
        self._noise = np.random.default_rng([seed, 1])
        self._trials = np.random.default_rng(seed)
        self._stride: int = self.facts["obs_stride"]
        self._span: int = (self.facts["n_obs_steps"] - 1) * self._stride + 1  # control steps that a history covers
        self._history: list[NDArray[np.float32]] = []
        self._queue: deque[NDArray[np.float32]] = deque()
        self.reset()

    def reset(self, mode: str | int | None = None) -> None:
        """Begins an episode in a mode, by name or code; None takes the first of `rank_modes`."""
        self.code = self._find_code(mode)
        self._history = []
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
        self._history = self._extend(obs)
        inputs: dict[str, NDArray[Any]] = {"obs": self._stack(self._history), "code": np.array([self.code], np.int64)}
        if not self._queue:
            noise = self._noise.standard_normal((1, self.facts["noise_dim"]), dtype=np.float32)
            chunk = self._run("policy", {**inputs, "noise": noise})
            self._queue.extend(chunk[: self.facts["n_action_steps"]])
        action = self._queue.popleft()
        if "residual" in self._sessions:  # corrects each action by the present observation
            action = self._run("residual", {**inputs, "planned": action[None]})
        return action

    def expect_success(self, obs: ArrayLike) -> NDArray[np.float32]:
        """The probability of success (K,) of each code, if it is told from this observation (obs_dim,) on.

        The observation is the one that `act` is to get next; it is not remembered. Raises `PolicyError` as `act`, and
        where there is no critic; policy.json says why.
        """
        if "critic" not in self._sessions:
            raise PolicyError(f"there is no critic.onnx: {self.facts['critic']}")
        return self._run("critic", {"obs": self._stack(self._extend(obs))})

    def rank_modes(self, obs: ArrayLike | None = None) -> list[int]:
        """All codes, best first, by `expect_success`, or by measured success rate without an observation or a critic.

        Those never measured come last.
        """
        rates = [mode["success_rate"] for mode in self.facts["modes"]]
        ranking = sorted(range(len(rates)), key=lambda code: 1.0 if rates[code] is None else -rates[code])
        if obs is None or "critic" not in self._sessions:
            return ranking
        expected = self.expect_success(obs)
        return sorted(ranking, key=lambda code: -expected[code])

    def next_mode(self, outcomes: Iterable[tuple[str | int, bool]]) -> int:
        """The code to try next, from the outcomes (mode, success) of the robot's own trials so far: Thompson sampling.

        Each code's success rate is drawn from its posterior Beta(1 + successes, 1 + failures); the highest is taken.
        """
        counts = np.zeros((2, max(1, len(self.facts["modes"]))))
        for mode, success in outcomes:
            counts[0 if success else 1, self._find_code(mode)] += 1
        return int(self._trials.beta(1 + counts[0], 1 + counts[1]).argmax())

    def _extend(self, obs: ArrayLike) -> list[NDArray[np.float32]]:
        """The history with a further observation, of as many control steps as the policy looks back."""
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
        before = self._history or [seen] * self._span  # the first one also stands for those before it
        return [*before, seen][-self._span :]

    def _stack(self, history: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """What the graphs see of a history, (1, n_obs_steps, obs_dim), the latest observation first."""
        return np.stack(history[:: -self._stride])[None]

    def _run(self, graph: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """What a graph computes, without its batch axis."""
        output: NDArray[np.float32] = self._sessions[graph].run(None, inputs)[0][0]
        return output

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
