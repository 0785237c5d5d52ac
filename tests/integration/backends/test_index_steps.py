"""Indexes that are built and dropped while their table is written, whatever ends a migrator."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import asyncpg
import pytest

from feedsvc.backends.postgres.migrations import index_steps, runner
from feedsvc.backends.postgres.migrations.errors import MigrationError, UnknownRevisionError
from feedsvc.backends.postgres.migrations.lines import TERRITORIES
from feedsvc.backends.postgres.migrations.revisions import revisions
from feedsvc.backends.postgres.migrations.watch import MigrationWatch
from tests.support.ailing import until
from tests.support.servers import connected, copied_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

FILES = {
    "0001_couples.up.sql": """
        CREATE TABLE wedding.couples (id bigint PRIMARY KEY, name text NOT NULL, open boolean);
        INSERT INTO wedding.couples SELECT n, 'couple ' || n, n % 20 = 0
        FROM generate_series(1, 5000) AS n;
    """,
    "0001_couples.down.sql": "DROP TABLE wedding.couples;",
    "0002_names.up.sql": "-- concurrently\n"
    "CREATE INDEX CONCURRENTLY couples_name ON wedding.couples (name, id);\n",
    "0002_names.down.sql": "-- concurrently\nDROP INDEX CONCURRENTLY IF EXISTS couples_name;\n",
    "0003_open.up.sql": "-- concurrently\n"
    "CREATE INDEX CONCURRENTLY couples_open ON wedding.couples (lower(name)) WHERE open;\n",
    "0003_open.down.sql": "-- concurrently\nDROP INDEX CONCURRENTLY IF EXISTS couples_open;\n",
}
INDEXES = """
    SELECT pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END AS d
    FROM pg_index WHERE indrelid = to_regclass('wedding.couples') AND NOT indisprimary ORDER BY d
"""
BUILT = [
    "CREATE INDEX couples_name ON wedding.couples USING btree (name, id)",
    "CREATE INDEX couples_open ON wedding.couples USING btree (lower(name)) WHERE open",
]


@pytest.fixture(autouse=True)
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two indexes of a filled table in place of the line `wedding`."""
    versions = tmp_path / "versions"
    versions.mkdir()
    for name, sql in FILES.items():
        (versions / name).write_text(sql.replace("EXISTS couples", "EXISTS wedding.couples"))
    monkeypatch.setitem(TERRITORIES, "wedding", replace(TERRITORIES["wedding"], folder=tmp_path))
    return versions


async def indexes(dsn: str) -> list[str]:
    async with connected(dsn) as connection:
        return [row["d"] for row in await connection.fetch(INDEXES)]


class Recorded(MigrationWatch):
    """Reports, as they came."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.sentences: list[str] = []
        self.waited: list[str] = []
        self.tried = asyncio.Event()

    def waits(self, schema: str) -> None:
        self.waited.append(schema)

    def begins(self, step: str) -> None:
        self.steps.append(step)

    def retried(self, sentence: str) -> None:
        self.sentences.append(sentence)
        self.tried.set()


async def test_up_builds_and_down_drops_beside_writers(database: str) -> None:
    watch = Recorded()
    await runner.up(database, "wedding", watch=watch)
    assert watch.steps == ["apply 0001_couples", "apply 0002_names", "apply 0003_open"]
    assert await indexes(database) == BUILT
    assert (await runner.down(database, "wedding", to="0002")).current == "0002"
    assert await indexes(database) == BUILT[:1]
    with pytest.raises(UnknownRevisionError, match="0099"):
        await runner.down(database, "wedding", to="0099")
    assert (await runner.down(database, "wedding")).current is None


@asynccontextmanager
async def older_transaction(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A transaction whose snapshot a build has to wait for, on a database with the table alone."""
    await runner.up(dsn, "wedding")
    await runner.down(dsn, "wedding", to="0001")
    old = await asyncpg.connect(dsn)
    try:
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        yield old
    finally:
        old.terminate()


async def until_it_builds(dsn: str) -> None:
    """Until a build waits for the older transaction, with its index there and invalid."""
    waits = (
        "SELECT pid FROM pg_stat_progress_create_index"
        " WHERE datname = current_database() AND phase = 'waiting for old snapshots'"
    )
    async with connected(dsn) as looking, asyncio.timeout(60):
        while not await looking.fetchval(waits):
            await asyncio.sleep(0.02)


Way = Literal["up", "down"]
WAYS = get_args(Way)


