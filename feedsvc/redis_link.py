"""Redis under a deadline and behind a breaker: it may be asked, and never waited for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from feedsvc import settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.25  # seconds, doubled while Redis stays away
_LONGEST_PAUSE: Final = 5.0
_CLOSE_TIMEOUT: Final = 0.5


class RedisAwayError(Exception):
    """Redis did not answer, or not as it should. Whoever asked goes on without it."""


class RedisLink:
    """One Redis or Valkey.

    The first questions that go unanswered are late by the deadline at most. From then on nobody
    waits: every question fails at once, until a task in the background has had an answer.
    """

    def __init__(self, url: str, given: settings.Redis) -> None:
        """Raises ValueError for what is no Redis URL."""
        self._timeout = given.timeout
        self.prefix = given.prefix
        # redis-py closes a connection whose command was cancelled, so that nobody reads the
        # answer to another's question. It does not retry: a late answer is of no use.
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url,
            max_connections=given.connections,
            timeout=given.timeout,
            socket_timeout=given.timeout,
            socket_connect_timeout=given.timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._client: Redis = Redis.from_pool(pool)
        self._returning: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE
        self._retried = asyncio.Event()

    @property
    def away(self) -> bool:
        """Whether every question fails at once just now."""
        return self._returning is not None

    async def ask(self, question: Callable[[Redis], Awaitable[T]]) -> T:
        """The answer to a question. Raises RedisAwayError."""
        if self._returning is not None:
            raise RedisAwayError
        try:
            async with asyncio.timeout(self._timeout):
                answer = await question(self._client)
        except (RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            raise RedisAwayError from error
        self._pause = _FIRST_PAUSE
        return answer

    def retry(self) -> None:
        """Has it asked at once, where it is away, and not only after a pause."""
        self._pause = _FIRST_PAUSE
        self._retried.set()

    async def close(self) -> None:
        """Closes every connection."""
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._client.aclose(close_connection_pool=True)
        except (RedisError, OSError, TimeoutError) as error:
            logger.info("redis: could not be closed: %s", type(error).__name__)

    def _lose(self, error: Exception) -> None:
        if self._returning is None:
            logger.warning("redis: does not answer (%s); going on without", type(error).__name__)
            self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        """Asks now and then until there is an answer."""
        while True:
            self._retried.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._retried.wait()
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            try:
                async with asyncio.timeout(self._timeout):
                    await self._client.ping()
            except (RedisError, OSError, TimeoutError):
                continue
            logger.info("redis: answers again")
            self._returning = None
            return
