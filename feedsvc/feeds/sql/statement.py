"""The SQL of a feed: one statement, continued by keyset, never by OFFSET.

Identifiers come from the dataset alone. Every value is a parameter, sent as text and cast to its
column's base type, so PostgreSQL's own types judge it and its own operators compare it. COPY has
no parameters; there it is a literal (`quoting`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

from feedsvc.core.principal import Principal
from feedsvc.datasets.dataset import Column, Dataset, Op, OrderColumn, quote_identifier
from feedsvc.feeds.query import MOST_ROWS, FeedQuery, Filter
from feedsvc.feeds.sql.binary_projection import BinaryRow
from feedsvc.feeds.sql.csv_projection import csv_record
from feedsvc.feeds.sql.json_projection import (
    PLAIN_TEXTS,
    json_record,
    json_source,
    named_columns,
    reference,
    token_value,
)
from feedsvc.feeds.sql.statement_values import Arguments, Literals, Values
from streams.formats import CSV

_SMALL_LIMIT: Final = 10_000
_WANTED, _KEY, _FOUND = "w", "k", "f"
"""Names of `rows_of_keys` for the keys, for one of them alone, and for its row."""
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


def projected_sql(
    query: FeedQuery, principal: Principal, after: Sequence[str] | None, limit: int | None
) -> Statement:
    """The rows of the query behind `after`, at most `limit` of them."""
    arguments = Arguments()
    if query.format is CSV:
        record = csv_record(query.columns, query.layout.csv)
        source = ""
    else:
        record, source = json_record(query.columns), json_source(query.columns)
    tokens = [token_value(part.column) for part in query.order]
    rows = _rows(query, _conditions(query, principal, after, arguments), source)
    sql = f"SELECT {', '.join((record, *tokens))} {rows}{_limit(limit, arguments)}"
    return Statement(sql, tuple(arguments.values))


def binary_cursor_sql(
    query: FeedQuery,
    principal: Principal,
    row: BinaryRow,
    after: Sequence[str] | None,
    limit: int | None,
) -> Statement:
    """The same rows, each as `record_send` gives it."""
    arguments = Arguments()
    rows = _rows(query, _conditions(query, principal, after, arguments))
    sql = f"SELECT pg_catalog.record_send(ROW({row.select_list})) {rows}{_limit(limit, arguments)}"
    return Statement(sql, tuple(arguments.values))


def copy_sql(
    query: FeedQuery,
    principal: Principal,
    row: BinaryRow,
    after: Sequence[str] | None,
    limit: int,
) -> str:
    """The same rows for COPY."""
    rows = _rows(query, _conditions(query, principal, after, Literals()))
    return f"SELECT {row.select_list} {rows} LIMIT {limit:d}"


def range_end_sql(
    query: FeedQuery, principal: Principal, after: Sequence[str] | None, rows: int
) -> Statement:
    """The place of the last of so many rows behind `after`: its token's values, or no row.

    The rows that are passed over are neither sent nor formatted, and where an index has all columns
    of the order and the conditions, they are not even fetched.
    """
    arguments = Arguments()
    conditions = _conditions(query, principal, after, arguments)
    order = [part.column for part in query.order]
    rows_passed = f"{_rows(query, conditions)} OFFSET {arguments.count(rows - 1)} LIMIT 1"
    passed = f"(SELECT {', '.join(map(reference, order))} {rows_passed})"
    sql = f"SELECT {', '.join(map(token_value, order))} FROM {named_columns(passed, order)}"
    return Statement(sql, tuple(arguments.values))


def _rows(query: FeedQuery, conditions: str, source: str = "") -> str:
    order = ", ".join(map(_order_term, query.order))
    return f"{_unordered(query, conditions, source)} ORDER BY {order}"


def _unordered(query: FeedQuery, conditions: str, source: str = "") -> str:
    named = named_columns(query.dataset.relation, _named(query))
    return f"FROM {named} {source} WHERE {conditions}"


def _named(query: FeedQuery) -> Iterator[Column]:
    """Every column that a statement for the query may name."""
    yield from query.columns
    yield from (part.column for part in query.order)
    yield from (condition.column for condition in query.filters)
    yield from _scoped(query.dataset)


def _scoped(dataset: Dataset) -> Iterator[Column]:
    """The columns that a caller is held to."""
    yield from (column for column in (dataset.tenant, dataset.client) if column is not None)


def _limit(limit: int | None, arguments: Arguments) -> str:
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


def counted(query: FeedQuery, principal: Principal, most: int) -> Statement:
    """The number of rows that the query gives behind its `after`, at most so many."""
    arguments = Arguments()
    rows = _unordered(query, _conditions(query, principal, query.after, arguments))
    sql = f"SELECT count(*) FROM (SELECT {rows} LIMIT {arguments.count(most)}) AS counted"
    return Statement(sql, tuple(arguments.values))


def estimate(query: FeedQuery, principal: Principal) -> Statement:
    """The planner's estimate of the whole feed: one row, one JSON plan.

    Only of a query without conditions of the caller's own (`totals`).
    """
    arguments = Arguments()
    rows = _unordered(query, _conditions(query, principal, None, arguments))
    return Statement(f"EXPLAIN (FORMAT JSON) SELECT {rows}", tuple(arguments.values))


def values_of(query: FeedQuery, principal: Principal) -> Statement:
    """The query's values alone, as its statements have them."""
    arguments = Arguments()
    _conditions(query, principal, query.after, arguments)
    return Statement(arguments.selected(), tuple(arguments.values))


