"""What a robot gets: the package's own policy, in a folder that needs neither the package nor torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import bmd_pipeline
from bmd_pipeline.api import Policy
from bmd_pipeline.cli.main import main
from bmd_pipeline.config.schema import DiscoverConfig, FinetuneConfig, PolicyConfig, RunConfig, SteeringConfig
from bmd_pipeline.errors import ArtifactError, ConfigError, TaskError
from bmd_pipeline.modes.modes import make_modes
from bmd_pipeline.modes.trials import CodeTrials
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy, ObsHistory
from bmd_pipeline.policies.networks import make_mlp
from bmd_pipeline.rl.adapters import PolicyInput
from bmd_pipeline.rl.agent import Agent, load_agent, make_agent
from bmd_pipeline.stages import play as stage
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.gaussian_mixture.env import GaussianMixture

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
TASK = "GaussianMixture"
TRAINED = " ".join(f"--set pretrain.{x}" for x in ("iterations=20", "policy.n_obs_steps=2", "policy.obs_stride=3"))
TUNED = "--set finetune.iterations=1 --set finetune.denoiser.acting_eta=0.5"  # noise at all steps but the last
SMOKE = f"--task {TASK} --preset smoke --quiet"
SHARED = f"{SMOKE} {TRAINED} {TUNED}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task's results with a fine-tuned policy, evaluated and exported; its second mode has a name."""
    root = tmp_path_factory.mktemp("project")
    tune = "--method dppo-bmd"
    before = ("collect", f"pretrain {TRAINED}", f"discover {TRAINED}")
    for command in (*before, f"finetune {tune} {TRAINED} {TUNED}", f"evaluate {tune} {TRAINED} {TUNED}"):
        assert main(f"{command} {SMOKE} --root {root}".split()) == 0
    with pytest.MonkeyPatch.context() as patch:  # what is decided is written below the present folder
        patch.chdir(root)
        assert main(["modes", "rename", "1", "mine", "--task", TASK, "--preset", "smoke"]) == 0
        assert main(f"export {tune} {SHARED} --episodes 0 --root {root}".split()) == 0
    return root / "results" / f"{TASK}-smoke"


@pytest.fixture
def folder(results: Path, tmp_path: Path) -> Path:
    """A copy of the export whose modes have names and success rates."""
    copied = shutil.copytree(results / "dppo-bmd" / "seed0" / "export", tmp_path / "export")
    change(copied, modes=[make_mode(0, "left", 0.2), make_mode(1, "right", 0.9)])
    return copied


def make_mode(code: int, name: str | None, rate: float | None) -> dict[str, Any]:
    return {"code": code, "name": name, "success_rate": rate, "share": 0.5}


def change(folder: Path, **facts: Any) -> None:
    path = folder / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def write_empty_graph(function: object, folder: Path) -> float:
    """In the place of what takes seconds."""
    (folder / "policy.onnx").touch()
    return 0.0


