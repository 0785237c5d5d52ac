"""A deadline that leaves out the time in which our own loop was busy."""

import asyncio
import socket
import time

import pytest

from feedsvc.backends.redis.deadline import Deadline
from feedsvc.backends.redis.transport import settle

SECONDS = 0.08


class Watch:
    """A deadline and when it was missed, in seconds since the beginning."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.missed: list[float] = []
        self.deadline = Deadline(SECONDS, self.miss)

    def miss(self) -> None:
        self.missed.append(time.monotonic() - self.began)
        for answer in self.deadline.watched():
            answer.cancel()

    def begin(self) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deadline.watch(answer)
        return answer


async def test_an_answer_that_never_comes_is_missed_in_time_and_once() -> None:
    watch = Watch()
    answer = watch.begin()
    with pytest.raises(asyncio.CancelledError):
        await answer
    watch.deadline.forget(answer)
    await asyncio.sleep(2 * SECONDS)
    assert len(watch.missed) == 1
    assert watch.missed[0] >= SECONDS


async def test_an_answer_in_time_is_not_missed() -> None:
    watch = Watch()
    for _ in range(5):
        answer = watch.begin()
        await asyncio.sleep(SECONDS / 4)
        answer.set_result(None)
        watch.deadline.forget(answer)
    assert watch.missed == []


async def test_the_oldest_counts_and_not_whatever_came_since() -> None:
    watch = Watch()
    old = watch.begin()
    async with asyncio.timeout(60):
        while not watch.missed:
            new = watch.begin()
            await asyncio.sleep(SECONDS / 10)
            new.cancel()
            watch.deadline.forget(new)
    assert old.cancelled()
    watch.deadline.forget(old)


async def test_a_busy_loop_is_not_held_against_the_server() -> None:
    """The answer is there at once; nobody looks for it for four times as long as it may take."""
    watch = Watch()
    here, there = socket.socketpair()
    with here, there:
        answer = watch.begin()
        loop = asyncio.get_running_loop()

        def receive() -> None:
            here.recv(1)
            settle(answer, None)

        loop.add_reader(here, receive)
        there.send(b"x")
        time.sleep(4 * SECONDS)
        await asyncio.wait({answer})
        loop.remove_reader(here)
    watch.deadline.forget(answer)
    assert not answer.cancelled()
    assert watch.missed == []


async def test_a_loop_that_is_always_busy_gives_up_all_the_same() -> None:
    watch, turns = Watch(), 0
    answer = watch.begin()
    while not answer.done() and turns < 50:
        time.sleep(SECONDS)
        await asyncio.sleep(0)
        turns += 1
    watch.deadline.forget(answer)
    # A turn takes the whole time, a tick two turns, and there must be three of them.
    assert turns < 12


async def test_other_work_has_the_same_time() -> None:
    watch = Watch()
    assert await watch.deadline.within(asyncio.sleep(SECONDS / 4, "done")) == "done"
    with pytest.raises(TimeoutError):
        await watch.deadline.within(asyncio.sleep(60))
