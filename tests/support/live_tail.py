"""A tail in this process whose ticks a test takes, and readers that follow its cohorts.

The feeds are `orders`, whose own columns decide who sees a row, `papers`, whom the tables `staff`
and `desks` decide on, the view `sheets` of both, whose rows have a column of `desks`, the view
`pairs`, whose key comes from both of its tables, and `parts`, whose table has partitions. Triggers
keep all versions of the tables' rows, so that what a reader sees in any snapshot is known without
the log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.pool import Pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import Cursor
from feedsvc.core.broadcast import FanOut
from feedsvc.core.events import Observers
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.datasets.catalog import resolve
from feedsvc.datasets.dataset import Dataset, declarations
from feedsvc.feeds import transaction
from feedsvc.feeds.arrivals import Arrivals
from feedsvc.feeds.cursors import Cursors
from feedsvc.feeds.delta_wait import Deltas
from feedsvc.feeds.live.cohort import Cohort
from feedsvc.feeds.live.event_id import EventId
from feedsvc.feeds.live.joining import CohortPlace, join
from feedsvc.feeds.live.live_query import LiveQuery
from feedsvc.feeds.live.step import LiveStep
from feedsvc.feeds.live.tail import Tail, TailLimits
from feedsvc.feeds.sql import statement
from feedsvc.settings import Database, PoolSettings
from tests.support import sse
from tests.support.followers import SEAL
from tests.support.log_world import install
from tests.support.servers import LOGIN, as_login

DEADLINE: Final = 60.0
APPLICATION: Final = "feedsvc live"
_OWN: Final = "tenant = (SELECT current_setting('feedsvc.tenant', true))"
_REMEMBERED: Final = """
CREATE TABLE shop.history (relation text, row_id bigint, seq bigserial, xid xid8, body json);
CREATE FUNCTION shop.remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shop.history (relation, row_id, xid, body) VALUES (
        TG_TABLE_NAME, coalesce(NEW.row_id, OLD.row_id), pg_current_xact_id(),
        CASE WHEN TG_OP <> 'DELETE' THEN row_to_json(NEW) END);
    RETURN NULL;
END
$$;
"""
_TABLES: Final[Mapping[str, str]] = {
    "orders": "number bigint PRIMARY KEY, tenant text NOT NULL, name text",
    "notes": "number bigint PRIMARY KEY, tenant text NOT NULL, label text",
    "papers": "number bigint PRIMARY KEY, tenant text NOT NULL, desk bigint, name text",
    "staff": "desk bigint, tenant text, until bigint",
    "desks": "desk bigint PRIMARY KEY, is_open bool NOT NULL, label text DEFAULT 'l'",
}
SCHEMA: Final = (
    "CREATE SCHEMA shop;"
    + _REMEMBERED
    + "".join(
        f"CREATE TABLE shop.{name} (row_id bigint GENERATED ALWAYS AS IDENTITY, {columns});"
        f"CREATE TRIGGER aaa_remember AFTER INSERT OR UPDATE OR DELETE ON shop.{name}"
        f" FOR EACH ROW EXECUTE FUNCTION shop.remember();"
        for name, columns in _TABLES.items()
    )
    + f"""
CREATE TABLE shop.parts (row_id bigint, number bigint PRIMARY KEY, tenant text NOT NULL, name text)
    PARTITION BY RANGE (number);
CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100);
CREATE TABLE shop.parts_2 PARTITION OF shop.parts FOR VALUES FROM (100) TO (200);
CREATE TRIGGER aaa_remember AFTER INSERT OR UPDATE OR DELETE ON shop.parts
    FOR EACH ROW EXECUTE FUNCTION shop.remember();
CREATE POLICY readers ON shop.orders USING ({_OWN});
CREATE POLICY readers ON shop.notes USING ({_OWN});
CREATE POLICY readers ON shop.papers USING ({_OWN} AND EXISTS (
    SELECT FROM shop.staff s JOIN shop.desks d USING (desk)
    WHERE s.desk = papers.desk AND s.tenant = papers.tenant AND d.is_open));
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.papers ENABLE ROW LEVEL SECURITY;
CREATE VIEW shop.sheets WITH (security_invoker) AS SELECT p.number, p.tenant, p.name, d.label
    FROM shop.papers p JOIN shop.desks d ON d.desk = p.desk WHERE d.label <> 'hidden';
CREATE VIEW shop.pairs WITH (security_invoker) AS SELECT o.number, o.tenant, o.name, n.label
    FROM shop.orders o JOIN shop.notes n ON n.number = o.number WHERE n.label <> 'hidden';
