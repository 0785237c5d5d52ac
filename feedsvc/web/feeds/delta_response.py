"""The answer to `since`: what has changed, and the cursor to come back with."""

import asyncio
from collections.abc import Mapping
from typing import Final, NoReturn
from urllib.parse import urlencode

from aiohttp import web

from feedsvc.core.events import DeltaSent, FeedReset
from feedsvc.core.problems import Reset
from feedsvc.feeds.delta import Delta
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.delta_wait import Begun, Pings
from feedsvc.web import headers
from feedsvc.web.context import REQUEST_ID, SERVICE, STAGES
from feedsvc.web.feeds.body import Body, Parkable
from feedsvc.web.feeds.breaking_off import (
    BreakingOff,
    break_off,
    failure,
    refuse_what_cannot_show_its_end,
)
from feedsvc.web.feeds.feed_response import Charge
from feedsvc.web.record import RECORD
from streams.compression import CODINGS
from streams.deltas import ChangeBatch, ResetNeeded, Sync, delta_encoder
from streams.formats import SSE, Pieces, size_of
from streams.frames import Ping

_NOT_IN_AN_EXPORT: Final = frozenset(
    {"since", "wait", "seen", "digest", "format", "frames", "last_event_id"}
)


class _NothingHeld:
    """The part of an answer that waits, for which no other request waits."""

    def __init__(self) -> None:
        self.pressed = asyncio.Event()

    async def park(self) -> None:
        """Release nothing."""


class DeltaResponse:
    """The state of one answer: its head, the changes that were written, and how it ends."""

    def __init__(
        self,
        request: web.Request,
        query: DeltaQuery,
        coding: str,
        given: Mapping[str, str],
        charge: Charge,
    ) -> None:
        self._request = request
        self._query = query
        self._coding = coding
        self._given = given
        self._charge = charge
        self._encoder = delta_encoder(query.format, query.rows.layout)
        self._settings = request.app[SERVICE].settings.streams
        self._stages = request[STAGES]
        self._response = web.StreamResponse()
        self._body: Body | None = None

    def head(self) -> web.Response:
        """The headers alone."""
        return web.Response(headers=self._fields())

    @property
    def pings(self) -> Pings | None:
        """The signs of life while the request waits, where the format has any."""
        if self._query.format is not SSE:
            return None
        return Pings(self._settings.ping_interval, self._ping)

    def breaking_off(self) -> BreakingOff:
        """Break the answer off where the block fails, with any error."""
        return BreakingOff(self)

    async def break_off(self, error: Exception) -> NoReturn:
        """See `Breakable`."""
        await break_off(
            self._request,
            self._body,
            error,
            lambda: self._encoder.encode(failure(self._request, error, None)),
        )

    async def stream(self, begun: Begun) -> web.StreamResponse:
        """Send the changes, then the cursor of the state that they lead to."""
        delta = begun.delta
        async with asyncio.timeout(self._settings.export_timeout):
            body = await self._begun(delta)
            last = await self._send_all(begun, body)
            await delta.close()
            await body.send(self._encoder.encode(last))
        await body.finish()
        return self._response

    async def _begun(self, held: Parkable) -> Body:
        """The body, whose head has left; `held` is released while the client is behind."""
        if self._body is not None:
            self._body.held = held
            return self._body
        refuse_what_cannot_show_its_end(self._request)
        self._response = web.StreamResponse(headers=self._fields())
        self._response.enable_chunked_encoding()
        compressor = CODINGS[self._coding]()
        body = Body(self._request, self._response, compressor, self._settings, held)
        self._body = body
        await body.start()
        return body

    async def _ping(self) -> None:
        """Show the client, and what stands between, that the answer is on its way."""
        body = await self._begun(_NothingHeld())
        await body.send(self._encoder.encode(Ping()))

    async def _send_all(self, begun: Begun, body: Body) -> Sync | ResetNeeded:
        """Send all changes; the frame that ends the delta."""
        delta, changes = begun.delta, begun.first
        try:
            while changes is not None:
                await body.send(self._encoded(changes))
                changes = await self._taken(delta)
        except Reset as problem:
            if self._query.format is not SSE:
                raise  # and so break off: the status is another already
            return self._reset_needed(problem)
        self._observe(DeltaSent(self._query.dataset.name, delta.upserts + delta.deletes))
        rows, digest = delta.digest or (None, None)
        return Sync(begun.cursor, delta.upserts, delta.deletes, self._query.digest, rows, digest)

    async def reset(self, problem: Reset) -> web.StreamResponse:
        """Say that the cursor can't be continued: by the status, or as an EventSource can read it.

        Raises the problem where the answer's format is not SSE.
        """
        if self._query.format is not SSE and self._body is not None:
            raise problem  # and so break off: the status is another already
        needed = self._reset_needed(problem)
        if self._query.format is not SSE:
            raise problem
        if self._body is not None:
            await self._body.send(self._encoder.encode(needed))
            await self._body.finish()
            return self._response
        made = b"".join(self._encoder.encode(needed))
        compressor = CODINGS[self._coding]()
        packed = b"".join((*compressor.compress((made,)), compressor.finish()))
        return web.Response(body=packed, headers=self._fields())

    def _reset_needed(self, problem: Reset) -> ResetNeeded:
        problem.fresh = self._fresh()
        self._request[RECORD].problem = problem
        self._observe(FeedReset(self._query.dataset.name, problem.reason))
        return ResetNeeded(problem.body(self._request.path, self._request[REQUEST_ID]))

    def _observe(self, event: DeltaSent | FeedReset) -> None:
        self._request.app[SERVICE].observers.publish(event)

    async def _taken(self, delta: Delta) -> ChangeBatch | None:
        with self._stages.timing("db"):
            return await delta.take()

    def _encoded(self, changes: ChangeBatch) -> Pieces:
        with self._stages.timing("encode"):
            made = self._encoder.encode(changes)
        known, size = self._request[RECORD], size_of(made)
        count = len(changes.upserts) + len(changes.deletes)
        self._charge(count, size)
        known.rows, known.size = known.rows + count, known.size + size
        return made

    def _fresh(self) -> str:
        """The URL of a new export of the same columns and filters, whose end has a cursor."""
        kept = {n: value for n, value in self._given.items() if n not in _NOT_IN_AN_EXPORT}
        kept["format"] = self._query.format.name
        if self._query.format is not SSE:
            kept["frames"] = "1"
        return f"{self._request.rel_url.raw_path}?{urlencode(kept)}"

    def _fields(self) -> dict[str, str]:
        principal = self._request[RECORD].principal
        words = principal is not None and principal.operator
        fields = {
            "Content-Type": self._query.format.media_types[0],
            "Cache-Control": "no-store",
            "Server-Timing": self._stages.server_timing(words=words),
            "Vary": headers.VARY,
            **headers.UNBUFFERED,
        }
        if self._coding != "identity":
            fields["Content-Encoding"] = self._coding
        return fields
