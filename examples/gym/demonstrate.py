"""Demonstrations for the tasks beside this file, by a small controller each.

    python demonstrate.py Pendulum demos.zarr 40
    bmd-pipeline import-demos demos.zarr --task Pendulum

Run it where config/tasks/ holds the task's file. For a task of your own, add a function of the observation.
"""

import math
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from bmd_pipeline.config.load import load_config
from bmd_pipeline.demos.store import DemoWriter
from bmd_pipeline.environments.base import Episode, from_bounds
from bmd_pipeline.tasks import registry

NOISE = 0.1  # executed, not recorded, in units of [-1, 1]: demonstrations show corrections


# ---- Controllers: an action in the environment's units from an observation; `way` is 0 or 1 ----


def swing_up(obs, way):  # pumps energy, then balances
    angle, speed = math.atan2(obs[1], obs[0]), obs[2]
    if abs(angle) < 0.4:
        return [-10.0 * angle - 2.0 * speed]
    lacking = 15.0 - (0.5 * speed**2 + 15.0 * math.cos(angle))
    return [lacking * speed if abs(speed) > 0.1 else (-2.0, 2.0)[way]]


def rock_car(obs, way):  # pushes the way it rolls, from rest to either side
    return [math.copysign(1.0, obs[1]) if abs(obs[1]) > 1e-4 else (-1.0, 1.0)[way]]


def reach(obs, way):  # pulls the finger to the target
    shoulder, elbow = obs[0], obs[0] + obs[1]
    outer = 0.12 * np.array([-math.sin(elbow), math.cos(elbow)])
    inner = 0.12 * np.array([-math.sin(shoulder), math.cos(shoulder)])
    pull = np.stack([inner + outer, outer]) @ (obs[2:4] / max(np.hypot(*obs[2:4]), 0.02))
    return 6.0 * pull - 0.15 * obs[4:6] + [0.0, (-0.1, 0.1)[way]]


def follow_maze(obs, way):  # from corner to corner of the U
    corners = np.array([(-1.0, 1.0), (1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)])
    goal, place, speed = obs[2:4], obs[4:6], obs[6:8]
    if abs(goal[1] - place[1]) < 0.6 and abs(place[1]) > 0.6:
        target = goal
    elif place[0] > 0.8:
        target = np.array([1.0, goal[1]])
    else:
        target = corners[1 if place[1] > 0 else 2]
    return 4.0 * (target - place) - 1.5 * speed


def push_cube(obs, way):  # gets behind the cube, then pushes it on
    cube, goal, tip = obs[28:31], obs[25:28], obs[18:21]
    behind = cube - [0.07, 0.0, 0.0]
    ready = abs(tip[1] - cube[1]) < 0.015 and tip[2] < 0.04
    target = [goal[0], cube[1], 0.02] if ready else [behind[0], behind[1], 0.02]
    return [*(10.0 * (target - tip)), -1.0]


def push_t(obs, way):  # pushes the block along the line from it to its goal, whichever way it turns
    agent, block = obs[:2], obs[2:4]
    ahead = (np.array([256.0, 256.0]) - block) / max(np.linalg.norm(np.array([256.0, 256.0]) - block), 1e-6)
    side = np.array([-ahead[1], ahead[0]])
    offset = agent - block
    if offset @ ahead < -30.0 and abs(offset @ side) < 15.0:
        return agent + 30.0 * ahead
    if offset @ ahead > -80.0 and abs(offset @ side) < 100.0:  # out of the way first
        out = side if offset @ side > 0 else -side
        return agent + 40.0 * out - 20.0 * ahead
    return agent + np.clip(block - 110.0 * ahead - agent, -40.0, 40.0)


CONTROLLERS = {
    "Pendulum": swing_up,
    "MountainCar": rock_car,
    "Reacher": reach,
    "PointMaze": follow_maze,
    "PushCube": push_cube,
    "GymPushT": push_t,
}


# ---- Playing them in the task as the pipeline sees it ----


def play(env, act, seed):
    """One episode by a controller."""
    low, high = np.array(env.spec.action_low), np.array(env.spec.action_high)
    draw, way = np.random.default_rng(seed), seed % 2
    obs, seen, done, success = env.reset(seed), [], [], False
    for _ in range(env.spec.horizon):
        action = np.clip(act(obs[0].double().numpy(), way), low, high)
        seen.append(obs[0].numpy())
        done.append(action)
        noisy = from_bounds(action, low, high) + NOISE * draw.normal(size=len(action))
        moved = env.step(torch.tensor(noisy, dtype=torch.float32)[None])
        obs, success = moved.obs, bool(moved.success[0])
        if moved.done[0]:
            break
    return Episode(np.array(seen, np.float32), np.array(done, np.float32), success, way)


def main(task: str, path: str, count: int) -> None:
    """Writes `count` successful episodes of a task."""
    settings = load_config(task).task
    with closing(registry.make_env(task, settings.env, 1)) as env:
        spec, bounds = env.spec, {"action_low": env.spec.action_low, "action_high": env.spec.action_high}
        with DemoWriter(Path(path), spec.obs_dim, spec.action_dim, {"task": task}, **bounds) as writer:
            tried = 0
            while len(writer.episode_ends) < count:
                if tried == 20 * count:
                    sys.exit(f"error: {len(writer.episode_ends)} successes in {tried} episodes of {task}")
                episode = play(env, CONTROLLERS[task], tried)
                tried += 1
                if episode.success:
                    writer.append(episode)
    print(f"{path}: {count} successes of {tried} episodes, {writer.num_rows} steps")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
