"""Counts over the last while, forgotten a slot of time at a time, and percentiles of durations."""

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SHORTEST: Final = 1e-4  # seconds; what is shorter counts as nothing
_GROWTH: Final = math.log(1.1)


class Window(Generic[K]):
    """Amounts by key, of the last `slots` times `seconds`."""

    __slots__ = ("_clock", "_ends", "_newest", "_older", "_seconds")

    def __init__(
        self, slots: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._newest: dict[K, float] = {}
        self._older: deque[dict[K, float]] = deque(maxlen=slots - 1)
        self._ends = clock() + seconds

    def add(self, key: K, amount: float = 1, at: float | None = None) -> None:
        """Add to what is counted under the key now; `at` spares a look at the clock."""
        if (self._clock() if at is None else at) >= self._ends:
            self._turn()
        self._newest[key] = self._newest.get(key, 0) + amount

    def total(self) -> dict[K, float]:
        """All that is not forgotten yet."""
        if self._clock() >= self._ends:
            self._turn()
        summed = dict(self._newest)
        for counts in self._older:
            for key, amount in counts.items():
                summed[key] = summed.get(key, 0) + amount
        return summed

    def _turn(self) -> None:
        """Begin the slot that it is time for, and drop what is too old by then."""
        passed = 1 + int((self._clock() - self._ends) // self._seconds)
        self._older.append(self._newest)
        self._older.extend({} for _ in range(min(passed - 1, self._older.maxlen or 0)))
        self._newest = {}
        self._ends += passed * self._seconds


class Durations:
    """Seconds of the last five minutes, each known to a twentieth."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._window: Window[int] = Window(10, 30.0, clock)

    def add(self, seconds: float) -> None:
        self._window.add(_bucket(seconds))

    def counts(self) -> dict[int, float]:
        """Counts by bucket, for `percentiles`."""
        return self._window.total()


def percentiles(counts: Mapping[Any, float]) -> dict[str, float | None]:
    """The count, and percentiles in milliseconds, None where it is 0.

    Counts of several `Durations` may be added up. Buckets may be texts.
    """
    ordered = sorted((int(bucket), count) for bucket, count in counts.items())
    total = sum(count for _, count in ordered)
    figures: dict[str, float | None] = {"count": round(total)}
    for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99), ("max_ms", 1.0)):
        figures[name] = _at(ordered, share * total)
    return figures


def _bucket(seconds: float) -> int:
    return 0 if seconds <= _SHORTEST else 1 + int(math.log(seconds / _SHORTEST) / _GROWTH)


def _at(counts: list[tuple[int, float]], rank: float) -> float | None:
    """The bucket in which the rank falls, as milliseconds."""
    seen = 0.0
    for bucket, count in counts:
        seen += count
        if seen >= rank:
            middle = _SHORTEST * math.exp((bucket - 0.5) * _GROWTH) if bucket else 0.0
            return round(middle * 1e3, 3)
    return None
