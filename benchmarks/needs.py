"""Memory and disk that stages take, beside what `bmd_pipeline/stages/runtime.py` estimates.

python -m benchmarks.needs
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bmd_pipeline.config.load import load_config
from bmd_pipeline.stages.runtime import estimate_needs
from bmd_pipeline.tasks.registry import make_spec

ROOT = Path(__file__).parents[1]
SMALL = ("collect.num_episodes=40", "pretrain.iterations=20", "execution.checkpoint_minutes=0.01")
WIDE = "[1024, 1024, 1024]"
CASES = (
    ("GaussianMixture", "collect", None, ("collect.num_episodes=3000",)),
    ("GaussianMixture", "pretrain", None, ()),
    ("GaussianMixture", "pretrain", None, (f"pretrain.policy.hidden_sizes={WIDE}", "pretrain.checkpoint_interval=5")),
    ("GaussianMixture", "discover", None, ("discover.hindsight_episodes=4096", "discover.num_envs=512")),
    ("GaussianMixture", "finetune", "dsrl-bmd", ("finetune.num_envs=4096",)),
    ("GaussianMixture", "finetune", "dppo-bmd", ("finetune.num_envs=4096", f"pretrain.policy.hidden_sizes={WIDE}")),
    ("GaussianMixture", "evaluate", "pretrained", ("evaluate.episodes=4096", "evaluate.num_envs=4096")),
    ("AvoidPoint", "finetune", "dsrl-bmd", ("finetune.num_envs=2048",)),
)
QUICK = ("finetune.iterations=2", "finetune.selection.episodes=16", "discover.teaching.steps=20")


def main() -> None:
    """Runs every case after what it needs, and prints a row for it."""
    print("| task | stage | settings | memory (MB) | estimated | disk (MB) | estimated |")
    print("|---|---|---|---:|---:|---:|---:|")
    for task, stage, method, settings in CASES:
        chosen = (*SMALL, *QUICK, *settings)
        with tempfile.TemporaryDirectory() as name:
            project = Path(name)
            shutil.copytree(ROOT / "config", project / "config")
            for earlier in ("collect", "pretrain", "discover"):
                if earlier == stage:
                    break
                if earlier != "discover" or method in ("dsrl-bmd", "dppo-bmd"):
                    run(project, task, earlier, None, chosen)
            memory, disk = run(project, task, stage, method, chosen)
        config = load_config(task, preset="smoke", assignments=chosen, config_dir=ROOT / "config")
        needs = estimate_needs(config, stage, make_spec(task, config.task.env), method=method)
        what = f"{stage} {method}" if method else stage
        shown = ", ".join(settings).replace("|", "\\|") or "preset smoke"
        print(
            f"| {task} | {what} | {shown} | {memory / 1e6:.0f} | {needs.memory / 1e6:.0f} "
            f"| {disk / 1e6:.1f} | {needs.disk / 1e6:.1f} |",
            flush=True,
        )


def run(project: Path, task: str, stage: str, method: str | None, settings: tuple[str, ...]) -> tuple[float, float]:
    """Runs a stage; returns the largest memory that it had, and the largest growth of the folder, in bytes."""
    sets = [part for text in settings for part in ("--set", text)]
    argv = [stage, "--task", task, "--preset", "smoke", "--threads", "1", "--quiet", *sets]
    argv += ["--method", method] if method else []
    before = measure(project)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; from bmd_pipeline.cli.main import main; sys.exit(main())", *argv],
        cwd=project,
        stderr=subprocess.PIPE,
    )
    largest = 0
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        largest = max(largest, measure(project) - before)
        if pid:
            break
        time.sleep(0.05)
    if status:
        assert child.stderr is not None
        sys.exit(child.stderr.read().decode())
    return usage.ru_maxrss * 1024.0, float(largest)


def measure(folder: Path) -> int:
    """Bytes in a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it has gone
            continue
    return total


if __name__ == "__main__":
    main()
