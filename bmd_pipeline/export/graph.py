"""A policy as functions without a package around them: as graphs of ONNX, and as programs of torch.export."""

from __future__ import annotations

import io
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bmd_pipeline.environments.base import from_bounds, to_bounds
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import write_bytes
from bmd_pipeline.policies.diffusion import stack_frames
from bmd_pipeline.rl.adapters import PolicyInput
from bmd_pipeline.rl.agent import Agent

# ---- What is written: functions of an agent ----


class Function(nn.Module, ABC):
    """What an agent computes of one observation history, as a function of tensors alone."""

    name: ClassVar[str]  # of its files
    inputs: ClassVar[tuple[str, ...]]  # names of what `forward` takes, all of batch 1
    output: ClassVar[str]
    low: Tensor  # bounds of the output
    high: Tensor

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent
        self.policy = agent.policy
        self.register_buffer("low", torch.tensor(self.policy.action_low))
        self.register_buffer("high", torch.tensor(self.policy.action_high))

    @abstractmethod
    def draw_inputs(self, index: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The `index`-th of the random inputs that it is tried on."""

    def encode(self, obs: Tensor) -> Tensor:
        """What the networks see (1, cond_dim) of observations (1, n_obs_steps, obs_dim) in the environment's units.

        The latest comes first; they are `obs_stride` control steps apart.
        """
        return self.policy.encode(stack_frames(obs.unbind(dim=1)))

    def draw_obs(self, generator: torch.Generator) -> Tensor:
        """Observations (1, n_obs_steps, obs_dim), twice as spread out as the demonstrations'."""
        policy, normaliser = self.policy, self.policy.obs_normaliser
        mean, std = (of[: policy.obs_dim] for of in (normaliser.mean, normaliser.std))  # of the latest observation
        return mean + 2.0 * std * torch.randn(1, policy.config.n_obs_steps, policy.obs_dim, generator=generator)


# ---- The policy: noise, observations and a code to a chunk of actions ----


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


class PolicyFunction(Function):
    """An agent as it is deployed: its plan for one observation history, as a function of all the noise that it draws.

    The plan of an agent that corrects actions is what it corrects, which may lie beyond their bounds; see
    `ResidualFunction`.
    """

    name, inputs, output = "policy", ("obs", "code", "noise"), "actions"

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        drawn: list[int] = []

        def count(shape: Sequence[int]) -> Tensor:
            drawn.append(shape[1])
            return torch.zeros(tuple(shape))

        with GivenNoise(count):
            self._plan(torch.zeros(1, self.policy.cond_dim), torch.zeros(1, dtype=torch.int64))
        self.noise_dim = sum(drawn)
        """Standard normal numbers that a decision draws: the starting noise, then that of each denoising step."""

    def forward(self, obs: Tensor, code: Tensor, noise: Tensor) -> Tensor:
        """The chunk of actions (1, horizon, action_dim), in the environment's units.

        Args:
            obs: (1, n_obs_steps, obs_dim), as of `encode`.
            code: (1,) int64 mode code; a policy without codes ignores it.
            noise: (1, noise_dim) standard normal numbers.
        """
        taken = 0

        def take(shape: Sequence[int]) -> Tensor:
            nonlocal taken
            taken += shape[1]
            return noise[:, taken - shape[1] : taken]

        with GivenNoise(take):
            return self._plan(self.encode(obs), code)

    def draw_inputs(self, index: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        obs, noise = self.draw_obs(generator), torch.randn(1, self.noise_dim, generator=generator)
        return obs, torch.tensor([index % self.agent.num_codes]), noise

    def _plan(self, cond: Tensor, code: Tensor) -> Tensor:
        chunk = self.agent.plan(PolicyInput(cond, code), torch.Generator(), explore=False).chunk
        if self.agent.residual is None:
            return to_bounds(self.policy.to_action(chunk), self.low, self.high)
        actions = chunk.reshape(len(chunk), -1, self.policy.action_dim)
        return to_bounds(self.policy.action_normaliser.inverse(actions), self.low, self.high)


# ---- The residual: an observation, a code and the next action of a chunk to the action as it is corrected ----


class ResidualFunction(Function):
    """What an agent makes of each action of its plan, by the observation at that control step; it draws nothing."""

    name, inputs, output = "residual", ("obs", "code", "planned"), "action"

    def forward(self, obs: Tensor, code: Tensor, planned: Tensor) -> Tensor:
        """The action (1, action_dim) for a planned one (1, action_dim), both in the environment's units.

        For obs see `encode`; code is (1,) int64.
        """
        normaliser = self.policy.action_normaliser
        action = normaliser(from_bounds(planned, self.low, self.high))
        inputs = PolicyInput(self.encode(obs), code)
        corrected, _ = self.agent.correct(action, inputs, torch.Generator(), explore=False)
        return to_bounds(self.policy.to_action(corrected)[:, 0], self.low, self.high)

    def draw_inputs(self, index: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        share = torch.rand(1, self.policy.action_dim, generator=generator)
        planned = self.low + (self.high - self.low) * share
        return self.draw_obs(generator), torch.tensor([index % self.agent.num_codes]), planned


# ---- The same functions on disk ----

TOLERANCE = 1e-5
"""Largest difference of an output between the package and what was written, as a share of half its range."""
CHECKS = 64
"""Random inputs on which they are compared; codes take turns."""


def write_graphs(functions: Sequence[Function], folder: Path) -> float:
    """Writes each function as NAME.onnx and NAME.pt2; returns by how much they differ from it at most, see `TOLERANCE`.

    Raises:
        ArtifactError: one of them differs by more than that, or can't be written.
    """
    return max(_write_graph(function, folder) for function in functions)


def _write_graph(function: Function, folder: Path) -> float:
    import onnxruntime

    function = function.requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(0)
    cases = [function.draw_inputs(index, generator) for index in range(max(CHECKS, function.agent.num_codes))]
    half_range = (function.high - function.low) / 2
    onnx_file, program_file = folder / f"{function.name}.onnx", folder / f"{function.name}.pt2"
    with _quiet():
        program = torch.export.export(function, cases[0], strict=False)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names files and folders of this machine
        packed = io.BytesIO()  # torch's own way into a file ends the process where the disk is full
        torch.export.save(program, packed)
        write_bytes(program_file, packed.getvalue())
        graph = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=function.inputs,
            output_names=[function.output],
            external_data=False,
        )
        assert graph is not None
        graph.save(onnx_file, external_data=False)
        restored = torch.export.load(program_file).module()
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    worst = {onnx_file.name: 0.0, program_file.name: 0.0}
    for case in cases:
        expected = function(*case)
        named = {name: value.numpy() for name, value in zip(function.inputs, case, strict=True)}
        found = {onnx_file.name: torch.from_numpy(session.run(None, named)[0]), program_file.name: restored(*case)}
        for name, output in found.items():
            worst[name] = max(worst[name], float(((output - expected) / half_range).abs().max()))
    for name, difference in worst.items():
        if not difference <= TOLERANCE:
            raise ArtifactError(
                f"{name} would differ from the policy by {difference:.2g} of half the range of its output, more than "
                f"{TOLERANCE:g}: nothing was written; try other versions of torch, onnx and onnxruntime"
            )
    return max(worst.values())


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
