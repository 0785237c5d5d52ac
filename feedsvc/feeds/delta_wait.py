"""A delta at the moment that its request asks for: at once, or when something has changed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple

from feedsvc.backends.postgres.pool import Pool
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Busy
from feedsvc.core.timing import Stages
from feedsvc.feeds.arrivals import Arrivals
from feedsvc.feeds.cursors import Cursors
from feedsvc.feeds.delta import Delta, open_delta
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.feed_log import FeedLog
from streams.deltas import ChangeBatch

SEEN_WITHIN: Final = 20.0
"""Seconds that a transaction is waited for where the request does not say."""


class Deltas(NamedTuple):
    """The parts that deltas are made with."""

    cursors: Cursors
    arrivals: Arrivals
    pool: Pool


class Begun(NamedTuple):
    """A delta, its first changes, None where there are none, and the cursor that it leads to."""

    delta: Delta
    first: ChangeBatch | None
    cursor: str


class Pings(NamedTuple):
    """Signs of life of a request that waits: one is sent each `interval` seconds."""

    interval: float
    send: Callable[[], Awaitable[None]]


@asynccontextmanager
async def awaited_delta(
    query: DeltaQuery,
    principal: Principal,
    deltas: Deltas,
    stages: Stages,
    pings: Pings | None = None,
) -> AsyncIterator[Begun]:
    """The delta that answers the request; while it waits no connection is held.

    Raises Problem: Reset, and Busy where the transaction that must be seen has not ended in time.
    """
    loop = asyncio.get_running_loop()
    within = query.wait or (SEEN_WITHIN if query.seen is not None else 0.0)
    deadline = loop.time() + within
    cursor = deltas.cursors.parse(query.since)
    while True:
        log = FeedLog(query, principal, cursor, deltas.cursors)
        async with open_delta(query, principal, deltas.pool, log, stages) as delta:
            sees = query.seen is None or delta.snapshot.sees(query.seen)
            is_over = loop.time() >= deadline or deltas.arrivals.is_leaving
            first = await delta.take() if sees else None
            if sees and (first is not None or is_over or not query.wait):
                if query.digest:
                    await delta.read_digest()
                yield Begun(delta, first, deltas.cursors.text(log.reached))
                return
            if is_over:
                what = "The transaction in `seen` has not ended, or is none of this database's."
                raise Busy(what, 1)
        if sees:
            cursor = log.reached  # what came between was nothing to this caller
        awaited = None if sees else query.seen
        waiting = partial(deltas.arrivals.wait, delta.snapshot, log.place, awaited)
        await _wait(waiting, deadline, pings)


async def _wait(
    waiting: Callable[[float], Awaitable[None]], deadline: float, pings: Pings | None
) -> None:
    """Wait, as `waiting` does for its seconds, until the deadline, and send pings meanwhile."""
    loop = asyncio.get_running_loop()
    while (left := deadline - loop.time()) > 0:
        pause = left if pings is None else min(left, pings.interval)
        end = loop.time() + pause
        await waiting(pause)
        if loop.time() < end:
            return
        if pings is not None and end < deadline:
            await pings.send()
