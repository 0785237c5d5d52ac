"""The event loop's monitor: by how much it wakes late, which every request waits for."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

_EVERY: Final = 0.1  # seconds
_SPAN: Final = 10.0  # seconds of which lags are kept

TOO_LATE: Final = 8
"""The multiple of `health.loop_lag` from which the loop is down and no longer degraded."""


class EventLoopMonitor:
    """The lags of the last ten seconds, in seconds. Times are monotonic."""

    def __init__(self) -> None:
        self.on_wake: Callable[[float, float], None] = lambda _lag, _now: None
        """Gets each lag, and the time at which the loop woke."""
        self._lags: deque[tuple[float, float]] = deque()
        self._due = time.monotonic() + _EVERY

    async def run(self) -> NoReturn:
        """Measure until cancelled."""
        while True:
            self._due = time.monotonic() + _EVERY
            await asyncio.sleep(_EVERY)
            now = time.monotonic()
            lag = max(0.0, now - self._due)
            self._lags.append((now, lag))
            while self._lags[0][0] < now - _SPAN:
                self._lags.popleft()
            self.on_wake(lag, now)

    def since(self, start: float) -> list[float]:
        """The lags measured after this time."""
        return [lag for at, lag in self._lags if at > start]

    def worst(self) -> float:
        """The longest lag, the one that is overdue now included."""
        now = time.monotonic()
        return max(0.0, now - self._due, *self.since(now - _SPAN))
