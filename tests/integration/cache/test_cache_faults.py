"""The cache while PostgreSQL is away, while no trigger fires, and where a loading worker dies."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import psutil
import pytest

from feedsvc.changes import triggers
from tests.support.cache_client import (
    OTHER,
    OWN,
    PAGE,
    figures,
    get,
    until_changes_apply,
    until_log_is_read,
)
from tests.support.cache_figures import until_all_read_log
from tests.support.locks import locked, readers
from tests.support.proxy import Proxy, proxied
from tests.support.redis_server import redis_running
from tests.support.servers import DATASETS
from tests.support.service import REPOSITORY, Running, bearer, serving

TASKS = "/v1/feeds/tasks?limit=20&format=ndjson"
VENDORS = "/v1/feeds/vendors?limit=20&format=ndjson"

# However slow the machine is, a lock is waited for, and a page that the other worker reads.
PATIENT = {
    "FEEDSVC_CACHE__WAIT_TIMEOUT": "120",
    "FEEDSVC_POOLS__READ__QUERY_TIMEOUT": "130",
    "FEEDSVC_POOLS__READ__LOCK_TIMEOUT": "120",
}


@dataclass
class Behind:
    """A service whose PostgreSQL is behind a proxy, and a client of it."""

    session: aiohttp.ClientSession
    proxy: Proxy

    async def ask(self, path: str, tenant: str = OWN) -> tuple[int, str, bytes]:
        """Status, Cache-Status and body."""
        async with self.session.get(path, headers=bearer(tenant)) as answer:
            return answer.status, answer.headers.get("Cache-Status", ""), await answer.read()

    async def until_log_is_lost(self) -> None:
        async with asyncio.timeout(60):
            while (await figures(self.session))["log_read"]:
                await asyncio.sleep(0.02)

    async def away(self) -> None:
        await self.proxy.cut()
        await self.until_log_is_lost()

    async def back(self) -> None:
        self.proxy.mend()
        await until_log_is_read(self.session)


def stale_datasets(folder: Path) -> Path:
    """The demo's datasets: clients may be shown stale for long, vendors for a moment."""
    given = (REPOSITORY / "config" / "datasets.toml").read_text()
    file = folder / "datasets.toml"
    given = given.replace("[clients]\n", "[clients]\nstale = 600\n", 1)
    file.write_text(given.replace("[vendors]\n", "[vendors]\nfresh = 0.2\nstale = 1.5\n", 1))
    return file


@asynccontextmanager
async def behind_a_proxy(
    url: str, folder: Path, settings: dict[str, str], arguments: Sequence[str] = ()
) -> AsyncIterator[Behind]:
    parts = urlsplit(url)
    assert parts.port is not None
    async with proxied(parts.port) as proxy:
        netloc = f"{parts.netloc.rpartition(':')[0]}:{proxy.port}"
        through = parts._replace(netloc=netloc).geturl()
        file = stale_datasets(folder)
        # It starts in a thread, for the proxy is in this one's loop.
        serves = serving(through, datasets=file, settings=settings, arguments=arguments)
        running = await asyncio.to_thread(serves.__enter__)
        try:
            async with aiohttp.ClientSession(running.url) as session:
                await until_log_is_read(session)
                yield Behind(session, proxy)
        finally:
            proxy.mend()
            await asyncio.to_thread(serves.__exit__, None, None, None)


@pytest.fixture(scope="module", params=["memory", "redis alone"])
async def behind(
    request: pytest.FixtureRequest, world_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Behind]:
    folder, settings = tmp_path_factory.mktemp("stale"), {"FEEDSVC_REDIS__PREFIX": "stale"}
    # How long a frozen PostgreSQL holds up a request for what is not in the cache.
    settings["FEEDSVC_POOLS__READ__QUERY_TIMEOUT"] = "5"
    # A look through the proxy of a busy machine is late, and its page would go past the cache.
    settings["FEEDSVC_CACHE__STALE_PATIENCE"] = "2"
    async with AsyncExitStack() as stack:
        if request.param == "redis alone":
            settings["REDIS_URL"] = stack.enter_context(redis_running()).url
            settings["FEEDSVC_REDIS__TIMEOUT"] = "1"
            settings["FEEDSVC_CACHE__MEMORY_BYTES"] = "0"
        made = behind_a_proxy(world_url, folder, settings)
        yield await stack.enter_async_context(made)


async def test_while_postgresql_is_away_a_page_is_shown_as_it_was_and_marked(
    behind: Behind,
) -> None:
    _, body = await get(behind.session, PAGE)
    _, of_other = await get(behind.session, PAGE, OTHER)
    await get(behind.session, TASKS)
    await behind.away()
    for _ in range(3):
        status, cache_status, shown = await behind.ask(PAGE)
        assert (status, shown) == (200, body)
        assert cache_status.startswith("feedsvc; hit; ttl=")
        assert cache_status.endswith("; detail=away")
    assert (await behind.ask(PAGE, OTHER))[2] == of_other != body
    # Of another page nothing is known, and tasks may not be shown stale.
    assert (await behind.ask(f"{PAGE}&order=name"))[0] == 503
    assert (await behind.ask(TASKS))[0] == 503
    reported = (await figures(behind.session))["datasets"]["clients"]
    assert reported["stale"] >= 4
    await behind.back()
    assert "away" not in (await behind.ask(PAGE))[1]


