"""Clients that read slowly, or nothing, or are gone: what they cost the others, and get themselves.

The world is large enough that a feed by far outgrows every buffer between PostgreSQL and a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import json
import resource
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import asyncpg
import pytest

from feedsvc.commands.demo import seeding
from tests.support.drawn import DRAWN, share
from tests.support.servers import LOGIN, SEED, TEMPLATE, as_login, copied_database
from tests.support.service import REPOSITORY, Running, bearer, serving
from tests.support.sources import COPY_AT_ONCE, SOURCES, by_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

psutil = importlib.import_module("psutil")  # it has no type stubs

CLIENTS = share(1_000)
FIRST = CLIENTS // 2  # with whom the service takes what it keeps whatever comes
ROWS = 10_000
STALL_TIMEOUT = 3.0
CANCELLED = 15  # seconds; the shortest of the queries would take 20 by itself
DEADLINE = 60  # seconds that a loaded machine has for whatever is waited for
BEHIND = "/v1/feeds/clients?format=ndjson"

CRAWL = f"""
CREATE SCHEMA slow;
CREATE VIEW slow.crawl AS
    SELECT id, pg_sleep(0.02) IS NULL AS awake FROM generate_series(1, 100000) AS id ORDER BY id;
GRANT USAGE ON SCHEMA slow TO {LOGIN};
GRANT SELECT ON slow.crawl TO {LOGIN};
"""
CRAWL_DATASET = """
[crawl]
relation = "slow.crawl"
key = ["id"]
shared = true
not_null = ["id"]
"""


# Of the clients of one tenant, by the last digit of their ids: those with 0 are deleted, 1 and 2
# move to either end of the order, some with 0 are new all over it, and the others stay as they are.
MOVES = """
SET session_replication_role = replica;
DELETE FROM wedding.clients WHERE tenant_id = '{0}' AND id % 10 = 0;
UPDATE wedding.clients SET created_at = created_at - interval '30 years'
    WHERE tenant_id = '{0}' AND id % 10 = 1;
UPDATE wedding.clients SET created_at = created_at + interval '30 years'
    WHERE tenant_id = '{0}' AND id % 10 = 2;
INSERT INTO wedding.clients (id, tenant_id, partner_one, created_at)
    SELECT 2000000000000 + row_number() OVER () * 10, tenant_id, 'new', created_at
    FROM wedding.clients WHERE tenant_id = '{0}' AND id % 10 = 3;
"""
KEEP = "CREATE TABLE slow.kept AS SELECT * FROM wedding.clients WHERE tenant_id = '{0}'"
PUT_BACK = """
SET session_replication_role = replica;
DELETE FROM wedding.clients WHERE tenant_id = '{0}';
INSERT INTO wedding.clients SELECT * FROM slow.kept;
DROP TABLE slow.kept;
"""


class Storm(NamedTuple):
    """Observations while a crowd of clients reads nothing."""

    answered: int
    meanwhile: int
    """Small requests that were answered while the crowd came, and when all had come."""
    bytes_each: float


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        await asyncio.sleep(0.02)


def ask(service: Running, path: str, **who: Any) -> socket.socket:
    """Send a request through a socket with little room, and read nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    # As on a network: with the loopback's segments of 64 KB, so small a window hardly ever opens.
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1_460)
    client.settimeout(30)
    client.connect(("127.0.0.1", service.port))
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: tests",
        f"Authorization: {bearer(**who)['Authorization']}",
    ]
    client.sendall("\r\n".join((*lines, "", "")).encode())
    return client


def answer_of(client: socket.socket) -> http.client.HTTPResponse:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    assert answer.status == 200
    return answer


async def gone(service: Running, client_port: int) -> bool:
    """Return whether the service has given up its end of this client's connection."""
    connections = psutil.Process(service.pid).net_connections("tcp")
    return not any(c.raddr and c.raddr.port == client_port for c in connections)


def ids(lines: list[bytes]) -> list[int]:
    """The id of each row among framed lines."""
    return [frame["row"]["id"] for frame in map(json.loads, lines) if "row" in frame]


class Sessions:
    """The service's sessions as PostgreSQL sees them."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def busy(self) -> int:
        """The number of the pools' sessions that hold anything."""
        return int(
            await self.connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name ~ '^feedsvc (read|bulk)$' AND state <> 'idle'"
            )
        )

    async def none_busy(self) -> bool:
        return await self.busy() == 0

    async def crawl_is_read(self) -> bool:
        """Return whether a session reads the slow feed; to connect keeps it busy too."""
        return bool(
            await self.connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name ~ '^feedsvc (read|bulk)$' AND state <> 'idle'"
                " AND query LIKE '%crawl%'"
            )
        )


@pytest.fixture(scope="module")
async def large_world(admin_url: str) -> AsyncIterator[str]:
    """The superuser's URL of a world of its own with many clients."""
    async with copied_database(admin_url, TEMPLATE) as url:
        await seeding.seed(url, ROWS, SEED)
        owner = await asyncpg.connect(url)
        await owner.execute(CRAWL)
        await owner.close()
        yield url


