"""Demand for a pool's connections over the last hour, and the size that would have sufficed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from feedsvc.backends.postgres.window import Window

_LEAST_SECONDS: Final = 60.0
_ENOUGH: Final = 0.999  # of the time
_REFUSED_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The size that would have sufficed, None while there is too little demand; and why."""

    size: int | None
    why: str


class Demand:
    """For how long how many connections were wanted at once: those in use and those waited for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = self._began = clock()
        self._level = 0
        self._seconds: Window[int] = Window(60, 60.0, clock)

    def now(self, level: int, at: float | None = None) -> None:
        """So many are wanted from here on; `at` spares a look at the clock."""
        at = self._clock() if at is None else at
        self._seconds.add(self._level, at - self._since, at)
        self._level, self._since = level, at

    def seconds(self) -> Mapping[int, float]:
        """Seconds by how many were wanted."""
        self.now(self._level)
        return self._seconds.total()


def suggest(size: int, seconds: Mapping[int, float], refused: int, slow_wait: float) -> Suggestion:
    """The size for a pool with this demand.

    `refused` is how many got no connection, `slow_wait` the 99th percentile of the waits in
    seconds. Refused requests do not show in the demand, so a pool that refuses is too small by
    an unknown amount and grows by half.
    """
    watched = sum(seconds.values())
    if watched < _LEAST_SECONDS:
        return Suggestion(None, f"watched for {watched:.0f} s, which is too short to say")
    peak = max((level for level, spent in seconds.items() if spent > 0), default=0)
    needed = _needed(seconds, watched)
    span = f"over {watched / 60:.0f} min"
    if refused:
        grown = max(needed, round(size * _REFUSED_GROWTH), size + 1)
        return Suggestion(grown, f"{refused} were refused for lack of one {span}")
    if needed > size:
        what = f"{needed} were wanted at once {span}, and 1 of 100 waited {slow_wait * 1e3:.0f} ms"
        return Suggestion(needed, what)
    if peak + 1 <= size // 2:
        return Suggestion(peak + 1, f"never more than {peak} of {size} were wanted at once {span}")
    return Suggestion(size, f"{needed} of {size} were enough for all but 0.1 % of the time {span}")


def _needed(seconds: Mapping[int, float], watched: float) -> int:
    """As many as were enough for nearly all of the time."""
    covered = 0.0
    for level in sorted(seconds):
        covered += seconds[level]
        if covered >= _ENOUGH * watched:
            return level
    return max(seconds, default=0)
