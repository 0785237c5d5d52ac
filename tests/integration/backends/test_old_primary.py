"""A primary that is started again after its standby was promoted: nothing of it is shown."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import asyncpg
import pytest

from feedsvc.backends.postgres import pool
from feedsvc.backends.postgres.servers import Servers
from feedsvc.settings import Database
from tests.support.ailing import component, until
from tests.support.servers import as_login
from tests.support.service import Running, bearer, serving
from tests.support.standby import lay_out, port_of, primary_running, standby_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer

LOGIN, PASSWORD = "reader", "a reader's"
ROWS = 60
DEADLINE = 60.0
SCHEMA = f"""
CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD.replace("'", "''")}';
CREATE SCHEMA app;
CREATE TABLE app.things (id int PRIMARY KEY, text text NOT NULL);
INSERT INTO app.things SELECT n, 'old' FROM generate_series(1, {ROWS}) AS n;
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS = """
[things]
relation = "app.things"
key = ["id"]
shared = true
fresh = 3600
"""
BURN = """
DO $$ BEGIN
    FOR n IN 1..3000 LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$
"""


@pytest.fixture
async def promoted(tmp_path: Path) -> AsyncIterator[tuple[PostgresServer, PostgresServer, Path]]:
    """The old primary, stopped; its successor; the datasets."""
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(DATASETS)
    with primary_running() as old:
        await lay_out(old, SCHEMA, datasets, LOGIN)
        with standby_of(old) as new:
            await asyncio.to_thread(old.stop, "immediate")
            admin = await asyncpg.connect(new.url())
            assert await admin.fetchval("SELECT pg_promote()")
            await admin.execute("UPDATE app.things SET text = 'new'")
            await admin.close()
            yield old, new, datasets


async def come_back(old: PostgresServer) -> None:
    """It is started again, and its transaction numbers run ahead of its successor's."""
    await asyncio.to_thread(old.start)
    admin = await asyncpg.connect(old.url())
    await admin.execute(BURN)
    await admin.close()


def both(old: PostgresServer, new: PostgresServer) -> str:
    """The old one first."""
    there = f"127.0.0.1:{port_of(old.url())},127.0.0.1:{port_of(new.url())}"
    url = as_login(new.url(), LOGIN, PASSWORD)
    return url.replace(f"127.0.0.1:{port_of(new.url())}", there)


@asynccontextmanager
async def client(running: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(running.url, headers=bearer(role="admin")) as http:
        yield http


async def text_of(http: aiohttp.ClientSession, number: int) -> str:
    """One row's, as a page of its own, so that each has to be read once."""
    async with http.get(f"/v1/feeds/things?after={number - 1}&limit=1&format=ndjson") as answer:
        assert answer.status == 200, await answer.text()
        return str(json.loads(await answer.text())["text"])


async def cut_all(server: PostgresServer) -> None:
    """Every connection of the service's pools, so that it has to make others."""
    admin = await asyncpg.connect(server.url())
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'feedsvc read'"
    )
    await admin.close()


async def says(http: aiohttp.ClientSession, what: str) -> bool:
    return what in (await component(http, "primary"))["what"]


def settings_of(workers: int) -> dict[str, str]:
    return {"FEEDSVC_POOLS__READ__IDLE_TIMEOUT": "0.2", "FEEDSVC_SERVER__WORKERS": str(workers)}


async def test_nothing_is_read_from_an_old_primary_that_comes_back(
    promoted: tuple[PostgresServer, PostgresServer, Path],
) -> None:
    old, new, datasets = promoted
    with serving(both(old, new), datasets=datasets, settings=settings_of(2)) as running:
        async with client(running) as http:
            assert await text_of(http, 1) == "new"
            await come_back(old)
            seen = set()
            for number in range(2, ROWS + 1):
                if number % 10 == 0:
                    await cut_all(new)
                    await asyncio.sleep(0.3)  # as long as idle connections are kept, and longer
                try:
                    seen.add(await text_of(http, number))
                except AssertionError:
                    continue  # its connection was the one that was cut
            assert seen == {"new"}
            await until(lambda: says(http, "There are two primaries"), DEADLINE)
            await asyncio.to_thread(old.stop, "immediate")
            await until(lambda: says(http, "answers"), DEADLINE)
            # Whatever was kept meanwhile is of the new one.
            assert {await text_of(http, number) for number in range(1, ROWS + 1)} == {"new"}


async def test_a_service_that_starts_beside_an_old_primary_passes_it_over(
    promoted: tuple[PostgresServer, PostgresServer, Path],
) -> None:
    old, new, datasets = promoted
    await come_back(old)
    with serving(both(old, new), datasets=datasets, settings=settings_of(1)) as running:
        async with client(running) as http:
            assert {await text_of(http, number) for number in range(1, ROWS + 1)} == {"new"}


async def test_while_the_new_primary_is_away_the_old_one_is_refused(
    promoted: tuple[PostgresServer, PostgresServer, Path],
) -> None:
    """By what was seen before, also in a worker that takes another's place."""
    old, new, datasets = promoted
    with serving(both(old, new), datasets=datasets, settings=settings_of(1)) as running:
        async with client(running) as http:
            assert await text_of(http, 1) == "new"
            await come_back(old)
            await asyncio.to_thread(new.stop, "immediate")
            await until(lambda: says(http, "it is an old primary, on timeline 1"), DEADLINE)
            async with http.get("/v1/feeds/things?limit=3") as answer:
                assert answer.status == 503
                assert (await answer.json())["type"] == "/problems/database-unavailable"
            await asyncio.to_thread(new.start)
            await until(lambda: says(http, "There are two primaries"), DEADLINE)


async def test_what_is_connected_to_a_primary_is_cut_when_a_newer_one_is_seen(
    promoted: tuple[PostgresServer, PostgresServer, Path],
) -> None:
    """As where the network parts, and the old primary never stopped."""
    old, new, _ = promoted
    await come_back(old)
    servers = Servers(Database.model_validate({"url": both(old, new)}))
    first = await pool.connect(
        Database.model_validate({"url": as_login(old.url(), LOGIN, PASSWORD)}),
        application_name="a test",
    )
    assert first.origin is not None
    assert first.origin.timeline == 1
    second = await pool.connect(servers, application_name="a test")
    assert second.origin == first.origin._replace(timeline=2)
    assert [host.origin for host in servers.primaries()] == [second.origin, first.origin]
    await first.close()
    await second.close()
