"""Hindsight: the inference model learns from episodes what each behaviour looks like."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bmd_pipeline.modes.inference import InferenceModel


def fit_inference(inference: InferenceModel, histories: Tensor, code: Tensor, generator: torch.Generator) -> float:
    """Teaches an inference model which behaviour each history belongs to, all behaviours equally often.

    Args:
        inference: trained in place, `config.fit_steps` gradient steps.
        histories: (M, history_dim) of episodes whose behaviour is known.
        code: (M,) their behaviour.
        generator: draws batches and input noise.

    Returns:
        the last batch's cross-entropy in nats.
    """
    config = inference.config
    optimizer = torch.optim.Adam(inference.parameters(), lr=config.learning_rate)
    loss = torch.zeros(())
    for rows in draw_balanced(code, config.batch_size, config.fit_steps, generator):
        loss = inference.loss(histories[rows], code[rows], generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return float(loss.detach())


def draw_balanced(code: Tensor, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of row numbers, with replacement, in which every code that occurs is equally likely.

    Args:
        code: (M,) int64 code of each row, M >= 1.
        batch_size: rows per batch B.
        steps: batches.
        generator: draws.

    Yields:
        (B,) int64 row numbers.
    """
    order = code.argsort(stable=True)  # rows of one code after the other
    counts = torch.unique(code, return_counts=True)[1]  # (K',) of the codes that occur
    firsts = counts.cumsum(0) - counts
    for _ in range(steps):
        group = torch.randint(len(counts), (batch_size,), generator=generator, device=code.device)
        share = torch.rand(batch_size, generator=generator, device=code.device, dtype=torch.float64)
        yield order[firsts[group] + (share * counts[group]).long()]
