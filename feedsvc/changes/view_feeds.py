"""Views in the log: their keys are logged from the rows of the tables that they come from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import asyncpg

from feedsvc.changes.log_rules import LogColumn, LogFeed
from feedsvc.datasets.dataset import Declaration
from feedsvc.datasets.key_sources import KeySource, SourceTable, key_sources
from feedsvc.datasets.view_query import ViewQuery


@dataclass(frozen=True, slots=True)
class ViewFeed:
    """A view's feed, and the part of each table that its key comes from, by the table's name."""

    whole: LogFeed
    parts: Mapping[str, LogFeed]


@dataclass(frozen=True, slots=True)
class _Behind:
    """A table behind a view, as `triggers.sql` finds it."""

    name: str
    columns: Mapping[str, LogColumn]
    read: Sequence[str]
    policy_columns: Sequence[str]


def view_feed(
    feed: LogFeed,
    declaration: Declaration,
    rows: Sequence[asyncpg.Record],
    columns: Mapping[int, Mapping[str, LogColumn]],
) -> ViewFeed | None:
    """The feed of a view whose declaration names sources of its key, None without any that can be.

    `feed` is the view's as that of a table, `rows` are those of `triggers.sql` for it, `columns`
    theirs by `id`.
    """
    view = next(row for row in rows if row["is_itself"])
    behind = {row["origin"]: row for row in rows if _is_source(row)}
    if view["query"] is None or not behind:
        return None
    sources = key_sources(
        declaration.key_from,
        [c for c in (declaration.tenant, declaration.client) if c is not None],
        ViewQuery.parse(view["query"]),
        _numbers(view),
        [SourceTable(row["origin_oid"], name, _numbers(row)) for name, row in behind.items()],
    )
    kinds = columns[id(view)]
    parts = dict[str, LogFeed]()
    for source in sources:
        row = behind[source.table]
        table = _Behind(source.table, columns[id(row)], row["read_columns"], row["policy_columns"])
        part = _part(feed, source, table, kinds)
        if part is not None:
            parts[source.table] = replace(part, place=len(parts))
    if len(parts) < len(declaration.key_from):
        return None
    whole = replace(feed, old=tuple(_described(feed, name, part) for name, part in parts.items()))
    return ViewFeed(whole, {name: replace(part, whole=whole) for name, part in parts.items()})


def _is_source(row: asyncpg.Record) -> bool:
    is_origin = f"{row['schema']}.{row['name']}" == row["origin"]
    return is_origin and row["kind"] in ("r", "p") and not row["above"] and not row["is_itself"]


def _numbers(row: asyncpg.Record) -> dict[int, str]:
    return {int(number): name for number, name in json.loads(row["numbers"]).items()}


def _part(
    feed: LogFeed, source: KeySource, table: _Behind, kinds: Mapping[str, LogColumn]
) -> LogFeed | None:
    """The table's part, None where it has not got the view's key, or has it in another type."""
    key = source.key(feed.key)
    if key is None or not all(
        name in table.columns and table.columns[name].kind == kinds[column].kind
        for column, name in zip(feed.key, key, strict=True)
    ):
        return None
    tenant = source.names.get(feed.tenant or "")
    held = table.columns.get(tenant or "")
    is_split = held is not None and held.has_one_text and held.kind == kinds[feed.tenant or ""].kind
    narrow = [template.renamed(source.names) for template in feed.narrow]
    filled = tuple(t for t in narrow if t is not None and set(t.columns) <= table.columns.keys())
    is_wide = len(filled) < len(narrow) or (bool(narrow) and not is_split)
    deciding = set(source.deciding or ()) | set(table.policy_columns)
    read = {*table.read, *key, *table.policy_columns, *(c for t in filled for c in t.columns)}
    return LogFeed(
        dataset=feed.dataset,
        relation=feed.relation,
        key=key,
        tenant=tenant if is_split else None,
        narrow=() if is_wide else filled,
        old=tuple(c for c in table.columns if c in deciding or c in key or c == tenant),
        published=tuple(c for c in table.columns if c in read or c == tenant),
        is_wide=is_wide,
    )


def _described(feed: LogFeed, table: str, part: LogFeed) -> str:
    """A table's part as `log_feeds.old_columns` has it: the meaning of a key and a former row."""
    return json.dumps(
        {"table": table, "key": part.key, "tenant": part.tenant, "columns": part.old},
        ensure_ascii=False,
    )
