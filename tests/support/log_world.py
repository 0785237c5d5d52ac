"""Tables with odd names whose changes are logged, and states of them beside the log."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes import log_hash, triggers
from feedsvc.datasets.dataset import Declaration, quote_identifier
from streams import tokens

# Names of PostgreSQL's, of the functions' own aliases and variables, and what is hard to quote.
ODD_NAMES: Final = (
    "r", "s", "i", "k", "g", "p", "o", "a", "b", "v", "c", "n", "old", "new", "OLD", "NEW", "log",
    "feedsvc", "feedsvc_n", "feedsvc_log", "old_rows", "new_rows", "keyed", "found", "counted",
    "every", "is_logged", "slot", "xid", "key", "tags", "feed", "scope", "op", "select", "user",
    "tg_op", "found'", 'a"b', "$1", "ä ö", "%s", "\\", "text", "int8", "record", "pg_catalog",
    "x.y",
    "$feedsvc$", "logs", "row", "coalesce", "TG_OP", "true", "null", "old_rows.r", "--", "/*",
)  # fmt: skip
SAME: Final = "SELECT pg_current_snapshot()::text"
EMPTY_LOG: Final = """
    TRUNCATE feedsvc.log, feedsvc.log_windows, feedsvc.log_epoch;
    UPDATE feedsvc.log_floor SET floor = NULL;
    CREATE OR REPLACE FUNCTION feedsvc.log_slot() RETURNS smallint LANGUAGE sql STABLE
        PARALLEL SAFE RETURN 0::smallint;
    INSERT INTO feedsvc.log_windows VALUES (0, clock_timestamp(), NULL, NULL);
"""
"""SQL that makes a log as a migration leaves it."""


@dataclass(frozen=True, slots=True)
class LogWorld:
    """A served table: a key of two columns, a tenant, a client, a shown and a hidden column."""

    declared: Mapping[str, Declaration]
    table: str
    number: str
    text: str
    tenant: str
    client: str
    shown: str
    hidden: str

    @classmethod
    def drawn(cls, seed: int, dataset: str = "things", keep: int = 0) -> "LogWorld":
        """One with names drawn at random."""
        drawn = random.Random(seed).sample(ODD_NAMES, 8)
        schema, table, *columns = drawn
        schema = f"{schema} {keep or seed}"
        quoted = [quote_identifier(name) for name in columns]
        relation = f"{quote_identifier(schema)}.{quote_identifier(table)}"
        number, text, tenant, client, shown, _ = columns
        declaration = Declaration(
            relation=relation, key=(number, text), tenant=tenant, client=client,
            columns=(number, text, shown), tags=(f"{dataset}-client:{{{client}}}",),
        )  # fmt: skip
        return cls({dataset: declaration}, relation, *quoted)

    def ddl(self, partitioned: bool = False) -> str:
        """SQL that makes it."""
        schema = self.table.rpartition('".')[0] + '"'
        columns = (
            f"{self.number} bigint NOT NULL, {self.text} text NOT NULL, {self.tenant} text,"
            f" {self.client} bigint, {self.shown} json, {self.hidden} int"
        )
        made = f"CREATE SCHEMA {schema}; CREATE TABLE {self.table} ({columns}"
        if not partitioned:
            return f"{made}, PRIMARY KEY ({self.number}, {self.text}))"
        parts = "; ".join(
            f'CREATE TABLE {schema}."part {n}" PARTITION OF {self.table} FOR VALUES WITH'
            f" (MODULUS 3, REMAINDER {n})"
            for n in range(3)
        )
        return f"{made}) PARTITION BY HASH ({self.number}); {parts}"


async def install(connection: asyncpg.Connection, declared: Mapping[str, Declaration]) -> list[str]:
    """Make the triggers of the datasets; the tables that changed."""
    return await triggers.install(connection, await triggers.plan(connection, declared))


@dataclass(frozen=True, slots=True)
class LogRow:
    """A row of the log."""

    xid: int
    feed: int
    scope: int
    op: str
    keys: tuple[str, ...]
    tags: bytes | None
    old: str | None


async def log_rows(connection: asyncpg.Connection) -> list[LogRow]:
    """All that the log has."""
    rows = await connection.fetch(
        "SELECT xid::text::bigint AS xid, feed, scope, op::text AS op, key, tags, old"
        " FROM feedsvc.log"
    )
    return [
        LogRow(r["xid"], r["feed"], r["scope"], r["op"], tuple((r["key"] or "").split(" "))
               if r["key"] is not None else (), r["tags"], r["old"])
        for r in rows
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """The rows that one snapshot shows: of the table by tenant and token, and of the log."""

    snapshot: Snapshot
    rows: Mapping[tuple[str | None, str], str]
    log: tuple[LogRow, ...]

    @classmethod
    async def read(cls, connection: asyncpg.Connection, world: LogWorld) -> "State":
        """The present one."""
        async with connection.transaction(isolation="repeatable_read"):
            snapshot = Snapshot.parse(await connection.fetchval(SAME))
            rows = await connection.fetch(
                f"SELECT {world.tenant}::text, {world.number}::text, {world.text},"
                f" concat_ws('|', {world.shown}::text, {world.client}) FROM {world.table}"
            )
            shown = {(r[0], tokens.encode((r[1], r[2]))): r[3] for r in rows}
            return cls(snapshot, shown, tuple(await log_rows(connection)))


def missing(before: State, after: State, everyone: int) -> list[tuple[str | None, str]]:
    """The keys whose rows differ in the two states and that the log does not name between them."""
    new = [row for row in after.log if not before.snapshot.sees(row.xid)]
    wide = {row.scope for row in new if row.op in "otw"}
    named = {(row.scope, key) for row in new for key in row.keys}

    def is_named(tenant: str | None, token: str) -> bool:
        scope = log_hash.NO_TENANT if tenant is None else log_hash.scope(tenant, everyone)
        return everyone in wide or scope in wide or (scope, token) in named

    return [
        place
        for place in {*before.rows, *after.rows}
        if before.rows.get(place) != after.rows.get(place) and not is_named(*place)
    ]


async def everyone_of(connection: asyncpg.Connection, dataset: str = "things") -> int:
    """The scope of what concerns all readers of a dataset."""
    number = "SELECT everyone FROM feedsvc.log_feeds WHERE dataset = $1"
    return int(await connection.fetchval(number, dataset))


def all_missing(states: Iterable[State], everyone: int) -> list[object]:
    """`missing` of each two states, the later behind the earlier."""
    listed = list(states)
    return [
        (first, second, lost)
        for second in range(len(listed))
        for first in range(second)
        if (lost := missing(listed[first], listed[second], everyone))
    ]
