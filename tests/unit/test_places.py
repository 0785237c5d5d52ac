"""The order in which connections are lent, and refusals where waiting is vain."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedsvc.backends.postgres.admission import (
    Admission,
    Asker,
    LeaseHistory,
    PoolExhaustedError,
    Slot,
    retry_after,
)
from tests.support.drawn import share


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def take(places: Admission, *, large: bool = False, timeout: float = 5.0) -> Slot:
    return await places.take(large=large, timeout=timeout)


async def begun(
    places: Admission, *, large: bool = False, timeout: float = 5.0
) -> asyncio.Task[Slot]:
    """A request that waits in line by now."""
    task = asyncio.create_task(take(places, large=large, timeout=timeout))
    await asyncio.sleep(0)
    return task


async def use_up(places: Admission, clock: Clock, seconds: float, *, large: bool) -> None:
    """Give the places some experience: each kept for so long."""
    for _ in range(10):
        place = await take(places, large=large)
        clock.now += seconds
        places.give_back(place)


async def test_exports_leave_the_reserve_to_small_work() -> None:
    places = Admission(4, 1, 100)
    exports = [await take(places, large=True) for _ in range(3)]
    waiting = await begun(places, large=True)
    for _ in range(20):
        places.give_back(await take(places))
    assert not waiting.done(), "an export took the reserve"
    places.give_back(exports[0])
    assert (await waiting).large
    assert (places.in_use, places.in_large_use) == (3, 3)


async def test_small_work_may_have_every_place() -> None:
    places = Admission(4, 1, 100)
    taken = [await take(places) for _ in range(4)]
    waiting = await begun(places)
    assert not waiting.done()
    assert places.pressed.is_set()
    places.give_back(taken[0])
    await waiting
    assert not places.pressed.is_set()


async def test_waiting_requests_are_served_in_order_but_for_large_work_before_the_reserve() -> None:
    places = Admission(2, 1, 100)
    large, small = await take(places, large=True), await take(places)
    line = [await begun(places, large=n % 2 == 0) for n in range(4)]
    served: list[int] = []
    for n, task in enumerate(line):
        task.add_done_callback(lambda _, n=n: served.append(n))  # type: ignore[misc]
    places.give_back(small)
    last = await line[1]
    assert served == [1], "the first one is large, and only the reserve is free"
    places.give_back(large)
    await line[0]
    assert served == [1, 0]
    places.give_back(last)
    await line[3]
    assert served == [1, 0, 3]
    line[2].cancel()


async def test_a_request_that_waited_for_its_whole_time_gets_that_reason() -> None:
    places = Admission(1, 0, 100)
    await take(places)
    with pytest.raises(PoolExhaustedError) as caught:
        await take(places, timeout=0.02)
    assert caught.value.why == "late"
    assert (places.waiting, places.pressed.is_set()) == (0, False)


async def test_no_more_may_wait_than_the_queue_is_long() -> None:
    places = Admission(1, 0, 2)
    await take(places)
    waiting = [await begun(places) for _ in range(2)]
    with pytest.raises(PoolExhaustedError) as caught:
        await take(places)
    assert caught.value.why == "full"
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert places.waiting == 0


async def test_a_request_that_would_wait_in_vain_is_refused_at_once_with_a_time_to_return() -> None:
    clock = Clock()
    places = Admission(3, 1, 100, clock)
    await use_up(places, clock, 60.0, large=True)
    for _ in range(2):
        await take(places, large=True)
        clock.now += 5
    with pytest.raises(PoolExhaustedError) as caught:
        await take(places, large=True, timeout=20)
    # The older one has 50 of its 60 seconds left.
    assert caught.value.why == "vain"
    assert caught.value.wait == pytest.approx(50)
    clock.now += 35
    waiting = await begun(places, large=True, timeout=20)
    assert not waiting.done(), "15 seconds are worth waiting for"
    with pytest.raises(PoolExhaustedError) as caught:
        await take(places, large=True, timeout=20)
    assert caught.value.wait == pytest.approx(15 + 60 / 2), "somebody is before it in the line"
    waiting.cancel()
    # Small work has a place of its own, whatever exports do.
    await take(places, timeout=0.01)


async def test_no_request_is_refused_on_a_guess_from_nothing() -> None:
    places = Admission(1, 0, 100)
    await take(places, large=True)
    assert places.guess(large=True) is None
    waiting = await begun(places, large=True)
    assert not waiting.done()
    waiting.cancel()


async def test_a_lease_longer_than_all_before_is_guessed_to_last_as_long_again() -> None:
    past = LeaseHistory()
    for seconds in (1.0, 2.0, 3.0):
        past.add(seconds)
    assert past.soonest_end([0.0]) == pytest.approx(2.0)
    assert past.soonest_end([1.5]) == pytest.approx(1.0)
    assert past.soonest_end([10.0]) == pytest.approx(10.0)
    assert past.soonest_end([10.0, 2.5]) == pytest.approx(0.5)


async def test_a_place_that_comes_just_as_its_waiter_is_cancelled_is_not_lost() -> None:
    places = Admission(1, 0, 100)
    place = await take(places)
    waiting = await begun(places)
    places.give_back(place)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert places.in_use == 0
    await take(places, timeout=0.01)


@pytest.mark.parametrize(
    ("size", "reserve", "small", "spare"),
    [(5, 1, 0, 3), (5, 1, 1, 2), (5, 1, 3, 0), (5, 3, 0, 1), (2, 0, 0, 0), (1, 0, 0, 0)],
)
async def test_what_is_lent_is_neither_of_the_reserve_nor_the_last_one(
    size: int, reserve: int, small: int, spare: int
) -> None:
    places = Admission(size, reserve, 100)
    await take(places, large=True)
    for _ in range(small):
        await take(places)
    assert places.spare == spare
    lent = [places.borrow() for _ in range(spare)]
    assert None not in lent
    assert places.borrow() is None
    assert (places.in_use, places.in_large_use) == (1 + small + spare, 1 + spare)
    for place in filter(None, lent):
        places.give_back(place)
    assert places.spare == spare


async def test_beside_two_exports_nothing_is_lent() -> None:
    places = Admission(10, 1, 100)
    await take(places, large=True)
    assert places.borrow() is not None
    assert not places.is_shared
    second = await take(places, large=True)
    assert places.is_shared
    assert places.borrow() is None
    places.give_back(second)
    assert places.borrow() is not None


async def test_while_a_request_waits_nothing_is_lent() -> None:
    places = Admission(4, 3, 100)
    await take(places, large=True)
    waiting = await begun(places, large=True)
    assert places.in_use < places.size
    assert places.borrow() is None
    waiting.cancel()


@pytest.mark.parametrize("large", [True, False])
async def test_no_request_is_refused_before_a_place_that_is_lent(*, large: bool) -> None:
    """Whatever is known of how long places are kept, and though nobody may wait."""
    clock = Clock()
    places = Admission(4, 1, 0, clock)
    await use_up(places, clock, 60.0, large=large)
    await take(places, large=True)
    lent = [places.borrow(), places.borrow()]
    if not large:
        await take(places)
    waiting = [await begun(places, large=large, timeout=1.0) for _ in lent]
    assert places.pressed.is_set()
    with pytest.raises(PoolExhaustedError):
        await take(places, large=large, timeout=1.0)
    for place in lent:
        assert place is not None
        places.give_back(place)
    assert [(await task).large for task in waiting] == [large, large]


async def test_the_time_for_which_places_were_lent_is_not_learnt_from() -> None:
    clock = Clock()
    places = Admission(4, 1, 100, clock)
    await use_up(places, clock, 60.0, large=True)
    await take(places, large=True)
    for _ in range(100):
        place = places.borrow()
        assert place is not None
        clock.now += 0.01
        places.give_back(place)
    for _ in range(2):
        await take(places, large=True)
    assert places.guess(large=True) == pytest.approx(59)


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**32))
@settings(max_examples=share(80))
def test_no_place_is_ever_lost_or_given_twice(size: int, reserve: int, seed: int) -> None:
    """Takers that are cancelled, too late, refused or served, at random moments."""

    async def storm() -> None:
        chance = random.Random(seed)
        places = Admission(size, min(reserve, size - 1), 8)
        holding = 0
        holding_large = 0

        async def one() -> None:
            nonlocal holding, holding_large
            large = chance.random() < 0.5
            try:
                place = await places.take(large=large, timeout=chance.choice((0.0005, 0.5)))
            except PoolExhaustedError:
                return
            holding += 1
            holding_large += large
            assert holding <= size
            assert holding_large <= places.most_large
            try:
                await asyncio.sleep(chance.choice((0, 0, 0.0005)))
            finally:
                holding -= 1
                holding_large -= large
                places.give_back(place)

        tasks = []
        for _ in range(60):
            tasks.append(asyncio.create_task(one()))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [r for r in results if isinstance(r, AssertionError)]
        assert (places.in_use, places.in_large_use, places.waiting) == (0, 0, 0)
        assert not places.pressed.is_set()
        everything = [await places.take(large=False, timeout=0.01) for _ in range(size)]
        assert len(set(everything)) == size

    asyncio.run(storm())


@pytest.mark.parametrize(("wait", "seconds"), [(None, 2), (0.0, 1), (0.2, 1), (3.1, 4), (1e6, 60)])
def test_retry_after_is_whole_seconds_within_reason(wait: float | None, seconds: int) -> None:
    assert retry_after(wait, 60) == seconds


def asker(principal: str, dataset: str | None = None) -> Asker:
    return Asker((principal,), dataset)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_principals_take_turns_however_many_one_of_them_has_in_line() -> None:
    places = Admission(1, 0, 100)
    first = await places.take(large=False, timeout=60, asker=asker("flood"))
    served: list[str] = []

    async def ask(who: str) -> None:
        place = await places.take(large=False, timeout=60, asker=asker(who))
        served.append(who)
        places.give_back(place)

    asking = [asyncio.create_task(ask("flood")) for _ in range(20)]
    await settle()
    asking += [asyncio.create_task(ask(who)) for who in ("one", "two", "one")]
    await settle()
    places.give_back(first)
    await asyncio.gather(*asking)
    assert served[:6] == ["flood", "one", "two", "flood", "one", "flood"]


async def test_no_caller_has_more_than_a_share_and_the_rest_is_the_others() -> None:
    places = Admission(8, 2, 100, share=0.75)
    small = [await places.take(large=False, timeout=60, asker=asker("flood")) for _ in range(6)]
    assert not places.may_have(asker("flood"), large=False)
    waiting = asyncio.create_task(places.take(large=False, timeout=60, asker=asker("flood")))
    await settle()
    assert (places.in_use, places.waiting) == (6, 1)
    await places.take(large=False, timeout=60, asker=asker("other"))
    assert not waiting.done(), "a place is free, and not for it"
    places.give_back(small.pop())
    assert (await waiting).asker == asker("flood")


async def test_of_large_work_the_share_is_of_what_large_work_may_have() -> None:
    places = Admission(5, 1, 100, share=0.75)
    for _ in range(3):
        await places.take(large=True, timeout=60, asker=asker("one"))
    assert not places.may_have(asker("one"), large=True)
    assert places.may_have(asker("one"), large=False)
    assert places.may_have(asker("two"), large=True)


async def test_a_dataset_that_hangs_leaves_places_to_the_others() -> None:
    places = Admission(4, 0, 100, share=0.75)
    for who in ("one", "two", "three"):
        await places.take(large=False, timeout=60, asker=asker(who, "locked"))
    waiting = asyncio.create_task(
        places.take(large=False, timeout=60, asker=asker("four", "locked"))
    )
    await settle()
    assert not waiting.done()
    # Not even the same principal waits behind it with another dataset.
    await places.take(large=False, timeout=60, asker=asker("four", "fine"))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert places.waiting == 0


async def test_of_the_line_too_a_principal_has_but_a_share() -> None:
    places = Admission(1, 0, 4, share=0.75)
    await places.take(large=False, timeout=60, asker=asker("flood"))
    asking = [
        asyncio.create_task(places.take(large=False, timeout=60, asker=asker("flood")))
        for _ in range(3)
    ]
    await settle()
    with pytest.raises(PoolExhaustedError, match="own"):
        await places.take(large=False, timeout=60, asker=asker("flood"))
    asking.append(asyncio.create_task(places.take(large=False, timeout=60, asker=asker("other"))))
    await settle()
    assert places.waiting == 4
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_a_long_line_of_one_principal_is_no_reason_to_send_another_one_away() -> None:
    clock = Clock()
    places = Admission(1, 0, 1_000, clock)
    for _ in range(10):
        place = await places.take(large=False, timeout=60, asker=asker("flood"))
        clock.now += 1.0
        places.give_back(place)
    await places.take(large=False, timeout=60, asker=asker("flood"))
    asking = [
        asyncio.create_task(places.take(large=False, timeout=900, asker=asker("flood")))
        for _ in range(200)
    ]
    await settle()
    assert places.guess(large=False, asker=asker("flood")) == pytest.approx(201)
    assert places.guess(large=False, asker=asker("other")) == pytest.approx(2)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
