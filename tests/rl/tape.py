"""A stand-in for CUDA graphs on the CPU.

Like a CUDA graph it repeats operations on the memory that they were recorded on and runs no Python: numbers of Python,
tensors that have been replaced and branches stay as they were. It refuses what a recording on a device may not do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bmd_pipeline.rl.graphs import GraphRecorder
from tests.rl.host_reads import READS

aten = torch.ops.aten
FORBIDDEN = (*READS, Tensor.cpu, Tensor.cuda, Tensor.new_tensor, torch.tensor, torch.as_tensor, torch.manual_seed)
"""They read from a device, or send numbers to it."""
CHOOSING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class _Refusal(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in FORBIDDEN:
            raise RuntimeError(f"{getattr(function, '__name__', function)} while recording")
        return function(*args, **(kwargs or {}))


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, dict[str, Any], Any]] = []
        self.made: set[int] = set()  # storages
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # what stood in memory that was there already

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        masks = any(x is not None and x.dtype == torch.bool for x in args[1]) if function in CHOOSING else False
        if masks or "nonzero" in function.name() or "masked_select" in function.name():
            raise RuntimeError(f"{function.name()} while recording: its size is known on the device alone")
        for number, declared in enumerate(function._schema.arguments):
            if declared.alias_info is None or not declared.alias_info.is_write:
                continue
            given = args[number] if number < len(args) else kwargs.get(declared.name)
            for x in tree_leaves(given):
                place = x.untyped_storage().data_ptr() if isinstance(x, Tensor) else 0
                if place and place not in self.made and place not in self.before:
                    self.before[place] = (x, x.clone())
        result = function(*args, **kwargs)
        for x in fresh(function, result):
            self.made.add(x.untyped_storage().data_ptr())
        self.calls.append((function, args, kwargs, result))
        return result


def fresh(function: Any, result: Any) -> list[Tensor]:
    """Results that are no views of arguments, nor arguments that were written to."""
    results = result if isinstance(result, tuple | list) else (result,)
    declared = function._schema.returns
    if any(one.alias_info is not None for one in declared):
        return []
    return [x for x in tree_leaves(results) if isinstance(x, Tensor)]


class TapeRecorder(GraphRecorder):
    """Records on the CPU; as on a device, recording executes nothing.

    Attributes:
        running: what was asked for, by name: "warm-up", "record", "replay".
    """

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []

    def warm_up(self, run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        self.running.append("warm-up")
        return run()

    def record(
        self, run: Callable[[], dict[str, Tensor]], generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], Callable[[], None]]:
        self.running.append("record")
        draws = None if generator is None else generator.get_state()
        tape = _Tape()
        with _Refusal(), tape:
            outputs = run()
        with torch.no_grad():
            for x, before in tape.before.values():
                x.copy_(before)
            for function, _, _, result in tape.calls:
                for x in fresh(function, result):
                    if x.is_floating_point() and x.untyped_storage().data_ptr() not in tape.before:
                        x.fill_(torch.nan)
        if generator is not None and draws is not None:
            generator.set_state(draws)

        @torch.no_grad()
        def replay() -> None:
            self.running.append("replay")
            for function, args, kwargs, result in tape.calls:
                again = function(*args, **kwargs)
                for x, new in zip(fresh(function, result), fresh(function, again), strict=True):
                    x.copy_(new)

        return outputs, replay