async def migrate(dsn: str, way: Way, watch: MigrationWatch | None = None) -> None:
    """Migrate up to the head, or down to the table alone."""
    if way == "up":
        await runner.up(dsn, "wedding", watch=watch)
    else:
        await runner.down(dsn, "wedding", to="0001", watch=watch)


def built(way: Way) -> list[str]:
    """The indexes that are there at a way's end."""
    return BUILT if way == "up" else []


async def at_the_beginning_of(dsn: str, way: Way) -> None:
    """A database where all of the way is still to go."""
    await runner.up(dsn, "wedding")
    if way == "up":
        await migrate(dsn, "down")


def _forked(dsn: str, number: int, way: Way = "up") -> int:
    """A process that migrates, and is killed before its statement `number`."""
    child = os.fork()
    if child == 0:
        _before(number, partial(os.kill, os.getpid(), signal.SIGKILL))
        asyncio.run(migrate(dsn, way))
        os._exit(0)
    return child


def _before(number: int, happens: Callable[[], object]) -> Callable[[], object]:
    """Let something happen before this process sends its statement `number`; its undoing."""
    real, count = asyncpg.Connection.execute, 0

    async def execute(self: asyncpg.Connection, query: str, *args: Any, **more: Any) -> str:
        nonlocal count
        count += 1
        if count == number:
            happens()
        return await real(self, query, *args, **more)

    asyncpg.Connection.execute = execute  # type: ignore[method-assign, assignment]
    return partial(setattr, asyncpg.Connection, "execute", real)


def _was_killed(child: int) -> bool:
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("way", WAYS)
async def test_a_migrator_killed_at_any_statement_is_finished_by_the_next(
    database: str, way: Way
) -> None:
    await at_the_beginning_of(database, way)
    number = 1
    while _was_killed(await asyncio.to_thread(_forked, database, number, way)):
        await migrate(database, way)
        assert await indexes(database) == built(way)
        await at_the_beginning_of(database, way)
        number += 1
    assert number > 8
    assert await indexes(database) == built(way)


@pytest.mark.parametrize("after", WAYS)
async def test_a_migrator_killed_while_it_drops_is_finished_by_either_way(
    database: str, after: Way
) -> None:
    await runner.up(database, "wedding")
    old = await asyncpg.connect(database)
    try:
        await old.execute("BEGIN; SELECT FROM wedding.couples")
        child = await asyncio.to_thread(_forked, database, 0, "down")

        async def drops() -> bool:
            return [each for each in await indexes(database) if "INVALID" in each] != []

        await until(drops, 60)
        os.kill(child, signal.SIGKILL)
        assert _was_killed(child)
    finally:
        old.terminate()
    await migrate(database, after)
    assert await indexes(database) == built(after)


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS)
async def test_a_restart_of_postgresql_before_any_statement(way: Way) -> None:
    with copied_postgres({"synchronous_commit": "on"}) as server:
        url = server.url()

        def restart() -> None:
            server.stop("immediate")
            server.start()

        number, was_cut = 1, True
        while was_cut:
            await at_the_beginning_of(url, way)
            undo = _before(number, restart)
            try:
                await migrate(url, way)
                was_cut = False
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                was_cut = True
            finally:
                undo()
            await migrate(url, way)
            assert await indexes(url) == built(way)
            number += 1
        assert number > 8


async def test_a_migrator_killed_while_it_builds_is_finished_by_the_next(database: str) -> None:
    async with older_transaction(database) as old:
        child = await asyncio.to_thread(_forked, database, 0)
        await until_it_builds(database)
        os.kill(child, signal.SIGKILL)
        assert _was_killed(child)
        watch = Recorded()
        work = asyncio.create_task(runner.up(database, "wedding", watch=watch))
        async with asyncio.timeout(60):
            while not watch.steps:
                await asyncio.sleep(0.02)
        await old.execute("COMMIT")
        await work
    # Until PostgreSQL has noticed that the other one is gone, which may be before this one asks.
    assert watch.waited in ([], ["wedding"])
    assert await indexes(database) == BUILT


async def test_a_restart_of_postgresql_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    # The next try would drop the index, and be without one for a moment.
    monkeypatch.setattr(index_steps, "_FIRST_LOCK_MS", 600_000)
    with copied_postgres({"synchronous_commit": "on"}) as server:
        url = server.url()
        async with older_transaction(url):
            work = asyncio.create_task(runner.up(url, "wedding"))
            await until_it_builds(url)
            await asyncio.to_thread(server.stop, "immediate")
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await work
        await asyncio.to_thread(server.start)
        assert [index.partition("INVALID")[1] for index in await indexes(url)] == ["INVALID"]
        await runner.up(url, "wedding")
        assert await indexes(url) == BUILT


