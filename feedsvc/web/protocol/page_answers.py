"""Cached pages, for requests that were answered before in the same words.

Most requests are for a few pages, in words that come again and again. The application judges such
words when they first come (`web/routes.py`); their meaning is kept here, with the lines of the
response's head that stay the same. A request in known words is answered from memory without
router, middlewares and serialisation, and from Redis by one question for all that wait for it.

No rule is left out: the token is verified, the page must be up to date, the limits count the
request, and every observer receives it. Nothing is refused here: a request that is not plainly the
same as before, or that would be refused, goes to the application.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11
from multidict import istr

from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.items import FollowedFeed
from feedsvc.cache.memory import CacheEntry, ReadyAnswer, requests_share
from feedsvc.cache.pages import CacheHit
from feedsvc.core import identifiers
from feedsvc.core.bounded_mapping import BoundedMapping
from feedsvc.core.cause import trace_of
from feedsvc.core.events import RequestEnded
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Unauthorized
from feedsvc.core.timing import server_timing
from feedsvc.web import headers
from feedsvc.web.client_address import client_address
from feedsvc.web.context import Service
from feedsvc.web.feeds.rendering import REPEATABLE, PageForm
from feedsvc.web.protocol.finished_response import FinishedResponse
from feedsvc.web.record import RECORD, request_id

logger = logging.getLogger(__name__)

_LONGEST_WORDS: Final = 2_048  # bytes; what is longer hardly comes again
_A_MEANING: Final = 3_072  # bytes that Python needs for what is remembered, beside the text
_COPIES: Final = 3  # of the words: in the key, and in what is remembered
_X_REQUEST_ID: Final = istr("X-Request-ID")
_TRACEPARENT: Final = istr("traceparent")
# Lines that follow from the page, and lines of one response; all others of a head stay the same.
_OF_THE_PAGE: Final = frozenset({"content-length", "etag", "link"})
_OF_THE_RESPONSE: Final = frozenset({
    "cache-status", "date", "feed-export", "ratelimit", "ratelimit-policy", "server-timing",
    "x-request-id",
})  # fmt: skip

CacheableTarget: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...]]
"""The parts of a request that decide on its page: target, Accept and Accept-Encoding."""
Scope: TypeAlias = tuple[str, str, str]
CacheScope: TypeAlias = tuple[str, Mapping[str, str] | None, Mapping[str, FollowedFeed]]
"""The database of the cache, the datasets that it may not hold, and how all of them are logged."""
RequestHandler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _RememberedRequest(NamedTuple):
    """The meaning of words in one scope, valid while the cache is of the same `cache`.

    `lines` are the lines of the head that stay the same, by status.
    """

    words: CacheableTarget
    wanted: PageRequest
    form: PageForm
    cache: CacheScope
    route: str
    query: str | None
    lines: dict[int, bytes]


class FastRequest(NamedTuple):
    """One request in known words: its beginning (`time.perf_counter`), sender and meaning."""

    began: float
    request: web.BaseRequest
    principal: Principal
    known: _RememberedRequest
    stages: dict[str, float]


_NO_ANSWER: Final = ReadyAnswer(b"")
_GONE: Final = 499  # nginx's number for a client that left


class PageAnswers:
    """The meaning of words that the application has answered, and responses by it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._trusted = service.settings.server.trusted_proxies
        self._begun = service.settings.tracing.begun
        self._known: BoundedMapping[tuple[CacheableTarget, Scope], _RememberedRequest] = (
            BoundedMapping(requests_share(service.settings.cache.memory_bytes))
        )

    async def answer(self, request: web.BaseRequest) -> FinishedResponse | None:
        """The response from memory or Redis; None where the application must answer."""
        if not _is_writable(request.transport) or (asked := self.ask(request)) is None:
            return None
        response = self._from_memory(asked)
        if response is None and asked.known.lines:
            try:
                response = await self._behind_a_look(asked)
            except Exception:
                logger.exception("the lookup of a page failed unexpectedly")
        return response

    def may_remember(self, request: web.BaseRequest) -> bool:
        """Return whether the application's response to this request can be remembered."""
        # A ticket is good for one request.
        return REPEATABLE in request and _is_plain(request) and "ticket=" not in request.raw_path

    def remember(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Keep the meaning of a request, and the constant lines of its prepared response."""
        repeatable = request.get(REPEATABLE)
        if repeatable is None or response.status not in (200, 304) or not response.keep_alive:
            return
        record, words = request[RECORD], _words(request)
        if record.principal is None or _size_of(words) > _LONGEST_WORDS:
            return
        wanted, form = repeatable
        place, cache = (words, record.principal.scope), self._cache()
        before = self._known.get(place)
        if before is None or before.cache != cache:
            before = _RememberedRequest(words, wanted, form, cache, record.route, record.query, {})
            size = _A_MEANING + _COPIES * _size_of(words) + len(wanted.key)
            self._known.put(place, before, size)
        before.lines[response.status] = _constant_lines(response)

    def ask(self, request: web.BaseRequest) -> FastRequest | None:
        """The meaning of a request; None where the application must answer it."""
        began, service = time.perf_counter(), self._service
        if service.drain.begun or not _is_plain(request):
            return None
        try:
            principal = service.tokens.verify(request.headers.get(hdrs.AUTHORIZATION))
        except Unauthorized:
            return None
        stages = {"auth": time.perf_counter() - began}
        known = self._known.get((_words(request), principal.scope))
        if known is None or known.cache != self._cache():
            return None
        return FastRequest(began, request, principal, known, stages)

    def _from_memory(self, asked: FastRequest) -> FinishedResponse | None:
        """The response from memory; None where the page is absent or may not be shown."""
        found = self._service.pages.at_hand(asked.known.wanted, quietly=True)
        return None if found is None else self._response(asked, found)

    async def _behind_a_look(self, asked: FastRequest) -> FinishedResponse | None:
        """The response from memory behind a look at the change log, or from Redis."""
        try:
            async with self._service.drain.running(short=True):
                found = await self._service.pages.quickly(asked.known.wanted)
        except asyncio.CancelledError:
            self._service.observers.publish(self._ended(asked, _GONE, _NO_ANSWER))
            raise
        return None if found is None else self._response(asked, found)

    def _response(self, asked: FastRequest, found: CacheHit) -> FinishedResponse | None:
        """The response, of which all observers are notified; None where there can't be one."""
        service, (began, request, principal, known, stages) = self._service, asked
        held, form, wanted = found.held, known.form, known.wanted
        if_none_match, status = request.headers.get(hdrs.IF_NONE_MATCH), 200
        if if_none_match is not None and headers.matches(if_none_match, form.entity_tag(held)):
            status = 304
        if status not in known.lines:
            return None
        standing = service.limits.admit_at_once(principal, "requests")
        if standing is None:
            return None
        stages["cache"] = time.perf_counter() - began - stages["auth"]
        ready = held.answers.get((known.words, status))
        if ready is None:
            ready = held.answers[known.words, status] = _ready(known, held, status)
            service.pages.remeasure(held)
        ended = self._ended(asked, status, ready)
        service.pages.publish_hit(wanted, found)
        service.warmth.note(wanted, form.query.format.name, form.given, principal)
        service.observers.publish(ended)
        rest = _of_the_response(found, ended, standing)
        return FinishedResponse(status, b"".join((ready.lines, rest, ready.body)))

    def _ended(self, asked: FastRequest, status: int, ready: ReadyAnswer) -> RequestEnded:
        began, request, principal, known, stages = asked
        fields = request.headers
        seconds = time.perf_counter() - began
        return RequestEnded(
            at=time.time(),
            request_id=request_id(fields.get(_X_REQUEST_ID)),
            method="GET",
            route=known.route,
            guarded=True,
            status=status,
            result="cancelled" if status == _GONE else "complete",
            why=None,
            seconds=seconds,
            first_byte=None if status == _GONE else seconds,
            stages=stages,
            address=client_address(request.remote, fields, self._trusted),
            principal=principal,
            dataset=known.wanted.dataset.name,
            format=known.form.query.format.name,
            query=known.query,
            rows=ready.rows,
            size=ready.rows_size,
            trace=trace_of(fields.get(_TRACEPARENT), self._begun),
        )

    def _cache(self) -> CacheScope:
        coverage = self._service.pages.coverage
        return coverage.origin, coverage.kept_out, coverage.feeds


async def answer_first(
    answers: PageAnswers, handler: RequestHandler, request: web.BaseRequest
) -> web.StreamResponse:
    """The response of `answers` if there is one, else that of the application's `handler`.

    A response that can be remembered is prepared here, which completes its head, so that the head
    is known; aiohttp sends it afterwards.
    """
    found = await answers.answer(request)
    if found is not None:
        return found
    response = await handler(request)
    if answers.may_remember(request):
        await response.prepare(request)
        answers.remember(request, response)
    return response


def _ready(known: _RememberedRequest, held: CacheEntry, status: int) -> ReadyAnswer:
    """The answer with one of the statuses that `known.lines` has."""
    form, page, lines = known.form, held.page, known.lines[status]
    tag, link = form.entity_tag(held), form.link(page)
    if status == 304:
        return ReadyAnswer(lines + _of_the_page(tag, link, None))
    body, rows_size = form.rendered(held)
    return ReadyAnswer(
        lines + _of_the_page(tag, link, len(body)), body, len(page.records), rows_size
    )


def _is_plain(request: web.BaseRequest) -> bool:
    """Return whether nothing in a request makes its page, or the response, another one.

    Behind an upgrade or a body the connection may have to end.
    """
    fields = request.headers
    # Not a loop, for it runs for every request.
    return (
        request.method == "GET"
        and request.version == HttpVersion11
        and request.keep_alive
        and not request.can_read_body
        and not (
            hdrs.CACHE_CONTROL in fields
            or hdrs.EXPECT in fields
            or hdrs.ORIGIN in fields
            or hdrs.UPGRADE in fields
        )
    )


def _is_writable(transport: asyncio.Transport | None) -> bool:
    """Return whether bytes that are written now leave at once."""
    return (
        transport is not None
        and not transport.is_closing()
        and not transport.get_write_buffer_size()
    )


def _words(request: web.BaseRequest) -> CacheableTarget:
    fields = request.headers
    return (
        request.raw_path,
        tuple(fields.getall(hdrs.ACCEPT, ())),
        tuple(fields.getall(hdrs.ACCEPT_ENCODING, ())),
    )


def _size_of(words: CacheableTarget) -> int:
    path, accept, coding = words
    return len(path) + sum(map(len, accept)) + sum(map(len, coding))


def _constant_lines(response: web.StreamResponse) -> bytes:
    """The beginning of the head, with the lines that stay the same."""
    changing = _OF_THE_PAGE | _OF_THE_RESPONSE
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{n}: {v}" for n, v in response.headers.items() if n.lower() not in changing]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _of_the_page(tag: str, link: str | None, length: int | None) -> bytes:
    lines = f"ETag: {tag}\r\n"
    lines += "" if link is None else f"Link: {link}\r\n"
    lines += "" if length is None else f"Content-Length: {length}\r\n"
    return lines.encode()


def _of_the_response(found: CacheHit, ended: RequestEnded, standing: Mapping[str, str]) -> bytes:
    """The lines of this response alone, and the head's end."""
    lines = [
        f"Date: {_date(int(ended.at))}\r\n"
        f"Feed-Export: {identifiers.new_uuid()}\r\n"
        f"Cache-Status: {headers.cache_status(found.status)}\r\n"
        f"Server-Timing: {server_timing(ended.stages)}\r\n"
        f"X-Request-ID: {ended.request_id}\r\n",
        *[f"{name}: {value}\r\n" for name, value in standing.items()],
        "\r\n",
    ]
    return "".join(lines).encode()


@lru_cache(maxsize=2)
def _date(now: int) -> str:
    return formatdate(now, usegmt=True)
