"""Those that come together go on at a pace, in their order, and the first at once."""

from __future__ import annotations

import asyncio
import math

import pytest

from feedsvc.core import pace
from feedsvc.core.drain import Drain
from feedsvc.core.events import Observers
from feedsvc.core.pace import Pace, rest
from feedsvc.settings import Streams
from feedsvc.web.live.registry import SubscriberRegistry

MANY = 40


class Work:
    """A thread's time of work, as far as a test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spent = 0.0
        monkeypatch.setattr("feedsvc.core.pace.time.thread_time", lambda: self.spent)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A period that has no end."""
    monkeypatch.setattr(pace, "_PERIOD", 3_600.0)


async def go_on(paced: Pace, number: int, gone: list[int]) -> None:
    await paced.next()
    gone.append(number)


def asked_now() -> Pace:
    """A pace beside small requests, for as long as a test takes."""
    made = Pace()
    made.note_small_request()
    made._asked_at += 3_600
    return made


def goes_on_at_once(paced: Pace) -> bool:
    going = paced.next()
    try:
        going.send(None)
    except StopIteration:
        return True
    going.close()
    return False


async def test_one_that_comes_alone_does_not_wait(work: Work) -> None:
    del work
    assert goes_on_at_once(asked_now())


async def test_nobody_waits_where_no_small_request_is_answered(work: Work) -> None:
    del work
    paced = Pace()
    assert all(goes_on_at_once(paced) for _ in range(MANY))
    paced.note_small_request()
    assert not all(goes_on_at_once(paced) for _ in range(MANY))


async def test_those_who_wait_go_on_when_small_requests_end(work: Work) -> None:
    del work
    paced, gone = asked_now(), list[int]()
    tasks = [asyncio.create_task(go_on(paced, number, gone)) for number in range(MANY)]
    await asyncio.sleep(0)
    assert len(gone) < MANY
    paced._asked_at = -math.inf
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    assert gone == list(range(MANY))
    assert goes_on_at_once(paced)


async def test_at_the_end_all_go_on_who_wait_or_come(endless: None) -> None:
    del endless
    paced, gone = asked_now(), list[int]()
    tasks = [asyncio.create_task(go_on(paced, number, gone)) for number in range(MANY)]
    await asyncio.sleep(0)
    paced.end()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    assert gone == list(range(MANY))
    assert all(goes_on_at_once(paced) for _ in range(MANY))


async def test_clients_that_wait_for_a_live_feed_go_on_when_the_process_leaves(
    endless: None,
) -> None:
    del endless
    drain = Drain()
    openings = SubscriberRegistry(Streams(), Observers(), drain).openings
    openings.note_small_request()
    tasks = [asyncio.create_task(openings.next()) for _ in range(MANY)]
    await asyncio.sleep(0)
    drain.leave()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)


async def test_many_go_on_in_their_order_two_in_a_period(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    del work
    paced, gone, at_ends = asked_now(), list[int](), list[int]()

    def noted(worked: float, took: float) -> float:
        del worked, took
        at_ends.append(len(gone))
        return 0.0

    monkeypatch.setattr(pace, "rest", noted)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for number in range(MANY):
            tasks.create_task(go_on(paced, number, gone))
    assert gone == list(range(MANY))
    assert at_ends == list(range(2, MANY, 2))


async def test_those_that_are_gone_take_no_place(work: Work) -> None:
    del work
    paced, gone = asked_now(), list[int]()
    tasks = [asyncio.create_task(go_on(paced, number, gone)) for number in range(MANY)]
    await asyncio.sleep(0)
    for task in tasks[10:30]:
        task.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert gone == [*range(10), *range(30, MANY)]
    async with asyncio.timeout(60):
        await paced.next()  # and the pace goes on behind them


async def test_a_loop_that_works_all_the_time_rests_and_then_goes_on(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = []

    def noted(worked: float, took: float) -> float:
        rests.append(worked)
        return 0.001 if worked else 0.0

    monkeypatch.setattr(pace, "rest", noted)
    paced, gone = asked_now(), list[int]()

    async def go_on_and_work(number: int) -> None:
        await go_on(paced, number, gone)
        work.spent += 1.0

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for number in range(MANY):
            tasks.create_task(go_on_and_work(number))
    assert len(gone) == MANY
    assert set(rests) == {2.0}, "the work of two in each period, and no rest behind a rest"


def test_a_rest_leaves_three_fifths_of_the_time_free_and_has_an_end() -> None:
    assert rest(0.001, 0.005) == 0.0
    assert rest(0.004, 0.005) == pytest.approx(0.005)
    assert rest(0.006, 0.006) == pytest.approx(0.009)
    assert rest(1.0, 1.0) == 0.02
