"""Cached pages, for requests that were answered before in the same words.

Most requests are for a few pages, in words that come again and again. What such words mean was
judged when they first came, the long way (`web/routes.py`); it is remembered here, with the lines
of the answer's head that don't change. So who has asked before is answered as soon as its request
is read: from memory without a task, in a sixth of the time; from Redis with one question for all
who ask at a time. A request that comes again byte by byte is not even parsed.

Nothing is left out for that: the token is verified, the page must be up to date, the request
counts, and everybody who observes requests hears of it. This way refuses nobody. Whatever is not
plainly the same as before goes the long way, and so does whatever would be refused.
"""

import asyncio
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDictProxy, istr

from feedsvc.cache.envelope import PageRequest
from feedsvc.cache.memory import CacheEntry, requests_share
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
from feedsvc.web.record import RECORD, request_id

_LONGEST_WORDS: Final = 2_048  # bytes; what is longer hardly comes again
_LONGEST_HEAD: Final = 4_096
# Bytes that Python needs for what is remembered, beside the text itself.
_A_MEANING: Final = 3_072
_A_HEAD: Final = 1_536
_COPIES: Final = 3  # of a head: as it came, as bytes of each field, and as text
_X_REQUEST_ID: Final = istr("X-Request-ID")
_TRACEPARENT: Final = istr("traceparent")
# What follows from the page, and what is made anew for each answer; all else of a head stays.
_OF_THE_PAGE: Final = frozenset({"content-length", "etag", "link"})
_OF_THE_ANSWER: Final = frozenset({
    "cache-status", "date", "feed-export", "ratelimit", "ratelimit-policy", "server-timing",
    "x-request-id",
})  # fmt: skip

CacheableTarget: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...]]
"""All of a request that decides what it asks for: its target, Accept and Accept-Encoding."""
Scope: TypeAlias = tuple[str, str, str]
CacheScope: TypeAlias = tuple[str, Mapping[str, str] | None]
"""Which database the cache is of, and which datasets it may not have."""
FinishedAnswer: TypeAlias = tuple[bytes, bytes]
"""Head and body."""


class _RememberedRequest(NamedTuple):
    """What words of one scope mean, for as long as the cache is as it was then.

    `lines` are those of the head that stay, by status.
    """

    words: CacheableTarget
    wanted: PageRequest
    form: PageForm
    cache: CacheScope
    route: str
    query: str | None
    lines: dict[int, bytes]


class RequestHead(NamedTuple):
    """What the head of a plain request says, as far as it matters here."""

    words: CacheableTarget
    authorization: str | None
    if_none_match: str | None
    request_id: str | None
    traceparent: str | None
    fields: CIMultiDictProxy[str]


class FastRequest(NamedTuple):
    """One request: when it began, what it says, who asks and what that means."""

    began: float
    said: RequestHead
    peer: str | None
    principal: Principal
    known: _RememberedRequest
    stages: dict[str, float]


class _Payload(NamedTuple):
    """What is sent: `size` is that of the rows before compression."""

    status: int
    body: bytes = b""
    rows: int = 0
    size: int = 0


_NOT_MODIFIED: Final = _Payload(304)
_GONE: Final = _Payload(499)  # nginx's number for a client that left


