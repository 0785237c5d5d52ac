"""The pace of work that many bring at once and that may wait, such as opening live feeds."""

import asyncio
import math
import time
from collections import deque
from typing import Final

_TOGETHER: Final = 2  # in each period
_PERIOD: Final = 0.005  # seconds
_SHARE: Final = 0.4  # of a period, which this thread may have worked, on whatever
_LONGEST: Final = 0.02  # seconds of rest, so that a busy process goes on as well
_LATELY: Final = 1.0  # seconds


class Pace:
    """Lets those that come go on, and in periods of a few while small requests are answered.

    Where the event loop has worked for more than a share of a period, a rest follows, in which it
    is free for these. Without small requests there is nothing to wait for.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left = 0  # of the present period
        self._timer: asyncio.TimerHandle | None = None  # of its end
        self._began = self._worked = 0.0
        self._asked_at = -math.inf
        self._has_ended = False

    def note_small_request(self) -> None:
        """Note that a small request was answered just now."""
        self._asked_at = time.monotonic()

    def end(self) -> None:
        """Let all go on who wait or come, for this process leaves."""
        self._has_ended = True
        self._release(len(self._waiting))

    async def next(self) -> None:
        """Wait for a place in a period, if periods are kept."""
        if not self._waiting and not self._is_kept():
            return
        if self._timer is None:
            self._begin()
        if self._left and not self._waiting:
            self._left -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _is_kept(self) -> bool:
        return not self._has_ended and time.monotonic() - self._asked_at < _LATELY

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._left, self._began, self._worked = _TOGETHER, loop.time(), time.thread_time()
        self._timer = loop.call_later(_PERIOD, self._end)

    def _end(self) -> None:
        """Rest where it is due, then begin the next period; or let all go on."""
        loop = asyncio.get_running_loop()
        if not self._waiting or not self._is_kept():
            self._timer = None
            self._release(len(self._waiting))
            return
        pause = rest(time.thread_time() - self._worked, loop.time() - self._began)
        if pause > 0:
            self._timer = loop.call_later(pause, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._begin()
        self._left -= self._release(self._left)

    def _release(self, most: int) -> int:
        """Let so many go on at most; how many did."""
        released = 0
        while released < most and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # else its client is gone
                waiter.set_result(None)
                released += 1
        return released


def rest(worked: float, took: float) -> float:
    """Seconds of rest behind a period that took so long, so much of which was work."""
    return min(_LONGEST, max(0.0, worked / _SHARE - took))
