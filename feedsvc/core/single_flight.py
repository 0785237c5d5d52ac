"""One load for any number of requests that want the same page at once, within this process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from feedsvc.core.problems import Unavailable

T = TypeVar("T")

_MOST_LOADS: Final = 3


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0


class Flights(Generic[T]):
    """Loads that are under way, by key.

    A load belongs to no request: the first one may go, and it goes on for the others. When the last
    one has gone it is cancelled.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()
        """All loads, also those that can't be joined any more, until they have ended."""

    def __contains__(self, key: str) -> bool:
        return key in self._flights

    async def join(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        """The result of the load under way, or of a new one. Raises what it raises."""
        for _ in range(_MOST_LOADS):
            flight = self._flights.get(key) or self._begin(key, load)
            try:
                return await self._wait(key, flight)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not flight.task.cancelled() or task is None or task.cancelling():
                    raise
                # It was the load that was cancelled, and not this request: it joins another.
                self._forget(key, flight)
        raise Unavailable("The page could not be read just now.")

    async def _wait(self, key: str, flight: _Flight[T]) -> T:
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                # A new request must not join a load that is ending.
                self._forget(key, flight)

    def keep(self, key: str, load: Callable[[], Awaitable[T]]) -> None:
        """Load in the background, unless that is under way already."""
        flight = self._flights.get(key) or self._begin(key, load)
        flight.waiting += 1  # never taken back: it is finished in any case

    async def close(self) -> None:
        """Cancel every load, and wait until all have ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: str, load: Callable[[], Awaitable[T]]) -> _Flight[T]:
        async def loading() -> T:
            return await load()

        flight = _Flight(asyncio.create_task(loading()))
        self._flights[key] = flight
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._finished(key, flight, task))
        return flight

    def _finished(self, key: str, flight: _Flight[T], task: asyncio.Task[T]) -> None:
        self._forget(key, flight)
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio would log it: no request waits for it

    def _forget(self, key: str, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
