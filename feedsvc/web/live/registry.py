"""All subscribers of a worker: their admission, their times, and their ends."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from feedsvc.core.broadcast import FanOut
from feedsvc.core.drain import Drain
from feedsvc.core.events import (
    LiveBehind,
    LiveEnded,
    LiveLag,
    Observers,
    RequestEnded,
    RequestResult,
)
from feedsvc.core.pace import Pace
from feedsvc.core.problems import Problem, Unavailable
from feedsvc.settings import Streams
from feedsvc.web.live.channel import EndReason
from feedsvc.web.live.subscriber import LiveSubscriber
from feedsvc.web.live.wheel import TimerWheel
from streams.formats import SSE

logger = logging.getLogger(__name__)

_LEAST_RETRY: Final = 1_000  # milliseconds
_RETRY_SPREAD: Final = 4_000  # milliseconds
_SPREAD_OF_EACH: Final = 5  # milliseconds, for each that ends together with others
_WORSE_BY_LATENESS: Final = 20_000  # milliseconds for each second by which the loop is late
_TOO_LATE: Final = 1.0  # seconds; a loop that is so late takes no further subscriber
_ENDS_A_TURN: Final = 256
_CATCHING_UP: Final = 4  # at once: each may ask PostgreSQL
_CLOSING_TURNS: Final = 3  # of the loop, in which connections that were cut are lost
_GONE: Final = 499  # nginx's number for a client that left


class SubscriberRegistry:
    """The subscribers whose connections are this worker's, and what they share."""

    def __init__(self, settings: Streams, observers: Observers, drain: Drain) -> None:
        self.settings = settings
        self.fan_out = FanOut(self._observe_lag)
        """The turns of all broadcasts of this process."""
        self.openings = Pace()
        """The pace at which clients that come together get their beginning."""
        observers.add(RequestEnded, self._note_request)
        self._observers = observers
        self._drain = drain
        self._subscribers: set[LiveSubscriber] = set()
        self._coming: set[asyncio.Task[Any] | None] = set()  # that have a place
        self._wheel: TimerWheel[LiveSubscriber] = TimerWheel(self._look)
        self._releases: dict[LiveSubscriber, Callable[[], None]] = {}
        self._catching_up: dict[LiveSubscriber, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(_CATCHING_UP)
        self._stalled: set[LiveSubscriber] = set()  # which are cut, and not closed yet
        self._leaving: deque[LiveSubscriber] = deque()
        self._is_parting = False
        drain.when_parting(self.part)

    @property
    def count(self) -> int:
        """The subscribers, those included that end and have not closed yet."""
        return len(self._subscribers)

    @property
    def most(self) -> int:
        """The number of subscribers from which on no further one is taken."""
        return self.settings.subscribers

    @property
    def catching_up(self) -> int:
        """The subscribers that lack events which are not kept."""
        return len(self._catching_up)

    def is_sending(self) -> bool:
        """True if there are bytes that the kernel has not taken yet."""
        return any(each.unsent() for each in self._subscribers)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for the subscriber that this task adds, until it has, or until the block ends.

        Raises Unavailable where a further subscriber would make the others wait.
        """
        self._refuse_when_full()
        task = asyncio.current_task()
        self._coming.add(task)
        try:
            yield
        finally:
            self._coming.discard(task)

    def _refuse_when_full(self) -> None:
        if self.count + len(self._coming) >= self.most:
            why = "The service has as many subscribers as it may (streams.subscribers)."
        elif self._wheel.lateness >= _TOO_LATE:
            why = "The service is too busy for a further subscriber."
        else:
            return
        raise Unavailable(why, retry_after=max(1, self.retry_ms() // 1000))

    def _note_request(self, ended: RequestEnded) -> None:
        if ended.dataset is not None and ended.format != SSE.name:
            self.openings.note_small_request()

    def add(self, subscriber: LiveSubscriber, release: Callable[[], None]) -> None:
        """Count a subscriber, whose connection it is about to get, until it has `left`.

        `release` undoes what its stream was counted as.
        """
        if not self._subscribers:
            self._drain.add(self)
        self._coming.discard(asyncio.current_task())
        self._subscribers.add(subscriber)
        self._releases[subscriber] = release

    def begun(self, subscriber: LiveSubscriber) -> None:
        """The subscriber has its connection."""
        if self._is_parting:
            self._end(subscriber, "draining")

    def retry_ms(self, together: int = 0) -> int:
        """See `SubscriberHost`: at random, and later while this process is late."""
        spread = _RETRY_SPREAD + round(_WORSE_BY_LATENESS * self._wheel.lateness)
        spread += _SPREAD_OF_EACH * together
        return _LEAST_RETRY + random.randrange(spread)  # noqa: S311 - a guess gains nothing

    def look_at(self, subscriber: LiveSubscriber, at: float) -> None:
        """See `SubscriberHost`."""
        self._wheel.put(subscriber, at)

    def fell_behind(self, subscriber: LiveSubscriber, number: int) -> None:
        """See `SubscriberHost`: some at a time, for each may ask PostgreSQL."""
        self._observers.publish(LiveBehind())
        task = asyncio.create_task(self._catch_up(subscriber, number))
        self._catching_up[subscriber] = task

    def stalled(self, subscriber: LiveSubscriber) -> None:
        """See `SubscriberHost`."""
        self._stalled.add(subscriber)

    def left(self, subscriber: LiveSubscriber, outcome: EndReason | None) -> None:
        """See `SubscriberHost`."""
        if not self._forget(subscriber):
            return
        if subscriber in self._stalled:
            self._stalled.discard(subscriber)
            self._observers.publish(LiveEnded("stalled"))
        else:
            self._observers.publish(LiveEnded(outcome or "left"))
        self._report(subscriber, outcome)

    def part(self) -> None:
        """End all subscribers, for this process leaves, and those that come."""
        self._is_parting = True
        self.openings.end()
        self._leaving.extend(self._subscribers)
        self._part_some()

    def interrupt(self, problem: Problem) -> None:
        """End all now, and cut those that have not closed behind theirs (see `Interruptible`)."""
        for each in list(self._subscribers):
            if each.is_open:
                self._end(each, "draining")
            else:
                each.cut()

    async def close(self) -> None:
        """Cut all, and catch up with nothing any more."""
        tasks = list(self._catching_up.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in list(self._subscribers):
            each.cut()
        for _ in range(_CLOSING_TURNS):
            await asyncio.sleep(0)
        self._wheel.close()

    def _part_some(self) -> None:
        for _ in range(min(_ENDS_A_TURN, len(self._leaving))):
            self._end(self._leaving.popleft(), "draining")
        if self._leaving:
            asyncio.get_running_loop().call_soon(self._part_some)

    def _look(self, subscriber: LiveSubscriber, now: float) -> float | None:
        try:
            return subscriber.look(now)
        except Exception:
            # Its channel's fault, and no other's.
            logger.exception("a look at a subscriber failed, so it is cut")
            subscriber.cut()
            return None

    def _end(self, subscriber: LiveSubscriber, reason: EndReason) -> None:
        try:
            subscriber.end(reason)
        except Exception:
            logger.exception("a subscriber has no last words, so it is cut")
            subscriber.cut()

    async def _catch_up(self, subscriber: LiveSubscriber, number: int) -> None:
        try:
            async with self._turn:
                if not subscriber.is_open:
                    return
                events, following = await subscriber.channel.catch_up(number)
            subscriber.caught_up(events, following)
        except Exception as error:
            # Its next request is answered with the reason, where there is one.
            unforeseen = None if isinstance(error, Problem) else error
            logger.info("a subscriber can't catch up: %s", error, exc_info=unforeseen)
            self._end(subscriber, "behind")
        finally:
            if self._catching_up.get(subscriber) is asyncio.current_task():
                del self._catching_up[subscriber]

    def _forget(self, subscriber: LiveSubscriber) -> bool:
        """Count it no more; False if it was not counted."""
        if subscriber not in self._subscribers:
            return False
        self._wheel.remove(subscriber)
        self._subscribers.discard(subscriber)
        self._releases.pop(subscriber)()
        if not self._subscribers:
            self._drain.remove(self)
        return True

    def _report(self, subscriber: LiveSubscriber, outcome: EndReason | None) -> None:
        """Report the end of the request, whose answer has ended only now."""
        ended = subscriber.ended
        if ended is None:
            return
        status, result, why = _outcome(subscriber, outcome)
        followed = asyncio.get_running_loop().time() - subscriber.terms.began
        changed = ended._replace(
            at=time.time(),
            status=status,
            result=result,
            why=why,
            seconds=ended.seconds + followed,
            size=ended.size + subscriber.sent,
            followed=followed,
        )
        self._observers.publish(changed)

    def _observe_lag(self, seconds: float, subscribers: int) -> None:
        self._observers.publish(LiveLag(seconds, subscribers))


def _outcome(
    subscriber: LiveSubscriber, reason: EndReason | None
) -> tuple[int, RequestResult, str | None]:
    if reason is None:
        return _GONE, "cancelled", None
    if subscriber.problem is not None:
        return 200, "failed", subscriber.problem
    return 200, "complete", None
