"""Views, writers behind them, readers that follow them by deltas, and what these ought to have."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes import log_triggers
from feedsvc.datasets.catalog import resolve
from feedsvc.datasets.dataset import Dataset, declarations
from feedsvc.feeds.delta_wait import Deltas
from tests.support.followers import (
    NUMBERS,
    SCHEMA,
    SECRET,
    TENANTS,
    Reader,
    Row,
    Rows,
    Writer,
    deltas_of,
    shown,
)
from tests.support.log_world import install
from tests.support.servers import LOGIN, as_login

_ADMIN: Final = "(SELECT current_setting('feedsvc.role', true)) = 'admin'"
_COLUMNS: Final = "number, tenant, client, name, status, level"
_JOINED: Final = (
    "SELECT o.number, o.tenant, o.client, d.note AS name, d.state AS status, o.level"
    " FROM shop.orders o JOIN shop.details d ON d.order_number = o.number"
)
VIEWS: Final = f"""
CREATE TABLE shop.details (
    row_id bigint GENERATED ALWAYS AS IDENTITY,
    order_number bigint PRIMARY KEY, tenant text, state text, note text, hidden int
);
CREATE TABLE shop.details_history (row_id bigint, seq bigserial, xid xid8, body json);
CREATE FUNCTION shop.remember_details() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shop.details_history (row_id, xid, body) VALUES (
        coalesce(NEW.row_id, OLD.row_id), pg_current_xact_id(),
        CASE WHEN TG_OP <> 'DELETE' THEN row_to_json(NEW) END);
    RETURN NULL;
END
$$;
CREATE TRIGGER aaa_remember AFTER INSERT OR UPDATE OR DELETE ON shop.details
    FOR EACH ROW EXECUTE FUNCTION shop.remember_details();
ALTER TABLE shop.details ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON shop.details USING (state <> 'hidden' OR {_ADMIN});
CREATE VIEW shop.all_of_them AS SELECT {_COLUMNS} FROM shop.orders;
CREATE VIEW shop.some AS SELECT {_COLUMNS} FROM shop.orders
    WHERE status = 'open' AND level < 7 OR {_ADMIN};
CREATE VIEW shop.mine WITH (security_invoker) AS SELECT {_COLUMNS} FROM shop.orders AS "o o"
    WHERE "o o".status <> 'done';
CREATE VIEW shop.joined AS {_JOINED} AND d.tenant = o.tenant WHERE d.state <> 'hidden';
CREATE VIEW shop.joined_mine WITH (security_invoker) AS {_JOINED} WHERE o.level <> 3;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {LOGIN};
"""
_DATASET: Final = """
[{name}]
relation = "shop.{name}"
key = ["number"]
not_null = ["number"]
tenant = "tenant"
client = "client"
columns = ["number", "name", "status", "level"]
filters = {{status = ["eq"]}}
[{name}.key_from]
"shop.orders" = {{}}
"""
_DETAILS: Final = {
    "joined": '"shop.details" = {number = "order_number", tenant = "tenant"}\n',
    "joined_mine": '"shop.details" = {number = "order_number"}\n',
}
_VERSIONS: Final = """
SELECT DISTINCT ON (row_id) body::text FROM shop.{history}
WHERE pg_visible_in_snapshot(xid, $1::text::pg_snapshot) ORDER BY row_id, seq DESC
"""
_BETWEEN: Final = """
SELECT body::text FROM shop.{history} WHERE pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
    AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot) AND body IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class View:
    """A view, and whether a reader sees a row of it, by a rule of its tables' rows written anew."""

    name: str
    shows: Callable[[Row, Row, Reader], bool]
    is_joined: bool = False

    def row(self, order: Row, details: Row) -> Row:
        """The view's row of these."""
        if not self.is_joined:
            return order
        return {**order, "name": details["note"], "status": details["state"]}


def _is_own(order: Row, reader: Reader) -> bool:
    is_of_client = reader.client is None or order["client"] == int(reader.client)
    return bool(order["tenant"] == reader.tenant and is_of_client)


def _is_open(row: Row, reader: Reader) -> bool:
    return bool(row["level"] < SECRET or reader.role == "admin")


FOLLOWED: Final = (
    View("all_of_them", lambda _, __, ___: True),
    View("some", lambda o, _, r: r.role == "admin" or (o["status"] == "open" and o["level"] < 7)),
    View("mine", lambda o, _, r: _is_open(o, r) and o["status"] not in ("done", None)),
    View(
        "joined",
        lambda o, d, _: d["tenant"] == o["tenant"] and d["state"] not in ("hidden", None),
        is_joined=True,
    ),
    View(
        "joined_mine",
        lambda o, d, r: (
            _is_open(o, r)
            and o["level"] != 3
            and (r.role == "admin" or d["state"] not in ("hidden", None))
        ),
        is_joined=True,
    ),
)


