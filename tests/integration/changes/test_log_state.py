"""The log's state names the transaction that keeps it, or keeps writers waiting."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from feedsvc.changes.log_state import LogState, log_state
from tests.integration.conftest import NewDatabase
from tests.support.servers import LOG_TEMPLATE, as_login

ROW = """
    INSERT INTO feedsvc.log (xid, scope, feed, slot, op)
    VALUES (pg_current_xact_id(), 7, 1, feedsvc.log_slot(), 'u')
"""


@pytest.fixture
async def migrated(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(LOG_TEMPLATE) as url:
        yield url


@pytest.fixture
async def owner(migrated: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated)
    yield connection
    await connection.close()


@pytest.fixture
async def other(migrated: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated, server_settings={"application_name": "the other"})
    yield connection
    await connection.close()


async def turn(owner: asyncpg.Connection) -> None:
    await owner.execute("SELECT feedsvc.log_maintain('0', 1 << 30)")


async def state(connection: asyncpg.Connection, retention: float = 0.0) -> LogState:
    found = await log_state(connection, retention)
    assert isinstance(found, LogState)
    return found


async def test_sizes_and_ages(owner: asyncpg.Connection) -> None:
    new = await state(owner, 60.0)
    assert (new.windows, new.unsealed, new.overdue) == (1, 0, -60.0)
    assert (new.blocker, new.locker) == (None, None)
    await owner.execute(f"{ROW}; INSERT INTO feedsvc.log SELECT log.* FROM feedsvc.log,"
                        " generate_series(1, 9000)")  # fmt: skip
    await turn(owner)
    found = await state(owner, 60.0)
    assert (found.bytes or 0) - (new.bytes or 0) > 500_000
    assert (found.windows, found.unsealed) == (2, 1)
    assert 0 < found.oldest < 3_600
    assert -60 < found.overdue < 3_600


async def test_a_transaction_that_wrote_to_a_window_that_is_over(
    owner: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await other.execute(f"BEGIN; {ROW}")
    assert (await state(owner)).blocker is None, "the window is written still"
    await turn(owner)
    blocker = (await state(owner)).blocker
    assert blocker is not None
    assert (blocker.pid, blocker.name, blocker.gid) == (other.get_server_pid(), "the other", None)
    assert 0 <= (blocker.age or 0.0) < 3_600
    await other.execute("PREPARE TRANSACTION 'forgotten'")
    blocker = (await state(owner)).blocker
    assert blocker is not None
    assert (blocker.pid, blocker.gid) == (None, "forgotten")
    assert str(blocker).startswith("the prepared transaction 'forgotten' of ")
    await owner.execute("ROLLBACK PREPARED 'forgotten'")
    await turn(owner)
    assert (await state(owner)).blocker is None


async def test_a_backup_that_reads_the_oldest_window(
    owner: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await turn(owner)
    await other.execute("BEGIN; SELECT FROM feedsvc.log")
    await owner.execute("SELECT feedsvc.log_maintain('1h', 1 << 30)")
    blocker = (await state(owner)).blocker
    assert blocker is not None
    assert blocker.pid == other.get_server_pid()


@pytest.mark.parametrize(
    ("locked", "mode"),
    [
        ("feedsvc.log_0", "ACCESS EXCLUSIVE"),
        ("feedsvc.log_0", "SHARE"),
        ("ONLY feedsvc.log", "SHARE"),
    ],
)
async def test_a_lock_that_writers_wait_for(
    owner: asyncpg.Connection, other: asyncpg.Connection, locked: str, mode: str
) -> None:
    await other.execute(f"BEGIN; LOCK TABLE {locked} IN {mode} MODE")
    found = await state(owner)
    assert found.locker is not None
    assert found.locker.pid == other.get_server_pid()
    assert found.locker.mode == f"{mode.title().replace(' ', '')}Lock"
    assert (found.bytes is None) == (mode == "ACCESS EXCLUSIVE")
    await other.execute("ROLLBACK")
    assert (await state(owner)).locker is None


async def test_a_lock_on_a_window_without_a_writer_is_none(
    owner: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await other.execute("BEGIN; LOCK TABLE feedsvc.log_5 IN SHARE MODE")
    found = await state(owner)
    assert (found.locker, found.blocker) == (None, None)


async def test_a_login_that_sees_no_others_transactions_has_the_windows_end(
    owner: asyncpg.Connection, other: asyncpg.Connection, migrated: str
) -> None:
    await owner.execute(
        "CREATE ROLE log_looker LOGIN PASSWORD 'l'; GRANT feedsvc_service TO log_looker"
    )
    looker = await asyncpg.connect(as_login(migrated, "log_looker", "l"))
    try:
        await other.execute(f"BEGIN; {ROW}")
        await turn(owner)
        blocker = (await state(looker)).blocker
        assert blocker is not None
        assert blocker.pid == other.get_server_pid()
        assert 0 <= (blocker.age or 0.0) < 3_600
    finally:
        await looker.close()
        await owner.execute("DROP ROLE log_looker")
