"""What the cache hears of a real PostgreSQL, and what it notices that no trigger tells."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from feedsvc.backends.postgres import pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.cache.invalidation import Invalidation
from feedsvc.cache.ledger import Ledger
from feedsvc.changes import listener as changes
from feedsvc.changes import triggers
from feedsvc.changes.listener import ChangeListener
from feedsvc.core.events import CacheChange, Observers
from feedsvc.datasets.dataset import Declaration
from feedsvc.datasets.tags import exactly
from feedsvc.operations.health import check_links
from feedsvc.operations.health.result import CheckResult
from feedsvc.settings import Database, Settings
from tests.support.servers import copied_postgres

TABLES = """
    CREATE TABLE public.letters (id bigint, owner text) PARTITION BY RANGE (id);
    CREATE TABLE public.letters_1 PARTITION OF public.letters FOR VALUES FROM (0) TO (100);
    CREATE TABLE public.letters_2 PARTITION OF public.letters FOR VALUES FROM (100) TO (200);
    ALTER TABLE public.letters ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON public.letters USING (owner = current_setting('x.owner', true));
"""
LETTERS = Declaration(relation="public.letters", key=("id",), tenant="owner")
DECLARED = {"letters": LETTERS}
ITEMS = (exactly("letters:a"),)


class Listener:
    """A worker's ear, with a connection of a writer beside it."""

    def __init__(self, url: str, writer: asyncpg.Connection) -> None:
        self.writer = writer
        self.ledger = Ledger(keep=300, silence=4)
        self.pages = SimpleNamespace(origin="", kept_out=None)
        observers, self.told = Observers(), list[Sequence[str]]()
        observers.add(CacheChange, lambda change: self.told.append(change.items))
        given: Any = self.pages
        watch = Invalidation(given, self.ledger, DECLARED, observers)
        database = Database.model_validate({"url": url})
        self.changes = ChangeListener(database, watch, watch.look)

    async def snapshot(self) -> Snapshot:
        text = await self.writer.fetchval("SELECT pg_current_snapshot()::text")
        return Snapshot.parse(text)

    def admits(self, snapshot: Snapshot) -> bool:
        return self.ledger.is_fresh(snapshot, ITEMS)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Listener]:
    writer = await asyncpg.connect(url)
    made = Listener(url, writer)
    running = asyncio.create_task(made.changes.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await writer.close()


@pytest.fixture
async def listener(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listener]:
    monkeypatch.setattr(changes, "INTERVAL", 0.05)
    monkeypatch.setattr(changes, "_LOOK_INTERVAL", 0.2)
    owner = await asyncpg.connect(database)
    await owner.execute(TABLES)
    await triggers.install(owner, await triggers.plan(owner, DECLARED))
    await owner.close()
    async with listening(database) as made:
        await made.until(lambda: made.ledger.listening)
        assert made.pages.kept_out == {}
        yield made


async def test_a_page_is_too_old_as_soon_as_its_change_is_told(listener: Listener) -> None:
    page = await listener.snapshot()
    assert listener.admits(page)
    await listener.writer.execute("INSERT INTO public.letters VALUES (1, 'b')")
    assert await listener.changes.catch_up()
    assert listener.admits(page), "it was another's row"
    await listener.writer.execute("INSERT INTO public.letters VALUES (1, 'a')")
    assert await listener.changes.catch_up()
    assert not listener.admits(page)
    assert listener.admits(await listener.snapshot())


async def heard(made: Listener) -> CheckResult:
    """What its health says of it."""
    parts: Any = SimpleNamespace(
        settings=Settings(), changes=made.changes,
        pages=SimpleNamespace(kept_out={}, listening=made.ledger.listening),
    )  # fmt: skip
    return await check_links.listener(parts)


async def test_a_worker_that_has_only_just_begun_is_not_ill(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But where the first attempt fails it is, however long the second takes."""
    again = asyncio.Event()

    async def refused(*_: object, **__: object) -> None:
        if again.is_set():
            await asyncio.Event().wait()
        await again.wait()
        raise OSError("refused")

    with monkeypatch.context() as patched:
        patched.setattr(pool, "connect", refused)
        async with listening(database) as made:
            await asyncio.sleep(0.05)
            assert (await heard(made)).state == "ok"
            again.set()
            await made.until(lambda: not made.changes.is_beginning)
            assert (await heard(made)).state == "degraded"
    async with listening(database) as made:
        await made.until(lambda: made.ledger.listening)
        assert (await heard(made)).state == "ok"
        made.changes.restart()
        assert (await heard(made)).state == "degraded"


async def test_a_server_that_freezes_as_it_is_told_to_listen_is_given_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, frozen = pool.connect, list[int]()

    async def connected(*given: Any, **more: Any) -> asyncpg.Connection:
        made = await connect(*given, **more)
        if not frozen:
            frozen.append(made.get_server_pid())
            os.kill(frozen[0], signal.SIGSTOP)
        return made

    monkeypatch.setattr(pool, "connect", connected)
    try:
        async with listening(database) as made:
            await made.until(lambda: not made.changes.is_beginning)
            await made.until(lambda: made.ledger.listening)
    finally:
        os.kill(frozen[0], signal.SIGCONT)


async def test_many_ask_at_once_and_each_knows_of_its_own_write(
    listener: Listener, database: str
) -> None:
    async def write(number: int) -> None:
        connection = await asyncpg.connect(database)
        try:
            before = Snapshot.parse(await connection.fetchval("SELECT pg_current_snapshot()::text"))
            await connection.execute("INSERT INTO public.letters VALUES ($1, 'a')", number)
            assert await listener.changes.catch_up()
            assert not listener.admits(before)
        finally:
            await connection.close()

    await asyncio.gather(*(write(number) for number in range(20)))


async def test_who_writes_long_is_seen_when_it_commits(listener: Listener, database: str) -> None:
    long = await asyncpg.connect(database)
    transaction = long.transaction()
    await transaction.start()
    await long.execute("INSERT INTO public.letters VALUES (7, 'a')")
    page = await listener.snapshot()
    await listener.writer.execute("INSERT INTO public.letters VALUES (8, 'b')")
    assert await listener.changes.catch_up()
    assert listener.admits(page)
    await transaction.commit()
    assert await listener.changes.catch_up()
    assert not listener.admits(page)
    await long.close()


@pytest.mark.parametrize("payload", ["", " ", "-1 =a", "x", "1", "=a =b", "９９９９ "])
async def test_what_no_trigger_of_ours_tells_harms_nothing(
    listener: Listener, payload: str
) -> None:
    page = await listener.snapshot()
    await listener.writer.execute("SELECT pg_notify('feedsvc_changes', $1)", payload)
    assert await listener.changes.catch_up()
    assert listener.admits(page)


async def test_what_it_may_have_missed_is_too_old(listener: Listener) -> None:
    page = await listener.snapshot()
    await listener.writer.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'feedsvc changes' AND datname = current_database()"
    )
    await listener.until(lambda: not listener.ledger.listening)
    assert not await listener.changes.catch_up()
    await listener.writer.execute("INSERT INTO public.letters VALUES (1, 'a')")
    await listener.until(lambda: listener.ledger.listening)
    assert not listener.admits(page)
    assert listener.admits(await listener.snapshot())


ON = "ALTER TABLE public.letters ENABLE ALWAYS TRIGGER feedsvc_told_insert"
UNTOLD = [
    "ALTER POLICY own ON public.letters USING (true)",
    "DROP POLICY own ON public.letters",
    "ALTER TABLE public.letters DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE public.letters DETACH PARTITION public.letters_2",
    "DROP TABLE public.letters_2",
    "ALTER TABLE public.letters DISABLE TRIGGER feedsvc_told_insert;"
    f"INSERT INTO public.letters VALUES (1, 'a'); {ON}",
]


@pytest.mark.parametrize("change", UNTOLD)
async def test_what_no_trigger_tells_is_noticed_and_throws_out_every_page(
    listener: Listener, change: str
) -> None:
    page = await listener.snapshot()
    await asyncio.sleep(0.3)
    assert listener.admits(page), "as long as nothing has happened"
    await listener.writer.execute(change)
    await listener.until(lambda: not listener.admits(page))
    await listener.until(lambda: listener.ledger.listening)
    assert listener.admits(await listener.snapshot())
    assert listener.told == []


async def test_a_dataset_whose_triggers_are_disabled_is_kept_out_until_they_are_not(
    listener: Listener,
) -> None:
    page = await listener.snapshot()
    await listener.writer.execute("ALTER TABLE public.letters_1 DISABLE TRIGGER ALL")
    await listener.until(lambda: bool(listener.pages.kept_out))
    assert "public.letters_1 is not enabled" in listener.pages.kept_out["letters"]
    for operation in ("insert", "update", "delete", "truncate"):
        await listener.writer.execute(
            f"ALTER TABLE public.letters_1 ENABLE ALWAYS TRIGGER feedsvc_told_{operation}"
        )
    await listener.until(lambda: listener.pages.kept_out == {})
    assert not listener.admits(page)


async def test_a_beat_that_was_given_up_says_nothing_of_the_next(listener: Listener) -> None:
    """A cancelled question may still be answered, behind the next one."""
    beats: list[Awaitable[bool]] = []
    for _ in range(50):
        asked = asyncio.ensure_future(listener.changes.catch_up())
        beats.append(asked)
        await asyncio.sleep(0.001)
        asked.cancel()
        page = await listener.snapshot()
        await listener.writer.execute("INSERT INTO public.letters VALUES (1, 'a')")
        assert await listener.changes.catch_up()
        assert not listener.admits(page)
    await asyncio.gather(*beats, return_exceptions=True)


async def test_a_note_counts_for_its_own_beat_alone() -> None:
    given: Any = SimpleNamespace(on_disconnect=lambda: None)
    made = ChangeListener(Database.model_validate({"url": "postgresql://nowhere"}), given, given)
    made._beats, made._note = 2, asyncio.get_running_loop().create_future()
    made._came_back(None, 1, "channel", "1")
    assert not made._note.done()
    made._came_back(None, 1, "channel", "2")
    assert made._note.done()


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
        async with listening(server.url()) as made:
            async with asyncio.timeout(30):
                while made.changes.is_beginning:
                    await asyncio.sleep(0.02)
            assert not made.ledger.listening
        # A standby without a primary waits for it when it is asked to stop.
        await asyncio.to_thread(server.stop, "immediate")
