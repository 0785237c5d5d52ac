"""Workloads of 30 statements each on schemas of others, without values and with some."""

import re
from pathlib import Path
from typing import Final

import asyncpg
import orjson

from feedsvc.backends.postgres.advice.model import WorkloadStatement

_TESTS: Final = Path(__file__).parents[1] / "integration"
WORKLOADS: Final = _TESTS / "backends" / "workloads"
SAMPLES: Final = _TESTS / "feeds" / "foreign"
SCHEMAS: Final = ("pagila", "chinook", "tracker")


def schema(name: str) -> str:
    """The SQL that makes a schema, of more rows than the sample's where it is one."""
    sample = SAMPLES / f"{name}.sql"
    first = sample.read_text(encoding="utf-8") if sample.is_file() else ""
    return first + (WORKLOADS / f"{name}_grown.sql").read_text(encoding="utf-8")


async def vacuum(connection: asyncpg.Connection) -> None:
    """Analyze all tables, all of whose rows are visible then, as in a database that has run.

    No row is before its commit is in the log, which takes a while without `synchronous_commit`.
    """
    await connection.execute("CHECKPOINT")
    await connection.execute("VACUUM ANALYZE")


def statements(name: str, *, with_values: bool = False) -> list[WorkloadStatement]:
    """The statements of a workload, `q0` and so on, with `$1` or with the values before them."""
    text = (WORKLOADS / f"{name}.sql").read_text(encoding="utf-8")
    pairs = re.findall(r"^-- ?(.*)\n(.+);$", text, re.MULTILINE)
    return [
        WorkloadStatement(
            f"q{number}", _filled(sql, values) if with_values else sql,
            "catalogue", 0, 0.0, 0.0, None, None,
        )
        for number, (values, sql) in enumerate(pairs)
    ]  # fmt: skip


def _filled(sql: str, values: str) -> str:
    """The statement with its values, which are constants of SQL with commas between them."""
    parts = re.findall(r"'(?:[^']|'')*'|ARRAY\[[^\]]*\]|[^,\s]+", values)
    return re.sub(r"\$(\d+)", lambda found: parts[int(found[1]) - 1], sql)


async def costs(connection: asyncpg.Connection, name: str) -> dict[str, float]:
    """The cost of each statement of a workload with its values."""
    found: dict[str, float] = {}
    for statement in statements(name, with_values=True):
        plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement.sql}")
        found[statement.name] = orjson.loads(plan)[0]["Plan"]["Total Cost"]
    return found
