"""Rows that are read once for all who come to a cohort: exact, whoever comes, writes or leaves."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
import pytest

from feedsvc.core.principal import Principal
from feedsvc.core.timing import Stages
from feedsvc.feeds.export import Export, open_export
from feedsvc.feeds.export_options import ExportOptions
from feedsvc.feeds.live import shared_rows
from feedsvc.feeds.live.live_query import LiveQuery, behind
from feedsvc.feeds.live.shared_rows import RowsReplayed, SharedReads, SharedRows
from tests.support.drawn import DRAWN, share
from tests.support.live_tail import DEADLINE, LiveReader, SteppedTail, tail_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from feedsvc.backends.postgres.snapshot import Snapshot
    from feedsvc.feeds.sources.source import Batch
    from tests.support.live_tail import Rows, TailWorld

MOVE: Final = (
    "UPDATE shop.orders SET tenant = CASE tenant WHEN 'a' THEN 'b' ELSE 'a' END WHERE number = 3"
)
INSERT: Final = "INSERT INTO shop.orders (number, tenant, name) VALUES"
SOME: Final = f"{INSERT} (1, 'a', 'x'), (2, 'a', 'y'), (3, 'b', 'z')"


class Given(NamedTuple):
    """What one who came began with."""

    reader: LiveReader
    snapshot: Snapshot
    rows: Rows


class Comers:
    """Those who come to feeds of a world, and what they were given."""

    def __init__(self, world: TailWorld) -> None:
        self.world = world
        self.shared = SharedReads(world.tail, world.cursors)
        self.reads = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.given: list[Given] = []

    def query(self, feed: str) -> LiveQuery:
        given = {"live": "1", "format": "sse"}
        return LiveQuery.parse(given, self.world.datasets[feed])

    def who(self, tenant: str) -> Principal:
        return Principal(tenant, "member", None, 0.0)

    async def rows(self, tenant: str = "a", feed: str = "orders") -> SharedRows | None:
        """Come, and get the rows; None where each reads its own."""
        query, who = self.query(feed), self.who(tenant)
        snapshot = query.feeds[0].snapshot
        make = partial(self.world.cursors.of_several, queries=[snapshot], principal=who)
        options = ExportOptions(16_384, cursor=make)

        @asynccontextmanager
        async def begin() -> AsyncIterator[Export]:
            self.reads += 1
            async with open_export(snapshot, who, self.world.pool, options, Stages()) as export:
                await self.may_end.wait()
                yield export

        cohort = self.world.cohort(query, who)
        with cohort.pinned():
            return await self.shared.of(cohort, begin)

    async def come(self, tenant: str = "a", feed: str = "orders") -> LiveReader:
        """Come, and join from the rows' cursor."""
        found = await self.rows(tenant, feed)
        assert found is not None
        assert found.cursor is not None
        assert found.is_whole
        held = {row["number"]: row for batch in found.batches for row in rows_of(batch)}
        state = self.world.cursors.parse(found.cursor)
        query, who = self.query(feed), self.who(tenant)
        reader = LiveReader(self.world, feed, query, who, state, held)
        self.given.append(Given(reader, state.snapshot, dict(held)))
        return await reader.join()

    async def mistakes(self) -> int:
        """How many were given other rows than their cursor's."""
        found = 0
        for given in self.given:
            feed, tenant = given.reader.feed, given.reader.who.tenant
            found += given.rows != await self.world.expected(feed, tenant, given.snapshot)
        return found

    async def all(self, tasks: list[asyncio.Task[LiveReader]]) -> list[LiveReader]:
        """Tick until all of these have come."""
        while not all(task.done() for task in tasks):
            await self.tick()
            await asyncio.sleep(0)
        return [await task for task in tasks]

    async def tick(self) -> None:
        assert isinstance(self.world.tail, SteppedTail)
        await self.world.tail.tick()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0)

    def replayed(self, rows: SharedRows) -> RowsReplayed:
        """The rows as an answer sends them."""
        query, who, pool = self.query("orders").feeds[0].snapshot, self.who("a"), self.world.pool

        def rest(token: str | None) -> Export:
            return Export(behind(query, token), who, pool, ExportOptions(16_384), Stages())

        return RowsReplayed(rows, rest)

    def start(self, tenant: str = "a", feed: str = "orders") -> asyncio.Task[LiveReader]:
        return asyncio.create_task(self.come(tenant, feed))


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    """The rows as JSON gives them."""
    rows: list[dict[str, Any]] = json.loads(b"[" + bytes(memoryview(batch.body)) + b"]")
    return rows