GRANT USAGE ON SCHEMA shop TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {LOGIN};
"""
)
DATASETS: Final = """
[orders]
relation = "shop.orders"
key = ["number"]
tenant = "tenant"
columns = ["number", "name"]
[papers]
relation = "shop.papers"
key = ["number"]
tenant = "tenant"
columns = ["number", "name"]
[parts]
relation = "shop.parts"
key = ["number"]
tenant = "tenant"
columns = ["number", "name"]
[sheets]
relation = "shop.sheets"
key = ["number"]
tenant = "tenant"
not_null = ["number"]
columns = ["number", "name", "label"]
key_from = {"shop.papers" = {}}
[pairs]
relation = "shop.pairs"
key = ["number"]
tenant = "tenant"
not_null = ["number"]
columns = ["number", "name", "label"]
[pairs.key_from]
"shop.orders" = {}
"shop.notes" = {number = "number", tenant = "tenant"}
"""
_OF_SNAPSHOT: Final = """
SELECT DISTINCT ON (relation, row_id) relation, body::text FROM shop.history
WHERE pg_visible_in_snapshot(xid, $1::text::pg_snapshot) ORDER BY relation, row_id, seq DESC
"""
Rows = dict[int, dict[str, Any]]


class SteppedTail(Tail):
    """A tail that looks when a test says so."""

    async def tick(self) -> None:
        """Look once."""
        async with asyncio.timeout(DEADLINE):
            await self._tick()

    async def _follow(self) -> None:
        await asyncio.Event().wait()


@dataclass
class TailWorld:
    """The tail, its feeds, and the tables' owner."""

    url: str
    datasets: Mapping[str, Dataset]
    tail: Tail
    cursors: Cursors
    pool: Pool
    owner: asyncpg.Connection
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def cohort(self, query: LiveQuery, principal: Principal) -> Cohort:
        """The present cohort of a query."""
        return self.tail.cohort(query, principal, f"/v1/feeds/{query.feeds[0].dataset.name}")

    async def reader(self, feed: str, tenant: str = "a", **given: str) -> LiveReader:
        """A reader with the present rows, which has not joined yet."""
        query = LiveQuery.parse({"live": "1", "format": "sse", **given}, self.datasets[feed])
        who = Principal(tenant, "member", None, 0.0)
        rows = query.feeds[0].changes.rows
        async with transaction.reading(self.pool, who, Stages()) as (connection, moment):
            cursor = await self.cursors.of(connection, moment, rows, who)
            wanted = statement.projected_sql(rows, who, None, None)
            found = await connection.fetch(wanted.sql, *wanted.arguments)
        assert cursor is not None
        held = {row["number"]: row for row in (json.loads(one[0]) for one in found)}
        return LiveReader(self, feed, query, who, self.cursors.parse(cursor), held)

    async def expected(self, feed: str, tenant: str, snapshot: Snapshot) -> Rows:
        """The rows that a tenant sees in a snapshot."""
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in (*_TABLES, "parts")}
        async with self._asking:
            found = await self.owner.fetch(_OF_SNAPSHOT, str(snapshot))
        for relation, body in found:
            if body is not None:
                tables[relation.partition("_")[0]].append(json.loads(body))
        labels = {
            note["number"]: note["label"] for note in tables["notes"] if note["tenant"] == tenant
        }
        own = [row for row in tables["papers"] if row["tenant"] == tenant]
        desks = {desk["desk"]: desk for desk in tables["desks"] if desk["is_open"]}
        manned = {s["desk"] for s in tables["staff"] if s["tenant"] == tenant} & desks.keys()
        match feed:
            case "orders" | "parts":
                seen = [shown(row) for row in tables[feed] if row["tenant"] == tenant]
            case "pairs":
                seen = [
                    shown(row) | {"label": label}
                    for row in tables["orders"]
                    if row["tenant"] == tenant
                    and (label := labels.get(row["number"])) not in (None, "hidden")
                ]
            case "papers":
                seen = [shown(row) for row in own if row["desk"] in manned]
            case _:
                seen = [
                    shown(row) | {"label": label}
                    for row in own
                    if row["desk"] in manned
                    and (label := desks[row["desk"]]["label"]) not in (None, "hidden")
                ]
        return {row["number"]: row for row in seen}


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that each feed has of a row."""
    return {"number": row["number"], "name": row["name"]}


@dataclass
class LiveReader:
    """Rows that a cohort's events keep, and the mistakes that they had at ids that are states."""

    world: TailWorld
    feed: str
    query: LiveQuery
    who: Principal
    state: Cursor
    rows: Rows
    is_whole: bool = True
    joined: CohortPlace | None = None
    number: int = 0
    steps: int = 0
    """The steps that were sent to it alone."""
    told: set[int] = field(default_factory=set)
    mistakes: list[str] = field(default_factory=list)
    reset_reasons: list[str] = field(default_factory=list)
    checks: int = 0

    @property
    def cohort(self) -> Cohort:
        assert self.joined is not None
        return self.joined.cohort

    async def join(self) -> LiveReader:
        """Join the cohort. Raises Reset and other Problems."""
        find = partial(self.world.cohort, self.query, self.who)
        async with asyncio.timeout(DEADLINE):
            self.joined = await join(
                self.world.tail, find, self.state, self._take, is_whole=self.is_whole
            )
        self.number = self.joined.number
        return self

    async def read(self) -> list[str]:
        """Take what the cohort has published; the types of the events."""
        events = self.cohort.broadcast.since(self.number)
        assert events is not None, "the reader is behind the ring"
        self.number += len(events)
        types = []
        for framed in events:
            _, _, data = framed.partition(b"\r\n")
            types += await self._apply(data[:-2])
        return types

    async def catch_up(self) -> None:
        """Take what stands in the place of the events that it has not read, as a slow one does."""
        events, self.number = await self.world.tail.catch_up(self.cohort, self.number)
        for event in events:
            await self._apply(event)

    async def _take(self, before: Cursor, step: LiveStep) -> None:
        self.steps += 1
        text = self.world.cursors.text
        for event in step.events(text(before), text(step.cursor), syncs=True):
            await self._apply(event)

    async def _apply(self, event: bytes) -> list[str]:
        found = sse.parse(event).events
        for one in found:
            for change in json.loads(one.data) if one.type == "change" else ():
                number = (change.get("row") or change["key"])["number"]
                self.told.add(number)
                if change["op"] == "upsert":
                    self.rows[number] = change["row"]
                else:
                    self.rows.pop(number, None)
            if one.type == "reset":
                self.reset_reasons.append(json.loads(one.data)["reason"])
            if one.type in {"change", "sync"}:
                await self._reached(EventId.parse(one.last_id))
        return [one.type for one in found]

    async def _reached(self, place: EventId) -> None:
        self.is_whole = not place.is_within_step
        if not self.is_whole:
            return
        self.state = Cursor.decode(place.cursor, SEAL)
        self.checks += 1
        expected = await self.world.expected(self.feed, self.who.tenant, self.state.snapshot)
        if self.rows != expected:
            self.mistakes.append(f"{self.state.snapshot}: {self.rows} instead of {expected}")