class PageAnswers:
    """Remembers what was answered the long way, and answers it when it is asked again."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._trusted = service.settings.server.trusted_proxies
        self._begun = service.settings.tracing.begun
        share = requests_share(service.settings.cache.memory_bytes) // 2
        self._known: BoundedMapping[tuple[CacheableTarget, Scope], _RememberedRequest] = (
            BoundedMapping(share)
        )
        self._heads: BoundedMapping[bytes, RequestHead] = BoundedMapping(share)

    def said_before(self, head: bytes) -> RequestHead | None:
        """What was learned of these bytes, which are all of a request."""
        return self._heads.get(head)

    def learn(self, head: bytes, said: RequestHead) -> None:
        """These bytes, which are all of a request, say this: they need not be parsed again."""
        if len(head) <= _LONGEST_HEAD:
            self._heads.put(head, said, _A_HEAD + _COPIES * len(head))

    def remember(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Takes note of an answer that has just left the long way."""
        repeatable = request.get(REPEATABLE)
        if (
            repeatable is None
            or response.status not in (200, 304)
            or not response.keep_alive
            or not _may_come(request)
        ):
            return
        known = request[RECORD]
        if known.principal is None:
            return
        words, (wanted, form) = _words(request.raw_path, request.headers), repeatable
        place = words, known.principal.scope
        before, cache = self._known.get(place), self._cache()
        if before is None or before.cache != cache:
            before = _RememberedRequest(words, wanted, form, cache, known.route, known.query, {})
            size = _A_MEANING + _COPIES * _size_of(words) + len(wanted.key)
            self._known.put(place, before, size)
        before.lines[response.status] = _staying(response)

    def ask(self, said: RequestHead, peer: str | None) -> FastRequest | None:
        """What a request asks for; None where it must go the long way."""
        began = time.perf_counter()
        if self._service.drain.begun:
            return None
        try:
            principal = self._service.tokens.verify(said.authorization)
        except Unauthorized:
            return None
        stages = {"auth": time.perf_counter() - began}
        known = self._known.get((said.words, principal.scope))
        if known is None or known.cache != self._cache():
            return None
        return FastRequest(began, said, peer, principal, known, stages)

    def at_once(self, asked: FastRequest) -> FinishedAnswer | None:
        """The answer from memory; None where the page is not there or may not be shown."""
        found = self._service.pages.at_hand(asked.known.wanted, quietly=True)
        return None if found is None else self._answered(asked, found)

    def may_be_in_redis(self, asked: FastRequest) -> bool:
        """Whether it is worth while to wait for `from_redis`."""
        return self._service.pages.shared_state == "answers" and bool(asked.known.lines)

    async def from_redis(self, asked: FastRequest) -> FinishedAnswer | None:
        """The answer from Redis; None as above."""
        try:
            async with self._service.drain.running(short=True):
                found = await self._service.pages.from_redis(asked.known.wanted)
        except asyncio.CancelledError:
            self._service.observers.tell(self._ended(asked, _GONE))
            raise
        return None if found is None else self._answered(asked, found)

    def _answered(self, asked: FastRequest, found: CacheHit) -> FinishedAnswer | None:
        """The answer, of which everybody then knows; None, and nobody does, where it can't be."""
        service, (_, said, _, principal, known, stages) = self._service, asked
        held, form, if_none_match = found.held, known.form, said.if_none_match
        tag = form.entity_tag(held)
        is_same = if_none_match is not None and headers.matches(if_none_match, tag)
        lines = known.lines.get(304 if is_same else 200)
        standing = None if lines is None else service.limits.admit_at_once(principal, "requests")
        if lines is None or standing is None:
            return None
        stages["cache"] = time.perf_counter() - asked.began - stages["auth"]
        made = _NOT_MODIFIED if is_same else _made(form, held)
        head = held.heads.get((known.words, made.status))
        if head is None:
            length = None if is_same else len(made.body)
            head = lines + _of_the_page(tag, form.link(held.page), length)
            held.heads[known.words, made.status] = head
            service.pages.remeasure(held)
        ended = self._ended(asked, made)
        service.pages.tell_hit(known.wanted, found)
        service.warmth.note(known.wanted, form.query.format.name, form.given, principal)
        service.observers.tell(ended)
        return head + _of_the_answer(found, ended, standing), made.body

    def _ended(self, asked: FastRequest, made: _Payload) -> RequestEnded:
        began, said, peer, principal, known, stages = asked
        seconds = time.perf_counter() - began
        return RequestEnded(
            at=time.time(),
            request_id=request_id(said.request_id),
            method="GET",
            route=known.route,
            guarded=True,
            status=made.status,
            result="cancelled" if made is _GONE else "complete",
            why=None,
            seconds=seconds,
            first_byte=None if made is _GONE else seconds,
            stages=stages,
            address=client_address(peer, said.fields, self._trusted),
            principal=principal,
            dataset=known.wanted.dataset.name,
            format=known.form.query.format.name,
            query=known.query,
            rows=made.rows,
            size=made.size,
            trace=trace_of(said.traceparent, self._begun),
        )

    def _cache(self) -> CacheScope:
        return self._service.pages.origin, self._service.pages.kept_out


