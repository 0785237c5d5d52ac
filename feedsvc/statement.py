"""The SQL of a feed: one statement, continued by keyset, never by OFFSET.

Identifiers come from the dataset alone. Every value is a parameter, sent as text and cast to its
column's base type, so PostgreSQL's own types judge it and its own operators compare it. COPY has
no parameters; there it is a literal (`quoting`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from feedsvc.auth.principal import Principal
from feedsvc.binary_projection import BinaryRow
from feedsvc.csv_projection import csv_record
from feedsvc.datasets import Column, Dataset, Op, OrderColumn
from feedsvc.projection import ALIAS, PLAIN_TEXTS, json_record, json_source, reference, token_value
from feedsvc.query import MOST_ROWS, FeedQuery, Filter
from feedsvc.quoting import literal
from streams.formats import CSV

_SMALL_LIMIT: Final = 10_000
_OPERATORS: Final[dict[Op, str]] = {
    "eq": "=",
    "ne": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "prefix": "^@",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with its arguments. A feed's rows are a record as bytes, then the values of its token."""

    sql: str
    arguments: tuple[str | list[str], ...]


class _Values(Protocol):
    """Where a query's values are kept, and how it has each of them."""

    def scalar(self, value: str, column: Column) -> str: ...

    def text(self, value: str) -> str: ...

    def array(self, values: Sequence[str], column: Column) -> str: ...


class _Arguments:
    """Hands out placeholders and keeps what stands behind them."""

    def __init__(self) -> None:
        self.values: list[str | list[str]] = []

    def scalar(self, value: str, column: Column) -> str:
        self.values.append(value)
        return f"${len(self.values)}::text::{column.base}"

    def text(self, value: str) -> str:
        self.values.append(value)
        return f"${len(self.values)}::text"

    def array(self, values: Sequence[str], column: Column) -> str:
        self.values.append(list(values))
        return f"${len(self.values)}::text[]::{column.base}[]"

    def count(self, value: int) -> str:
        self.values.append(str(value))
        return f"${len(self.values)}::text::bigint"


class _Literals:
    """Writes values where others have placeholders.

    Each is a constant of its type when the plan is made. A setting, read by `current_setting`,
    would be one value as much, but is read anew for every row that it is compared with.
    """

    def scalar(self, value: str, column: Column) -> str:
        return f"{literal(value)}::{column.base}"

    def text(self, value: str) -> str:
        return f"{literal(value)}::text"

    def array(self, values: Sequence[str], column: Column) -> str:
        listed = ", ".join(self.scalar(value, column) for value in values)
        return f"ARRAY[{listed}]::{column.base}[]"


def feed(
    query: FeedQuery, principal: Principal, after: Sequence[str] | None, limit: int | None
) -> Statement:
    """The rows of the query behind `after`, at most `limit` of them."""
    arguments = _Arguments()
    if query.format is CSV:
        record = csv_record(query.columns, query.layout.csv)
        source = ""
    else:
        record, source = json_record(query.columns), json_source(query.columns)
    tokens = [token_value(part.column) for part in query.order]
    rows = _rows(query, _conditions(query, principal, after, arguments), source)
    sql = f"SELECT {', '.join((record, *tokens))} {rows}{_limit(limit, arguments)}"
    return Statement(sql, tuple(arguments.values))


def sent(
    query: FeedQuery,
    principal: Principal,
    row: BinaryRow,
    after: Sequence[str] | None,
    limit: int | None,
) -> Statement:
    """The same rows, each as `record_send` gives it."""
    arguments = _Arguments()
    rows = _rows(query, _conditions(query, principal, after, arguments))
    sql = f"SELECT record_send(ROW({row.select_list})) {rows}{_limit(limit, arguments)}"
    return Statement(sql, tuple(arguments.values))


def copied(
    query: FeedQuery,
    principal: Principal,
    row: BinaryRow,
    after: Sequence[str] | None,
    limit: int,
) -> str:
    """The same rows for COPY."""
    rows = _rows(query, _conditions(query, principal, after, _Literals()))
    return f"SELECT {row.select_list} {rows} LIMIT {limit:d}"


def bound(
    query: FeedQuery, principal: Principal, after: Sequence[str] | None, rows: int
) -> Statement:
    """Where the last of so many rows behind `after` stands: its token's values, or no row.

    What is passed over is neither sent nor made a text of, and where an index has all that the
    order and the conditions want, it is not even fetched.
    """
    arguments = _Arguments()
    conditions = _conditions(query, principal, after, arguments)
    order = [part.column for part in query.order]
    passed = (
        f"SELECT {', '.join(map(reference, order))} {_rows(query, conditions)}"
        f" OFFSET {arguments.count(rows - 1)} LIMIT 1"
    )
    sql = f"SELECT {', '.join(map(token_value, order))} FROM ({passed}) AS {ALIAS}"
    return Statement(sql, tuple(arguments.values))


