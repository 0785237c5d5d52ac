"""The log's reader on a real PostgreSQL: nothing is missed, and nothing is asked without need."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import asyncpg
import pytest

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.servers import Servers
from feedsvc.backends.postgres.sessions import PooledSession
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.invalidation import Invalidation
from feedsvc.cache.ledger import Ledger
from feedsvc.cache.policy import Coverage
from feedsvc.changes import log_reader, triggers
from feedsvc.changes.log_reader import LogReader
from feedsvc.core.events import CacheChange, LogRead, LogTurned, Observers
from feedsvc.datasets.dataset import Declaration
from feedsvc.settings import Database
from tests.support import pgbouncer
from tests.support.servers import as_login, copied_postgres

TABLES = """
    DROP SCHEMA public CASCADE; CREATE SCHEMA public;
    CREATE TABLE public.letters (id bigint, owner text) PARTITION BY RANGE (id);
    CREATE TABLE public.letters_1 PARTITION OF public.letters FOR VALUES FROM (0) TO (100);
    CREATE TABLE public.letters_2 PARTITION OF public.letters FOR VALUES FROM (100) TO (200);
    ALTER TABLE public.letters ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON public.letters USING (owner = current_setting('x.owner', true));
"""
LETTERS = Declaration(relation="public.letters", key=("id",), tenant="owner")
DECLARED = {"letters": LETTERS}


class Follower:
    """A worker's reader of the log, with a connection of a writer beside it."""

    def __init__(self, url: str, writer: asyncpg.Connection, interval: float) -> None:
        self.writer = writer
        self.ledger = Ledger(keep=300)
        self.coverage = Coverage({})
        self.events: list[Any] = []
        observers = Observers()
        for kind in (CacheChange, LogRead, LogTurned):
            observers.add(kind, self.events.append)
        watch = Invalidation(self.coverage, self.ledger, DECLARED, observers)
        database = Database.model_validate({"url": url})
        self.reader = LogReader(
            database, watch, watch.survey, interval=interval, observers=observers
        )

    async def snapshot(self) -> Snapshot:
        return Snapshot.parse(await self.writer.fetchval("SELECT pg_current_snapshot()::text"))

    def admits(self, snapshot: Snapshot, owner: str = "a") -> bool:
        items = self.coverage.feeds["letters"].items(LETTERS.templates("letters"), {"owner": owner})
        assert items is not None
        return self.ledger.is_fresh(snapshot, items)

    async def write(self, number: int, owner: str = "a") -> None:
        await self.writer.execute("INSERT INTO public.letters VALUES ($1, $2)", number, owner)

    def looks(self) -> int:
        return sum(isinstance(event, LogRead) for event in self.events)


@asynccontextmanager
async def following(
    url: str, interval: float = 0.0, *, writing: str | None = None
) -> AsyncIterator[Follower]:
    writer = await asyncpg.connect(writing or url)
    made = Follower(url, writer, interval)
    running = asyncio.create_task(made.reader.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await writer.close()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.01)


@pytest.fixture
async def follower(log_database: str) -> AsyncIterator[Follower]:
    owner = await asyncpg.connect(log_database)
    await owner.execute(TABLES)
    await triggers.install(owner, await triggers.plan(owner, DECLARED))
    await owner.close()
    async with following(log_database) as made:
        await until(made.reader.catch_up)
        assert made.coverage.kept_out == {}
        yield made


def backend_of(follower: Follower) -> int:
    """The backend of the reader's own session; a survey's has the same name."""
    connection = follower.reader._connection
    assert connection is not None
    return connection.get_server_pid()


async def test_a_page_is_too_old_as_soon_as_its_change_is_read(follower: Follower) -> None:
    page = await follower.snapshot()
    assert follower.admits(page)
    await follower.write(1, "b")
    assert await follower.reader.catch_up()
    assert follower.admits(page), "it was another's row"
    assert not follower.admits(page, "b")
    await follower.write(1)
    assert await follower.reader.catch_up()
    assert not follower.admits(page)
    assert follower.admits(await follower.snapshot())
    changes = [event for event in follower.events if isinstance(event, CacheChange)]
    assert changes == [CacheChange("letters", 1)] * 2


async def test_a_long_writer_is_read_when_it_commits(follower: Follower, log_database: str) -> None:
    long = await asyncpg.connect(log_database)
    transaction = long.transaction()
    await transaction.start()
    await long.execute("INSERT INTO public.letters VALUES (7, 'a')")
    page = await follower.snapshot()
    for number in range(3):
        await follower.write(number, "b")
        assert await follower.reader.catch_up()
        assert follower.admits(page)
    await transaction.commit()
    assert await follower.reader.catch_up()
    assert not follower.admits(page)
    await long.close()


