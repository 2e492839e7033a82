"""The selector of held noise."""

from __future__ import annotations

import torch

from bmd_pipeline.config.discover import CommitConfig
from bmd_pipeline.modes.selector import NoiseSelector, train_selector


def test_learns_to_command_a_behaviour_that_depends_on_start_and_noise() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    config = CommitConfig(folds=3, selector_steps=200)
    selector = NoiseSelector(2, 2, 2, config)
    start, u = torch.randn(600, 2, generator=generator), torch.randn(600, 2, generator=generator)
    behaviour = (u[:, 0] + 0.5 * start[:, 1] > 0).long()
    _, accuracy = train_selector(selector, start, u, behaviour, generator)
    assert accuracy > 0.9
    wanted = torch.arange(600) % 2
    chosen = selector.choose(start, wanted)
    brought_about = (chosen[:, 0] + 0.5 * start[:, 1] > 0).long()
    assert float((brought_about == wanted).float().mean()) > 0.95


def test_folds_need_not_divide_the_episodes() -> None:
    config = CommitConfig(folds=20, selector_steps=20)
    generator = torch.Generator().manual_seed(0)
    selector = NoiseSelector(2, 2, 2, config)
    u = torch.randn(201, 2, generator=generator)
    loss, _ = train_selector(selector, torch.zeros(201, 2), u, (u[:, 0] > 0).long(), generator)
    assert 0.0 < loss < 2.0


def test_stays_inside_the_search_radius_and_prefers_small_noise() -> None:
    torch.manual_seed(0)
    selector = NoiseSelector(2, 3, 2, CommitConfig(folds=2, max_norm=1.5, norm_penalty=0.1))
    assert float(selector.candidates.norm(dim=1).max()) <= 1.5 + 1e-6
    for member in selector.members:
        for parameter in member.parameters():
            torch.nn.init.zeros_(parameter)  # nothing to choose by but the penalty
    chosen = selector.choose(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    assert float(chosen.norm()) == float(selector.candidates.norm(dim=1).min())
