"""The change log is looked after by the workers: in turns, and whatever becomes of PostgreSQL."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.servers import Servers
from feedsvc.changes import log_upkeep
from feedsvc.changes.log_upkeep import NO_RIGHT, NOT_SET_UP, LogUpkeep
from feedsvc.commands.demo.embedded import PostgresServer
from feedsvc.core.events import LogMaintained, Observers
from feedsvc.settings import Changes, Database
from tests.integration.conftest import NewDatabase
from tests.support import pgbouncer
from tests.support.ailing import until
from tests.support.servers import LOG_TEMPLATE, as_login, copied_postgres, world_of_its_own
from tests.support.service import REPOSITORY, serving
from tests.support.standby import frozen

AT_ONCE = Changes(retention=0.001)
"""A log whose windows are over as soon as they are looked at."""
WINDOWS = "SELECT slot FROM feedsvc.log_windows ORDER BY began"


class Worker:
    """A worker's upkeep, and what it told."""

    def __init__(self, url: str, folder: Path | None = None, kept: Changes = AT_ONCE) -> None:
        self.reported: list[LogMaintained] = []
        observers = Observers()
        observers.add(LogMaintained, self.reported.append)
        servers = Servers(Database(url=SecretStr(url)))
        self.upkeep = LogUpkeep(servers, kept, observers, folder)
        self.turns = self.upkeep.turns

    async def look(self) -> None:
        """Look once more, as if it were due."""
        self.make_due()
        await self.upkeep.look()

    def make_due(self) -> None:
        self.turns.note(replace(self.turns.last(), due=0.0))

    @property
    def fault(self) -> str | None:
        return self.turns.last().fault


