"""What comes with each request may be told a little later; nothing is told in another order."""

import asyncio
from typing import NamedTuple

from feedsvc.core.events import CacheLookup, DatabaseFault, ListenerTurned, Observers, PoolLease

HIT = CacheLookup("clients", "hit", "memory", None)
LEASE = PoolLease("read", "leased", 0.1)


class Seen(NamedTuple):
    """Observers, and what they have been told so far."""

    observers: Observers
    told: list[object]


def seen_with(patience: float) -> Seen:
    seen = Seen(Observers(patience), [])
    for kind in (CacheLookup, PoolLease, ListenerTurned, DatabaseFault):
        seen.observers.add(kind, seen.told.append)
    return seen


async def test_those_of_requests_wait_and_come_by_themselves() -> None:
    observers, told = seen_with(0.02)
    observers.tell(HIT)
    observers.tell(LEASE)
    assert told == []
    await asyncio.sleep(0.2)
    assert told == [HIT, LEASE]
    observers.tell(HIT)
    await asyncio.sleep(0.2)
    assert told == [HIT, LEASE, HIT]


async def test_what_may_not_wait_takes_along_what_came_before() -> None:
    observers, told = seen_with(60)
    observers.tell(HIT)
    observers.tell(ListenerTurned(hears=False))
    assert told == [HIT, ListenerTurned(hears=False)]
    observers.tell(LEASE)
    observers.catch_up()
    assert told[2:] == [LEASE]


async def test_no_more_than_so_many_wait() -> None:
    observers, told = seen_with(60)
    for _ in range(1_001):
        observers.tell(HIT)
    assert len(told) == 1_001


def test_without_patience_nothing_waits_and_no_loop_is_needed() -> None:
    observers, told = seen_with(0)
    observers.tell(HIT)
    assert told == [HIT]


async def test_one_that_fails_takes_nothing_from_the_others() -> None:
    observers, told = Observers(60), list[object]()

    def fail(_: CacheLookup) -> None:
        raise ZeroDivisionError

    observers.add(CacheLookup, fail)
    observers.add(CacheLookup, told.append)
    observers.tell(HIT)
    observers.tell(HIT)
    observers.catch_up()
    assert told == [HIT, HIT]


async def test_what_an_observer_tells_is_told_as_well() -> None:
    observers, told = seen_with(60)
    observers.add(CacheLookup, lambda _: observers.tell(DatabaseFault("timeout")))
    observers.tell(HIT)
    observers.catch_up()
    assert told == [HIT, DatabaseFault("timeout")]
