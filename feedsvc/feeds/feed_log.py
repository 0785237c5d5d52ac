"""The change log as one request reads it: whether a cursor can be continued, which keys changed.

Everything is read in the snapshot of the request's own transaction, so the keys, the rows and the
rules that decide on them are of one state.
"""

import logging
from collections.abc import Container, Iterable, Sequence
from importlib.resources import files
from typing import Final, NamedTuple

import asyncpg

from feedsvc.backends.postgres.pool import Connection
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import (
    Cursor,
    FeedState,
    feed_digest,
    origin_digest,
    reader_digest,
    state_digest,
)
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter, Reset, ResetReason
from feedsvc.feeds.cursors import Cursors
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.feed_state import KnownFeeds, LoggedFeed
from feedsvc.feeds.key_set import KeySet
from feedsvc.feeds.sql import statement
from feedsvc.feeds.sql.former_rows import FormerRow, Sight
from feedsvc.feeds.sql.former_view_rows import DoubtError, FormerView
from feedsvc.feeds.sql.statement import Statement
from feedsvc.feeds.transaction import Moment
from feedsvc.feeds.view_rules import ViewRules
from streams import tokens

logger = logging.getLogger(__name__)

MOST_KEYS: Final = 100_000
"""Keys of one delta; of more a new export is read."""
MOST_ROWS: Final = 1_000_000
"""Rows of the log that are read for one delta, of whatever keys."""

_WRITTEN: Final = (files("feedsvc.feeds") / "keys_written.sql").read_text()
_FEW: Final = 1_000
"""Keys that are read without asking whether a new export would be smaller."""
_RESETS: Final[dict[str, ResetReason]] = {"t": "truncated", "o": "overflow", "w": "rights"}


class LoggedKey(NamedTuple):
    """A key that was written, and the former rows of it as far as the log has them, as JSON."""

    token: str
    former: Sequence[str]


class Place(NamedTuple):
    """The place in the log of what concerns a request: the feed's number, and its scopes."""

    feed: int
    scopes: Sequence[int]


