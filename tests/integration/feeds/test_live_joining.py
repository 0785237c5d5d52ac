"""Clients that join a cohort while the tail is late, frozen, or reads an older state."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from feedsvc.core.problems import Reset, Unavailable
from feedsvc.feeds.live import step, tail
from feedsvc.feeds.live.cohort import Cohort
from feedsvc.feeds.live.step import ChangeReader
from tests.support import locks
from tests.support.live_tail import APPLICATION, DEADLINE, SteppedTail, tail_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from feedsvc.backends.postgres.pool import Connection
    from tests.support.live_tail import LiveReader, TailWorld

INSERT: Final = "INSERT INTO shop.orders (number, tenant, name) VALUES"
BACKENDS: Final = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
)


@pytest.fixture
async def world(tail_database: tuple[str, Path]) -> AsyncIterator[TailWorld]:
    async with tail_world(*tail_database) as world:
        yield world


def stepped(world: TailWorld) -> SteppedTail:
    assert isinstance(world.tail, SteppedTail)
    return world.tail


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


async def joining(reader: LiveReader, ticks: SteppedTail) -> LiveReader:
    """Join, while the tail ticks for as long as that waits."""
    task = asyncio.create_task(reader.join())
    while not task.done():
        await ticks.tick()
        await asyncio.sleep(0)
    return await task


async def test_one_that_comes_behind_a_change_of_rights_asks_once_and_waits_for_the_look(
    world: TailWorld,
) -> None:
    """A cohort has a former state of rights until the tail looks at them again."""
    await world.owner.execute(f"{INSERT} (1, 'a', 'x')")
    first = await (await world.reader("orders")).join()
    await stepped(world).tick()
    await world.owner.execute(
        "ALTER POLICY readers ON shop.orders USING (tenant = 'a' AND current_user <> 'nobody')"
    )
    second = await world.reader("orders")
    task = asyncio.create_task(second.join())
    await eventually(lambda: first.cohort.awaited == 1 or second.steps > 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert second.steps == 1
    await stepped(world).tick()
    await eventually(task.done)
    assert await first.read() == ["reset"]
    assert second.cohort is not first.cohort
    assert second.steps == 2
    await world.owner.execute(f"{INSERT} (2, 'a', 'y')")
    await stepped(world).tick()
    await second.read()
    assert (sorted(second.rows), second.mistakes) == ([1, 2], [])


async def test_what_ends_one_cohort_brings_a_look_at_all_that_have_the_same_rules(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is looked at each two seconds, and they may be thousands."""
    monkeypatch.setattr(tail, "VERIFY_EVERY", 3_600.0)
    readers = [await (await world.reader("orders", tenant)).join() for tenant in "abc"]
    await stepped(world).tick()
    await world.owner.execute(
        "ALTER POLICY readers ON shop.orders USING (current_user <> 'nobody'"
        " AND tenant = (SELECT current_setting('feedsvc.tenant', true)))"
    )
    world.tail._verified.clear()  # two seconds later
    for _ in range(2):
        await stepped(world).tick()
    assert [await reader.read() for reader in readers] == 3 * [["reset"]]


