"""What an export does, told each of its codes: success and true mode of episodes that run_policy.py plays by itself.

python -m benchmarks.exported --task PushT --exported results/PushT/dppo-bmd/seed0/export [--episodes 32]
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from bmd_pipeline.config.load import load_config
from bmd_pipeline.stages.play import find_mode, open_export_player
from bmd_pipeline.tasks import registry


def main() -> None:
    """Prints a row for each code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--exported", type=Path, required=True, help="folder of the export")
    parser.add_argument("--episodes", type=int, default=32, help="of each code")
    given = parser.parse_args()
    config = load_config(given.task)
    print("| code | success | true mode of the successes |\n|---|---|---|")
    with open_export_player(config, registry.load_filming(given.task), given.exported, seed=0) as player:
        for index, (target,) in enumerate(player.groups):
            modes: Counter[str] = Counter()
            for attempt in range(given.episodes):
                if player.try_episode(index, player.make_seed(index, attempt)):
                    modes[find_mode(player.labelling, player.recorder.recording)] += 1
            shown = ", ".join(f"{mode} {count}" for mode, count in modes.most_common())
            print(f"| {target} | {modes.total()} of {given.episodes} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
