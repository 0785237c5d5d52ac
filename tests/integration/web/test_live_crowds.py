"""Followers behind proxies that mean well, at a worker that dies, and beside slow ones."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg
import psutil
import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.server.open_files import raise_limit
from tests.support.balancer import HAPROXY, balancing
from tests.support.followers import READERS, Oracle, prepare
from tests.support.live_copy import StreamEndedError, pause_behind
from tests.support.live_watchers import DEADLINE, Watcher, clients, following, mistakes, write
from tests.support.meddling import meddling
from tests.support.servers import as_login
from tests.support.service import bearer, serving
from tests.support.sluggish import sluggish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase
    from tests.support.service import Running

OFTEN: Final = {
    "FEEDSVC_SERVER__WORKERS": "2",
    "FEEDSVC_STREAMS__PING_INTERVAL": "0.3",
    "FEEDSVC_STREAMS__ROTATE_AFTER": "1",
}
CROWDED: Final = {
    "FEEDSVC_SERVER__WORKERS": "2",
    "FEEDSVC_SERVER__SEND_BUFFER": "16384",
    "FEEDSVC_SERVER__CONNECTIONS_PER_ADDRESS": "20000",
    "FEEDSVC_LIMITS__ENABLED": "false",
    "FEEDSVC_STREAMS__PING_INTERVAL": "2",
    "FEEDSVC_STREAMS__STALL_TIMEOUT": "2",
}
CACHE: Final = """
    http-request cache-use answers
    http-response cache-store answers
cache answers
    total-max-size 16
    max-object-size 1000000
    max-age 60
"""
STEPS: Final = 60
ROUNDS: Final = 30  # of more than a ring has
MORE_MEMORY: Final = 64 << 20
BEGINNING: Final = """
INSERT INTO shop.orders (number, tenant, client, level, status, name)
    SELECT n, (ARRAY['a', 'b', 'ä ö'])[n % 3 + 1], 1, 1, (ARRAY['done', 'open'])[n % 2 + 1], ''
    FROM generate_series(1, 18) AS n
"""
LARGE: Final = "UPDATE shop.orders SET name = repeat($1, 8000) WHERE tenant = 'a' AND number < 100"
ONCE: Final = "INSERT INTO shop.orders (number, tenant, level) VALUES ($1, 'a', 1)"
SMALL: Final = "UPDATE shop.orders SET name = $1 WHERE tenant <> 'a'"


@pytest.fixture(scope="module")
async def shop(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("crowds") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        yield url, file


@pytest.fixture
async def owner(shop: tuple[str, Path]) -> AsyncIterator[asyncpg.Connection]:
    """The tables' owner; there are a few rows."""
    connection = await asyncpg.connect(shop[0])
    await connection.execute("DELETE FROM shop.orders")
    await connection.execute(BEGINNING)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
def service(shop: tuple[str, Path]) -> Iterator[Running]:
    with serving(as_login(shop[0]), datasets=shop[1], settings=OFTEN) as running:
        yield running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.02)


