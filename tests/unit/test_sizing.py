"""The demand of the last while, and the size that a pool should have had."""

import random

import pytest

from feedsvc.backends.postgres.demand import Demand, suggest
from feedsvc.backends.postgres.window import Durations, Window, percentiles


class Clock:
    def __init__(self) -> None:
        self.now = 50_000.0

    def __call__(self) -> float:
        return self.now


def test_a_window_forgets_what_is_older_than_it_is_long() -> None:
    clock = Clock()
    window: Window[str] = Window(4, 10.0, clock)
    for _ in range(20):
        window.add("a")
        clock.now += 5
    assert window.total()["a"] in {6, 7, 8}
    clock.now += 39
    assert "a" not in window.total()
    window.add("b", 2.5)
    clock.now += 1e6
    assert window.total() == {}


def test_percentiles_are_known_to_a_twentieth() -> None:
    clock, chance = Clock(), random.Random(3)
    durations, exact = Durations(clock), []
    for _ in range(5_000):
        seconds = chance.lognormvariate(-6, 1.5)
        exact.append(seconds)
        durations.add(seconds)
    exact.sort()
    figures = percentiles(durations.counts())
    assert figures["count"] == 5_000
    for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99), ("max_ms", 1)):
        true = exact[max(0, round(share * 5_000) - 1)] * 1e3
        assert figures[name] == pytest.approx(true, rel=0.055), name


def test_no_wait_is_no_time_at_all() -> None:
    durations = Durations(Clock())
    assert percentiles(durations.counts()) == {
        "count": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None, "max_ms": None
    }  # fmt: skip
    durations.add(0.0)
    assert percentiles(durations.counts())["max_ms"] == 0


def test_demand_is_counted_by_how_long_it_lasted() -> None:
    clock = Clock()
    demand = Demand(clock)
    for level, seconds in ((2, 10.0), (5, 1.0), (0, 30.0)):
        demand.now(level)
        clock.now += seconds
    assert demand.seconds() == {0: 30.0, 2: 10.0, 5: 1.0}


@pytest.mark.parametrize(
    ("seconds", "refused", "size"),
    [
        ({0: 30.0}, 0, None),  # too short
        ({0: 3_000.0, 4: 600.0}, 0, 8),  # well as it is
        ({0: 3_000.0, 1: 600.0}, 0, 2),  # far too large
        ({0: 0.0, 8: 3_000.0, 12: 600.0}, 0, 12),  # some waited
        ({0: 3_590.0, 12: 0.5}, 0, 8),  # a moment's rush is not worth a connection
        ({8: 3_600.0}, 40, 12),  # who was refused can't be seen in the demand
        ({30: 3_600.0}, 40, 30),
    ],
)
def test_a_size_is_suggested_from_what_was_wanted(
    seconds: dict[int, float], refused: int, size: int | None
) -> None:
    suggestion = suggest(8, seconds, refused, 0.1)
    assert suggestion.size == size
    assert suggestion.why
