"""Writes to tables behind a policy: cohorts get the difference, and nobody another state."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest

from feedsvc.core.problems import Reset
from feedsvc.feeds.live.cohort import Cohort, Mark
from tests.support.drawn import DRAWN, share
from tests.support.live_tail import SteppedTail, tail_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.live_tail import LiveReader, TailWorld

SOME: Final = (
    (
        "INSERT INTO shop.desks VALUES (1, true), (2, true), (3, false);"
        "INSERT INTO shop.staff VALUES (1, 'a', 0), (2, 'b', 0);"
        "INSERT INTO shop.papers (number, tenant, desk, name) VALUES"
        " (1, 'a', 1, 'x'), (2, 'a', 2, 'x'), (3, 'a', 3, 'x'), (4, 'b', 2, 'x'), (5, 'b', 1, 'x')"
    )
    .replace("desks VALUES", "desks (desk, is_open) VALUES")
    .replace("staff VALUES", "staff (desk, tenant, until) VALUES")
)
GRANT: Final = "INSERT INTO shop.staff (desk, tenant) VALUES"
LABELS: Final = ("m", "n", "o", "hidden")
CHANGES: Final = 180


@pytest.fixture
async def world(tail_database: tuple[str, Path]) -> AsyncIterator[TailWorld]:
    async with tail_world(*tail_database) as world:
        await world.owner.execute(SOME)
        yield world


async def tick(world: TailWorld) -> None:
    assert isinstance(world.tail, SteppedTail)
    await world.tail.tick()


async def joined(world: TailWorld, reader: LiveReader) -> LiveReader:
    """Join, and tick for as long as that waits."""
    task = asyncio.create_task(reader.join())
    while not task.done():
        await tick(world)
        await asyncio.sleep(0)
    return await task


async def followed(world: TailWorld, tenant: str = "a", feed: str = "papers") -> LiveReader:
    """A reader whose cohort knows its keys."""
    reader = await joined(world, await world.reader(feed, tenant))
    await tick(world)
    return reader


async def test_what_comes_into_sight_and_what_leaves_it_are_changes_and_no_reset(
    world: TailWorld,
) -> None:
    member, other = await followed(world), await followed(world, "b")
    assert sorted(member.rows) == [1]
    await world.owner.execute(f"{GRANT} (2, 'a')")
    await tick(world)
    assert await member.read() == ["change"]
    assert (sorted(member.rows), member.told) == ([1, 2], {2})
    await world.owner.execute("DELETE FROM shop.staff WHERE desk = 1")
    await world.owner.execute("UPDATE shop.desks SET is_open = true")
    await tick(world)
    assert await member.read() == ["change"]
    assert (sorted(member.rows), member.told) == ([2], {1, 2})
    # A row that is written while sight changes, and one that is gone without ever being seen.
    await world.owner.execute(
        "UPDATE shop.papers SET name = 'y' WHERE number = 2; DELETE FROM shop.papers"
        f" WHERE number = 3; {GRANT} (1, 'a')"
    )
    await tick(world)
    await member.read()
    assert (member.rows[2]["name"], sorted(member.rows), member.told) == ("y", [1, 2], {1, 2})
    await other.read()
    assert other.told == set()
    assert member.mistakes == other.mistakes == []


async def test_a_view_whose_rows_have_columns_of_a_watched_table_gets_what_differs_in_them(
    world: TailWorld,
) -> None:
    member, other = await followed(world, feed="sheets"), await followed(world, "b", "sheets")
    assert member.rows == {1: {"number": 1, "name": "x", "label": "l"}}
    changes = {
        "UPDATE shop.desks SET label = 'm' WHERE desk = 1": {1: "m"},  # a column alone
        f"{GRANT} (2, 'a')": {1: "m", 2: "l"},
        "UPDATE shop.desks SET label = 'hidden' WHERE desk = 1": {2: "l"},
        "UPDATE shop.papers SET desk = 2 WHERE number = 1": {1: "l", 2: "l"},  # none of them
        "DELETE FROM shop.desks WHERE desk <> 2; UPDATE shop.desks SET desk = 1": {},
        "UPDATE shop.desks SET is_open = true, desk = 2, label = 'n'": {1: "n", 2: "n"},
        "UPDATE shop.desks SET is_open = is_open": {1: "n", 2: "n"},
    }
    for statement, expected in changes.items():
        member.told.clear()
        former = {number: row["label"] for number, row in member.rows.items()}
        await world.owner.execute(statement)
        await tick(world)
        assert "reset" not in await member.read(), statement
        assert {number: row["label"] for number, row in member.rows.items()} == expected, statement
        assert member.told <= {number for number, _ in former.items() ^ expected.items()}, statement
    await other.read()
    assert 1 not in other.told
    assert member.mistakes == other.mistakes == []


PAIRS: Final = (
    "INSERT INTO shop.orders (number, tenant, name) VALUES (1, 'a', 'x'), (2, 'a', 'x'),"
    " (3, 'b', 'x'), (4, 'a', 'x');"
    "INSERT INTO shop.notes (number, tenant, label) VALUES (1, 'a', 'l'), (2, 'a', 'l'),"
    " (3, 'b', 'l'), (4, 'a', 'hidden')"
)


async def test_a_row_of_a_join_that_leaves_is_no_reset_also_where_its_former_rows_are_in_doubt(
    world: TailWorld,
) -> None:
    """Two rows of its tables that may never have met: the keys that were sent tell."""
    await world.owner.execute(PAIRS)
    member, other = await followed(world, feed="pairs"), await followed(world, "b", "pairs")
    assert sorted(member.rows) == [1, 2]
    twice = "UPDATE shop.notes SET label = 'm' WHERE number IN (1, 4)"
    await world.owner.execute(f"{twice}; UPDATE shop.orders SET name = 'y' WHERE number IN (1, 4)")
    between = await world.reader("pairs")
    await world.owner.execute("UPDATE shop.notes SET label = 'hidden' WHERE number IN (1, 4)")
    await tick(world)
    assert await member.read() == ["change"]
    assert (sorted(member.rows), member.told) == ([2], {1}), "the fourth was seen between alone"
    await joined(world, between)
    assert (between.steps, sorted(between.rows)) == (1, [2]), "one who saw it takes its own way"
    await world.owner.execute("DELETE FROM shop.orders; DELETE FROM shop.notes")
    await tick(world)
    await member.read()
    await other.read()
    assert (member.rows, member.told, other.told) == ({}, {1, 2}, {3})
    assert member.mistakes == other.mistakes == between.mistakes == []


async def test_a_feed_with_more_rows_than_are_kept_is_reset(
    tail_database: tuple[str, Path],
) -> None:
    async with tail_world(*tail_database, membership_rows=2) as world:
        await world.owner.execute(SOME)
        first = await followed(world)
        await world.owner.execute(f"{GRANT} (2, 'a'), (3, 'a')")
        await world.owner.execute("UPDATE shop.desks SET is_open = true")
        await tick(world)
        assert await first.read() == ["reset"]
        second = await followed(world)
        assert len(second.rows) == 3
        assert len(second.cohort.membership) == 0
        await world.owner.execute("DELETE FROM shop.staff WHERE desk = 1")
        await tick(world)
        assert await second.read() == ["reset"]
        # What grows beyond it by itself has its keys no more, either.
        third = await followed(world)
        assert len(third.cohort.membership) == 2
        await world.owner.execute("UPDATE shop.papers SET desk = 2 WHERE number = 1")
        await tick(world)
        assert len(third.cohort.membership) == 0
        await world.owner.execute("DELETE FROM shop.staff WHERE tenant = 'b'")
        await tick(world)
        assert await third.read() == ["change", "reset"]
        assert first.mistakes == second.mistakes == third.mistakes == []


async def test_a_table_that_is_truncated_is_a_reset_all_the_same(world: TailWorld) -> None:
    member = await followed(world)
    await world.owner.execute(f"TRUNCATE shop.papers; {GRANT} (2, 'a')")
    await tick(world)
    assert await member.read() == ["reset"]


@pytest.mark.parametrize("has_barrier", [True, False])
async def test_one_that_is_behind_the_state_that_was_compared_does_not_take_the_difference(
    world: TailWorld, monkeypatch: pytest.MonkeyPatch, has_barrier: bool
) -> None:
    """Its rows were seen for a moment, of which neither side of the difference knows."""
    if not has_barrier:
        monkeypatch.setattr(Cohort, "_leads_on", lambda *_: True)
    member = await followed(world)
    await world.owner.execute(f"{GRANT} (2, 'a')")
    between = await world.reader("papers")
    resumed = await world.reader("papers")
    assert sorted(between.rows) == [1, 2]
    await world.owner.execute("DELETE FROM shop.staff WHERE desk = 2 AND tenant = 'a'")
    await tick(world)
    assert await member.read() == []
    if not has_barrier:
        assert (await joined(world, between)).steps == 0
        await world.owner.execute("UPDATE shop.papers SET name = 'y' WHERE number = 1")
        await tick(world)
        await between.read()
        assert between.mistakes, "it still has a row that it may not see"
        return
    for late in (between, resumed):
        with pytest.raises(Reset) as problem:
            await joined(world, late)
        assert problem.value.reason == "rights"
    # One that is behind both writes, and one that has the very state that was compared, go on.
    await joined(world, await world.reader("papers"))


async def test_one_that_comes_back_with_the_state_that_was_compared_takes_the_difference(
    world: TailWorld,
) -> None:
    member = await followed(world)
    same = await world.reader("papers")
    await tick(world)  # which passes over: nothing was written
    await world.owner.execute(f"{GRANT} (2, 'a')")
    await tick(world)
    await joined(world, same)
    assert (same.steps, await same.read()) == (0, ["change"])
    await member.read()
    assert same.rows == member.rows
    assert same.mistakes == member.mistakes == []


async def test_a_mark_that_is_a_barrier_outlives_an_event_without_changes(
    world: TailWorld,
) -> None:
    """A difference that is empty is no event, and still none may pass it from behind."""
    member = await followed(world)
    await world.owner.execute(f"{GRANT} (3, 'a')")  # whose desk is shut
    await tick(world)
    assert await member.read() == []
    assert isinstance(member.cohort._marks[-1], Mark)
    assert member.cohort._marks[-1].exactly_from is not None


def drawn_change(draw: random.Random) -> str:
    """A statement that moves rows, desks or rights."""
    number, desk, tenant = draw.randrange(1, 12), draw.randrange(1, 4), draw.choice("ab")
    return draw.choice(
        [
            *2 * [f"{GRANT} ({desk}, '{tenant}')"],
            f"DELETE FROM shop.staff WHERE desk = {desk} AND tenant = '{tenant}'",
            f"UPDATE shop.staff SET desk = {desk} WHERE tenant = '{tenant}'",
            f"UPDATE shop.desks SET is_open = {draw.random() < 0.8} WHERE desk = {desk}",
            *2 * [f"UPDATE shop.desks SET label = '{draw.choice(LABELS)}' WHERE desk = {desk}"],
            f"DELETE FROM shop.desks WHERE desk = {desk}",
            f"INSERT INTO shop.desks VALUES (DEFAULT, {desk}, true) ON CONFLICT DO NOTHING",
            f"UPDATE shop.papers SET desk = {desk} WHERE number = {number}",
            f"UPDATE shop.papers SET name = '{draw.randrange(99)}' WHERE number = {number}",
            f"UPDATE shop.papers SET tenant = '{tenant}' WHERE number = {number}",
            f"DELETE FROM shop.papers WHERE number = {number}",
            *2
            * [
                f"INSERT INTO shop.orders (number, tenant, name) VALUES ({number}, '{tenant}', 'n')"
                " ON CONFLICT DO NOTHING;"
                f"INSERT INTO shop.notes (number, tenant, label) VALUES ({number}, '{tenant}', 'n')"
                " ON CONFLICT DO NOTHING"
            ],
            f"UPDATE shop.orders SET tenant = '{tenant}' WHERE number = {number}",
            f"UPDATE shop.notes SET label = '{draw.choice(LABELS)}' WHERE number = {number}",
            f"DELETE FROM shop.{draw.choice(['orders', 'notes'])} WHERE number = {number}",
            *2
            * [
                f"INSERT INTO shop.papers (number, tenant, desk, name) VALUES"
                f" ({number}, '{tenant}', {desk}, 'n') ON CONFLICT DO NOTHING"
            ],
        ]
    )


class Crowd:
    """Readers that come, read now and then, leave, and come back with what they have."""

    def __init__(self, world: TailWorld, draw: random.Random) -> None:
        self.world = world
        self.draw = draw
        self.readers: list[LiveReader] = []
        self.all: list[LiveReader] = []
        self.resets = 0
        self.differences = 0
        self._coming: dict[asyncio.Task[LiveReader], LiveReader] = {}

    async def move(self) -> None:
        """Let one come or come back, or read."""
        act = self.draw.random()
        if act < 0.2 or not self.readers:
            feed = self.draw.choice(["papers", "sheets", "pairs"])
            reader = await self.world.reader(feed, self.draw.choice("ab"))
            self.all.append(reader)
            self._come(reader)
        elif act < 0.3:
            reader = self.draw.choice(self.readers)
            self.readers.remove(reader)
            self._come(reader)
        else:
            await self._read(self.draw.choice(self.readers))

    async def arrived(self) -> None:
        """See who has joined, and who is to begin anew."""
        await asyncio.sleep(0)
        for task, reader in list(self._coming.items()):
            if task.done():
                del self._coming[task]
                if isinstance(task.exception(), Reset):
                    self.resets += 1
                else:
                    task.result()
                    self.readers.append(reader)

    async def finish(self) -> None:
        """Wait for those that come, and let all read."""
        while self._coming:
            await tick(self.world)
            await self.arrived()
        await tick(self.world)
        for reader in list(self.readers):
            await self._read(reader)

    def _come(self, reader: LiveReader) -> None:
        self._coming[asyncio.create_task(reader.join())] = reader

    async def _read(self, reader: LiveReader) -> None:
        if "reset" in await reader.read():
            self.readers.remove(reader)
            self.resets += 1
        self.differences += any(m.exactly_from is not None for m in reader.cohort._marks)


async def followers_of_drawn_changes(world: TailWorld, url: str, seed: int) -> Crowd:
    """A crowd that has followed changes of several connections that are open for a while."""
    draw = random.Random(seed)
    own = {"lock_timeout": "20ms"}
    writers = [await asyncpg.connect(url, server_settings=own) for _ in range(3)]
    crowd = Crowd(world, draw)
    try:
        for _ in range(CHANGES):
            writer = draw.choice(writers)
            if not writer.is_in_transaction() and draw.random() < 0.4:
                await writer.execute("BEGIN")
            try:
                await writer.execute(drawn_change(draw))
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                await writer.execute("ROLLBACK")
            if writer.is_in_transaction() and draw.random() < 0.6:
                await writer.execute(draw.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
            if draw.random() < 0.9:
                await crowd.move()
            if draw.random() < 0.5:
                await tick(world)
            await crowd.arrived()
        for writer in writers:
            if writer.is_in_transaction():
                await writer.execute("COMMIT")
        await crowd.finish()
    finally:
        for writer in writers:
            await writer.close()
    return crowd


@DRAWN
@pytest.mark.parametrize("seed", range(share(6)))
async def test_each_id_is_a_state_while_rights_and_rows_move(
    world: TailWorld, tail_database: tuple[str, Path], seed: int
) -> None:
    crowd = await followers_of_drawn_changes(world, tail_database[0], seed)
    assert [mistake for reader in crowd.all for mistake in reader.mistakes] == []
    assert crowd.differences > 3
    assert sum(reader.checks for reader in crowd.all) > 30
    for feed in ("sheets", "pairs"):
        assert sum(reader.checks for reader in crowd.all if reader.feed == feed) > 3
    assert len(crowd.readers) > 1, "some are there to the end"