async def prepare(url: str, file: Path) -> None:
    """Make the tables, their log and the datasets file in a fresh database."""
    await runner.up(url, "service")
    file.write_text(DATASETS)
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(SCHEMA)
        await install(owner, declarations(file))
    finally:
        await owner.close()


@asynccontextmanager
async def tail_world(
    url: str, file: Path, *, is_stepped: bool = True, membership_rows: int = 100
) -> AsyncIterator[TailWorld]:
    """The tail over these tables, which are emptied."""
    login = as_login(url)
    owner = await asyncpg.connect(url)
    await owner.execute(
        f"TRUNCATE {', '.join(f'shop.{name}' for name in (*_TABLES, 'parts', 'history'))}"
    )
    connection = await asyncpg.connect(login)
    datasets, _ = await resolve(connection, declarations(file))
    await connection.close()
    database = Database.model_validate({"url": login})
    settings = PoolSettings(size=4, acquire_timeout=60, query_timeout=300)
    own = PoolSettings(size=2, reserve=0, share=1, application_name=APPLICATION, lock_timeout=0.2)
    pools = Pool("read", settings, database), Pool("write", settings, database)
    of_tail = Pool("read", own, database)
    for pool in (*pools, of_tail):
        await pool.open()
    cursors, arrivals = Cursors(SEAL, pools[1]), Arrivals(of_tail, 0.0, lambda: False)
    made = (SteppedTail if is_stepped else Tail)(
        Deltas(cursors, arrivals, pools[0]),
        of_tail,
        FanOut(),
        Observers(),
        TailLimits(membership_rows),
    )
    try:
        yield TailWorld(url, datasets, made, cursors, pools[0], owner)
    finally:
        await made.close()
        await arrivals.close()
        for pool in (*pools, of_tail):
            await pool.close(5.0)
        await owner.close()
