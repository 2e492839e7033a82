"""The wheel and the sdist: what they hold, and a run from the installed wheel.

The wheel goes into an environment of its own, which sees the packages of this one through a `.pth` file: that takes
seconds and no network, and such a file brings no editable install with it. Whether the lock can be installed is what
`make setup` shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
IN_WHEEL = {
    "config/": "bmd_pipeline/project/config/",
    "envs/bmd-pipeline.": "bmd_pipeline/project/envs/bmd-pipeline.",
    "workflow/profiles/": "bmd_pipeline/project/profiles/",
    "workflow/re": "bmd_pipeline/project/workflow/re",
    "workflow/ru": "bmd_pipeline/project/workflow/ru",
    "Snakefile": "bmd_pipeline/project/Snakefile",
    "bmd_pipeline/": "bmd_pipeline/",
}
"""How names in the repository begin, and in the wheel."""
BESIDE = {".gitignore", "CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "pyproject.toml"}
"""What else the sdist holds."""
RESULTS = "results/GaussianMixture-smoke"


def make_wheel(folder: Path) -> Path:
    """Builds sdist and wheel in a folder, looks into both, and returns the wheel."""
    sdist = build(ROOT, "sdist", folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
        held = {str(PurePosixPath(*PurePosixPath(file.name).parts[1:])) for file in archive if file.isfile()}
    wheel = build(folder / sdist.name.removesuffix(".tar.gz"), "wheel", folder)
    tracked = run("git", "ls-files", cwd=ROOT, show=False).splitlines()
    packed = {file for file in tracked if file.startswith(tuple(IN_WHEEL))}
    compare("sdist", held, packed | BESIDE | {"PKG-INFO"})
    with zipfile.ZipFile(wheel) as archive:
        names = {file for file in archive.namelist() if ".dist-info/" not in file}
    compare("wheel", names, set(map(name_in_wheel, packed)))
    return wheel


def build(source: Path, kind: str, folder: Path) -> Path:
    """Builds from a source tree, and returns the file."""
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder), cwd=source, show=False)
    (built,) = folder.glob({"sdist": "*.tar.gz", "wheel": "*.whl"}[kind])
    print(f"{built.name}: {built.stat().st_size / 1000:.0f} kB")
    return built


def name_in_wheel(name: str) -> str:
    """Where a file of the repository is in the wheel."""
    start = next(start for start in IN_WHEEL if name.startswith(start))
    return IN_WHEEL[start] + name.removeprefix(start)


def compare(what: str, held: set[str], wanted: set[str]) -> None:
    """Ends the check if an archive lacks a file, or holds one that git does not know."""
    if held != wanted:
        sys.exit(f"error: the {what} lacks {sorted(wanted - held)} and must not hold {sorted(held - wanted)}")
    print(f"the {what} holds {len(held)} files, those it should")


def install(wheel: Path, environment: Path) -> None:
    """Makes an environment with the wheel, in which other packages are those of this process."""
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    purelib = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", show=False).strip()
    Path(purelib, "other-packages.pth").write_text(sysconfig.get_path("purelib"))
    if failed := pip_install("--no-index", "--no-deps", str(wheel), python=python):
        sys.exit(f"error: {failed}")
    found = run(str(python), "-c", "import bmd_pipeline; print(bmd_pipeline.__file__)", cwd=environment, show=False)
    if not Path(found.strip()).is_relative_to(purelib):
        sys.exit(f"error: the environment's bmd_pipeline is {found.strip()}")


def pip_install(*arguments: str, python: Path | str = sys.executable) -> str:
    """Has pip install for an interpreter; returns why it failed, in one line, if so."""
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--retries", "1")
    done = subprocess.run((*pip, *arguments), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or [f"pip ended with status {done.returncode}"]
    return next((line for line in lines if line.startswith("ERROR: ")), lines[-1])


def try_out(folder: Path) -> None:
    """Does with the installed wheel what docs/install.md says."""
    elsewhere, project = folder / "elsewhere", folder / "elsewhere" / "my-project"
    elsewhere.mkdir()
    run("bmd-pipeline", "--version", cwd=elsewhere)
    os.environ["COLUMNS"] = "150"
    run("bmd-pipeline", "tasks", cwd=elsewhere)
    run("python", "-m", "bmd_pipeline", "config", "show", "--task", "GaussianMixture", "--hashes", cwd=elsewhere)
    targets = (f"{RESULTS}/eval.json", f"{RESULTS}/report.html")
    smoke = ("--", "--config", "preset=smoke", "--quiet")
    run("bmd-pipeline", "run", *targets, *smoke, "rules", "--dry-run", cwd=elsewhere)  # no Snakefile there
    run("bmd-pipeline", "run", f"{RESULTS}/evil.json", *smoke, "rules", cwd=elsewhere, status=1)  # Snakemake's status
    run("bmd-pipeline", "run", "eval.json", cwd=elsewhere, status=2)
    run("bmd-pipeline", "init", "my-project", cwd=elsewhere)
    run("bmd-pipeline", "init", "my-project", cwd=elsewhere, status=2)
    run("bmd-pipeline", "run", *targets, *smoke, "all", cwd=project)
    for target in targets:
        if not (project / target).is_file():
            sys.exit(f"error: {target} is missing")
    run(
        "bmd-pipeline",
        "report",
        "--task",
        "GaussianMixture",
        "--preset",
        "smoke",
        "--root",
        "my-project",
        cwd=elsewhere,
    )


def run(*command: str, cwd: Path | None = None, show: bool = True, status: int = 0) -> str:
    """Runs a command and returns what it printed; ends the check if its exit status is another."""
    start = time.monotonic()
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if show:
        print(f"$ {' '.join(command)}\n{done.stdout}({time.monotonic() - start:.0f} s)", flush=True)
    if done.returncode != status:
        sys.exit(f"error: status {done.returncode} of {' '.join(command)}:\n{done.stdout}")
    return done.stdout
