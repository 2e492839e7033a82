"""Everything that a trainer's next iteration depends on, as tensors and JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from bmd_pipeline.io.progress import add_prefix, pack_optimizer, take_prefix, unpack_optimizer
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.rl.tuned import load_trained, trained_state


def pack_trainer(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copies a trainer's state: agent, critic with its scale, optimizers with their learning rates, λ controller,
    success of the codes.

    Generators and curriculum are not part of it: both are made anew from the number of the iteration.
    """
    tensors = add_prefix("agent", trained_state(trainer.agent)) | add_prefix("critic", trainer.critic.state_dict())
    values: dict[str, Any] = {}
    for name, optimizer in _optimizers(trainer).items():
        moments, values[name] = pack_optimizer(optimizer)
        tensors |= add_prefix(name, moments)
    if trainer.controller is not None:
        values["controller"] = trainer.controller.state()
    if trainer.feed is not None:
        tensors["feed"] = trainer.feed.success
    values["temperature"] = trainer.ppo.temperature
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, values


def unpack_trainer(trainer: Trainer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Puts back what `pack_trainer` took from a trainer of the same settings."""
    load_trained(trainer.agent, take_prefix("agent", tensors))
    trainer.critic.load_state_dict(take_prefix("critic", tensors))
    for name, optimizer in _optimizers(trainer).items():
        unpack_optimizer(optimizer, take_prefix(name, tensors), values[name])
    if trainer.controller is not None:
        trainer.controller.load_state(values["controller"])
    if trainer.feed is not None:
        trainer.feed.success.copy_(tensors["feed"])
    if trainer.ppo.target_entropy is not None:
        trainer.ppo.set_temperature(values["temperature"])


def scale_learning_rates(trainer: Trainer, factor: float) -> None:
    """Multiplies all learning rates, and what they may rise to; they stay so, also over a resume."""
    for optimizer in _optimizers(trainer).values():
        for group in optimizer.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] *= factor


def trained_parameters(trainer: Trainer) -> list[Tensor]:
    """Every parameter that some optimizer steps."""
    groups = [group for optimizer in _optimizers(trainer).values() for group in optimizer.param_groups]
    return [parameter for group in groups for parameter in group["params"]]


def _optimizers(trainer: Trainer) -> dict[str, Optimizer]:
    found: dict[str, Optimizer] = {"policy_optimizer": trainer.ppo.optimizer}
    if trainer.inference_optimizer is not None:
        found["inference_optimizer"] = trainer.inference_optimizer
    return found
