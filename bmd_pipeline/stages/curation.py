"""What a person decides about the modes that discovery found: which of them get a code, which share one, their names.

Decisions are settings (`modes`), in a file of their own, so that the workflow reruns what depends on them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bmd_pipeline.config.load import describe_error, modes_path, read_settings
from bmd_pipeline.config.schema import ModesConfig, RunConfig
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import hash_file, is_there, read_file, read_json, write_text
from bmd_pipeline.io.layout import MODES_NAMES, PATHS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.provenance import require_run
from bmd_pipeline.methods import TAUGHT
from bmd_pipeline.metrics.schemas import CodeRow, Evaluation, load_document, require_tables


def show(config: RunConfig, layout: Layout, seed: int, picture: Path) -> list[dict[str, Any]]:
    """Describes each mode as it was found, and what its code does before fine-tuning; draws that at `picture` (.png).

    Raises:
        ArtifactError: modes, or the evaluation of the taught policy, are missing, or of other decisions than these.
        ConfigError: the modes are not of demonstrations.
    """
    task = config.task.name
    found = _read_sizes(config, layout, seed)
    path = layout.evaluation(task, TAUGHT, seed)
    evaluation = _load_evaluation(path, layout.modes(task, seed) / RUN_FILE, task, seed)
    rows = {row.code: row for row in evaluation.policies[TAUGHT].codes if row.seed == seed}
    modes = _describe(found, rows, config, seed)
    require_tables(evaluation, path, PATHS_FILE)
    _draw(picture, path.with_name(PATHS_FILE), modes, len(rows))
    return modes


def rename(config: RunConfig, layout: Layout, seed: int, mode: int, name: str) -> Path:
    """Writes down what a mode is called, "" for nothing; returns the file. For errors see `_decide`."""
    found = _read_sizes(config, layout, seed, mode)
    names = list(config.modes.names or [""] * len(found))
    names[mode] = name
    return _decide(config, found, names=names)


def drop(config: RunConfig, layout: Layout, seed: int, modes: Sequence[int]) -> Path:
    """Writes down that modes get no code; returns the file. For errors see `_decide`."""
    found = _read_sizes(config, layout, seed, *modes)
    return _decide(config, found, drop=sorted({*config.modes.drop, *modes}))


def merge(config: RunConfig, layout: Layout, seed: int, modes: Sequence[int]) -> Path:
    """Writes down that modes, and those that share a code with them already, share one; returns the file. For errors
    see `_decide`."""
    found = _read_sizes(config, layout, seed, *modes)
    touched = [group for group in config.modes.merge if set(group) & set(modes)]
    others = [list(group) for group in config.modes.merge if group not in touched]
    joined = {*modes, *(mode for group in touched for mode in group)}
    return _decide(config, found, merge=sorted([*others, sorted(joined)]))


def _read_sizes(config: RunConfig, layout: Layout, seed: int, *modes: int) -> list[int]:
    """Demonstrations of each mode that discovery found, of which `modes` must be some."""
    task = config.task.name
    path = layout.modes(task, seed) / MODES_NAMES[1]
    if not path.exists():
        raise ArtifactError(f"{path} is missing: make it with `bmd-pipeline discover --task {task} --seed {seed}`")
    require_run(path.parent, "discover", task, seed=seed)
    findings = read_json(path, "discovered modes").get("findings")
    sizes = findings.get("cluster_sizes") if isinstance(findings, dict) else None
    if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
        raise ConfigError(f"{path} has no modes of demonstrations, as discover.form coded finds them")
    if unknown := [mode for mode in modes if mode >= len(sizes)]:
        raise ConfigError(f"there is no mode {unknown[0]}: {path} has {len(sizes)}, from 0 on")
    return sizes


def _load_evaluation(path: Path, record: Path, task: str, seed: int) -> Evaluation:
    """The evaluation of the taught policy, which must be of the modes that are there."""
    again = f"`bmd-pipeline evaluate --task {task} --method {TAUGHT} --seed {seed}`"
    if not path.exists():
        raise ArtifactError(f"{path} is missing: make it with {again}")
    evaluation = load_document(path, Evaluation, task)
    modes = evaluation.provenance.inputs.get("modes")
    if TAUGHT not in evaluation.policies or modes is None or modes.sha256 != hash_file(record):
        raise ArtifactError(f"{path} is of other modes than those in {record.parent}: make it again with {again}")
    return evaluation


def _describe(found: Sequence[int], rows: dict[int, CodeRow], config: RunConfig, seed: int) -> list[dict[str, Any]]:
    decided = config.modes
    codes = decided.codes() or tuple(range(len(found)))
    if len(codes) != len(found) or len({*codes} - {None}) != len(rows):
        task = config.task.name
        raise ArtifactError(
            f"codes were taught under other decisions than the present ones ({modes_path(task, config.run)}): run "
            f"`bmd-pipeline discover --task {task} --seed {seed}` and `bmd-pipeline evaluate --task {task} --method "
            f"{TAUGHT} --seed {seed}`"
        )
    modes = []
    for mode, (count, code) in enumerate(zip(found, codes, strict=True)):
        row = None if code is None else rows[code]
        modes.append(
            {
                "mode": mode,
                "name": (decided.names[mode] or None) if decided.names else None,
                "demonstrations": count,
                "share": count / sum(found),
                "code": code,
                "success_rate": None if row is None else row.success_rate,
                "obeyed": None if row is None else row.obeyed,
                "behaviour": None if row is None else row.behaviour,
            }
        )
    return modes


def _draw(picture: Path, paths: Path, modes: Sequence[dict[str, Any]], num_codes: int) -> None:
    from bmd_pipeline.reporting.figures import plot_codes_paths, save_figure  # takes matplotlib
    from bmd_pipeline.reporting.trajectories import load_paths

    titles = []
    for code in range(num_codes):
        mine = [mode for mode in modes if mode["code"] == code]
        name = next((f", {mode['name']}" for mode in mine if mode["name"]), "")
        titles.append(f"mode {' and '.join(str(mode['mode']) for mode in mine)}{name}")
    save_figure(plot_codes_paths(titles, load_paths(paths)), picture.with_suffix(""))


def _decide(config: RunConfig, found: Sequence[int], **changes: Any) -> Path:
    """Writes the file with what was decided before and the changes.

    Raises:
        ConfigError: they don't go together, or what is in the file is of other modes, or is more than that.
    """
    path = modes_path(config.task.name, config.run)
    config.modes.require_sizes(found)
    if is_there(path):
        present = read_settings(path)
        if others := sorted(present.keys() - {"modes"}):
            raise ConfigError(f"{path} also holds {others[0]}, which would be lost: write `modes` in it by hand")
        text = read_file(path).decode()
        if path.is_symlink() or ("#" in text.removeprefix(_HEAD) and text != _write(present)):
            lost = "is a link" if path.is_symlink() else "also holds comments"
            raise ConfigError(f"{path} {lost}, which would be lost: write `modes` in it by hand")
    values = config.modes.model_dump(mode="json") | {"demonstrations": list(found)} | changes
    try:
        ModesConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_error(error, ModesConfig, ("modes",))[1]) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _write({"modes": values}))
    return path


_HEAD = "# What was decided about the modes by `bmd-pipeline modes`; without this file nothing is.\n"


def _write(settings: Mapping[str, Any]) -> str:
    return _HEAD + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None)
