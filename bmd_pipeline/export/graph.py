"""A policy as one function without a package around it: as a graph of ONNX, and as a program of torch.export."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bmd_pipeline.environments.base import to_bounds
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import write_bytes
from bmd_pipeline.policies.diffusion import stack_frames
from bmd_pipeline.rl.adapters import PolicyInput
from bmd_pipeline.rl.agent import Agent

# ---- The function: noise, observations and a code to a chunk of actions ----


class GivenNoise(TorchFunctionMode):
    """Inside the block, `torch.randn` returns what `take` makes of the shape, in the place of draws.

    So an agent's own code, which draws from a generator, becomes a function of its noise.
    """

    def __init__(self, take: Callable[[Sequence[int]], Tensor]) -> None:
        super().__init__()
        self._take = take

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.randn:
            return func(*args, **(kwargs or {}))
        return self._take(args[0] if len(args) == 1 else args)


class PolicyFunction(nn.Module):
    """An agent as it is deployed: its plan for one observation history, as a function of all the noise that it draws.

    The agent must not be one that corrects actions one by one: what it executes is more than its plan.
    """

    low: Tensor  # (action_dim,)
    high: Tensor

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        assert agent.residual is None
        self.agent = agent
        self.register_buffer("low", torch.tensor(agent.policy.action_low))
        self.register_buffer("high", torch.tensor(agent.policy.action_high))
        drawn: list[int] = []

        def count(shape: Sequence[int]) -> Tensor:
            drawn.append(shape[1])
            return torch.zeros(tuple(shape))

        policy = agent.policy
        with GivenNoise(count):
            self._plan(torch.zeros(1, policy.config.n_obs_steps, policy.obs_dim), torch.zeros(1, dtype=torch.int64))
        self.noise_dim = sum(drawn)
        """Standard normal numbers that a decision draws: the starting noise, then that of each denoising step."""

    def forward(self, obs: Tensor, code: Tensor, noise: Tensor) -> Tensor:
        """The chunk of actions (1, horizon, action_dim), in the environment's units.

        Args:
            obs: (1, n_obs_steps, obs_dim) observations in the environment's units, the latest first, `obs_stride`
                control steps apart.
            code: (1,) int64 mode code; a policy without codes ignores it.
            noise: (1, noise_dim) standard normal numbers.
        """
        taken = 0

        def take(shape: Sequence[int]) -> Tensor:
            nonlocal taken
            taken += shape[1]
            return noise[:, taken - shape[1] : taken]

        with GivenNoise(take):
            return self._plan(obs, code)

    def _plan(self, obs: Tensor, code: Tensor) -> Tensor:
        policy = self.agent.policy
        inputs = PolicyInput(policy.encode(stack_frames(obs.unbind(dim=1))), code)
        chunk = self.agent.plan(inputs, torch.Generator(), explore=False).chunk
        return to_bounds(policy.to_action(chunk), self.low, self.high)


# ---- The same function on disk ----

ONNX_FILE = "policy.onnx"
PROGRAM_FILE = "policy.pt2"
INPUTS = ("obs", "code", "noise")
TOLERANCE = 1e-5
"""Largest difference of an action between the policy and what was written, as a share of half its range."""
CHECKS = 64
"""Random inputs on which they are compared; codes take turns."""


def write_graphs(function: PolicyFunction, folder: Path) -> float:
    """Writes policy.onnx and policy.pt2, and returns by how much they differ from the policy at most; see `TOLERANCE`.

    Raises:
        ArtifactError: one of them differs by more than that, or can't be written.
    """
    import onnxruntime

    function = function.requires_grad_(False).eval()
    cases = list(_draw_inputs(function))
    with _quiet():
        program = torch.export.export(function, cases[0], strict=False)
        packed = io.BytesIO()  # torch's own way into a file ends the process where the disk is full
        torch.export.save(program, packed)
        write_bytes(folder / PROGRAM_FILE, packed.getvalue())
        graph = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=INPUTS, output_names=["actions"], external_data=False
        )
        assert graph is not None
        graph.save(folder / ONNX_FILE, external_data=False)
        restored = torch.export.load(folder / PROGRAM_FILE).module()
    session = onnxruntime.InferenceSession(folder / ONNX_FILE, providers=["CPUExecutionProvider"])
    half_range = (function.high - function.low) / 2
    worst = {ONNX_FILE: 0.0, PROGRAM_FILE: 0.0}
    for case in cases:
        expected = function(*case)
        named = {name: value.numpy() for name, value in zip(INPUTS, case, strict=True)}
        found = {ONNX_FILE: torch.from_numpy(session.run(None, named)[0]), PROGRAM_FILE: restored(*case)}
        for name, actions in found.items():
            worst[name] = max(worst[name], float(((actions - expected) / half_range).abs().max()))
    for name, difference in worst.items():
        if not difference <= TOLERANCE:
            raise ArtifactError(
                f"{name} would differ from the policy by {difference:.2g} of half an action's range, more than "
                f"{TOLERANCE:g}: nothing was written; try other versions of torch, onnx and onnxruntime"
            )
    return max(worst.values())


def _draw_inputs(function: PolicyFunction) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Inputs of the function: observations twice as spread out as the demonstrations', codes, and noise."""
    agent, generator = function.agent, torch.Generator().manual_seed(0)
    policy, normaliser = agent.policy, agent.policy.obs_normaliser
    mean, std = (of[: policy.obs_dim] for of in (normaliser.mean, normaliser.std))  # of the latest observation
    for index in range(max(CHECKS, agent.num_codes)):
        spread = torch.randn(1, policy.config.n_obs_steps, policy.obs_dim, generator=generator)
        noise = torch.randn(1, function.noise_dim, generator=generator)
        yield mean + 2.0 * std * spread, torch.tensor([index % agent.num_codes]), noise


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what exporters say of their own work from people."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
