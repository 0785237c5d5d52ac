"""Cursors of one service: read from requests, and made of what a transaction reads."""

import logging
from collections.abc import Sequence
from typing import Final

from feedsvc.access.service_key import Seal
from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes.cursor import (
    Cursor,
    CursorTooLongError,
    ForeignCursorError,
    feed_digest,
    origin_digest,
    reader_digest,
    state_digest,
)
from feedsvc.core.principal import Principal
from feedsvc.core.problems import BadParameter, Busy, Reset
from feedsvc.feeds.feed_state import FeedStates, LoggedFeed
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.transaction import Moment

logger = logging.getLogger(__name__)

_LIFE: Final = "SELECT feedsvc.log_life()::text"


class Cursors:
    """Makes and reads cursors. `pool` may write: the epoch, where the database has a new life."""

    def __init__(self, seal: Seal, pool: Pool) -> None:
        self.feeds = FeedStates()
        """The feeds as cursors remember them."""
        self._seal = seal
        self._pool = pool

    def parse(self, text: str) -> Cursor:
        """The cursor of a request. Raises BadParameter, and Reset where another service made it."""
        try:
            return Cursor.decode(text, self._seal)
        except ForeignCursorError:
            raise Reset("epoch") from None
        except ValueError as error:
            raise BadParameter(f"since must be {error}.", parameter="since") from None

    def text(self, cursor: Cursor) -> str:
        """The cursor as clients keep it. Raises Busy where too many transactions run."""
        try:
            return cursor.encode(self._seal)
        except CursorTooLongError:
            raise Busy("Too many transactions are running for a cursor.", 5) from None

    async def epoch(self, feed: LoggedFeed, moment: Moment) -> int:
        """The epoch that the moment is of. Raises Problem."""
        origin, _, epoch = (feed.epoch or "").rpartition("/")
        if origin and moment.origin.startswith(f"{origin}/"):
            return _beginning(epoch)
        # The first look in this life of the database.
        async with write_transaction(self._pool) as connection:
            return _beginning(str(await connection.fetchval(_LIFE)))

    async def of(
        self, connection: Connection, moment: Moment, query: FeedQuery, principal: Principal
    ) -> str | None:
        """The cursor of a state in which a feed is read as a whole.

        None where its changes can't be followed. Raises Problem and what asyncpg raises.
        """
        return await self.of_several(connection, moment, (query,), principal)

    async def of_several(
        self,
        connection: Connection,
        moment: Moment,
        queries: Sequence[FeedQuery],
        principal: Principal,
    ) -> str | None:
        """The same of several feeds; None where the changes of one can't be followed."""
        if moment.origin.count("/") < 2:
            return None  # a standby's snapshot says nothing of transactions
        states, feed = {}, None
        for query in queries:
            feed = await self.feeds.read_tolerantly(connection, query.dataset)
            if feed is None or feed.rules.fault(query.dataset) is not None:
                return None
            states[feed_digest(query.dataset.name)] = feed.state(query)
        if feed is None:
            return None
        cursor = Cursor(
            snapshot=Snapshot.parse(moment.snapshot),
            origin=origin_digest(moment.origin),
            epoch=await self.epoch(feed, moment),
            reader=reader_digest(principal),
            policies=state_digest(feed.policies),
            feeds=states,
        )
        try:
            return cursor.encode(self._seal)
        except CursorTooLongError:
            logger.warning("an export has no cursor: too many transactions are running")
            return None


def _beginning(epoch: str) -> int:
    """The first 64 bits of a UUID."""
    return int(epoch.replace("-", "")[:16], 16)
