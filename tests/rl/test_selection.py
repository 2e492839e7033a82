"""Which iteration is kept, and how long its episodes were."""

from __future__ import annotations

from bmd_pipeline.config.finetune import CurriculumConfig
from bmd_pipeline.rl.curriculum import compute_max_steps
from bmd_pipeline.rl.selection import Candidate, compute_required_information


def test_success_decides_among_candidates_whose_codes_still_tell() -> None:
    first, better = Candidate(0, 0.8, 1.0), Candidate(1, 0.9, 0.7)
    assert better.beats(first, required_information=0.6)
    assert not first.beats(better, required_information=0.6)
    assert Candidate(2, 0.9, 0.7).beats(better, 0.6), "ties go to the later one"


def test_codes_come_before_success() -> None:
    told, untold = Candidate(0, 0.5, 1.0), Candidate(1, 0.9, 0.1)
    assert not untold.beats(told, 0.8)
    assert told.beats(untold, 0.8)
    worse = Candidate(2, 0.9, 0.05)
    assert untold.beats(worse, 0.8), "when none qualifies, the codes that tell most are kept"
    assert not worse.beats(untold, 0.8)


def test_without_a_required_share_success_alone_decides() -> None:
    required = compute_required_information(0.0, discovered=0.7)
    assert Candidate(1, 0.9, -0.2).beats(Candidate(0, 0.5, 0.7), required)
    assert compute_required_information(0.5, discovered=0.7) == 0.35


def test_the_curriculum_grows_linearly_to_the_full_horizon() -> None:
    config = CurriculumConfig(start_fraction=0.25, iterations=10)
    steps = [compute_max_steps(config, i, 100) for i in range(15)]
    assert steps[0] == 25
    assert steps[4] == 55
    assert steps[10:] == [100] * 5
    assert compute_max_steps(CurriculumConfig(), 0, 7) == 7
