"""Finds the expert's gaits of Anymal, one for each direction, by the cross-entropy method.

    python benchmarks/anymal_gaits.py [--only forward left back right] [--out gaits.json]

A candidate walks from two random starts under noise until it is at its beacon, or for five seconds. It is worth the
share of the way that it came and of the time that was left; falling and crouching cost. The gaits in the package are
from an earlier form of this search: `back` and `left` were searched, `forward` and `right` are or were their mirror
images, and `left` and `right` were searched again from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch

from bmd_pipeline.environments.base import draw_noise
from bmd_pipeline.tasks.anymal import env as anymal
from bmd_pipeline.tasks.anymal.env import AnymalTask
from bmd_pipeline.tasks.anymal.expert import GAITS_FILE, Gait
from bmd_pipeline.tasks.anymal.options import Options

STEPS = 100
NOISE = 0.2
SPREAD = np.array([0.05, 0.8, 0.05, 0.8, 0.03, 0.8, 0.03, 0.03, 0.03, 0.04, 0.8, 0.1])
"""Standard deviations of the first candidates."""
FLOOR = SPREAD / 16
ELITE = 8


def score(task: AnymalTask, gait: Gait, direction: int, seed: int) -> tuple[float, bool]:
    """What a gait is worth from one start, and whether it came to the beacon."""
    task.reset(seed)
    noise = draw_noise(NOISE, (STEPS, anymal.NUM_JOINTS), np.random.default_rng((seed, 0, 0, 1)))
    heights: list[float] = []
    success = False
    while len(heights) < STEPS and not bool(task.ended[0]):
        joints = task.state[0, : anymal.NUM_JOINTS].numpy()
        action = gait.act(len(heights), joints, float(anymal.compute_turning(task.state, direction)))
        executed = torch.from_numpy(action + noise[len(heights)]).float()[None]
        success = bool(task.step(executed).success[0])
        heights.append(float(task.state[0, 26]))
    reached = int(anymal.compute_distances(task.state)[0].argmin()) == direction
    came = 1.0 - float(anymal.compute_distances(task.state)[0, direction] / task.state[0, 37])
    left = 1.0 - len(heights) / STEPS
    fell = bool(task.ended[0]) and not success
    worth = came + (left if success and reached else 0.0) - (1.0 + left if fell else 0.0)
    return worth - 0.5 * max(0.0, 0.42 - float(np.mean(heights))), success and reached


def search(task: AnymalTask, direction: int, generator: np.random.Generator, rounds: int, candidates: int) -> Gait:
    """The best gait for a direction."""
    x, y = anymal.place_beacons(torch.tensor([0.06]))[0, direction].tolist()
    mean = np.array([x, 0, y, 0, 0.06, 0, 0, 0, 0, 0, 2.0, 0.05])
    std = SPREAD
    for round_ in range(rounds):
        drawn = mean + std * generator.normal(size=(candidates * (4 if round_ == 0 else 1), len(mean)))
        drawn[0] = mean
        starts = (2 * round_, 2 * round_ + 1)
        worth = np.array([np.mean([score(task, Gait(*row), direction, start)[0] for start in starts]) for row in drawn])
        best = drawn[np.argsort(-worth)[:ELITE]]
        mean, std = 0.2 * mean + 0.8 * best.mean(0), 0.2 * std + 0.8 * best.std(0) + FLOOR
    return Gait(*(round(float(value), 4) for value in mean))


def main() -> None:
    """Runs the search and writes the gaits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=anymal.DIRECTIONS, default=anymal.DIRECTIONS)
    parser.add_argument("--out", type=Path, default=GAITS_FILE)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--candidates", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = AnymalTask(Options(), 1)
    gaits = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.only:
        direction, started = anymal.DIRECTIONS.index(name), time.perf_counter()
        gait = search(task, direction, np.random.default_rng(0), arguments.rounds, arguments.candidates)
        gaits[name] = dataclasses.asdict(gait)
        worth, reached = zip(*(score(task, gait, direction, 10_000 + i) for i in range(20)), strict=True)
        print(
            f"{name:8} worth {np.mean(worth):.2f}, reached its beacon in {np.mean(reached):.2f} of 20 episodes; "
            f"found in {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    ordered = {name: gaits[name] for name in anymal.DIRECTIONS if name in gaits}
    arguments.out.write_text(json.dumps(ordered, indent=2) + "\n")


if __name__ == "__main__":
    main()
