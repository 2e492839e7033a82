"""Other projects' own code, from their checkouts as they are: DPPO's networks, losses and loops, cleanrl's PPO."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.networks import TIME_FEATURES, make_mlp

CHECKOUTS = {"dppo": "agent/pretrain/train_agent.py", "cleanrl": "cleanrl/ppo_continuous_action.py"}
"""A file that every checkout has, by the name of its folder."""
SOURCES = {"dppo": "https://github.com/irom-princeton/dppo", "cleanrl": "https://github.com/vwxyzjn/cleanrl"}


def find_checkout(peers: Path | None, name: str) -> Path | None:
    """The checkout of that name in the folder of checkouts; None where it is missing."""
    return peers / name if peers is not None and (peers / name / CHECKOUTS[name]).is_file() else None


def read_commit(checkout: Path) -> str:
    """The first seven digits of a checkout's commit; "unknown" for a folder without git."""
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def lift_loop(path: Path, counter: str) -> Callable[[dict[str, Any]], None]:
    """The only `for` loop over a variable of that name in a file, as a function of the names that it reads and sets.

    It makes an update callable that its project wrote in the middle of a script.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (loop,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id == counter
    )
    code = compile(ast.Module([loop], []), str(path), "exec")
    return lambda names: exec(code, names)


def _stub(*names: str, parts: Sequence[str] = ()) -> None:
    """Lets `import name` succeed where a package is not installed, and that of its parts: for what the measured code
    imports and does not use."""
    absent = [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]
    absent += [part for part in parts if part.partition(".")[0] in absent]
    sys.modules.update({name: mock.MagicMock() for name in absent})


class Settings(SimpleNamespace):
    """Settings with the methods of hydra's that are called."""

    def get(self, name: str, default: Any = None) -> Any:
        """The setting of that name."""
        return getattr(self, name, default)

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


# ---- DPPO ----


