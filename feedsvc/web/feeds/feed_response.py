"""The answer to a request for a feed, from its head to its proper end, or to a visible break.

There is one place that ends a stream properly, and it is reached only behind the last row.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeAlias

from aiohttp import web

from feedsvc.cache.memory import CacheEntry
from feedsvc.cache.status import PAST_THE_CACHE, CacheStatus
from feedsvc.core import identifiers
from feedsvc.feeds.export import Export
from feedsvc.web import headers
from feedsvc.web.context import SERVICE, STAGES
from feedsvc.web.feeds.body import Body
from feedsvc.web.feeds.breaking_off import (
    BreakingOff,
    break_off,
    failure,
    refuse_what_cannot_show_its_end,
)
from feedsvc.web.feeds.rendering import PageForm
from feedsvc.web.record import RECORD
from streams.compression import CODINGS
from streams.formats import Pieces, size_of
from streams.frames import End, Failure, Open, Ping, Progress, Rows

Charge: TypeAlias = Callable[[int, int], None]
"""Charges rows and bytes before they are sent; raises RateLimited where they are too many."""


class FeedResponse:
    """The state of one answer: its head, the rows that were written, and how it ends."""

    def __init__(self, request: web.Request, form: PageForm, charge: Charge) -> None:
        query = form.query
        self.form = form
        self._request = request
        self._query = query
        self._export = query.export or identifiers.new_uuid()
        self._settings = request.app[SERVICE].settings.streams
        self._charge = charge
        self._encoder = query.format.encoder(query.layout)
        self._stages = request[STAGES]
        self._body: Body | None = None
        # What the client has if all that was written reaches it.
        self._rows = 0
        self._after = query.after_token

    def head(self, *, is_page: bool) -> web.Response:
        """The headers alone, of a page or of a stream."""
        own = {} if is_page else headers.UNBUFFERED
        return web.Response(headers={**self._fields(PAST_THE_CACHE), **own})

    def page(self, held: CacheEntry, status: CacheStatus) -> web.Response:
        """A page as an answer of known length. Raises RateLimited."""
        form, page = self.form, held.page
        tag = form.entity_tag(held)
        own = {"ETag": tag}
        if (link := form.link(page)) is not None:
            own["Link"] = link
        if headers.matches(self._request.headers.get("If-None-Match"), tag):
            return web.Response(status=304, headers={**self._fields(status), **own})
        with self._stages.timing("encode"):
            if self._query.is_framed:
                made = form.body(page, self._export, self._stages.elapsed_ms())
            else:
                made = form.rendered(held)
                self._request.app[SERVICE].pages.remeasure(held)
        self._charge(len(page.records), made.rows_size)
        known = self._request[RECORD]
        known.rows, known.size = len(page.records), made.rows_size
        return web.Response(body=made.body, headers={**self._fields(status), **own})

    async def stream(
        self, export: Export, begun: Iterator[Rows], status: CacheStatus
    ) -> web.StreamResponse:
        """Send the rows that were read already, then all the others as they come.

        An iterator, for what was sent must not be kept for as long as a client stalls. To be called
        within `breaking_off`, which ends the body where this raises.
        """
        refuse_what_cannot_show_its_end(self._request)
        response = web.StreamResponse(headers={**self._fields(status), **headers.UNBUFFERED})
        response.enable_chunked_encoding()
        compressor = CODINGS[self.form.coding]()
        body = Body(self._request, response, compressor, self._settings, export)
        async with asyncio.timeout(self._settings.export_timeout):
            self._body = body
            await body.start()
            await body.send(self._encoder.encode(self._open(export)))
            await self._send_all(begun, body)
            await self._send_the_rest(export, body)
            await body.send(self._encoder.encode(self._end(export)))
        await body.finish()
        return response

    def breaking_off(self) -> BreakingOff:
        """Break the answer off where the block fails, with any error."""
        return BreakingOff(self)

    async def break_off(self, error: Exception) -> NoReturn:
        """See `BreakingOff`."""
        await break_off(
            self._request, self._body, error, lambda: self._encoder.encode(self._failure(error))
        )

    async def _send_all(self, begun: Iterator[Rows], body: Body) -> None:
        for chunk in map(self._rows_frame, begun):
            await body.send(chunk)

    async def _send_the_rest(self, export: Export, body: Body) -> None:
        last_write = last_progress = time.monotonic()
        while True:
            pause = self._query.progress if self._query.is_framed else None
            with self._stages.timing("db"):
                ready = await export.wait(min(pause or 60.0, self._settings.ping_interval))
                rows = await export.take() if ready else None
            if ready:
                chunk, rows = self._chunk(rows), None
                if chunk is None:
                    return
                await body.send(chunk)
            now = time.monotonic()
            if pause is not None and now - last_progress >= pause:
                await body.send(self._encoder.encode(self._progress(export)))
                last_write = last_progress = now
            elif ready:
                last_write = now
            elif now - last_write >= self._settings.ping_interval:
                await body.send(self._encoder.encode(Ping()))
                last_write = now

    def _fields(self, status: CacheStatus) -> dict[str, str]:
        fields = headers.of_feed(self._query, self._export, status)
        principal = self._request[RECORD].principal
        words = principal is not None and principal.operator
        fields["Server-Timing"] = self._stages.server_timing(words=words)
        if self.form.coding != "identity":
            fields["Content-Encoding"] = self.form.coding
        return fields

    def _chunk(self, rows: Rows | None) -> Pieces | None:
        """The rows as bytes. The rows themselves end here: a stalled stream must not keep both."""
        return None if rows is None else self._rows_frame(rows)

    def _rows_frame(self, rows: Rows) -> Pieces:
        with self._stages.timing("encode"):
            encoded = self._encoder.encode(rows)
        size = size_of(encoded)
        self._charge(rows.count, size)
        self._rows += rows.count
        self._after = rows.last
        known = self._request[RECORD]
        known.rows, known.size = self._rows, known.size + size
        return encoded

    def _open(self, export: Export) -> Open:
        columns, started = self._query.layout.columns, self._query.after_token
        total, kind = export.total()
        name, cursor = self._query.dataset.name, export.cursor
        return Open(self._export, name, columns, total, kind, started, cursor)

    def _progress(self, export: Export) -> Progress:
        total, kind = export.total()
        return Progress(self._rows, total, kind, self._stages.elapsed_ms(), self._after)

    def _end(self, export: Export) -> End:
        return End(
            rows=self._rows,
            elapsed_ms=self._stages.elapsed_ms(),
            after=self._after,
            more=export.more,
            snapshots=export.snapshots,
            export=self._export,
            cursor=export.cursor,
        )

    def _failure(self, error: Exception) -> Failure:
        return failure(self._request, error, self._after)
