"""Former rows of a view as SQL: which of them a caller could see, by the view's own text.

The view's query is asked of what the log has of its tables: under the name of a table it finds the
former rows. A row of a plain view comes from one row of each of its tables, so

- where one table alone has written a key, each former row of it stood beside the present rows of
  the others;
- where several have, each once, their former rows stood beside each other in the cursor's state;
- else a former row may have stood beside any other, and what would be seen of any is in doubt.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from feedsvc.core.principal import Principal
from feedsvc.datasets.dataset import Dataset, quote_identifier
from feedsvc.feeds.sql.former_rows import held
from feedsvc.feeds.sql.quoting import literal
from feedsvc.feeds.sql.statement import Statement

_FORMER: Final = '"feedsvc: former"'  # neither a table nor a column has the name
_PLACE: Final = re.compile(r"\[(\d+)(\]?)")


class FormerView(NamedTuple):
    """A key of a view: its place among those that are asked for, and what the log has of it.

    Each of `entries` is a JSON array: a table's place, and the columns of a former row, if any.
    """

    place: int
    key: Sequence[str]
    entries: Sequence[str]

    @property
    def changed(self) -> frozenset[int]:
        """The places of the tables that have written the key."""
        return frozenset(_place(entry) for entry in self.entries)

    @property
    def former(self) -> list[str]:
        """The entries that have a former row."""
        return [entry for entry in self.entries if not _is_empty(entry)]

    @property
    def is_of_one_state(self) -> bool:
        """Return whether each former row stood beside the others, and the present ones.

        A table with one entry, which is a former row, has changed once since the cursor.
        """
        changed, former = self.changed, self.former
        has_one_each = len(changed) == len(self.entries) == len(former)
        return bool(former) and (len(changed) == 1 or has_one_each)


@dataclass(frozen=True, slots=True)
class ViewTable:
    """A table of a view. `printed` is what the view's text calls it, `bare` its name alone.

    `policy` is SQL over its columns, `key` are the columns with the view's key, None where the key
    does not come from it, `logged` those that the log has of a former row.
    """

    quoted: str
    printed: str
    bare: str
    policy: str
    types: Mapping[str, str]
    key: Sequence[str] | None
    logged: Sequence[str]
    can_be_read: bool


class DoubtError(Exception):
    """It can't be decided whether a former row was seen."""


