"""Finished events for many subscribers: written once, kept for a while, taken by each in turn."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol

logger = logging.getLogger(__name__)

_WRITES_A_TURN: Final = 256  # of all broadcasts together, before other work of the loop is done
_MOST_BYTES: Final = 1 << 20
_MOST_AGE: Final = 60.0  # seconds


def chunk(data: bytes) -> bytes:
    """The data as a chunk of HTTP's (RFC 9112, section 7.1). They are not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Subscriber(Protocol):
    """A taker of a broadcast's events, which knows the number of the next one itself."""

    def wake(self) -> bool:
        """Take what is new, without waiting; True if it was taken."""
        ...


LagObserver = Callable[[float, int], None]
"""Takes the seconds from a commit until its event was written, and the number of subscribers."""


class FanOut:
    """The turns of the event loop that all broadcasts of a process share."""

    def __init__(self, observe: LagObserver | None = None) -> None:
        self._observe = observe
        self._waiting: deque[Broadcast] = deque()
        self._written: list[tuple[float, int]] = []
        self._handle: asyncio.Handle | None = None

    def add(self, broadcast: "Broadcast") -> None:
        """Let the broadcast's subscribers be woken, behind those of the ones that wait already."""
        self._waiting.append(broadcast)
        self._schedule()

    def _schedule(self) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Wake a bounded number of subscribers; the loop's other work comes before the next."""
        self._handle = None
        self._report()
        left = _WRITES_A_TURN
        while left > 0 and self._waiting:
            broadcast = self._waiting.popleft()
            woken, taken, committed_at = broadcast.wake_some(left)
            left -= max(woken, 1)
            if taken and committed_at is not None and self._observe is not None:
                self._written.append((committed_at, taken))
            if broadcast.has_waiting:
                self._waiting.append(broadcast)
        if self._waiting or self._written:
            self._schedule()

    def _report(self) -> None:
        """Report the turn before: only behind it has the loop written what transports took."""
        written, self._written = self._written, []
        if written and self._observe is not None:
            now = time.time()
            for committed_at, taken in written:
                self._observe(max(0.0, now - committed_at), taken)


class Broadcast:
    """A stream of finished events, numbered without a gap, of which the newest are kept.

    An event is kept as the chunk that it is sent as, so that each subscriber writes the same bytes.
    `most_bytes` and `most_age` (in seconds) bound what is kept; the newest event always is.
    """

    def __init__(
        self,
        fan_out: FanOut,
        *,
        most_bytes: int = _MOST_BYTES,
        most_age: float = _MOST_AGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fan_out = fan_out
        self._most_bytes = most_bytes
        self._most_age = most_age
        self._clock = clock
        self._kept: list[bytes] = []
        self._times: list[float] = []  # of the kept events, by `clock`
        self._subscribers: dict[Subscriber, None] = {}  # in the order of their coming
        self._round: Iterator[Subscriber] | None = None
        self._round_committed: float | None = None
        self._committed: float | None = None  # of the oldest event that no round has begun for
        self._has_news = False
        self.first = 0
        """The number of the oldest event that is kept; `next` where none is."""
        self.kept_bytes = 0
        """The size of all kept events."""
        self.problem: str | None = None
        """The name of the problem that ended it, if one did."""
        self.ended_for = 0
        """The number of subscribers that there were at its end."""
        self.ended = False
        """True if the last event has been published."""

    @property
    def next(self) -> int:
        """The number that the next event gets."""
        return self.first + len(self._kept)

    @property
    def newest(self) -> bytes:
        """The newest event, framed. Raises IndexError where none is kept."""
        return self._kept[-1]

    @property
    def count(self) -> int:
        """The number of subscribers."""
        return len(self._subscribers)

    @property
    def has_waiting(self) -> bool:
        """Return whether subscribers are still to be woken."""
        return self._round is not None or self._has_news

    def publish(self, data: bytes, committed_at: float | None = None) -> int:
        """Append an event and wake the subscribers soon; the event's number.

        `data` is the event as its text, without HTTP's framing, and not empty; `committed_at` the
        Unix time of the oldest commit in it. Raises ValueError behind the end.
        """
        if self.ended or not data:
            raise ValueError("an empty event would end the answer" if not data else "it has ended")
        event, number = chunk(data), self.next
        self._kept.append(event)
        self._times.append(self._clock())
        self.kept_bytes += len(event)
        self.trim()
        if self._subscribers:
            if committed_at is not None:
                self._committed = min(committed_at, self._committed or committed_at)
            self._bring_news()
        return number

    def end(self, data: bytes, problem: str | None = None) -> None:
        """Publish the last event; each subscriber ends behind it. A second call changes nothing.

        `problem` is the name of a failure's: behind it the answers break off.
        """
        if not self.ended:
            self.publish(data)
            self.ended, self.problem, self.ended_for = True, problem, self.count

    def since(self, number: int) -> Sequence[bytes] | None:
        """The events from this number on, framed; None where the first of them is not kept."""
        if number < self.first:
            return None
        return self._kept[number - self.first :]

    def subscribe(self, subscriber: Subscriber) -> None:
        """Wake the subscriber for each event from now on; it takes those that are there itself."""
        self._subscribers[subscriber] = None

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Wake the subscriber no more; where it is none, change nothing."""
        self._subscribers.pop(subscriber, None)

    def trim(self) -> None:
        """Drop what is too old or too much. `publish` does so too; an idle owner calls it."""
        oldest, size, drop = self._clock() - self._most_age, self.kept_bytes, 0
        newest = len(self._kept) - 1
        while drop < newest and (size > self._most_bytes or self._times[drop] < oldest):
            size -= len(self._kept[drop])
            drop += 1
        if drop:
            del self._kept[:drop], self._times[:drop]
            self.first, self.kept_bytes = self.first + drop, size

    def wake_some(self, most: int) -> tuple[int, int, float | None]:
        """Wake so many subscribers of the present round at most.

        How many were woken, how many of them took what is new, and the time of its commit.
        """
        if self._round is None:
            self._round, self._has_news = iter(list(self._subscribers)), False
            self._round_committed, self._committed = self._committed, None
        woken = taken = 0
        for subscriber in islice(self._round, most):
            woken += 1
            if subscriber in self._subscribers:
                taken += self._wake(subscriber)
        if woken < most:
            self._round = None
        return woken, taken, self._round_committed

    def _wake(self, subscriber: Subscriber) -> bool:
        try:
            return subscriber.wake()
        except Exception:
            # Its fault is its own: the others are to get the event.
            logger.exception("a subscriber of a broadcast failed and is dropped")
            self.unsubscribe(subscriber)
            return False

    def _bring_news(self) -> None:
        """Begin a round, or another one behind the present one, whose first may have missed it."""
        if not self.has_waiting:
            self._fan_out.add(self)
        self._has_news = True
