"""Whether the event loop is on time: everything else waits for it."""

import asyncio
import time
from collections import deque
from typing import Final, NoReturn

_EVERY: Final = 0.1  # seconds
_SPAN: Final = 10.0  # seconds that are remembered

TOO_LATE: Final = 8
"""So many times `health.loop_lag` is more than a matter of quality."""


class LoopLag:
    """By how much the event loop woke up late, over the last while."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque()
        self._due = time.monotonic() + _EVERY

    async def run(self) -> NoReturn:
        """Watches until it is cancelled."""
        while True:
            self._due = time.monotonic() + _EVERY
            await asyncio.sleep(_EVERY)
            now = time.monotonic()
            self._lags.append((now, max(0.0, now - self._due)))
            while self._lags[0][0] < now - _SPAN:
                self._lags.popleft()

    def worst(self) -> float:
        """The longest of the last ten seconds, in seconds, what is overdue now included."""
        now = time.monotonic()
        past = [lag for at, lag in self._lags if at >= now - _SPAN]
        return max(0.0, now - self._due, *past)
