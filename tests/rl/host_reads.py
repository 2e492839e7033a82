"""Counts how often Python reads numbers from a tensor: on a device, each time the host waits for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

READS = (Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.nonzero, Tensor.numpy)


class HostReads(TorchFunctionMode):
    """Counts the reads in a module's own code while the mode is active; what libraries do is theirs.

    Args:
        module: name of the module.
    """

    def __init__(self, module: str) -> None:
        super().__init__()
        self.module = module
        self.count = 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in READS and sys._getframe(1).f_globals.get("__name__") == self.module:
            self.count += 1
        return function(*args, **(kwargs or {}))


def count_reads(module: str, call: Callable[[], object]) -> int:
    """Reads that `module` makes while `call` runs."""
    with HostReads(module) as reads:
        call()
    return reads.count
