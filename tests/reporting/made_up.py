"""Made-up results of a task, in the files and formats that the stages write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bmd_pipeline.config.hashing import hash_values, stage_hash
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.files import hash_file, write_bytes, write_json
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights, encode_episodes
from bmd_pipeline.metrics.schemas import Evaluation, Provenance, write_document
from bmd_pipeline.metrics.summary import summarise_policy
from bmd_pipeline.reporting.sources import ReportSources, load_sources
from bmd_pipeline.reporting.trajectories import NUM_POINTS, PathBook, PlanarPath, encode_paths
from bmd_pipeline.stages.evaluations import hash_policy_settings

METHODS = ("dsrl", "dsrl-bmd")
MODES = ("left", "right", "round")


_MACHINE = {
    "git_commit": "0123456789abcdef",
    "packages": {"torch": "2.0"},
    "python": "3.11",
    "platform": "somewhere",
    "device": "cpu",
    "threads": 1,
    "wall_s": 1.5,
    "cpu_seconds": 2.5,
}


def write_sealed(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a document as somebody would who had the right hash for an edit."""
    values = {name: value for name, value in document.items() if name != "sha256"}
    write_json(path, values | {"sha256": hash_values(values)})


class MadeUpRun:
    """Results of a task whose modes are directions, whose plain methods forget all but the first.

    Args:
        root: folder that holds `results/`.
        task: its name; anything goes.
        methods: fine-tuning methods.
        seeds: training seeds.
        modes: names of the modes.
        episodes: evaluation episodes per policy and seed.
        pictured: how many of them have paths.
        iterations: lines of each training log.
        axes: names of the plane's axes.
        config: settings that it says it was made under; made-up hashes if None.
        trained_under: hash of the settings of fine-tuning; those of `config` if None.
    """

    def __init__(
        self,
        root: Path,
        task: str = "Toy",
        *,
        methods: Sequence[str] = METHODS,
        seeds: Sequence[int] = (0, 1),
        modes: Sequence[str] = MODES,
        episodes: int = 40,
        pictured: int = 12,
        iterations: int = 5,
        axes: tuple[str, str] = ("x (m)", "y (m)"),
        config: RunConfig | None = None,
        trained_under: str | None = None,
    ) -> None:
        self.task, self.layout = task, Layout(root)
        self.methods, self.seeds, self.modes = tuple(methods), tuple(seeds), tuple(modes)
        self.episodes, self.pictured, self.iterations, self.axes = episodes, pictured, iterations, axes
        self.config, self.trained_under = config, trained_under
        self._write_base()
        parts, books = [], []
        for policy in ("pretrained", *self.methods):
            for seed in self.seeds:
                if policy != "pretrained":
                    self._write_finetuned(policy, seed)
                part, book = self._play(policy, seed)
                self._write_evaluation(self.layout.evaluation(task, policy, seed), [part], [book])
                parts.append(part)
                books.append(book)
        self._write_evaluation(self.layout.summary(task), parts, books)

    @property
    def folder(self) -> Path:
        """The task's results."""
        return self.layout.summary(self.task).parent

    def load(self) -> ReportSources:
        """The results as the page reads them."""
        return load_sources(
            self.task,
            self.layout,
            episodes=self.folder / "episodes.parquet",
            paths=self.folder / "trajectories.parquet",
        )

    @property
    def inputs(self) -> dict[str, Path]:
        """The evaluations of all policies and seeds, by name."""
        return {
            f"{policy}/seed{seed}": self.layout.evaluation(self.task, policy, seed)
            for policy in ("pretrained", *self.methods)
            for seed in self.seeds
        }

    def trace(self, stage: str, inputs: dict[str, Path]) -> Provenance:
        """Where a document comes from that was made from some files."""
        files = {name: {"path": str(path), "sha256": hash_file(path)} for name, path in inputs.items()}
        return Provenance.model_validate(
            {**_MACHINE, "command": f"bmd-pipeline {stage} --preset smoke", "config": {stage: {}}, "inputs": files}
        )

    def _write_base(self) -> None:
        folder = self.layout.policy(self.task)
        lines = [{"step": step, "wall_s": 0.1 * step, "train_loss": 1.0 / step} for step in range(1, 11)]
        for line in lines[1::2]:
            line["select/success_rate"] = 0.08 * line["step"]
        write_bytes(folder / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in lines).encode())
        kept = {"iteration": 10, "success_rate": 0.8}
        self._write_run(folder, "pretrain", 0, {"pretrain": {"iterations": 10}}, kept=kept)
        for seed in self.seeds:
            self._write_run(self.layout.modes(self.task, seed), "discover", seed, {"discover": {"num_modes": 4}})

    def _write_finetuned(self, method: str, seed: int) -> None:
        folder = self.layout.finetuned(self.task, method, seed)
        lines = []
        for step in range(1, self.iterations + 1):
            line = {
                "step": step,
                "wall_s": 0.1 * step,
                "rollout/success_rate": 0.6 + 0.3 * step / self.iterations + 0.01 * seed,
                "losses/entropy": 20.0 - 0.1 * step,
                "losses/kl_share": 0.4 + 2.0 * (step % 7 == 0),
            }
            if method.endswith("-bmd"):
                line |= {"modes/mi_weight": 0.5 + 0.01 * step, "modes/final_information": 0.1 * step}
            lines.append(json.dumps(line) + "\n")
        write_bytes(folder / METRICS_FILE, "".join(lines).encode())
        settings = {"finetune": {"iterations": self.iterations, "num_envs": 8}}
        known = stage_hash(self.config, "finetune", method) if self.config else "finetune-settings"
        self._write_run(folder, "finetune", seed, settings, method=method, config_hash=self.trained_under or known)

    def _write_run(self, folder: Path, stage: str, seed: int, config: dict[str, Any], **more: Any) -> None:
        record = {
            "schema_version": 1,
            "stage": stage,
            "task": self.task,
            "seed": seed,
            "config_hash": f"{stage}-settings",
            "config": {"task": {"name": self.task}, **config},
            "inputs": {},
            **_MACHINE,
            "command": f"bmd-pipeline {stage} --seed {seed}",
            "outputs": {path.name: hash_file(path) for path in folder.glob("*")},
        }
        write_json(folder / RUN_FILE, record | more)

    def _play(self, policy: str, seed: int) -> tuple[Episodes, PathBook]:
        rng = np.random.default_rng([len(policy), seed])
        n, num_modes = self.episodes, len(self.modes)
        coded = policy.endswith("-bmd")
        code = np.arange(n) % 4 if coded else np.zeros(n, np.int64)
        mode = (code if coded else rng.integers(num_modes, size=n)) % num_modes
        if policy != "pretrained" and not coded:
            mode = np.where(rng.random(n) < 0.95, 0, mode)
        success = rng.random(n) < (0.7 if policy == "pretrained" else 0.95)
        rows = Episodes(
            policy=policy,
            seed=seed,
            num_codes=4 if coded else 1,
            code=code.astype(np.int64),
            success=success,
            length=rng.integers(5, 25, size=n),
            episode_return=success.astype(float),
            information=np.full(n, 0.9 if coded else 0.0),
            deviation=0.1 * success,
            labellings={"way": ModeWeights(self.modes, np.eye(num_modes)[mode])},
            behaviours={"way": (*(self.modes[k % num_modes] for k in range(3)), None)} if coded else {},
        )
        paths = [
            PlanarPath(
                policy, seed, int(code[i]), self.modes[mode[i]], bool(success[i]), _walk(mode[i] / num_modes, rng)
            )
            for i in range(min(n, self.pictured))
        ]
        return rows, PathBook(self.axes, "way", self.modes, paths)

    def _write_evaluation(self, path: Path, parts: list[Episodes], books: list[PathBook]) -> None:
        merged = PathBook(self.axes, "way", self.modes, [one for book in books for one in book.paths])
        write_bytes(path.with_name("episodes.parquet"), encode_episodes(parts))
        write_bytes(path.with_name("trajectories.parquet"), encode_paths(merged))
        blocks = {
            policy: summarise_policy(
                [part for part in parts if part.policy == policy],
                config_hash=hash_policy_settings(self.config, policy) if self.config else f"settings of {policy}",
                tau=0.8,
                confidence=0.95,
                rng=np.random.default_rng(0),
            )
            for policy in dict.fromkeys(part.policy for part in parts)
        }
        document = Evaluation(
            schema_version=3,
            task=self.task,
            config_hash="all settings",
            confidence=0.95,
            policies=blocks,
            provenance=self.trace("evaluate", self._inputs_of(path, parts)),
        )
        write_document(path, document)

    def _inputs_of(self, path: Path, parts: list[Episodes]) -> dict[str, Path]:
        if path == self.layout.summary(self.task):
            return self.inputs
        policy, seed = parts[0].policy, parts[0].seed
        return (
            {} if policy == "pretrained" else {"finetuned": self.layout.finetuned(self.task, policy, seed) / RUN_FILE}
        )


def _walk(turn: float, rng: np.random.Generator) -> np.ndarray:
    """A noisy walk from the middle in one direction, (NUM_POINTS, 2)."""
    time = np.linspace(0, 1, NUM_POINTS)[:, None]
    goal = np.array([[np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)]])
    noise = 0.02 * rng.normal(size=(NUM_POINTS, 2)).cumsum(axis=0)
    return (time * goal + noise).astype(np.float32)
