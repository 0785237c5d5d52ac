"""Over HTTP: what several connections read is the same, and no client keeps them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg
import pytest

from tests.integration.commands.test_check import environment
from tests.support.encoding import needs_encoder
from tests.support.forked import feedsvc
from tests.support.servers import LOGIN, as_login
from tests.support.service import Running, bearer, serving
from tests.support.sources import COPY_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

pytestmark = needs_encoder

ROWS: Final = 30_000
RANGES: Final = 3
SCHEMA: Final = f"""
CREATE SCHEMA app;
CREATE TABLE app.wide AS
    SELECT n, repeat(chr(97 + n % 26), 700) AS word, 'row ' || n AS name
    FROM generate_series(1, {ROWS}) AS n;
ALTER TABLE app.wide ADD PRIMARY KEY (n);
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON app.wide TO {LOGIN};
"""
DATASETS: Final = "".join(
    f'[{name}]\nrelation = "app.wide"\nkey = ["n"]\nshared = true\nranges = {ranges}\n'
    for name, ranges in (("one", 1), ("several", RANGES))
)
BUSY: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'feedsvc bulk' AND state <> 'idle'"
)


@pytest.fixture(scope="module")
async def database(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database() as url:
        admin = await asyncpg.connect(url)
        await admin.execute(SCHEMA)
        await admin.execute("VACUUM (ANALYZE) app.wide")
        await admin.close()
        yield url


@pytest.fixture(scope="module")
def service(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    datasets = tmp_path_factory.mktemp("ranges") / "datasets.toml"
    datasets.write_text(DATASETS)
    with serving(as_login(database), datasets=datasets, settings=COPY_AT_ONCE) as running:
        yield running


@pytest.fixture
async def watcher(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def body(service: Running, dataset: str, query: str, coding: str = "identity") -> bytes:
    headers = {**bearer(), "Accept-Encoding": coding}
    url = f"{service.url}/v1/feeds/{dataset}?{query}"
    async with aiohttp.request("GET", url, headers=headers) as answer:
        assert answer.status == 200
        return await answer.read()


def ask(service: Running, path: str) -> socket.socket:
    """Send a request through a socket with little room, and read nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.settimeout(30)
    client.connect(("127.0.0.1", service.port))
    who = bearer()["Authorization"]
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: tests\r\nAuthorization: {who}\r\n\r\n".encode())
    return client


async def until_busy(watcher: asyncpg.Connection, *, least: int, most: int) -> None:
    """Wait until so many of the pool's connections are in use."""
    deadline = time.monotonic() + 60
    while not least <= (busy := await watcher.fetchval(BUSY)) <= most:
        assert time.monotonic() < deadline, f"{busy} are busy"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("form", ["ndjson", "csv", "json"])
async def test_a_body_is_the_same(service: Running, form: str) -> None:
    expected = await body(service, "one", f"format={form}")
    assert len(expected) > ROWS * 700
    for coding in ("identity", "gzip"):
        assert await body(service, "several", f"format={form}", coding) == expected, coding


@pytest.mark.parametrize("settings", [COPY_AT_ONCE, {}], ids=["at once", "by default"])
async def test_several_read_and_the_log_says_how_many(
    database: str, tmp_path: Path, settings: dict[str, str]
) -> None:
    """Soon, for on a machine that does much else a client may seem to be the slower one.

    By default the first page could have all that is left, and nothing would be left to share out.
    """
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(DATASETS)
    with serving(as_login(database), datasets=datasets, settings=settings) as service:
        expected = await body(service, "one", "format=ndjson")
        reported, deadline = list[str](), time.monotonic() + 60
        while not reported:
            assert time.monotonic() < deadline
            assert await body(service, "several", "format=ndjson") == expected
            reported = [line for line in service.log if "an export is read by" in line]
    assert all(f"by {RANGES} connections" in line for line in reported)


async def test_its_end_shows_one_snapshot(service: Running) -> None:
    lines = (await body(service, "several", "format=ndjson&frames=1")).splitlines()
    end = json.loads(lines[-1])["end"]
    assert (end["rows"], end["snapshots"], end["more"]) == (ROWS, 1, False)
    assert len([line for line in lines if line.startswith(b'{"row"')]) == ROWS


async def test_a_client_that_reads_nothing_keeps_no_connection(
    service: Running, watcher: asyncpg.Connection
) -> None:
    with ask(service, "/v1/feeds/several?format=ndjson") as client:
        assert client.recv(4_096).startswith(b"HTTP/1.1 200")
        await until_busy(watcher, least=0, most=0)


async def test_a_client_that_leaves_in_the_middle_keeps_no_connection(
    service: Running, watcher: asyncpg.Connection
) -> None:
    url = f"{service.url}/v1/feeds/several?format=ndjson"
    for taken in (1, 3, 6, 12):
        async with aiohttp.request("GET", url, headers=bearer()) as answer:
            await answer.content.readexactly(taken << 20)
        await until_busy(watcher, least=0, most=0)


async def test_beside_many_others_each_gets_its_own(service: Running) -> None:
    """Exports that come while another one has all connections but the reserve, and small ones."""
    expected = await body(service, "one", "format=ndjson")
    tasks = [asyncio.create_task(body(service, "several", "format=ndjson"))]
    for _ in range(5):
        await asyncio.sleep(0.03)
        tasks.append(asyncio.create_task(body(service, "several", "format=ndjson")))
        page = await body(service, "several", "format=ndjson&limit=600")
        assert expected.startswith(page)
    assert all([await task == expected for task in tasks])


def test_check_reports_ranges_of_feeds_that_do_not_come_by_copy(
    database: str, tmp_path: Path
) -> None:
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(DATASETS + 'source = "cursor"\n')
    env = environment(as_login(database), FEEDSVC_DATASETS__FILE=str(datasets))
    done = feedsvc("check", env=env)
    reported = done.stdout + done.stderr
    assert "several.ranges: only what comes by COPY is read by several connections" in reported
    assert "one.ranges" not in reported
