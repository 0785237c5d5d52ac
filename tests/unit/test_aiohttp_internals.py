"""Where aiohttp's inside is another one, its own connections serve."""

import logging
import socket
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from feedsvc.settings import Settings
from feedsvc.web.application import Runner
from feedsvc.web.context import SERVICE, Service
from feedsvc.web.protocol import aiohttp_internals
from feedsvc.web.protocol.server import FeedServer


@pytest.mark.parametrize("known", [True, False])
async def test_a_missing_name_leaves_aiohttps_own_connections(
    known: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not known:
        monkeypatch.setattr(aiohttp_internals, "NAMES", ("_messages", "_gone"))
    settings = Settings()
    app = web.Application()
    service = SimpleNamespace(settings=settings, drain=SimpleNamespace(begun=True))
    app[SERVICE] = cast("Service", service)
    app.router.add_get("/", _answer)
    runner = Runner(app, settings.server)
    with caplog.at_level(logging.WARNING), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        await runner.setup()
        try:
            await runner.answer_on(listener)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            assert not runner.is_connected()
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                assert await answer.text() == "served"
                assert runner.is_connected(), "a handover would not wait for this client"
            assert isinstance(runner.server, FeedServer) == known
        finally:
            await runner.cleanup()
    assert ("_gone" in caplog.text) != known


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="served")
