"""Processor time until success on AvoidPoint reaches .95, by our `dppo` and by DPPO's own code: speed.json, speed.md.

Both fine-tune one base policy, which is cloned here and given to both; that they play the same episodes with it is
asserted. DPPO runs its agent's loop as it is, by its settings for D3IL's Avoid, on the task as an environment of its
kind. The clock stops while success is measured, by the same episodes for both, as they would be deployed. What takes
`PATIENCE` times as long as ours with the same seed is stopped.

    python -m benchmarks.time_to_success --peers FOLDER [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import itertools
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peers import DPPO, SOURCES, find_checkout, read_commit
from benchmarks.speed_rows import difference
from benchmarks.speed_table import (
    PAGE,
    TABLE,
    TARGET,
    FineTuning,
    Point,
    describe_machine,
    load_table,
    save_table,
    write_page,
)
from bmd_pipeline.compute import set_matmul
from bmd_pipeline.config.load import load_config, read_settings
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import BMDError
from bmd_pipeline.io.provenance import git_commit
from bmd_pipeline.policies.bc import Cloner, make_windows
from bmd_pipeline.policies.diffusion import DiffusionPolicy, ObsHistory
from bmd_pipeline.rl.adapters import PolicyInput
from bmd_pipeline.rl.agent import Agent, make_agent, make_base_agent
from bmd_pipeline.rl.rollout import roll_out
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.tasks.avoid_point.course import NOT_REACHED
from bmd_pipeline.tasks.avoid_point.env import AvoidPoint
from bmd_pipeline.tasks.registry import load_options, make_expert

ROOT = Path(__file__).resolve().parent.parent
TASK = "AvoidPoint"
SETTINGS = "cfg/d3il/finetune/avoid_m1/ft_ppo_diffusion_mlp.yaml"
"""Of DPPO, for the task that AvoidPoint is the kinematic version of."""
CLONING_STEPS = 3500
"""Few, so that the base policy often fails: fine-tuning has something to do."""
JUDGED_EPISODES = 512
MAX_S = 300.0
"""Processor time after which ours is stopped."""
PATIENCE = 2.0
"""How many times as long as ours theirs may take: more than is wanted need not be known."""


def load_task() -> RunConfig:
    """The task's settings, with a sampler of as many steps that DPPO has too: its DDIM can't predict clean chunks."""
    sampler = {"sampler": "ddpm", "denoising_steps": 2, "ddim_steps": 2, "schedule": "cosine_capped"}
    changed = [f"pretrain.policy.{name}={value}" for name, value in sampler.items()]
    return load_config(TASK, preset="cpu", assignments=changed)


def make_env(config: RunConfig, num_envs: int) -> AvoidPoint:
    """Environments of the task."""
    options: Any = load_options(TASK, config.task.env)
    return AvoidPoint(options, num_envs)


# ---- The base policy ----


def demonstrate(config: RunConfig) -> Demos:
    """The expert's successes, as many of each behaviour."""
    expert = make_expert(TASK, config.task.env)
    shown: list[Episode] = []
    for behaviour in range(len(expert.behaviours)):
        attempts = (expert.demonstrate(behaviour, seed) for seed in itertools.count(1000 * behaviour))
        successes = (episode for episode in attempts if episode.success)
        shown += itertools.islice(successes, config.collect.num_episodes // len(expert.behaviours))
    obs, action = (np.concatenate([getattr(episode, name) for episode in shown]) for name in ("obs", "action"))
    return Demos(obs, action, np.cumsum([len(episode.action) for episode in shown]), {})


def clone(config: RunConfig, demos: Demos, policy: DiffusionPolicy, steps: int) -> DiffusionPolicy:
    """The policy after so many steps of behaviour cloning, averaged. Actions stay in [-1, 1], as DPPO has them."""
    windows = make_windows(demos, policy.config)
    policy.obs_normaliser.fit(windows.stacked)
    cloner = Cloner(policy, config.pretrain, windows.chunk, windows.stacked, torch.Generator().manual_seed(0))
    for _ in range(steps):
        cloner.train_step()
    return cloner.ema.average.eval()


# ---- The clock, which stands still while success is measured ----


@dataclass
class Judge:
    """Measures success after iterations, and says when to stop."""

    env: AvoidPoint
    limit_s: float
    points: list[Point] = field(default_factory=list)
    _spent: float = 0.0
    _started: float | None = None  # None while the clock stands

    def look(self, agent: Agent, control_steps: int) -> bool:
        """Whether an agent after so many control steps is good enough, or its time is up; called after each iteration,
        and once before, to start the clock."""
        if self._started is not None:
            self._spent += time.process_time() - self._started
        success = measure_success(self.env, agent)
        spent = round(self._spent, 2)
        self.points.append(Point(iteration=len(self.points), control_steps=control_steps, cpu_s=spent, success=success))
        self._started = time.process_time()
        return success >= TARGET or self._spent >= self.limit_s


def measure_success(env: AvoidPoint, agent: Agent) -> float:
    """Success on the same starts and noise at every call."""
    seed = derive_seed(0, "evaluate", TASK)
    code = torch.zeros(env.num_envs, dtype=torch.int64)
    played = roll_out(env, agent, seed=seed, code=code, generator=torch.Generator().manual_seed(0), explore=False)
    return float(played.success.float().mean())


# ---- Ours ----


def run_ours(config: RunConfig, base: DiffusionPolicy, seed: int, judge: Judge) -> None:
    """Fine-tunes by `dppo`, with the task's settings."""
    set_matmul(torch.device("cpu"), "float32", "auto")
    settings, control_steps = config.finetune, 0
    judge.look(make_base_agent(base), 0)
    torch.manual_seed(seed)
    agent = make_agent("dppo", base, None, settings, config.discover.steering)
    trainer = Trainer(make_env(config, settings.num_envs), agent, settings)
    for iteration in itertools.count():
        trainer.remember()
        names = (TASK, "dppo", seed, iteration)
        metrics = trainer.iterate(
            iteration=iteration,
            seed=derive_seed(0, "train", *names, "episodes"),
            generator=make_generator(0, "train", *names, "noise"),
            policy=iteration >= settings.ppo.value_warmup,
        )
        control_steps += int(metrics["rollout/control_steps"])
        if judge.look(trainer.agent, control_steps):
            return


# ---- DPPO's ----


class RestartingHistory(ObsHistory):
    """A history in which single episodes begin anew."""

    def restart(self, rows: Tensor, obs: Tensor) -> Tensor:
        """Begins episodes at rows (B,) bool, by their first observation among obs (B, obs_dim); returns all stacked."""
        self._recent = torch.where(rows[:, None], obs, self._recent)
        return self.extend(obs.new_empty(0, *obs.shape))


class CourseVenv:
    """The task as vectorised environments of DPPO's kind: it starts an episode anew within the step that ends it.

    Observations are those that the policy sees, stacked and normalised.
    """

    def __init__(self, config: RunConfig, policy: DiffusionPolicy, num_envs: int) -> None:
        self.env, self.starts = make_env(config, num_envs), make_env(config, num_envs)
        self.num_envs, self.horizon = num_envs, self.env.spec.horizon
        self.control_steps = 0
        self._policy = policy
        self._history = RestartingHistory(policy.config.n_obs_steps, policy.config.obs_stride)
        self._seeds = itertools.count()

    def seed(self, seeds: list[int]) -> None:
        """Fixes the starts of all episodes by the first of these."""
        self._seeds = itertools.count(1_000_000 * seeds[0])

    def reset_arg(self, options_list: object) -> dict[str, NDArray[np.float32]]:
        """Starts an episode everywhere."""
        return self._show(self._history.start(self.env.reset(next(self._seeds))))

    def step(self, actions: NDArray[np.float32]) -> tuple[Any, ...]:
        """Executes actions (num_envs, n, action_dim); returns observation, reward, terminated, truncated and info.

        The time limit is an end like others: the task does not go on.
        """
        moved = self.env.step_chunk(torch.from_numpy(actions))
        self.control_steps += int(moved.steps.sum())
        stacked = self._history.extend(moved.obs_path)
        if bool(moved.done.any()):
            stacked = self._history.restart(moved.done, self._restart(moved.done))
        done = moved.done.numpy()
        return self._show(stacked), moved.reward.sum(dim=0).numpy(), done, np.zeros_like(done), {}

    def _restart(self, rows: Tensor) -> Tensor:
        """Starts episodes at rows (num_envs,) bool; returns observations (num_envs, obs_dim) of what could start."""
        obs = self.starts.reset(next(self._seeds))
        self.env.position[rows] = self.starts.position[rows]
        self.env.referee.gaps[rows] = NOT_REACHED
        self.env.elapsed[rows], self.env.ended[rows] = 0, False
        return obs

    def _show(self, stacked: Tensor) -> dict[str, NDArray[np.float32]]:
        shape = (len(stacked), self._policy.config.n_obs_steps, self._policy.obs_dim)
        return {"state": self._policy.encode(stacked).reshape(shape).numpy()}


@dataclass(frozen=True)
class TheirSettings:
    """What DPPO's code is told."""

    num_envs: int
    train: dict[str, Any]
    critic: dict[str, Any]
    loss: dict[str, Any]  # of its loss and exploration


def read_their_settings(checkout: Path, config: RunConfig) -> TheirSettings:
    """Its authors' for D3IL's Avoid; what they compute from an episode's length follows from ours."""
    values = read_settings(checkout / SETTINGS)
    model, train = values["model"], dict(values["train"])
    del train["plotter"]
    num_envs = values["env"]["n_envs"]
    train["n_steps"] = count_decisions(config)
    train["batch_size"] = round(train["n_steps"] * num_envs * config.pretrain.policy.ddim_steps / 2)
    train["n_train_itr"] = 10**9  # it is stopped
    critic = {name: model["critic"][name] for name in ("mlp_dims", "activation_type", "residual_style")}
    names = ("gamma_denoising", "clip_ploss_coef", "clip_ploss_coef_base", "clip_ploss_coef_rate", "randn_clip_value")
    floors = ("min_sampling_denoising_std", "min_logprob_denoising_std")
    return TheirSettings(num_envs, train, critic, {name: model[name] for name in (*names, *floors)})


def count_decisions(config: RunConfig) -> int:
    """Decisions of the longest episode."""
    horizon: int = config.task.env["horizon"]
    return math.ceil(horizon / config.pretrain.policy.n_action_steps)


def make_their_model(dppo: DPPO, network: Any, base: DiffusionPolicy, settings: TheirSettings) -> Any:
    """A PPODiffusion of the base policy, which `network` holds."""
    model = dppo.make_finetuned(copy.deepcopy(base), settings.critic, **settings.loss)
    for actor in (model.actor, model.actor_ft):
        actor.load_state_dict(network.state_dict())
    return model


def run_theirs(
    dppo: DPPO, network: Any, config: RunConfig, base: DiffusionPolicy, settings: TheirSettings, seed: int, judge: Judge
) -> None:
    """Fine-tunes by DPPO's agent."""
    set_matmul(torch.device("cpu"), "float32", "mkl")
    judged = copy.deepcopy(base)
    venv = CourseVenv(config, base, settings.num_envs)
    model = make_their_model(dppo, network, base, settings)

    def look() -> bool:
        dppo.copy_to_policy(model.actor_ft, judged)
        return judge.look(make_base_agent(judged), venv.control_steps)

    def save_model() -> None:
        if look():
            agent.n_train_itr = 0

    with tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
        look()
        agent = dppo.make_finetuning_agent(base, model, venv, settings.train, seed, Path(logs))
        agent.save_model = save_model
        agent.run()


# ---- Both begin with the same policy, and play the same task ----


def compare(model: Any, config: RunConfig, base: DiffusionPolicy) -> str:
    """Plays the same episodes on both sides, with the same noise, and says what was found equal.

    Raises:
        AssertionError: they differ.
    """
    agent = make_agent("dppo", base, None, config.finetune, config.discover.steering)
    cond = torch.randn(JUDGED_EPISODES, base.cond_dim, generator=torch.Generator().manual_seed(1))
    code = torch.zeros(JUDGED_EPISODES, dtype=torch.int64)
    state = {"state": cond.reshape(len(cond), base.config.n_obs_steps, base.obs_dim)}
    clip, model.randn_clip_value = model.randn_clip_value, 10.0  # they cut off the tails of the noise, which we do not
    gaps = []
    for explore in (True, False):
        torch.manual_seed(2)
        theirs = model(state, deterministic=not explore).trajectories.flatten(1)
        with torch.no_grad():
            ours = agent.plan(PolicyInput(cond, code), torch.Generator().manual_seed(2), explore).chunk
        gaps.append(difference([ours], [theirs], 1e-4))

    env, venv = make_env(config, JUDGED_EPISODES), CourseVenv(config, base, JUDGED_EPISODES)
    played = roll_out(env, agent, seed=0, code=code, generator=torch.Generator().manual_seed(3), explore=True)
    torch.manual_seed(3)
    venv.seed([0])
    obs, running, success = venv.reset_arg([]), np.ones(len(code), bool), np.zeros(len(code), bool)
    for _ in range(count_decisions(config)):
        chunk = model({"state": torch.from_numpy(obs["state"])}).trajectories[:, : base.config.n_action_steps]
        obs, reward, done, _, _ = venv.step(chunk.numpy())
        success |= running & (reward > 0.0)
        running &= ~done
    model.randn_clip_value = clip
    alike = float(np.mean(success == played.success.numpy()))
    assert alike >= 0.99, f"of the same episodes only {alike:.1%} end alike"
    return f"chunks to {max(gaps):.0e}; {alike:.1%} of {len(code)} episodes end alike"


# ---- The command ----

OURS, THEIRS = "ours, `dppo` with the task's settings", "DPPO's loop, its authors' settings for D3IL's Avoid"


def main() -> None:
    """Measures, and writes each run at once; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder of checkouts, with dppo/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    checkout = find_checkout(given.peers, "dppo")
    if checkout is None:
        parser.error(f"{given.peers} has no checkout dppo/ ({SOURCES['dppo']})")
    if importlib.util.find_spec("einops") is None:
        parser.error("DPPO's loop needs the package einops")
    try:
        table = load_table(ROOT / TABLE)
    except BMDError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    commit = git_commit() or version("bmd-pipeline")
    config, dppo = load_task(), DPPO(checkout)
    env = make_env(config, JUDGED_EPISODES)
    torch.manual_seed(0)
    policy = DiffusionPolicy(config.pretrain.policy, env.spec.obs_dim, env.spec.action_dim)
    network = dppo.make_network(policy)
    base = clone(config, demonstrate(config), policy, CLONING_STEPS)
    dppo.copy_to_network(base, network)
    settings = read_their_settings(checkout, config)
    parity = compare(make_their_model(dppo, network, base, settings), config, base)
    print(parity, flush=True)
    for seed in given.seeds:
        limit = MAX_S
        for side in (OURS, THEIRS):
            load, judge = os.getloadavg()[0], Judge(env, limit)
            if side == OURS:
                run_ours(config, base, seed, judge)
            else:
                run_theirs(dppo, network, config, base, settings, seed, judge)
            end = judge.points[-1]
            limit = PATIENCE * end.cpu_s
            print(f"{side}, seed {seed}: {end.success:.3f} after {end.cpu_s:.1f} s", flush=True)
            run = FineTuning(
                side=side,
                seed=seed,
                points=thin(judge.points),
                parity=parity,
                load=round(load, 1),
                machine=describe_machine(),
                commit=f"{commit}, dppo {read_commit(checkout)}",
            )
            table = table.with_run(run)
            save_table(table, ROOT / TABLE)
            write_page(table, ROOT / PAGE)


def thin(points: list[Point]) -> list[Point]:
    """About ten points of a curve, with its first and its last."""
    return [*points[: -1 : -(-len(points) // 10)], points[-1]]


if __name__ == "__main__":
    main()