class DPPO:
    """DPPO's modules. Its networks get SiLU as a nonlinearity, which its table of them lacks and ours is."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        if str(checkout) not in sys.path:
            sys.path.insert(0, str(checkout))
        _stub("hydra", "omegaconf", "wandb", "einops", parts=("einops.layers", "einops.layers.torch"))
        importlib.import_module("model.common.mlp").activation_dict["SiLU"] = nn.SiLU()
        self._mlp_diffusion: Any = importlib.import_module("model.diffusion.mlp_diffusion")

    def make_network(self, policy: DiffusionPolicy) -> Any:
        """A DiffusionMLP of the policy's sizes; the policy is given its weights and its features of time."""
        config = policy.config
        network = self._mlp_diffusion.DiffusionMLP(
            action_dim=policy.action_dim,
            horizon_steps=config.horizon,
            cond_dim=policy.cond_dim,
            time_dim=TIME_FEATURES,
            mlp_dims=list(config.hidden_sizes),
            activation_type="SiLU",
        )
        self.copy_to_policy(network, policy)
        return network

    @torch.no_grad()
    def copy_to_policy(self, network: Any, policy: DiffusionPolicy) -> None:
        """Gives a policy the weights of such a network, and what it makes of the time."""
        for layer, first, theirs in self._pair_layers(network, policy):
            layer.bias.copy_(theirs.bias)
            layer.weight.copy_(theirs.weight[:, self._columns(policy)] if first else theirs.weight)
        steps = torch.arange(policy.config.denoising_steps)[:, None]
        policy.denoiser.features.copy_(network.time_embedding(steps).squeeze(1))

    @torch.no_grad()
    def copy_to_network(self, policy: DiffusionPolicy, network: Any) -> None:
        """Gives a network the weights of a policy that has its features of time."""
        for layer, first, theirs in self._pair_layers(network, policy):
            theirs.bias.copy_(layer.bias)
            theirs.weight[:, self._columns(policy) if first else slice(None)] = layer.weight

    def _pair_layers(self, network: Any, policy: DiffusionPolicy) -> Iterator[tuple[nn.Linear, bool, nn.Linear]]:
        """Each layer of ours, whether it is the first, and theirs."""
        ours = [policy.denoiser.first, *policy.denoiser.rest]
        for index, (layer, part) in enumerate(zip(ours, network.mlp_mean.moduleList, strict=True)):
            yield layer, index == 0, part.linear_1

    def _columns(self, policy: DiffusionPolicy) -> Tensor:
        """Inputs of their first layer, sample, time, condition, in the order of ours, sample, condition, time."""
        sizes = [policy.noise_dim, TIME_FEATURES, policy.cond_dim]
        x, time, cond = torch.split(torch.arange(sum(sizes)), sizes)
        return torch.cat([x, cond, time])

    def make_model(self, policy: DiffusionPolicy) -> Any:
        """A DiffusionModel, which it clones demonstrations into, around a network of equal weights."""
        module: Any = importlib.import_module("model.diffusion.diffusion")
        model = module.DiffusionModel(
            network=self.make_network(policy), device="cpu", **self._describe_sampling(policy)
        )
        return self._set_schedule(model, policy)

    def make_sampler(self, policy: DiffusionPolicy) -> Any:
        """A DiffusionEval, which it evaluates pre-trained policies with, around a network of equal weights."""
        module: Any = importlib.import_module("model.diffusion.diffusion_eval")
        network = self.make_network(policy)
        checkpoint = {"model": {f"network.{name}": weight for name, weight in network.state_dict().items()}}
        with mock.patch.object(module.torch, "load", return_value=checkpoint):
            model = module.DiffusionEval(
                network=network, network_path="", ft_denoising_steps=0, device="cpu", **self._describe_sampling(policy)
            )
        return self._set_schedule(model, policy)

    def make_finetuned(self, policy: DiffusionPolicy, critic_shape: Mapping[str, Any], **settings: Any) -> Any:
        """A PPODiffusion around a network of equal weights; `settings` are those of its loss and its exploration."""
        ppo: Any = importlib.import_module("model.diffusion.diffusion_ppo")
        eta: Any = importlib.import_module("model.diffusion.eta")
        critic: Any = importlib.import_module("model.common.critic")
        model = ppo.PPODiffusion(
            actor=self.make_network(policy),
            critic=critic.CriticObs(policy.cond_dim, **critic_shape),
            ft_denoising_steps=len(policy.timesteps),
            eta=eta.EtaFixed(base_eta=1.0, min_eta=0.0, max_eta=1.0),
            device="cpu",
            **self._describe_sampling(policy),
            **settings,
        )
        return self._set_schedule(model, policy)

    def make_cloning_agent(self, policy: DiffusionPolicy, model: Any, dataset: Any, batch_size: int, logs: Path) -> Any:
        """Its agent of behaviour cloning, by its gym tasks' settings; `run` is one epoch, without a checkpoint."""
        module: Any = importlib.import_module("agent.pretrain.train_agent")
        trainer: Any = importlib.import_module("agent.pretrain.train_diffusion_agent")
        schedule = Settings(first_cycle_steps=200, warmup_steps=1, min_lr=1e-4)
        config = Settings(
            wandb=None,
            model=model,
            ema=Settings(decay=0.995),
            train=Settings(
                n_epochs=1,
                batch_size=batch_size,
                epoch_start_ema=0,  # as in all but its first epochs
                learning_rate=1e-3,
                weight_decay=1e-6,
                lr_scheduler=schedule,
                save_model_freq=100,
            ),
            logdir=str(logs),
            train_dataset=dataset,
        )
        with mock.patch.object(module.hydra.utils, "instantiate", lambda built: built):
            agent = trainer.TrainDiffusionAgent(config)
        agent.save_model = lambda: None
        return agent

    def make_finetuning_agent(
        self, policy: DiffusionPolicy, model: Any, venv: Any, train: Mapping[str, Any], seed: int, logs: Path
    ) -> Any:
        """Its agent of fine-tuning, on vectorised environments that begin a new episode where one ends.

        `train` are the settings of that name in its files. It saves no checkpoints: `save_model` is called after each
        iteration, for others to replace.
        """
        module: Any = importlib.import_module("agent.finetune.train_agent")
        trainer: Any = importlib.import_module("agent.finetune.train_ppo_diffusion_agent")
        own = {name: Settings(**value) if isinstance(value, Mapping) else value for name, value in train.items()}
        own |= {"save_model_freq": 1, "render": Settings(freq=1, num=0)}
        config = Settings(
            device="cpu",
            seed=seed,
            wandb=None,
            env=Settings(
                name="",
                n_envs=venv.num_envs,
                max_episode_steps=venv.horizon,
                best_reward_threshold_for_success=1,
                reset_at_iteration=True,
            ),
            cond_steps=policy.config.n_obs_steps,
            obs_dim=policy.obs_dim,
            action_dim=policy.action_dim,
            act_steps=policy.config.n_action_steps,
            horizon_steps=policy.config.horizon,
            model=model,
            train=Settings(**own),
            logdir=str(logs),
        )
        built = mock.patch.object(module.hydra.utils, "instantiate", lambda built: built)
        with built, mock.patch.object(module, "make_async", return_value=venv):
            return trainer.TrainPPODiffusionAgent(config)

    def make_dataset(self, states: Tensor, actions: Tensor, lengths: list[int], horizon: int, cond_steps: int) -> Any:
        """Its dataset of episodes of these lengths, one after the other in states and actions (steps, ...)."""
        module: Any = importlib.import_module("agent.dataset.sequence")
        arrays = {"states": states.numpy(), "actions": actions.numpy(), "traj_lengths": np.array(lengths)}
        with mock.patch.object(module.np, "load", return_value=arrays):
            # a torch.device, or it would start workers and copy to a GPU
            return module.StitchedSequenceDataset(".npz", horizon, cond_steps, device=torch.device("cpu"))

    def lift_update(self) -> Callable[[dict[str, Any]], None]:
        """The epochs of PPO of its fine-tuning agent."""
        return lift_loop(self.checkout / "agent/finetune/train_ppo_diffusion_agent.py", "update_epoch")

    def _describe_sampling(self, policy: DiffusionPolicy) -> dict[str, Any]:
        return {
            "horizon_steps": policy.config.horizon,
            "obs_dim": policy.obs_dim,
            "action_dim": policy.action_dim,
            "denoised_clip_value": 1.0,
            "denoising_steps": policy.config.denoising_steps,
            "predict_epsilon": policy.config.prediction == "epsilon",
            "use_ddim": policy.config.sampler == "ddim",
            "ddim_steps": len(policy.timesteps),
        }

    def _set_schedule(self, model: Any, policy: DiffusionPolicy) -> Any:
        """Gives a model the diffusion steps and the noise of our sampler, and our loss the noise of its own.

        Its sampler without DDIM has its own noise, which is that of `cosine_capped`.
        """
        visited = torch.tensor(policy.timesteps)
        signal = policy.alphas_cumprod[visited]
        if model.use_ddim:
            model.ddim_t, model.ddim_alphas = visited, signal
            model.ddim_alphas_prev = torch.cat([signal[1:], torch.ones(1)])
            model.ddim_sqrt_one_minus_alphas = (1.0 - signal).sqrt()
        policy.alphas_cumprod.copy_(model.alphas_cumprod)
        return model


