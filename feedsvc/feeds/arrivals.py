"""Arrivals in the log: one question a tick for all of a worker that wait for it.

For a request that waits an answer is a reason to look, and no more: the request itself reads what
has changed, in a snapshot of its own.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeAlias

import asyncpg

from feedsvc.backends.postgres.pool import Pool
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.core.logs import redacted
from feedsvc.core.problems import Busy, Problem
from feedsvc.feeds.feed_log import Place

logger = logging.getLogger(__name__)

LEAST_INTERVAL: Final = 0.02
"""Seconds between two questions at least, whatever `changes.interval` says."""
FAULTS: Final = (
    Problem,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that is lost while it is made
)
"""Errors of a question where the log can't be read."""
_DEADLINE: Final = 5.0  # seconds of one question
_ARRIVALS: Final = (files("feedsvc.feeds") / "arrivals.sql").read_text()

FeedAndScope: TypeAlias = tuple[int, int]


class Arrived(NamedTuple):
    """The answer: the transactions by the places that they have written to, up to `snapshot`.

    `life` names the epoch, None before the first look in it; `floor` is how far back the log
    reaches; `asked_at` is the time of the question (Unix).
    """

    snapshot: Snapshot
    written: Mapping[FeedAndScope, Sequence[int]]
    life: str | None
    floor: str | None
    asked_at: float

    def concerns(self, place: Place, since: Snapshot) -> bool:
        """Return whether a transaction that this snapshot does not see wrote to the place."""
        return any(
            not since.sees(xid)
            for scope in place.scopes
            for xid in self.written.get((place.feed, scope), ())
        )


