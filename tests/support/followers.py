"""A table that many write to, readers that follow it by deltas, and what these ought to have.

The oracle knows nothing of the log: a trigger of its own keeps every version of every row with its
transaction, so the rows of any snapshot are known however long ago it was.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import asyncpg

from feedsvc.access.service_key import Seal, ServiceKey
from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.pool import Pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import Cursor
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.datasets.catalog import resolve
from feedsvc.datasets.dataset import Dataset, declarations
from feedsvc.feeds import transaction
from feedsvc.feeds.arrivals import Arrivals
from feedsvc.feeds.cursors import Cursors
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.delta_wait import Deltas, awaited_delta
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sql import statement
from feedsvc.settings import Database, PoolSettings
from tests.support.log_world import install
from tests.support.servers import LOGIN, as_login
from tests.support.service import KEY

SEAL: Final[Seal] = ServiceKey(KEY.encode()).seal("cursors")
TENANTS: Final = ("a", "b", "ä ö")
NUMBERS: Final = 14
"""Keys that rows may have; they also move 100 further."""
SHOWN: Final = ("number", "name", "status", "level")
SECRET: Final = 5
"""The level from which on a row is for admins alone."""

_POLICY: Final = """
    tenant = (SELECT current_setting('feedsvc.tenant', true))
    AND (level < 5 OR (SELECT current_setting('feedsvc.role', true)) = 'admin')
"""
SCHEMA: Final = f"""
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    row_id bigint GENERATED ALWAYS AS IDENTITY,
    number bigint PRIMARY KEY, tenant text, client bigint, level int NOT NULL, status text,
    name text, hidden int
);
CREATE INDEX ON shop.orders (tenant, number);
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON shop.orders FOR SELECT USING ({_POLICY});
CREATE TABLE shop.history (row_id bigint, seq bigserial, xid xid8, body json);
CREATE FUNCTION shop.remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shop.history (row_id, xid, body) VALUES (
        coalesce(NEW.row_id, OLD.row_id), pg_current_xact_id(),
        CASE WHEN TG_OP <> 'DELETE' THEN row_to_json(NEW) END);
    RETURN NULL;
END
$$;
CREATE TRIGGER aaa_remember AFTER INSERT OR UPDATE OR DELETE ON shop.orders
    FOR EACH ROW EXECUTE FUNCTION shop.remember();
GRANT USAGE ON SCHEMA shop TO {LOGIN};
GRANT SELECT ON shop.orders TO {LOGIN};
"""
DATASETS: Final = """
[orders]
relation = "shop.orders"
key = ["number"]
tenant = "tenant"
client = "client"
columns = ["number", "name", "status", "level"]
filters = {status = ["eq"]}
"""
_OF_SNAPSHOT: Final = """
SELECT DISTINCT ON (row_id) body::text FROM shop.history
WHERE pg_visible_in_snapshot(xid, $1::text::pg_snapshot) ORDER BY row_id, seq DESC
"""
_BETWEEN: Final = """
SELECT body::text FROM shop.history WHERE pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
    AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot) AND body IS NOT NULL
"""

Row = dict[str, Any]
Rows = dict[int, Row]
Sees = Callable[[Row], bool]


async def prepare(url: str, file: Path) -> None:
    """Make the table, its log and the datasets file in a fresh database."""
    await runner.up(url, "service")
    file.write_text(DATASETS)
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(SCHEMA)
        await install(owner, declarations(file))
    finally:
        await owner.close()


@dataclass(frozen=True, slots=True)
class Reader:
    """A caller with a filter, and the rows that he sees by a rule written down anew."""

    tenant: str
    role: str = "member"
    client: str | None = None
    status: str | None = None

    @property
    def principal(self) -> Principal:
        return Principal(self.tenant, self.role, self.client, 0.0)  # type: ignore[arg-type]

    @property
    def given(self) -> dict[str, str]:
        return {} if self.status is None else {"status": self.status}

    def may_see(self, row: Row) -> bool:
        """Return whether row-level security and the token let him see the row."""
        return (
            row["tenant"] == self.tenant
            and (row["level"] < SECRET or self.role == "admin")
            and (self.client is None or row["client"] == int(self.client))
        )

    def sees(self, row: Row) -> bool:
        """The same, with his filter."""
        return self.may_see(row) and (self.status is None or row["status"] == self.status)


READERS: Final = (
    Reader("a"),
    Reader("a", "admin"),
    Reader("a", client="1"),
    Reader("ä ö", status="open"),
    Reader("b", "admin", status="done"),
)


class Oracle:
    """The rows of any snapshot, from the history."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def rows(self, snapshot: Snapshot, reader: Reader) -> Rows:
        """The rows that the reader sees in the snapshot."""
        found = await self._connection.fetch(_OF_SNAPSHOT, str(snapshot))
        bodies = [json.loads(row[0]) for row in found if row[0] is not None]
        return {row["number"]: shown(row) for row in bodies if reader.sees(row)}

    async def seen_between(self, before: Snapshot, after: Snapshot, reader: Reader) -> set[int]:
        """The keys of rows that he could see in a state from the one to the other."""
        found = await self._connection.fetch(_OF_SNAPSHOT, str(before))
        found += await self._connection.fetch(_BETWEEN, str(before), str(after))
        bodies = [json.loads(row[0]) for row in found if row[0] is not None]
        return {row["number"] for row in bodies if reader.may_see(row)}