async def test_an_index_that_a_failure_left_is_built_again(database: str) -> None:
    await runner.up(database, "wedding")
    async with connected(database) as connection:
        await connection.execute(
            "UPDATE pg_index SET indisvalid = false"
            " WHERE indexrelid = 'wedding.couples_name'::regclass"
        )
    plan = await runner.planned(database, "wedding")
    assert [step.title for step in plan] == ["0002_names"]
    watch = Recorded()
    await runner.up(database, "wedding", watch=watch)
    assert watch.steps == ["rebuild 0002_names"]
    assert await indexes(database) == BUILT


async def test_another_index_of_the_name_is_refused(database: str) -> None:
    await runner.up(database, "wedding")
    await runner.down(database, "wedding", to="0002")
    async with connected(database) as connection:
        await connection.execute("CREATE INDEX couples_open ON wedding.couples (lower(name))")
    with pytest.raises(MigrationError, match="another index wedding"):
        await runner.up(database, "wedding")
    assert (await runner.status(database, "wedding")).current == "0002"


@pytest.mark.parametrize("way", WAYS)
async def test_of_two_at_once_one_works_and_the_other_finds_nothing_to_do(
    database: str, way: Way
) -> None:
    await at_the_beginning_of(database, way)
    watches = [Recorded(), Recorded()]
    await asyncio.gather(*(migrate(database, way, watch) for watch in watches))
    assert sorted(len(watch.steps) for watch in watches) == [0, 2]
    assert await indexes(database) == built(way)


async def test_an_older_transaction_is_waited_for_in_tries(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a second migrator waits for the first one, and says so."""
    monkeypatch.setattr(index_steps, "_FIRST_LOCK_MS", 100)
    watch, second = Recorded(), Recorded()
    async with older_transaction(database) as old:
        work = asyncio.create_task(runner.up(database, "wedding", watch=watch))
        async with asyncio.timeout(60):
            await watch.tried.wait()
            other = asyncio.create_task(runner.up(database, "wedding", watch=second))
            while not second.waited:
                await asyncio.sleep(0.02)
        async with connected(database) as writer:
            await writer.execute("SET lock_timeout = '30s'")
            await writer.execute("DELETE FROM wedding.couples WHERE id = 1")
        await old.execute("COMMIT")
        await asyncio.gather(work, other)
    assert second.waited == ["wedding"]
    assert second.steps == []
    assert "try 1 of 8: canceling statement due to lock timeout" in watch.sentences
    assert await indexes(database) == BUILT


async def test_after_its_last_try_it_says_how_to_go_on(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with older_transaction(database) as old:
        with monkeypatch.context() as hasty:
            for name, value in {"_FIRST_LOCK_MS": 1, "_TRIES": 2, "_PAUSE_SECONDS": 0}.items():
                hasty.setattr(index_steps, name, value)
            with pytest.raises(MigrationError, match="end what holds it"):
                await runner.up(database, "wedding")
        await old.execute("COMMIT")
    await runner.up(database, "wedding")
    assert await indexes(database) == BUILT


async def test_a_plan_knows_the_sizes(database: str) -> None:
    steps = await runner.planned(database, "wedding")
    assert [(step.table, step.size) for step in steps[1:]] == [("wedding.couples", None)] * 2
    await runner.up(database, "wedding")
    await runner.down(database, "wedding", to="0001")
    async with connected(database) as connection:
        await connection.execute("ANALYZE wedding.couples")
        plan = await runner.planned(database, "wedding")
        await runner.up(database, "wedding")
        for step in plan:
            name = {"0002_names": "couples_name", "0003_open": "couples_open"}[step.title]
            size = await connection.fetchval("SELECT pg_relation_size($1)", f"wedding.{name}")
            assert step.size is not None
            assert size / 2.5 < step.size < size * 2.5


def test_a_marked_file_that_is_no_index_is_refused(line: Path) -> None:
    (line / "0003_open.up.sql").write_text("-- concurrently\nDROP TABLE wedding.couples;\n")
    with pytest.raises(RuntimeError, match="0003_open"):
        _ = revisions(TERRITORIES["wedding"])[2].index
