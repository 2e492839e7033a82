"""Runs a small pipeline twice, in fresh folders and processes, and compares every artifact by hash.

`python -m tests.faults.determinism` prints the comparison as a table and ends with status 1 if anything differs that
must not. A third run with two cores shows what the number of cores changes; nothing is promised of that beyond
collection.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .lab import MAY_DIFFER, STAGES, Lab, describe


def main() -> int:
    """Runs and compares; returns the exit status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Lab(folder / "first") as first, Lab(folder / "second") as second:
            first.run_all(folder / "cores", "--threads", "2")
            rows, broken = [], False
            for stage in STAGES:
                again, cores = second.reference[stage.name], describe(folder / "cores", stage)
                for file, digest in first.reference[stage.name].items():
                    same, same_cores = again.get(file) == digest, cores.get(file) == digest
                    promised = stage.name == "collect"
                    broken = broken or not same or (promised and not same_cores)
                    rows.append(f"| `{file}` | {digest[:12]} | {_say(same)} | {_say(same_cores)} |")
    print("| artifact | SHA-256 | second run | with two cores |\n|---|---|---|---|")
    print("\n".join(rows))
    print("\nLeft out of the comparison:\n")
    print("\n".join(f"- `{field}`: {why}" for field, why in MAY_DIFFER.items()))
    return int(broken)


def _say(same: bool) -> str:
    return "same" if same else "DIFFERS"


if __name__ == "__main__":
    sys.exit(main())
