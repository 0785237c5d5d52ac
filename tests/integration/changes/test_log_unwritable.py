"""A log that can't be written: writers wait or fail as at any other table, and lose nothing."""

import asyncio
import os
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.commands.demo.embedded import PostgresServer
from feedsvc.commands.demo.embedded.account import server_account
from tests.support.ailing import until
from tests.support.forked import feedsvc
from tests.support.log_world import LogWorld, install, log_rows
from tests.support.servers import copied_postgres

COLUMNS = ("number", "text", "tenant", "client", "shown", "hidden")


@dataclass(frozen=True)
class Logged:
    """A server with a table whose changes are logged, and the owner's session."""

    server: PostgresServer
    world: LogWorld
    owner: asyncpg.Connection

    def insert(self, first: int, last: int | None = None) -> str:
        """SQL that adds rows of these numbers."""
        names = ", ".join(getattr(self.world, name) for name in COLUMNS)
        series = f"generate_series({first}, {first if last is None else last}) AS i"
        return (
            f"INSERT INTO {self.world.table} ({names})"
            f" SELECT i, repeat('x', 50), 'a', 1, '1', 0 FROM {series}"
        )

    async def numbers(self) -> set[int]:
        """The numbers of the table's rows."""
        rows = await self.owner.fetch(f"SELECT {self.world.number} FROM {self.world.table}")
        return {row[0] for row in rows}

    async def logged(self) -> set[int]:
        """The numbers that the log has."""
        rows = await log_rows(self.owner)
        return {int(key.partition(",")[0]) for row in rows for key in row.keys}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with copied_postgres({"fsync": "off", "max_prepared_transactions": "4"}) as own:
        yield own


@pytest.fixture(scope="module")
async def module_logged(server: PostgresServer) -> AsyncIterator[Logged]:
    await runner.up(server.url(), "service")
    owner = await asyncpg.connect(server.url())
    world = LogWorld.drawn(5, "things", 5)
    try:
        await owner.execute(world.ddl())
        yield Logged(server, world, owner)
    finally:
        await owner.close()


@pytest.fixture
async def logged(module_logged: Logged) -> Logged:
    """The same with empty tables and all triggers."""
    owner = module_logged.owner
    await install(owner, module_logged.world.declared)
    await owner.execute(f"TRUNCATE {module_logged.world.table}")
    await owner.execute("TRUNCATE feedsvc.log")
    return module_logged


async def session(logged: Logged, **settings: str) -> asyncpg.Connection:
    return await asyncpg.connect(logged.server.url(), server_settings=settings)


