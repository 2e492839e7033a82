"""True modes of Kitchen from made-up tracks."""

from __future__ import annotations

import torch

from bmd_pipeline.tasks.kitchen.env import ORDERS, THINGS, TRACK_NAMES
from bmd_pipeline.tasks.kitchen.modes import LABELLINGS

(LABELLING,) = LABELLINGS


def _weigh(*things: str, success: bool) -> dict[str, float]:
    """Weights above 0 of one episode in which things are done, one a step."""
    track = torch.zeros(len(things) + 1, 1, len(TRACK_NAMES))
    for step, thing in enumerate(things):
        track[step + 1 :, 0, THINGS.index(thing)] = 1.1
    weights = LABELLING.label(track, torch.tensor([len(things)]), torch.tensor([success]))[0].tolist()
    return {mode: weight for mode, weight in zip(LABELLING.modes, weights, strict=True) if weight > 0.0}


def test_successes_belong_to_their_order() -> None:
    assert LABELLING.modes == ORDERS
    for order in ORDERS:
        assert _weigh(*order.split("-"), success=True) == {order: 1.0}


def test_failures_count_for_the_orders_that_begin_so() -> None:
    weights = _weigh("light", success=False)
    assert set(weights) == {"light-kettle", "light-slide"}
    assert set(weights.values()) == {0.5}


def test_failures_that_did_nothing_count_for_all() -> None:
    weights = _weigh(success=False)
    assert set(weights) == set(ORDERS)


def test_things_done_in_the_same_step_count_in_a_fixed_order() -> None:
    track = torch.zeros(2, 1, len(TRACK_NAMES))
    track[1, 0, [THINGS.index("slide"), THINGS.index("kettle")]] = 1.1
    weights = LABELLING.label(track, torch.tensor([1]), torch.tensor([True]))[0]
    assert LABELLING.modes[int(weights.argmax())] == "kettle-slide"