async def left_in(replayed: RowsReplayed, batches: int = 1_000) -> list[int]:
    """The numbers of the rows of up to so many batches."""
    found = list[int]()
    for _ in range(batches):
        if not await replayed.wait(DEADLINE) or (batch := await replayed.take()) is None:
            break
        found += [row["number"] for row in rows_of(batch)]
    return found


@pytest.fixture
async def comers(
    tail_database: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Comers]:
    # On a slow machine rows would be forgotten, or read anew, before those who share them come.
    monkeypatch.setattr(shared_rows, "_LOOK_WITHIN", DEADLINE)
    monkeypatch.setattr(shared_rows, "_KEPT_FOR", 3_600.0)
    async with tail_world(*tail_database) as world:
        await world.owner.execute(SOME)
        made = Comers(world)
        yield made
        await made.shared.close()


async def test_all_who_come_at_once_and_see_the_same_are_read_for_once(comers: Comers) -> None:
    tasks = [comers.start("ab"[n % 2]) for n in range(40)]
    readers = await comers.all(tasks)
    assert comers.reads == 2  # one for each tenant
    late = await comers.all([comers.start("a") for _ in range(20)])
    assert comers.reads == 2
    await comers.world.owner.execute("UPDATE shop.orders SET name = 'new'")
    await comers.tick()
    for reader in [*readers, *late]:
        assert reader.steps == 0
        assert await reader.read() == ["change"]
        assert {row["name"] for row in reader.rows.values()} == {"new"}
        assert reader.mistakes == []


async def test_nobody_is_given_rows_or_rights_of_before_it_came(comers: Comers) -> None:
    owner = comers.world.owner
    first = await comers.come()
    await owner.execute(f"{INSERT} (4, 'a', 'new')")
    (second,) = await comers.all([comers.start()])
    assert (sorted(first.rows), sorted(second.rows)) == ([1, 2], [1, 2, 4])
    await owner.execute("ALTER POLICY readers ON shop.orders USING (tenant = 'a' AND number < 2)")
    try:
        (third,) = await comers.all([comers.start()])
        assert sorted(third.rows) == [1]
        await second.read()
        assert second.reset_reasons == ["rights"]
    finally:
        await owner.execute(
            "ALTER POLICY readers ON shop.orders"
            " USING (tenant = (SELECT current_setting('feedsvc.tenant', true)))"
        )
    assert comers.reads == 3