@dataclass(slots=True, eq=False)
class _Waiting:
    """A wait for the answer that `is_due`, about these feeds.

    One that `stays` goes on while the process is leaving, as live answers do.
    """

    snapshot: Snapshot
    feeds: Sequence[int]
    pause: float
    is_due: Callable[["_Waiting", Arrived], bool]
    stays: bool
    answer: "asyncio.Future[Arrived]"

    def settle(self, answer: Arrived) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def leave(self) -> None:
        self.answer.cancel()

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Arrivals:
    """Waits for changes in the log, on behalf of requests that hold no connection meanwhile."""

    def __init__(self, pool: Pool, interval: float, is_leaving: Callable[[], bool]) -> None:
        """`interval`: seconds between two questions. `is_leaving`: whether to wait no longer."""
        self.interval = max(interval, LEAST_INTERVAL)
        """Seconds between two questions, while a request waits."""
        self._pool = pool
        self._is_leaving = is_leaving
        self._waiters: set[_Waiting] = set()
        self._asking: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._pause = self.interval
        self._asked = -math.inf  # the loop's time of the last question

    @property
    def is_leaving(self) -> bool:
        """Return whether this process is going to stop, so that requests get an answer at once."""
        return self._is_leaving()

    async def wait(
        self, snapshot: Snapshot, place: Place, seen: int | None, timeout: float
    ) -> None:
        """Wait until the place may have changed since the snapshot, for up to `timeout` seconds.

        With `seen` until a snapshot sees this transaction instead.
        """

        def is_due(waiting: _Waiting, answer: Arrived) -> bool:
            if seen is not None:
                return answer.snapshot.sees(seen)
            return answer.concerns(place, waiting.snapshot)

        waiter = self._add(snapshot, [place.feed], self.interval, is_due, stays=False)
        try:
            await asyncio.wait({waiter.answer}, timeout=max(timeout, 0.0))
        finally:
            self._remove(waiter)

    async def next(self, since: Snapshot, feeds: Sequence[int], pause: float) -> Arrived:
        """The answer of the next question, about `pause` seconds from now at most.

        Raises one of `FAULTS`.
        """
        waiter = self._add(since, feeds, pause, lambda *_: True, stays=True)
        try:
            return await waiter.answer
        finally:
            self._remove(waiter)

    def hasten(self, pause: float) -> None:
        """Ask now, unless the pause is no longer than this (in seconds)."""
        if pause < self._pause:
            self._hurry.set()

    def hurry(self) -> None:
        """Ask now, however long the pause would still be."""
        self._hurry.set()

    async def close(self) -> None:
        """Ask no more."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        for waiter in list(self._waiters):
            waiter.leave()

    def _add(
        self,
        snapshot: Snapshot,
        feeds: Sequence[int],
        pause: float,
        is_due: Callable[[_Waiting, Arrived], bool],
        *,
        stays: bool,
    ) -> _Waiting:
        answer: asyncio.Future[Arrived] = asyncio.get_running_loop().create_future()
        waiter = _Waiting(snapshot, feeds, pause, is_due, stays, answer)
        self._waiters.add(waiter)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_while_needed())
        elif pause < self._pause:
            self._hurry.set()  # and then in its own pace
        return waiter

    def _remove(self, waiter: _Waiting) -> None:
        self._waiters.discard(waiter)
        if waiter.answer.done() and not waiter.answer.cancelled():
            waiter.answer.exception()  # retrieved, or asyncio would log it

    async def _ask_while_needed(self) -> None:
        while self._waiters:
            await self._rest()
            waiters = self._that_stay() if self._is_leaving() else list(self._waiters)
            try:
                if waiters:
                    await self._ask(waiters)
            except Busy:
                continue  # requests that have work to do come first
            except FAULTS as error:
                # They meet the fault themselves, and say what it is.
                logger.warning("the change log can't be asked: %s", redacted(error))
                self._fail(waiters, error)
            except Exception as error:
                logger.exception("the change log can't be asked")
                self._fail(waiters, error)  # for others come, and would wait in vain
        self._asking = None

    @staticmethod
    def _fail(waiters: Sequence[_Waiting], error: Exception) -> None:
        for waiter in waiters:
            waiter.fail(error)

    async def _rest(self) -> None:
        """Wait for what is left of the pause since the last question, unless one hurries."""
        self._pause = min((waiter.pause for waiter in self._waiters), default=self.interval)
        try:
            async with asyncio.timeout_at(self._asked + self._pause):
                await self._hurry.wait()
        except TimeoutError:
            return
        self._hurry.clear()
        await asyncio.sleep(0)  # for those that come together

    async def _ask(self, waiters: Sequence[_Waiting]) -> None:
        """One question: what has changed since the oldest of the waiters' snapshots.

        They have the answer before the connection is given back, which is a message more.
        """
        oldest = min((waiter.snapshot for waiter in waiters), key=age)
        feeds = list({feed for waiter in waiters for feed in waiter.feeds})
        asked_at, self._asked = time.time(), asyncio.get_running_loop().time()
        async with self._pool.lease() as connection:
            row = await connection.fetchrow(_ARRIVALS, str(oldest), feeds, timeout=_DEADLINE)
            self._answer(waiters, _arrived(row, asked_at))

    @staticmethod
    def _answer(waiters: Sequence[_Waiting], answer: Arrived) -> None:
        for waiter in waiters:
            if waiter.is_due(waiter, answer):
                waiter.settle(answer)
            waiter.snapshot = answer.snapshot

    def _that_stay(self) -> list[_Waiting]:
        """The live answers; requests that wait for a change are answered at once."""
        for waiter in self._waiters:
            if not waiter.stays:
                waiter.leave()
        return [waiter for waiter in self._waiters if waiter.stays]


def _arrived(row: Any, asked_at: float) -> Arrived:
    written: dict[FeedAndScope, list[int]] = {}
    for text in row["written"]:
        feed, scope, xid = text[1:-1].split(",")
        written.setdefault((int(feed), int(scope)), []).append(int(xid))
    snapshot = Snapshot.parse(row["snapshot"])
    return Arrived(snapshot, written, row["life"], row["floor"], asked_at)


def age(snapshot: Snapshot) -> tuple[int, int, int]:
    """The number that grows from one snapshot of a primary to the next."""
    return snapshot.xmax, snapshot.xmin, -len(snapshot.running)
