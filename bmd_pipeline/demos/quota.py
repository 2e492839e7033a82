"""Which attempts become demonstrations: a decision that does not depend on how many workers make them.

Attempts of a behaviour are numbered. The first successes in attempt order fill its quota, however fast
later attempts come back, and across behaviours episodes are taken in turn: attempt 0 of each, attempt 1 of
each, and so on. No attempt is started unless the quota needs it should all that are running succeed, so
none is wasted and the count of failures is the same for any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bmd_pipeline.errors import ConfigError, TrainingError
from bmd_pipeline.tasks.base import Episode


@dataclass(frozen=True, order=True)
class Attempt:
    """One try: ordered as episodes are taken."""

    index: int
    behaviour: int


@dataclass
class _Behaviour:
    name: str
    quota: int
    limit: int
    started: int = 0
    judged: int = 0
    accepted: int = 0
    waiting: dict[int, Episode] = field(default_factory=dict)

    @property
    def promised(self) -> int:
        """Demonstrations, should all attempts that are still running succeed."""
        arrived = sum(episode.success for episode in self.waiting.values())
        return self.accepted + arrived + self.started - self.judged - len(self.waiting)

    @property
    def filled(self) -> bool:
        return self.accepted >= self.quota


class Quota:
    """Hands out attempts and takes episodes in.

    Args:
        behaviours: names.
        num_episodes: demonstrations wanted; shared out evenly, the first behaviours take the remainder.
        max_attempts_factor: attempts per wanted demonstration before a behaviour counts as impossible.
        wanted: the behaviours to show; none named means all.

    Raises:
        ConfigError: fewer episodes than behaviours, or a wanted behaviour that the expert doesn't know.
    """

    def __init__(
        self,
        behaviours: Sequence[str],
        num_episodes: int,
        max_attempts_factor: float,
        wanted: Sequence[str] = (),
    ) -> None:
        for name in wanted:
            if name not in behaviours:
                raise ConfigError(f"collect.behaviours: the expert shows no {name!r}; it shows {', '.join(behaviours)}")
        shown = [name for name in behaviours if name in wanted or not wanted]
        if num_episodes < len(shown):
            raise ConfigError(
                f"collect.num_episodes must be >= the number of behaviours to show ({len(shown)}), got {num_episodes}"
            )
        share, remainder = divmod(num_episodes, len(shown))
        shares = {name: share + (i < remainder) for i, name in enumerate(shown)}
        quotas = [shares.get(name, 0) for name in behaviours]
        self._behaviours = [
            _Behaviour(name, quota, math.ceil(quota * max_attempts_factor))
            for name, quota in zip(behaviours, quotas, strict=True)
        ]

    @property
    def done(self) -> bool:
        """Whether every behaviour has its share."""
        return all(behaviour.filled for behaviour in self._behaviours)

    def next_attempt(self) -> Attempt | None:
        """The attempt to start next, or None if those running may be enough."""
        wanting = [
            Attempt(behaviour.started, i)
            for i, behaviour in enumerate(self._behaviours)
            if behaviour.promised < behaviour.quota and behaviour.started < behaviour.limit
        ]
        if not wanting:
            return None
        attempt = min(wanting)
        self._behaviours[attempt.behaviour].started += 1
        return attempt

    def finish(self, attempt: Attempt, episode: Episode) -> Iterator[Episode]:
        """Takes the episode of an attempt in.

        Yields:
            The demonstrations that are now decided, in their final order.

        Raises:
            TrainingError: a behaviour used up its attempts.
        """
        self._behaviours[attempt.behaviour].waiting[attempt.index] = episode
        while not self.done:
            turn = min(Attempt(b.judged, i) for i, b in enumerate(self._behaviours) if not b.filled)
            behaviour = self._behaviours[turn.behaviour]
            arrived = behaviour.waiting.pop(turn.index, None)
            if arrived is None:
                return
            behaviour.judged += 1
            behaviour.accepted += arrived.success
            if arrived.success:
                yield arrived
            elif behaviour.judged >= behaviour.limit:
                raise TrainingError(
                    f"the expert showed {behaviour.name!r} {behaviour.accepted} times in "
                    f"{behaviour.judged} attempts, {behaviour.quota} are wanted; "
                    "repair the expert or raise collect.max_attempts_factor"
                )

    def counts(self) -> dict[str, dict[str, int]]:
        """Attempts, demonstrations and dropped failures by behaviour."""
        return {
            behaviour.name: {
                "attempts": behaviour.judged,
                "accepted": behaviour.accepted,
                "dropped": behaviour.judged - behaviour.accepted,
            }
            for behaviour in self._behaviours
            if behaviour.quota
        }
