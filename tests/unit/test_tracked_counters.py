"""The tracker's minutes are differences of the counters that Prometheus is shown."""

from pathlib import Path
from typing import Any

from feedsvc.core.events import (
    CacheLookup,
    DatabaseFault,
    FeedReset,
    LiveBehind,
    LiveEnded,
    LiveTick,
    LogTurned,
    Observers,
    PoolLease,
    QuerySlow,
    RedisTurned,
    StreamParked,
)
from feedsvc.operations.metrics.cells import Cells
from feedsvc.operations.metrics.observer import MetricsObserver
from feedsvc.operations.performance.recorder import Minute, Recorder
from feedsvc.operations.sampling import Sampling
from tests.integration.operations.test_tracker import DOMAIN, ended, vitals


class Counting:
    """A worker's counters and minutes; `folder` has what the slot's last worker had counted."""

    def __init__(self, folder: Path | None = None) -> None:
        self.minutes: list[Minute] = []
        self.cells = Cells()
        observers = Observers()
        self.metrics = MetricsObserver(self.cells, DOMAIN, Sampling(0, 1))
        if folder is not None:
            self.cells.open(folder, 0)
        self.recorder = Recorder(Sampling(0, 1), self.metrics.tracked(), self.minutes.append)
        self.metrics.observe(observers)
        self.recorder.observe(observers)
        self.publish = observers.publish

    def some(self) -> None:
        for each in (
            CacheLookup("clients", "hit", None, None),
            CacheLookup("clients", "hit", "memory", None),
            CacheLookup("clients", "hit", "redis", None),
            CacheLookup("clients", "stale", "memory", "expired"),
            CacheLookup("clients", "stale", "redis", "expired"),
            CacheLookup("budgets", "miss", None, "absent"),
            PoolLease("read", "busy", 1.0),
            DatabaseFault("database-unavailable"),
            StreamParked("clients"),
            LogTurned(False),
            LogTurned(True),
            RedisTurned(False),
            FeedReset("clients", "rights"),
            QuerySlow(0.0, "x", "clients", "page", (), 0.3, None, None, "clients page order=id"),
            LiveBehind(),
            LiveEnded("stalled"),
            LiveTick(0.01, 3, 5),
            ended(0.1, why="forbidden", result="refused", status=403),
        ):
            self.publish(each)


EXPECTED = {
    ("cache", "clients", "memory"): 2,
    ("cache", "clients", "redis"): 1,
    ("cache", "clients", "stale"): 2,
    ("cache", "budgets", "miss"): 1,
    ("leases", "read", "busy"): 1,
    ("faults", "database-unavailable"): 1,
    ("parked", "clients"): 1,
    ("losses", "log_reader"): 1,
    ("losses", "redis"): 1,
    ("resets", "rights"): 1,
    ("slow", "clients"): 1,
    ("live_behind",): 1,
    ("live_ends", "stalled"): 1,
    ("live_reads",): 3,
    ("problems", "forbidden"): 1,
}


def counts(minute: Minute) -> dict[tuple[str, ...], Any]:
    own = ("seconds", "cpu", "requests", "rows", "bytes")
    return {key: n for key, n in minute.figures.counts.items() if key[0] not in own}


def test_each_minute_has_what_was_counted_in_it() -> None:
    counting = Counting()
    counting.some()  # before the first sign of life, so in the first minute
    for minute in range(3):
        counting.publish(vitals(minute * 60.0))
        if minute == 1:
            counting.some()
            counting.some()
    counting.recorder.close()
    first, second, third = counting.minutes
    assert counts(first) == EXPECTED
    assert counts(second) == {key: 2 * number for key, number in EXPECTED.items()}
    assert counts(third) == {}
    assert all(isinstance(number, int) for number in counts(first).values())


def test_a_worker_that_goes_on_from_the_counters_of_another_has_minutes_of_its_own(
    tmp_path: Path,
) -> None:
    before = Counting(tmp_path)
    before.some()
    before.cells.close()
    counting = Counting(tmp_path)
    counting.publish(vitals(0.0))
    counting.some()
    counting.recorder.close()
    assert counts(counting.minutes[0]) == EXPECTED
    counting.cells.close()
