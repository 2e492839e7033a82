"""A small gymnasium environment that shows whatever a test wants of one. Importing this module registers it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    """Walks along a line by its action, in metres; an episode may end early.

    Args:
        action: name of the action space.
        obs: name of the observation space.
        late: whether info has a key from the first step on alone.
        stop: control step that ends an episode, if any.
        fails: name of the call that fails, if any; of "size", the step that shows more than those before.
    """

    def __init__(
        self, action: str = "box", obs: str = "dict", late: bool = False, stop: int = 0, fails: str = ""
    ) -> None:
        box, endless = spaces.Box(-4.0, 2.0, (1,)), spaces.Box(-np.inf, np.inf, (1,))
        stiff = spaces.Box(np.array([-4.0, 1.0], np.float32), np.array([2.0, 1.0], np.float32))
        self.action_space = {"box": box, "stiff": stiff, "discrete": spaces.Discrete(3), "endless": endless}[action]
        nested = spaces.Dict({"wide": spaces.Box(-9.0, 9.0, (2, 1)), "a": spaces.Box(-9.0, 9.0, ())})
        image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.observation_space = {"dict": spaces.Dict({"z": endless, "b": nested}), "image": image}[obs]
        self.late, self.stop, self.fails = late, stop, fails

    def _show(self) -> tuple[dict[str, Any], dict[str, Any]]:
        place = np.float32(self.place)
        obs = {"z": np.array([place]), "b": {"wide": np.array([[1.0], [2.0]], np.float32), "a": place}}
        info = {"far": abs(self.place) >= 3.0, "name": "walk", "pose": [self.place, 7], "late": 1, 0: 0}
        if self.late and self.steps == 0:
            del info["late"]
        return obs, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-0.1, 0.1), 0
        return self._show()

    def step(self, action: np.ndarray) -> Any:
        if self.fails == "step":
            raise FloatingPointError("joint 3\nis loose")
        self.place += float(action[0])
        self.steps += 1
        obs, info = self._show()
        if self.fails == "size" and self.steps > 1:
            obs["z"] = np.zeros(2, np.float32)
        return obs, float(action[0]), False, self.steps == self.stop, info

    def close(self) -> None:
        if self.fails == "close":
            raise RuntimeError("closed twice")


gymnasium.register("BMDWalk-v0", Walk, max_episode_steps=6)
gymnasium.register("BMDEndlessWalk-v0", Walk)
