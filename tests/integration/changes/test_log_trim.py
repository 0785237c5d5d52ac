"""Trimming beside readers and writers: a position continues or expires, and no writer waits."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

import asyncpg
import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes import log_triggers
from streams import tokens
from tests.support.ailing import until
from tests.support.log_world import (
    EMPTY_LOG,
    LogRow,
    LogWorld,
    State,
    everyone_of,
    install,
    missing,
)
from tests.support.log_writers import Writer

WRITERS, STEPS = 4, 80
ROW = """
    INSERT INTO feedsvc.log (xid, scope, feed, slot, op, key)
    VALUES (pg_current_xact_id(), 7, 1, feedsvc.log_slot(), 'u', $1)
"""
MAINTAIN = "SELECT feedsvc.log_maintain(make_interval(secs => $1), $2)"
LARGE = 1 << 40
SINCE = """
    SELECT key FROM feedsvc.log WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
    UNION ALL
    SELECT key FROM feedsvc.log
    WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
"""
FLOOR = "SELECT floor::text FROM feedsvc.log_floor"
ONE_STATEMENT = f"SELECT ({FLOOR}) AS floor, ARRAY({SINCE}) AS keys"
WAITS = """
    SELECT count(*) FROM pg_locks
    WHERE pid = $1 AND NOT granted AND locktype = 'relation'
        AND relation::regclass::text LIKE 'feedsvc.log%'
"""


class Connections:
    """Sessions of one database, closed together."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open: list[asyncpg.Connection] = []

    async def new(self, **settings: str) -> asyncpg.Connection:
        self._open.append(await asyncpg.connect(self._url, server_settings=settings))
        return self._open[-1]

    async def close(self) -> None:
        """Also of what a failed test has left prepared."""
        prepared = await self._open[0].fetch(
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        )
        for row in prepared:
            await self._open[0].execute(f"ROLLBACK PREPARED '{row[0]}'")
        for connection in self._open:
            await connection.close()


@pytest.fixture
async def connections(log_database: str) -> AsyncIterator[Connections]:
    """Sessions on a log that is as new."""
    made = Connections(log_database)
    owner = await made.new()
    await owner.execute(EMPTY_LOG)
    yield made
    await made.close()


async def maintain(connection: asyncpg.Connection, retention: float = 0.0) -> dict[str, object]:
    return dict(json.loads(await connection.fetchval(MAINTAIN, retention, LARGE)))


async def position(connection: asyncpg.Connection) -> str:
    return str(await connection.fetchval("SELECT pg_current_snapshot()::text"))


def is_expired(since: str, floor: str | None) -> bool:
    return floor is not None and not Snapshot.parse(since).covers(Snapshot.parse(floor))


@dataclass
class Verdicts:
    """The outcomes of the positions that were continued."""

    right: int = 0
    expired: int = 0
    trimmed: int = 0


class Reader:
    """A session that continues positions, as docs/changes.md says: by one statement."""

    def __init__(self, connection: asyncpg.Connection, world: LogWorld, everyone: int) -> None:
        self._connection = connection
        self._everyone = everyone
        self._sql = f"""
            SELECT pg_current_snapshot()::text AS snapshot, ({FLOOR}) AS floor,
                (SELECT coalesce(json_agg(json_build_array(
                    {world.tenant}::text, {world.number}::text, {world.text},
                    concat_ws('|', {world.shown}::text, {world.client})
                )), '[]') FROM {world.table}) AS rows,
                (SELECT coalesce(json_agg(json_build_array(
                    w.xid::text, w.feed, w.scope::text, w.op::text, w.key
                )), '[]') FROM (
                    SELECT * FROM feedsvc.log
                    WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                    UNION ALL
                    SELECT * FROM feedsvc.log
                    WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
                ) AS w) AS written
        """

    async def read(self, since: Snapshot) -> tuple[State, Snapshot | None]:
        """The present state, with the log's rows since a position; and the floor."""
        row = await self._connection.fetchrow(self._sql, str(since))
        assert row is not None
        shown = {(t, tokens.encode((n, x))): v for t, n, x, v in json.loads(row["rows"])}
        written = tuple(
            LogRow(int(xid), feed, int(scope), op, tuple(key.split(" ")) if key else (), None, None)
            for xid, feed, scope, op, key in json.loads(row["written"])
        )
        floor = None if row["floor"] is None else Snapshot.parse(row["floor"])
        return State(Snapshot.parse(row["snapshot"]), shown, written), floor

    async def look(self, states: Sequence[State], drawn: random.Random, so_far: Verdicts) -> State:
        """Continue one of the positions; the state where that leads."""
        before = drawn.choice(states)
        after, floor = await self.read(before.snapshot)
        if floor is not None and not before.snapshot.covers(floor):
            so_far.expired += 1
        else:
            assert missing(before, after, self._everyone) == [], "an answer is short"
            so_far.right += 1
        return after