class FeedLog:
    """The log of one feed, as one caller follows it from a cursor."""

    def __init__(
        self,
        query: DeltaQuery,
        principal: Principal,
        cursor: Cursor,
        cursors: Cursors,
        parameter: str = "since",
    ) -> None:
        """`parameter` is the one that asks for it, as a refusal names it."""
        self.known_feeds: KnownFeeds | None = None
        """The feeds that others have read in the same transaction."""
        self._parameter = parameter
        self._query = query
        self._principal = principal
        self._cursor = cursor
        self._cursors = cursors
        self._feed: LoggedFeed | None = None
        self._formerly: Container[str] = ()
        self.held: KeySet | None = None
        """The keys of the cursor's state, where they are known.

        With them a change of who sees which rows is none that ends the cursor.
        """
        self.present: KeySet | None = None
        """The keys of the state that was read, where it was compared with `held`."""
        self.is_exact = False
        """True where what leads to the state that was read was made with `held`.

        It is good from the cursor's state alone then, and from none behind it.
        """
        self.reached = cursor
        """The cursor of the state that was read, once `written` has read it."""

    @property
    def place(self) -> Place:
        """The place of the request in the log, once `written` has read it."""
        return Place(self._known.feed, self._known.scopes)

    @property
    def needs_keys(self) -> bool:
        """Return whether the log alone can't always say who saw what, once `written` has read it.

        So it is where other tables decide on the feed's rows, or former rows can't be decided on.
        """
        rules = self._known.rules
        return rules.depends_on_others(self._query.dataset) or rules.may_doubt

    async def keys(self, connection: Connection, most: int) -> KeySet | None:
        """The keys of all rows that the caller sees, None of more than `most`."""
        has_digests = isinstance(self._known.rules, ViewRules)
        wanted = statement.keys_of_rows(
            self._query.rows, self._principal, most + 1, has_digests=has_digests
        )
        rows = await connection.fetch(wanted.sql, *wanted.arguments)
        if len(rows) > most:
            return None
        width = len(self._query.dataset.key)
        digests = {
            tokens.encode(str(row[at]) for at in range(width)): row[width] if has_digests else 0
            for row in rows
        }
        return KeySet(digests, most, has_digests=has_digests)

    async def written(self, connection: Connection, moment: Moment) -> Sequence[LoggedKey]:
        """The keys that were written since the cursor, each once.

        Raises Reset, BadParameter where there can be no deltas, and what asyncpg raises.
        """
        dataset = self._query.dataset
        feed = self._feed = await self._read_feed(connection)
        snapshot = Snapshot.parse(moment.snapshot)
        state = feed.state(self._query.rows)
        self._refuse_another_life(moment, await self._cursors.epoch(feed, moment))
        self._refuse_what_has_changed(feed, state, snapshot)
        policies = state_digest(feed.policies)
        self.reached = self._cursor.moved(snapshot, policies, feed_digest(dataset.name), state)
        if self._cursor.snapshot == snapshot:
            return ()
        return await self._keys(connection, feed)

    async def were_visible(
        self, connection: Connection, keys: Sequence[LoggedKey]
    ) -> frozenset[int]:
        """The places of the keys of which the caller could see a former row. Raises Reset."""
        feed = self._known
        if self.present is not None:
            return frozenset(at for at, key in enumerate(keys) if key.token in self._formerly)
        if isinstance(feed.rules, ViewRules):
            return await self._were_visible_in_view(connection, feed.rules, keys)
        former = [
            FormerRow(place, tokens.decode(key.token), old)
            for place, key in enumerate(keys)
            for old in (key.former if feed.old_columns else ("[]",))
        ]
        if not former:
            return frozenset()
        if feed.rules.is_undecided:
            return self._held_of(keys, (row.place for row in former))
        rules, old = feed.rules, feed.old_columns
        sight = Sight(self._query.dataset, rules.name, rules.policy, old, rules.types)
        return await self._places(connection, sight.visible(former, self._principal))

    async def _were_visible_in_view(
        self, connection: Connection, rules: ViewRules, keys: Sequence[LoggedKey]
    ) -> frozenset[int]:
        rows = [
            FormerView(place, tokens.decode(key.token), key.former)
            for place, key in enumerate(keys)
        ]
        former = [row for row in rows if row.former]
        if not former:
            return frozenset()
        if rules.is_undecided:
            return self._held_of(keys, (row.place for row in former))
        sight = rules.sight(self._query.dataset)
        try:
            seen = await self._places(connection, sight.certain(rows, self._principal))
            rest = [row for row in rows if row.place not in seen]
            doubtful = await self._places(connection, sight.possible(rest, self._principal))
        except DoubtError as doubt:
            logger.info("%s: a former row can't be decided on: %s", self._query.dataset.name, doubt)
            return self._held_of(keys, (row.place for row in former))
        return seen | self._held_of(keys, doubtful) if doubtful else seen

    def _held_of(self, keys: Sequence[LoggedKey], doubtful: Iterable[int]) -> frozenset[int]:
        """The places whose keys the cursor's state had. Raises Reset where that is not known."""
        if self.held is None:
            raise Reset("rights")
        self.is_exact = True
        self._formerly = self._formerly or self.held.digests()
        return frozenset(place for place in doubtful if keys[place].token in self._formerly)

    async def _places(self, connection: Connection, wanted: Statement | None) -> frozenset[int]:
        """The places that the statement gives. Raises Reset where it can't be asked."""
        if wanted is None:
            return frozenset()
        dataset = self._query.dataset
        try:
            found = await connection.fetch(wanted.sql, *wanted.arguments)
        except (asyncpg.DataError, asyncpg.SyntaxOrAccessError) as error:
            logger.warning("%s: former rows can't be asked for: %s", dataset.name, error)
            self._cursors.feeds.forget(dataset)
            raise Reset("rights") from None
        return frozenset(row[0] for row in found)

    @property
    def _known(self) -> LoggedFeed:
        if self._feed is None:
            raise RuntimeError("the log was not read yet")
        return self._feed

    async def _read_feed(self, connection: Connection) -> LoggedFeed:
        dataset = self._query.dataset
        tenant = self._principal.tenant
        feed = await self._cursors.feeds.read(connection, dataset, tenant, self.known_feeds)
        why = "its changes are not logged: run `feedsvc migrate triggers`"
        if feed is not None:
            why = feed.rules.fault(dataset) or ""
            if not why:
                return feed
        asked = self._parameter
        raise BadParameter(f"{asked} is not offered for this feed: {why}.", parameter=asked)

    async def _keys(self, connection: Connection, feed: LoggedFeed) -> Sequence[LoggedKey]:
        since = str(self._cursor.snapshot)
        rows = await connection.fetch(
            _WRITTEN, feed.feed, feed.scopes, since, MOST_ROWS + 1, MOST_KEYS + 2
        )
        wide = rows[0]["ops"] if rows and rows[0]["key"] is None else ""
        for op, reason in _RESETS.items():
            if op in wide and (reason != "rights" or self.held is None):
                raise Reset(reason)
        if len(rows) > MOST_KEYS or sum(row["rows"] for row in rows) > MOST_ROWS:
            raise Reset("larger")
        if self.held is not None and "w" in wide:
            return await self._compared(connection, self.held, {row["key"] for row in rows[1:]})
        if len(rows) > _FEW:
            await self._refuse_more_than_there_are(connection, len(rows))
        return [LoggedKey(row["key"], row["former"] or ()) for row in rows]

    async def _compared(
        self, connection: Connection, held: KeySet, written: set[str]
    ) -> Sequence[LoggedKey]:
        """The keys that were written or are seen by others than before. Raises Reset."""
        present = self.present = await self.keys(connection, held.most)
        if present is None:
            raise Reset("rights")
        formerly, now = held.digests(), present.digests()
        changed = formerly.items() ^ now.items()
        self._formerly, self.is_exact = formerly, True
        return [LoggedKey(token, ()) for token in sorted(written | {token for token, _ in changed})]

    def _refuse_another_life(self, moment: Moment, epoch: int) -> None:
        cursor = self._cursor
        if cursor.origin != origin_digest(moment.origin) or cursor.epoch != epoch:
            raise Reset("epoch")
        if not Snapshot.parse(moment.snapshot).covers(cursor.snapshot):
            raise Reset("epoch")  # files that were copied at rest have come back in their place
        if cursor.reader != reader_digest(self._principal):
            raise Reset("rights")

    def _refuse_what_has_changed(
        self, feed: LoggedFeed, state: FeedState, present: Snapshot
    ) -> None:
        cursor = self._cursor
        kept = cursor.feeds.get(feed_digest(self._query.dataset.name))
        if kept is not None:
            if kept.query != state.query:
                raise Reset("query")
            if kept.schema != state.schema:
                raise Reset("schema")
            if kept.rights != state.rights:
                raise Reset("rights")
        elif cursor.policies != state_digest(feed.policies):
            raise Reset("rights")
        elif feed.rules.is_tree or feed.rules.is_newer_than(cursor.snapshot, present):
            # Which partitions there were is known of feeds that the cursor names alone.
            raise Reset("schema")
        if not cursor.snapshot.covers(Snapshot.parse(feed.since)):
            raise Reset("schema")
        if feed.floor is not None and not cursor.snapshot.covers(Snapshot.parse(feed.floor)):
            raise Reset("expired")

    async def _refuse_more_than_there_are(self, connection: Connection, keys: int) -> None:
        """Refuse to send half of the rows or more one by one. Raises Reset."""
        wanted = statement.counted(self._query.rows, self._principal, 2 * keys)
        rows = await connection.fetchval(wanted.sql, *wanted.arguments)
        if rows < 2 * keys:
            raise Reset("larger")
