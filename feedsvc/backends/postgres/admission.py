"""Admission to a bounded number of slots, refused at once where the wait would be too long.

Some places are for small work alone, so that it never waits behind work without an end. A guess
at the wait comes from how long the last ones kept their place, how long those that have one have
kept it so far, and how many wait already.

Principals take turns: of those that wait, the one that was served longest ago is next, however many
requests another one has in line. None may hold more than a share of the places, nor of the line,
and no dataset more than that share of the places, so that neither a flood nor a locked table takes
all.

Unused slots can be lent: a lent one is given back as soon as `pressed` is set, so that it counts
as free for a request that arrives.
"""

import asyncio
import math
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, NamedTuple

from feedsvc.backends.postgres.demand import Demand

_REMEMBERED: Final = 64
_FEWEST_TO_GUESS_FROM: Final = 8


class PoolExhaustedError(Exception):
    """No place came free, or none will in time. `wait`: the guess in seconds, where there is one.

    `why` is `full` (too many wait), `own` (too many of the same principal wait), `vain` (by the
    guess) or `late` (it was waited for in vain).
    """

    def __init__(self, why: str, wait: float | None) -> None:
        super().__init__(why)
        self.why = why
        self.wait = wait


class Asker(NamedTuple):
    """The principal that a place is for, and the dataset; None is not held to a share."""

    principal: Hashable = None
    dataset: str | None = None


ANY: Final = Asker()


@dataclass(slots=True, eq=False)
class Slot:
    """A slot in use since this time by the clock, after so many seconds' wait."""

    large: bool
    since: float
    waited: float
    lent: bool = False
    asker: Asker = ANY


@dataclass(slots=True, eq=False)
class _Waiter:
    large: bool
    since: float
    asker: Asker
    future: asyncio.Future[Slot] = field(default_factory=asyncio.Future)


class LeaseHistory:
    """Durations of the last few leases, to estimate that of another."""

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


