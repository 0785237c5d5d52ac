"""Redis under a deadline and behind a breaker: it may be asked, and never waited for."""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

from redis.exceptions import ClusterDownError, ResponseError

from feedsvc import settings
from feedsvc.backends.redis.connect import transport_factory
from feedsvc.backends.redis.deadline import Deadline
from feedsvc.backends.redis.transport import Command, Transport, settle
from feedsvc.core.events import Observers, RedisRefused, RedisTurned
from feedsvc.core.logs import Tally
from feedsvc.settings.redis_url import RedisAddress

logger = logging.getLogger(__name__)

LinkState: TypeAlias = Literal["answers", "refuses", "away"]

_FIRST_PAUSE: Final = 0.25  # seconds, doubled while Redis stays away
_LONGEST_PAUSE: Final = 5.0
_LEAST_PATIENCE: Final = 0.5  # seconds for a step of connecting, which no request waits for
_STEPS: Final = 4
_HELD_BACK: Final = 1.0  # seconds
_CLOSE_TIMEOUT: Final = 1.0

# How a server says that it keeps nothing just now: it is full, a replica, can't write to its disk,
# lacks replicas. What it has can be read all the same.
_KEEPS_NOTHING: Final = frozenset({"OOM", "READONLY", "MISCONF", "NOREPLICAS"})
# How it says that it is there, and of no use.
_OF_NO_USE: Final = frozenset({"BUSY"})
_CODE: Final = re.compile(r"[A-Z]{2,20}(?= )")


class RedisAwayError(Exception):
    """Redis did not answer, or not as it should. The caller goes on without it."""


class RedisRefusedError(RedisAwayError):
    """Redis answered that it will not, or did so a moment ago; it may be asked for else."""


