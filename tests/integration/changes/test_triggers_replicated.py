"""Changes that logical replication applies, of which no statement trigger tells."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from feedsvc.changes import triggers
from tests.integration.changes.test_triggers import PEOPLE, PERSON, TABLES, of_person, telling
from tests.support.servers import with_database
from tests.support.standby import primary_running


async def test_logical_replications_apply_tells_nothing() -> None:
    """docs/cache.md says so: it fires no statement triggers. What is written there itself tells."""
    async with replicated() as (publisher, subscriber):
        await triggers.install(subscriber, await triggers.plan(subscriber, {"people": PEOPLE}))
        async with telling(subscriber) as told:
            await publisher.execute(f"INSERT INTO {PERSON} VALUES (1, 'a')")
            await publisher.execute(f"UPDATE {PERSON} SET \"Owner's\" = 'b'")
            applied = f"SELECT count(*) FROM {PERSON} WHERE \"Owner's\" = 'b'"
            async with asyncio.timeout(60):
                while not await subscriber.fetchval(applied):
                    await asyncio.sleep(0.05)
        assert told == set()
        async with telling(subscriber) as told:
            await subscriber.execute(f"INSERT INTO {PERSON} VALUES (2, 'a')")
        assert told == of_person("a", 2)


@asynccontextmanager
async def replicated() -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    """Two databases with the same tables, of which one is sent what is written to the other."""
    with primary_running(wal_level="logical") as server:
        publisher = await asyncpg.connect(server.url())
        await publisher.execute("CREATE DATABASE copy")
        subscriber = await asyncpg.connect(with_database(server.url(), "copy"))
        try:
            for connection in (publisher, subscriber):
                await connection.execute(TABLES)
            await publisher.execute(f"CREATE PUBLICATION people FOR TABLE {PERSON}")
            # A subscription to the same server would wait for its own transaction's end.
            await publisher.execute("SELECT pg_create_logical_replication_slot('copy', 'pgoutput')")
            await subscriber.execute(
                f"CREATE SUBSCRIPTION copy CONNECTION '{server.url()}' PUBLICATION people"
                " WITH (create_slot = false, slot_name = copy, copy_data = false)"
            )
            yield publisher, subscriber
        finally:
            await subscriber.close()
            await publisher.close()