@dataclass
class Scene:
    """Writers, a reader and the upkeep of one log, whose steps overlap."""

    owner: asyncpg.Connection
    keeper: asyncpg.Connection
    writers: list[Writer]
    reader: Reader
    drawn: random.Random

    @classmethod
    async def set_up(cls, made: Connections, seed: int) -> "Scene":
        world = LogWorld.drawn(seed, f"trimmed-{seed}", 7_000 + seed)
        owner, drawn = await made.new(), random.Random(seed)
        await owner.execute(world.ddl())
        await install(owner, world.declared)
        (dataset,) = world.declared
        writers = [
            Writer(await made.new(lock_timeout="50ms"), world, drawn.randrange(1 << 30))
            for _ in range(WRITERS)
        ]
        reader = Reader(await made.new(), world, await everyone_of(owner, dataset))
        return cls(owner, await made.new(), writers, reader, drawn)

    async def play(self) -> Verdicts:
        """Take the steps. Raises AssertionError for an answer that is short."""
        so_far, drawn = Verdicts(), self.drawn
        states = [(await self.reader.read(Snapshot(1, 1, frozenset())))[0]]
        for _ in range(STEPS):
            steps = [writer.step() for writer in drawn.sample(self.writers, 2)]
            if drawn.random() < 0.4:
                steps.append(self._keep(so_far))
            looked = self.reader.look(states, drawn, so_far)
            # Each is waited for, also where one has failed: a connection does one thing at a time.
            done = await asyncio.gather(looked, *steps, return_exceptions=True)
            for each in done:
                if isinstance(each, BaseException):
                    raise each
                if each is not None:
                    states.append(each)
        for writer in self.writers:
            await writer.close()
        for _ in range(3):
            so_far.trimmed += (await maintain(self.keeper))["trimmed"] is not None
        states.append((await self.reader.read(states[-1].snapshot))[0])
        for state in states:
            await self.reader.look([state], drawn, so_far)
        return so_far

    async def _keep(self, so_far: Verdicts) -> None:
        done = await maintain(self.keeper, self.drawn.choice([0.0, 0.05]))
        so_far.trimmed += done.get("trimmed") is not None


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_an_answer_is_right_or_the_position_is_expired_and_no_writer_fails(
    connections: Connections, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with open, rolled back and prepared transactions; writers give up after 50 ms."""
    monkeypatch.setattr(log_triggers, "FEW_ROWS", 2)
    scene = await Scene.set_up(connections, seed)
    verdicts = await scene.play()
    assert min(verdicts.right, verdicts.expired, verdicts.trimmed) > 0, verdicts
    refused = [error for writer in scene.writers for error in writer.refused]
    # Rows that another writer has locked are waited for; the log never is.
    assert [error for error in refused if "feedsvc.log" in (error.context or "")] == []


async def _play_all(connections: Connections, seeds: Iterable[int]) -> None:
    for seed in seeds:
        await (await Scene.set_up(connections, seed)).play()


MUTANTS = {
    "no floor": [("IF trimmed IS NOT NULL THEN", "IF false THEN")],
    "seals while writers are there, and late rows not looked for": [
        ("mode <> 'AccessShareLock'", "mode = 'none of them'"),
        ("IF is_late THEN", "IF false THEN"),
    ],
}


@pytest.mark.parametrize(("mutant", "first"), [*zip(MUTANTS, (10, 40), strict=True)])
async def test_a_trim_that_forgets_is_found(
    connections: Connections, mutant: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_triggers, "FEW_ROWS", 2)
    owner = await connections.new()
    name = "'feedsvc.log_maintain(interval, bigint)'::regprocedure"
    source = await owner.fetchval(f"SELECT pg_get_functiondef({name})")
    planted = source
    for there, instead in MUTANTS[mutant]:
        assert there in planted
        planted = planted.replace(there, instead)
    await owner.execute(planted)
    try:
        with pytest.raises(AssertionError, match="an answer is short"):
            await _play_all(connections, range(first, first + 30))
    finally:
        await owner.execute(source)


async def test_a_read_waits_for_a_trim_and_sees_its_floor(connections: Connections) -> None:
    """The statement's snapshot is taken behind its locks."""
    owner, keeper, reader = [await connections.new() for _ in range(3)]
    since = await position(owner)
    await owner.execute(ROW, "a")
    await maintain(owner)
    await maintain(owner, 3_600)
    trim = keeper.transaction()
    await trim.start()
    assert (await maintain(keeper))["trimmed"] == 0
    reading = asyncio.create_task(reader.fetchrow(ONE_STATEMENT, since))

    async def waits() -> bool:
        return bool(await owner.fetchval(WAITS, reader.get_server_pid()))

    await until(waits, 30)
    await trim.commit()
    row = await reading
    assert row is not None
    assert is_expired(since, row["floor"])
    assert row["keys"] == []


@pytest.mark.parametrize("is_locked_first", [True, False])
async def test_repeatable_read_locks_before_its_snapshot(
    connections: Connections, is_locked_first: bool
) -> None:
    """Without that its answer is short: TRUNCATE is no part of a snapshot, the floor is."""
    owner, reader = await connections.new(), await connections.new()
    since = await position(owner)
    await owner.execute(ROW, "a")
    await maintain(owner)
    await maintain(owner, 3_600)
    async with reader.transaction(isolation="repeatable_read"):
        if is_locked_first:
            await reader.execute("LOCK TABLE feedsvc.log IN ACCESS SHARE MODE")
        await position(reader)
        done = await maintain(owner)
        assert (done["trimmed"] is None) == is_locked_first
        row = await reader.fetchrow(ONE_STATEMENT, since)
        assert row is not None
        assert not is_expired(since, row["floor"])
        assert row["keys"] == (["a"] if is_locked_first else [])


async def test_a_floor_that_was_read_before_the_log_is_too_old(connections: Connections) -> None:
    """The reason for one statement of both."""
    owner, reader = await connections.new(), await connections.new()
    since = await position(owner)
    await owner.execute(ROW, "a")
    await maintain(owner)
    await maintain(owner, 3_600)
    floor = await reader.fetchval(FLOOR)
    assert (await maintain(owner))["trimmed"] == 0
    assert not is_expired(since, floor)
    assert await reader.fetch(SINCE, since) == []
    row = await reader.fetchrow(ONE_STATEMENT, since)
    assert row is not None
    assert is_expired(since, row["floor"])


async def test_a_trim_that_waits_for_its_lock_holds_up_no_writer(connections: Connections) -> None:
    """It waits as TRUNCATE does, and for ever; each writer would give up after a millisecond."""
    owner, reader, trim = [await connections.new() for _ in range(3)]
    await owner.execute(ROW, "a")
    await maintain(owner)
    await maintain(owner, 3_600)
    await reader.execute("BEGIN; SELECT FROM feedsvc.log")
    waiting = asyncio.create_task(trim.execute("BEGIN; TRUNCATE feedsvc.log_0"))

    async def waits() -> bool:
        return bool(await owner.fetchval(WAITS, trim.get_server_pid()))

    await until(waits, 30)
    writers = [await connections.new(lock_timeout="1ms") for _ in range(3)]
    for number in range(20):
        await asyncio.gather(*(writer.execute(ROW, f"{number}") for writer in writers))
    assert await waits()
    assert await owner.fetchval(
        "SELECT 'lock_timeout=50ms' = ANY (proconfig) FROM pg_proc WHERE proname = 'log_maintain'"
    )
    await reader.execute("COMMIT")
    await waiting
    await trim.execute("ROLLBACK")


async def test_a_transaction_older_than_the_ring_expires_no_cursor_and_is_not_lost(
    connections: Connections,
) -> None:
    """The ring comes round to its window and waits there; cursors from before it are good."""
    owner, late, reader = [await connections.new() for _ in range(3)]
    before = await position(owner)
    await late.execute(f"BEGIN; {ROW.replace('$1', chr(39) + 'late' + chr(39))}")
    for number in range(12):
        await owner.execute(ROW, f"n{number:02}")
        await maintain(owner)
    between = await position(owner)
    await late.execute("COMMIT")
    for since, named in ((before, 13), (between, 1)):
        row = await reader.fetchrow(ONE_STATEMENT, since)
        assert row is not None
        assert not is_expired(since, row["floor"])
        assert len(row["keys"]) == named
        assert "late" in row["keys"]
    after = await position(owner)
    while (await maintain(owner))["trimmed"] != 7:
        pass
    row = await reader.fetchrow(ONE_STATEMENT, between)
    assert row is not None
    assert is_expired(between, row["floor"])
    assert is_expired(after, row["floor"])