async def test_a_frozen_postgresql_is_not_waited_for(behind: Behind) -> None:
    _, body = await get(behind.session, PAGE)
    behind.proxy.freeze()
    await behind.until_log_is_lost()
    for _ in range(3):
        status, cache_status, shown = await behind.ask(PAGE)
        assert (status, shown) == (200, body)
        assert cache_status.endswith("; detail=away")
    await behind.proxy.cut()
    await behind.back()


async def test_a_connection_that_is_dead_without_a_word_is_not_believed(behind: Behind) -> None:
    await get(behind.session, TASKS)
    assert "; hit;" in (await get(behind.session, TASKS))[0]
    behind.proxy.freeze()
    async with asyncio.timeout(60):  # what was read before counts for `changes.interval`
        while (await behind.ask(TASKS))[0] == 200:
            await asyncio.sleep(0.02)
    assert (await behind.ask(TASKS))[0] in {503, 504}
    await behind.proxy.cut()
    await behind.back()


async def test_beyond_its_bounds_nothing_is_shown(behind: Behind) -> None:
    _, body = await get(behind.session, VENDORS)
    await behind.away()
    async with asyncio.timeout(60):
        while (shown := await behind.ask(VENDORS))[0] == 200:
            assert shown[2] == body
            await asyncio.sleep(0.1)
    assert shown[0] == 503
    await behind.back()


async def test_pages_changed_before_it_went_away_are_never_shown(
    behind: Behind, world: asyncpg.Connection
) -> None:
    await get(behind.session, PAGE)
    await get(behind.session, PAGE, OTHER)
    change = "UPDATE wedding.clients SET notes = concat(notes, '.') WHERE tenant_id = $1"
    await world.execute(change, OWN)
    await until_changes_apply(behind.session)
    await behind.away()
    assert (await behind.ask(PAGE))[0] == 503
    assert (await behind.ask(PAGE, OTHER))[0] == 200, "of which nothing was told"
    await behind.back()


async def test_what_may_have_been_missed_is_never_shown(
    behind: Behind, world: asyncpg.Connection
) -> None:
    """It was away, something changed, it came back, and went away before anybody asked."""
    await get(behind.session, PAGE)
    await behind.away()
    await world.execute(
        "UPDATE wedding.clients SET notes = concat(notes, '.') WHERE tenant_id = $1", OWN
    )
    await behind.back()
    await behind.away()
    assert (await behind.ask(PAGE))[0] == 503
    await behind.back()


async def look_again(session: aiohttp.ClientSession, world: asyncpg.Connection) -> None:
    """Let the service check the triggers now, as it does on a new connection."""
    cut = (
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE application_name = 'feedsvc changes' AND datname = current_database()"
    )
    assert await world.fetchval(cut) >= 1
    await until_log_is_read(session)


@pytest.mark.parametrize(
    "breaks",
    [
        "ALTER TABLE wedding.vendors DISABLE TRIGGER {trigger}",
        "DROP TRIGGER {trigger} ON wedding.vendors",
    ],
)
async def test_without_working_triggers_nothing_is_cached(
    world_url: str, world: asyncpg.Connection, breaks: str
) -> None:
    change = "UPDATE wedding.vendors SET name = $1 || name WHERE tenant_id = $2"
    with serving(world_url) as running:
        async with aiohttp.ClientSession(running.url) as session:
            await until_log_is_read(session)
            await get(session, VENDORS)
            try:
                trigger = await world.fetchval(
                    "SELECT tgname FROM pg_trigger WHERE tgrelid = 'wedding.vendors'::regclass"
                    " AND tgname ~ '^feedsvc_log_update_[0-9a-f]+$'"
                )
                await world.execute(breaks.format(trigger=trigger))
                await look_again(session, world)
                await world.execute(change, "untold ", OWN)
                for _ in range(2):
                    status, body = await get(session, VENDORS)
                    assert status == "feedsvc; fwd=bypass; detail=untracked"
                    assert body.count(b'"untold ') == 20
                kept_out = (await figures(session))["datasets"]["vendors"]["kept_out"]
                assert trigger in kept_out
                await get(session, TASKS)
                assert "; hit;" in (await get(session, TASKS))[0], "others are as they were"
            finally:
                await triggers.install_for(world, DATASETS)
            await look_again(session, world)
            assert (await figures(session))["datasets"]["vendors"]["kept_out"] is None
            assert b"untold " in (await get(session, VENDORS))[1]
            assert "; hit;" in (await get(session, VENDORS))[0]
            await world.execute(change, "told ", OWN)
            await until_changes_apply(session)
            status, body = await get(session, VENDORS)
            assert body.count(b'"told untold ') == 20


