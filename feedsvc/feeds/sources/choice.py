"""The choice of the source for a query."""

from importlib.resources import files
from typing import Final

from feedsvc.backends.postgres.pool import Connection
from feedsvc.core.principal import Principal
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources.copy_pages import COPY_AFTER, CopyPages
from feedsvc.feeds.sources.cursor import BinaryCursor
from feedsvc.feeds.sources.parallel import ParallelCopy
from feedsvc.feeds.sources.projection import ProjectedCursor
from feedsvc.feeds.sources.source import Position, Source
from streams import encoder

_TYPES: Final = (files("feedsvc.feeds.sources") / "types.sql").read_text()

# Types whose comparisons are leakproof, so that under row-level security an index scan can start
# at a value of theirs. Others are read from the beginning for each page.
_LEAKPROOF: Final = frozenset(
    {"bool", "int2", "int4", "int8", "oid", "text", "varchar", "bpchar"}
    | {"date", "timestamp", "timestamptz", "uuid"}
)


def candidate(query: FeedQuery, principal: Principal, copy_after: int = COPY_AFTER) -> Source:
    """The source, as far as it can be chosen without asking PostgreSQL.

    COPY takes over once a client has taken `copy_after` bytes.
    """
    forced = query.dataset.source
    if encoder.MISSING is not None or forced == "projection":
        return ProjectedCursor(query, principal)
    if forced == "copy" or (forced == "auto" and _is_paged(query)):
        if query.dataset.ranges > 1:
            return ParallelCopy(query, principal, query.dataset.ranges, copy_after)
        return CopyPages(query, principal, copy_after)
    return BinaryCursor(query, principal)


async def settled(
    source: Source,
    query: FeedQuery,
    principal: Principal,
    connection: Connection,
    position: Position | None,
) -> Source:
    """The source in this transaction.

    The cursor where PostgreSQL would sort for each page. PostgreSQL's own text of each value where
    a type was altered: the encoder does not know of it, and a cast would round.
    """
    if isinstance(source, ProjectedCursor):
        return source
    if not await _has_its_types(query, connection):
        return ProjectedCursor(query, principal)
    if isinstance(source, CopyPages | ParallelCopy) and query.dataset.source == "auto":
        return (
            source
            if await source.is_paged(connection, position)
            else BinaryCursor(query, principal)
        )
    return source


async def _has_its_types(query: FeedQuery, connection: Connection) -> bool:
    ordered = [part.column for part in query.order]
    columns = {column.name: column.type for column in (*query.columns, *ordered)}
    relation, names, types = query.dataset.relation, list(columns), list(columns.values())
    return bool(await connection.fetchval(_TYPES, relation, names, types))


def _is_paged(query: FeedQuery) -> bool:
    """Return whether an index should take a page up where the last one ended.

    Not in an order of both directions, for which no index has a place.
    """
    return (
        query.order in query.dataset.served
        and len({part.descending for part in query.order}) == 1
        and all(part.column.kind in _LEAKPROOF for part in query.order)
    )
