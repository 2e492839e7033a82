"""Kitchen in numbers: columns of starts, states, observations and tracks, and when a thing is done.

Starts are rows of arm joint angles (7) and the kettle's place (x, y); states are rows of joint angles (arm 7, fingers
2), the hand (3), the handle of each thing (3 x 3), and the joints that say how far each thing is (10). Everything is
a function of tensors on any device.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

THINGS = ("kettle", "light", "slide")
"""What can be done: push the kettle to the burner behind it, turn the light on, slide the cabinet's door open."""
ORDERS = tuple("-".join(pair) for pair in itertools.permutations(THINGS, 2))
"""Two things are to be done in an episode; the first two, in the order in which they were done."""

HANDLES = ("kettle_site", "light_site", "slide_site")
"""MuJoCo's sites at what the hand goes for, one of each thing."""
QPOS = ((23, 24, 25, 26, 27, 28, 29), (17, 18), (19,))
"""Columns of FrankaKitchen's joint positions that belong to each thing."""
GOALS = ((-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06), (-0.69, -0.05), (0.37,))
"""Values of these where FrankaKitchen wants them."""
DONE_WITHIN = 0.3
"""FrankaKitchen's bound on the distance between joints and goal below which a thing is done."""

REST_ARM = (0.148388023, -1.76848573, 1.84390296, -2.47685760, 0.260252026, 0.712533105, 1.59515394)
REST_KETTLE = (-0.26939744, 0.350383255)
"""FrankaKitchen's start of the arm, in rad, and of the kettle (x, y), in metres."""
_ARM_SPREAD, _KETTLE_SPREAD = 0.03, 0.01

RANDOM_DIM = 9
STATE_DIM = 9 + 3 + 9 + 10
OBS_DIM = 9 + 3 + 9 + 3 + 3
TRACK_NAMES = (*THINGS, "x", "z")

_HAND, _HANDLES, _JOINTS = slice(9, 12), slice(12, 21), slice(21, 31)
_CENTRE = (-0.4, 0.4, 2.1)  # of where the hand goes, in metres
_START_DISTANCES = (0.4064, 0.6917, 0.3705)  # of the things' joints from their goals when episodes begin


def make_start(random: Tensor) -> Tensor:
    """Starts (n, 9) from uniform numbers (n, RANDOM_DIM)."""
    spread = random.new_tensor((_ARM_SPREAD,) * 7 + (_KETTLE_SPREAD,) * 2)
    return random.new_tensor(REST_ARM + REST_KETTLE) + spread * (2.0 * random - 1.0)


def locate_handle(state: Tensor, thing: str) -> Tensor:
    """Where the handle (num_envs, 3) of a thing is, in metres."""
    index = 12 + 3 * THINGS.index(thing)
    return state[:, index : index + 3]


def compute_progress(state: Tensor) -> Tensor:
    """How far each thing is (num_envs, len(THINGS)): about 0 at first, above 1 when it is done."""
    joints = torch.split(state[:, _JOINTS], [len(columns) for columns in QPOS], dim=1)
    distance = torch.stack(
        [(values - state.new_tensor(goal)).norm(dim=1) for values, goal in zip(joints, GOALS, strict=True)], 1
    )
    start = state.new_tensor(_START_DISTANCES)
    return (start - distance) / (start - DONE_WITHIN)


def compute_obs(state: Tensor, done: Tensor) -> Tensor:
    """What the policy sees.

    Args:
        state: (num_envs, STATE_DIM).
        done: (num_envs, len(THINGS)) bool, which things have been done in this episode.

    Returns:
        (num_envs, OBS_DIM) of order one: arm joints from their rest, fingers, hand, handles from the hand, progress
        of the things, and which of them are done.
    """
    hand = state[:, _HAND]
    handles = (state[:, _HANDLES].reshape(len(state), -1, 3) - hand[:, None]).flatten(1)  # (num_envs, 9)
    return torch.cat(
        (
            state[:, :7] - state.new_tensor(REST_ARM),
            state[:, 7:9] / 0.04,
            (hand - state.new_tensor(_CENTRE)) / 0.3,
            handles / 0.3,
            compute_progress(state),
            done.float(),
        ),
        1,
    )


def compute_track(state: Tensor, best: Tensor) -> Tensor:
    """The episode's low-dimensional view (num_envs, len(TRACK_NAMES)): furthest progress so far, and the hand."""
    return torch.cat((best, state[:, 9:10], state[:, 11:12]), 1)
