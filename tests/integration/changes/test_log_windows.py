"""The ring of the change log: windows, seals, trimming, the epoch, and rights."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes import log_hash
from streams import tokens
from tests.support.log_world import EMPTY_LOG

ROW = """
    INSERT INTO feedsvc.log (xid, scope, feed, slot, op, key)
    VALUES (pg_current_xact_id(), 7, 1, feedsvc.log_slot(), 'u', $1)
"""
LARGE = 1 << 40


@pytest.fixture
async def owner(log_database: str) -> AsyncIterator[asyncpg.Connection]:
    """Its owner, on a log that is as new."""
    connection = await asyncpg.connect(log_database)
    try:
        await connection.execute(EMPTY_LOG)
        yield connection
    finally:
        await connection.close()


async def maintain(
    connection: asyncpg.Connection, retention: float = 0, most: int = LARGE
) -> dict[str, Any]:
    done = await connection.fetchval(
        "SELECT feedsvc.log_maintain(make_interval(secs => $1), $2)", float(retention), most
    )
    return dict(json.loads(done))


async def snapshot(connection: asyncpg.Connection) -> Snapshot:
    return Snapshot.parse(await connection.fetchval("SELECT pg_current_snapshot()::text"))


async def floor(connection: asyncpg.Connection) -> Snapshot | None:
    text = await connection.fetchval("SELECT floor::text FROM feedsvc.log_floor")
    return None if text is None else Snapshot.parse(text)


async def keys(connection: asyncpg.Connection) -> list[str]:
    found = await connection.fetch("SELECT key FROM feedsvc.log ORDER BY key")
    return [row["key"] for row in found]


async def test_a_window_is_sealed_trimmed_and_followed(owner: asyncpg.Connection) -> None:
    await owner.execute(ROW, "a")
    done = await maintain(owner)
    assert (done["slot"], done["began"], done["trimmed"]) == (1, True, None)
    before = await snapshot(owner)
    await owner.execute(ROW, "b")
    assert await owner.fetchval("SELECT slot FROM feedsvc.log WHERE key = 'b'") == 1
    done = await maintain(owner)
    assert (done["trimmed"], done["slot"]) == (0, 2)
    assert await keys(owner) == ["b"]
    lowest = await floor(owner)
    assert lowest is not None
    assert (await snapshot(owner)).covers(lowest)
    assert not before.covers(lowest), "the seal was taken later than the window's end"
    for _ in range(20):
        await maintain(owner)
    assert await keys(owner) == []
    done = await maintain(owner, retention=3_600)
    assert (done["trimmed"], done["began"], done["blocked"]) == (None, False, None)


@pytest.mark.parametrize("prepared", [False, True])
async def test_an_open_writer_keeps_its_window_and_holds_up_no_writer(
    owner: asyncpg.Connection, log_database: str, prepared: bool
) -> None:
    """The ring comes round to the kept window, and the present one goes on."""
    late = await asyncpg.connect(log_database)
    try:
        await late.execute("BEGIN")
        await late.execute(ROW, "late")
        if prepared:
            await late.execute("PREPARE TRANSACTION 'late'")
        for number in range(12):
            await owner.execute("SET lock_timeout = '1ms'")
            await owner.execute(ROW, f"n{number:02}")
            done = await maintain(owner)
        assert done["blocked"] == "a transaction that wrote to the oldest window is open"
        assert (done["began"], done["windows"]) == (False, 8)
        assert len(await keys(owner)) == 12
        assert await floor(owner) is None
        # A cursor that is taken now is behind nothing that has been trimmed.
        new = await snapshot(owner)
        await late.execute("COMMIT PREPARED 'late'" if prepared else "COMMIT")
        assert "late" in await keys(owner)
        assert (await maintain(owner))["trimmed"] == 0
        lowest = await floor(owner)
        assert lowest is not None
        assert not new.covers(lowest), "the seal sees the late transaction, the cursor does not"
        await owner.execute(ROW, "end")
        assert "end" in await keys(owner)
    finally:
        await owner.execute("RESET lock_timeout")
        await late.close()


async def test_a_reader_of_the_oldest_window_is_waited_for_for_a_moment(
    owner: asyncpg.Connection, log_database: str
) -> None:
    await owner.execute(ROW, "a")
    await maintain(owner)
    reader = await asyncpg.connect(log_database)
    try:
        await reader.execute("BEGIN; SELECT FROM feedsvc.log")
        done = await maintain(owner)
        assert done["blocked"] == "the oldest window is being read or written"
        assert await keys(owner) == ["a"]
        await reader.execute("COMMIT")
        assert (await maintain(owner))["trimmed"] == 0
    finally:
        await reader.close()


async def test_a_row_that_came_behind_the_seal_raises_the_floor(
    owner: asyncpg.Connection, log_database: str
) -> None:
    """As of a session that was to write when the window ended, and was stopped before it did."""
    await maintain(owner)
    await maintain(owner, retention=3_600)
    sealed = await owner.fetchval("SELECT sealed FROM feedsvc.log_windows WHERE slot = 0")
    assert sealed is not None
    late = ROW.replace("feedsvc.log_slot()", "0::smallint")
    between = await snapshot(owner)
    await owner.execute(late, "late")
    assert (await maintain(owner))["trimmed"] == 0
    lowest = await floor(owner)
    assert lowest is not None
    assert not between.covers(lowest)
    assert (await snapshot(owner)).covers(lowest)


async def test_a_log_beyond_its_bytes_begins_and_trims_early(owner: asyncpg.Connection) -> None:
    many = ROW.replace("VALUES (", "SELECT ").replace(
        "$1)", "i::text FROM generate_series(1, 9000) i"
    )
    for _ in range(12):
        await owner.execute(many)
        done = await maintain(owner, retention=3_600, most=4_000_000)
    assert done["bytes"] < 8_000_000
    assert await floor(owner) is not None


async def test_a_plan_that_was_made_before_follows_the_window(owner: asyncpg.Connection) -> None:
    statement = f"PREPARE log_row (text) AS {ROW}; SET plan_cache_mode = force_generic_plan"
    await owner.execute(statement)
    try:
        await owner.execute("EXECUTE log_row('a')")
        await maintain(owner)
        await owner.execute("EXECUTE log_row('b')")
        rows = await owner.fetch("SELECT key, slot FROM feedsvc.log ORDER BY key")
        assert [tuple(row) for row in rows] == [("a", 0), ("b", 1)]
    finally:
        await owner.execute("DEALLOCATE log_row; RESET plan_cache_mode")


async def test_one_at_a_time_maintains(owner: asyncpg.Connection, log_database: str) -> None:
    other = await asyncpg.connect(log_database)
    try:
        async with owner.transaction():
            await maintain(owner, retention=3_600)
            done = await maintain(other)
            assert done == {"blocked": "another session maintains the log"}
        with pytest.raises(asyncpg.RaiseError, match="READ COMMITTED"):
            async with owner.transaction(isolation="repeatable_read"):
                await maintain(owner)
    finally:
        await other.close()


async def test_an_epoch_is_made_once_and_belongs_to_its_database(
    owner: asyncpg.Connection, log_database: str
) -> None:
    others = [await asyncpg.connect(log_database) for _ in range(4)]
    try:
        made = await asyncio.gather(*(c.fetchval("SELECT feedsvc.log_life()") for c in others))
        assert len(set(made)) == 1
        assert await owner.fetchval("SELECT epoch FROM feedsvc.log_epoch") == made[0]
        await owner.execute("UPDATE feedsvc.log_epoch SET origin = 'of another database'")
        assert await owner.fetchval("SELECT feedsvc.log_life()") != made[0]
    finally:
        for connection in others:
            await connection.close()


async def test_the_services_login_reads_and_maintains_and_nothing_else(
    owner: asyncpg.Connection,
) -> None:
    async with owner.transaction():
        await owner.execute("SET LOCAL ROLE feedsvc_service")
        for table in ("log", "log_0", "log_windows", "log_floor", "log_feeds", "log_epoch"):
            await owner.fetch(f"SELECT * FROM feedsvc.{table}")
        await owner.fetchval("SELECT feedsvc.log_life()")
        await owner.execute("SELECT feedsvc.log_invalidation('\\x00000001')")
        await maintain(owner)
        assert await owner.fetchval("SELECT tags FROM feedsvc.log WHERE op = 'i'") == bytes(
            [0, 0, 0, 1]
        )
        for write in (
            "DELETE FROM feedsvc.log",
            "TRUNCATE feedsvc.log_1",
            "UPDATE feedsvc.log_floor SET floor = NULL",
            "DELETE FROM feedsvc.log_epoch",
            "INSERT INTO feedsvc.log_feeds DEFAULT VALUES",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with owner.transaction():
                    await owner.execute(write)
        await owner.execute("RESET ROLE")
        role = "CREATE ROLE log_stranger; SET LOCAL ROLE log_stranger"
        await owner.execute(f"GRANT USAGE ON SCHEMA feedsvc TO PUBLIC; {role}")
        for call in ("log_life()", "log_invalidation('')", "log_maintain('0', 0)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with owner.transaction():
                    await owner.execute(f"SELECT feedsvc.{call}")
        await owner.execute(
            "RESET ROLE; DROP ROLE log_stranger; REVOKE USAGE ON SCHEMA feedsvc FROM PUBLIC"
        )


@drawn(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
       st.integers(-(2**63), 2**63 - 1))  # fmt: skip
async def test_scopes_tags_and_tokens_are_postgresqls_own(
    owner: asyncpg.Connection, text: str, seed: int
) -> None:
    row = await owner.fetchrow(
        'SELECT hashtextextended($1 COLLATE "C", $2), int4send(hashtext($1 COLLATE "C")),'
        " feedsvc.log_quoted($1)",
        text, seed,
    )  # fmt: skip
    assert row is not None
    assert tuple(row) == (log_hash.scope(text, seed), log_hash.tag(text), tokens.encode([text]))
