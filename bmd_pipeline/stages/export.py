"""Stage `export`: a policy as a folder that a robot can run without this package."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bmd_pipeline.config.schema import ModesConfig, RunConfig
from bmd_pipeline.errors import ArtifactError, TaskError
from bmd_pipeline.export.critic import CriticFunction, fit_critic, play_moments
from bmd_pipeline.export.graph import Function, PolicyFunction, ResidualFunction, write_graphs
from bmd_pipeline.io.files import hash_file, is_there, read_json, staged_directory, write_bytes, write_json
from bmd_pipeline.io.layout import RUN_FILE
from bmd_pipeline.io.provenance import RunStart, read_record, write_run
from bmd_pipeline.methods import is_finetuned
from bmd_pipeline.metrics.schemas import Evaluation, load_document
from bmd_pipeline.rl.agent import FINETUNED_DOCUMENT, Agent
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.checkpoints import describe_stage, lock_folder
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluate import load_player, require_inputs
from bmd_pipeline.stages.runtime import episode_seeds, open_env
from bmd_pipeline.tasks import registry

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def export(
    config: RunConfig,
    *,
    policy: Path,
    modes: Path | None,
    finetuned: Path | None,
    evaluation: Path,
    output: Path,
    method: str,
    seed: int,
    episodes: int | None = None,
    num_workers: int = 1,
    reporter: Reporter,
) -> None:
    """Writes the policy that `evaluate` would play as the folder `output`: graphs, facts, and what runs them.

    Both graphs are compared with the policy before the folder appears; see `write_graphs`. An `evaluation` of it
    (eval.json) says how often each code succeeds and what its behaviour is called; without one, success is what the
    policy's own folders know, on selection or held-out episodes. A critic, which says what to expect of each code from
    an observation on, is learnt from `episodes` on selection seeds, as many as evaluation plays if None.

    Raises:
        TaskError: a package that this needs is not installed.
        ConfigError: what was decided about modes is about others.
        ArtifactError: an input is missing, damaged or made for something else; a file in `output` is another's or was
            edited; or a graph differs from the policy.
        AlreadyWritten: a job that computes the same did, and has finished meanwhile.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise TaskError(f'export needs {", ".join(missing)}: pip install "bmd-pipeline[export]"')
    from bmd_pipeline.export.run_policy import FORMAT  # which imports one of them

    require_replaceable(output)
    inputs, start = require_inputs(config.task.name, method, seed, policy, modes, finetuned, reporter.warn)
    agent = load_player(config, policy, modes, finetuned, method)
    function = PolicyFunction(agent)
    functions: list[Function] = [function, *([ResidualFunction(agent)] if agent.residual else [])]
    measured = _read_evaluation(config.task.name, method, seed, evaluation, inputs, start)
    if measured is None and is_finetuned(method) and finetuned is not None:
        kept = read_json(finetuned / FINETUNED_DOCUMENT, "fine-tuned policy").get("kept", {})
        measured = FINETUNED_DOCUMENT, [(None, rate) for rate in kept.get("success_per_code", ())]
    elif measured is None and agent.modes is not None:
        found = agent.modes.findings.get("success_rate_per_code", ())
        measured = "modes.json", [(None, rate) for rate in found]
    spec = registry.make_spec(config.task.name, config.task.env)
    facts = {
        "schema_version": FORMAT,
        "task": config.task.name,
        "method": method,
        "seed": seed,
        "weights_sha256": {
            name: sha256
            for path in inputs.values()
            for name, sha256 in read_record(path)["outputs"].items()
            if name.endswith(".safetensors")
        },
        **describe_agent(agent, function),
        **({"obs_names": spec.obs_names} if spec.obs_names else {}),
        "control_hz": spec.control_hz,
        **_describe_modes(agent, config.modes, *(measured or (None, ()))),
    }
    episodes = config.evaluate.episodes if episodes is None else episodes
    identity = {"export": output.name, "method": method, "seed": seed, "episodes": episodes}
    hashes = {name: start.hashes[path] for name, path in inputs.items()}
    with lock_folder(config, "evaluate", output.parent, reporter, **identity, inputs=hashes) as lock:
        critic, facts["critic"] = _learn_critic(config, agent, method, seed, episodes, num_workers, reporter)
        functions += [critic] if critic else []
        with staged_directory(output) as folder:
            difference = write_graphs(functions, folder)
            write_json(folder / "policy.json", {**facts, "graphs": hash_graphs(folder)})
            runner = resources.files("bmd_pipeline.export").joinpath("run_policy.py")
            write_bytes(folder / "run_policy.py", runner.read_bytes())
            record = describe_stage(config, "evaluate", inputs=inputs, start=start, seed=seed, method=method)
            names = sorted(path.name for path in folder.iterdir())
            write_run(folder, {**record, "stage": "export", "difference": difference}, outputs=names)
        lock.discard()
    reporter.log(
        f"{output}: {method}, seed {seed}; differs from the policy by {difference:.1g} of half an action's range"
    )


