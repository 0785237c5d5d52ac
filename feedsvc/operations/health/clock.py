"""Whether this machine's clock was set while we ran: tokens are judged by it."""

import time
from collections.abc import Callable
from typing import Final

_NOTABLE: Final = 0.5  # seconds
_REMEMBERED: Final = 60.0  # seconds


class Clock:
    """The wall clock beside one that nobody can set."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._apart = wall() - steady()
        self._stepped = 0.0
        self._stepped_at = -float("inf")

    def stepped(self) -> float:
        """By how many seconds it was set in the last minute, 0 where it was not."""
        now = self._steady()
        apart = self._wall() - now
        if abs(apart - self._apart) > _NOTABLE:
            self._stepped, self._stepped_at = apart - self._apart, now
        # What drifts slowly is no step.
        self._apart = apart
        return self._stepped if now - self._stepped_at <= _REMEMBERED else 0.0
