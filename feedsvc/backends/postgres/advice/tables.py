"""Facts of tables that candidates depend on: sizes, columns, their types and statistics."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

_SQL: Final = (Path(__file__).parent / "tables.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """A column's type, without its modifiers, and statistics; None where there are none."""

    type: str
    is_domain: bool
    category: str
    """PostgreSQL's: `A` arrays, `S` strings, `N` numbers, `D` dates, `R` ranges …"""
    null_fraction: float | None
    n_distinct: float | None
    correlation: float | None
    width: int
    """Bytes on average."""
    least_element: float | None = None
    """The part of the rows that have an array's rarest element; None where it isn't known."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table: `rows` and `bytes` as of its last ANALYZE, `visible` of its pages 0 to 1."""

    name: str
    quoted: str
    kind: str
    is_partition: bool
    rows: float
    bytes: int
    visible: float
    hides_statistics: bool
    """True where PostgreSQL shows them to no login that is under its policies."""
    modified: float
    """Rows changed since the last ANALYZE."""
    inserted: float
    changed: float
    """Rows updated and deleted since the statistics began."""
    columns: Mapping[str, ColumnFacts]
    """By name, quoted as in SQL where it must be."""

    @property
    def takes_indexes(self) -> bool:
        """Return whether CREATE INDEX CONCURRENTLY can be run on it."""
        return self.kind in {"r", "m"} and not self.is_partition


async def table_facts(
    connection: asyncpg.Connection, tables: Collection[str]
) -> dict[str, TableFacts]:
    """The facts of these tables, `schema.name` each, by that name."""
    found: dict[str, TableFacts] = {}
    columns: dict[str, dict[str, ColumnFacts]] = {}
    for row in await connection.fetch(_SQL, list(tables)):
        name = row["table_name"]
        columns.setdefault(name, {})[row["column_name"]] = ColumnFacts(
            row["type"], row["is_domain"], row["category"], row["null_fraction"],
            row["n_distinct"], row["correlation"], row["width"] or 8,
            row["least_element"],
        )  # fmt: skip
        found[name] = TableFacts(
            name, row["quoted"], row["kind"], row["is_partition"], row["rows"], row["bytes"],
            row["visible"], row["hides_statistics"], row["modified"], row["inserted"],
            row["changed"], columns[name],
        )  # fmt: skip
    return found