def _rows(query: FeedQuery, conditions: str, source: str = "") -> str:
    return (
        f"FROM {query.dataset.relation} AS {ALIAS} {source} WHERE {conditions} "
        f"ORDER BY {', '.join(map(_order_term, query.order))}"
    )


def _limit(limit: int | None, arguments: _Arguments) -> str:
    """At most so many rows, in words that make PostgreSQL plan for an early first row.

    A protocol-level portal is planned for all of its rows, which for a large table is a sort of
    the whole. A limit that the planner can't see through is taken for a tenth of them, as a
    cursor is (`preprocess_limit` in PostgreSQL's planner.c); a limit of NULL is none.
    """
    if limit is None or limit > MOST_ROWS:
        return " LIMIT (SELECT NULL::bigint)"
    if limit <= _SMALL_LIMIT:
        return f" LIMIT {arguments.count(limit)}"
    return f" LIMIT (SELECT {arguments.count(limit)})"


def estimate(query: FeedQuery, principal: Principal) -> Statement:
    """What the planner thinks the query gives, without its limit: one row, one JSON plan."""
    arguments = _Arguments()
    sql = (
        f"EXPLAIN (FORMAT JSON) SELECT FROM {query.dataset.relation} AS {ALIAS} "
        f"WHERE {_conditions(query, principal, query.after, arguments)}"
    )
    return Statement(sql, tuple(arguments.values))


def one_row(
    dataset: Dataset, columns: Sequence[Column], key: Sequence[str], principal: Principal
) -> Statement:
    """The row that has this key, as a JSON object."""
    arguments = _Arguments()
    conditions = [
        f"{reference(column)} = {arguments.scalar(value, column)}"
        for column, value in zip(dataset.key, key, strict=True)
    ]
    conditions += _scope(dataset, principal, arguments)
    sql = (
        f"SELECT {json_record(columns)} FROM {dataset.relation} AS {ALIAS} "
        f"{json_source(columns)} WHERE {' AND '.join(conditions)} LIMIT 1"
    )
    return Statement(sql, tuple(arguments.values))


def _conditions(
    query: FeedQuery,
    principal: Principal,
    after: Sequence[str] | None,
    arguments: _Values,
) -> str:
    conditions = _scope(query.dataset, principal, arguments)
    conditions += [_condition(condition, arguments) for condition in query.filters]
    if after is not None:
        conditions.append(_behind(query.order, after, arguments))
    return " AND ".join(conditions) or "true"


def _scope(dataset: Dataset, principal: Principal, arguments: _Values) -> list[str]:
    """The second lock beside row-level security: the caller's tenant, and client if narrowed."""
    conditions = []
    if dataset.tenant is not None:
        placeholder = arguments.scalar(principal.tenant, dataset.tenant)
        conditions.append(f"{reference(dataset.tenant)} = {placeholder}")
    if principal.client is not None and not dataset.shared_with_clients:
        if dataset.client is None:
            return ["false"]
        placeholder = arguments.scalar(principal.client, dataset.client)
        conditions.append(f"{reference(dataset.client)} = {placeholder}")
    return conditions


def _condition(condition: Filter, arguments: _Values) -> str:
    column = reference(condition.column)
    match condition.op:
        case "is":
            return f"{column} IS {'NOT ' if condition.values[0] == 'notnull' else ''}NULL"
        case "in":
            return f"{column} = ANY ({arguments.array(condition.values, condition.column)})"
        case "prefix" if condition.column.kind not in PLAIN_TEXTS:
            # The padding of a char(n) is no part of it; other kinds of text have no ^@.
            return f"{column}::text ^@ {arguments.text(condition.values[0])}"
        case op:
            value = arguments.scalar(condition.values[0], condition.column)
            return f"{column} {_OPERATORS[op]} {value}"


def _order_term(part: OrderColumn) -> str:
    return f"{reference(part.column)}{' DESC' if part.descending else ''}"


def _behind(order: Sequence[OrderColumn], after: Sequence[str], arguments: _Values) -> str:
    """Keyset pagination: the rows that come later in the order than these values.

    One direction throughout is a comparison of rows, which an index serves as it is
    (PostgreSQL's documentation, section 9.25.5). Mixed directions are spelled out, with a bound
    on the first column in front so that an index still has where to begin.
    """
    values = [
        arguments.scalar(value, part.column) for part, value in zip(order, after, strict=True)
    ]
    if len({part.descending for part in order}) == 1:
        columns = ", ".join(reference(part.column) for part in order)
        return f"({columns}) {_beyond(order[0])} ({', '.join(values)})"
    alternatives = []
    for position, part in enumerate(order):
        equal = [
            f"{reference(earlier.column)} = {value}"
            for earlier, value in zip(order[:position], values, strict=False)
        ]
        later = f"{reference(part.column)} {_beyond(part)} {values[position]}"
        alternatives.append("(" + " AND ".join((*equal, later)) + ")")
    first = f"{reference(order[0].column)} {_beyond(order[0])}= {values[0]}"
    return f"{first} AND ({' OR '.join(alternatives)})"


def _beyond(part: OrderColumn) -> str:
    return "<" if part.descending else ">"
