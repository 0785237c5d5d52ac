"""The price of the change log to writers: the same statements with its triggers and without them.

A server of its own flushes every commit, as production does; two databases hold the same tables, in
memory, and take turns.
"""

import asyncio
import math
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.migrations import runner
from feedsvc.commands.demo import seeding
from feedsvc.commands.demo.embedded import (
    PostgresServer,
    cache_folder,
    claim_folder,
    start_postgres,
)
from feedsvc.datasets.dataset import Declaration
from tests.performance.table import Line, Target, ratio
from tests.performance.timing import Round, in_turn
from tests.performance.world import Service, World
from tests.support.log_world import install

_SEED: Final = 1
_CLIENTS: Final = (1, 8, 32)
_AT_ONCE: Final = 8
_SECONDS: Final = 4
_SCALE: Final = 20
_SETTINGS: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
}
_DECLARED: Final[Mapping[str, Declaration]] = {
    "clients": Declaration(
        relation="wedding.clients", key=("id",), tenant="tenant_id", client="id",
        tags=("clients", "clients:{tenant_id}", "client:{id}"),
    ),
    "accounts": Declaration(relation="public.pgbench_accounts", key=("aid",), shared=True),
    "tellers": Declaration(relation="public.pgbench_tellers", key=("tid",), shared=True),
    "branches": Declaration(relation="public.pgbench_branches", key=("bid",), shared=True),
    "history": Declaration(relation="public.pgbench_history", key=("hid",), shared=True),
}  # fmt: skip
_UPDATE: Final = """\
\\set id random({first}, {last})
UPDATE wedding.clients SET guests = 2 + random() * 300 WHERE id = :id;
"""
_UPDATE_MANY: Final = (
    "UPDATE wedding.clients SET guests = coalesce(guests, 0) + 1 WHERE id <= {last}"
)
_COPIED: Final = """
    CREATE TABLE copied AS
    SELECT (SELECT max(id) FROM wedding.clients) + row_number() OVER () AS id, tenant_id,
        gen_random_uuid() AS reference, partner_one, partner_two, email, phone, venue, status,
        notes, wedding_date, guests, budget, preferences, created_at, updated_at
    FROM wedding.clients LIMIT {rows}
"""
_KEY_OF_HISTORY: Final = """
    ALTER TABLE pgbench_history ADD hid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
"""
_CHANGES: Final = """
    DO $$
    DECLARE
        chosen bigint;
    BEGIN
        FOR change IN 1..{rows} LOOP
            chosen := {first} + floor(random() * {rows});  -- once, not once a row
            UPDATE wedding.clients SET guests = 2 + random() * 300 WHERE id = chosen;
            COMMIT;
        END LOOP;
    END
    $$
"""
_BYTES: Final = """
    SELECT (SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits
            WHERE inhparent = 'feedsvc.log'::regclass)::float8
        / (SELECT count(*) FROM feedsvc.log)
"""


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two databases: statements are timed in it, in seconds."""

    url: str
    pgbench: Path
    script: Path

    def transaction(self, clients: int, *script: str) -> float:
        """Of so many clients of pgbench, by the transactions that they finish together."""
        command = [str(self.pgbench), "-n", "-c", str(clients), "-T", str(_SECONDS), *script]
        ran = subprocess.run(
            [*command, self.url], check=True, capture_output=True, text=True, timeout=600
        )
        found = re.search(r"^tps = ([0-9.]+)", ran.stdout, re.MULTILINE)
        assert found is not None, ran.stdout
        return 1 / float(found[1])

    def update(self, clients: int) -> float:
        """Of an update by key."""
        return self.transaction(clients, "-f", str(self.script))

    def statement(self, timed: str, undo: str) -> float:
        """Of one statement, whose traces are removed afterwards."""
        return asyncio.run(_timed(self.url, timed, undo))


async def _timed(url: str, timed: str, undo: str) -> float:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CHECKPOINT")
        loop = asyncio.get_running_loop()
        began = loop.time()
        await connection.execute(timed)
        seconds = loop.time() - began
        await connection.execute(undo)
        await connection.execute("VACUUM wedding.clients")
        return seconds
    finally:
        await connection.close()


def writers(world: World, _service: Service, rounds: int) -> list[Line]:
    """Single rows, pgbench's own transaction, and many rows at once; and the log's bytes."""
    rows = world.sizes.middle
    with (
        claim_folder(cache_folder() / "bench-writers") as folder,  # on a disk that is flushed to
        start_postgres(folder, settings=_SETTINGS) as server,
    ):
        copied = server.cluster.data / "copied"
        first = asyncio.run(_prepared(server, rows, copied))
        script = folder / "update.sql"
        script.write_text(_UPDATE.format(first=first, last=first + rows - 1))
        script.chmod(0o644)
        pgbench = server.cluster.binaries.folder / "pgbench"
        _make_pgbench_tables(server, pgbench)
        asyncio.run(_make_triggers(server.url("logged")))
        sides = {name: _Side(server.url(name), pgbench, script) for name in ("logged", "plain")}
        lines = [_updates(sides, clients, rounds) for clients in _CLIENTS]
        each = asyncio.run(_bytes(server.url("logged"), rows, first))
        lines.append(Line("bytes of log a change", [each], "table, indexes", Target(120), "B"))
        lines.append(_transactions(sides, rounds))
        return lines + _many(sides, rows, first, copied, rounds)


def _updates(sides: Mapping[str, _Side], clients: int, rounds: int) -> Line:
    contenders: dict[str, Callable[[], float]] = {
        name: partial(side.update, clients) for name, side in sides.items()
    }
    return _rate(f"updates by key, {clients} at once", in_turn(contenders, rounds), 0.8)


def _transactions(sides: Mapping[str, _Side], rounds: int) -> Line:
    contenders: dict[str, Callable[[], float]] = {
        name: partial(side.transaction, _AT_ONCE, "-b", "tpcb-like") for name, side in sides.items()
    }
    return _rate(f"TPC-B-like, {_AT_ONCE} at once", in_turn(contenders, rounds), 0.9)


def _many(
    sides: Mapping[str, _Side], rows: int, first: int, copied: Path, rounds: int
) -> list[Line]:
    statements = {
        "UPDATE": (_UPDATE_MANY.format(last=first + rows - 1), "SELECT 1"),
        "COPY": (
            f"COPY wedding.clients FROM '{copied}'",
            "DELETE FROM wedding.clients WHERE id IN (SELECT id FROM copied)",
        ),
    }
    lines = []
    for name, (timed, undo) in statements.items():
        contenders: dict[str, Callable[[], float]] = {
            side: partial(each.statement, timed, undo) for side, each in sides.items()
        }
        measured = in_turn(contenders, rounds)
        subject = f"{name} of {rows:,}, logged : not"
        lines.append(ratio(subject, measured, "logged", "plain", Target(1.25)))
    return lines


def _rate(subject: str, measured: list[Round], least: float) -> Line:
    """The transactions a second with the log, of those without: the seconds' ratio, turned over."""
    target = Target(math.inf, least=least)
    return ratio(f"{subject}, logged : not", measured, "plain", "logged", target, "ms")


