"""The two ways to answer a request for a feed: as a page, and as a stream."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from aiohttp import web

from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.loader import Load
from feedsvc.cache.memory import CacheEntry
from feedsvc.cache.status import CacheStatus, Lookup, Why, bypassed
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Reset, TokenExpired
from feedsvc.core.timing import Stages
from feedsvc.feeds.delta_query import DeltaQuery
from feedsvc.feeds.delta_wait import awaited_delta
from feedsvc.feeds.export import open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.page import Page
from feedsvc.feeds.page_collector import PageCollector
from feedsvc.feeds.page_reader import collect, page_of, page_options, read_page
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import choice
from feedsvc.feeds.sources.source import Batch
from feedsvc.web.context import SERVICE, STAGES, Service
from feedsvc.web.feeds.delta_response import DeltaResponse
from feedsvc.web.feeds.feed_response import FeedResponse
from feedsvc.web.feeds.live_response import LiveResponse
from feedsvc.web.feeds.rendering import REPEATABLE, PageForm, Repeatable, rows_of
from streams import tokens
from streams.formats import SSE
from streams.frames import Rows

_BY_CURSOR: Final = CacheStatus("bypass", "cursor")
_PAST_THE_CACHE: Final = frozenset({"no-cache", "no-store"})


async def answer_page(
    request: web.Request, principal: Principal, response: FeedResponse
) -> web.StreamResponse:
    """At most a page of rows, as one answer of known length."""
    async with response.breaking_off(), request.app[SERVICE].drain.running(short=True):
        entry, status = await _look_up(request, principal, response.form)
        if entry is not None:
            return response.page(entry, status)
        return await _page_or_stream(request, principal, response, status)


async def answer_stream(
    request: web.Request, principal: Principal, response: FeedResponse
) -> web.StreamResponse:
    """Any number of rows, as they come."""
    service, stages, query = request.app[SERVICE], request[STAGES], response.form.query
    async with (
        response.breaking_off(),
        service.drain.running(short=False) as running,
        service.limits.stream(principal),
    ):
        if query.format is SSE:
            running.interrupt_at(service.tokens.seconds_left(principal), TokenExpired())
        options, status = await _first_page(request, principal, query)
        stages.lap("cache")
        pool = service.pools[query.dataset.pool]
        async with open_export(query, principal, pool, options, stages) as export:
            return await response.stream(export, _rows_of(options.first_page, query), status)


async def answer_delta(
    request: web.Request, principal: Principal, query: DeltaQuery, response: DeltaResponse
) -> web.StreamResponse:
    """The changes since a cursor, once there are any or the time to wait is over."""
    service, stages = request.app[SERVICE], request[STAGES]
    async with (
        response.breaking_off(),
        service.drain.running(short=False) as running,
        service.limits.stream(principal),
    ):
        running.interrupt_at(service.tokens.seconds_left(principal), TokenExpired())
        try:
            async with awaited_delta(
                query, principal, service.deltas, stages, response.pings
            ) as begun:
                return await response.stream(begun)
        except Reset as problem:
            return await response.reset(problem)


async def answer_live(
    request: web.Request, principal: Principal, response: LiveResponse
) -> web.StreamResponse:
    """The state of feeds, then all that changes, until the client or the service ends it."""
    service = request.app[SERVICE]
    with service.subscribers.place():
        await service.subscribers.openings.next()
        async with (
            response.breaking_off(),
            service.drain.running(short=False) as running,
            service.limits.stream(principal),
        ):
            running.interrupt_at(service.tokens.seconds_left(principal), TokenExpired())
            return await response.stream()


async def _look_up(request: web.Request, principal: Principal, form: PageForm) -> Lookup:
    """The page from the cache, or as it was read for it; none where the cache has no part in it."""
    service, stages, query = request.app[SERVICE], request[STAGES], form.query
    wanted = _wanted(request, principal, query, query.limit)
    if not isinstance(wanted, PageRequest):
        return Lookup(None, bypassed(wanted))
    found = await service.pages.page(wanted, _loader(service, query, principal, stages))
    stages.lap("cache")
    if found.entry is None:
        return found
    if query.after is None:
        service.warmth.note(wanted, query.format.name, form.given, principal)
        if found.entry.key is not None and not query.is_framed and query.export is None:
            request[REPEATABLE] = Repeatable(wanted, form)
    else:
        _read_ahead(service, principal, query, found.entry.page)
    return found


def _loader(service: Service, query: FeedQuery, principal: Principal, stages: Stages) -> Load:
    bounds = service.settings.streams
    return partial(read_page, query, principal, service.pools["read"], bounds, stages)


def _read_ahead(service: Service, principal: Principal, query: FeedQuery, page: Page) -> None:
    """Read the page behind this one ahead, for a caller that is paging."""
    if not page.more or page.last is None or not service.settings.cache.prefetch:
        return
    following = replace(query, after=tokens.decode(page.last))
    wanted = service.pages.wanted(following, principal, query.limit)
    if isinstance(wanted, PageRequest):
        load = _loader(service, following, principal, Stages())
        service.prefetcher.consider(wanted, load)


async def _page_or_stream(
    request: web.Request, principal: Principal, response: FeedResponse, status: CacheStatus
) -> web.StreamResponse:
    """A page past the cache; one that turns out to be too large for that is streamed."""
    service, settings = request.app[SERVICE], request.app[SERVICE].settings.streams
    pool, stages = service.pools["read"], request[STAGES]
    query = response.form.query
    async with open_export(query, principal, pool, page_options(settings), stages) as export:
        begun: list[Batch] = []
        if await collect(export, begun, settings.page_bytes):
            return response.page(CacheEntry(page_of(export, begun)), status)
        return await response.stream(export, iter(begun), status)


async def _first_page(
    request: web.Request, principal: Principal, query: FeedQuery
) -> tuple[ExportOptions, CacheStatus]:
    """The page that a stream begins with, if the cache has one, else how it gets one."""
    service, settings = request.app[SERVICE], request.app[SERVICE].settings.streams
    options = ExportOptions(
        settings.chunk_bytes,
        source_factory=partial(choice.candidate, copy_after=settings.copy_after),
        count_timeout=settings.count_timeout,
    )
    if query.is_followed:
        cursors = service.deltas.cursors
        options = replace(options, cursor=partial(cursors.of, query=query, principal=principal))
    wanted = _wanted(request, principal, query, None)
    if not isinstance(wanted, PageRequest):
        return options, bypassed(wanted)
    if query.is_followed:
        # No row may be older than the cursor, and this says nothing of the cache.
        entry, status = None, _BY_CURSOR
    else:
        entry, status = await service.pages.find(wanted)
    if entry is None:
        keep = partial(service.pages.keep, wanted)
        collector = PageCollector(settings.page_size, settings.chunk_bytes, keep)
        return replace(options, on_first_page=collector), status
    verify = partial(service.pages.proves, wanted)
    return replace(options, first_page=entry.page, verify=verify), status


def _rows_of(page: Page | None, query: FeedQuery) -> Iterator[Rows]:
    if page is not None and page.last is not None:
        yield rows_of(page, query, page.last)


def _wanted(
    request: web.Request, principal: Principal, query: FeedQuery, limit: int | None
) -> PageRequest | Why:
    asked = request.headers.get("Cache-Control")
    if asked and not _PAST_THE_CACHE.isdisjoint(map(str.strip, asked.lower().split(","))):
        return "request"
    return request.app[SERVICE].pages.wanted(query, principal, limit)