async def metric(service: Running, name: str) -> float:
    """The sum of a metric's series, of all workers; `name` is how they begin."""
    who = bearer("a", "admin")
    async with (
        aiohttp.ClientSession(service.url, headers=who) as http,
        http.get("/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith(name) and line[len(name)] in " {,}"
    )


async def until_metric(service: Running, name: str, value: float) -> None:
    async with asyncio.timeout(DEADLINE):
        while await metric(service, name) != value:
            await asyncio.sleep(0.1)


async def test_through_proxies_that_mean_well_each_id_is_a_state_and_no_client_asks_in_vain(
    shop: tuple[str, Path], owner: asyncpg.Connection, service: Running, tmp_path: Path
) -> None:
    """Two tenants ask for one address through each of them."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        again, _ = await enter(meddling(service.url, asks_again=True))
        whole, _ = await enter(meddling(service.url, is_whole=True))
        stale, cache = await enter(meddling(service.url, stale=3))
        holding = await enter(sluggish(service.port, holds=0.2))
        cutting = await enter(sluggish(service.port, cuts=0.7))
        fronts = [again, whole, holding, cutting]
        if HAPROXY is not None:
            fronts.append(stack.enter_context(balancing([service.port], tmp_path, CACHE)))
        behind = {
            front: [
                Watcher(reader, await enter(aiohttp.ClientSession(front)))
                for reader in (READERS[0], READERS[4])
            ]
            for front in [*fronts, stale]
        }
        watchers = [watcher for pair in behind.values() for watcher in pair]
        async with following(owner, watchers):
            await write(shop[0], 1, STEPS)
            await until(lambda: cache.given_again > 3)
    assert await mistakes(owner, watchers) == []
    for front, pair in behind.items():
        # Those get three old answers, or an answer's first moments, on purpose, and on a busy
        # machine more of them.
        most = 8 if front in (stale, cutting) else 3
        assert all(watcher.in_vain <= most for watcher in pair)
    assert {watcher.copy.snapshots for watcher in watchers[:-2]} == {1}, "they only go on"
    await until_metric(service, "feedsvc_live_subscribers", 0)


async def test_those_of_a_worker_that_is_killed_go_on_without_a_new_snapshot(
    shop: tuple[str, Path], owner: asyncpg.Connection, service: Running
) -> None:
    async with clients(service.url) as http:
        watchers = [Watcher(reader, http) for reader in (*READERS[:2], READERS[4]) * 12]
        async with following(owner, watchers):
            await until(lambda: all(watcher.copy.is_synced for watcher in watchers))
            workers = psutil.Process(service.pid).children()
            victim = max(workers, key=lambda worker: len(worker.net_connections()))
            victim.kill()
            await write(shop[0], 2, STEPS)
    assert await mistakes(owner, watchers) == []
    copies = [watcher.copy for watcher in watchers]
    cut = [copy.connections - 1 - len(copy.end_reasons) for copy in copies]
    assert sum(cut) > 3, "the others are told of an end"
    assert max(cut) <= 3
    assert {copy.snapshots for copy in copies} == {1}


async def take_nothing(watcher: Watcher) -> None:
    while True:
        try:
            async with watcher.copy.connected():
                await asyncio.Event().wait()
        except StreamEndedError as ended:  # refused, where the service is busy
            await asyncio.sleep(pause_behind(ended))


async def flood(owner: asyncpg.Connection, service: Running) -> None:
    """Write more than the ring keeps, until somebody lacks what it has lost.

    Some of it is written once: who misses an event misses it for good.
    """
    for n in itertools.count():
        await owner.execute(LARGE, str(n % 10))
        await owner.execute(ONCE, 100 + n)
        if n % 10 == 0:  # for those who read all that comes
            await owner.execute(SMALL, str(n))
        if n > ROUNDS and await metric(service, "feedsvc_live_behind_total"):
            return


def memory(service: Running) -> int:
    """Resident bytes of the workers."""
    return sum(worker.memory_info().rss for worker in psutil.Process(service.pid).children())


@pytest.mark.parametrize(
    ("others", "slow", "stalled"),
    [
        (176, 20, 4),
        pytest.param(4_400, 500, 100, marks=[pytest.mark.soak, pytest.mark.timeout(900)]),
    ],
)
async def test_beside_slow_ones_all_have_all_and_those_that_take_nothing_are_cut(
    shop: tuple[str, Path], owner: asyncpg.Connection, others: int, slow: int, stalled: int
) -> None:
    raise_limit()
    with serving(as_login(shop[0]), datasets=shop[1], settings=CROWDED) as service:
        before = memory(service)
        async with clients(service.url) as quick, clients(service.url, kernel_takes=4_096) as small:
            # To read the flood takes its time: most of them follow what is quiet.
            watchers = [Watcher(reader, quick) for reader in (*READERS[3:], *READERS[:1]) * 2]
            watchers += [Watcher(READERS[3 + n % 2], quick) for n in range(others - len(watchers))]
            late = [Watcher(READERS[0], small) for _ in range(slow)]
            idle = [Watcher(READERS[0], small) for _ in range(stalled)]
            for watcher in (*watchers, *late):
                watcher.copy.on_state = lambda copy: copy.events.clear()  # they would fill memory
            stalling = [asyncio.create_task(take_nothing(watcher)) for watcher in idle]
            async with following(owner, late):
                async with following(owner, watchers):
                    await until_metric(service, "feedsvc_live_subscribers", others + slow + stalled)
                    for watcher in late:
                        watcher.pause = 0.3
                    await flood(owner, service)
                assert memory(service) - before < MORE_MEMORY + 65_536 * (others + slow + stalled)
                for watcher in late:
                    watcher.pause = 0.0
            await until_metric(service, 'feedsvc_live_ends_total{reason="stalled"', stalled)
            for task in stalling:
                task.cancel()
            await asyncio.gather(*stalling, return_exceptions=True)
    text = await owner.fetchval("SELECT pg_current_snapshot()::text")
    for reader in (READERS[0], *READERS[3:]):
        known = await Oracle(owner).rows(Snapshot.parse(text), reader)
        rows = {json.dumps([number]): row for number, row in known.items()}
        copies = [each.copy for each in (*watchers, *late) if each.reader == reader]
        assert all(copy.rows == rows for copy in copies)
        assert {copy.snapshots for copy in copies} == {1}
