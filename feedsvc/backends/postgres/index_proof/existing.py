"""The indexes that a schema has, and which of them another one makes needless."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Final

import asyncpg

_SQL: Final = (Path(__file__).parent / "indexes.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ExistingIndex:
    """A valid index. `keys` tell columns apart by expression, operators, collation and order."""

    name: str
    table: str
    definition: str
    method: str
    is_unique: bool
    is_constraint: bool
    bytes: int
    scans: int
    keys: tuple[str, ...]
    included: tuple[str, ...]
    predicate: str

    @property
    def needed_by(self) -> bool:
        """Return whether it does more than to be read: it keeps rows unique."""
        return self.is_unique or self.is_constraint


async def existing_indexes(
    connection: asyncpg.Connection,
    schemas: Collection[str],
    tables: Collection[str] | None = None,
) -> list[ExistingIndex]:
    """The indexes of these schemas, or of these tables of theirs (`schema.name`)."""
    rows = await connection.fetch(_SQL, list(schemas), None if tables is None else list(tables))
    return [
        ExistingIndex(
            row["name"], row["table_name"], row["definition"], row["method"], row["is_unique"],
            row["is_constraint"], row["bytes"], row["scans"], tuple(row["keys"]),
            tuple(row["included"]), row["predicate"],
        )
        for row in rows
    ]  # fmt: skip


def needless(indexes: Sequence[ExistingIndex]) -> Iterator[str]:
    """A sentence for each index that another one can stand in for.

    The same keys make a duplicate; keys with which another btree begins make a prefix. An index
    that keeps rows unique is never needless, and of two duplicates the second by name is.
    """
    for one, other in permutations(indexes, 2):
        if one.needed_by or (one.table, one.method, one.predicate) != (
            other.table, other.method, other.predicate,
        ):  # fmt: skip
            continue
        if not set(one.included) <= {*other.included, *(key.split(" ")[0] for key in other.keys)}:
            continue
        if one.keys == other.keys:
            if other.needed_by or one.name > other.name or len(one.included) < len(other.included):
                yield f"index {one.name} is a duplicate of {other.name}"
        elif one.method == "btree" and one.keys == other.keys[: len(one.keys)]:
            yield f"index {one.name} is a prefix of {other.name}"
