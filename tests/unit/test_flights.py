"""One load for any number of waiters, whichever of them leaves."""

import asyncio

import pytest

from feedsvc.core.problems import Unavailable
from feedsvc.core.single_flight import Flights


class Loads:
    """Counts loads, which wait until they are let go."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.go = asyncio.Event()

    async def until(self, begun: int) -> None:
        """Wait until so many have begun."""
        async with asyncio.timeout(30):
            while self.begun < begun:
                await asyncio.sleep(0)

    async def load(self) -> int:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.begun


async def waiting(flights: Flights[int], loads: Loads, count: int) -> list["asyncio.Task[int]"]:
    begun = loads.begun + ("key" not in flights)
    tasks = [asyncio.create_task(flights.join("key", loads.load)) for _ in range(count)]
    await loads.until(begun)
    return tasks


async def test_five_hundred_have_one_load() -> None:
    flights, loads = Flights[int](), Loads()
    tasks = await waiting(flights, loads, 500)
    loads.go.set()
    assert set(await asyncio.gather(*tasks)) == {1}
    assert "key" not in flights


async def test_the_first_may_go_and_the_others_are_served() -> None:
    flights, loads = Flights[int](), Loads()
    first, *others = await waiting(flights, loads, 3)
    first.cancel()
    await asyncio.sleep(0)
    loads.go.set()
    assert await asyncio.gather(*others) == [1, 1]
    assert loads.cancelled == 0


async def test_when_the_last_has_gone_the_load_ends_and_the_next_begins_anew() -> None:
    flights, loads = Flights[int](), Loads()
    for task in await waiting(flights, loads, 2):
        task.cancel()
    await asyncio.sleep(0)
    [late] = await waiting(flights, loads, 1)
    assert (loads.begun, loads.cancelled) == (2, 1)
    loads.go.set()
    assert await late == 2


async def test_a_load_that_dies_has_one_successor_and_its_waiters_are_unharmed() -> None:
    flights, loads = Flights[int](), Loads()
    tasks = await waiting(flights, loads, 50)
    flights._flights["key"].task.cancel()
    await loads.until(2)
    loads.go.set()
    assert set(await asyncio.gather(*tasks)) == {2}


async def test_a_load_that_dies_again_and_again_is_given_up() -> None:
    flights = Flights[int]()

    async def dies() -> int:
        raise asyncio.CancelledError

    with pytest.raises(Unavailable):
        await flights.join("key", dies)


async def test_what_a_load_raises_all_its_waiters_get() -> None:
    flights = Flights[int]()

    async def fails() -> int:
        await asyncio.sleep(0.01)
        raise Unavailable("no")

    failed = await asyncio.gather(
        *(flights.join("key", fails) for _ in range(3)), return_exceptions=True
    )
    assert [type(error) for error in failed] == [Unavailable] * 3