def shown(row: Mapping[str, Any]) -> Row:
    """The columns that the feed shows."""
    return {name: row[name] for name in SHOWN}


@dataclass
class Follower:
    """A copy of a feed, brought from cursor to cursor."""

    reader: Reader
    dataset: Dataset
    deltas: Deltas
    rows: Rows = field(default_factory=dict)
    cursor: str = ""
    told: set[int] = field(default_factory=set)
    """The keys that the last delta has named."""

    @property
    def snapshot(self) -> Snapshot:
        return Cursor.decode(self.cursor, SEAL).snapshot

    async def export(self) -> None:
        """A new copy."""
        given = {"format": "ndjson", "frames": "1", **self.reader.given}
        query, who = FeedQuery.parse(given, self.dataset), self.reader.principal
        async with transaction.reading(self.deltas.pool, who, Stages()) as (connection, moment):
            cursor = await self.deltas.cursors.of(connection, moment, query, who)
            wanted = statement.projected_sql(query, who, None, None)
            rows = await connection.fetch(wanted.sql, *wanted.arguments)
        assert cursor is not None
        self.cursor = cursor
        self.rows = {row["number"]: row for row in (json.loads(found[0]) for found in rows)}

    async def follow(self, **given: str) -> int:
        """Go on to the present state; the number of changes."""
        query = DeltaQuery.parse(
            {"since": self.cursor, **self.reader.given, **given}, self.dataset, ""
        )
        who, self.told = self.reader.principal, set()
        async with awaited_delta(query, who, self.deltas, Stages()) as begun:
            delta, changes = begun.delta, begun.first
            while changes is not None:
                self.apply(changes.upserts, changes.deletes)
                changes = await delta.take()
            self.cursor = begun.cursor
            return delta.upserts + delta.deletes

    def apply(self, upserts: Any, deletes: Any) -> None:
        """Apply changes, in any order: each key comes once."""
        for body in upserts:
            row = json.loads(body)
            self.rows[row["number"]] = row
            assert row["number"] not in self.told
            self.told.add(row["number"])
        for body in deletes:
            number = json.loads(body)["number"]
            self.rows.pop(number, None)
            assert number not in self.told
            self.told.add(number)

    def copy(self) -> Follower:
        """Another one with the same copy."""
        return replace(self, rows=dict(self.rows), told=set())


@asynccontextmanager
async def followed(url: str, file: Path) -> AsyncIterator[tuple[Dataset, Deltas]]:
    """The dataset, and what deltas of it are read with, as the service's login."""
    login = as_login(url)
    connection = await asyncpg.connect(login)
    datasets, _ = await resolve(connection, declarations(file))
    await connection.close()
    async with deltas_of(login) as deltas:
        yield datasets["orders"], deltas


@asynccontextmanager
async def deltas_of(login: str) -> AsyncIterator[Deltas]:
    """The parts that deltas need, with this login."""
    settings = PoolSettings(size=4, acquire_timeout=60, query_timeout=300)
    database = Database.model_validate({"url": login})
    pool, writing = Pool("read", settings, database), Pool("write", settings, database)
    await pool.open()
    await writing.open()
    arrivals = Arrivals(pool, 0.0, lambda: False)
    try:
        yield Deltas(Cursors(SEAL, writing), arrivals, pool)
    finally:
        await arrivals.close()
        await pool.close(5.0)
        await writing.close(5.0)


