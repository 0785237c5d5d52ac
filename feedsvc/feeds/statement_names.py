"""Names of the service's own statements, without values; their SQL can be made of them again."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import quote, unquote

from feedsvc.core.principal import Principal
from feedsvc.datasets.dataset import Dataset, OrderColumn
from feedsvc.feeds.query import FeedQuery, Filter, filter_name
from feedsvc.feeds.sql import statement
from feedsvc.feeds.sql.statement import Statement
from streams.formats import JSON, Layout

StatementKind: TypeAlias = Literal["page", "export", "row", "count", "delta", "live", "digest"]

_LONGEST: Final = 400
_NO_CALLER: Final = Principal("", "member", None, 0.0)


def name_of(kind: StatementKind, query: FeedQuery) -> str:
    """Dataset, kind, order, filters with operators; `after` where it begins behind a row."""
    parts = [quote(query.dataset.name), kind]
    parts.append("order=" + ",".join(map(_order_part, query.order)))
    if query.filters:
        names = sorted(f"{quote(each.column.name)}.{each.op}" for each in query.filters)
        parts.append("filter=" + ",".join(names))
    if query.after is not None:
        parts.append("after")
    name = " ".join(parts)
    return name if len(name) <= _LONGEST else " ".join(parts[:2])


def sql_of(name: str, datasets: Mapping[str, Dataset]) -> str | None:
    """The statement of this name with all of the dataset's columns; None where there is none."""
    dataset_name, _, rest = name.partition(" ")
    kind, _, rest = rest.partition(" ")
    dataset = datasets.get(unquote(dataset_name))
    if dataset is None:
        return None
    columns = tuple(dataset.columns.values())
    if kind == "row":
        key = ["" for _ in dataset.key]
        return statement.one_row(dataset, columns, key, _NO_CALLER).sql
    parts = dict(part.partition("=")[::2] for part in rest.split(" "))
    try:
        order = tuple(_ordered(part, dataset) for part in parts["order"].split(","))
        filters = tuple(_filter(f, dataset) for f in parts.get("filter", "").split(",") if f)
    except (KeyError, ValueError):
        return None
    layout = Layout(columns=tuple(column.name for column in columns))
    after = tuple("" for _ in order) if "after" in parts else None
    query = FeedQuery(dataset, JSON, layout, columns, order, filters, None, after, 1.0, None)
    return _statement(kind, query).sql


def _statement(kind: str, query: FeedQuery) -> Statement:
    match kind:
        case "delta" | "live":
            keys = [["" for _ in query.dataset.key]]
            return statement.rows_of_keys(query, keys, _NO_CALLER)
        case "count":
            return statement.counted(query, _NO_CALLER, 1)
        case "digest":
            return statement.digest_of_rows(query, _NO_CALLER)
        case _:
            limit = 1 if kind == "page" else None
            return statement.projected_sql(query, _NO_CALLER, query.after, limit)


def _order_part(part: OrderColumn) -> str:
    return f"{'-' if part.descending else ''}{quote(part.column.name)}"


def _ordered(part: str, dataset: Dataset) -> OrderColumn:
    return OrderColumn(dataset.all_columns[unquote(part.removeprefix("-"))], part.startswith("-"))


def _filter(part: str, dataset: Dataset) -> Filter:
    column, _, op = unquote(part).rpartition(".")
    found = filter_name(part if op != "eq" else column, dataset)
    if found is None:
        raise ValueError(part)
    values = ("null",) if found[1] == "is" else ("",)
    return Filter(dataset.all_columns[found[0]], found[1], values)
