"""An expert that walks to the beacon in a wanted direction, in a trot in time with the clock."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Act, NoisyExpert
from bmd_pipeline.tasks.anymal.env import DIRECTIONS, NUM_JOINTS, PERIOD, REST_QPOS, AnymalTask, compute_turning
from bmd_pipeline.tasks.anymal.options import Options

# ---- Walking in a wanted direction: a trot in time with the clock ----
#
# Diagonal pairs of feet swing in turn. Each foot follows a small loop beside where it stands at rest, along and across
# the body and up; joint angles follow by the inverse of the legs' Jacobian. Each direction has numbers of its own,
# found once by `benchmarks/anymal_gaits.py`.

STEP_RAD = 0.225
"""Joint increment in rad of action 1."""
GAITS_FILE = Path(__file__).parent / "assets" / "gaits.json"
# legs are left fore, right fore, left hind, right hind
_PAIR = np.array([0.0, math.pi, math.pi, 0.0])
_FORE = np.array([1.0, 1.0, -1.0, -1.0])
_LEFT = np.array([1.0, -1.0, 1.0, -1.0])
_FOOT_X, _FOOT_Y = 0.453 * _FORE, 0.301 * _LEFT
"""Metres from the base's middle to the feet at rest."""


@dataclass(frozen=True)
class Gait:
    """One trot. Lengths in metres, phases in rad."""

    stride_x: float  # half a foot's way along the body
    phase_x: float  # when it is at its end
    stride_y: float  # half a foot's way across the body, to the left
    phase_y: float  # when it is at its end
    lift: float  # how high a foot is lifted
    phase_lift: float  # when
    height: float  # of the feet at rest; negative for a body that is held higher
    shift: float  # of all feet forward at rest
    length: float  # fore and hind feet moved apart at rest, each by this
    width: float  # left and right feet moved apart at rest, each by this
    gain: float  # share of the way to the reference that an action asks for
    turn: float  # strides that turn the body, per rad of wanted change of heading

    def compute_reference(self, step: int, turning: float) -> NDArray[np.float64]:
        """Joint angles (12,) to aim at `step` control steps after the start, to turn by `turning` rad."""
        phase = 2.0 * math.pi * step / PERIOD + _PAIR  # (4,)
        turn = self.turn * turning
        x = self.shift + self.length * _FORE - (self.stride_x - turn * _FOOT_Y) * np.cos(phase + self.phase_x)
        y = self.width * _LEFT - (self.stride_y + turn * _FOOT_X) * np.cos(phase + self.phase_y)
        z = self.height + self.lift * np.maximum(0.0, np.sin(phase + self.phase_lift))
        return move_feet(x, y, z)

    def act(self, step: int, joints: NDArray[np.float64], turning: float) -> NDArray[np.float64]:
        """Action (12,) at joint angles (12,), in [-1, 1]."""
        return np.clip(self.gain * (self.compute_reference(step, turning) - joints) / STEP_RAD, -1.0, 1.0)


def move_feet(x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joint angles (12,) that move each foot by x, y, z (4,) in the base's frame from where it stands at rest.

    Linear about the resting pose without abduction; the numbers are rad per metre, measured on the model.
    """
    abduction = 1.928 * y
    flexion = -2.487 * x - _FORE * (1.188 * _LEFT * y - 3.127 * z)
    knee = 1.133 * x + _FORE * (2.406 * _LEFT * y - 6.331 * z)
    return np.concatenate((abduction, REST_QPOS[4:8] + flexion, REST_QPOS[8:12] + knee))


def load_gaits() -> tuple[Gait, ...]:
    """The gaits in the order of `DIRECTIONS`."""
    found = json.loads(GAITS_FILE.read_text())
    return tuple(Gait(**found[direction]) for direction in DIRECTIONS)


class AnymalExpert(NoisyExpert[AnymalTask]):
    """Demonstrates walking forward, left, back and right; turns so that its gait leads to the beacon."""

    behaviours = DIRECTIONS

    def __init__(self, options: Options) -> None:
        super().__init__(AnymalTask(options, 1), options.expert_noise)
        self._gaits = load_gaits()

    def _begin(self, behaviour: int, draw: np.random.Generator) -> Act:
        env, gait = self._env, self._gaits[behaviour]

        def act() -> NDArray[np.float64]:
            joints = env.state[0, :NUM_JOINTS].numpy().astype(np.float64)
            return gait.act(int(env.elapsed[0]), joints, float(compute_turning(env.state, behaviour)))

        return act


make_expert = AnymalExpert