REFUSED: Final = (
    asyncpg.UniqueViolationError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
)


class Writer:
    """A connection whose transactions are open for a while, with savepoints, and prepared ones."""

    def __init__(self, connection: asyncpg.Connection, seed: int) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self._seed = seed
        self._prepared: list[str] = []
        self._depth = 0
        self._open = False
        self._many = 0

    async def step(self) -> None:
        """One statement, or the beginning or the end of something."""
        act = self._random.random()
        if not self._open and act < 0.5:
            await self._connection.execute("BEGIN")
            self._open, self._depth = True, 0
        elif self._open and act < 0.1:
            await self._connection.execute(f"SAVEPOINT s{self._depth}")
            self._depth += 1
        elif self._open and act < 0.2 and self._depth:
            self._depth = self._random.randrange(self._depth)
            await self._connection.execute(f"ROLLBACK TO s{self._depth}; RELEASE s{self._depth}")
        elif self._open and act < 0.4:
            await self._end()
        elif not self._open and act < 0.7:
            await self.finish_prepared()
        else:
            await self._write()

    async def finish_prepared(self) -> None:
        """Commit or roll back what is prepared."""
        for name in self._prepared:
            end = self._random.choice(["COMMIT", "COMMIT", "ROLLBACK"])
            await self._connection.execute(f"{end} PREPARED '{name}'")
        self._prepared.clear()

    async def close(self) -> None:
        """End what is open."""
        if self._open:
            await self._connection.execute("COMMIT")
            self._open = False
        await self.finish_prepared()

    async def _end(self) -> None:
        self._open = False
        kind = self._random.random()
        if kind < 0.2:
            await self._connection.execute("ROLLBACK")
        elif kind < 0.4:
            name = f"{id(self)} {self._seed} {self._many}"
            self._many += 1
            await self._connection.execute(f"PREPARE TRANSACTION '{name}'")
            self._prepared.append(name)
        else:
            await self._connection.execute("COMMIT")

    async def _write(self) -> None:
        """A statement; where it has to wait, or is refused, only it is undone."""
        if self._open:
            await self._connection.execute("SAVEPOINT w")
        try:
            await self._connection.execute(self._statement())
        except REFUSED:
            if self._open:
                await self._connection.execute("ROLLBACK TO w")

    def _statement(self) -> str:
        draw = self._random
        one = f"number IN ({draw.randrange(NUMBERS)}, {draw.randrange(NUMBERS) + 100})"
        some = draw.choice([one, one, one, f"tenant = '{draw.choice(TENANTS)}'"])
        tenant = f"'{draw.choice(TENANTS)}'"
        row = (
            f"({draw.randrange(NUMBERS)}, {tenant}, {draw.randrange(3)}, {draw.randrange(10)},"
            f" '{draw.choice(['open', 'done'])}', '{draw.randrange(99)}')"
        )
        insert = (
            f"INSERT INTO shop.orders (number, tenant, client, level, status, name) VALUES {row}"
        )
        return draw.choice(
            [
                insert,
                f"{insert} ON CONFLICT (number) DO UPDATE SET level = excluded.level",
                f"UPDATE shop.orders SET name = '{draw.randrange(99)}' WHERE {some}",
                f"UPDATE shop.orders SET hidden = {draw.randrange(9)} WHERE {some}",
                f"UPDATE shop.orders SET tenant = {tenant} WHERE {one}",
                f"UPDATE shop.orders SET tenant = {tenant}, client = 1, level = 1 WHERE {one}",
                f"UPDATE shop.orders SET level = {draw.randrange(10)} WHERE {some}",
                f"UPDATE shop.orders SET client = {draw.randrange(3)} WHERE {some}",
                f"UPDATE shop.orders SET status = '{draw.choice(['open', 'done'])}' WHERE {some}",
                f"UPDATE shop.orders SET number = number + 100 WHERE number < 100 AND {one}",
                f"UPDATE shop.orders SET number = number - 100 WHERE number >= 100 AND {one}",
                f"DELETE FROM shop.orders WHERE {one}",
            ]
        )
