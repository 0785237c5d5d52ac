"""The deadline of answers, without the time in which this process did not read them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_TICKS: Final = 4
_FEWEST_TICKS: Final = 2


class Deadline:
    """Watch answers, and report one that is overdue.

    A timer for each question would fire late, and so for a good Redis, whenever the loop itself
    was busy: five hundred requests at once keep it so for longer than an answer may take, while
    the answers are in the sockets already. Here a clock ticks, four times in the time that an
    answer has. A tick that comes late counts as one, however late it is; and between two ticks
    the loop has looked at its sockets and handed on what had come. An answer is overdue when five
    ticks have passed it by. So a Redis that is frozen costs 1 to 1 1/4 of the time; on a loop that
    is busy throughout, twice the time and three ticks are enough.
    """

    def __init__(self, seconds: float, missed: Callable[[], None]) -> None:
        """`missed` is called when the oldest answer is overdue."""
        self._every = seconds / _TICKS
        self._latest = 2 * seconds
        self._missed = missed
        self._loop = asyncio.get_running_loop()
        self._watched: dict[asyncio.Future[Any], tuple[int, float]] = {}
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, answer: asyncio.Future[Any]) -> None:
        """The answer's time begins."""
        self._watched[answer] = self._ticks, self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._every, self._tick)

    def forget(self, answer: asyncio.Future[Any]) -> None:
        """Stop watching this one."""
        del self._watched[answer]

    def watched(self) -> list[asyncio.Future[Any]]:
        """The answers that are awaited, the oldest first."""
        return list(self._watched)

    async def within(self, work: Awaitable[T]) -> T:
        """The result of another awaitable within the same time. Raises TimeoutError."""
        task = asyncio.ensure_future(work)
        try:
            for _ in range(_TICKS + 1):
                done, _ = await asyncio.wait({task}, timeout=self._every)
                if done:
                    return task.result()
            raise TimeoutError
        finally:
            task.cancel()

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = None
        self._ticks += 1
        if self._is_overdue():
            self._missed()
        if self._watched:
            self._timer = self._loop.call_later(self._every, self._tick)

    def _is_overdue(self) -> bool:
        for answer, (ticks, begun) in self._watched.items():
            if not answer.done():
                passed, now = self._ticks - ticks, self._loop.time()
                late = passed > _FEWEST_TICKS and now - begun > self._latest
                return late or passed > _TICKS
        return False