@dataclass
class Asker:
    """A request on a connection of its own."""

    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> tuple[int, bytes]:
        """Status and body. Raises IncompleteReadError where the connection ends before."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    def leave(self) -> None:
        self.writer.transport.abort()


async def asking(running: Running, path: str, tenant: str = OWN) -> Asker:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    fields = "".join(f"{name}: {value}\r\n" for name, value in bearer(tenant).items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\n{fields}\r\n".encode())
    return Asker(writer.get_extra_info("sockname")[1], reader, writer)


class Crowd:
    """Requests for one page at a service of two workers, and who of them reads it."""

    def __init__(self, running: Running, world: asyncpg.Connection) -> None:
        self.running = running
        self.world = world
        self.askers: list[Asker] = []

    async def ask(self, path: str, count: int) -> None:
        """So many more, each accepted by a worker."""
        for _ in range(count):
            self.askers.append(await asking(self.running, path))
            await asyncio.sleep(0.01)  # so that whichever worker likes may take the next
        async with asyncio.timeout(60):
            while not {a.port for a in self.askers} <= set().union(*self._clients().values()):
                await asyncio.sleep(0.05)

    async def ask_both(self, path: str) -> None:
        """So many that several wait with either worker: the kernel gives them to which it likes."""
        await self.ask(path, 16)
        async with asyncio.timeout(60):
            while min(len(self.split(worker)[0]) for worker in self._workers()) < 2:
                await self.ask(path, 4)

    async def readers(self) -> list[psutil.Process]:
        """The workers that live and have a load which waits for the lock, one for each load."""
        ports = await readers(self.world)
        return [
            worker
            for worker in self._workers()
            for connection in _connections(worker)
            if connection.laddr.port in ports
        ]

    async def reader(self, other_than: psutil.Process | None = None) -> psutil.Process:
        """The one worker that reads, once the other does not. Raises TimeoutError."""
        async with asyncio.timeout(60):
            while not (found := await self.readers()) or other_than in found:
                await asyncio.sleep(0.01)
        assert len(found) == 1, "more than one reads it"
        return found[0]

    def split(self, worker: psutil.Process) -> tuple[list[Asker], list[Asker]]:
        """Those connected to this worker, and the others."""
        ports = self._clients()[worker]
        its = [asker for asker in self.askers if asker.port in ports]
        return its, [asker for asker in self.askers if asker not in its]

    def _clients(self) -> dict[psutil.Process, set[int]]:
        """Each worker's clients, by their ports."""
        return {
            worker: {c.raddr.port for c in _connections(worker) if c.raddr}
            for worker in self._workers()
        }

    def _workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.running.pid).children() if _lives(child)]


def _lives(worker: psutil.Process) -> bool:
    try:
        return bool(worker.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _connections(worker: psutil.Process) -> list[Any]:
    try:
        return worker.net_connections("tcp")
    except psutil.NoSuchProcess:
        return []


@asynccontextmanager
async def serving_two(world_url: str, world: asyncpg.Connection) -> AsyncIterator[Crowd]:
    with redis_running() as redis:
        settings = {"REDIS_URL": redis.url, "FEEDSVC_REDIS__PREFIX": "crowd", **PATIENT}
        with serving(world_url, settings=settings, arguments=["--workers=2"]) as running:
            made = Crowd(running, world)
            await until_all_read_log(running.url, 2, bearer(OWN, "admin"))
            try:
                yield made
            finally:
                for asker in made.askers:
                    asker.leave()


async def test_a_loading_client_that_leaves_hands_over_and_waiting_ones_are_unharmed(
    world_url: str, world_admin_url: str, world: asyncpg.Connection
) -> None:
    """First all that wait with one worker leave, then all that wait with the other."""
    async with serving_two(world_url, world) as asked:
        async with locked(world_admin_url, "wedding.vendors"):
            await asked.ask_both(VENDORS)
            for _ in range(2):
                reads = await asked.reader()
                gone, asked.askers = asked.split(reads)
                assert gone
                assert asked.askers
                for asker in gone:
                    asker.leave()
                await asked.reader(other_than=reads)
                await asked.ask_both(VENDORS)
        answers = await asyncio.wait_for(asyncio.gather(*(a.answer() for a in asked.askers)), 60)
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1
    assert len(answers) > 16


async def test_a_worker_that_is_killed_while_it_reads_is_waited_for_no_longer_than_its_claim(
    world_url: str, world_admin_url: str, world: asyncpg.Connection
) -> None:
    async with serving_two(world_url, world) as asked:
        async with locked(world_admin_url, "wedding.vendors"):
            await asked.ask_both(VENDORS)
            reads = await asked.reader()
            _, others = asked.split(reads)
            assert others
            reads.kill()
            await asked.reader(other_than=reads)
        answers = await asyncio.wait_for(asyncio.gather(*(o.answer() for o in others)), 60)
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1