@dataclass(frozen=True, slots=True)
class ViewSight:
    """Rules for who sees a row of a view. `tables` are in the order of the log."""

    dataset: Dataset
    text: str
    tables: Sequence[ViewTable]

    def certain(self, rows: Iterable[FormerView], principal: Principal) -> Statement | None:
        """SQL for the places of those of which a state that was is seen, None where none can be.

        Raises DoubtError.
        """
        every = frozenset(range(len(self.tables)))
        known = [_Asked(row, every - row.changed) for row in rows if row.is_of_one_state]
        return self._seen(known, principal)

    def possible(self, rows: Iterable[FormerView], principal: Principal) -> Statement | None:
        """SQL for the places of those of which a state that may have been is seen.

        None where there is no doubt. Raises DoubtError.
        """
        every = frozenset(range(len(self.tables)))
        doubtful = [_Asked(row, every) for row in rows if row.former and len(row.changed) > 1]
        return self._seen(doubtful, principal)

    def _seen(self, asked: Sequence["_Asked"], principal: Principal) -> Statement | None:
        if not asked:
            return None
        values: list[str | list[str]] = []
        text, tables = self.text, []
        for place, table in enumerate(self.tables):
            if table.key is not None:
                tables.append(self._rows(place, table, asked, values))
                text = _over_former_rows(text, table)
            elif not table.can_be_read:
                raise DoubtError(f"{table.quoted} can't be read as it is")
        keys = self._keys([one.row for one in asked], values)
        places = _added(values, [str(one.row.place) for one in asked], "text[]")
        same = _same("v", [column.name for column in self.dataset.key])
        sql = (
            f"WITH {', '.join(tables)} SELECT DISTINCT k.place::int "
            f"FROM ROWS FROM ({keys}, unnest({places})) "
            f"AS k ({_names(len(self.dataset.key))}, place) JOIN ({text}) AS v ON {same} "
            f"WHERE true{held(self.dataset, 'v', principal, values)}"
        )
        return Statement(sql, tuple(values))

    def _rows(
        self,
        place: int,
        table: ViewTable,
        asked: Sequence["_Asked"],
        values: list[str | list[str]],
    ) -> str:
        """The table's former rows, and the present ones where they are asked for, by its name."""
        former = [e for one in asked for e in one.row.former if _place(e) == place]
        array = _added(values, former, "text[]")
        pairs = ", ".join(
            f"{literal(column)}, {_FORMER}.{_FORMER}::json -> {at}"
            for at, column in enumerate(table.logged, 1)
        )
        types = ", ".join(f"{quote_identifier(c)} {table.types[c]}" for c in table.logged)
        columns = ", ".join(
            f"{table.bare}.{quote_identifier(column)}"
            if column in table.logged
            else f"NULL::{kind} AS {quote_identifier(column)}"
            for column, kind in table.types.items()
        )
        rows = (
            f"SELECT {columns} FROM unnest({array}) AS {_FORMER} ({_FORMER}) CROSS JOIN LATERAL "
            f"json_to_record(json_build_object({pairs})) AS {table.bare} ({types}) "
            f"WHERE ({table.policy})"
        )
        present = [one.row for one in asked if place in one.present]
        if present:
            rows += f" UNION ALL {self._present(table, columns, present, values)}"
        return f"{table.bare} AS ({rows})"

    def _present(
        self,
        table: ViewTable,
        columns: str,
        rows: Sequence[FormerView],
        values: list[str | list[str]],
    ) -> str:
        if not table.can_be_read or table.key is None:
            raise DoubtError(f"{table.quoted} can't be read as it is")
        keys = self._keys(rows, values)
        return (
            f"SELECT {columns} FROM {table.quoted} AS {table.bare} WHERE EXISTS (SELECT FROM "
            f"ROWS FROM ({keys}) AS k ({_names(len(table.key))}) "
            f"WHERE {_same(table.bare, table.key)})"
        )

    def _keys(self, rows: Sequence[FormerView], values: list[str | list[str]]) -> str:
        """The keys as arrays, one for each column."""
        return ", ".join(
            f"unnest({_added(values, [row.key[at] for row in rows], f'text[]::{column.base}[]')})"
            for at, column in enumerate(self.dataset.key)
        )


class _Asked(NamedTuple):
    """A key, and the places of the tables whose present rows of it are read beside former ones."""

    row: FormerView
    present: Collection[int]


def _over_former_rows(text: str, table: ViewTable) -> str:
    """The view's text with the table's name as that of its former rows. Raises DoubtError."""
    if table.printed == table.bare:
        return text
    named = re.compile(rf"(?<=[\s(]){re.escape(table.printed)}(?=[\s,);]|$)")
    if len(named.findall(text)) != 1:
        raise DoubtError(f"{table.quoted} stands more than once in the view's text")
    return named.sub(lambda _: table.bare, text)


def _same(relation: str, columns: Sequence[str]) -> str:
    return " AND ".join(
        f"{relation}.{quote_identifier(column)} = k.k{at}" for at, column in enumerate(columns)
    )


def _names(count: int) -> str:
    return ", ".join(f"k{at}" for at in range(count))


def _added(values: list[str | list[str]], value: list[str], cast: str) -> str:
    values.append(value)
    return f"${len(values)}::{cast}"


def _place(entry: str) -> int:
    found = _PLACE.match(entry)
    if found is None:
        raise DoubtError("the log has a former row of a feed that was declared otherwise")
    return int(found[1])


def _is_empty(entry: str) -> bool:
    found = _PLACE.match(entry)
    return found is not None and found[2] == "]"
