"""Facts of tables that plans are judged by, and candidates for indexes made of."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import asyncpg

_SQL: Final = (Path(__file__).parent / "tables.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """A column's type, without its modifiers, and statistics; None where there are none."""

    plain: str
    """Its name as it is."""
    type: str
    is_domain: bool
    category: str
    """PostgreSQL's: `A` arrays, `S` strings, `N` numbers, `D` dates, `R` ranges …"""
    is_unknown: bool
    """True where the planner has no statistics of it, as far as the login may see that."""
    null_fraction: float | None
    n_distinct: float | None
    correlation: float | None
    width: int
    """Bytes on average."""
    least_element: float | None
    """The part of the rows that have an array's rarest element; None where it isn't known."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table: `rows`, `pages` and `bytes` as of its last ANALYZE, `visible` of its pages 0 to 1.

    `rows` is -1 where it was never analyzed.
    """

    columns: Mapping[str, ColumnFacts]
    """By name, quoted as in SQL where it must be."""
    id: int
    name: str
    quoted: str
    kind: str
    is_partition: bool
    rows: float
    pages: int
    bytes: int
    visible: float
    is_secured: bool
    """True where row-level security binds the role that reads."""
    hides_statistics: bool
    """True where PostgreSQL shows them to no login that is under its policies."""
    modified: int
    """Rows changed since the last ANALYZE."""
    changed: float
    """Rows updated and deleted since the statistics began."""
    policy_columns: Collection[str]

    @property
    def takes_indexes(self) -> bool:
        """Return whether CREATE INDEX CONCURRENTLY can be run on it."""
        return self.kind in {"r", "m"} and not self.is_partition

    @property
    def unknown_columns(self) -> frozenset[str]:
        """Columns without statistics."""
        return frozenset(each.plain for each in self.columns.values() if each.is_unknown)


_OF_COLUMN: Final = [each.name for each in fields(ColumnFacts)]
_OF_TABLE: Final = [each.name for each in fields(TableFacts)][1:]


async def table_facts(
    connection: asyncpg.Connection, tables: Collection[str]
) -> dict[str, TableFacts]:
    """The facts of these tables, `schema.name` each, by that name."""
    parts = [table.partition(".") for table in tables]
    found: dict[str, TableFacts] = {}
    columns: dict[str, dict[str, ColumnFacts]] = {}
    for row in await connection.fetch(_SQL, [p[0] for p in parts], [p[2] for p in parts]):
        own = columns.setdefault(row["name"], {})
        own[row["column_name"]] = ColumnFacts(*(row[each] for each in _OF_COLUMN))
        found[row["name"]] = TableFacts(own, *(row[each] for each in _OF_TABLE))
    return found
