"""CUDA graphs: a function's many small kernels, launched as one.

Small batches keep a device waiting for its host to launch the next kernel. A function that is called over and over with
tensors of the same shapes is recorded once and then replayed. A replay runs no Python: it repeats the kernels that were
recorded, on the same addresses. So such a function must not read from the device, and whatever it looks at besides its
arguments must stay where it is in memory and be changed in place; Python's numbers are what they were when recorded.

| recorded | where |
|---|---|
| losses and gradients of a full minibatch, with the policy or of the critic alone | `GraphedPPO` |
| a decision of an agent, exploring or as deployed | `GraphedAgent` |
| a chunk of steps of a task that is `capturable` | `GraphedEnv` |
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bmd_pipeline.config.schema import PPOConfig
from bmd_pipeline.environments.base import TaskEnv, Transition, VectorTask
from bmd_pipeline.errors import ConfigError, TaskError
from bmd_pipeline.io.progress import add_prefix, take_prefix
from bmd_pipeline.rl.adapters import Draws, PolicyInput
from bmd_pipeline.rl.agent import Agent, Plan
from bmd_pipeline.rl.ppo import PPO, Batch, Critic, Losses

WARM_UPS = 3
"""Calls that run as they are before one is recorded: libraries load and choose kernels, which no recording may do."""

Function = Callable[[Mapping[str, Tensor], torch.Generator | None], dict[str, Tensor]]


class GraphRecorder:
    """Records CUDA graphs, on one stream of their own: autograd and cuBLAS remember the stream they were first used on.

    Tensors need no `record_stream`: the recording stream waits for the current one before a run, and the current one
    for it afterwards.
    """

    @functools.cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]  # made where there is a device

    def warm_up(self, run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Runs at once, where recordings are made."""
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            outputs = run()
        present.wait_stream(self._stream)
        return outputs

    def record(
        self, run: Callable[[], dict[str, Tensor]], generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """Records a run that draws from `generator`; returns its outputs, and what fills the same tensors again.

        Raises:
            RuntimeError: it does what can't be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        with (
            torch.cuda.stream(torch.cuda.current_stream()),  # a recording that fails does not come back from its own
            torch.cuda.graph(graph, stream=self._stream),
        ):
            outputs = run()
        return outputs, graph.replay


CUDA = GraphRecorder()


@dataclass(frozen=True)
class _Recording:
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    replay: Callable[[], None]
    generator: torch.Generator | None


def _fill(inputs: dict[str, Tensor], tensors: Mapping[str, Tensor], rows: Tensor | None) -> None:
    for name, own in inputs.items():
        if rows is None:
            own.copy_(tensors[name])
        else:
            torch.index_select(tensors[name], 0, rows, out=own)


class Graphed:
    """A function that is recorded once for every set of shapes, after a few calls that run as they are.

    It makes tensors by name from tensors by name, each (N, ...), and draws from the generator alone. `what`
    names it in messages.
    """

    def __init__(self, function: Function, what: str, recorder: GraphRecorder) -> None:
        self._function = function
        self._what = what
        self._recorder = recorder
        self._calls: Counter[tuple[object, ...]] = Counter()
        self._recorded: dict[tuple[object, ...], _Recording] = {}
        self.replays = 0  # how many calls were replays

    @property
    def recordings(self) -> int:
        """How many were made."""
        return len(self._recorded)

    def __call__(
        self, tensors: Mapping[str, Tensor], *, rows: Tensor | None = None, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """What the function makes of the tensors. The next call overwrites it: clone what is to stay.

        Args:
            tensors: by name, each (M, ...).
            rows: (N,) int64, the rows that the function shall see; None: all.
            generator: draws, the same as without a recording.

        Raises:
            ConfigError: it can't be recorded.
        """
        count = [len(x) if rows is None else len(rows) for x in tensors.values()]
        key = tuple((name, n, x.shape[1:], x.dtype) for n, (name, x) in zip(count, tensors.items(), strict=True))
        recording = self._recorded.get(key)
        if recording is None:
            self._calls[key] += 1
            if self._calls[key] <= WARM_UPS:
                seen = tensors if rows is None else {name: x[rows] for name, x in tensors.items()}
                return self._recorder.warm_up(lambda: self._function(seen, generator))
            recording = self._recorded[key] = self._record(tensors, rows, generator)
        _fill(recording.inputs, tensors, rows)
        if recording.generator is not None and generator is not None:
            recording.generator.set_state(generator.get_state())
        recording.replay()
        if recording.generator is not None and generator is not None:
            generator.set_state(recording.generator.get_state())
        self.replays += 1
        return recording.outputs

    def _record(
        self, tensors: Mapping[str, Tensor], rows: Tensor | None, generator: torch.Generator | None
    ) -> _Recording:
        # callers come with another generator every time, so a recording draws from one of its own
        own = None if generator is None else torch.Generator(generator.device)
        inputs = {
            name: x.new_empty(x.shape if rows is None else (len(rows), *x.shape[1:])) for name, x in tensors.items()
        }
        _fill(inputs, tensors, rows)
        try:
            outputs, replay = self._recorder.record(lambda: self._function(inputs, own), own)
        except (RuntimeError, TaskError) as error:  # the latter where a task of others did it
            reason = str(error.__context__ or error).partition("\n")[0]
            raise ConfigError(
                f"{self._what} can't be recorded as a CUDA graph ({reason}): set execution.cuda_graphs=false"
            ) from error
        return _Recording(inputs, outputs, replay, own)


class GraphedEnv(TaskEnv):
    """A capturable task whose chunks of steps are recorded."""

    def __init__(self, env: VectorTask, recorder: GraphRecorder) -> None:
        self._env = env
        self.spec, self.num_envs, self.device = env.spec, env.num_envs, env.device
        self.steps = Graphed(lambda seen, _: vars(env.step_chunk(seen["actions"])), f"{env.spec.name}'s step", recorder)

    def reset(self, seed: int) -> Tensor:
        return self._env.reset(seed)

    def track(self) -> Tensor:
        return self._env.track()

    def step_chunk(self, actions: Tensor) -> Transition:
        return Transition(**{name: x.clone() for name, x in self.steps({"actions": actions}).items()})

    def close(self) -> None:
        self._env.close()


def graph_env(env: TaskEnv, recorder: GraphRecorder | None) -> TaskEnv:
    """The same task, its steps recorded if they can be and there is a recorder."""
    if recorder is None or not isinstance(env, VectorTask) or not env.capturable:
        return env
    return GraphedEnv(env, recorder)


class GraphedAgent(Agent):
    """An agent whose decisions are recorded; it shares all that the given one is made of."""

    def __init__(self, agent: Agent, recorder: GraphRecorder) -> None:
        self.__dict__ = agent.__dict__
        self.graphed: dict[tuple[str, bool], Graphed] = {}  # by what is decided and whether it explores
        self._recorder = recorder

    def plan(self, inputs: PolicyInput, generator: torch.Generator, explore: bool) -> Plan:
        """As the agent's."""
        return Plan(*self._replay(vars(inputs), generator, explore))

    def correct(
        self, action: Tensor, inputs: PolicyInput, generator: torch.Generator, explore: bool
    ) -> tuple[Tensor, Draws]:
        """As the agent's."""
        return self._replay(vars(inputs) | {"action": action}, generator, explore)

    def _replay(
        self, seen: Mapping[str, Tensor], generator: torch.Generator, explore: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kind = ("correct" if "action" in seen else "plan", explore)
        if kind not in self.graphed:
            decide = functools.partial(self._decide, explore=explore)
            self.graphed[kind] = Graphed(decide, "a decision", self._recorder)
        found = {name: value.clone() for name, value in self.graphed[kind](seen, generator=generator).items()}
        return found.pop("decided"), found

    @torch.no_grad()
    def _decide(
        self, seen: Mapping[str, Tensor], generator: torch.Generator | None, *, explore: bool
    ) -> dict[str, Tensor]:
        """The chunk that is planned, or an action as it is corrected where one is seen, among the draws."""
        assert generator is not None  # every agent draws
        inputs = PolicyInput(seen["cond"], seen["code"])
        if "action" in seen:
            decided, draws = super().correct(seen["action"], inputs, generator, explore)
        else:
            plan = super().plan(inputs, generator, explore)
            decided, draws = plan.chunk, plan.draws
        return draws | {"decided": decided}


def graph_agent(agent: Agent, recorder: GraphRecorder | None) -> Agent:
    """The same agent, its decisions recorded if there is a recorder."""
    return agent if recorder is None or isinstance(agent, GraphedAgent) else GraphedAgent(agent, recorder)


class GraphedPPO(PPO):
    """PPO whose gradients on full minibatches are recorded, with the policy's and without."""

    def __init__(self, *arguments: Any, recorder: GraphRecorder, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.graphed = {
            policy: Graphed(functools.partial(self._learn, policy=policy), "a step of PPO", recorder)
            for policy in (True, False)
        }

    def _differentiate(self, batch: Batch, index: Tensor, *, policy: bool) -> Losses:
        if len(index) != self.config.minibatch_size:  # remainders are as long as it happens
            return super()._differentiate(batch, index, policy=policy)
        own = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
        tensors = own | add_prefix("inputs", vars(batch.inputs)) | add_prefix("draws", batch.draws)
        found = self.graphed[policy](tensors, rows=index)
        for name, parameter in self._parameters():
            parameter.grad = found.get(name)
        return Losses(**{name: value.clone() for name, value in take_prefix("loss", found).items()})

    def _learn(
        self, part: Mapping[str, Tensor], generator: torch.Generator | None = None, *, policy: bool
    ) -> dict[str, Tensor]:
        """Losses and gradients by name.

        Nothing of autograd's outlives the call: what autograd made on another stream would spoil a recording.
        """
        own = {name: value for name, value in part.items() if "." not in name}
        inputs = PolicyInput(**take_prefix("inputs", part))
        losses = self._backward(Batch(inputs, take_prefix("draws", part), **own), policy=policy)
        found = add_prefix("loss", vars(losses))
        for name, parameter in self._parameters():
            if parameter.grad is not None:
                found[name], parameter.grad = parameter.grad, None
        return found

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for number, group in enumerate(self.groups):
            for index, parameter in enumerate(group):
                yield f"gradient.{number}.{index}", parameter


def make_ppo(agent: Agent, critic: Critic, config: PPOConfig, *, recorder: GraphRecorder | None) -> PPO:
    """PPO, its gradients recorded if there is a recorder; arguments as of `PPO`."""
    if recorder is None:
        return PPO(agent, critic, config)
    return GraphedPPO(agent, critic, config, recorder=recorder)
