"""Preparations for the first requests: connections, and the cache's hottest pages."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final

from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.warming import Recipe
from feedsvc.changes.log_reader import LogReader
from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.feeds.arrivals import FAULTS
from feedsvc.feeds.page_reader import read_page
from feedsvc.feeds.query import FeedQuery
from feedsvc.web.context import Service

_RETRY: Final = 0.25  # seconds
_FIRST: Final = 5.0  # seconds


async def connect(service: Service, changes: LogReader | None) -> None:
    """Connect to PostgreSQL, and read the change log, so that no first request waits for that.

    For five seconds at most, and with any outcome: the database may be gone since the first look.
    """
    with suppress(*FAULTS):
        async with asyncio.timeout(_FIRST):
            async with service.pools["read"].lease():
                pass  # it stays open
            if changes is not None:
                await changes.begun()


async def keep_warm(service: Service) -> None:
    """Warm the cache as soon as it may be used, then note its hottest pages until cancelled."""
    while not await service.pages.catch_up():  # noqa: ASYNC110 - no event is set when it may
        await asyncio.sleep(_RETRY)
    await service.warmth.run(partial(_warm, service))


async def _warm(service: Service, recipe: Recipe) -> None:
    """Read a page into the cache, where its reader may still read the dataset."""
    tenant, role, client = recipe["scope"]
    principal = Principal(tenant, role, client or None, 0.0)
    dataset = service.datasets[recipe["dataset"]]
    if not dataset.readable_by(role, principal.client):
        return
    query = FeedQuery.parse(recipe["given"], dataset)
    wanted = service.pages.wanted(query, principal, query.limit)
    if isinstance(wanted, PageRequest):
        bounds, pool = service.settings.streams, service.pools["read"]
        load = partial(read_page, query, principal, pool, bounds, Stages())
        await service.pages.fetch(wanted, load)
