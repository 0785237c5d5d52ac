"""One timer for many subscribers, each of which is looked at when its time has come."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

_TICK: Final = 0.25  # seconds
_LOOKS_A_TURN: Final = 256


class Timed(Protocol):
    """An object that is looked at now and then."""

    place: int | None
    """The tick that it waits for; None where it waits for none. The wheel alone sets it."""


T = TypeVar("T", bound=Timed)


class TimerWheel(Generic[T]):
    """Objects by the tick that they wait for. A timer each would cost as much as the rest of them.

    `look` takes an object and the loop's time, and returns when to look again, None for never; it
    raises nothing. The timer stands still while there is no object.
    """

    def __init__(self, look: Callable[[T, float], float | None]) -> None:
        self._look = look
        self._places: dict[int, set[T]] = {}
        self._due: deque[T] = deque()
        self._reached = 0  # the newest tick whose objects are due
        self._count = 0
        self._timer: asyncio.Handle | None = None
        self.lateness = 0.0
        """Seconds by which the last ticks came late, the latest one falling off in seconds."""

    def put(self, timed: T, at: float) -> None:
        """Look at the object from this time of the loop on, and no earlier."""
        self.remove(timed)
        if self._timer is None:
            self._reached = math.floor(asyncio.get_running_loop().time() / _TICK)
            self._wait()
        timed.place = max(math.ceil(at / _TICK), self._reached + 1)
        self._places.setdefault(timed.place, set()).add(timed)
        self._count += 1

    def remove(self, timed: T) -> None:
        """Look at the object no more; where it waits for nothing, change nothing."""
        if timed.place is None:
            return
        waiting = self._places.get(timed.place)
        if waiting is not None:
            waiting.discard(timed)
        timed.place = None
        self._count -= 1

    def close(self) -> None:
        """Look at nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._places.clear()
        self._due.clear()

    def _wait(self) -> None:
        at = (self._reached + 1) * _TICK
        self._timer = asyncio.get_running_loop().call_at(at, self._tick)

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        late = now - (self._reached + 1) * _TICK
        self.lateness = max(late, self.lateness * 0.9)
        reached = math.floor(now / _TICK)
        for place in range(self._reached + 1, reached + 1):
            self._due.extend(self._places.pop(place, ()))
        self._reached = max(reached, self._reached)
        self._work()

    def _work(self) -> None:
        """Look at a bounded number of objects; the loop's other work comes before the next."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for _ in range(min(_LOOKS_A_TURN, len(self._due))):
            timed = self._due.popleft()
            # One that was removed, or put elsewhere, is in the queue still.
            if timed.place is not None and timed.place <= self._reached:
                self.remove(timed)
                if (at := self._look(timed, now)) is not None:
                    self.put(timed, at)
        if self._due:
            self._timer = loop.call_soon(self._work)
        elif self._count:
            self._wait()
        else:
            self._timer = None