async def _prepared(server: PostgresServer, rows: int, copied: Path) -> int:
    """Make the two databases alike; the first of so many ids that follow each other."""
    admin = await asyncpg.connect(server.url())
    try:
        for name in ("plain", "logged"):
            await admin.execute(f"DROP DATABASE IF EXISTS {name}")
        await admin.execute("CREATE DATABASE plain")
        await runner.up(server.url("plain"), "wedding")
        await seeding.seed(server.url("plain"), rows, _SEED)
        plain = await asyncpg.connect(server.url("plain"))
        try:
            first = await plain.fetchval("SELECT min(id) FROM wedding.clients")
            await plain.execute(_COPIED.format(rows=rows))
            await plain.execute(f"COPY copied TO '{copied}'")
            await plain.execute("VACUUM ANALYZE")
        finally:
            await plain.close()
        await admin.execute("CREATE DATABASE logged TEMPLATE plain STRATEGY file_copy")
        return int(first)
    finally:
        await admin.close()


def _make_pgbench_tables(server: PostgresServer, pgbench: Path) -> None:
    """pgbench's tables, and a key for the one that has none."""
    for name in ("plain", "logged"):
        command = [str(pgbench), "-i", "-q", "-s", str(_SCALE), server.url(name)]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        asyncio.run(_execute(server.url(name), _KEY_OF_HISTORY))


async def _make_triggers(url: str) -> None:
    await runner.up(url, "service")
    connection = await asyncpg.connect(url)
    try:
        await install(connection, _DECLARED)
    finally:
        await connection.close()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _bytes(url: str, rows: int, first: int) -> float:
    """Of the log, for each of as many changes as the table's first tenant has rows."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("TRUNCATE feedsvc.log; SET synchronous_commit = off")
        await connection.execute(_CHANGES.format(rows=rows, first=first))
        return float(await connection.fetchval(_BYTES))
    finally:
        await connection.close()