def values_of_key(dataset: Dataset, key: Sequence[str], principal: Principal) -> Statement:
    """The same for a row's key."""
    arguments = Arguments()
    _identified(dataset, key, principal, arguments)
    return Statement(arguments.selected(), tuple(arguments.values))


def _identified(
    dataset: Dataset, key: Sequence[str], principal: Principal, arguments: Arguments
) -> list[str]:
    conditions = [
        f"{reference(column)} = {arguments.scalar(value, column)}"
        for column, value in zip(dataset.key, key, strict=True)
    ]
    return conditions + _scope(dataset, principal, arguments)


def one_row(
    dataset: Dataset, columns: Sequence[Column], key: Sequence[str], principal: Principal
) -> Statement:
    """The row that has this key, as a JSON object."""
    arguments = Arguments()
    conditions = _identified(dataset, key, principal, arguments)
    source = named_columns(dataset.relation, (*columns, *dataset.key, *_scoped(dataset)))
    sql = (
        f"SELECT {json_record(columns)} FROM {source} {json_source(columns)} "
        f"WHERE {' AND '.join(conditions)} LIMIT 1"
    )
    return Statement(sql, tuple(arguments.values))


def digest_of_rows(query: FeedQuery, principal: Principal) -> Statement:
    """The number of the query's rows, and the sum of the beginnings of their SHA-256.

    Of each the first eight bytes, as a signed number: modulo 2^64 the sum is that of unsigned ones.
    """
    arguments = Arguments()
    conditions = _conditions(query, principal, None, arguments)
    rows = _unordered(query, conditions, json_source(query.columns))
    sql = f"SELECT count(*), coalesce(sum({_beginning_of_digest(query)}), 0)::text {rows}"
    return Statement(sql, tuple(arguments.values))


def _beginning_of_digest(query: FeedQuery) -> str:
    return (
        f"('x' || left(encode(sha256({json_record(query.columns)}), 'hex'), 16))::bit(64)::bigint"
    )


def keys_of_rows(
    query: FeedQuery, principal: Principal, most: int, *, has_digests: bool
) -> Statement:
    """The values of the key's token of each of the query's rows, of at most so many of them.

    Then, with `has_digests`, the beginning of the row's SHA-256 as a signed number.
    """
    arguments = Arguments()
    values = [token_value(column) for column in query.dataset.key]
    if has_digests:
        values.append(_beginning_of_digest(query))
    source = json_source(query.columns) if has_digests else ""
    rows = _unordered(query, _conditions(query, principal, None, arguments), source)
    sql = f"SELECT {', '.join(values)} {rows} LIMIT {arguments.count(most)}"
    return Statement(sql, tuple(arguments.values))


def rows_of_keys(
    query: FeedQuery, keys: Sequence[Sequence[str]], principal: Principal
) -> Statement:
    """For each of the keys, in their order: the row's record, or NULL and the key's own.

    The record is NULL where there is no such row for this caller, or where it does not match.
    """
    arguments, dataset, columns = Arguments(), query.dataset, query.columns
    arrays = [
        f"unnest({arguments.array([key[place] for key in keys], column)})"
        for place, column in enumerate(dataset.key)
    ]
    named = [*_named(query), *dataset.key]
    # Names that none of the row's columns has: one that was dropped meanwhile must be an error.
    names = {column.name for column in named}
    free = (name for n in count() if (name := f"k{n}") not in names)
    *parts, place = islice(free, len(dataset.key) + 1)
    conditions = [
        f"{reference(column)} = {_WANTED}.{part}"
        for column, part in zip(dataset.key, parts, strict=True)
    ]
    conditions.append(_conditions(query, principal, None, arguments))
    source = f"{named_columns(dataset.relation, named)} {json_source(columns)}"
    listed = ", ".join(
        f"{_WANTED}.{part} AS {quote_identifier(column.name)}"
        for column, part in zip(dataset.key, parts, strict=True)
    )
    sql = (
        f"SELECT {_FOUND}.record, CASE WHEN {_FOUND}.record IS NULL "
        f"THEN textsend(pg_catalog.row_to_json({_KEY}.*)::text) END "
        f"FROM ROWS FROM ({', '.join(arrays)}) WITH ORDINALITY "
        f"AS {_WANTED} ({', '.join(parts)}, {place}) "
        f"LEFT JOIN LATERAL (SELECT {json_record(columns)} AS record FROM {source} "
        f"WHERE {' AND '.join(conditions)} LIMIT 1) AS {_FOUND} ON true "
        f"CROSS JOIN LATERAL (SELECT {listed}) AS {_KEY} ORDER BY {_WANTED}.{place}"
    )
    return Statement(sql, tuple(arguments.values))


def _conditions(
    query: FeedQuery,
    principal: Principal,
    after: Sequence[str] | None,
    arguments: Values,
) -> str:
    conditions = _scope(query.dataset, principal, arguments)
    conditions += [_condition(condition, arguments) for condition in query.filters]
    if after is not None:
        conditions.append(_behind(query.order, after, arguments))
    return " AND ".join(conditions) or "true"


def _scope(dataset: Dataset, principal: Principal, arguments: Values) -> list[str]:
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


def _condition(condition: Filter, arguments: Values) -> str:
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


def _behind(order: Sequence[OrderColumn], after: Sequence[str], arguments: Values) -> str:
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
