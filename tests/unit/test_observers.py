"""Events of requests may be published a little later, and never in another order."""

import asyncio
from typing import NamedTuple

from feedsvc.core.events import CacheLookup, DatabaseFault, LogTurned, Observers, PoolLease

HIT = CacheLookup("clients", "hit", "memory", None)
LEASE = PoolLease("read", "leased", 0.1)


class Seen(NamedTuple):
    """Observers, and what they have been told so far."""

    observers: Observers
    reported: list[object]


def seen_with(patience: float) -> Seen:
    seen = Seen(Observers(patience), [])
    for kind in (CacheLookup, PoolLease, LogTurned, DatabaseFault):
        seen.observers.add(kind, seen.reported.append)
    return seen


async def test_those_of_requests_wait_and_come_by_themselves() -> None:
    observers, reported = seen_with(0.02)
    observers.publish(HIT)
    observers.publish(LEASE)
    assert reported == []
    async with asyncio.timeout(30):
        while reported != [HIT, LEASE]:
            await asyncio.sleep(0.01)
        observers.publish(HIT)
        while reported != [HIT, LEASE, HIT]:
            await asyncio.sleep(0.01)


async def test_what_may_not_wait_takes_along_what_came_before() -> None:
    observers, reported = seen_with(60)
    observers.publish(HIT)
    observers.publish(LogTurned(reads=False))
    assert reported == [HIT, LogTurned(reads=False)]
    observers.publish(LEASE)
    observers.catch_up()
    assert reported[2:] == [LEASE]


async def test_no_more_than_so_many_wait() -> None:
    observers, reported = seen_with(60)
    for _ in range(1_001):
        observers.publish(HIT)
    assert len(reported) == 1_001


def test_without_patience_nothing_waits_and_no_loop_is_needed() -> None:
    observers, reported = seen_with(0)
    observers.publish(HIT)
    assert reported == [HIT]


async def test_one_that_fails_takes_nothing_from_the_others() -> None:
    observers, reported = Observers(60), list[object]()

    def fail(_: CacheLookup) -> None:
        raise ZeroDivisionError

    observers.add(CacheLookup, fail)
    observers.add(CacheLookup, reported.append)
    observers.publish(HIT)
    observers.publish(HIT)
    observers.catch_up()
    assert reported == [HIT, HIT]


async def test_events_of_an_observer_are_published_too() -> None:
    observers, reported = seen_with(60)
    observers.add(CacheLookup, lambda _: observers.publish(DatabaseFault("timeout")))
    observers.publish(HIT)
    observers.catch_up()
    assert reported == [HIT, DatabaseFault("timeout")]
