"""What is compared: rows of the speed table, each as two ways to do the same work, found equal first."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers import DPPO, CleanRL
from bmd_pipeline.config.schema import DenoiserConfig, PolicyConfig, PPOConfig, PretrainConfig, SteeringConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.export.graph import PolicyFunction, write_graphs
from bmd_pipeline.export.run_policy import FORMAT, Policy
from bmd_pipeline.io.files import write_json
from bmd_pipeline.modes.steering import NoiseBasis, SteeringPolicy
from bmd_pipeline.policies.bc import Cloner
from bmd_pipeline.policies.diffusion import DiffusionPolicy, ObsHistory
from bmd_pipeline.policies.networks import make_mlp
from bmd_pipeline.rl.adapters import (
    Adapter,
    FinetunedDenoiser,
    FrozenDenoiser,
    GaussianNoise,
    PolicyInput,
    SteeringAdapter,
)
from bmd_pipeline.rl.agent import Agent, make_base_agent
from bmd_pipeline.rl.ppo import PPO, Batch, Critic, standardise
from bmd_pipeline.sim import backend
from bmd_pipeline.stages.export import describe_agent, hash_graphs
from bmd_pipeline.tasks.pusht.env import skip_recolouring
from bmd_pipeline.tasks.registry import get_entry, make_env

OBS_DIM, ACTION_DIM = 8, 2
Precision = Literal["float32", "bfloat16"]
STILL = 1e-12
"""A learning rate: steps are taken, and the last round does what the first did."""


@dataclass(frozen=True)
class Sides:
    """The same work in two ways; each call does some of it and returns how many units, such as gradient steps."""

    ours: Callable[[], float]
    theirs: Callable[[], float]
    parity: str  # what was found equal, and how closely


@dataclass(frozen=True)
class Work:
    """A row before it is measured."""

    title: str
    unit: str
    peer: str  # "dppo" and "cleanrl" are checkouts, others Python packages
    their: str  # which part of the peer
    wanted: float | None  # ratio that is aimed at
    make: Callable[[Any], Sides]  # of the loaded checkout, or of None


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor], bound: float) -> float:
    """Largest difference of tensors as a share of the largest entry.

    Raises:
        AssertionError: it is above the bound, so that the two sides do not do the same.
    """
    worst = max(
        float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))
        for one, other in zip(ours, theirs, strict=True)
    )
    assert worst <= bound, f"the two sides differ by {worst:.2g}, more than {bound:g}"
    return worst


def make_policy(hidden_sizes: tuple[int, ...] = (512, 512, 512)) -> DiffusionPolicy:
    """An untrained policy that predicts noise, as DPPO's and diffusers' samplers have it."""
    torch.manual_seed(0)
    config = PolicyConfig(hidden_sizes=hidden_sizes, prediction="epsilon")
    return DiffusionPolicy(config, OBS_DIM, ACTION_DIM)


def first_and_last(layers: Sequence[nn.Linear]) -> list[Tensor]:
    """Gradients of the biases at both ends of a network."""
    found = [layers[0].bias.grad, layers[-1].bias.grad]
    return [gradient for gradient in found if gradient is not None]


# ---- Behaviour cloning ----


def clone(dppo: DPPO, *, batch: int, precision: Precision, own_loop: bool) -> Sides:
    """A gradient step; DPPO's within its agent's epoch, or its model's loss on data in memory."""
    steps = max(2, 40 * 256 // batch)
    policy = make_policy()
    model = dppo.make_model(policy)
    generator = torch.Generator().manual_seed(1)
    horizon, cond_steps = policy.config.horizon, policy.config.n_obs_steps
    length = 64 + horizon - 1  # 64 windows
    episodes = batch * steps // 64
    states = torch.randn(episodes * length, OBS_DIM, generator=generator)
    actions = torch.rand(episodes * length, ACTION_DIM, generator=generator) * 2 - 1
    dataset = dppo.make_dataset(states, actions, [length] * episodes, horizon, cond_steps)
    items = [dataset[index] for index in range(len(dataset))]
    chunk = torch.stack([item.actions for item in items])  # (W, horizon, action_dim)
    seen = torch.stack([item.conditions["state"] for item in items])  # (W, cond_steps, obs_dim)

    def compare(bound: float) -> float:
        t = torch.randint(policy.config.denoising_steps, (batch,), generator=generator)
        torch.manual_seed(5)
        theirs = model.p_losses(chunk[:batch], {"state": seen[:batch]}, t)
        torch.manual_seed(5)
        noise = torch.randn_like(chunk[:batch]).flatten(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            ours = policy.denoising_loss(chunk[:batch].flatten(1), seen[:batch].flatten(1), t, noise)
        for loss in (ours, theirs):
            loss.backward()
        layers = [part.linear_1 for part in model.network.mlp_mean.moduleList]
        worst = difference([ours.detach()], [theirs.detach()], bound)
        gradients = first_and_last([policy.denoiser.first, *policy.denoiser.rest]), first_and_last(layers)
        return max(worst, difference(*gradients, bound))

    worst = compare(1e-4 if precision == "float32" else 5e-2)
    config = PretrainConfig(policy=policy.config, batch_size=batch, precision=precision)
    cloner = Cloner(policy, config, chunk.flatten(1), seen.flatten(1), torch.Generator().manual_seed(1))

    def ours() -> float:
        for _ in range(steps):
            cloner.train_step()
        cloner.take_mean_loss()
        return steps

    parity = f"loss and gradients to {worst:.0e}"
    if own_loop:
        with tempfile.TemporaryDirectory() as logs:
            agent = dppo.make_cloning_agent(policy, model, dataset, batch, Path(logs))

        def epoch() -> float:
            agent.run()
            return steps

        return Sides(ours, epoch, parity)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def theirs() -> float:
        for _ in range(steps):
            rows = torch.randint(len(chunk), (batch,))
            loss = model.loss(chunk[rows], {"state": seen[rows]})
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return steps

    return Sides(ours, theirs, parity)


# ---- Acting ----


def act(dppo: DPPO, *, batch: int) -> Sides:
    """A chunk of actions by two steps of DDIM, noise included."""
    policy = make_policy()
    model = dppo.make_sampler(policy).eval()
    cond = torch.randn(batch, policy.cond_dim, generator=torch.Generator().manual_seed(1))
    state = {"state": cond.reshape(batch, policy.config.n_obs_steps, OBS_DIM)}
    repeats = max(1, 100 // batch)

    def theirs() -> float:
        for _ in range(repeats):
            model(state)
        return repeats

    torch.manual_seed(3)
    expected = model(state).trajectories.flatten(1)
    torch.manual_seed(3)
    noise = torch.randn(batch, policy.config.horizon, ACTION_DIM).flatten(1)
    ours, worst = plan_by_ours(policy, cond, noise, expected, repeats)
    return Sides(ours, theirs, f"chunks to {worst:.0e}")


@torch.no_grad()
def plan_by_ours(
    policy: DiffusionPolicy, cond: Tensor, noise: Tensor, expected: Tensor, repeats: int
) -> tuple[Callable[[], float], float]:
    """Our planning of chunks, and how far they are from the expected ones (B, noise_dim) of that noise."""
    agent = make_base_agent(policy.requires_grad_(False).eval())
    inputs = PolicyInput(cond, torch.zeros(len(cond), dtype=torch.int64))
    worst = difference([agent.policy.sample(noise, cond)], [expected], 1e-4)
    generator = torch.Generator().manual_seed(2)

    @torch.no_grad()
    def ours() -> float:
        for _ in range(repeats):
            agent.plan(inputs, generator, explore=False)
        return repeats

    return ours, worst


def act_traced(dppo: DPPO) -> Sides:
    """A chunk of actions by a sampler that was traced once for batch 1 and frozen, noise included."""
    theirs = act(dppo, batch=1).theirs
    policy = make_policy().requires_grad_(False).eval()
    noise = torch.randn(1, policy.noise_dim)
    cond = torch.randn(1, policy.cond_dim, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        traced = torch.jit.trace_module(policy, {"sample": (noise, cond)}).eval()  # type: ignore[no-untyped-call]
        sample = torch.jit.freeze(traced, preserved_attrs=["sample"]).sample
        for _ in range(10):  # the first calls compile it
            sample(noise, cond)
    worst = difference([sample(noise, cond)], [policy.sample(noise, cond)], 1e-4)

    @torch.no_grad()
    def ours() -> float:
        for _ in range(100):
            sample(torch.randn(1, policy.noise_dim, generator=generator), cond)
        return 100

    return Sides(ours, theirs, f"chunks to {worst:.0e} of those not traced")


class PlainNetwork(nn.Module):
    """A policy's denoiser as it is usually written: one multilayer perceptron over everything."""

    features: Tensor

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        denoiser = policy.denoiser
        sizes = (denoiser.first.in_features, *policy.config.hidden_sizes, policy.noise_dim)
        self.mlp = make_mlp(sizes, policy.config.activation)
        for layer, theirs in zip(list(self.mlp)[::2], [denoiser.first, *denoiser.rest], strict=True):
            layer.load_state_dict(theirs.state_dict())
        self.register_buffer("features", denoiser.features.clone())

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Predicted noise (B, noise_dim) at diffusion step t ()."""
        predicted: Tensor = self.mlp(torch.cat([x, cond, self.features[t].expand(len(x), -1)], dim=1))
        return predicted


def act_by_diffusers(_: object, *, batch: int) -> Sides:
    """The same by diffusers' DDIM scheduler, around a plain network."""
    module: Any = importlib.import_module("diffusers.schedulers.scheduling_ddim")
    policy = make_policy()
    signal = policy.alphas_cumprod
    before = torch.cat([torch.ones(1), signal[:-1]])
    scheduler = module.DDIMScheduler(
        policy.config.denoising_steps, trained_betas=(1.0 - signal / before).numpy(), timestep_spacing="trailing"
    )
    scheduler.set_timesteps(len(policy.timesteps))
    network = PlainNetwork(policy).requires_grad_(False).eval()
    cond = torch.randn(batch, policy.cond_dim, generator=torch.Generator().manual_seed(1))
    repeats = max(1, 100 // batch)

    @torch.no_grad()
    def sample(noise: Tensor) -> Tensor:
        for t in scheduler.timesteps:
            noise = scheduler.step(network(noise, t, cond), t, noise, use_clipped_model_output=True).prev_sample
        return noise

    def theirs() -> float:
        for _ in range(repeats):
            sample(torch.randn(batch, policy.noise_dim))
        return repeats

    noise = torch.randn(batch, policy.noise_dim)
    ours, worst = plan_by_ours(policy, cond, noise, sample(noise), repeats)
    return Sides(ours, theirs, f"chunks to {worst:.0e}")


def export_policy(policy: DiffusionPolicy) -> tuple[Policy, float]:
    """The policy as a robot runs it, and how far its chunks are from those of torch at most."""
    agent = make_base_agent(policy.requires_grad_(False).eval())
    function = PolicyFunction(agent)
    with tempfile.TemporaryDirectory() as folder:
        worst = write_graphs([function], Path(folder))
        facts = {"graphs": hash_graphs(Path(folder)), **describe_agent(agent, function)}
        write_json(Path(folder) / "policy.json", {"schema_version": FORMAT, "modes": [], "critic": None, **facts})
        return Policy(folder), worst


def decide_by_export(robot: Policy) -> Callable[[], float]:
    """Decisions from an observation to actions in the environment's units."""
    obs = np.zeros(robot.facts["obs_dim"], np.float32)

    def ours() -> float:
        for _ in range(100):
            robot.reset()
            robot.act(obs)
        return 100

    return ours


def act_exported(dppo: DPPO) -> Sides:
    """A chunk of actions by an exported policy of that size, which normalises on both ends; DPPO's sampler does not."""
    sides = act(dppo, batch=1)
    robot, worst = export_policy(make_policy())
    return Sides(decide_by_export(robot), sides.theirs, f"{sides.parity}; the export to {worst:.0e}")


def decide(_: object, *, sizes: tuple[int, ...]) -> Sides:
    """A decision from an observation to actions: the export in onnxruntime, and the package at batch 1."""
    policy = make_policy(hidden_sizes=sizes)
    robot, worst = export_policy(policy)
    agent, generator = make_base_agent(policy), torch.Generator()
    window = ObsHistory(policy.config.n_obs_steps, policy.config.obs_stride)
    obs, code = torch.zeros(1, OBS_DIM), torch.zeros(1, dtype=torch.int64)
    window.start(obs)

    @torch.no_grad()
    def package() -> float:
        for _ in range(100):
            inputs = PolicyInput(policy.encode(window.extend(obs[None])), code)
            agent.act(agent.plan(inputs, generator, explore=False), 0, inputs, generator, explore=False)
        return 100

    return Sides(decide_by_export(robot), package, f"chunks to {worst:.0e}")


# ---- What no code can pass ----


def multiply(dppo: DPPO, *, batch: int, training: bool) -> Sides:
    """The matrix products of our step in float32 and nothing else, against all of DPPO's: the limit of the ratio."""
    sides = clone(dppo, batch=batch, precision="float32", own_loop=batch == 256) if training else act(dppo, batch=batch)
    denoiser = make_policy().denoiser
    weights = [layer.weight.detach() for layer in (denoiser.first, *denoiser.rest)]  # each (fan_out, fan_in)
    values = [torch.randn(batch, width) for width in (weights[0].shape[1], *(len(weight) for weight in weights))]
    repeats = max(2, 2560 // batch)

    def products() -> float:
        for _ in range(repeats if training else 2 * repeats):  # one pass, or one per denoising step
            for index, weight in enumerate(weights):
                values[index] @ weight.T
                if training:
                    values[index + 1].T @ values[index]
                if training and index:
                    values[index + 1] @ weight
        return repeats

    return Sides(products, sides.theirs, "nothing: products alone")


# ---- Proximal policy optimisation ----

UPDATES = 8
"""Minibatches of an update that is timed."""


def make_ppo(adapters: list[Adapter], policy: DiffusionPolicy, sizes: tuple[int, ...], minibatch: int) -> PPO:
    """Our PPO of these adapters, with a critic that sees the condition alone."""
    agent = Agent(policy, adapters, None)
    critic = Critic(policy.cond_dim, 0, 1, 1, sizes, sees_time=False)
    config = PPOConfig(epochs=1, minibatch_size=minibatch, learning_rate=STILL, value_learning_rate=STILL)
    return PPO(agent, critic, config)


@torch.no_grad()
def draw_batch(ppo: PPO, count: int) -> Batch:
    """Decisions of the agent under random observations, with random advantages and returns."""
    generator = torch.Generator().manual_seed(1)
    cond = torch.randn(count, ppo.agent.policy.cond_dim, generator=generator)
    inputs = PolicyInput(cond, torch.zeros(count, dtype=torch.int64))
    draws = ppo.agent.plan(inputs, generator, explore=True).draws
    return Batch(
        inputs=inputs,
        draws=draws,
        critic_inputs=cond,
        log_prob=ppo.agent.evaluate(draws, inputs)[0],
        advantage=standardise(torch.randn(count, generator=generator)),
        returns=torch.randn(count, 1, generator=generator),
    )


def differentiate(ppo: PPO, batch: Batch) -> tuple[Tensor, Tensor]:
    """Losses of policy and critic, whose gradients are the parameters' afterwards."""
    losses = ppo.compute_losses(batch, policy=True)
    (losses.policy + losses.value).backward()  # type: ignore[no-untyped-call]
    return losses.policy.detach(), losses.value.detach()


def copy_critic(ppo: PPO, layers: Sequence[nn.Linear]) -> list[nn.Linear]:
    """Gives our critic the weights of another; returns its layers."""
    own = [layer for layer in ppo.critic.network if isinstance(layer, nn.Linear)]
    for layer, other in zip(own, layers, strict=True):
        layer.load_state_dict(other.state_dict())
    return own


def finetune_denoiser(dppo: DPPO, *, minibatch: int, precision: Precision) -> Sides:
    """PPO's step on the denoiser and the critic: all denoising steps of so many decisions."""
    sizes = (256, 256)
    policy = make_policy()
    settings = DenoiserConfig(learning_rate=STILL, precision=precision)
    model = dppo.make_finetuned(
        policy,
        {"mlp_dims": list(sizes), "activation_type": "SiLU"},
        gamma_denoising=settings.denoising_discount,
        clip_ploss_coef=settings.clip_ratio,
        clip_ploss_coef_base=settings.clip_ratio,
        min_sampling_denoising_std=settings.noise_floor,
        min_logprob_denoising_std=settings.noise_floor,
    )
    adapter = FinetunedDenoiser(policy, settings)
    ppo = make_ppo([GaussianNoise(policy.noise_dim), adapter], policy, sizes, minibatch)
    critic_layers = [part.linear_1 for part in model.critic.Q1.moduleList]
    own_critic = copy_critic(ppo, critic_layers)
    batch = draw_batch(ppo, UPDATES * minibatch)
    update = dppo.lift_update()
    steps, horizon = len(policy.timesteps), policy.config.horizon

    def describe(part: Batch, pairs: int) -> dict[str, Any]:
        """The names that DPPO's loop reads, for updates on so many pairs of a decision and a denoising step."""
        count = len(part.advantage)
        chains = part.draws["1.samples"].reshape(count, steps + 1, horizon, ACTION_DIM)
        state = part.inputs.cond.reshape(count, policy.config.n_obs_steps, OBS_DIM)
        with torch.no_grad():
            log_probs = model.get_logprobs({"state": state}, chains).reshape(count, steps, horizon, ACTION_DIM)
        agent = {
            "model": model,
            "device": "cpu",
            "update_epochs": 1,
            "batch_size": pairs,
            "n_steps": count,
            "n_envs": 1,
            "use_bc_loss": False,
            "reward_horizon": policy.config.n_action_steps,
            "ent_coef": 0.0,
            "vf_coef": 0.5,
            "bc_loss_coeff": 0.0,
            "actor_optimizer": torch.optim.AdamW(model.actor_ft.parameters(), lr=STILL, weight_decay=0.0),
            "critic_optimizer": torch.optim.AdamW(model.critic.parameters(), lr=STILL, weight_decay=0.0),
            "learn_eta": False,
            "itr": 0,
            "n_critic_warmup_itr": 0,
            "max_grad_norm": None,
            "target_kl": 1.0,
        }
        return {
            "torch": torch,
            "self": argparse.Namespace(**agent),
            "log": argparse.Namespace(info=lambda text: None),
            "total_steps": count * steps,
            "obs_k": {"state": state},
            "chains_k": chains,
            "returns_k": part.returns.flatten(),
            "values_k": torch.zeros(count),
            "advantages_k": part.advantage,
            "logprobs_k": log_probs,
            "clipfracs": [],
        }

    # they bound the log-probability of each dimension by -5 and 2, which we do not: compare where nothing is bounded
    bounded = describe(batch, UPDATES * minibatch)["logprobs_k"]
    free = ((bounded > -5.0) & (bounded < 2.0)).flatten(1).all(dim=1).nonzero().squeeze(1)
    part = batch.rows(free)
    names = describe(part, len(free) * steps)
    model.norm_adv = False
    update(names)
    model.norm_adv = True
    losses = differentiate(ppo, part)
    # the noisiest step divides the predicted noise by its signal, .03, and with it what bfloat16 rounds
    bound = 1e-3 if precision == "float32" else 0.3
    denoiser = adapter.policy.denoiser
    layers = [part.linear_1 for part in model.actor_ft.mlp_mean.moduleList]
    # ours sums over denoising steps, theirs averages; their value loss weighs a half
    own = [gradient / steps for gradient in first_and_last([denoiser.first, *denoiser.rest])]
    own += [0.5 * gradient for gradient in first_and_last(own_critic)]
    worst = max(
        difference([losses[1]], [names["v_loss"].detach()], 1e-4),
        difference(own, first_and_last(layers) + first_and_last(critic_layers), bound),
    )
    timed, generator = describe(batch, minibatch * steps), torch.Generator().manual_seed(2)

    def ours() -> float:
        ppo.update(batch, generator)
        return UPDATES

    def theirs() -> float:
        timed["clipfracs"].clear()
        update(timed)
        return UPDATES

    return Sides(ours, theirs, f"losses and gradients to {worst:.0e}")


def steer(cleanrl: CleanRL, *, sizes: tuple[int, ...], minibatch: int) -> Sides:
    """PPO's step on a steering policy and a critic of these widths."""
    policy = make_policy(hidden_sizes=(64,))
    basis = NoiseBasis(policy.config.horizon, ACTION_DIM)
    steering = SteeringPolicy(policy.cond_dim, 1, basis, SteeringConfig(hidden_sizes=sizes))
    theirs_agent = cleanrl.make_agent(policy.cond_dim, basis.dim, sizes)
    own_layers = [layer for layer in steering.network if isinstance(layer, nn.Linear)]
    actor_layers = list(theirs_agent.actor_mean)[::2]
    with torch.no_grad():  # ours has a spread that depends on the observation, theirs one for all: start alike
        own_layers[-1].weight[basis.dim :] = 0.0
        own_layers[-1].bias[basis.dim :] = 0.0
        for own, other in zip(own_layers, actor_layers, strict=True):
            other.weight.copy_(own.weight[: other.out_features])
            other.bias.copy_(own.bias[: other.out_features])
    adapters = [SteeringAdapter(steering, deterministic=True), FrozenDenoiser(policy)]
    ppo = make_ppo(adapters, policy, sizes, minibatch)
    own_critic = copy_critic(ppo, list(theirs_agent.critic)[::2])
    count = UPDATES * minibatch
    batch = draw_batch(ppo, count)
    update = cleanrl.lift_update()

    def describe(**settings: Any) -> dict[str, Any]:
        """The names that cleanrl's loop reads."""
        with torch.no_grad():
            _, log_prob, _, value = theirs_agent.get_action_and_value(batch.inputs.cond, batch.draws["0.u"])
        return {
            "np": np,
            "torch": torch,
            "nn": nn,
            "args": cleanrl.make_args(update_epochs=1, batch_size=count, **settings),
            "b_inds": np.arange(count),
            "b_obs": batch.inputs.cond,
            "b_actions": batch.draws["0.u"],
            "b_logprobs": log_prob,
            "b_advantages": batch.advantage,
            "b_returns": batch.returns.flatten(),
            "b_values": value.flatten(),
            "agent": theirs_agent,
            "optimizer": torch.optim.Adam(theirs_agent.parameters(), lr=STILL, eps=1e-5),
            "clipfracs": [],
        }

    names = describe(minibatch_size=count, norm_adv=False, clip_vloss=False, vf_coef=1.0, max_grad_norm=1e9)
    update(names)
    losses = differentiate(ppo, batch)
    found = first_and_last(own_critic) + first_and_last(own_layers)
    expected = first_and_last(list(theirs_agent.critic)[::2]) + first_and_last(actor_layers)
    means = [gradient[: len(other)] for gradient, other in zip(found, expected, strict=True)]  # without our spreads
    worst = max(difference([losses[1]], [names["v_loss"].detach()], 1e-4), difference(means, expected, 1e-2))
    timed, generator = describe(minibatch_size=minibatch), torch.Generator().manual_seed(2)

    def ours() -> float:
        ppo.update(batch, generator)
        return UPDATES

    def theirs() -> float:
        timed["clipfracs"].clear()
        update(timed)
        return UPDATES

    return Sides(ours, theirs, f"losses and gradients to {worst:.0e}")


# ---- Stepping simulators ----

SCENES, CHUNK = 16, 4


def step_maniskill(_: object, *, task: str) -> Sides:
    """Control steps of one process, observation and success test included."""
    if task == "PushT":
        skip_recolouring()
        stock = backend.make_maniskill_env("PushT-v1", control_mode="pd_ee_delta_pose")
    else:
        stock = backend.make_maniskill_env(importlib.import_module(f"{get_entry(task).package}.maniskill").ENV_ID)
    env = make_env(task, {"horizon": 10_000}, SCENES)
    generator, drawn = np.random.default_rng(0), env.spec.action_dim

    def draw() -> Any:
        action = np.zeros(stock.action_space.shape, np.float32)
        action[:drawn] = generator.uniform(-0.4, 0.4, drawn)
        return action

    env.reset(0)
    stock.reset(seed=0)
    scene: Any = env.simulation.scenes[0]  # type: ignore[attr-defined]
    # a command of PushT is two components of the arm's, the others hold it: there, compare all of them
    move = scene.arm.step if task == "PushT" else scene.move
    robots = [of.agent.robot._objs[0] for of in (scene.env, stock)]
    gaps = []
    for _ in range(10):
        robots[1].set_qpos(robots[0].qpos)
        robots[1].set_qvel(robots[0].qvel)
        action = draw()
        move(action)
        stock.step(action)
        ours, theirs = ([torch.from_numpy(robot.qpos.copy())] for robot in robots)
        gaps.append(difference(ours, theirs, 1e-3))
    stock.reset(seed=0)
    env.reset(0)

    def step_stock() -> float:
        for _ in range(64):
            stock.step(draw())
        return 64

    parity = f"joint angles to {max(gaps):.0e}"
    return Sides(partial(step_chunks, env, 16, generator), step_stock, parity)


def step_chunks(env: TaskEnv, steps: int, generator: np.random.Generator) -> float:
    """Steps all environments in chunks of random actions; returns how many steps were made."""
    made = 0
    for _ in range(steps // CHUNK):
        actions = generator.uniform(-0.4, 0.4, (env.num_envs, CHUNK, env.spec.action_dim))
        made += int(env.step_chunk(torch.from_numpy(actions).float()).steps.sum())
    if made < steps * env.num_envs // 2:  # most have ended
        env.reset(0)
    return made


def step_kitchen(_: object) -> Sides:
    """Control steps of the kitchen, against gymnasium's vector of FrankaKitchen in one process."""
    gymnasium: Any = importlib.import_module("gymnasium")
    gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
    kitchen: Any = importlib.import_module("bmd_pipeline.tasks.kitchen.env")
    settings = {"robot_noise_ratio": 0.0, "object_noise_ratio": 0.0}
    single = gymnasium.make("FrankaKitchen-v1", **settings).unwrapped
    single.reset(seed=0)
    scene, generator = kitchen.KitchenScene(), np.random.default_rng(0)
    for _ in range(5):
        action = generator.uniform(-0.4, 0.4, 9)
        single.step(action)
        scene.move(action.tolist())
        assert np.array_equal(scene.data.qpos, single.data.qpos)
    stock = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("FrankaKitchen-v1", **settings)] * 4)
    stock.reset(seed=0)
    env = make_env("Kitchen", {"horizon": 10_000}, 4)
    env.reset(0)

    def theirs() -> float:
        for _ in range(CHUNK):
            stock.step(generator.uniform(-0.4, 0.4, (4, 9)))
        return 4 * CHUNK

    return Sides(partial(step_chunks, env, CHUNK, generator), theirs, "joints, bit for bit")


# ---- All rows ----


def _list_work() -> dict[str, Work]:
    loop, loss = "its agent's loop", "its network and loss, data in memory"
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    rows = {}
    for batch, their, own_loop, wanted in ((256, loop, True, (1.6, 2.2)), (4096, loss, False, (1.1, 1.8))):
        for precision, aim in zip(precisions, wanted, strict=True):
            make = partial(clone, batch=batch, precision=precision, own_loop=own_loop)
            title = f"cloning step, 512×3, batch {batch}, {precision}"
            rows[f"cloning/{batch}/{precision}"] = Work(title, "step", "dppo", their, aim, make)
    for batch, aim in ((1, 4.0), (64, 1.8), (1024, 1.1)):
        title = f"acting, 512×3, DDIM-2, batch {batch}"
        rows[f"acting/{batch}/dppo"] = Work(title, "batch", "dppo", "its sampler", aim, partial(act, batch=batch))
    make = partial(act_by_diffusers, batch=1)
    title = "acting, 512×3, DDIM-2, batch 1"
    rows["acting/1/diffusers"] = Work(title, "batch", "diffusers", "its DDIM scheduler, a plain network", 4.0, make)
    rows["acting/1/traced"] = Work(f"{title}, traced", "batch", "dppo", "its sampler", 4.0, act_traced)
    their = "its sampler, without normalisation"
    rows["acting/1/exported"] = Work(f"{title}, exported", "batch", "dppo", their, 4.0, act_exported)
    for kind, batches, their in (("cloning", (256, 4096), "its step"), ("acting", (64, 1024), "its sampler")):
        for batch in batches:
            make = partial(multiply, batch=batch, training=kind == "cloning")
            title = f"limit of {kind} in float32, batch {batch}: the products alone"
            rows[f"limit/{kind}/{batch}"] = Work(title, "step", "dppo", their, None, make)
    for precision in precisions:
        make = partial(finetune_denoiser, minibatch=512, precision=precision)
        title = f"PPO step of the denoiser, 512×3, 512 decisions, {precision}"
        rows[f"ppo/denoiser/{precision}"] = Work(title, "step", "dppo", loop, 2.5, make)
    for sizes in ((256, 256, 256), (64, 64)):
        for minibatch in (128, 512):
            name = f"{sizes[0]}×{len(sizes)}"
            title = f"PPO step of the steering policy, {name}, minibatch {minibatch}"
            make = partial(steer, sizes=sizes, minibatch=minibatch)
            key = f"ppo/steering/{name.replace('×', 'x')}/{minibatch}"
            rows[key] = Work(title, "step", "cleanrl", "its loop, with our nonlinearity", 1.2, make)
    for width in (128, 256, 512):
        make = partial(decide, sizes=(width,) * 3)
        title = f"a decision of run_policy.py, {width}×3, DDIM-2"
        rows[f"export/{width}"] = Work(title, "decision", "onnxruntime", "and this package at batch 1", None, make)
    for task in ("PushT", "Avoid", "Lift"):
        make = partial(step_maniskill, task=task)
        title = f"stepping {task}, {SCENES} scenes"
        rows[f"stepping/{task}"] = Work(title, "control step", "mani_skill", "its env.step", 7.0, make)
    rows["stepping/Kitchen"] = Work(
        "stepping Kitchen, 4 scenes", "control step", "gymnasium", "its vector environment", None, step_kitchen
    )
    return rows


WORK = _list_work()
"""All rows, by name."""
