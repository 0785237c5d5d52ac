"""Streams that are cut while their client is slow: the last frame arrives, also by haproxy."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.balancer import balancing, needs_haproxy
from tests.support.servers import LOGIN, as_login
from tests.support.service import NO_REDIS, Running, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

SCHEMA = f"""
CREATE SCHEMA wide;
CREATE TABLE wide.long (n int PRIMARY KEY, filling text);
INSERT INTO wide.long SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 40000) AS n;
GRANT USAGE ON SCHEMA wide TO {LOGIN};
GRANT SELECT ON wide.long TO {LOGIN};
"""
DATASETS = '[long]\nrelation = "wide.long"\nkey = ["n"]\nshared = true\n'
PAUSE = 0.02  # seconds after each piece
PIECE = 16_384  # bytes
STILL = 7.0  # seconds in which a client reads nothing, and hardly any of the time that it may
every_way = pytest.mark.parametrize("way", ["direct", pytest.param("haproxy", marks=needs_haproxy)])
FORMS = ["format=sse", "format=ndjson&frames=1"]


@pytest.fixture(scope="module")
async def wide(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(script=SCHEMA) as url:
        yield as_login(url)


def connected(url: str, form: str) -> socket.socket:
    """A client with a small buffer that has asked and reads nothing yet."""
    parts = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.settimeout(60)
    client.connect((parts.hostname, parts.port))
    head = f"GET /v1/feeds/long?{form} HTTP/1.1\r\nHost: x\r\n"
    client.sendall(f"{head}Authorization: {bearer()['Authorization']}\r\n\r\n".encode())
    return client


def read(client: socket.socket, pause: float = 0.0) -> bytes:
    """Read all that arrives until the connection ends, with a pause after each piece."""
    received = bytearray()
    with client:
        while True:
            try:
                piece = client.recv(PIECE)
            except ConnectionError:
                return bytes(received)
            if not piece:
                return bytes(received)
            received += piece
            time.sleep(pause)


@asynccontextmanager
async def begun(
    url: str, folder: Path, settings: dict[str, str], way: str
) -> AsyncIterator[tuple[Running, list[socket.socket]]]:
    """A service, and a client of each form that has read the head of its stream and no more."""
    datasets = folder / "datasets.toml"
    datasets.write_text(DATASETS)
    with serving(url, datasets=datasets, settings={**NO_REDIS, **settings}) as service:
        through = balancing([service.port], folder) if way == "haproxy" else None
        with through or nullcontext(service.url) as address:
            clients = [connected(address, form) for form in FORMS]
            for client in clients:
                head = await asyncio.to_thread(client.recv, 1_000)
                assert b" 200 OK" in head, [line for line in service.log if "unforeseen" in line]
            yield service, clients


@every_way
async def test_a_slow_client_gets_to_read_why_its_stream_was_cut(
    wide: str, tmp_path: Path, way: str
) -> None:
    settings = {"FEEDSVC_STREAMS__DRAIN_TIMEOUT": "0.5"}
    async with begun(wide, tmp_path, settings, way) as (service, clients):
        service.terminate()
        bodies = await asyncio.gather(*(asyncio.to_thread(read, each, PAUSE) for each in clients))
    for body in bodies:
        assert b"/problems/draining" in body[-2_000:], body[-200:]


@every_way
async def test_a_client_that_pauses_gets_to_read_why_its_export_was_ended(
    wide: str, tmp_path: Path, way: str
) -> None:
    """The last bytes wait in the service for as long as a client that is behind may be still."""
    settings = {"FEEDSVC_STREAMS__EXPORT_TIMEOUT": "1", "FEEDSVC_STREAMS__STALL_TIMEOUT": "120"}
    async with begun(wide, tmp_path, settings, way) as (service, clients):
        async with asyncio.timeout(60):
            while sum("broken off" in line for line in service.log) < len(clients):
                await asyncio.sleep(0.05)
        await asyncio.sleep(STILL)
        bodies = await asyncio.gather(*(asyncio.to_thread(read, each) for each in clients))
    for body in bodies:
        assert b"/problems/timeout" in body[-2_000:], body[-200:]