# ---- cleanrl ----


class CleanRL:
    """cleanrl's PPO for continuous actions."""

    def __init__(self, checkout: Path) -> None:
        self._path = checkout / CHECKOUTS["cleanrl"]
        _stub("tyro", "gymnasium")
        spec = importlib.util.spec_from_file_location("cleanrl_ppo", self._path)
        assert spec is not None
        assert spec.loader is not None
        self._module: Any = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = self._module
        spec.loader.exec_module(self._module)

    def make_agent(self, obs_dim: int, action_dim: int, hidden_sizes: tuple[int, ...]) -> Any:
        """Its agent, with layers of other widths and our nonlinearity."""
        spaces = SimpleNamespace(
            single_observation_space=SimpleNamespace(shape=(obs_dim,)),
            single_action_space=SimpleNamespace(shape=(action_dim,)),
        )
        agent = self._module.Agent(spaces)
        agent.actor_mean = make_mlp((obs_dim, *hidden_sizes, action_dim), "silu")
        agent.critic = make_mlp((obs_dim, *hidden_sizes, 1), "silu")
        return agent

    def make_args(self, **settings: Any) -> Any:
        """Its settings, with these changed."""
        return self._module.Args(**settings)

    def lift_update(self) -> Callable[[dict[str, Any]], None]:
        """Its epochs of PPO."""
        return lift_loop(self._path, "epoch")
