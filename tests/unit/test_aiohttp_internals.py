"""The service does without the inside of a library where that has changed."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from feedsvc.backends.postgres import asyncpg_internals
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
        _forget_a_name(monkeypatch)
    with caplog.at_level(logging.WARNING):
        async with _running() as (runner, port):
            assert not runner.is_connected()
            url = f"http://127.0.0.1:{port}/"
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                assert await answer.text() == "served"
                assert runner.is_connected(), "a handover would not wait for this client"
            assert isinstance(runner.server, FeedServer) == known
    assert ("_gone" in caplog.text) != known


@pytest.mark.parametrize("known", [True, False])
async def test_a_stop_ends_idle_connections(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not known:
        _forget_a_name(monkeypatch)
    async with _running() as (runner, port), asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"served")).startswith(b"HTTP/1.1 200 ")
        runner.part(30)
        assert await reader.read() == b"", "an idle client is not parted from"
        writer.close()
        while runner.is_connected():
            await asyncio.sleep(0)


def test_the_check_names_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert aiohttp_internals.fault() is None
    assert asyncpg_internals.fault() is None
    _forget_a_name(monkeypatch)
    assert str(aiohttp_internals.fault()).endswith(" has no _gone")
    assert str(asyncpg_internals.fault()).endswith(" has no _gone")
    monkeypatch.setattr(aiohttp_internals, "VERSIONS", ("2.",))
    assert str(aiohttp_internals.fault()).endswith(" is none of 2.x")


def _forget_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp_internals, "NAMES", ("_messages", "_gone"))
    monkeypatch.setattr(asyncpg_internals, "NAMES", ("_addr", "_gone"))


@asynccontextmanager
async def _running() -> AsyncIterator[tuple[Runner, int]]:
    """A runner that answers, and its port."""
    settings, app = Settings(), web.Application()
    service = SimpleNamespace(settings=settings, drain=SimpleNamespace(begun=True))
    app[SERVICE] = cast("Service", service)
    app.router.add_get("/", _answer)
    runner = Runner(app, settings.server)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        await runner.setup()
        try:
            await runner.answer_on(listener)
            yield runner, listener.getsockname()[1]
        finally:
            await runner.cleanup()


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="served")
