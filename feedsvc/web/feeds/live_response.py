"""The answer to `live=1`: a snapshot or what has changed since, then the events of a cohort."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final, NoReturn

from aiohttp import web

from feedsvc.core import identifiers
from feedsvc.core.broadcast import Broadcast
from feedsvc.core.drain import retry_ms
from feedsvc.core.events import FeedReset
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter, Reset
from feedsvc.core.timing import Stages
from feedsvc.feeds.export import Export, open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.live.cohort import Cohort
from feedsvc.feeds.live.event_id import EventId
from feedsvc.feeds.live.joining import join
from feedsvc.feeds.live.live_query import LiveFeed, LiveQuery, behind
from feedsvc.feeds.live.shared_rows import RowsReplayed
from feedsvc.feeds.live.step import PARAMETER, LiveState, LiveStep
from feedsvc.feeds.live.tail import Tail
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import choice
from feedsvc.web import headers
from feedsvc.web.context import REQUEST_ID, SERVICE, STAGES
from feedsvc.web.feeds.body import Body, Parkable
from feedsvc.web.feeds.breaking_off import BreakingOff, break_off, failure
from feedsvc.web.hand_over import hand_over, prepare_head
from feedsvc.web.record import RECORD
from streams import live
from streams.compression import Identity
from streams.formats import SSE, Pieces, size_of
from streams.frames import Open

_PING: Final = (b": ping\n\n",)


class _Nothing:
    """The lease of an answer that holds nothing others may wait for."""

    def __init__(self) -> None:
        self.pressed = asyncio.Event()

    async def park(self) -> None:
        """Release nothing."""


class CohortChannel:
    """The events of a cohort, for one subscriber (see `LiveChannel`)."""

    __slots__ = ("_cohort", "_tail", "number")

    def __init__(self, cohort: Cohort, tail: Tail, number: int) -> None:
        self.number = number
        """See `LiveChannel`."""
        self._cohort = cohort
        self._tail = tail

    @property
    def broadcast(self) -> Broadcast:
        """See `LiveChannel`."""
        return self._cohort.broadcast

    def heartbeat(self) -> bytes:
        """See `LiveChannel`."""
        return self._tail.heartbeat(self._cohort)

    async def catch_up(self, number: int) -> tuple[Sequence[bytes], int]:
        """See `LiveChannel`."""
        return await self._tail.catch_up(self._cohort, number)


class LiveResponse:
    """The state of one answer: its head, what was written, and how its beginning ends."""

    def __init__(
        self, request: web.Request, query: LiveQuery, principal: Principal, address: str
    ) -> None:
        self._request = request
        self._query = query
        self._principal = principal
        self._address = address
        self._service = request.app[SERVICE]
        self._settings = self._service.settings.streams
        self._tail = self._service.tail
        self._body: Body | None = None
        self._response = web.StreamResponse(headers=self._fields())
        self._cursors = self._service.deltas.cursors
        # What the client has if all that was written reaches it.
        self._place: EventId | None = query.since

    def head(self) -> web.Response:
        """The headers alone."""
        return web.Response(headers=self._fields())

    def breaking_off(self) -> BreakingOff:
        """Break the answer off where the block fails, with any error."""
        return BreakingOff(self)

    async def break_off(self, error: Exception) -> NoReturn:
        """See `Breakable`."""
        await break_off(self._request, self._body, error, lambda: self._last_words(error))

    async def stream(self) -> web.StreamResponse:
        """Send the beginning, then hand the connection over to the cohort's subscriber."""
        try:
            async with asyncio.timeout(self._settings.export_timeout):
                cursor, is_whole = await self._snapshot()
                joined = await join(
                    self._tail, self._find, cursor, self._send_step, is_whole=is_whole
                )
                if not joined.is_in_sync:
                    with joined.cohort.pinned():
                        await self._send((live.sync(self._cursors.text(joined.state)),))
        except Reset as problem:
            return await self._reset(problem)
        with joined.cohort.pinned():
            channel = CohortChannel(joined.cohort, self._tail, joined.number)
            return await hand_over(self._request, self._response, channel)

    def _find(self) -> Cohort:
        return self._tail.cohort(self._query, self._principal, self._address)

    async def _send_step(self, before: LiveState, step: LiveStep) -> None:
        events = step.events(
            self._cursors.text(before), self._cursors.text(step.cursor), syncs=True
        )
        self._count(step.upserts + step.deletes, sum(map(len, events)))
        for event in events:
            await self._send((event,))

    async def _snapshot(self) -> tuple[LiveState, bool]:
        """Send the rows that the client lacks; the cursor from which changes follow.

        And whether it has the state of this cursor, and nothing more.
        """
        place = self._place
        if place is not None and place.feed is None:
            return self._cursors.parse(place.cursor), not place.is_within_step
        cursor = "" if place is None else place.cursor
        first = 0 if place is None or place.feed is None else place.feed
        token = None if place is None else place.token
        is_whole = False
        if cursor:
            self._cursors.parse(cursor)
        for at, feed in enumerate(self._query.feeds[first:], first):
            query = feed.snapshot if token is None else feed.snapshot.behind(token)
            async with self._opened(feed, query, is_first=not cursor) as export:
                cursor = cursor or await self._followed(export, feed)
                await self._send_rows(feed, EventId(cursor, at, token), export)
                is_whole = place is None and len(self._query.feeds) == 1 and export.snapshots == 1
            token = None
        return self._cursors.parse(cursor), is_whole

    @asynccontextmanager
    async def _opened(
        self, feed: LiveFeed, query: FeedQuery, *, is_first: bool
    ) -> AsyncIterator[Export | RowsReplayed]:
        """The rows of a feed: those of the only one are shared, as far as they are few."""
        pool, stages = self._service.pools[feed.dataset.pool], self._request[STAGES]
        options = self._options(feed if is_first else None)
        rows = None
        if is_first and len(self._query.feeds) == 1:
            cohort = self._find()
            begin = partial(open_export, query, cohort.reader, pool, options, Stages())
            with cohort.pinned():
                rows = await self._service.shared_reads.of(cohort, begin)
        if rows is None:
            async with open_export(query, self._principal, pool, options, stages) as export:
                yield export
            return

        def rest(token: str | None) -> Export:
            on = replace(options, cursor=None, count_timeout=0)
            return Export(behind(query, token), self._principal, pool, on, stages)

        replayed = RowsReplayed(rows, rest)
        try:
            yield replayed
        finally:
            await replayed.close()

    def _options(self, feed: LiveFeed | None) -> ExportOptions:
        settings = self._settings
        options = ExportOptions(
            settings.chunk_bytes,
            source_factory=partial(choice.candidate, copy_after=settings.copy_after),
            count_timeout=settings.count_timeout,
        )
        if feed is None:
            return options
        queries = [feed.snapshot for feed in self._query.feeds]
        make = partial(self._cursors.of_several, queries=queries, principal=self._principal)
        return replace(options, cursor=make)

    async def _followed(self, export: Export | RowsReplayed, feed: LiveFeed) -> str:
        """The cursor of the export's first snapshot. Raises BadParameter where there is none."""
        if export.cursor is None:
            what = "live is not offered here: the changes of a feed can't be followed."
            raise BadParameter(what, parameter=PARAMETER)
        return export.cursor

    async def _send_rows(
        self, feed: LiveFeed, place: EventId, export: Export | RowsReplayed
    ) -> None:
        if self._body is None:
            await self._start()
        total, kind = export.total()
        columns, name = feed.snapshot.layout.columns, feed.dataset.name
        opening = Open(
            identifiers.new_uuid(), name, columns, total, kind, place.token, place.cursor
        )
        await self._send((live.opening(str(place), opening, feed.name),), export)
        while True:
            ready = await export.wait(self._settings.ping_interval)
            if not ready:
                await self._send(_PING, export)
                continue
            rows = await export.take()
            if rows is None:
                return
            place = place._replace(token=rows.last)
            made = live.rows(str(place), rows, feed.name)
            self._count(rows.count, size_of(made))
            await self._send(made, export)

    async def _start(self) -> None:
        prepare_head(self._response)
        body = Body(self._request, self._response, Identity(), self._settings, _Nothing())
        await body.start()
        self._body = body

    async def _send(self, made: Pieces, held: Parkable | None = None) -> None:
        if self._body is None:
            await self._start()
        if self._body is not None:
            self._body.held = held or _Nothing()
            await self._body.send(made)

    async def _reset(self, problem: Reset) -> web.StreamResponse:
        """Say that what was asked for can't be continued, and end the answer."""
        problem.fresh = self._address
        self._request[RECORD].problem = problem
        for feed in self._query.feeds:
            self._service.observers.publish(FeedReset(feed.dataset.name, problem.reason))
        body = problem.body(self._request.path, self._request[REQUEST_ID])
        await self._send((live.reset(body, retry_ms()),))
        if self._body is not None:
            await self._body.finish()
        return self._response

    def _last_words(self, error: Exception) -> Pieces:
        problem = failure(self._request, error, None).problem
        return (live.failure(problem, retry_ms()),)

    def _count(self, rows: int, size: int) -> None:
        self._service.limits.charge(self._principal, rows, size)
        known = self._request[RECORD]
        known.rows, known.size = known.rows + rows, known.size + size

    def _fields(self) -> dict[str, str]:
        return {
            "Content-Type": SSE.media_types[0],
            "Cache-Control": "no-store",
            "Vary": headers.VARY,
            **headers.UNBUFFERED,
        }