class RedisLink:
    """A Redis or Valkey, whatever shape its URL gives it.

    The first questions that go unanswered are late by the deadline at most. From then on
    every question fails at once, until a task in the background has had an answer. A
    refusal is no absence: a Redis that keeps nothing just now is still read from, and what it
    should keep is held back for a second.
    """

    def __init__(self, url: str, given: settings.Redis, observers: Observers | None = None) -> None:
        """Begin to connect. Raises ValueError for what is no Redis's URL."""
        self.prefix = given.prefix
        self._observers = observers or Observers()
        self.refusals = 0
        """The number of commands answered with an error, or held back because of one."""
        self._patience = max(_LEAST_PATIENCE, 2 * given.timeout)
        self._make = transport_factory(RedisAddress.parse(url), given.connections, self._patience)
        self._deadline = Deadline(given.timeout, self._miss)
        self._is_closed = False
        self._way = self._make()
        self._returning: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE
        self._back_at = self._held_back_until = -float("inf")
        self._tallies: dict[str, Tally] = {}
        self._retried = asyncio.Event()

    @property
    def away(self) -> bool:
        """Return whether every question fails at once just now."""
        return self._returning is not None

    @property
    def keeps(self) -> bool:
        """Return whether it may be asked to keep something just now."""
        return self._returning is None and time.monotonic() >= self._held_back_until

    @property
    def state(self) -> LinkState:
        """The state: it answers, refuses to keep values, or is away."""
        return "away" if self.away else "answers" if self.keeps else "refuses"

    async def open(self) -> None:
        """Connect, so that the first command need not; a Redis that does not answer is away."""
        try:
            await self._arrive(self._way)
        except Exception as error:  # noqa: BLE001 - whatever it was, Redis is not there
            self._lose(self._way, error)

    async def ask(self, *command: str | bytes | int) -> Any:
        """The answer to a command: bytes, an integer, None or a list. Raises RedisAwayError."""
        if self._returning is not None:
            raise RedisAwayError
        way = self._way
        answer = way.send(command)
        self._deadline.watch(answer)
        try:
            return await answer
        except Exception as error:  # noqa: BLE001 - no answer is of use, whatever the reason
            raise self._judged(way, error) from None
        finally:
            self._deadline.forget(answer)

    async def write(self, *command: str | bytes | int) -> Any:
        """As `ask`, for a command that has Redis keep something. Raises RedisAwayError."""
        self._hold_back(1)
        return await self.ask(*command)

    async def write_all(self, commands: Sequence[Command]) -> list[Any]:
        """Each command's answer, or the RedisAwayError in its place. Raises RedisAwayError."""
        self._hold_back(len(commands))
        if self._returning is not None:
            raise RedisAwayError
        way = self._way
        answers = [way.send(command) for command in commands]
        for answer in answers:
            self._deadline.watch(answer)
        try:
            await asyncio.wait(answers)
        finally:
            for answer in answers:
                answer.cancel()
                self._deadline.forget(answer)
        outcomes = [answer.exception() or answer.result() for answer in answers]
        return [self._judged(way, o) if isinstance(o, Exception) else o for o in outcomes]

    async def ping(self) -> None:
        """Return if it answers. Raises RedisAwayError."""
        if self._returning is not None:
            raise RedisAwayError
        way = self._way
        try:
            await self._deadline.within(way.ping())
        except Exception as error:  # noqa: BLE001 - as above
            raise self._judged(way, error) from None

    def retry(self) -> None:
        """Ask it at once, where it is away, and not only after a pause."""
        self._pause = _FIRST_PAUSE
        self._retried.set()

    async def close(self) -> None:
        """Close every connection."""
        self._is_closed = True
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        self._deadline.close()
        await _closed(self._way)

    # What Redis says

    def _hold_back(self, count: int) -> None:
        """Raises RedisRefusedError where a moment ago Redis would keep nothing."""
        if time.monotonic() < self._held_back_until:
            self._count_refused(count)
            raise RedisRefusedError

    def _judged(self, way: Transport, error: Exception) -> RedisAwayError:
        """The meaning of an error for this command, and for the next ones."""
        if isinstance(error, RedisAwayError):
            return error
        code = _code(error)
        is_answer = isinstance(error, ResponseError) and not isinstance(error, ClusterDownError)
        if not is_answer or code in _OF_NO_USE:
            self._lose(way, error)
            return RedisAwayError()
        if code in _KEEPS_NOTHING:
            self._held_back_until = time.monotonic() + _HELD_BACK
        self._count_refused(1)
        hint = ": it is a cluster's, so write redis+cluster:// in redis.url" * (code == "MOVED")
        self._say(f"redis: refused ({code}, count %d){hint}")
        return RedisRefusedError(code)

    def _count_refused(self, count: int) -> None:
        self.refusals += count
        self._observers.publish(RedisRefused(count))

    def _say(self, line: str) -> None:
        self._tallies.setdefault(line, Tally(line)).add()

    # Away and back

    def _miss(self) -> None:
        self._lose(self._way, TimeoutError())

    def _lose(self, way: Transport, error: Exception) -> None:
        if self._is_closed or way is not self._way or self._returning is not None:
            return  # it is known, or of a way that was given up long ago
        reason = type(error.__cause__ or error).__name__
        self._say(f"redis: does not answer ({reason}, count %d); going on without")
        if time.monotonic() - self._back_at > _LONGEST_PAUSE:
            self._pause = _FIRST_PAUSE
        self._observers.publish(RedisTurned(answers=False))
        self._returning = asyncio.create_task(self._return(way))
        for answer in self._deadline.watched():
            settle(answer, RedisAwayError())

    async def _return(self, lost: Transport) -> None:
        """Ask now and then, on connections anew, until there is an answer."""
        await _closed(lost)
        while True:
            self._retried.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._retried.wait()
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            way = self._make()
            try:
                await self._arrive(way)
            except BaseException as error:
                await _closed(way)
                if not isinstance(error, Exception):
                    raise
                continue
            logger.info("redis: answers again")
            self._way, self._returning, self._back_at = way, None, time.monotonic()
            self._observers.publish(RedisTurned(answers=True))
            return

    async def _arrive(self, way: Transport) -> None:
        """Connect, which may take a while, and then require an answer in time."""
        async with asyncio.timeout(_STEPS * self._patience):
            await way.ping()
        await self._deadline.within(way.ping())


async def _closed(way: Transport) -> None:
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await way.close()
    except Exception as error:  # noqa: BLE001 - there is nothing left to be done about it
        logger.debug("redis: could not be closed: %s", type(error).__name__)


def _code(error: Exception) -> str:
    """The code at the start of a Redis error, which redis-py removes where it knows it."""
    known = getattr(error, "status_code", None)
    found = _CODE.match(str(error))
    return known or (found[0] if found else "ERR")
