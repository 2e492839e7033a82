"""The Kubernetes profile without a cluster: `python -m tests.kubernetes.trial`, with the extra `kubernetes`.

Snakemake's Kubernetes executor talks to a made-up API (fake_cluster.py) that runs each "pod" as a process in an empty
folder; a folder stands for the shared volume. Prints one specification as submitted, and ends with status 1 unless the
volume holds the results in the end and a second run finds nothing to do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.faults.lab import ROOT

from .fake_cluster import FakeCluster

TASK = "GaussianMixture"
SETTINGS = ("preset=smoke", f"tasks=[{TASK}]", "seeds=[0]", "methods=[dsrl-bmd]")


def main() -> int:
    """Runs it; returns the exit status."""
    if shutil.which("rsync") is None:
        print("error: rsync is missing, which the storage plug-in `fs` calls: apt-get install rsync", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volume = folder / "volume"
        volume.mkdir()
        image = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        cluster = FakeCluster(folder / "pods", {**image, "VK_ICD_FILENAMES": "/none", "CUDA_VISIBLE_DEVICES": ""})
        cluster.write_kubeconfig(folder / "kubeconfig")
        project = make_clone(folder / "project")
        first = run(project, folder / "kubeconfig", volume)
        jobs = len(cluster.specifications)
        again = run(project, folder / "kubeconfig", volume)
        found = {path.relative_to(volume).as_posix() for path in volume.rglob("*") if path.is_file()}
        cluster.close()
    specification = next(item for item in cluster.specifications if "finetune" in json.dumps(item))
    print(json.dumps(shorten(specification), indent=2))
    print(f"{jobs} jobs, then {len(cluster.specifications) - jobs}; {len(found)} files on the volume")
    whole = {f"results/{TASK}-smoke/{name}" for name in ("eval.json", "dsrl-bmd/seed0/finetuned.safetensors")} <= found
    return int(not (first == again == 0 and whole and len(cluster.specifications) == jobs))


def make_clone(project: Path) -> Path:
    """A git repository with the workflow: what git knows is what jobs get."""
    project.mkdir()
    for name in ("workflow", "config", "envs"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copy(ROOT / "Snakefile", project)
    (project / "profiles").symlink_to("workflow/profiles")
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    subprocess.run(["git", "add", "--all"], cwd=project, check=True)
    return project


def run(project: Path, kubeconfig: Path, volume: Path) -> int:
    """Runs Snakemake with the profile; returns its exit status."""
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "workflow/profiles/kubernetes"]
    command += ["--container-image", "registry.example.org/bmd-pipeline:trial", "--seconds-between-status-checks", "2"]
    command += ["--default-storage-prefix", str(volume), "--config", *SETTINGS]
    return subprocess.run(command, cwd=project, env=os.environ | {"KUBECONFIG": str(kubeconfig)}).returncode


def shorten(value: Any) -> Any:
    """A specification with long texts cut."""
    if isinstance(value, dict):
        return {name: shorten(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shorten(part) for part in value]
    return f"{value[:60]}… ({len(value)} characters)" if isinstance(value, str) and len(value) > 80 else value


if __name__ == "__main__":
    sys.exit(main())
