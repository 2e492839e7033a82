"""The fuzzer: `python -m tests.fuzz.campaign --tries 1000 --seed 0` prints how often what was refused or used.

Every try has a number and depends on nothing but it and the seed: `--only "JSON documents" --first 17 --tries 1` makes
number 17 again. Ends with status 1 if a try showed a traceback, left a partial output, hung, or ended with another
status than 0 or 2.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .bench import Bench
from .targets import TARGETS


def main() -> int:
    """Runs the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000, help="tries in all, shared out over the targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(TARGETS), help="one target only")
    parser.add_argument("--first", type=int, default=0, help="number of the first try of each target")
    options = parser.parse_args()
    chosen = [options.only] if options.only else list(TARGETS)
    counts = {name: Counter[str]() for name in chosen}
    failures, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder)) as bench:
        for index in range(options.tries):
            name = chosen[index % len(chosen)]
            number = options.first + index // len(chosen)
            try:
                outcome = TARGETS[name](bench, random.Random(f"{options.seed} {name} {number}"))
            except AssertionError as error:
                outcome = "FAILED"
                failures.append(f"{name}, number {number}: {error}")
                sys.stderr.write(f"{failures[-1]}\n\n")
            counts[name][outcome] += 1
    print("| what | tries | how they ended |\n|---|---:|---|")
    for name, counter in counts.items():
        print(f"| {name} | {counter.total()} | {', '.join(f'{key} {n}' for key, n in counter.most_common())} |")
    sys.stderr.write(f"{len(failures)} failures in {(time.monotonic() - started) / 60:.1f} min\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
