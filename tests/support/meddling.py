"""A reverse proxy that takes streams of events for pages: holds back, asks again, keeps."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support.http_server import listening

_PASSED_ON: Final = ("Authorization", "Last-Event-ID")
_HEAD: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}


@dataclass
class MeddlingProxy:
    """A proxy in front of `target`; without a fault it passes each piece on as it comes.

    With `is_whole` an answer is passed on once it is over. With `asks_again` each request is made
    once more when its first answer has begun, which is dropped. An answer that is over is given to
    the next `stale` requests of the same caller and address, whatever its headers say.
    """

    target: str
    http: aiohttp.ClientSession
    is_whole: bool = False
    asks_again: bool = False
    stale: int = 0
    given_again: int = 0
    """The requests that got an old answer."""
    _kept: dict[tuple[str, str], deque[Sequence[bytes]]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on, and its answer back."""
        kept = self._kept[request.raw_path, request.headers["Authorization"]]
        response = web.StreamResponse(headers=_HEAD)
        await response.prepare(request)
        if kept:
            self.given_again += 1
            pieces = kept.popleft()
        else:
            if self.asks_again:
                async with self._ask(request) as first:
                    await first.content.readany()
            pieces = await self._fetched(request, None if self.is_whole else response)
            kept.extend([pieces] * self.stale)
            if not self.is_whole:
                return response
        for piece in pieces:
            await response.write(piece)
        return response

    async def _fetched(
        self, request: web.Request, response: web.StreamResponse | None
    ) -> Sequence[bytes]:
        """The answer's pieces, each of which the response gets as it comes."""
        pieces = []
        async with self._ask(request) as given:
            assert given.status == 200, await given.text()
            with suppress(aiohttp.ClientPayloadError):  # cut off: what came is passed on
                async for piece in given.content.iter_any():
                    pieces.append(piece)
                    if response is not None:
                        await response.write(piece)
        return pieces

    def _ask(self, request: web.Request) -> aiohttp.client._RequestContextManager:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        url = URL(f"{self.target}{request.raw_path}", encoded=True)
        return self.http.get(url, headers=headers)


@asynccontextmanager
async def meddling(
    target: str, *, is_whole: bool = False, asks_again: bool = False, stale: int = 0
) -> AsyncIterator[tuple[str, MeddlingProxy]]:
    """The proxy and its URL."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        proxy = MeddlingProxy(target, http, is_whole, asks_again, stale)
        app = web.Application()
        app.router.add_get("/{path:.*}", proxy.answer)
        async with listening(app) as url:
            yield url, proxy