@pgbouncer.needed
async def test_through_a_pooler_a_look_is_one_round_trip(
    follower: Follower, log_database: str
) -> None:
    """Also where neighbours have left their settings, and a row has each kind of value."""
    assert follower.reader.is_reading
    with pgbouncer.pooled_by_transaction(as_login(log_database)) as url:
        await pgbouncer.leave_settings(url)
        async with following(url, writing=log_database) as made:
            await until(made.reader.catch_up)
            for number in range(10):
                page = await made.snapshot()
                assert made.admits(page)
                await made.write(number)
                assert await made.reader.catch_up()
                assert not made.admits(page)
                assert made.admits(await made.snapshot())
            session = made.reader._connection
            assert isinstance(session, asyncpg.Connection)
            sent: list[str] = []
            copied = PooledSession._copied

            async def counted(self: PooledSession, script: str, timeout: float | None) -> bytes:
                sent.append(script)
                return bytes(await copied(self, script, timeout))

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(PooledSession, "_copied", counted)
                session.add_query_logger(lambda query: sent.append(query.query))
                assert await made.reader.catch_up()
                await asyncio.sleep(0)
            assert len(sent) == 1


async def test_many_ask_at_once_and_each_knows_of_its_own_write(
    follower: Follower, log_database: str
) -> None:
    async def write(number: int) -> None:
        connection = await asyncpg.connect(log_database)
        try:
            before = Snapshot.parse(await connection.fetchval("SELECT pg_current_snapshot()::text"))
            await connection.execute("INSERT INTO public.letters VALUES ($1, 'a')", number)
            assert await follower.reader.catch_up()
            assert not follower.admits(before)
        finally:
            await connection.close()

    await asyncio.gather(*(write(number) for number in range(20)))


async def test_all_that_ask_at_once_share_a_look(follower: Follower) -> None:
    before = follower.looks()
    assert all(await asyncio.gather(*(follower.reader.catch_up() for _ in range(100))))
    assert follower.looks() - before == 1


async def test_within_the_interval_nothing_is_asked(log_database: str) -> None:
    async with following(log_database, interval=3_600.0) as made:
        await until(made.reader.catch_up)
        before = made.looks()
        for _ in range(100):
            assert made.reader.is_current()
            assert await made.reader.current()
        assert made.looks() == before
    async with following(log_database) as made:
        await until(made.reader.catch_up)
        assert not made.reader.is_current(), "0 looks for each request"


async def test_a_look_begins_before_it_is_waited_for(
    log_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "_AHEAD", 0.0)
    async with following(log_database, interval=3_600.0) as made:
        await until(made.reader.catch_up)
        before = made.looks()
        assert made.reader.is_current()

        async def has_looked() -> bool:
            return made.looks() > before

        await until(has_looked)


async def test_an_idle_reader_asks_nothing(follower: Follower) -> None:
    pid = backend_of(follower)
    queries = "SELECT pid, query_start FROM pg_stat_activity WHERE pid = $1"
    before = await follower.writer.fetch(queries, pid)
    assert len(before) == 1
    looks = follower.looks()
    for _ in range(200):
        await asyncio.sleep(0)
        await follower.writer.execute("SELECT 1")
    assert await follower.writer.fetch(queries, pid) == before
    assert follower.looks() == looks


async def test_a_lost_connection_loses_no_page_and_no_change(follower: Follower) -> None:
    theirs, ours = await follower.snapshot(), await follower.snapshot()
    await follower.writer.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'feedsvc changes' AND datname = current_database()"
    )
    await follower.write(1, "b")
    await until(follower.reader.catch_up)
    assert not follower.admits(theirs, "b")
    assert follower.admits(ours), "what did not change is still good"


async def test_a_log_that_was_trimmed_meanwhile_begins_anew(follower: Follower) -> None:
    page = await follower.snapshot()
    async with follower.writer.transaction():
        await follower.writer.execute("SELECT pg_current_xact_id()")
        await follower.writer.execute("UPDATE feedsvc.log_floor SET floor = pg_current_snapshot()")
    await follower.writer.execute("UPDATE feedsvc.log_floor SET floor = pg_current_snapshot()")
    assert await follower.reader.catch_up()
    assert not follower.admits(page)
    assert follower.admits(await follower.snapshot())


async def test_more_than_a_look_may_read_begins_anew(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "MOST_ROWS", 3)
    page = await follower.snapshot()
    for number in range(3):
        await follower.write(number, "b")
    assert await follower.reader.catch_up()
    assert follower.admits(page)
    for number in range(4):
        await follower.write(number, "b")
    assert await follower.reader.catch_up()
    assert not follower.admits(page), "it can't be known what has changed"


