"""Who gets one of a bounded number of places, and who is told at once that waiting is vain.

Some places are for small work alone, so that it never waits behind work without an end. A guess
at the wait comes from how long the last ones kept their place, how long those that have one have
kept it so far, and how many wait already.

What nobody needs can be lent: a lent place is given back as soon as `pressed` is set, so whoever
comes is treated as if it were as good as free.
"""

import asyncio
import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from feedsvc.sizing import Demand

_REMEMBERED: Final = 64
_FEWEST_TO_GUESS_FROM: Final = 8


class NoPlaceError(Exception):
    """No place came free, or none will in time. `wait`: the guess in seconds, where there is one.

    `why` is `full` (too many wait), `vain` (by the guess) or `late` (it was waited for in vain).
    """

    def __init__(self, why: str, wait: float | None) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait


@dataclass(slots=True, eq=False)
class Place:
    """A place that somebody has, since this time by the clock, after so many seconds' wait."""

    large: bool
    since: float
    waited: float
    lent: bool = False


@dataclass(slots=True, eq=False)
class _Waiter:
    large: bool
    since: float
    future: asyncio.Future[Place] = field(default_factory=asyncio.Future)


class Experience:
    """How long the last few lasted, to guess from how long another will."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, seconds: float) -> None:
        """One has ended."""
        self._last.append(seconds)

    def mean(self) -> float | None:
        """The mean, None as long as there were too few."""
        if len(self._last) < _FEWEST_TO_GUESS_FROM:
            return None
        return sum(self._last) / len(self._last)

    def soonest_end(self, elapsed: Iterable[float]) -> float:
        """In how many seconds the first of those will end that have lasted so long already.

        One is expected to last as those did that outlasted it at its age; one that outlasts them
        all, as long again.
        """
        lasted = sorted(self._last)
        # sums[n]: of the n longest.
        sums = list(accumulate(reversed(lasted), initial=0.0))

        def left(age: float) -> float:
            longer = len(lasted) - bisect_right(lasted, age)
            return sums[longer] / longer - age if longer else age

        return min(map(left, elapsed), default=0.0)


class Places:
    """So many places, of which large work may have all but the reserve.

    Whoever waits is served in order, but for large work while the rest is the reserve.
    """

    def __init__(
        self,
        size: int,
        reserve: int,
        most_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = size
        self.most_large = size - reserve
        self.pressed = asyncio.Event()
        """Set while somebody waits, so that whoever could do without a place gives it up."""
        self._most_waiting = most_waiting
        self._clock = clock
        self._taken: set[Place] = set()
        self._large = self._lent = 0
        # In order of arrival: dictionaries, for whoever gives up leaves from the middle.
        self._small_line: dict[_Waiter, None] = {}
        self._large_line: dict[_Waiter, None] = {}
        self._lasted = {False: Experience(), True: Experience()}
        self.demand = Demand(clock)

    @property
    def in_use(self) -> int:
        """How many places are taken."""
        return len(self._taken)

    @property
    def in_large_use(self) -> int:
        """How many of them by large work."""
        return self._large

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._small_line) + len(self._large_line)

    @property
    def is_shared(self) -> bool:
        """Whether several pieces of large work are under way, none of them in a lent place."""
        return self._large - self._lent > 1

    @property
    def spare(self) -> int:
        """How many could be lent to large work: none that is of the reserve, nor the last one.

        None at all while somebody waits, or while several pieces of large work are under way.
        """
        if self.waiting or self.is_shared:
            return 0
        return max(0, min(self.size - len(self._taken) - 1, self.most_large - self._large))

    def is_free(self, *, large: bool) -> bool:
        """Whether there is a place without waiting."""
        return len(self._taken) < self.size and (not large or self._large < self.most_large)

    async def take(self, *, large: bool, timeout: float) -> Place:
        """A place, to be given back. Raises NoPlaceError."""
        # Nobody who could have a place is waiting while there is one.
        if self.is_free(large=large):
            return self._seat(large=large, waited=0.0)
        wait = self.guess(large=large)
        if self.waiting >= self._most_waiting + self._lent:
            raise NoPlaceError("full", wait)
        if wait is not None and wait > timeout:
            raise NoPlaceError("vain", wait)
        return await self._stand_in_line(_Waiter(large, self._clock()), timeout)

    def borrow(self) -> Place | None:
        """A place for large work, to be given back as soon as `pressed` is set; None to spare."""
        return self._seat(large=True, waited=0.0, lent=True) if self.spare else None

    def give_back(self, place: Place) -> None:
        """The place is free again, for whoever has waited for one longest."""
        self._taken.remove(place)
        self._large -= place.large
        self._lent -= place.lent
        now = self._clock()
        if not place.lent:  # how long it was lent tells nothing of how long one is needed
            self._lasted[place.large].add(now - place.since)
        self._call_next()
        self._tell_demand(now)

    def guess(self, *, large: bool) -> float | None:
        """For how many seconds whoever came now would wait; None where nobody can tell."""
        if self.waiting < self._lent:
            return 0.0
        now = self._clock()
        # Large work that lacks none but the reserve waits for other large work alone.
        behind_large = large and self._large >= self.most_large
        needed = [place for place in self._taken if not place.lent]
        before = [place for place in needed if place.large or not behind_large]
        ahead = len(self._large_line) + (0 if behind_large else len(self._small_line))
        mean = self._lasted[large].mean()
        if mean is None or not before:
            return None
        soonest = min(
            self._lasted[kind].soonest_end(now - p.since for p in before if p.large is kind)
            for kind in {place.large for place in before}
        )
        turning_over = self.most_large if large else self.size - self._large
        return soonest + max(0, ahead - self._lent) * mean / max(1, turning_over)

    async def _stand_in_line(self, waiter: _Waiter, timeout: float) -> Place:
        line = self._large_line if waiter.large else self._small_line
        line[waiter] = None
        self.pressed.set()
        self._tell_demand()
        try:
            async with asyncio.timeout(timeout):
                return await waiter.future
        except TimeoutError:
            if waiter.future.done() and not waiter.future.cancelled():
                return waiter.future.result()  # it came at the last moment
            raise NoPlaceError("late", self.guess(large=waiter.large)) from None
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled():
                self.give_back(waiter.future.result())
            raise
        finally:
            self._leave(line, waiter)

    def _leave(self, line: dict[_Waiter, None], waiter: _Waiter) -> None:
        if waiter in line:
            del line[waiter]
            self._tell_demand()
        if not self.waiting:
            self.pressed.clear()

    def _call_next(self) -> None:
        while (waiter := self._next()) is not None:
            self._leave(self._large_line if waiter.large else self._small_line, waiter)
            if not waiter.future.done():
                waited = self._clock() - waiter.since
                waiter.future.set_result(self._seat(large=waiter.large, waited=waited))

    def _next(self) -> _Waiter | None:
        """Of those who could have a place now, the one who came first."""
        heads = (
            next(iter(line), None)
            for large, line in ((False, self._small_line), (True, self._large_line))
            if self.is_free(large=large)
        )
        return min(
            (head for head in heads if head is not None),
            key=lambda head: head.since,
            default=None,
        )

    def _seat(self, *, large: bool, waited: float, lent: bool = False) -> Place:
        now = self._clock()
        place = Place(large, now, waited, lent)
        self._taken.add(place)
        self._large += large
        self._lent += lent
        self._tell_demand(now)
        return place

    def _tell_demand(self, now: float | None = None) -> None:
        self.demand.now(len(self._taken) - self._lent + self.waiting, now)


def retry_after(wait: float | None, longest: int) -> int:
    """A guess as whole seconds for Retry-After."""
    return 2 if wait is None else min(longest, max(1, math.ceil(wait)))