async def test_a_look_that_had_begun_says_nothing_of_what_was_written_before_one_came(
    comers: Comers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await comers.come("b")  # whose rights are read for both
    first, arrivals = await comers.come(), comers.world.tail._arrivals
    was_asked, may_go_on, ask = asyncio.Event(), asyncio.Event(), arrivals.next
    await comers.tick()

    async def slowly(*given: Any) -> Any:
        answer = await ask(*given)
        was_asked.set()
        await may_go_on.wait()
        return answer

    monkeypatch.setattr(arrivals, "next", slowly)
    ticking = asyncio.create_task(comers.tick())
    await asyncio.wait_for(was_asked.wait(), DEADLINE)
    await comers.world.owner.execute(f"{INSERT} (4, 'a', 'new')")
    coming = comers.start()
    await comers.until(lambda: first.cohort.awaited == 1)
    may_go_on.set()
    await ticking
    (second,) = await comers.all([coming])
    assert sorted(second.rows) == [1, 2, 4]


@DRAWN
@pytest.mark.parametrize("seed", range(share(8)))
async def test_rows_are_of_their_cursor_and_have_all_that_was_there_before_one_came(
    comers: Comers, seed: int
) -> None:
    """Rows are written and move out of sight and back between any two who come."""
    draw, last = random.Random(seed), 3
    owner = await asyncpg.connect(comers.world.url)
    coming, known = list[asyncio.Task[LiveReader]](), list[int]()
    for _ in range(60):
        match draw.choice(["come", "come", "come", "write", "tick", "move", "wait"]):
            case "come":
                coming.append(comers.start())
                known.append(last)
            case "write":
                last += 1
                await owner.execute(f"{INSERT} ({last}, 'a', 'kept')")
            case "move":
                await owner.execute(MOVE)
            case "tick":
                await comers.tick()
            case _:
                await asyncio.sleep(draw.choice([0, 0.002, 0.01]))
    readers = await comers.all(coming)
    await comers.tick()
    began = {id(given.reader): set(given.rows) for given in comers.given}
    assert await comers.mistakes() == 0
    for reader, before in zip(readers, known, strict=True):
        assert set(range(4, before + 1)) <= began[id(reader)]
        await reader.read()
        assert reader.mistakes == []
        assert set(range(4, last + 1)) <= set(reader.rows)
    assert comers.reads < len(readers)
    await owner.close()


async def test_the_others_go_on_where_the_first_one_leaves_while_it_is_read_for(
    comers: Comers,
) -> None:
    comers.may_end.clear()
    coming = [comers.start() for _ in range(5)]
    await comers.until(lambda: comers.reads == 1)
    coming.pop(0).cancel()
    comers.may_end.set()
    assert [sorted(reader.rows) for reader in await comers.all(coming)] == [[1, 2]] * 4
    assert comers.reads == 1


async def test_rows_that_are_too_many_are_read_by_each(
    comers: Comers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_rows, "MOST_BYTES", 10_000)
    many = "SELECT n, 'a', repeat('x', 500) FROM generate_series(10, 900) n"
    await comers.world.owner.execute(f"INSERT INTO shop.orders (number, tenant, name) {many}")
    comers.may_end.clear()
    coming = [asyncio.create_task(comers.rows())]
    await comers.until(lambda: comers.reads == 1)
    coming += [asyncio.create_task(comers.rows()) for _ in range(4)]
    await asyncio.sleep(0)
    comers.may_end.set()
    first, *others = await asyncio.gather(*coming)
    assert first is not None
    assert not first.is_whole
    assert first.size < 100_000
    assert others == [None] * 4
    assert comers.reads == 1
    assert comers.shared.kept_bytes == 0
    replayed = comers.replayed(first)
    assert len(await left_in(replayed)) == 893
    assert replayed.snapshots == 2


async def test_one_that_falls_behind_holds_no_rows_and_reads_them_itself(comers: Comers) -> None:
    """And what is kept for those to come is bounded by bytes and time."""
    shared = await comers.rows()
    assert shared is not None
    for is_taken in (False, True):
        replayed = comers.replayed(shared)
        first = await left_in(replayed, 1) if is_taken else []
        await replayed.park()
        assert not replayed.ready
        assert first + await left_in(replayed) == [1, 2]
        assert replayed.snapshots == (1 if is_taken else 2)


async def test_what_is_kept_for_those_to_come_is_bounded(
    comers: Comers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_rows, "_KEPT_FOR", 0.0)
    await comers.rows("b")
    await comers.until(lambda: not comers.shared.kept_bytes)
    monkeypatch.setattr(shared_rows, "_KEPT_FOR", 3_600.0)
    shared = await comers.rows()
    assert shared is not None
    assert comers.shared.kept_bytes == shared.size == len(b'{"number":1,"name":"x"}') * 2 + 1
    monkeypatch.setattr(shared_rows, "_MOST_KEPT", shared.size)
    await comers.rows("b")
    assert comers.shared.kept_bytes == shared.size