async def test_another_life_of_the_database_begins_anew(follower: Follower) -> None:
    page = await follower.snapshot()
    await follower.writer.execute("DELETE FROM feedsvc.log_epoch")
    assert await follower.reader.catch_up()
    assert not follower.admits(page)
    assert await follower.writer.fetchval("SELECT count(*) FROM feedsvc.log_epoch") == 1


async def test_a_login_that_reads_in_other_isolation_is_no_matter(log_database: str) -> None:
    admin = await asyncpg.connect(log_database)
    name = await admin.fetchval("SELECT current_database()")
    isolation = f'ALTER DATABASE "{name}" {{}} default_transaction_isolation {{}}'
    await admin.execute(isolation.format("SET", "= 'serializable'"))
    try:
        async with following(log_database) as made:
            await until(made.reader.catch_up)
    finally:
        await admin.execute(isolation.format("RESET", ""))
        await admin.close()


async def test_without_a_log_it_says_what_to_run(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(database) as made:

        async def has_tried() -> bool:
            return not made.reader.is_beginning

        await until(has_tried)
        assert not await made.reader.catch_up()
        assert not made.ledger.is_followed
    assert "run `feedsvc migrate up`" in caplog.text


UNLOGGED = [
    "ALTER POLICY own ON public.letters USING (true)",
    "DROP POLICY own ON public.letters",
    "ALTER TABLE public.letters DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE public.letters DETACH PARTITION public.letters_2",
    "DROP TABLE public.letters_2",
    "ALTER TABLE public.letters DISABLE TRIGGER USER; INSERT INTO public.letters VALUES (1, 'a')",
]


@pytest.mark.parametrize("change", UNLOGGED)
async def test_what_no_trigger_logs_is_found_by_the_survey(
    follower: Follower, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    page = await follower.snapshot()
    await follower.writer.execute(change)
    monkeypatch.setattr(log_reader, "SURVEY_INTERVAL", 0.0)
    follower.reader._surveyed_at = follower.reader._next_survey = -float("inf")
    assert await follower.reader.catch_up()
    assert not follower.admits(page), change
    kept_out = follower.coverage.kept_out
    assert kept_out is not None
    assert ("letters" in kept_out) is ("TRIGGER" in change)


async def test_what_is_kept_out_is_let_in_with_what_is_read_from_then_on(
    follower: Follower,
) -> None:
    reader = follower.reader
    await follower.writer.execute("ALTER TABLE public.letters DISABLE TRIGGER USER")
    reader._surveyed_at = reader._next_survey = -float("inf")
    assert await reader.catch_up()
    assert follower.coverage.kept_out is not None
    assert follower.coverage.kept_out.keys() == {"letters"}
    await follower.write(5)
    page = await follower.snapshot()
    await triggers.install(follower.writer, await triggers.plan(follower.writer, DECLARED))
    reader._surveyed_at = reader._next_survey = -float("inf")
    assert await reader.catch_up()
    assert follower.coverage.kept_out == {}
    assert not follower.admits(page)
    assert follower.admits(await follower.snapshot())


async def test_a_look_that_is_under_way_when_a_survey_finds_something_does_not_count(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its snapshot may be older than what was found."""
    answered, surveyed = asyncio.Event(), asyncio.Event()
    fetch, plan = asyncpg.Connection.fetch, triggers.plan

    async def held(self: asyncpg.Connection, query: str, *given: object) -> Any:
        rows = await fetch(self, query, *given)
        if query == log_reader._SINCE:
            answered.set()
            await surveyed.wait()
        return rows

    async def late(*given: Any) -> triggers.TriggerPlan:
        await answered.wait()
        page.append(await follower.snapshot())
        await follower.writer.execute("ALTER POLICY own ON public.letters USING (true)")
        return await plan(*given)

    reader, page = follower.reader, list[Snapshot]()
    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "fetch", held)
        patched.setattr(triggers, "plan", late)
        reader._next_survey = -float("inf")
        looking = asyncio.create_task(reader.catch_up())
        await answered.wait()
        while reader._surveying is not None:
            await asyncio.wait({reader._surveying})
            await asyncio.sleep(0)
        surveyed.set()
        assert await looking
    assert not follower.admits(page[0])


@pytest.mark.parametrize("how", ["lost", "restarted"])
async def test_a_survey_from_before_a_connection_says_nothing_of_what_it_leads_to(
    follower: Follower, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Another server, or another life of this one, logs the same feed in other scopes."""
    reader, writer = follower.reader, follower.writer
    surveyed, over = asyncio.Event(), asyncio.Event()
    survey = reader._survey

    async def held(connection: asyncpg.Connection) -> bool:
        is_new = await survey(connection)
        reader._survey = survey
        surveyed.set()
        await over.wait()
        return is_new

    reader._survey = held
    reader._next_survey = -float("inf")
    assert await reader.catch_up()
    await surveyed.wait()
    connection = reader._connection
    assert connection is not None
    await writer.execute("UPDATE feedsvc.log_feeds SET everyone = everyone # 12345")
    await triggers.install(writer, await triggers.plan(writer, DECLARED))
    if how == "lost":
        await writer.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    else:
        reader.restart()
    await until(lambda: _is(reader._connection not in (None, connection)))
    over.set()
    await until(reader.catch_up)
    page = await follower.snapshot()
    assert follower.admits(page)
    await follower.write(1)
    assert await reader.catch_up()
    assert not follower.admits(page)


async def _is(true: bool) -> bool:
    return true


async def test_a_survey_that_fails_is_not_passed_over(
    follower: Follower, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(*_: object) -> None:
        raise OSError("no")

    reader = follower.reader
    with monkeypatch.context() as patched:
        patched.setattr(triggers, "plan", failing)
        reader._next_survey = -float("inf")
        assert await reader.catch_up(), "the last survey is young enough"
        reader._surveyed_at = reader._next_survey = -float("inf")
        assert not await reader.catch_up()
        assert not follower.ledger.is_followed
    await until(reader.catch_up)
    assert "the triggers could not be checked: OSError: no" in caplog.text


async def test_a_server_that_freezes_as_it_is_asked_is_given_up(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "DEADLINE", 0.2)
    pid = backend_of(follower)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not await follower.reader.catch_up()
        assert not follower.reader.is_current()
        monkeypatch.undo()
        await until(follower.reader.catch_up)
    finally:
        os.kill(pid, signal.SIGCONT)
    turns = [event.reads for event in follower.events if isinstance(event, LogTurned)]
    assert turns == [True, False, True]


async def test_one_that_can_not_wait_goes_on_without_the_look(follower: Follower) -> None:
    """A page that may be stale waits no longer than its patience, and the look goes on."""
    pid = backend_of(follower)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert not await follower.reader.current(0.01)
    finally:
        os.kill(pid, signal.SIGCONT)
    await until(follower.reader.catch_up)


async def test_cancelled_askers_leave_the_look_to_the_others(follower: Follower) -> None:
    asking = [asyncio.create_task(follower.reader.catch_up()) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert await asyncio.gather(*asking[1:]) == [True, True]


async def test_no_connection_is_left_at_the_end(log_database: str) -> None:
    async with following(log_database) as made:
        await until(made.reader.catch_up)
        asking = asyncio.create_task(made.reader.catch_up())
        await asyncio.sleep(0)
    await asyncio.gather(asking, return_exceptions=True)
    admin = await asyncpg.connect(log_database)
    left = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'feedsvc changes' AND datname = current_database()"
    )

    async def is_gone() -> bool:
        return bool(await admin.fetchval(left) == 0)

    await until(is_gone)
    await admin.close()


async def test_nothing_that_a_standby_shows_is_believed() -> None:
    """Its snapshots don't say which transactions were running."""
    who_reads = (files("feedsvc.feeds") / "transaction.sql").read_text()
    settings = {"wal_level": "replica", "max_wal_senders": "2", "hot_standby": "on"}
    with copied_postgres(settings) as server:
        primary = await asyncpg.connect(server.url())
        text = await primary.fetchval(who_reads, "t", "member", "", column=3)
        assert Snapshot.parse(text) == Snapshot.parse(
            await primary.fetchval("SELECT pg_current_snapshot()::text")
        )
        await runner.up(server.url(), "service")
        await primary.close()
        await asyncio.to_thread(server.stop)
        signal = server.cluster.data / "standby.signal"
        signal.touch()
        server.cluster.account.give(signal)
        await asyncio.to_thread(server.start)
        standby = await asyncpg.connect(server.url())
        assert await standby.fetchval("SELECT pg_is_in_recovery()")
        seen = Snapshot.parse(await standby.fetchval(who_reads, "t", "member", "", column=3))
        await standby.close()
        assert not any(seen.sees(xid) for xid in range(3, 10_000))
        async with following(server.url()) as made:

            async def has_tried() -> bool:
                return not made.reader.is_beginning

            await until(has_tried)
            assert not made.ledger.is_followed
        # A standby without a primary waits for it when it is asked to stop.
        await asyncio.to_thread(server.stop, "immediate")


def test_servers_are_shared_with_the_pools() -> None:
    servers = Servers(Database.model_validate({"url": "postgresql://u@127.0.0.1/d"}))

    async def survey(_connection: asyncpg.Connection) -> bool:
        return False

    watch = Invalidation(Coverage({}), Ledger(keep=1), {}, Observers())
    assert LogReader(servers, watch, survey, interval=0.0)._servers is servers
