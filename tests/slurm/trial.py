"""The workflow on a real Slurm: `make slurm-test`, as root; docs/cluster.md has its output.

A small chain runs here, on Slurm without and with accounting, and while its jobs are killed by memory, by time, and by
the death of Snakemake itself. Every run must end in the files of the local one, byte for byte without times.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from .cluster import NEEDED, Project, jobs, local_slurm, wait_until

TASK = "GaussianMixture"
TARGET = f"results/{TASK}-smoke/eval.json"
POLICY = f"results/{TASK}-smoke/policy/run.json"
ITERATIONS = 1200
"""Fine-tuning lasts long enough that Snakemake can die meanwhile, be started again, and find the job at work."""
OVER_MEMORY = re.compile(r"StepId=(\d+)\.0 exceeded memory limit")
SAVING = "execution.checkpoint_minutes=0.05"
CALIBRATION, LONG_S = 4000, 200.0
"""Steps of pre-training that are timed, and how long it shall last to run out of a minute: Slurm looks twice a minute,
and the machine may be twice as fast by then."""

PARTS = ("chain", "kill_by_memory", "kill_snakemake", "kill_by_time")


def settings(*assignments: str) -> tuple[str, ...]:
    """Settings of the chain as `--config` takes them, and some more."""
    every = ("methods=[dsrl-bmd]", f"finetune.iterations={ITERATIONS}", SAVING, *assignments)
    return ("preset=smoke", "seeds=[0]", f"set={json.dumps(every)}")


class Trial:
    """Runs the chain in one way after the other.

    Args:
        folder: scratch space.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slurm = folder / "slurm"
        self.rows: list[tuple[str, str, float]] = []
        self.failed = False
        local = Project(folder / "local", "", *settings())
        self._note("local, 2 cores", lambda: (local.run(TARGET, local=True), "the reference")[1])
        self.reference = local.hashes()

    def chain(self, profile: str = "slurm-no-accounting", told: str = "states from squeue") -> None:
        """The chain as it is."""
        project = Project(self.folder / profile, profile, *settings())

        def run() -> str:
            project.run(TARGET)
            return f"{self._states()}; {self._compare(project)}"

        self._note(f"Slurm, {told}", run)

    def kill_by_memory(self) -> None:
        """Asks for too little: every stage is killed, and gets as much again."""
        project = Project(self.folder / "memory", "slurm-no-accounting", *settings("execution.mem_mb=350"))

        def run() -> str:
            project.run(TARGET)
            killed = set(OVER_MEMORY.findall((self.slurm / "log" / "slurmd.log").read_text()))
            assert killed, "no job ran out of memory"
            return f"{len(killed)} jobs killed, each run again with more; {self._compare(project)}"

        self._note("killed by memory", run)

    def kill_by_time(self) -> None:
        """One minute for a stage that needs three: Slurm kills it, and it goes on in the next job."""
        seconds = self._time_pretraining()
        steps = round(CALIBRATION * LONG_S / seconds)
        long = settings(f"pretrain.iterations={steps}", "pretrain.selection.episodes=0", "execution.runtime_minutes=1")
        local = Project(self.folder / "long-local", "", *long)
        local.run(POLICY, local=True)
        project = Project(self.folder / "time", "slurm-no-accounting", *long)
        no_margin = ("--default-resources", "mem_mb=2000", "stop_margin=0", "--retries", "9")

        def run() -> str:
            before = self._count("TIMEOUT")
            project.run(POLICY, *no_margin)
            killed = self._count("TIMEOUT") - before
            assert killed > 0, "no job ran out of time"
            assert project.hashes() == local.hashes(), "the resumed policy differs"
            log = (project.folder / "logs" / f"{TASK}-smoke" / "pretrain.log").read_text()
            resumed = next(line for line in log.splitlines() if "resuming" in line)
            return (
                f"{killed} jobs killed; the last: {resumed.partition('] ')[2]} of {steps}; same files as the local run"
            )

        self._note("killed by time", run)

    def kill_snakemake(self) -> None:
        """SIGKILL of Snakemake while a job fine-tunes; the job lives on, and Snakemake is started again."""
        project = Project(self.folder / "killed", "slurm-no-accounting", *settings())

        def run() -> str:
            session = project.start(TARGET)
            wait_until(lambda: self._is_tuning(project), 300.0)
            session.send_signal(signal.SIGKILL)
            session.wait()
            orphans = self._active()
            assert orphans, "no job outlived Snakemake"
            project.run("--unlock", TARGET)
            project.run(TARGET)
            logs = [path.read_text() for path in (project.folder / "logs").rglob("finetune*.log")]
            waited, took = (sum(text in log for log in logs) for text in ("waiting for it", "meanwhile"))
            return (
                f"{len(orphans)} job lived on; {waited} waited for it and {took} took what it wrote; "
                f"{self._compare(project)}"
            )

        self._note("SIGKILL of Snakemake", run)

    def _time_pretraining(self) -> float:
        project = Project(
            self.folder / "calibration",
            "",
            *settings(f"pretrain.iterations={CALIBRATION}", "pretrain.selection.episodes=0"),
        )
        project.run(f"data/{TASK}-smoke/demos.manifest.json", local=True)
        return project.run(POLICY, local=True)

    def _is_tuning(self, project: Project) -> bool:
        state = project.folder / f"results/{TASK}-smoke/dsrl-bmd/seed0/checkpoints"
        return any(state.glob("*.safetensors"))

    def _states(self) -> str:
        counts = Counter(state for (state,) in jobs("%T"))
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))

    def _count(self, wanted: str) -> int:
        return sum(state == wanted for (state,) in jobs("%T"))

    def _active(self) -> list[str]:
        return [name for name, state in jobs("%i", "%T") if state in ("RUNNING", "PENDING", "COMPLETING")]

    def _compare(self, project: Project) -> str:
        found = project.hashes()
        different = sorted(name for name in found | self.reference if found.get(name) != self.reference.get(name))
        assert not different, f"differ from the local run: {', '.join(different)}"
        return f"the {len(found)} files of the local run"

    def _note(self, name: str, run: Callable[[], str]) -> None:
        started = time.monotonic()
        try:
            outcome = run()
        except (AssertionError, RuntimeError, TimeoutError) as error:  # the other parts can still be tried
            outcome = f"FAILED: {error}"
            self.failed = True
        self.rows.append((name, outcome, time.monotonic() - started))
        sys.stderr.write(f"{name}: {outcome} ({self.rows[-1][2]:.0f} s)\n")


def main() -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    every = (*PARTS, "accounting")
    # Python 3.11 holds the default of an optional list itself against `choices`.
    parser.add_argument("parts", nargs="*", metavar="part", help=f"what to try, of {', '.join(every)}; all if none")
    chosen = parser.parse_args()
    chosen.parts = chosen.parts or every
    if unknown := [part for part in chosen.parts if part not in every]:
        parser.error(f"no part is called {unknown[0]}; choose from {', '.join(every)}")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        sys.stderr.write(f"error: {', '.join(missing)} not found; tests/slurm/cluster.sh says what to install\n")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # Slurm's key server runs as another user
        trial = Trial(folder)
        with local_slurm(trial.slurm, "plain"):
            for part in PARTS:
                if part in chosen.parts:
                    getattr(trial, part)()
        if "accounting" in chosen.parts:
            with local_slurm(folder / "slurm-accounting", "accounting"):
                trial.chain("slurm", "states from sacct")
    print("| run | outcome | seconds |\n|---|---|---:|")
    print("\n".join(f"| {name} | {outcome} | {seconds:.0f} |" for name, outcome, seconds in trial.rows))
    return int(trial.failed)


if __name__ == "__main__":
    sys.exit(main())
