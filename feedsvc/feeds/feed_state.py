"""The way a feed is logged, and the rules for its rows, as one transaction reads them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Final, NamedTuple, TypeAlias

import asyncpg

from feedsvc.backends.postgres.pool import AnyConnection
from feedsvc.changes.cursor import FeedState, state_digest
from feedsvc.core.bounded_mapping import BoundedMapping
from feedsvc.datasets.dataset import Dataset
from feedsvc.feeds.feed_rules import ASK_THE_TIME, FeedRules
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.view_rules import ViewRules

_STATE: Final = (files("feedsvc.feeds") / "feed_state.sql").read_text()
_RULES: Final = (files("feedsvc.feeds") / "feed_rules.sql").read_text()
_VIEW_RULES: Final = (files("feedsvc.feeds") / "view_rules.sql").read_text()
_NONE_KNOWN: Final[Sequence[int]] = ()
_MOST_SCOPES: Final = 20_000


@dataclass(frozen=True, slots=True)
class LoggedFeed:
    """A feed in the log: its number, the scopes that a caller reads, and the rules.

    `everyone` is the scope of what each caller may see, of which the others are made.
    `since` and `floor` are snapshots that a cursor must cover, `policies` are all of the database,
    `epoch` is a life of the database behind its origin, None before the first look in it.
    """

    feed: int
    everyone: int | None
    scopes: Sequence[int]
    old_columns: Sequence[str]
    since: str
    floor: str | None
    epoch: str | None
    policies: str
    rules: FeedRules | ViewRules

    def state(self, query: FeedQuery) -> FeedState:
        """The state of the feed that a cursor remembers."""
        dataset = query.dataset
        columns = [column.name for column in query.columns]
        filters = sorted((f.column.name, f.op, f.values) for f in query.filters)
        held_to = (dataset.client and dataset.client.name, dataset.shared_with_clients)
        return FeedState(
            query=state_digest(repr((columns, filters))),
            rights=state_digest(self.rules.rights, repr(held_to)),
            schema=state_digest(self.rules.schema, str(self.feed)),
        )


KnownFeeds: TypeAlias = dict[str, LoggedFeed]
"""The feeds that one transaction has read, by the dataset; their scopes are one caller's."""


class _Remembered(NamedTuple):
    mark: str
    rules: FeedRules | ViewRules


class _Reader(NamedTuple):
    """The readers of a feed whose scopes are the same."""

    dataset: str
    everyone: int | None
    tenant: str | None


class FeedStates:
    """Reads feeds; rules are remembered as long as the catalog's rows behind them are the same.

    To find them out takes PostgreSQL ten times as long as to see that they are.
    """

    def __init__(self) -> None:
        self._remembered: dict[str, _Remembered] = {}
        self._scopes: BoundedMapping[_Reader, Sequence[int]] = BoundedMapping(_MOST_SCOPES)

    async def read(
        self,
        connection: AnyConnection,
        dataset: Dataset,
        tenant: str | None = None,
        known: KnownFeeds | None = None,
    ) -> LoggedFeed | None:
        """The feed of a dataset as a caller of this tenant reads it, None where it is not logged.

        Without a tenant its scopes are those of all readers. `known` has what was read before in
        the same transaction and snapshot, which is not asked for again: many callers in one
        transaction cost one question. Raises what asyncpg raises.
        """
        text = None
        if dataset.tenant is not None and tenant is not None:
            text = dataset.tenant.canonical(tenant)
        if known is None:
            return await self._read(connection, dataset, text)
        feed = known.get(dataset.name)
        if feed is not None:
            scopes = self._scopes.get(_Reader(dataset.name, feed.everyone, text))
            if scopes is not None:
                return replace(feed, scopes=scopes)
        feed = await self._read(connection, dataset, text)
        if feed is not None:
            known[dataset.name] = feed
            self._scopes.put(_Reader(dataset.name, feed.everyone, text), feed.scopes, 1)
        return feed

    async def _read(
        self, connection: AnyConnection, dataset: Dataset, text: str | None
    ) -> LoggedFeed | None:
        known = self._remembered.get(dataset.name)
        called = _NONE_KNOWN if known is None else known.rules.called
        behind = known.rules.behind if known and isinstance(known.rules, ViewRules) else _NONE_KNOWN
        row = await connection.fetchrow(
            _STATE, dataset.name, dataset.relation, text, called, behind
        )
        if row is None:
            return None
        given = dict(row)
        is_view = given.pop("kind") == "v"
        mark, called_by = given.pop("mark"), given.pop("called")
        if known is not None and (known.mark, known.rules.called_by) == (mark, called_by):
            return LoggedFeed(**given, rules=known.rules)
        rules = await (_view_rules if is_view else _rules)(connection, dataset, row["old_columns"])
        if rules is None:
            return None
        if mark is not None:
            self._remembered[dataset.name] = _Remembered(mark, rules)
        return LoggedFeed(**given, rules=rules)

    async def read_tolerantly(
        self, connection: AnyConnection, dataset: Dataset
    ) -> LoggedFeed | None:
        """The same, but None where there is no log at all; a transaction around it goes on."""
        try:
            async with _savepoint(connection):
                return await self.read(connection, dataset)
        except (
            asyncpg.UndefinedTableError,
            asyncpg.InvalidSchemaNameError,
            asyncpg.InsufficientPrivilegeError,
            asyncpg.UndefinedColumnError,
        ):
            return None

    def forget(self, dataset: Dataset) -> None:
        """Read the rules anew, for they name what is no longer called so."""
        self._remembered.pop(dataset.name, None)


async def _rules(
    connection: AnyConnection, dataset: Dataset, old_columns: Sequence[str]
) -> FeedRules | None:
    names = [column.name for column in (*dataset.key, dataset.tenant) if column is not None]
    known = [*old_columns, *names]
    found = await connection.fetchrow(_RULES, dataset.relation, known, ASK_THE_TIME)
    return None if found is None else FeedRules(**dict(found))


async def _view_rules(
    connection: AnyConnection, dataset: Dataset, old_columns: Sequence[str]
) -> ViewRules | None:
    found = await connection.fetchrow(_VIEW_RULES, dataset.relation, ASK_THE_TIME)
    return None if found is None else ViewRules(**dict(found), logged=old_columns)


@asynccontextmanager
async def _savepoint(connection: AnyConnection) -> AsyncIterator[None]:
    """Undo the block where it fails, and leave no savepoint behind: no snapshot can be exported
    from within one, as parallel readers need it.
    """
    if not connection.is_in_transaction():
        yield
        return
    await connection.execute("SAVEPOINT feedsvc_state")
    try:
        yield
    except asyncpg.PostgresError:
        await connection.execute("ROLLBACK TO SAVEPOINT feedsvc_state")
        await connection.execute("RELEASE SAVEPOINT feedsvc_state")
        raise
    await connection.execute("RELEASE SAVEPOINT feedsvc_state")
