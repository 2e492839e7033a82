"""Finds the demonstrator's gaits of Anymal, one for each direction, by the cross-entropy method.

    python benchmarks/anymal_gaits.py [--only forward left back right] [--out bmd_pipeline/tasks/anymal/gaits.json]

A candidate walks for four seconds from two random starts under noise. It is worth the metres that it comes in its
direction, less what it strays, turns, crouches, and loses by falling. About two minutes for each direction.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bmd_pipeline.tasks.anymal import layout
from bmd_pipeline.tasks.anymal.gait import GAITS_FILE, Gait
from bmd_pipeline.tasks.anymal.options import Options
from bmd_pipeline.tasks.anymal.task import CONTROL_HZ, AnymalTask
from bmd_pipeline.tasks.execution_noise import draw_noise

STEPS = 80
NOISE = 0.15
SPREAD = np.array([0.05, 0.8, 0.05, 0.8, 0.03, 0.8, 0.03, 0.03, 0.03, 0.04, 0.8, 0.1])
"""Standard deviations of the first candidates."""
FLOOR = SPREAD / 16
ELITE = 8


def score(task: AnymalTask, gait: Gait, direction: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """What a gait is worth, and the metres that it came, from one start."""
    task.reset(seed)
    noise = draw_noise(NOISE, (STEPS, layout.NUM_JOINTS), np.random.default_rng((seed, 0, 0, 1)))
    heights = []
    while len(heights) < STEPS and not bool(layout.has_fallen(task.state)):
        joints = task.state[0, : layout.NUM_JOINTS].numpy()
        action = gait.act(len(heights), joints, -float(layout.compute_heading(task.state)))
        heights.append(float(task.state[0, 26]))
        executed = torch.from_numpy(action + noise[len(heights) - 1]).float()[None]
        task.state = task.simulation.move(executed.clamp(-1.0, 1.0), torch.ones(1, dtype=torch.bool))
    place = task.state[0, 24:26].numpy()
    along, across = float(place @ direction), abs(float(place[0] * direction[1] - place[1] * direction[0]))
    turned = abs(float(layout.compute_heading(task.state)))
    crouched = max(0.0, 0.42 - float(np.mean(heights)))
    return along - 0.7 * across - 0.5 * turned - 0.5 * crouched - 2.0 * (1.0 - len(heights) / STEPS), along


def search(
    task: AnymalTask, direction: NDArray[np.float64], generator: np.random.Generator, rounds: int, candidates: int
) -> Gait:
    """The best gait for a direction (2,)."""
    mean = np.array([0.06 * direction[0], 0, 0.06 * direction[1], 0, 0.06, 0, 0, 0, 0, 0, 2.0, 0.05])
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
    parser.add_argument("--only", nargs="*", choices=layout.DIRECTIONS, default=layout.DIRECTIONS)
    parser.add_argument("--out", type=Path, default=GAITS_FILE)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--candidates", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = AnymalTask(Options(), 1, auto_reset=False)
    units = layout.place_beacons(torch.ones(1))[0].numpy().astype(np.float64)
    gaits = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.only:
        direction, started = units[layout.DIRECTIONS.index(name)], time.perf_counter()
        gait = search(task, direction, np.random.default_rng(0), arguments.rounds, arguments.candidates)
        gaits[name] = dataclasses.asdict(gait)
        metres = [score(task, gait, direction, 10_000 + i)[1] for i in range(10)]
        print(
            f"{name:8} {np.mean(metres):.2f} m in {STEPS / CONTROL_HZ:.0f} s, least {min(metres):.2f}; "
            f"found in {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    ordered = {name: gaits[name] for name in layout.DIRECTIONS if name in gaits}
    arguments.out.write_text(json.dumps(ordered, indent=2) + "\n")


if __name__ == "__main__":
    main()