@pytest.fixture
async def migrated(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(LOG_TEMPLATE) as url:
        yield url


FILLED = """
INSERT INTO feedsvc.log (xid, scope, feed, slot, op, key)
SELECT pg_current_xact_id(), n, 1, feedsvc.log_slot(), 'u', repeat('k', 100)
FROM generate_series(1, 20000) AS n
"""
LONG_AGO = "UPDATE feedsvc.log_windows SET began = began - interval '30 days'"
BYTES = "SELECT sum(pg_total_relation_size('feedsvc.log_' || n)) FROM generate_series(0, 7) AS n"


async def test_a_log_that_grew_without_any_instance_is_in_bounds_two_turns_after_a_start(
    migrated: str,
) -> None:
    kept = Changes(max_bytes=1 << 20)
    owner = await asyncpg.connect(migrated)
    try:
        await owner.execute(LONG_AGO)
        await owner.execute(FILLED)
        assert await owner.fetchval(BYTES) > 2 * kept.max_bytes
        for _ in range(2):
            await Worker(migrated, kept=kept).upkeep.look()
        assert await owner.fetchval(BYTES) < kept.max_bytes
        assert await owner.fetchval("SELECT floor IS NOT NULL FROM feedsvc.log_floor")
    finally:
        await owner.close()


async def test_the_statement_of_the_runbook_turns_the_ring_without_any_instance(
    migrated: str,
) -> None:
    lines = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8").splitlines()
    (statement,) = [line.strip() for line in lines if "SELECT feedsvc.log_maintain(" in line]
    owner, login = await asyncpg.connect(migrated), await asyncpg.connect(as_login(migrated))
    try:
        for _ in range(8):
            await owner.execute(LONG_AGO)
            await owner.execute(f"{LONG_AGO.replace('began', 'ended')} WHERE ended IS NOT NULL")
            await owner.execute(FILLED)
            await login.execute(statement)
        assert await owner.fetchval("SELECT count(*) FROM feedsvc.log_windows") <= 3
        rows = await owner.fetchval("SELECT count(*) FROM feedsvc.log")
        assert rows <= 3 * 20_000
    finally:
        await owner.close()
        await login.close()


async def test_workers_take_turns_and_the_ring_turns(
    migrated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A look that takes a second would make the next turn due.
    monkeypatch.setattr(log_upkeep, "_SHORTEST", 3_600.0)
    one, other = Worker(migrated, tmp_path), Worker(migrated, tmp_path)
    owner = await asyncpg.connect(migrated)
    try:
        await one.upkeep.look()
        await other.upkeep.look()
        assert [row[0] for row in await owner.fetch(WINDOWS)] == [0, 1]
        assert (one.reported, other.reported) == (
            [LogMaintained(trimmed=0, is_new_epoch=False)],
            [],
        )
        one.make_due()
        await other.upkeep.look()
        assert len(one.reported) == len(other.reported) == 1
        assert other.reported[0].trimmed >= 1
    finally:
        await owner.close()


async def test_all_that_is_overdue_is_trimmed_in_one_turn(migrated: str) -> None:
    """A turn begins one window: one trim a turn would never catch up."""
    worker = Worker(migrated, kept=Changes(retention=3_600))
    owner, late = [await asyncpg.connect(migrated) for _ in range(2)]
    try:
        await late.execute("BEGIN; SELECT FROM feedsvc.log")
        for _ in range(5):
            await owner.execute("SELECT feedsvc.log_maintain('0', 1 << 30)")
        await late.execute("COMMIT")
        await owner.execute("UPDATE feedsvc.log_windows SET ended = ended - interval '1 day'")
        await worker.look()
        assert worker.reported == [LogMaintained(trimmed=5, is_new_epoch=False)]
    finally:
        await owner.close()
        await late.close()


@pgbouncer.needed
async def test_a_pooler_of_transactions_changes_nothing(world_admin_url: str) -> None:
    async with world_of_its_own(world_admin_url) as url:
        with pgbouncer.pooled_by_transaction(url) as through:
            worker = Worker(through)
            for _ in range(3):
                await worker.look()
                assert worker.fault is None
            assert worker.reported[-1].trimmed >= 1


async def test_a_new_epoch_is_reported_once(
    migrated: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is gone after a crash, and made by the next turn: a cursor may be asked for later."""
    one, other = Worker(migrated, tmp_path), Worker(migrated, tmp_path)
    owner = await asyncpg.connect(migrated)
    try:
        await one.upkeep.look()
        await owner.execute("TRUNCATE feedsvc.log_epoch")
        for worker in (other, one, other):
            one.make_due()
            await worker.upkeep.look()
        assert [t.is_new_epoch for t in one.reported + other.reported] == [
            False,
            False,
            True,
            False,
        ]
        assert await owner.fetchval("SELECT count(*) FROM feedsvc.log_epoch") == 1
        assert [r.message for r in caplog.records if "new epoch" in r.message]
    finally:
        await owner.close()


async def test_without_the_log_or_the_right_to_it_that_is_logged_once_until_it_is_there(
    new_database: NewDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "feedsvc.changes.log_upkeep")
    async with new_database() as url:
        owner = await asyncpg.connect(url)
        try:
            await owner.execute("CREATE ROLE log_keeper LOGIN PASSWORD 'k'")
            worker = Worker(as_login(url, "log_keeper", "k"))
            for _ in range(2):
                await worker.look()
            assert worker.fault == NOT_SET_UP
            await runner.up(url, "service")
            for _ in range(2):
                await worker.look()
            assert worker.fault == NO_RIGHT
            await owner.execute("GRANT feedsvc_service TO log_keeper")
            for _ in range(2):
                await worker.look()
            assert worker.fault is None
            assert len(await owner.fetch(WINDOWS)) == 2
        finally:
            await owner.execute("DROP ROLE IF EXISTS log_keeper")
            await owner.close()
    assert [record.message for record in caplog.records] == [
        f"changes: {NOT_SET_UP}", f"changes: {NO_RIGHT}", "changes: the log is looked after again",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with copied_postgres({"fsync": "off", "synchronous_commit": "on"}) as own:
        yield own


async def test_postgresql_that_is_frozen_or_gone_holds_up_no_stop(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await runner.up(server.url(), "service")
    worker = Worker(server.url())
    monkeypatch.setattr(log_upkeep, "_DEADLINE", 0.2)
    with frozen(server):
        await worker.look()
        assert "not looked after" in (worker.fault or "")
        monkeypatch.setattr(log_upkeep, "_DEADLINE", 3_600.0)
        worker.make_due()
        running = asyncio.create_task(worker.upkeep.run())

        async def has_begun() -> bool:
            return worker.turns.last().due > 0

        await until(has_begun, 30)
        running.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(running, return_exceptions=True)
    await worker.look()
    assert worker.fault is None
    await asyncio.to_thread(server.stop, "immediate")
    try:
        await worker.look()
        assert "not looked after" in (worker.fault or "")
    finally:
        await asyncio.to_thread(server.start)
    await worker.look()
    assert worker.fault is None
    assert worker.reported[-1].is_new_epoch, "the server crashed"


async def test_a_locked_log_is_tried_again(migrated: str) -> None:
    """Its own lock is waited for 50 ms, and the lock of no other table is taken meanwhile."""
    worker, other = Worker(migrated), await asyncpg.connect(migrated)
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE feedsvc.log_3 IN ACCESS EXCLUSIVE MODE")
            await worker.look()
            assert "55P03" in (worker.fault or "")
        await worker.look()
        assert worker.fault is None
    finally:
        await other.close()


async def test_a_service_turns_the_ring_one_session_at_a_time(world_admin_url: str) -> None:
    async with world_of_its_own(world_admin_url) as url:
        owner_url = world_admin_url.rpartition("/")[0] + "/" + url.rpartition("/")[2]
        owner = await asyncpg.connect(owner_url)
        settings = {"FEEDSVC_CHANGES__RETENTION": "0.5", "FEEDSVC_SERVER__WORKERS": "2"}
        try:
            with serving(url, settings=settings) as running:

                async def has_turned() -> bool:
                    return await owner.fetchval("SELECT floor FROM feedsvc.log_floor") is not None

                await until(has_turned, 60)
                assert await owner.fetchval("SELECT count(*) FROM feedsvc.log_epoch") == 1
                running.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(running.process.wait, 60) == 0
            assert not [line for line in running.log if "the change log" in line]
        finally:
            await owner.close()
