"""Figures for operators: computed once a tick for all who watch the same ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from feedsvc.core.broadcast import FanOut
from feedsvc.core.problems import NotSetUp
from feedsvc.web.operations.series import Event, EventSeries, SeriesBoard
from tests.support.live import eventually


class Source:
    """Events that a test lets come, and how many were computed by how many generators."""

    def __init__(self, error: Exception | None = None, fails_at: int = -1) -> None:
        self.computed = self.begun = self.over = 0
        self.error = error
        self.fails_at = fails_at
        self.go = asyncio.Semaphore(1)

    async def events(self) -> AsyncGenerator[Event, None]:
        self.begun += 1
        try:
            while True:
                await self.go.acquire()
                if self.error is not None and self.computed == self.fails_at:
                    raise self.error
                self.computed += 1
                yield Event("figures", {"number": self.computed})
        finally:
            self.over += 1


class Watcher:
    """A subscriber that takes all."""

    def __init__(self, series: EventSeries) -> None:
        self.series, self.number, self.taken = series, series.number, list[bytes]()

    def wake(self) -> bool:
        found = self.series.broadcast.since(self.number) or ()
        self.taken += found
        self.number += len(found)
        return bool(found)


@pytest.fixture
async def begin() -> AsyncGenerator[Callable[[Source], EventSeries]]:
    board, fan_out = SeriesBoard(), FanOut()
    yield lambda source: board.series("key", fan_out, source.events)
    await board.close()


Begin = Callable[[Source], EventSeries]


async def test_a_thousand_watchers_cost_one_computation_a_tick(begin: Begin) -> None:
    source, watchers = Source(), []
    for _ in range(1_000):
        series = begin(source)
        with series.joined():
            assert (await series.newest()).text == '{"number":1}'
            watchers.append(Watcher(series))
            series.broadcast.subscribe(watchers[-1])
    for _ in range(3):
        source.go.release()
        await eventually(lambda: source.go.locked() and not series.broadcast.has_waiting)
    await eventually(lambda: all(len(each.taken) == 3 for each in watchers))
    assert (source.computed, source.begun) == (4, 1)
    assert watchers[0].taken[2] is watchers[999].taken[2]


async def test_nothing_is_computed_for_none(begin: Begin) -> None:
    source = Source()
    series = begin(source)
    with series.joined():
        await series.newest()
        watcher = Watcher(series)
        series.broadcast.subscribe(watcher)
    source.go.release()
    await eventually(lambda: len(watcher.taken) == 1)
    series.broadcast.unsubscribe(watcher)
    source.go.release()
    await asyncio.wait_for(series.task, 60)
    assert source.over == 1
    source.go.release()
    with begin(source).joined():
        await begin(source).newest()
    assert source.begun == 2


async def test_an_error_of_the_first_event_is_raised_for_all_who_wait(begin: Begin) -> None:
    source = Source(NotSetUp("Not there."), fails_at=0)
    series = begin(source)
    with series.joined():
        for _ in range(2):
            with pytest.raises(NotSetUp):
                await series.newest()
    await eventually(series.task.done)
    assert begin(source) is not series


async def test_a_later_error_is_the_last_event_of_all(begin: Begin) -> None:
    source = Source(NotSetUp("Not there."), fails_at=1)
    series = begin(source)
    with series.joined():
        await series.newest()
        watcher = Watcher(series)
        series.broadcast.subscribe(watcher)
    source.go.release()
    await eventually(lambda: len(watcher.taken) == 1)
    assert b"event: error" in watcher.taken[0]
    assert (series.broadcast.ended, series.broadcast.problem) == (True, "not-set-up")


async def test_one_that_leaves_while_it_waits_takes_nothing_from_the_others(begin: Begin) -> None:
    source = Source()
    await source.go.acquire()
    series = begin(source)
    with series.joined():
        first, second = (asyncio.create_task(series.newest()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        source.go.release()
        assert (await second).number == 0


async def test_one_that_is_behind_gets_the_newest(begin: Begin) -> None:
    source = Source()
    series = begin(source)
    with series.joined():
        await series.newest()
        source.go.release()
        await eventually(lambda: series.number == 2)
        events, number = await series.catch_up(0)
    assert (list(events), number) == ([b'event: figures\ndata: {"number":2}\n\n'], 2)