def _learn_critic(
    config: RunConfig, agent: Agent, method: str, seed: int, episodes: int, num_workers: int, reporter: Reporter
) -> tuple[CriticFunction | None, dict[str, float] | str]:
    """The critic of a policy with how well it knows, or None with the sentence why there is none."""
    if agent.num_codes == 1:
        return None, "the policy has no codes to choose among"
    if not episodes:
        return None, "the export was told to play no episodes"
    names, num_envs = (config.task.name, method, seed, "critic"), min(config.evaluate.num_envs, episodes)
    torch.manual_seed(derive_seed(config.seed, "select", *names, "weights"))
    draws = make_generator(config.seed, "select", *names, "draws")
    seeds = episode_seeds(config.seed, "select", *names, episodes=episodes, num_envs=num_envs)
    device = torch.device("cpu")
    opened = open_env(config.task, agent.policy, num_envs, disturbed=True, device=device, num_workers=num_workers)
    with closing(opened) as env:
        moments = play_moments(env, agent, seeds, draws, reporter.warn)
    network, measured = fit_critic(moments, agent.num_codes, draws)
    known = f"squared error {measured['brier']:.3f}, that of each code's mean success {measured['brier_of_rates']:.3f}"
    reporter.log(f"critic, from {len(seeds) * num_envs} episodes: {known}")
    if not measured["brier"] < measured["brier_of_rates"]:  # not so for NaN either
        return None, f"it would know no more than the success rates ({known}, in a fifth of {episodes} episodes)"
    return CriticFunction(agent, network), {"episodes": len(seeds) * num_envs, **measured}


def require_replaceable(folder: Path) -> None:
    """Checks that nobody's work is lost where an export is written: what is there must be an export, as it was written.

    Raises:
        ArtifactError: the folder is a link, or a file in it was edited or is no part of an export.
    """
    away = "move it away, or write to another place"
    if folder.is_symlink():
        raise ArtifactError(f"{folder} is a link, and would be replaced: {away}")
    if not folder.exists():
        return
    written = read_record(folder / RUN_FILE)["outputs"] if is_there(folder / RUN_FILE) else {}
    for path in sorted(folder.iterdir()):
        if path.name in (RUN_FILE, "__pycache__", ".snakemake_timestamp"):
            continue
        if path.name not in written or not path.is_file():
            raise ArtifactError(f"{path} would be lost, and `bmd-pipeline export` did not write it: {away}")
        if hash_file(path) != written[path.name]:
            raise ArtifactError(f"{path} was edited since it was exported, and would be replaced: {away}")


Measured = tuple[str, Sequence[tuple[str | None, float]]]
"""Where it was measured, and of each code its behaviour, if that has a name, and its success rate."""


def _read_evaluation(
    task: str, method: str, seed: int, path: Path, inputs: Mapping[str, Path], start: RunStart
) -> Measured | None:
    """What an evaluation says of each code; None without one, or if the policy has been replaced since."""
    if not is_there(path):
        return None
    document = load_document(path, Evaluation, task)
    evaluated = {name: file.sha256 for name, file in document.provenance.inputs.items()}
    if evaluated != {name: start.hashes[file] for name, file in inputs.items()}:
        start.warn(f"{path} is of another policy than the present one, so its success rates are left out")
        return None
    block = document.policies.get(method)
    rows = [row for row in block.codes if row.seed == seed] if block else []
    return path.name, [(row.behaviour, row.success_rate) for row in sorted(rows, key=lambda row: row.code)]


def hash_graphs(folder: Path) -> dict[str, str]:
    """SHA-256 of each graph that run_policy.py loads, by the name of its file."""
    return {path.name: hash_file(path) for path in sorted(folder.glob("*.onnx"))}


def describe_agent(agent: Agent, function: PolicyFunction) -> dict[str, Any]:
    """What goes into the policy and comes out of it."""
    policy = agent.policy
    return {
        "obs_dim": policy.obs_dim,
        "obs_names": [f"column {index}" for index in range(policy.obs_dim)],
        "n_obs_steps": policy.config.n_obs_steps,
        "obs_stride": policy.config.obs_stride,
        "noise_dim": function.noise_dim,
        "action_dim": policy.action_dim,
        "action_low": policy.action_low,
        "action_high": policy.action_high,
        "horizon": policy.config.horizon,
        "n_action_steps": policy.config.n_action_steps,
    }


def _describe_modes(
    agent: Agent,
    decided: ModesConfig,
    source: str | None,
    measured: Sequence[tuple[str | None, float]],
) -> dict[str, Any]:
    """The codes. A name is what a person called it, else its behaviour; share is that of the demonstrations that show
    its behaviour, success where it was measured."""
    if agent.modes is None:
        return {"success_measured_in": None, "modes": []}
    count = agent.num_codes
    shares: Sequence[float | None] = agent.modes.shares() or [None] * count
    names = agent.modes.names(decided) or (None,) * count
    rows = measured if len(measured) == count else [(None, None)] * count
    modes = [
        {"code": code, "name": name or behaviour, "success_rate": rate, "share": share}
        for code, (name, (behaviour, rate), share) in enumerate(zip(names, rows, shares, strict=True))
    ]
    return {"success_measured_in": source if len(measured) == count else None, "modes": modes}
