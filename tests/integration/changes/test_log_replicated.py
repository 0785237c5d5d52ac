"""Logical replication's apply, and its first copy, are logged at the subscriber, each once."""

import asyncio

import asyncpg

from feedsvc.backends.postgres.migrations import runner
from feedsvc.changes import log_hash, triggers
from feedsvc.datasets.dataset import Declaration
from tests.support.log_world import everyone_of, install, log_rows
from tests.support.servers import with_database
from tests.support.standby import primary_running

TABLES = """
    CREATE TABLE public.letters (id bigint PRIMARY KEY, owner text, body text);
    CREATE TABLE public.parts (id bigint, owner text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM (0) TO (100);
    ALTER TABLE public.letters REPLICA IDENTITY FULL;
    ALTER TABLE public.parts_1 REPLICA IDENTITY FULL;
"""
DECLARED = {
    name: Declaration(relation=f"public.{name}", key=("id",), tenant="owner")
    for name in ("letters", "parts")
}


async def until(connection: asyncpg.Connection, condition: str) -> None:
    async with asyncio.timeout(60):
        while not await connection.fetchval(f"SELECT {condition}"):
            await asyncio.sleep(0.02)


async def entries(subscriber: asyncpg.Connection, dataset: str) -> list[tuple[str, str, str]]:
    """The log's rows for a dataset: tenant, operation and key, sorted."""
    everyone = await everyone_of(subscriber, dataset)
    names = {log_hash.scope(name, everyone): name for name in ("a", "b")}
    return sorted(
        (names.get(row.scope, "*"), row.op, key)
        for row in await log_rows(subscriber)
        if row.scope in names or row.scope == everyone
        for key in (row.keys or ("",))
    )


async def forget(subscriber: asyncpg.Connection) -> None:
    await subscriber.execute("TRUNCATE feedsvc.log")


async def test_what_is_replicated_is_logged() -> None:
    with primary_running(wal_level="logical") as server:
        publisher = await asyncpg.connect(server.url())
        await publisher.execute("CREATE DATABASE copy")
        url = with_database(server.url(), "copy")
        await runner.up(url, "service")
        subscriber = await asyncpg.connect(url)
        try:
            for connection in (publisher, subscriber):
                await connection.execute(TABLES)
            await publisher.execute(
                "INSERT INTO public.letters VALUES (1, 'a', 'x'), (2, 'b', 'x');"
                "CREATE PUBLICATION all_of_it FOR TABLE public.letters, public.parts"
            )
            assert await install(subscriber, DECLARED) != []
            # A subscription to the same server would wait for its own transaction's end.
            await publisher.execute("SELECT pg_create_logical_replication_slot('copy', 'pgoutput')")
            await subscriber.execute(
                f"CREATE SUBSCRIPTION copy CONNECTION '{server.url()}' PUBLICATION all_of_it"
                " WITH (create_slot = false, slot_name = copy)"
            )
            ready = "NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r')"
            await until(subscriber, ready)
            assert await entries(subscriber, "letters") == [("a", "u", "1"), ("b", "u", "2")]
            await forget(subscriber)
            await publisher.execute("""
                UPDATE public.letters SET body = 'y' WHERE id = 1;
                UPDATE public.letters SET body = body;
                UPDATE public.letters SET owner = 'b', id = 5 WHERE id = 1;
                DELETE FROM public.letters WHERE id = 2;
                INSERT INTO public.parts VALUES (7, 'a'); UPDATE public.parts SET owner = 'b';
                INSERT INTO public.letters VALUES (9, 'a', 'end');
            """)
            await until(subscriber, "EXISTS (SELECT FROM public.letters WHERE id = 9)")
            everything = await log_rows(subscriber)
            assert len(everything) == len(set(everything)), "each change once"
            assert await entries(subscriber, "letters") == [
                ("a", "g", "1"), ("a", "u", "1"), ("a", "u", "9"), ("b", "g", "2"), ("b", "u", "5"),
            ]  # fmt: skip
            assert await entries(subscriber, "parts") == [
                ("a", "g", "7"), ("a", "u", "7"), ("b", "u", "7"),
            ]  # fmt: skip
            await forget(subscriber)
            await publisher.execute("DELETE FROM public.parts; TRUNCATE public.letters")
            await until(subscriber, "NOT EXISTS (SELECT FROM public.letters)")
            assert await entries(subscriber, "letters") == [("*", "t", "")]
            assert await entries(subscriber, "parts") == [("b", "g", "7")]
            await forget(subscriber)
            await subscriber.execute("INSERT INTO public.letters VALUES (3, 'a', 'own')")
            assert await entries(subscriber, "letters") == [("a", "u", "3")]
            await triggers.remove(subscriber)
        finally:
            await subscriber.close()
            await publisher.close()