class ViewOracle:
    """The rows of a view in any snapshot, from the histories of its tables."""

    def __init__(self, connection: asyncpg.Connection, view: View) -> None:
        self._connection = connection
        self._view = view

    async def rows(self, snapshot: Snapshot, reader: Reader) -> Rows:
        """The rows that the reader sees in the snapshot."""
        text = str(snapshot)
        rows = self._seen(
            [await self._read(history, _VERSIONS, text) for history in self._histories()], reader
        )
        matching = (row for row in rows if reader.status in (None, row["status"]))
        return {row["number"]: shown(row) for row in matching}

    async def seen_between(self, before: Snapshot, after: Snapshot, reader: Reader) -> set[int]:
        """The keys of rows that may have been seen in a state from the one to the other."""
        texts = str(before), str(after)
        versions = [
            await self._read(history, _VERSIONS, texts[0])
            + await self._read(history, _BETWEEN, *texts)
            for history in self._histories()
        ]
        return {row["number"] for row in self._seen(versions, reader)}

    def _histories(self) -> tuple[str, ...]:
        return ("history", "details_history") if self._view.is_joined else ("history",)

    def _seen(self, versions: list[list[Row]], reader: Reader) -> list[Row]:
        orders, details = versions[0], versions[1] if self._view.is_joined else [{}]
        return [
            self._view.row(o, d)
            for o, d in product(orders, details)
            if _is_own(o, reader)
            and (not self._view.is_joined or o["number"] == d["order_number"])
            and self._view.shows(o, d, reader)
        ]

    async def _read(self, history: str, sql: str, *snapshots: str) -> list[Row]:
        found = await self._connection.fetch(sql.format(history=history), *snapshots)
        return [json.loads(row[0]) for row in found if row[0] is not None]


class ViewWriter(Writer):
    """A writer of both tables."""

    def __init__(self, connection: asyncpg.Connection, seed: int) -> None:
        super().__init__(connection, seed)
        self._draw = random.Random(seed)

    def lone_statement(self) -> str:
        """One that is not refused."""
        while True:
            statement = self._statement()
            # It may find the key that it writes.
            if "ON CONFLICT" in statement or statement.startswith(("DELETE", "WITH")):
                return statement
            if statement.startswith("INSERT"):
                return f"{statement} ON CONFLICT DO NOTHING"
            if "number = number" not in statement:
                return statement

    def _statement(self) -> str:
        draw = self._draw
        if draw.random() < 0.5:
            return super()._statement()
        one = f"order_number IN ({draw.randrange(NUMBERS)}, {draw.randrange(NUMBERS) + 100})"
        tenant, state = draw.choice(TENANTS), draw.choice(["open", "done", "hidden"])
        insert = (
            "INSERT INTO shop.details (order_number, tenant, state, note) VALUES"
            f" ({draw.randrange(NUMBERS)}, '{tenant}', '{state}', '{draw.randrange(99)}')"
        )
        both = "WITH gone AS (DELETE FROM shop.details WHERE {0} RETURNING order_number)"
        return draw.choice(
            [
                insert, insert,
                f"{insert} ON CONFLICT (order_number) DO UPDATE SET state = excluded.state",
                f"UPDATE shop.details SET note = '{draw.randrange(99)}' WHERE {one}",
                f"UPDATE shop.details SET hidden = {draw.randrange(9)} WHERE {one}",
                f"UPDATE shop.details SET state = '{state}' WHERE {one}",
                f"UPDATE shop.details SET tenant = '{tenant}' WHERE {one}",
                f"UPDATE shop.details SET order_number = order_number + 100"
                f" WHERE order_number < 100 AND {one}",
                f"DELETE FROM shop.details WHERE {one}",
                f"{both.format(one)} DELETE FROM shop.orders o USING gone"
                " WHERE o.number = gone.order_number",
            ]
        )  # fmt: skip


async def prepare_views(url: str, file: Path) -> None:
    """Make the tables, the views, their log and the datasets file in a fresh database."""
    await runner.up(url, "service")
    file.write_text(
        "".join(_DATASET.format(name=v.name) + _DETAILS.get(v.name, "") for v in FOLLOWED)
    )
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(SCHEMA)
        await owner.execute(VIEWS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log_triggers, "FEW_ROWS", 2)  # so that triggers of both kinds log
            await install(owner, declarations(file))
    finally:
        await owner.close()


@asynccontextmanager
async def followed_views(
    url: str, file: Path
) -> AsyncIterator[tuple[Mapping[str, Dataset], Deltas]]:
    """The datasets, and what deltas of them are read with, as the service's login."""
    login = as_login(url)
    connection = await asyncpg.connect(login)
    datasets, _ = await resolve(connection, declarations(file))
    await connection.close()
    async with deltas_of(login) as deltas:
        yield datasets, deltas
