"""A page and a feed behind one origin: a reverse proxy that cuts the feed's first answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support.http_server import listening

_PATIENCE: Final = 60.0  # seconds


@dataclass
class Front:
    """The page, its reports, and the requests for feeds that came, with their cookies.

    A client posts to `/read` once it has what a cut must not take from it.
    """

    upstream: str
    page: str
    url: str = ""
    cut_after: int = 4_096
    feeds: list[dict[str, str]] = field(default_factory=list)
    reports: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)
    read: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer_page(self, _request: web.Request) -> web.Response:
        """The page."""
        return web.Response(text=self.page, content_type="text/html")

    async def take_report(self, request: web.Request) -> web.Response:
        """The page's next report."""
        await self.reports.put(await request.json())
        return web.Response()

    async def note_read(self, _request: web.Request) -> web.Response:
        """Let the first answer be cut off."""
        self.read.set()
        return web.Response()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """A feed, cut off without a proper end when it is asked for first."""
        is_first = not self.feeds
        self.feeds.append(dict(request.headers))
        url = f"{self.upstream}{request.raw_path}"
        headers = {k: v for k, v in request.headers.items() if k not in ("Host", "Accept-Encoding")}
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.get(URL(url, encoded=True), headers=headers) as given,
        ):
            response = web.StreamResponse(status=given.status)
            for name in ("Content-Type", "Set-Cookie"):
                for value in given.headers.getall(name, ()):
                    response.headers.add(name, value)
            await response.prepare(request)
            sent = 0
            async for piece in given.content.iter_any():
                await response.write(piece[: self.cut_after] if is_first else piece)
                sent += len(piece)
                if is_first and sent >= self.cut_after:
                    assert request.transport is not None
                    async with asyncio.timeout(_PATIENCE):
                        await self.read.wait()
                    request.transport.close()
                    raise ConnectionResetError
        return response


@asynccontextmanager
async def fronted(upstream: str, page: str = "") -> AsyncIterator[Front]:
    """The front of a service for as long as the block runs."""
    front = Front(upstream, page)
    app = web.Application()
    app.router.add_get("/page", front.answer_page)
    app.router.add_post("/report", front.take_report)
    app.router.add_post("/read", front.note_read)
    app.router.add_get("/v1/feeds/{name}", front.forward)
    async with listening(app) as url:
        front.url = url
        yield front
