"""Events for many subscribers: numbered, kept in bounds, and taken in fair turns."""

from __future__ import annotations

import asyncio

import pytest

from feedsvc.core.broadcast import Broadcast, FanOut


class Taker:
    """A subscriber that takes all that is there, and notes when."""

    def __init__(self, broadcast: Broadcast, log: list[Taker] | None = None) -> None:
        self.broadcast = broadcast
        self.number = broadcast.next
        self.taken: list[bytes] = []
        self.log = [] if log is None else log

    def wake(self) -> bool:
        self.log.append(self)
        events = self.broadcast.since(self.number)
        assert events is not None
        self.taken += events
        self.number += len(events)
        return bool(events)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def turn() -> None:
    """One turn of the loop."""
    await asyncio.sleep(0)


async def test_events_are_numbered_and_framed_once() -> None:
    broadcast = Broadcast(FanOut())
    takers = [Taker(broadcast) for _ in range(3)]
    for taker in takers:
        broadcast.subscribe(taker)
    assert [broadcast.publish(b"data: %d\n\n" % n) for n in range(2)] == [0, 1]
    await turn()
    assert takers[0].taken == [b"9\r\ndata: 0\n\n\r\n", b"9\r\ndata: 1\n\n\r\n"]
    assert all(t.taken[1] is takers[0].taken[1] for t in takers)
    assert (broadcast.first, broadcast.next, broadcast.kept_bytes, broadcast.count) == (0, 2, 28, 3)


async def test_what_is_no_longer_kept_is_none_and_not_short() -> None:
    broadcast = Broadcast(FanOut(), most_bytes=40)
    for number in range(5):
        broadcast.publish(b"event %d\n\n" % number)
    assert (broadcast.first, broadcast.next, broadcast.kept_bytes) == (3, 5, 28)
    assert broadcast.since(2) is None
    assert broadcast.since(3) == [b"9\r\nevent 3\n\n\r\n", b"9\r\nevent 4\n\n\r\n"]
    assert broadcast.since(5) == []


async def test_age_bounds_what_is_kept() -> None:
    clock = Clock()
    broadcast = Broadcast(FanOut(), most_age=60, clock=clock)
    for number in range(3):
        broadcast.publish(b"%d" % number)
        clock.now += 30
    broadcast.trim()
    assert (broadcast.first, broadcast.kept_bytes) == (1, 12)
    clock.now += 600
    broadcast.trim()
    assert (broadcast.first, broadcast.next) == (2, 3)


async def test_the_newest_event_is_kept_however_large() -> None:
    broadcast = Broadcast(FanOut(), most_bytes=10)
    broadcast.publish(b"x" * 100)
    assert (broadcast.first, broadcast.since(0)) == (0, [b"64\r\n%b\r\n" % (b"x" * 100)])


async def test_an_event_that_comes_within_a_round_reaches_the_first_of_it_too() -> None:
    broadcast = Broadcast(FanOut())
    takers = [Taker(broadcast) for _ in range(300)]
    for taker in takers:
        broadcast.subscribe(taker)
    broadcast.publish(b"a")
    await turn()
    assert [len(t.taken) for t in takers] == [1] * 256 + [0] * 44
    broadcast.publish(b"b")
    while broadcast.has_waiting:
        await turn()
    assert [len(t.taken) for t in takers] == [2] * 300
    assert [len(t.log) for t in takers] == [2] * 300


async def test_the_loop_turns_between_writes_and_broadcasts_take_turns() -> None:
    fan_out, log = FanOut(), list[Taker]()
    large, small = Broadcast(fan_out), Broadcast(fan_out)
    for broadcast, count in ((large, 1000), (small, 3)):
        for _ in range(count):
            broadcast.subscribe(Taker(broadcast, log))
    large.publish(b"a")
    small.publish(b"b")
    turns = []
    while large.has_waiting or small.has_waiting:
        before = len(log)
        await turn()
        turns.append(len(log) - before)
    assert max(turns) == 256
    assert sum(turns) == 1003
    assert max(i for i, taker in enumerate(log) if taker.broadcast is small) < 2 * 256


async def test_one_that_leaves_within_a_round_is_woken_no_more() -> None:
    broadcast = Broadcast(FanOut())
    takers = [Taker(broadcast) for _ in range(300)]
    for taker in takers:
        broadcast.subscribe(taker)
    broadcast.publish(b"a")
    await turn()
    broadcast.unsubscribe(takers[299])
    broadcast.unsubscribe(takers[299])
    while broadcast.has_waiting:
        await turn()
    assert [len(t.log) for t in takers[-2:]] == [1, 0]


async def test_one_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Taker):
        def wake(self) -> bool:
            raise RuntimeError("no")

    broadcast = Broadcast(FanOut())
    failing, other = Failing(broadcast), Taker(broadcast)
    broadcast.subscribe(failing)
    broadcast.subscribe(other)
    broadcast.publish(b"a")
    await turn()
    assert (len(other.taken), broadcast.count) == (1, 1)
    assert "a subscriber of a broadcast failed" in caplog.text


async def test_one_that_comes_wakes_no_other() -> None:
    broadcast = Broadcast(FanOut())
    takers = [Taker(broadcast) for _ in range(2)]
    broadcast.publish(b"a")
    broadcast.subscribe(takers[0])
    await turn()
    broadcast.publish(b"b")
    broadcast.subscribe(takers[1])
    await turn()
    broadcast.subscribe(Taker(broadcast))
    await turn()
    assert [len(t.log) for t in takers] == [1, 1]


async def test_the_end_is_an_event_behind_which_there_is_none() -> None:
    broadcast = Broadcast(FanOut())
    taker = Taker(broadcast)
    broadcast.subscribe(taker)
    broadcast.end(b"bye")
    broadcast.end(b"again")
    await turn()
    assert (taker.taken, broadcast.ended) == ([b"3\r\nbye\r\n"], True)
    for data in (b"more", b""):
        with pytest.raises(ValueError, match="end"):
            broadcast.publish(data)


async def test_an_empty_event_is_refused_for_its_chunk_would_end_the_answer() -> None:
    with pytest.raises(ValueError, match="empty"):
        Broadcast(FanOut()).publish(b"")


async def test_lag_counts_from_the_oldest_commit_to_the_turn_behind_the_write() -> None:
    seen: list[tuple[float, int]] = []
    broadcast = Broadcast(FanOut(lambda seconds, count: seen.append((seconds, count))))
    for _ in range(300):
        broadcast.subscribe(Taker(broadcast))
    broadcast.publish(b"b", committed_at=1.0)
    broadcast.publish(b"a", committed_at=1e12)
    await turn()
    assert seen == []
    await turn()
    await turn()
    assert [count for _, count in seen] == [256, 44]
    assert all(seconds > 1e9 for seconds, _ in seen)
    broadcast.publish(b"c", committed_at=1e12)
    await turn()
    await turn()
    assert seen[2] == (0.0, 256)


async def test_an_event_that_no_subscriber_waited_for_lags_for_none() -> None:
    seen: list[tuple[float, int]] = []
    broadcast = Broadcast(FanOut(lambda seconds, count: seen.append((seconds, count))))
    broadcast.publish(b"a", committed_at=1.0)
    broadcast.subscribe(Taker(broadcast))
    broadcast.publish(b"b", committed_at=1e12)
    await turn()
    await turn()
    assert seen == [(0.0, 1)]