def _made(form: PageForm, held: CacheEntry) -> _Payload:
    rendered = form.rendered(held)
    return _Payload(200, rendered.body, len(held.page.records), rendered.rows_size)


def _may_come(request: web.BaseRequest) -> bool:
    """Whether a request like this would be looked for here. A ticket does not come again."""
    return (
        request.method == "GET"
        and request.version == HttpVersion11
        and _size_of(_words(request.raw_path, request.headers)) <= _LONGEST_WORDS
        and "ticket=" not in request.raw_path
        and _asks_for_no_more(request.headers)
    )


def said_by(message: RawRequestMessage) -> RequestHead | None:
    """What a request without a body says; None where it must go the long way."""
    fields = message.headers
    if (
        message.method != "GET"
        or message.version != HttpVersion11
        or message.should_close
        or message.upgrade
        or not _asks_for_no_more(fields)
    ):
        return None
    return RequestHead(
        _words(message.path, fields),
        fields.get(hdrs.AUTHORIZATION),
        fields.get(hdrs.IF_NONE_MATCH),
        fields.get(_X_REQUEST_ID),
        fields.get(_TRACEPARENT),
        fields,
    )


def _asks_for_no_more(fields: CIMultiDictProxy[str]) -> bool:
    """Whether nothing in the head has a page made, or answered, in another way."""
    # Not a loop, for it runs for every request.
    return not (hdrs.CACHE_CONTROL in fields or hdrs.EXPECT in fields or hdrs.ORIGIN in fields)


def _words(path: str, fields: CIMultiDictProxy[str]) -> CacheableTarget:
    return (
        path,
        tuple(fields.getall(hdrs.ACCEPT, ())),
        tuple(fields.getall(hdrs.ACCEPT_ENCODING, ())),
    )


def _size_of(words: CacheableTarget) -> int:
    path, accept, coding = words
    return len(path) + sum(map(len, accept)) + sum(map(len, coding))


def _staying(response: web.StreamResponse) -> bytes:
    """The beginning of the head, with the lines that stay."""
    changing = _OF_THE_PAGE | _OF_THE_ANSWER
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{n}: {v}" for n, v in response.headers.items() if n.lower() not in changing]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _of_the_page(tag: str, link: str | None, length: int | None) -> bytes:
    lines = f"ETag: {tag}\r\n"
    lines += "" if link is None else f"Link: {link}\r\n"
    lines += "" if length is None else f"Content-Length: {length}\r\n"
    return lines.encode()


def _of_the_answer(found: CacheHit, ended: RequestEnded, standing: Mapping[str, str]) -> bytes:
    """The lines that are of this answer alone, and the head's end."""
    lines = (
        f"Date: {_date(int(ended.at))}\r\n"
        f"Feed-Export: {identifiers.new_uuid()}\r\n"
        f"Cache-Status: {headers.cache_status(found.status)}\r\n"
        f"Server-Timing: {server_timing(ended.stages)}\r\n"
        f"X-Request-ID: {ended.request_id}\r\n"
    )
    for name, value in standing.items():
        lines += f"{name}: {value}\r\n"
    return f"{lines}\r\n".encode()


@lru_cache(maxsize=2)
def _date(now: int) -> str:
    return formatdate(now, usegmt=True)