def load_runner(folder: Path) -> ModuleType:
    """The file in the folder, as a robot's program imports it."""
    spec = importlib.util.spec_from_file_location("run_policy", folder / "run_policy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Draws:
    """In the place of `torch.randn`: the numbers of a robot's generator, one decision after the other."""

    def __init__(self, seed: int, noise_dim: int) -> None:
        self.generator = np.random.default_rng([seed, 1])
        self.noise_dim = noise_dim
        self.left = np.empty(0, np.float32)

    def __call__(self, *shape: Any, **_: Any) -> torch.Tensor:
        size = torch.Size(shape if isinstance(shape[0], int) else shape[0])
        if not len(self.left):
            self.left = self.generator.standard_normal((1, self.noise_dim), dtype=np.float32)[0]
        taken, self.left = np.split(self.left, [size.numel()])
        return torch.from_numpy(taken).reshape(size)


STEPS, SWITCH = 50, 18  # in the middle of a chunk of 4


def play(act: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """Actions (STEPS, 2) of an episode of the task in closed loop."""
    env, actions = registry.make_env(TASK, {"horizon": STEPS}, 1), []
    obs = env.reset(0)
    for step in range(STEPS):
        actions.append(act(obs[0].numpy(), step))
        obs = env.step(torch.from_numpy(actions[-1])[None]).obs
    return np.array(actions)


def play_robot(folder: Path, modes: tuple[object, object]) -> np.ndarray:
    robot = load_runner(folder).Policy(folder, seed=7)
    robot.reset(modes[0])

    def act(obs: np.ndarray, step: int) -> np.ndarray:
        if step == SWITCH:
            robot.switch(modes[1])
        return robot.act(obs)

    return play(act)


def play_package(agent: Agent, noise_dim: int, codes: tuple[int, int], patch: pytest.MonkeyPatch) -> np.ndarray:
    policy, draws = Policy(agent), Draws(7, noise_dim)
    policy.reset(codes[0])

    def act(obs: np.ndarray, step: int) -> np.ndarray:
        if step == SWITCH:
            policy.switch(codes[1])
        with patch.context() as drawing, torch.no_grad():
            drawing.setattr(torch, "randn", draws)
            return policy.act(obs)

    return play(act)


def test_a_robot_acts_as_the_package_does(results: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """50 steps with the same noise, each in a task of its own, and a switch of mode in mid-chunk."""
    base = load_policy(results / "policy")
    agent = load_agent(base, results / "modes" / "seed0", results / "dppo-bmd" / "seed0", "dppo-bmd", task=TASK)
    noise_dim = json.loads((folder / "policy.json").read_text())["noise_dim"]
    assert noise_dim == agent.policy.noise_dim * len(agent.policy.timesteps)
    expected = play_package(agent, noise_dim, (0, 1), monkeypatch)
    found = play_robot(folder, ("left", 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    other = play_robot(folder, ("left", "left"))
    np.testing.assert_array_equal(other[:SWITCH], found[:SWITCH])
    assert np.abs(other - found)[SWITCH].max() > 1e-4  # the switch shows at once


def make_policy(**settings: Any) -> DiffusionPolicy:
    torch.manual_seed(0)
    values = {"horizon": 4, "n_action_steps": 2, "n_obs_steps": 3, "obs_stride": 2, "hidden_sizes": (16, 16)}
    policy = DiffusionPolicy(PolicyConfig(**(values | settings)), obs_dim=2, action_dim=2)
    policy.fit_normalisers(torch.rand(64, 8) * 2 - 1, torch.randn(64, 6))
    policy.action_low, policy.action_high = (100.0, -0.02), (300.0, 0.01)
    return policy.requires_grad_(False).eval()


def make_steered(method: str = "dsrl-bmd") -> Agent:
    """The published form: a steering policy on the slowest two frequencies of the noise, drawn from."""
    policy = make_policy(prediction="epsilon")
    small = {"hidden_sizes": (16,), "noise_components": 2}
    config = DiscoverConfig.model_validate({"form": "published", "num_modes": 3, "steering": small})
    modes = make_modes(config, policy, (0, 1))
    assert modes.steering is not None
    torch.nn.init.normal_(modes.steering.network[-1].weight)  # codes differ
    return make_agent(method, policy, modes, FinetuneConfig(deterministic=False), SteeringConfig(**small))


def test_every_draw_becomes_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actions come in the units of the environment."""
    from bmd_pipeline.export.graph import PolicyFunction, write_graphs

    agent = make_steered()
    function = PolicyFunction(agent)
    assert function.noise_dim == 4 + 8  # steered frequencies, then all of them for the rest
    assert write_graphs([function], tmp_path) < 1e-5
    obs, code = torch.randn(1, 3, 2), torch.tensor([agent.num_codes - 1])
    noise = np.random.default_rng([7, 1]).standard_normal((1, 12), dtype=np.float32)
    latest, *earlier = obs[0]
    stacked = torch.cat([latest, *(latest - frame for frame in earlier)])[None]
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "randn", Draws(7, 12))
        plan = agent.plan(PolicyInput(agent.policy.encode(stacked), code), torch.Generator(), explore=False)
    low, high = np.array(agent.policy.action_low), np.array(agent.policy.action_high)
    expected = low + (agent.policy.to_action(plan.chunk).numpy() + 1) / 2 * (high - low)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    given = dict(zip(function.inputs, (obs.numpy(), code.numpy(), noise), strict=True))
    (found,) = session.run(None, given)
    np.testing.assert_allclose((found - expected) / (high - low), 0, atol=1e-5)
    others = [session.run(None, given | {"code": np.array([z])})[0] for z in range(agent.num_codes)]
    assert len({actions.tobytes() for actions in others}) == agent.num_codes


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Agent, torch.nn.Sequential]:
    """A folder of res-bmd with a critic, the agent that it is of, and the critic's network."""
    from bmd_pipeline.export.critic import CriticFunction
    from bmd_pipeline.export.graph import PolicyFunction, ResidualFunction, write_graphs
    from bmd_pipeline.export.run_policy import FORMAT
    from bmd_pipeline.stages.export import describe_agent, hash_graphs

    folder, agent = tmp_path_factory.mktemp("corrected"), make_steered("res-bmd")
    agent.policy.action_low, agent.policy.action_high = (-1.0, -1.0), (1.0, 1.0)  # those of the task
    assert agent.residual is not None
    torch.nn.init.normal_(agent.residual.network[-1].weight)  # it corrects much
    network, function = make_mlp((6, 8, 3), "silu"), PolicyFunction(agent)
    functions = [function, ResidualFunction(agent), CriticFunction(agent, network)]
    assert write_graphs(functions, folder) < 1e-5
    modes = [make_mode(code, None, rate) for code, rate in enumerate((0.2, 0.9, None))]
    facts = {"schema_version": FORMAT, "graphs": hash_graphs(folder), "modes": modes, "critic": {}}
    (folder / "policy.json").write_text(json.dumps(facts | describe_agent(agent, function)))
    shutil.copy(Path(run_policy_file()), folder)
    return folder, agent, network


def run_policy_file() -> str:
    from bmd_pipeline.export import run_policy

    return run_policy.__file__


def test_each_action_is_corrected_by_its_own_observation(
    corrected: tuple[Path, Agent, torch.nn.Sequential], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, agent, _ = corrected
    expected = play_package(agent, 12, (0, 2), monkeypatch)
    found = play_robot(folder, (0, 2))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    plain = shutil.copytree(folder, tmp_path / "plain")
    graphs = json.loads((plain / "policy.json").read_text())["graphs"]
    change(plain, graphs={"policy.onnx": graphs["policy.onnx"]})
    assert np.abs(play_robot(plain, (0, 2)) - found)[0].max() > 1e-3


def test_modes_are_ranked_by_what_is_seen(corrected: tuple[Path, Agent, torch.nn.Sequential]) -> None:
    """The critic sees the history and the next observation, which is not remembered."""
    folder, agent, network = corrected
    run_policy = load_runner(folder)
    robot, twin, window = run_policy.Policy(folder), run_policy.Policy(folder), ObsHistory(3, 2)
    assert robot.rank_modes() == [1, 0, 2]
    rankings = set()
    for step in range(6):
        obs = np.array([3.0 * np.sin(step), step - 3.0], np.float32)
        seen = torch.from_numpy(obs)[None]
        stacked = window.extend(seen[None]) if step else window.start(seen)
        expected = network(agent.policy.encode(stacked)).sigmoid()[0].detach()
        np.testing.assert_allclose(robot.expect_success(obs), expected, rtol=0, atol=1e-5)
        assert robot.rank_modes(obs) == expected.argsort(descending=True).tolist()
        rankings.add(tuple(robot.rank_modes(obs)))
        np.testing.assert_array_equal(robot.act(obs), twin.act(obs))
    assert len(rankings) > 1


def test_without_a_critic_modes_are_ranked_as_measured(folder: Path) -> None:
    run_policy = load_runner(folder)
    robot = run_policy.Policy(folder)
    assert robot.rank_modes([0.0, 0.0]) == robot.rank_modes() == [1, 0]
    with pytest.raises(run_policy.PolicyError, match=r"no critic\.onnx: the export was told to play no episodes"):
        robot.expect_success([0.0, 0.0])


def test_it_names_no_folder_of_the_machine_that_made_it(folder: Path) -> None:
    here = str(Path(bmd_pipeline.__file__).parent).encode()
    assert here not in (folder / "policy.onnx").read_bytes()
    with zipfile.ZipFile(folder / "policy.pt2") as program:
        assert not any(here in program.read(name) for name in program.namelist())


def test_it_needs_neither_the_package_nor_torch(folder: Path) -> None:
    start = "import runpy, sys; sys.modules |= {'torch': None, 'bmd_pipeline': None, 'onnx': None}; "
    run = f"runpy.run_path({str(folder / 'run_policy.py')!r}, run_name='__main__')"
    command = [sys.executable, "-I", "-c", start + run]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "{'code': 1, 'name': 'right', 'success_rate': 0.9, 'share': 0.5}"
    assert "ms per decision on 4 control steps" in done.stdout


def test_the_program_of_the_page_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    robot = Mock()
    robot.running.side_effect = [True, True, False] * 20
    robot.observe.return_value = np.zeros(2)
    monkeypatch.setitem(sys.modules, "run_policy", load_runner(folder))
    monkeypatch.chdir(folder.parent)
    exec(block, {"robot": robot})
    assert robot.move.call_count == 2 * 20


def test_modes_are_ranked_and_tried(folder: Path) -> None:
    run_policy = load_runner(folder)
    robot = run_policy.Policy(folder, seed=3)
    assert (robot.rank_modes(), robot.code) == ([1, 0], 1)  # the best one, if none is asked for
    trials, generator, outcomes, rates = CodeTrials(2), np.random.default_rng(3), [], np.random.default_rng(4)
    for _ in range(40):
        code = trials.choose(generator)
        assert robot.next_mode(outcomes) == code
        success = bool(rates.random() < (0.3, 0.8)[code])
        trials.update(code, success)
        outcomes.append((("left", "right")[code], success))
    change(folder, modes=[make_mode(0, None, None), make_mode(1, "left", 0.0), make_mode(2, "left", 0.1)])
    robot = run_policy.Policy(folder)
    assert robot.rank_modes() == [2, 1, 0]  # what was never measured comes last
    robot.reset("left")
    assert robot.code == 2  # of codes that share a name, the better one
    change(folder, modes=[])
    robot = run_policy.Policy(folder)
    assert (robot.rank_modes(), robot.act([0.0, 0.0]).shape) == ([], (2,))
    with pytest.raises(run_policy.PolicyError, match="unknown mode 'left': this policy has no modes"):
        robot.reset("left")


def test_a_graph_that_the_runtime_cannot_load_is_one_line(folder: Path) -> None:
    import onnx

    graph = onnx.load(folder / "policy.onnx")
    graph.ir_version = 99  # of a later onnx than this runtime knows
    onnx.save(graph, folder / "policy.onnx")
    change(folder, graphs={"policy.onnx": hashlib.sha256((folder / "policy.onnx").read_bytes()).hexdigest()})
    run_policy = load_runner(folder)
    with pytest.raises(
        run_policy.PolicyError, match=r"^onnxruntime .* can't load .*policy\.onnx \(.*\): inst"
    ) as caught:
        run_policy.Policy(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda robot: robot.reset("up"), r"unknown mode 'up'; known: 0 \(left\), 1 \(right\)"),
        (lambda robot: robot.switch(2), "unknown mode 2; known: 0"),
        (lambda robot: robot.switch(True), "unknown mode True"),
        (lambda robot: robot.next_mode([(-1, True)]), "unknown mode -1"),
        (lambda robot: robot.act([0.0, 0.0, 0.0]), r"an observation must have shape \(2,\), got \(3,\)"),
        (lambda robot: robot.act([[0.0, 0.0]]), r"an observation must have shape \(2,\), got \(1, 2\)"),
        (lambda robot: robot.act("ab"), "an observation must be numbers, got 'ab'"),
        (lambda robot: robot.act([0.0, [0.0]]), r"an observation must be numbers, got \[0\.0, \[0\.0\]\]"),
        (lambda robot: robot.act([0.0, np.nan]), "observation y is nan, not a finite number"),
    ],
)
def test_a_robots_mistakes_are_one_line_and_change_nothing(
    folder: Path, use: Callable[[Any], object], message: str
) -> None:
    run_policy = load_runner(folder)
    robot, twin = (run_policy.Policy(folder, seed=1) for _ in range(2))
    robot.act([0.1, 0.2])
    with pytest.raises(run_policy.PolicyError, match=message) as caught:
        use(robot)
    assert "\n" not in str(caught.value)
    expected = [twin.act([0.1, 0.2]), *(twin.act([0.0, 0.3]) for _ in range(5))][1:]
    np.testing.assert_array_equal([robot.act([0.0, 0.3]) for _ in range(5)], expected)


def test_folders_that_do_not_fit_are_one_line(folder: Path) -> None:
    run_policy = load_runner(folder)
    graph, facts = (folder / "policy.onnx").read_bytes(), (folder / "policy.json").read_text()
    (folder / "policy.onnx").write_bytes(graph[:-1] + bytes([graph[-1] ^ 1]))
    with pytest.raises(
        run_policy.PolicyError, match=r"policy\.onnx is damaged, or of another export than policy\.json"
    ):
        run_policy.Policy(folder)
    for damaged in (facts[:-9], "[]", ""):
        (folder / "policy.json").write_text(damaged)
        with pytest.raises(run_policy.PolicyError, match=r"policy\.json is damaged \(.*\): copy the whole folder"):
            run_policy.Policy(folder)
    (folder / "policy.json").write_text(facts)
    change(folder, schema_version=1)
    with pytest.raises(run_policy.PolicyError, match=r"policy\.json has format 1, this file reads 2"):
        run_policy.Policy(folder)
    (folder / "policy.json").write_text(facts)
    for changed, message in (
        ({"obs_names": ["x"]}, r"policy\.json: obs_names must be 2 names, one for each number"),
        ({"graphs": {}}, r"policy\.json lacks policy\.onnx: copy the whole folder"),
    ):
        change(folder, **changed)
        with pytest.raises(run_policy.PolicyError, match=message):
            run_policy.Policy(folder)
        (folder / "policy.json").write_text(facts)
    (folder / "policy.json").write_text(facts.replace('"obs_stride"', '"stride"'))
    with pytest.raises(run_policy.PolicyError, match=r"policy\.json lacks obs_stride: copy the whole folder"):
        run_policy.Policy(folder)
    (folder / "policy.json").write_text(facts)
    (folder / "policy.onnx").unlink()
    with pytest.raises(run_policy.PolicyError, match=r"policy\.onnx is missing: copy the whole folder"):
        run_policy.Policy(folder)


def test_a_full_disk_is_one_line(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, before[1]))  # as much as a file may hold
        command = f"export --method dppo-bmd --episodes 0 {SHARED} --root {results.parents[1]}"
        status = main([*command.split(), "--output", f"{tmp_path}/new"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert re.fullmatch(r"error: .*policy\.pt2 can't be written: File too large\n", capsys.readouterr().err)
    assert not (tmp_path / "new").exists()


def test_the_folder_says_what_it_came_from(results: Path) -> None:
    made = results / "dppo-bmd" / "seed0"
    facts, record, evaluation, modes = (
        json.loads(path.read_text())
        for path in (
            made / "export" / "policy.json",
            made / "export" / "run.json",
            made / "eval.json",
            results / "modes" / "seed0" / "modes.json",
        )
    )
    rows = evaluation["policies"]["dppo-bmd"]["codes"]
    sizes = modes["findings"]["cluster_sizes"]
    shares = [pytest.approx(size / sum(sizes)) for size in sizes]
    assert facts["success_measured_in"] == "eval.json"
    assert facts["modes"] == [
        {"code": row["code"], "name": name, "success_rate": row["success_rate"], "share": share}
        for row, share, name in zip(rows, shares, (rows[0]["behaviour"], "mine"), strict=True)
    ]
    assert (record["stage"], record["inputs"].keys()) == ("export", {"policy", "modes", "finetuned"})
    assert record["outputs"].keys() == {"policy.json", "policy.onnx", "policy.pt2", "run_policy.py"}
    weights = json.loads((made / "run.json").read_text())["outputs"]["finetuned.safetensors"]
    assert facts["weights_sha256"]["finetuned.safetensors"] == weights


def test_an_export_is_played_as_it_acts_on_a_robot(
    results: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filming, seen = registry.load_filming(TASK), {}
    for gain in (1.0, 0.0):
        env = {"horizon": STEPS, "disturbance": {"action_gain": gain}}
        config = RunConfig.model_validate({"task": {"name": TASK, "env": env}})
        with stage.open_export_player(config, filming, folder, 7) as player:
            assert player.groups == [("code0",), ("code1",)]
            player.try_episode(0, 0)
            seen[gain] = player.recorder.recording.track[:, 0].numpy()
    actions = play_robot(folder, ("left", "left"))[: min(SWITCH, len(seen[1.0]) - 1)]
    assert len(actions) > 5
    world = registry.make_env(TASK, {"horizon": STEPS}, 1)
    world.reset(0)
    moved = world.step_chunk(torch.from_numpy(actions)[None]).track_path[:, 0]
    np.testing.assert_allclose(seen[1.0][1 : len(moved) + 1], moved, rtol=0, atol=1e-5)
    assert (seen[0.0] == seen[0.0][0]).all()  # in a world where nothing moves
    monkeypatch.setattr(GaussianMixture, "_observe", lambda task: torch.full((task.num_envs, 2), torch.nan))
    with (
        pytest.raises(TaskError, match=r"GaussianMixture: observation .* is nan.* \(step 0, seed 0\)"),
        stage.open_export_player(config, filming, folder, 7) as player,
    ):
        player.try_episode(0, 0)
    with monkeypatch.context() as patch:
        advance = GaussianMixture.track
        patch.setattr(GaussianMixture, "_observe", lambda task: torch.zeros(task.num_envs, 2))
        patch.setattr(GaussianMixture, "track", lambda task: advance(task) + torch.inf)
        with (
            pytest.raises(TaskError, match=r"track column 0 is not finite or beyond 1e\+12 \(step 1, seed 0\)"),
            stage.open_export_player(config, filming, folder, 7) as player,
        ):
            player.try_episode(0, 0)
    base, told = load_policy(results / "policy"), list[tuple[str, str]]()
    agent = load_agent(base, results / "modes" / "seed0", results / "dppo-bmd" / "seed0", "dppo-bmd", task=TASK)
    with stage.open_agent_player(config, filming, agent, 7, lambda *words: told.append(words)) as player:
        assert not player.try_episode(0, 0)
    assert "observation column 0 was not finite" in told[0][0]
    monkeypatch.undo()
    noisy = config.model_copy(deep=True)
    noisy.task.env["disturbance"] = {"obs_noise": 0.1}
    with (
        pytest.raises(ConfigError, match="has a unit that no export knows"),
        stage.open_export_player(noisy, filming, folder, 7),
    ):
        pass
    edited = shutil.copytree(results / "dppo-bmd" / "seed0" / "export", tmp_path / "edited")
    facts = json.loads((edited / "policy.json").read_text())
    (edited / "policy.json").write_text(json.dumps(facts | {"n_action_steps": 1}))
    own = {"output": tmp_path / "clips.json", "method": "dppo-bmd", "exported": edited}
    with pytest.raises(ArtifactError, match=r"policy\.json is damaged or edited: not what run\.json records"):
        stage.play(config, **own, reporter=Reporter("quiet"))
    with pytest.raises(ArtifactError, match="dppo-bmd"):
        stage.play(config, output=folder / "clips.json", method="dppo", exported=folder, reporter=Reporter("quiet"))


def test_nobodys_work_is_replaced(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = shutil.copytree(results / "dppo-bmd" / "seed0" / "export", tmp_path / "export")
    command = f"export --method dppo-bmd --episodes 0 {SHARED} --root {results.parents[1]} --output {output}".split()
    (output / "__pycache__").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("bmd_pipeline.stages.export.write_graphs", write_empty_graph)
        assert main(command) == 0  # its own may be
    assert sorted(path.name for path in output.iterdir()) == ["policy.json", "policy.onnx", "run.json", "run_policy.py"]
    before = (output / "run.json").read_bytes()
    capsys.readouterr()

    def refuse(message: str) -> None:
        assert main(command) == 2
        err = capsys.readouterr().err
        assert (err.count("\n"), message in err) == (1, True), err
        assert (output / "run.json").read_bytes() == before
        assert not list(tmp_path.glob(".*"))  # nothing half-made beside it

    monkeypatch.setattr("bmd_pipeline.export.graph.TOLERANCE", -1.0)
    refuse("would differ from the policy by ")
    (output / "run_policy.py").open("a").write("# mine")
    refuse("run_policy.py was edited since it was exported, and would be replaced")
    shutil.copy(results / "dppo-bmd" / "seed0" / "export" / "run_policy.py", output)
    (output / "notes.txt").write_text("mine")
    refuse("notes.txt would be lost, and `bmd-pipeline export` did not write it")


def test_success_of_another_policy_is_left_out(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken from selection episodes then."""
    root = shutil.copytree(results.parents[1], tmp_path / "project")
    made = root / "results" / f"{TASK}-smoke" / "dppo-bmd" / "seed0"
    record = json.loads((made / "run.json").read_text())
    (made / "run.json").write_text(json.dumps(record | {"wall_s": 1.0}))
    monkeypatch.setattr("bmd_pipeline.stages.export.write_graphs", write_empty_graph)
    assert main(f"export --method dppo-bmd --episodes 0 {SHARED} --root {root}".split()) == 0
    assert "eval.json is of another policy than the present one" in capsys.readouterr().err
    facts = json.loads((made / "export" / "policy.json").read_text())
    kept = json.loads((made / "finetuned.json").read_text())["kept"]["success_per_code"]
    assert facts["success_measured_in"] == "finetuned.json"
    assert [(mode["name"], mode["success_rate"]) for mode in facts["modes"]] == [(None, rate) for rate in kept]


def test_columns_have_the_names_that_the_task_gives_them(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bmd_pipeline.stages.export.write_graphs", write_empty_graph)
    command = f"export {SMOKE} {TRAINED} --root {results.parents[1]} --method pretrained --output {tmp_path / 'named'}"
    assert main(command.split()) == 0
    assert json.loads((tmp_path / "named" / "policy.json").read_text())["obs_names"] == ["x", "y"]


def test_what_cant_be_exported_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"export {SMOKE} {TRAINED} --root {results.parents[1]} --method"
    monkeypatch.setattr("bmd_pipeline.stages.export.PACKAGES", ("onnx", "no_such_onnx"))
    assert main([*command.split(), "pretrained"]) == 2
    assert capsys.readouterr().err == 'error: export needs no_such_onnx: pip install "bmd-pipeline[export]"\n'
    assert not (results / "pretrained").exists()