async def test_what_the_log_has_lost_before_the_tail_has_read_it_is_a_reset(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows no rows then, and a cohort that were passed over would lack them for good."""
    monkeypatch.setattr(tail, "VERIFY_EVERY", 3_600.0)
    reader = await (await world.reader("orders")).join()
    await stepped(world).tick()
    await stepped(world).tick()
    floor = await world.owner.fetchval("SELECT floor::text FROM feedsvc.log_floor")
    await world.owner.execute(f"{INSERT} (1, 'a', 'x'); DELETE FROM feedsvc.log")
    set_floor = "UPDATE feedsvc.log_floor SET floor = $1::text::pg_snapshot"
    now = await world.owner.fetchval("SELECT pg_current_snapshot()::text")
    await world.owner.execute(set_floor, now)
    try:
        await stepped(world).tick()
        assert await reader.read() == ["reset"]
        assert reader.reset_reasons == ["expired"]
    finally:
        await world.owner.execute(set_floor, floor)


@pytest.mark.parametrize("is_guarded", [True, False])
async def test_one_that_is_ahead_waits_until_the_cohort_has_reached_its_state(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch, is_guarded: bool
) -> None:
    """Else a step that is being read, of an older state, would take it back."""
    if not is_guarded:
        monkeypatch.setattr(Cohort, "has_reached", lambda *_: True)
    first = await (await world.reader("orders")).join()
    is_read, may_go_on, read = asyncio.Event(), asyncio.Event(), ChangeReader.read

    async def slowly(*given: object) -> object:
        step = await read(*given)  # type: ignore[arg-type]
        is_read.set()
        await may_go_on.wait()
        return step

    await world.owner.execute(f"{INSERT} (1, 'a', 'x')")
    with monkeypatch.context() as patched:
        patched.setattr(ChangeReader, "read", slowly)
        ticking = asyncio.create_task(stepped(world).tick())
        await asyncio.wait_for(is_read.wait(), DEADLINE)
    await world.owner.execute(f"{INSERT} (2, 'a', 'y')")
    second = await world.reader("orders")
    task = asyncio.create_task(second.join())
    await eventually(lambda: task.done() or first.cohort.awaited == 1)
    assert task.done() != is_guarded
    may_go_on.set()
    await ticking
    while not task.done():
        await stepped(world).tick()
        await asyncio.sleep(0)
    await stepped(world).tick()
    for reader in (first, second):
        await reader.read()
        assert sorted(reader.rows) == [1, 2]
    assert first.mistakes == []
    assert bool(second.mistakes) != is_guarded


async def test_one_that_catches_up_goes_on_with_the_first_event_behind_what_it_has_read(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = await (await world.reader("orders")).join()
    is_read, may_go_on, read = asyncio.Event(), asyncio.Event(), ChangeReader.read

    async def slowly(*given: object) -> object:
        step = await read(*given)  # type: ignore[arg-type]
        if not is_read.is_set():
            is_read.set()
            await may_go_on.wait()
        return step

    for number in (1, 2):
        await world.owner.execute(f"{INSERT} ({number}, 'a', 'x')")
        await stepped(world).tick()
    monkeypatch.setattr(ChangeReader, "read", slowly)
    catching_up = asyncio.create_task(slow.catch_up())
    await asyncio.wait_for(is_read.wait(), DEADLINE)
    await world.owner.execute(f"{INSERT} (3, 'a', 'x')")
    await stepped(world).tick()
    may_go_on.set()
    await catching_up
    assert sorted(slow.rows) == [1, 2]
    await slow.read()
    assert (sorted(slow.rows), slow.mistakes) == ([1, 2, 3], [])


async def test_one_that_waits_for_a_frozen_tail_is_sent_away(
    tail_database: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tail_world(*tail_database, is_stepped=False) as world:
        first = await (await world.reader("orders")).join()
        await world.owner.execute(f"{INSERT} (1, 'a', 'x')")
        await eventually(lambda: first.cohort.broadcast.next == 1)
        frozen = [row["pid"] for row in await world.owner.fetch(BACKENDS, APPLICATION)]
        assert frozen
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            await world.owner.execute("UPDATE shop.orders SET name = 'y'")
            second = await world.reader("orders")
            monkeypatch.setattr(tail, "_PATIENCE", 0.1)
            with pytest.raises(Unavailable):
                await second.join()
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        monkeypatch.setattr(tail, "_PATIENCE", DEADLINE)
        await second.join()
        assert first.cohort.awaited == 0


async def test_a_step_that_would_take_too_much_memory_is_a_reset(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "MOST_BYTES", 100_000)
    rows = "SELECT n, 'a', repeat('x', 500) FROM generate_series(1, 900) n"
    await world.owner.execute(f"INSERT INTO shop.orders (number, tenant, name) {rows}")
    first, second = await (await world.reader("orders")).join(), await world.reader("orders")
    await stepped(world).tick()
    await world.owner.execute("UPDATE shop.orders SET name = repeat('y', 500) WHERE number < 150")
    await stepped(world).tick()
    assert "reset" not in await first.read()
    assert first.rows[149]["name"][0] == "y"
    await world.owner.execute("UPDATE shop.orders SET name = repeat('z', 500) WHERE number < 700")
    await stepped(world).tick()
    await first.read()
    assert first.reset_reasons == ["larger"]
    with pytest.raises(Reset) as problem:
        await joining(second, stepped(world))
    assert problem.value.reason == "larger"
    assert first.mistakes == second.mistakes == []


async def test_a_question_waits_for_what_is_left_of_the_pause_since_the_last_one(
    world: TailWorld,
) -> None:
    """So what the tail does behind an answer does not come on top of it."""
    arrivals, since = world.tail._arrivals, (await world.reader("orders")).state.snapshot
    following = partial(arrivals.next, since, [], 3_600.0)
    await asyncio.wait_for(following(), DEADLINE)
    early = asyncio.create_task(following())
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not early.done()
    arrivals.hurry()
    await asyncio.wait_for(early, DEADLINE)
    await arrivals.close()
    arrivals._asked -= 3_600.0
    await asyncio.wait_for(following(), DEADLINE)


async def test_an_answer_does_not_wait_until_its_connection_is_given_back(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrivals, since = world.tail._arrivals, (await world.reader("orders")).state.snapshot
    lease, is_given_back = arrivals._pool.lease, asyncio.Event()

    @asynccontextmanager
    async def slowly() -> AsyncIterator[Connection]:
        async with lease() as connection:
            yield connection
            await is_given_back.wait()

    monkeypatch.setattr(arrivals._pool, "lease", slowly)
    await asyncio.wait_for(arrivals.next(since, [], 0.0), DEADLINE)
    is_given_back.set()


async def test_the_heartbeats_of_a_quiet_cohort_have_few_ids(world: TailWorld) -> None:
    """Each id that clients come back with is read for, while others write."""
    reader = await (await world.reader("orders")).join()
    cohort, ids = reader.cohort, list[bytes]()
    for number, tenant in enumerate("bbbabbab"):
        await world.owner.execute(f"{INSERT} ({number}, '{tenant}', 'x')")
        await stepped(world).tick()
        ids.append(cohort.heartbeat(3_600.0 if number < 6 else 0.0))
    assert [ids.index(each) for each in ids] == [0, 0, 0, 3, 3, 3, 6, 7]
    assert reader.mistakes == []


async def test_one_that_has_more_than_its_state_shares_no_reading_that_is_under_way(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That reading may know nothing of what it has."""
    reader = await world.reader("orders")
    cohort = world.cohort(reader.query, reader.who)
    may_go_on, read, reads = asyncio.Event(), ChangeReader.read, 0

    async def slowly(*given: object) -> object:
        nonlocal reads
        reads += 1
        step = await read(*given)  # type: ignore[arg-type]
        if reads == 1:
            await may_go_on.wait()
        return step

    monkeypatch.setattr(ChangeReader, "read", slowly)
    first = asyncio.create_task(world.tail.step(cohort, reader.state))
    await eventually(lambda: reads == 1)
    second = asyncio.create_task(world.tail.step(cohort, reader.state))
    await asyncio.wait_for(replace(reader, is_whole=False).join(), DEADLINE)
    may_go_on.set()
    assert await first is await second
    assert reads == 2


async def test_a_locked_table_holds_up_its_own_readers_alone(world: TailWorld) -> None:
    locked = await (await world.reader("orders")).join()
    other = await (await world.reader("parts")).join()
    await stepped(world).tick()
    parts = "INSERT INTO shop.parts (row_id, number, tenant, name) VALUES (1, 1, 'a', 'x')"
    await world.owner.execute(f"{INSERT} (1, 'a', 'x'); {parts}")
    async with locks.locked(world.url, "shop.orders"):
        await stepped(world).tick()
        assert await other.read() == ["change"]
        assert await locked.read() == []
    locked.cohort.not_before = 0.0
    await stepped(world).tick()
    assert await locked.read() == ["change"]
    assert locked.mistakes == other.mistakes == []


async def test_many_that_come_back_at_once_with_one_state_are_read_for_once(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a worker's death: the cohort is new, and none of its events are kept."""
    crowd = [await world.reader("orders")]
    crowd += [replace(crowd[0], rows={}, told=set(), mistakes=[]) for _ in range(200)]
    await world.owner.execute(f"{INSERT} (1, 'a', 'x')")
    reads, read = 0, ChangeReader.read

    async def counted(*given: object) -> object:
        nonlocal reads
        reads += 1
        return await read(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(ChangeReader, "read", counted)
    monkeypatch.setattr(tail, "VERIFY_EVERY", 3_600.0)  # for which a slow machine has time
    tasks = [asyncio.create_task(reader.join()) for reader in crowd]
    while not all(task.done() for task in tasks):
        await stepped(world).tick()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert reads <= 3
    assert all(sorted(reader.rows) == [1] and not reader.mistakes for reader in crowd)
