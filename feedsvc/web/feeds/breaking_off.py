"""The end of an answer that fails: with its reason where the format can show it, and visibly."""

import logging
from collections.abc import Callable
from typing import NoReturn, Protocol

from aiohttp import web
from aiohttp.http import HttpVersion11

from feedsvc.backends.postgres.faults import problem_of
from feedsvc.core.drain import retry_ms
from feedsvc.core.problems import Draining, UpgradeRequired
from feedsvc.web.context import REQUEST_ID
from feedsvc.web.feeds.body import Body
from feedsvc.web.problems import BrokenOffError
from feedsvc.web.record import RECORD
from streams.formats import Pieces
from streams.frames import Failure

logger = logging.getLogger(__name__)


class Breakable(Protocol):
    """An answer that can be broken off."""

    async def break_off(self, error: Exception) -> NoReturn:
        """Send the reason where the format can, and end the connection without the final chunk.

        Raises BrokenOffError; before the head has left it raises the error itself, which becomes
        a real 4xx or 5xx.
        """
        ...


class BreakingOff:
    """The context of an answer in which an unforeseen error must not look like an end."""

    def __init__(self, answer: Breakable) -> None:
        self._answer = answer

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            await self._answer.break_off(error)


async def break_off(
    request: web.Request, body: Body | None, error: Exception, last_words: Callable[[], Pieces]
) -> NoReturn:
    """See `Breakable.break_off`; `body` is None before the head has left."""
    if body is None:
        raise error
    if isinstance(error, ConnectionResetError):
        logger.info("%s: the client is gone: %s", request[REQUEST_ID], error)
        body.cut()
    else:
        logger.warning("%s: broken off", request[REQUEST_ID], exc_info=error)
        await body.break_off(last_words())
    raise BrokenOffError("broken off") from error


def failure(request: web.Request, error: Exception, after: str | None) -> Failure:
    """The frame with the error, and the position from which to go on."""
    problem = problem_of(error)
    request[RECORD].problem = problem
    body = problem.body(request.path, request[REQUEST_ID])
    return Failure(body, after, retry_ms() if isinstance(problem, Draining) else None)


def refuse_what_cannot_show_its_end(request: web.Request) -> None:
    """An HTTP/1.0 body ends with its connection, so a cut one looks whole (RFC 9112, section 8).

    Raises UpgradeRequired.
    """
    if request.version < HttpVersion11:
        raise UpgradeRequired(
            "A stream needs HTTP/1.1; a page, with `limit=`, does not. nginx asks with HTTP/1.0"
            " unless it has `proxy_http_version 1.1`.",
            headers={"Upgrade": "HTTP/1.1", "Connection": "Upgrade"},
        )
