"""A feed's answer: from the cache as far as it goes, and from PostgreSQL behind that."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from aiohttp import web

from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.memory import CacheEntry
from feedsvc.cache.pages import CacheHit, Load, Why
from feedsvc.core.principal import Principal
from feedsvc.core.problems import TokenExpired
from feedsvc.core.timing import Stages
from feedsvc.feeds.export import open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.page import Page
from feedsvc.feeds.page_collector import PageCollector
from feedsvc.feeds.page_reader import collect, page_of, page_options, read_page
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import choice
from feedsvc.feeds.sources.source import Batch
from feedsvc.web.context import SERVICE, STAGES, Service
from feedsvc.web.feeds.rendering import REPEATABLE, PageForm, Repeatable, rows_of
from feedsvc.web.feeds.stream import Delivery
from streams import tokens
from streams.formats import SSE
from streams.frames import Rows

_PAST_THE_CACHE: Final = frozenset({"no-cache", "no-store"})


async def answer_page(
    request: web.Request,
    principal: Principal,
    query: FeedQuery,
    delivery: Delivery,
    form: PageForm,
) -> web.StreamResponse:
    """At most a page of rows, as one answer of known length."""
    service = request.app[SERVICE]
    try:
        async with service.drain.running(short=True):
            held = await _held(request, principal, query, delivery, form)
            if held is not None:
                return delivery.page(held, form)
            return await _page_or_stream(request, principal, query, delivery, form)
    except Exception as error:  # noqa: BLE001 - what no list foresaw must not look like an end
        await delivery.break_off(error)


async def answer_stream(
    request: web.Request, principal: Principal, query: FeedQuery, delivery: Delivery
) -> web.StreamResponse:
    """Any number of rows, as they come."""
    service, settings = request.app[SERVICE], request.app[SERVICE].settings.streams
    try:
        async with (
            service.drain.running(short=False) as running,
            service.limits.stream(principal),
        ):
            if query.format is SSE:
                running.interrupt_at(service.tokens.seconds_left(principal), TokenExpired())
            wanted = _wanted(request, principal, query, None)
            page = await _first_page(service, wanted, delivery)
            request[STAGES].lap("cache")
            options = ExportOptions(
                settings.chunk_bytes,
                first_page=page,
                verify=partial(service.pages.proves, wanted)
                if isinstance(wanted, PageRequest)
                else None,
                on_first_page=_collector(service, wanted) if page is None else None,
                source_factory=partial(choice.candidate, copy_after=settings.copy_after),
                count_timeout=settings.count_timeout,
            )
            pool = service.pools[query.dataset.pool]
            export = open_export(query, principal, pool, options, request[STAGES])
            async with export as rows:
                return await delivery.stream(rows, _rows_of(page, query))
    except Exception as error:  # noqa: BLE001 - as above
        await delivery.break_off(error)


async def _held(
    request: web.Request,
    principal: Principal,
    query: FeedQuery,
    delivery: Delivery,
    form: PageForm,
) -> CacheEntry | None:
    """The page from the cache, or as it was read for it; None where the cache has no part in it."""
    service, stages = request.app[SERVICE], request[STAGES]
    wanted = _wanted(request, principal, query, query.limit)
    if not isinstance(wanted, PageRequest):
        delivery.cache_status = _bypass(wanted)
        return None
    load = _loader(service, query, principal, stages)
    found = service.pages.at_hand(wanted) or await service.pages.page(wanted, load)
    stages.lap("cache")
    match found:
        case CacheHit(held, status):
            delivery.cache_status = status
        case Page():
            delivery.cache_status = _bypass("deaf")
            held = CacheEntry(found)
        case None:
            delivery.cache_status = _bypass("large")
            return None
    if query.after is None:
        service.warmth.note(wanted, query.format.name, form.given, principal)
        if held.key is not None and not query.is_framed and query.export is None:
            request[REPEATABLE] = Repeatable(wanted, form)
    else:
        _read_ahead(service, principal, query, held.page)
    return held


def _loader(service: Service, query: FeedQuery, principal: Principal, stages: Stages) -> Load:
    bounds = service.settings.streams
    return partial(read_page, query, principal, service.pools["read"], bounds, stages)


def _read_ahead(service: Service, principal: Principal, query: FeedQuery, page: Page) -> None:
    """Whoever asks for a page behind another is likely to ask for the one behind that."""
    if not page.more or page.last is None or not service.settings.cache.prefetch:
        return
    following = replace(query, after=tokens.decode(page.last))
    wanted = service.pages.wanted(following, principal, query.limit)
    if isinstance(wanted, PageRequest):
        load = _loader(service, following, principal, Stages())
        service.prefetcher.consider(wanted, load)


async def _page_or_stream(
    request: web.Request,
    principal: Principal,
    query: FeedQuery,
    delivery: Delivery,
    form: PageForm,
) -> web.StreamResponse:
    """A page past the cache; one that turns out to be too large for that is streamed."""
    service, settings = request.app[SERVICE], request.app[SERVICE].settings.streams
    pool, stages = service.pools["read"], request[STAGES]
    async with open_export(query, principal, pool, page_options(settings), stages) as export:
        begun: list[Batch] = []
        if await collect(export, begun, settings.page_bytes):
            return delivery.page(CacheEntry(page_of(export, begun)), form)
        return await delivery.stream(export, iter(begun))


async def _first_page(
    service: Service, wanted: PageRequest | Why, delivery: Delivery
) -> Page | None:
    """What a stream can begin with."""
    if not isinstance(wanted, PageRequest):
        delivery.cache_status = _bypass(wanted)
        return None
    found = await service.pages.find(wanted)
    if isinstance(found, CacheHit):
        delivery.cache_status = found.status
        return found.held.page
    delivery.cache_status = _forwarded(found)
    return None


def _collector(service: Service, wanted: PageRequest | Why) -> PageCollector | None:
    if not isinstance(wanted, PageRequest):
        return None
    settings = service.settings.streams
    done = partial(service.pages.keep, wanted)
    return PageCollector(settings.page_size, settings.chunk_bytes, done)


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


def _bypass(why: Why) -> str:
    return "fwd=request" if why == "request" else f"fwd=bypass; detail={why}"


def _forwarded(why: Why) -> str:
    if why == "deaf":
        return _bypass(why)
    return "fwd=stale" if why in ("expired", "invalidated") else "fwd=uri-miss"
