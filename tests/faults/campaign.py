"""The long fault test: `python -m tests.faults.campaign --kills 100 --seed 0` prints what happened as a table.

Ends with status 1 as soon as a fault loses or misleads. The same seed breaks the same things; when a kill hits is
random all the same, since no machine is equally fast twice.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from . import trials, trust
from .lab import BY_NAME, KILLED, RESUMABLE, Lab
from .snakemake_kills import Workflow

WORKFLOW_SHARE = 0.1
"""Share of the kills that go to Snakemake itself."""


class Campaign:
    """Runs trials and counts how they ended.

    Args:
        lab: where.
        seed: of the campaign.
    """

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.rng = random.Random(seed)
        self.counts: dict[tuple[str, str], Counter[str]] = {}

    def try_out(self, fault: str, target: str, trial: Callable[[], str]) -> None:
        """Makes one trial."""
        outcome = trial()
        self.counts.setdefault((fault, target), Counter())[outcome] += 1
        total = sum(sum(counter.values()) for counter in self.counts.values())
        sys.stderr.write(f"{total}: {fault}, {target}: {outcome}\n")

    def kill_stages(self, kills: int) -> None:
        """Kills stages in turn."""
        for index in range(kills):
            stage = KILLED[index % len(KILLED)]
            self.try_out("SIGKILL", stage.name, lambda stage=stage: trials.kill(self.lab, stage, self.rng))

    def kill_snakemake(self, kills: int) -> None:
        """Kills the workflow again and again, while it goes on from what the run before has left."""
        if kills == 0:
            return
        workflow = Workflow(self.lab)
        for index in range(kills):
            jobs_too = index % 2 == 0
            target = "Snakemake and its jobs" if jobs_too else "Snakemake, its jobs live on"
            self.try_out("SIGKILL", target, lambda: workflow.kill(self.rng, jobs_too=jobs_too))  # noqa: B023
        workflow.finish()

    def ask(self) -> None:
        """Signals that can be answered, and time limits."""
        for stage in KILLED:
            for by in (signal.SIGTERM, signal.SIGINT):
                for _ in range(2):
                    self.try_out(
                        by.name, stage.name, lambda stage=stage, by=by: trials.ask(self.lab, stage, self.rng, by)
                    )
        for stage in RESUMABLE:
            self.try_out("--max-minutes", stage.name, lambda stage=stage: trials.run_in_slices(self.lab, stage))

    def damage(self, times: int) -> None:
        """Damaged progress and damaged inputs."""
        for stage in RESUMABLE:
            for kind in trials.DAMAGES:
                self.try_out(
                    f"progress {kind}",
                    stage.name,
                    lambda stage=stage, kind=kind: trials.damage_progress(self.lab, stage, self.rng, kind),
                )
        for name, paths in trials.INPUTS.items():
            for path in paths:
                for kind in trials.DAMAGES:
                    for _ in range(times):
                        self.try_out(
                            f"input {kind}",
                            describe_input(path),
                            lambda name=name, path=path, kind=kind: trials.damage_input(
                                self.lab, BY_NAME[name], self.rng, path, kind
                            ),
                        )

    def spoil_machine(self) -> None:
        """Disks, folders, clocks and workers."""
        for stage in KILLED:
            if trials.can_mount():
                for _ in range(2):
                    self.try_out(
                        "disk full", stage.name, lambda stage=stage: trials.fill_disk(self.lab, stage, self.rng)
                    )
                self.try_out("disk read-only", stage.name, lambda stage=stage: trials.forbid_writing(self.lab, stage))
            self.try_out(
                "file in a folder's place", stage.name, lambda stage=stage: trials.block_folder(self.lab, stage)
            )
            self.try_out(
                "clock goes back", stage.name, lambda stage=stage: trials.turn_clock_back(self.lab, stage, self.rng)
            )
        self.try_out("worker killed", "collect", lambda: trials.lose_worker(self.lab))

    def mislead(self, times: int) -> None:
        """Somebody's files, other runs' artifacts, links, codecs and units."""
        for fault, target, trial in trust.list_tries(self.lab, self.rng):
            for _ in range(times):
                self.try_out(fault, target, trial)

    def table(self) -> str:
        """What happened, as Markdown."""
        rows = ["| fault | tries | what happened | to what |", "|---|---:|---|---|"]
        for fault in dict.fromkeys(fault for fault, _ in self.counts):
            targets = {target: counter for (other, target), counter in self.counts.items() if other == fault}
            outcomes = sum(targets.values(), Counter[str]())
            happened = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
            listed = ", ".join(f"{target} {counter.total()}" for target, counter in targets.items())
            rows.append(f"| {fault} | {outcomes.total()} | {happened} | {listed} |")
        return "\n".join(rows)


def describe_input(path: Path) -> str:
    """Name of an input in the table."""
    if "demos.zarr" not in path.parts:
        return "/".join(path.parts[-2:]) if path.name == "run.json" else path.name
    return "zarr metadata" if path.name == "zarr.json" else "zarr chunk"


def main() -> int:
    """Runs the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in all")
    parser.add_argument("--damages", type=int, default=1, help="tries of each damage to each input")
    parser.add_argument("--misleads", type=int, default=3, help="tries of each thing that is not what it seems")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        campaign = Campaign(lab, options.seed)
        workflow_kills = round(WORKFLOW_SHARE * options.kills)
        try:
            campaign.kill_stages(options.kills - workflow_kills)
            campaign.ask()
            campaign.damage(options.damages)
            campaign.spoil_machine()
            campaign.mislead(options.misleads)
            campaign.kill_snakemake(workflow_kills)
        except AssertionError as error:
            sys.stderr.write(f"FAILED: {error}\n")
            return 1
        finally:
            print(campaign.table())
    sys.stderr.write(f"all held, in {(time.monotonic() - started) / 60:.1f} min\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