@pytest.fixture
async def sessions(large_world: str) -> AsyncIterator[Sessions]:
    connection = await asyncpg.connect(large_world)
    yield Sessions(connection)
    await connection.close()


@pytest.fixture(scope="module")
def many_files() -> Iterator[None]:
    """Room for a thousand sockets, here and in the services that are started from here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CLIENTS
    if 0 <= hard < wanted:
        pytest.skip(f"this machine allows {hard} open files, and {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module", params=SOURCES)
def patient(
    large_world: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A service that cuts a stalled client after STALL_TIMEOUT; its rows come by one source."""
    datasets: Path = tmp_path_factory.mktemp("slow") / "datasets.toml"
    declared = (REPOSITORY / "config" / "datasets.toml").read_text()
    datasets.write_text(by_source(declared + CRAWL_DATASET, request.param))
    settings = {
        "FEEDSVC_STREAMS__STALL_TIMEOUT": str(STALL_TIMEOUT),
        # Longer than any test, which could not tell a timeout from a cancellation.
        "FEEDSVC_POOLS__READ__QUERY_TIMEOUT": "300",
        "FEEDSVC_POOLS__BULK__QUERY_TIMEOUT": "300",
        **COPY_AT_ONCE,
    }
    with serving(as_login(large_world), datasets=datasets, settings=settings) as service:
        yield service


@pytest.fixture(scope="module")
async def storm(large_world: str, many_files: None) -> AsyncIterator[Storm]:
    settings = {
        "FEEDSVC_POOLS__BULK__SIZE": "4",
        "FEEDSVC_POOLS__BULK__MOST_WAITING": str(CLIENTS),
        # Both so that a slow machine has the whole crowd at the same time.
        "FEEDSVC_POOLS__BULK__ACQUIRE_TIMEOUT": "300",
        "FEEDSVC_STREAMS__STALL_TIMEOUT": "900",
    }
    connection = await asyncpg.connect(large_world)
    with (
        serving(as_login(large_world), settings=settings) as service,
        contextlib.ExitStack() as clients,
    ):
        yield await _raise_storm(service, Sessions(connection), clients)
    await connection.close()


