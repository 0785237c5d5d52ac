"""The tables that a view's key comes from, and what the view's columns are called in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from feedsvc.datasets.dataset import relation_parts
from feedsvc.datasets.view_query import ViewQuery

MOST_COLUMNS: Final = 45
"""Columns of a former row that can be decided on: PostgreSQL's functions take 100 arguments."""


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table behind a view. `columns` has its columns' names by their numbers."""

    oid: int
    name: str
    columns: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class KeySource:
    """A table whose rows have the view's key.

    `names` has the table's columns by the view's, `deciding` those of its columns by which a row of
    the view can be told to be there, None where they can't tell.
    """

    table: str
    names: Mapping[str, str]
    deciding: Sequence[str] | None

    def key(self, key: Sequence[str]) -> tuple[str, ...] | None:
        """The columns of the view's key in this table, None where one is not known."""
        found = [self.names.get(column) for column in key]
        return None if None in found else tuple(name for name in found if name is not None)


def key_sources(
    declared: Mapping[str, Mapping[str, str]],
    held_to: Sequence[str],
    query: ViewQuery,
    view: Mapping[int, str],
    tables: Sequence[SourceTable],
) -> list[KeySource]:
    """The sources that are declared (`key_from`) and behind the view, in the order of their names.

    `held_to` are the columns by which a caller's rows are told from others, `view` are the view's
    columns by their numbers.
    """
    known = {table.name: table for table in tables}
    found = []
    for relation, given in sorted(declared.items()):
        table = known.get(".".join(relation_parts(relation)))
        if table is None:
            continue
        taken = {
            view[number]: table.columns[place[1]]
            for number, place in query.origins.items()
            if place[0] == table.oid and number in view and place[1] in table.columns
        }
        names = {**taken, **given}
        found.append(KeySource(table.name, names, _deciding(query, table, held_to, view)))
    return found


def _deciding(
    query: ViewQuery, table: SourceTable, held_to: Sequence[str], view: Mapping[int, str]
) -> tuple[str, ...] | None:
    if not query.is_plain:
        return None
    numbers = {name: number for number, name in view.items()}
    origins = [query.origins.get(numbers[column]) for column in held_to if column in numbers]
    if query.deciding is None or None in origins:
        return tuple(table.columns.values())
    places = {*query.deciding, *(place for place in origins if place is not None)}
    return tuple(name for number, name in table.columns.items() if (table.oid, number) in places)
