"""Where everything is: the one place that knows the paths of data and results."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import read_json

RUN_FILE = "run.json"
"""Written last in every output folder: its presence means the folder is complete."""
EVAL_FILE = "eval.json"  # one policy's evaluation, or all of a task side by side
EPISODES_FILE = "episodes.parquet"  # beside it: a row for each episode
PATHS_FILE = "trajectories.parquet"  # beside it: planar paths of some episodes
MANIFEST_FILE = "demos.manifest.json"  # stands for the demonstrations beside it
STORE_MARKS = ("zarr.json", ".zgroup", ".zattrs")  # files of a zarr group, of format 3 and 2
POLICY_FILE = "policy.safetensors"  # weights of a pre-trained policy
METRICS_FILE = "metrics.jsonl"  # metrics of a training stage, one JSON line per report
POLICY_NAMES = (POLICY_FILE, "policy.json", RUN_FILE)
MODES_NAMES = ("modes.safetensors", "modes.json", RUN_FILE)
FINETUNED_NAMES = ("finetuned.safetensors", "finetuned.json", RUN_FILE)
"""Files that stand for a folder of a policy, of modes and of a fine-tuned policy."""
TABLES = (EPISODES_FILE, PATHS_FILE, "trajectories.png", "trajectories.svg")
SUCCESS_PICTURES = ("success_modes.png", "success_modes.svg")
"""Tables and a picture beside every eval.json, and another picture beside that of all policies."""
MARK = "made by bmd-pipeline"
"""What our pictures say of themselves, so that nobody else's are taken for ours."""
VIDEOS_FOLDER = "videos"  # a task's clips, which its page shows
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
"""Media types of the clips that a page shows, by suffix."""
LOCK_FILE = "lock"
"""Lock file in a stage's checkpoint folder, locked by the job that writes the output; a killed job leaves it behind,
unlocked."""


@dataclass(frozen=True)
class Layout:
    """Paths of a run, below `root` (the folder that commands are started in); seeds and names may be wildcards.

    Runs of other names are in other folders.
    """

    root: Path = Path()
    run: str = ""

    def folder(self, task: str) -> str:
        """Name of the task's folder in data/, results/ and logs/."""
        return f"{task}-{self.run}" if self.run else task

    def results(self, task: str) -> Path:
        """Folder of all results of a task."""
        return self.root / "results" / self.folder(task)

    def logs(self, task: str) -> Path:
        """Folder of what the workflow's jobs print."""
        return self.root / "logs" / self.folder(task)

    def list_tasks(self) -> list[str]:
        """Tasks that have an eval.json, by name. It says which task it is of: a task's name may end as a run's does."""
        found = []
        for path in sorted(self.root.glob(f"results/*/{EVAL_FILE}")):
            name = path.parent.name
            task = name.removesuffix(f"-{self.run}")
            with suppress(ArtifactError):  # one that is damaged is refused where it is read
                task = str(read_json(path, "evaluation").get("task", task))
            if self.folder(task) == name:
                found.append(task)
        return found

    def demos(self, task: str) -> Path:
        """Demonstration store (a zarr group)."""
        return self.root / "data" / self.folder(task) / "demos.zarr"

    def demos_manifest(self, task: str) -> Path:
        """The file that stands for the store: its tree hash and how it was made."""
        return self.demos(task).with_name(MANIFEST_FILE)

    def policy(self, task: str) -> Path:
        """Folder of the pre-trained policy."""
        return self.results(task) / "policy"

    def modes(self, task: str, seed: int | str) -> Path:
        """Folder of the discovered modes."""
        return self.results(task) / "modes" / f"seed{seed}"

    def finetuned(self, task: str, method: str, seed: int | str) -> Path:
        """Folder of a fine-tuned policy; the method may be that of a grid's cell, as `GridCell.folder` says."""
        return self.results(task) / method / f"seed{seed}"

    def curve(self, task: str, method: str, seed: int | str) -> Path:
        """Success and modes of a policy's snapshots over its fine-tuning."""
        return self.finetuned(task, method, seed) / "curve.json"

    def export(self, task: str, method: str, seed: int | str) -> Path:
        """Folder of a policy for a robot."""
        return self.finetuned(task, method, seed) / "export"

    def evaluation(self, task: str, method: str, seed: int | str) -> Path:
        """Evaluation of one policy; the method may be `pretrained` or `taught`."""
        return self.finetuned(task, method, seed) / EVAL_FILE

    def summary(self, task: str) -> Path:
        """All evaluations of a task side by side: the main target."""
        return self.results(task) / EVAL_FILE

    def comparison(self, task: str) -> Path:
        """All methods compared."""
        return self.results(task) / "compare.json"

    def verdict(self, task: str) -> Path:
        """The hypotheses, decided."""
        return self.results(task) / "verdict.json"

    def validation(self, task: str) -> Path:
        """Whether the discovered modes are real."""
        return self.results(task) / "modes" / "validation.json"

    def grid(self, task: str) -> Path:
        """Scores of a grid of runs."""
        return self.results(task) / "grid.json"

    def pool(self, task: str) -> Path:
        """Scores over base policies."""
        return self.results(task) / "pool.json"

    def report(self, task: str) -> Path:
        """A task's page."""
        return self.results(task) / "report.html"

    def overview(self) -> Path:
        """The page of all tasks."""
        return self.root / "results" / f"{self.folder('summary')}.html"

    @staticmethod
    def snapshots(finetuned: Path) -> Path:
        """Snapshots of the fine-tuning that writes the folder `finetuned`, one folder each, named by iteration."""
        return finetuned / "snapshots"

    @staticmethod
    def state(output: Path) -> Path:
        """Progress of the stage that writes the folder `output`; no rule's output, so a retry finds it."""
        return output / "checkpoints"