@pytest.mark.parametrize("locked", ["feedsvc.log", "the present partition"])
async def test_a_writer_waits_for_a_locked_log_or_fails_by_its_lock_timeout(
    logged: Logged, locked: str
) -> None:
    if locked != "feedsvc.log":
        locked = f"feedsvc.log_{await logged.owner.fetchval('SELECT feedsvc.log_slot()')}"
    locker, patient, hasty = [await session(logged) for _ in range(3)]
    try:
        await locker.execute(f"BEGIN; LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        writing = asyncio.create_task(patient.execute(logged.insert(1)))

        async def waits() -> bool:
            found = await logged.owner.fetchrow(
                "SELECT wait_event_type, wait_event, pg_blocking_pids(pid) FROM pg_stat_activity"
                " WHERE pid = $1", patient.get_server_pid(),
            )  # fmt: skip
            return found is not None and tuple(found) == (
                "Lock", "relation", [locker.get_server_pid()],
            )  # fmt: skip

        await until(waits, 30)
        await hasty.execute("SET lock_timeout = '10ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await hasty.execute(logged.insert(2))
        # A write that changes nothing that is shown logs nothing, and waits for nothing.
        hidden = f"UPDATE {logged.world.table} SET {logged.world.hidden} = 1"
        await hasty.execute(hidden)
        assert await waits()
        await locker.execute("ROLLBACK")
        await writing
        assert await logged.numbers() == await logged.logged() == {1}
    finally:
        for connection in (locker, patient, hasty):
            await connection.close()


async def test_triggers_can_be_dropped_while_the_log_is_locked(logged: Logged) -> None:
    """Writers that wait have locks on their tables, so those have to end first."""
    locker, hasty = await session(logged), await session(logged, lock_timeout="10ms")
    try:
        await locker.execute("BEGIN; LOCK TABLE feedsvc.log IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await hasty.execute(logged.insert(1))
        await drop_triggers(logged)
        await hasty.execute(logged.insert(2))
    finally:
        await locker.close()
        await hasty.close()


async def drop_triggers(logged: Logged) -> None:
    """`feedsvc migrate triggers --drop`."""
    environment = {**os.environ, "MIGRATION_DATABASE_URL": logged.server.url()}
    arguments = ["migrate", "triggers", "--drop"]
    done = await asyncio.to_thread(feedsvc, *arguments, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def small_disk() -> Iterator[Path]:
    """A file system of some megabytes that the server may write to."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = Path(tempfile.gettempdir(), f"feedsvc-small-{uuid.uuid4().hex}")
    folder.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs"]
    mounted = subprocess.run(["mount", *options, folder], capture_output=True, check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("no file system can be mounted here")
    try:
        server_account().give(folder)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


async def _move(owner: asyncpg.Connection, tablespace: str) -> None:
    """Put the log's partitions and their indexes into a tablespace."""
    rows = await owner.fetch(
        "SELECT c.oid::regclass::text AS name, c.relkind = 'i' AS is_index FROM pg_class AS c"
        " WHERE c.relnamespace = 'feedsvc'::regnamespace AND c.relkind IN ('r', 'i')"
        " AND c.relname ~ '^log_[0-7]'"
    )
    for row in rows:
        kind = "INDEX" if row["is_index"] else "TABLE"
        await owner.execute(f"ALTER {kind} {row['name']} SET TABLESPACE {tablespace}")


async def fill(logged: Logged) -> int:
    """Write until the log's disk is full; the last number that was written."""
    last = 0
    while True:
        try:
            await logged.owner.execute(logged.insert(last + 1, last + 500))
        except asyncpg.DiskFullError:
            return last
        last += 500


async def test_a_full_disk_fails_writers_until_there_is_room_or_no_trigger(
    logged: Logged, small_disk: Path
) -> None:
    owner = logged.owner
    await owner.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
    await _move(owner, "small")
    try:
        last = await fill(logged)
        # The failed statement has left nothing, and none that is committed is missing.
        written = set(range(1, last + 1))
        assert await logged.numbers() == await logged.logged() == written
        await owner.execute(f"UPDATE {logged.world.table} SET {logged.world.hidden} = 1")
        # An empty file needs room, too: what is full is not trimmed, and nothing goes.
        with pytest.raises(asyncpg.DiskFullError):
            await _maintain_thrice(owner)
        assert await logged.logged() == written
        before = Snapshot.parse(await owner.fetchval("SELECT pg_current_snapshot()::text"))
        await drop_triggers(logged)
        await owner.execute(logged.insert(last + 1))
        _resize(small_disk)
        await install(owner, logged.world.declared)
        await owner.execute(logged.insert(last + 2))
        assert await logged.logged() == written | {last + 2}
        since = await owner.fetchval("SELECT since::text FROM feedsvc.log_feeds")
        assert not before.covers(Snapshot.parse(since)), "a change would be passed over"
        await _maintain_thrice(owner)
        assert await logged.logged() == set()
    finally:
        _resize(small_disk)
        await _move(owner, "pg_default")
        await owner.execute("DROP TABLESPACE small")


async def _maintain_thrice(owner: asyncpg.Connection) -> None:
    for _ in range(3):
        await owner.execute("SELECT feedsvc.log_maintain('0', 1::bigint << 40)")


def _resize(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
