"""Series of figures as events, each computed once for all who watch the same ones."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Final, NamedTuple, TypeAlias

import orjson
from aiohttp import web

from feedsvc.backends.postgres.faults import problem_of
from feedsvc.core.broadcast import Broadcast, FanOut
from feedsvc.core.problems import Problem

logger = logging.getLogger(__name__)

_PING: Final = b": ping\n\n"


class Event(NamedTuple):
    """An event whose data is sent as JSON."""

    event: str
    data: Any


class SentEvent(NamedTuple):
    """An event as it was published: its name, its data as text, and its number."""

    event: str
    text: str
    number: int

    def encoded(self) -> bytes:
        """The event as it is sent. JSON has no line ends."""
        return f"event: {self.event}\ndata: {self.text}\n\n".encode()


MakeEvents: TypeAlias = Callable[[], AsyncGenerator[Event, None]]


class EventSeries:
    """Events that a task publishes for as long as there is one who watches.

    It is a `LiveChannel` of all of them, from the event behind the newest on.
    """

    def __init__(self, fan_out: FanOut, events: AsyncGenerator[Event, None]) -> None:
        self.broadcast = Broadcast(fan_out)
        self.number = 0
        """The number of the next event, for one that has the newest."""
        self._events = events
        self._newest: asyncio.Future[SentEvent] = asyncio.get_running_loop().create_future()
        self._joining = 0
        self.task = asyncio.create_task(self._run())

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Go on while the block runs, also without a subscriber."""
        self._joining += 1
        try:
            yield
        finally:
            self._joining -= 1

    async def newest(self) -> SentEvent:
        """The newest event, once there is one. Raises the error of the first."""
        return await asyncio.shield(self._newest)

    def heartbeat(self) -> bytes:
        """See `LiveChannel`: a comment, for the events have no ids."""
        return _PING

    async def catch_up(self, number: int) -> tuple[Sequence[bytes], int]:
        """See `LiveChannel`: the newest event says all."""
        newest = await self.newest()
        return [newest.encoded()], max(number, newest.number + 1)

    async def _run(self) -> None:
        try:
            async with aclosing(self._events):
                async for event in self._events:
                    self._publish(event)
                    if not self._joining and not self.broadcast.count:
                        return
        except Exception as error:  # noqa: BLE001 - those who wait for the series raise it
            self._fail(error)

    def _publish(self, event: Event) -> None:
        text, number = orjson.dumps(event.data).decode(), self.broadcast.next
        sent = SentEvent(event.event, text, number)
        self.broadcast.publish(sent.encoded())
        self.number = number + 1
        if self._newest.done():
            self._newest = asyncio.get_running_loop().create_future()
        self._newest.set_result(sent)

    def _fail(self, error: Exception) -> None:
        if not self._newest.done():
            self._newest.set_exception(error)
            self._newest.exception()  # it may be awaited by none
            return
        problem = problem_of(error)
        if not isinstance(error, Problem):
            logger.warning("figures for operators broke off", exc_info=error)
        self.broadcast.end(error_event(problem, "", ""), problem.name)


class SeriesBoard:
    """The series that are computed now, by what they are of."""

    def __init__(self) -> None:
        self._series: dict[Hashable, EventSeries] = {}

    def series(self, key: Hashable, fan_out: FanOut, events: MakeEvents) -> EventSeries:
        """The series of this key, begun where there is none."""
        found = self._series.get(key)
        if found is None or found.task.done():
            found = self._series[key] = EventSeries(fan_out, events())
            found.task.add_done_callback(lambda _: self._forget(key, found))
        return found

    async def close(self, _: object = None) -> None:
        """Compute nothing any more."""
        tasks = [each.task for each in self._series.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: Hashable, series: EventSeries) -> None:
        if self._series.get(key) is series:
            del self._series[key]


SERIES: Final = web.AppKey("series", SeriesBoard)


def error_event(problem: Problem, instance: str, request_id: str, retry_ms: int = 0) -> bytes:
    """`event: error` with the problem."""
    retry = b"retry: %d\n" % retry_ms if retry_ms else b""
    return b"event: error\n%bdata: %b\n\n" % (
        retry,
        orjson.dumps(problem.body(instance, request_id)),
    )