class Admission:
    """So many places, of which large work may have all but the reserve.

    Each principal's waiters are served in order, but for large work while the rest is the reserve,
    and principals in turn. `share` is the part, rounded up, that one of them may have.
    """

    def __init__(
        self,
        size: int,
        reserve: int,
        most_waiting: int,
        clock: Callable[[], float] = time.monotonic,
        share: float = 1.0,
    ) -> None:
        self.size = size
        self._each = {False: math.ceil(share * size), True: math.ceil(share * (size - reserve))}
        self._most_own_waiting = math.ceil(share * most_waiting)
        # By (principal or dataset, whether large work alone is counted).
        self._held: Counter[tuple[Hashable, bool]] = Counter()
        self.most_large = size - reserve
        self.pressed = asyncio.Event()
        """Set while a request waits, so that slots that can be spared are given up."""
        self.most_waiting = most_waiting
        self._clock = clock
        self._taken: set[Slot] = set()
        self._large = self._lent = 0
        # Each principal's waiters in order of arrival, the principals in their turn: dictionaries,
        # for a waiter that gives up leaves from the middle.
        self._lines: dict[Hashable, dict[_Waiter, None]] = {}
        self._waiting = 0
        self._lasted = {False: LeaseHistory(), True: LeaseHistory()}
        self.demand = Demand(clock)

    @property
    def in_use(self) -> int:
        """The number of slots that are taken."""
        return len(self._taken)

    @property
    def in_large_use(self) -> int:
        """The number of slots that large work has."""
        return self._large

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        return self._waiting

    @property
    def is_shared(self) -> bool:
        """Return whether several pieces of large work are under way, none in a lent place."""
        return self._large - self._lent > 1

    @property
    def spare(self) -> int:
        """The number that could be lent to large work: none of the reserve, nor the last one.

        None at all while a request waits, or while several pieces of large work are under way.
        """
        if self.waiting or self.is_shared:
            return 0
        return max(0, min(self.size - len(self._taken) - 1, self.most_large - self._large))

    def is_free(self, *, large: bool) -> bool:
        """Return whether there is a place without waiting."""
        return len(self._taken) < self.size and (not large or self._large < self.most_large)

    def may_have(self, asker: Asker, *, large: bool) -> bool:
        """Return whether there is a place for it without waiting, within its share."""
        return self.is_free(large=large) and not self._is_at_its_bound(asker, large=large)

    def _is_at_its_bound(self, asker: Asker, *, large: bool) -> bool:
        held, each = self._held, self._each
        return any(
            held[key, False] >= each[False] or (large and held[key, True] >= each[True])
            for key in asker
            if key is not None
        )

    async def take(self, *, large: bool, timeout: float, asker: Asker = ANY) -> Slot:
        """A place, to be given back. Raises NoPlaceError."""
        # No waiter that could have a slot is left while there is one.
        if self.may_have(asker, large=large):
            return self._seat(large=large, waited=0.0, asker=asker)
        wait = self.guess(large=large, asker=asker)
        if self.waiting >= self.most_waiting + self._lent:
            raise PoolExhaustedError("full", wait)
        own = len(self._lines.get(asker.principal, ()))
        if asker.principal is not None and own >= self._most_own_waiting:
            raise PoolExhaustedError("own", wait)
        if wait is not None and wait > timeout:
            raise PoolExhaustedError("vain", wait)
        return await self._stand_in_line(_Waiter(large, self._clock(), asker), timeout)

    def borrow(self) -> Slot | None:
        """A place for large work, to be given back as soon as `pressed` is set; None to spare."""
        return self._seat(large=True, waited=0.0, lent=True) if self.spare else None

    def give_back(self, place: Slot) -> None:
        """Release the slot to the waiter whose turn it is."""
        self._taken.remove(place)
        self._large -= place.large
        self._lent -= place.lent
        self._count(place, -1)
        now = self._clock()
        if not place.lent:  # how long it was lent tells nothing of how long one is needed
            self._lasted[place.large].add(now - place.since)
        self._call_next()
        self._record_demand(now)

    def guess(self, *, large: bool, asker: Asker = ANY) -> float | None:
        """The estimated wait of a new request, in seconds; None without an estimate."""
        is_bound = self._is_at_its_bound(asker, large=large)
        if self.waiting < self._lent and not is_bound:
            return 0.0
        now = self._clock()
        # Large work that lacks none but the reserve waits for other large work alone.
        behind_large = large and self._large >= self.most_large
        needed = [place for place in self._taken if not place.lent]
        if is_bound:  # for what is its own, and nothing else will do
            needed = [place for place in needed if _have_in_common(place.asker, asker)]
        before = [place for place in needed if place.large or not behind_large]
        ahead = self._ahead(asker, large_alone=behind_large, own_alone=is_bound)
        mean = self._lasted[large].mean()
        if mean is None or not before:
            return None
        soonest = min(
            self._lasted[kind].soonest_end(now - p.since for p in before if p.large is kind)
            for kind in {place.large for place in before}
        )
        turning_over = self.most_large if large else self.size - self._large
        if is_bound:
            turning_over = min(turning_over, self._each[large])
        return soonest + max(0, ahead - self._lent) * mean / max(1, turning_over)

    async def _stand_in_line(self, waiter: _Waiter, timeout: float) -> Slot:
        self._lines.setdefault(waiter.asker.principal, {})[waiter] = None
        self._waiting += 1
        self.pressed.set()
        self._record_demand()
        try:
            async with asyncio.timeout(timeout):
                return await waiter.future
        except TimeoutError:
            if waiter.future.done() and not waiter.future.cancelled():
                return waiter.future.result()  # it came at the last moment
            wait = self.guess(large=waiter.large, asker=waiter.asker)
            raise PoolExhaustedError("late", wait) from None
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled():
                self.give_back(waiter.future.result())
            raise
        finally:
            self._leave(waiter)

    def _ahead(self, asker: Asker, *, large_alone: bool, own_alone: bool) -> int:
        """The waiters served before the next one of this principal: in turns, not in order."""
        counts = {
            principal: sum(waiter.large or not large_alone for waiter in line)
            for principal, line in self._lines.items()
        }
        own = counts.pop(asker.principal, 0)
        return own + (0 if own_alone else sum(min(count, own + 1) for count in counts.values()))

    def _leave(self, waiter: _Waiter) -> None:
        line = self._lines.get(waiter.asker.principal, {})
        if waiter in line:
            del line[waiter]
            self._waiting -= 1
            if not line:
                del self._lines[waiter.asker.principal]
            self._record_demand()
        if not self.waiting:
            self.pressed.clear()

    def _call_next(self) -> None:
        while (waiter := self._next()) is not None:
            self._leave(waiter)
            principal = waiter.asker.principal
            if principal in self._lines:  # it had its turn
                self._lines[principal] = self._lines.pop(principal)
            if not waiter.future.done():
                waited = self._clock() - waiter.since
                seat = self._seat(large=waiter.large, waited=waited, asker=waiter.asker)
                waiter.future.set_result(seat)

    def _next(self) -> _Waiter | None:
        """The first that could have a place now, of the principal whose turn it is."""
        for line in self._lines.values():
            passed: set[tuple[bool, str | None]] = set()
            for waiter in line:
                kind = waiter.large, waiter.asker.dataset
                if kind in passed:
                    continue
                if self.may_have(waiter.asker, large=waiter.large):
                    return waiter
                passed.add(kind)
        return None

    def _seat(self, *, large: bool, waited: float, lent: bool = False, asker: Asker = ANY) -> Slot:
        now = self._clock()
        place = Slot(large, now, waited, lent, asker)
        self._taken.add(place)
        self._count(place, 1)
        self._large += large
        self._lent += lent
        self._record_demand(now)
        return place

    def _count(self, place: Slot, step: int) -> None:
        for key in place.asker:
            if key is not None:
                for kind in (False, True) if place.large else (False,):
                    self._held[key, kind] += step
                    if not self._held[key, kind]:
                        del self._held[key, kind]

    def _record_demand(self, now: float | None = None) -> None:
        self.demand.now(len(self._taken) - self._lent + self.waiting, now)


def _have_in_common(one: Asker, other: Asker) -> bool:
    return any(a is not None and a == b for a, b in zip(one, other, strict=True))


def retry_after(wait: float | None, longest: int) -> int:
    """A guess as whole seconds for Retry-After."""
    return 2 if wait is None else min(longest, max(1, math.ceil(wait)))