async def _raise_storm(
    service: Running, sessions: Sessions, clients: contextlib.ExitStack
) -> Storm:
    async with aiohttp.ClientSession(service.url, headers=bearer()) as http_client:
        opened, answered_first = await _open(service, sessions, clients, http_client, FIRST)
        before = psutil.Process(service.pid).memory_info().rss
        more, answered = await _open(service, sessions, clients, http_client, CLIENTS - FIRST)
        after = psutil.Process(service.pid).memory_info().rss
    served = sum(each.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200" for each in opened + more)
    return Storm(served, answered_first + answered, (after - before) / (CLIENTS - FIRST))


async def _open(
    service: Running,
    sessions: Sessions,
    clients: contextlib.ExitStack,
    http_client: aiohttp.ClientSession,
    number: int,
) -> tuple[list[socket.socket], int]:
    """So many more clients once nothing is read for them, and small requests meanwhile."""
    opening = asyncio.ensure_future(asyncio.to_thread(_open_all, service, clients, number))
    meanwhile, quiet_since = 0, time.monotonic()
    async with asyncio.timeout(4 * DEADLINE):
        while time.monotonic() - quiet_since < 1.0:  # a second in which nobody reads any row
            await _small_request(http_client)
            meanwhile += 1
            if not opening.done() or await sessions.busy():
                quiet_since = time.monotonic()
            await asyncio.sleep(0.01)
    return await opening, meanwhile


def _open_all(service: Running, clients: contextlib.ExitStack, number: int) -> list[socket.socket]:
    return [clients.enter_context(ask(service, BEHIND)) for _ in range(number)]


async def _small_request(client: aiohttp.ClientSession) -> None:
    """Behind a client that reads nothing it would wait for as long as such a client may stall."""
    async with asyncio.timeout(DEADLINE), client.get("/v1/feeds/clients?limit=20") as answer:
        assert answer.status == 200
        assert len(await answer.json()) == 20


@DRAWN
def test_all_of_a_crowd_that_reads_nothing_is_served_by_a_pool_of_four(storm: Storm) -> None:
    assert storm.answered == CLIENTS


@DRAWN
def test_a_crowd_that_reads_nothing_leaves_room_for_small_requests(storm: Storm) -> None:
    assert storm.meanwhile >= 10


@DRAWN
def test_a_stalled_stream_costs_less_than_256_kib(storm: Storm) -> None:
    assert storm.bytes_each < 256 * 1024


async def test_a_stalled_reader_holds_nothing_and_is_cut_after_the_stall_timeout(
    patient: Running, sessions: Sessions
) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await holds_nothing_before_it_is_cut(patient, sessions):
            await until(sessions.none_busy, DEADLINE)


async def holds_nothing_before_it_is_cut(service: Running, sessions: Sessions) -> bool:
    """Return whether the stalled reader was seen to hold nothing; a busy machine may look late."""
    began = time.monotonic()
    with ask(service, BEHIND) as client:
        port = client.getsockname()[1]
        await asyncio.to_thread(client.recv, 1, socket.MSG_PEEK)
        seen = False
        while not await gone(service, port):
            free = await sessions.none_busy()
            seen = seen or (free and not await gone(service, port))
            await asyncio.sleep(0.05)
        assert time.monotonic() - began > STALL_TIMEOUT
    return seen


async def test_a_slow_reader_gets_every_row_once_over_several_snapshots(
    patient: Running, sessions: Sessions
) -> None:
    """Two read slowly for far longer than the stall timeout, then as fast as they can."""

    def read_slowly(bytes_per_second: int) -> bytes:
        with ask(patient, f"{BEHIND}&frames=1") as client, answer_of(client) as answer:
            body, began, seconds = b"", time.monotonic(), 0.0
            while seconds < 2.5 * STALL_TIMEOUT:
                time.sleep(0.1)
                # By the clock: a busy machine sleeps for longer, and would take less for a stall.
                seconds = time.monotonic() - began
                body += answer.read(int(seconds * bytes_per_second) - len(body))
            return body + answer.read()

    both = [asyncio.to_thread(read_slowly, each) for each in (20_000, 2_000)]
    reading, were_free = asyncio.gather(*both), 0
    while not reading.done():
        were_free += await sessions.none_busy()
        await asyncio.sleep(0.05)
    expected = await sessions.connection.fetch(
        "SELECT id FROM wedding.clients WHERE tenant_id = 'rosewood' ORDER BY id"
    )
    for body in await reading:
        lines = body.splitlines()
        assert json.loads(lines[-1])["end"]["snapshots"] > 1
        assert ids(lines) == [row["id"] for row in expected]
    assert were_free, "a session was held for as long as they read"


def vanish_with_fin(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_RDWR)


def vanish_with_rst(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


LEFT = [
    *(("", False, vanish_with_fin), ("", True, vanish_with_rst)),
    *(("?limit=1000", False, vanish_with_fin), ("?limit=1000", False, vanish_with_rst)),
    *(("?format=sse", False, vanish_with_rst), ("?format=sse", True, vanish_with_fin)),
]
# The kernel wakes the service up in the same way by either end of a connection.
LEFT_TOO = [
    *(("", False, vanish_with_rst), ("", True, vanish_with_fin)),
    *(("?format=sse", False, vanish_with_fin), ("?format=sse", True, vanish_with_rst)),
]


@pytest.mark.parametrize(
    ("query", "rows_arrived", "vanish"),
    [*LEFT, *(pytest.param(*each, marks=pytest.mark.soak) for each in LEFT_TOO)],
)
async def test_the_query_of_a_client_that_left_is_cancelled(
    patient: Running,
    sessions: Sessions,
    query: str,
    rows_arrived: bool,
    vanish: Callable[[socket.socket], None],
) -> None:
    with ask(patient, f"/v1/feeds/crawl{query}") as client:
        port = client.getsockname()[1]
        await until(sessions.crawl_is_read, 30)
        if rows_arrived:
            assert await asyncio.to_thread(client.recv, 65_536)
        await until(sessions.crawl_is_read, 30)
        vanish(client)
        await until(sessions.none_busy, CANCELLED)
        await until(lambda: gone(patient, port), DEADLINE)


@pytest.fixture
async def moving(sessions: Sessions) -> AsyncIterator[str]:
    """A tenant whose clients are put back when others have seen them move."""
    tenant = "atelier-blanc"
    await sessions.connection.execute(KEEP.format(tenant))
    yield tenant
    await sessions.connection.execute(PUT_BACK.format(tenant))


@pytest.fixture
async def mover(large_world: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(large_world)
    yield connection
    await connection.close()


async def test_untouched_rows_appear_once_while_others_come_go_and_move(
    patient: Running, sessions: Sessions, moving: str, mover: asyncpg.Connection
) -> None:
    newest_first = await sessions.connection.fetch(
        "SELECT id FROM wedding.clients WHERE tenant_id = $1 ORDER BY created_at DESC, id DESC",
        moving,
    )
    path = f"{BEHIND}&frames=1&order=newest"
    # All but the commit before it waits for its client, which is not for long.
    await mover.execute(f"BEGIN; {MOVES.format(moving)}")
    with ask(patient, path, tenant=moving) as client, answer_of(client) as answer:
        await until(sessions.none_busy, DEADLINE)
        await mover.execute("COMMIT")
        lines = (await asyncio.to_thread(answer.read)).splitlines()
    assert json.loads(lines[-1])["end"]["snapshots"] > 1
    seen = ids(lines)
    assert len(set(seen)) < len(seen)  # a row that moved behind was seen at both places
    assert max(seen) >= 2_000_000_000_000  # and some of the new ones, too
    untouched = [row["id"] for row in newest_first if row["id"] % 10 > 2]
    assert [ident for ident in seen if ident % 10 > 2] == untouched
