"""An address of the settings: the status it should have, and how long it may take."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from feedsvc.operations.health import check_links
from feedsvc.settings import HttpCheck
from tests.support.http_server import listening

PARTS = cast("Any", None)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server whose `/status/NUMBER` has that status, and whose `/never` does not answer."""
    over = asyncio.Event()

    async def status(request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["status"]))

    async def never(_request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/status/{status}", status)
    app.router.add_get("/never", never)
    async with listening(app) as made:
        yield made
        over.set()


@pytest.mark.parametrize(
    ("wanted", "answered", "state"),
    [(200, 200, "ok"), (204, 204, "ok"), (401, 401, "ok"), (204, 200, "down"), (200, 500, "down")],
)
async def test_the_status_is_the_one_that_the_settings_name(
    url: str, wanted: int, answered: int, state: str
) -> None:
    given = HttpCheck(url=f"{url}/status/{answered}", status=wanted, timeout=0.7)
    found = await check_links.http(given, PARTS)
    assert (found.state, found.figures["status"]) == (state, answered)
    assert str(answered) in found.what
    assert (f"not {wanted}" in found.what) == (state == "down")


async def test_the_timeout_is_the_one_that_the_settings_name(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float | None] = []
    make = aiohttp.ClientTimeout

    def noted(total: float) -> aiohttp.ClientTimeout:
        given.append(total)
        return make(total=total)

    monkeypatch.setattr(aiohttp, "ClientTimeout", noted)
    found = await check_links.http(HttpCheck(url=f"{url}/never", timeout=0.123), PARTS)
    assert (found.state, found.what) == ("down", "It does not answer (TimeoutError).")
    assert given == [0.123]
