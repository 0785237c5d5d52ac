"""Steps of this machine's clock, by which tokens are judged."""

import time
from collections.abc import Callable
from typing import Final

_NOTABLE: Final = 0.5  # seconds
_REMEMBERED: Final = 60.0  # seconds


class Clock:
    """The wall clock, held against the monotonic one."""

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
        """The seconds by which it was set within the last minute, or 0."""
        now = self._steady()
        apart = self._wall() - now
        if abs(apart - self._apart) > _NOTABLE:
            self._stepped, self._stepped_at = apart - self._apart, now
        # What drifts slowly is no step.
        self._apart = apart
        return self._stepped if now - self._stepped_at <= _REMEMBERED else 0.0
