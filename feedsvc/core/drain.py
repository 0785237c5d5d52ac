"""Streams under way and their interruption at a stop, so that none is cut off without need."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol, Self

from feedsvc.core.problems import Draining, Problem

_LAST_WORDS: Final = 1.0  # seconds that interrupted streams get to say so
_A_WEEK: Final = 7 * 86_400.0  # seconds; no stream lasts longer, and a timer has its limits
_RETRY_SPREAD: Final = 3_000  # milliseconds over which interrupted clients come back


class Interruptible(Protocol):
    """Work under way that a stop waits for, and interrupts in the end."""

    def interrupt(self, problem: Problem) -> None:
        """End with this problem."""
        ...


class Running:
    """A request that runs, as a block that can be interrupted from outside with a problem.

    Works as `asyncio.timeout` does: the task is cancelled, and at the block's edge the
    cancellation becomes the problem.
    """

    def __init__(self, drain: "Drain") -> None:
        self._drain = drain
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._problem: Problem | None = None
        self._timer: asyncio.TimerHandle | None = None

    def interrupt_at(self, seconds: float, problem: Problem) -> None:
        """End the block with this problem if it still runs after so many seconds."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(max(seconds, 0.0), _A_WEEK), self.interrupt, problem)

    def interrupt(self, problem: Problem) -> None:
        """End the block with this problem; a second call changes nothing."""
        if self._problem is None and self._task is not None:
            self._problem = problem
            self._task.cancel()

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._task is not None:
            self._cancelling = self._task.cancelling()
        self._drain.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._drain.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        task, self._task = self._task, None
        if self._problem is None or task is None:
            return
        if task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise self._problem from error


class Drain:
    """The streams under way, and whether another may still begin."""

    def __init__(self) -> None:
        self.begun = False
        """True if the next request of each connection is for another process."""
        self.announced = False
        """True if this process is going to stop, also while nothing is refused yet."""
        self.stopping = False
        """True if nothing long may begin any more."""
        self._running: set[Interruptible] = set()
        self._when_parting: list[Callable[[], None]] = []
        self._idle = asyncio.Event()
        self._idle.set()

    def running(self, *, short: bool) -> Running:
        """A block to answer a request in.

        Raises Draining for a stream once the drain has begun; a short request is still answered.
        """
        if self.stopping and not short:
            raise Draining("This process is stopping; another one will answer.")
        return Running(self)

    def when_parting(self, part: Callable[[], None]) -> None:
        """Call this once clients are to go elsewhere; perhaps more than once."""
        self._when_parting.append(part)

    def add(self, running: Interruptible) -> None:
        """A request's block has begun, or other work that a stop waits for."""
        self._running.add(running)
        self._idle.clear()

    def remove(self, running: Interruptible) -> None:
        """It has ended, one way or the other."""
        self._running.discard(running)
        if not self._running:
            self._idle.set()

    @property
    def running_now(self) -> int:
        """The number of requests that run, without those whose connection was handed over."""
        return sum(isinstance(each, Running) for each in self._running)

    def leave(self) -> None:
        """Others answer what is new: each connection gets one more answer, whatever it is."""
        self.begun = True
        self._part()

    def announce(self) -> None:
        """As `leave`, where there may be no others on this machine."""
        self.begun = self.announced = True

    async def run(self, timeout: float) -> None:
        """Refuse new streams, wait for those that run, and interrupt what is left."""
        self.begun = self.announced = self.stopping = True
        self._part()
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            await self.interrupt_all()

    def _part(self) -> None:
        for part in self._when_parting:
            part()

    async def interrupt_all(self) -> None:
        """End every stream now, as failed and resumable."""
        for running in list(self._running):
            running.interrupt(Draining("This process is stopping; go on elsewhere with `after`."))
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self._idle.wait()


def retry_ms() -> int:
    """Draw the milliseconds until an interrupted client should come back, for not all at once."""
    return 500 + random.randrange(_RETRY_SPREAD)  # noqa: S311 - a guess gains nothing
