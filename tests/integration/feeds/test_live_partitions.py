"""Live feeds of a table whose rows lie in partitions, which come, go and are moved between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from feedsvc.feeds.live import tail
from tests.support.live_tail import SteppedTail, tail_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.live_tail import LiveReader, TailWorld

INSERT: Final = "INSERT INTO shop.parts (row_id, number, tenant, name) VALUES"
ALONE: Final = (
    "shop.alone (row_id bigint, number bigint PRIMARY KEY, tenant text NOT NULL, name text)"
)


@pytest.fixture
async def world(tail_database: tuple[str, Path]) -> AsyncIterator[TailWorld]:
    async with tail_world(*tail_database) as world:
        await world.owner.execute(
            f"{INSERT} (1, 1, 'a', 'x'), (2, 101, 'a', 'x'), (3, 2, 'b', 'x')"
        )
        yield world


async def after(world: TailWorld, reader: LiveReader, statement: str) -> list[str]:
    """The types of the events that a statement leads to."""
    await world.owner.execute(statement)
    assert isinstance(world.tail, SteppedTail)
    await world.tail.tick()
    return await reader.read()


async def test_rows_come_move_between_partitions_and_go(world: TailWorld) -> None:
    reader = await (await world.reader("parts")).join()
    await after(world, reader, f"{INSERT} (4, 102, 'a', 'y'), (5, 50, 'b', 'y')")
    assert sorted(reader.rows) == [1, 101, 102]
    await after(world, reader, "UPDATE shop.parts SET number = 110 WHERE number = 1")
    await after(
        world, reader, "UPDATE shop.parts SET number = 10 + number - 100 WHERE number = 102"
    )
    assert sorted(reader.rows) == [12, 101, 110]
    # One that is written as what it is: a table.
    await after(world, reader, "UPDATE shop.parts_1 SET name = 'z'; DELETE FROM shop.parts_2")
    assert reader.rows == {12: {"number": 12, "name": "z"}}
    assert reader.told == {1, 101, 102, 110, 12}
    assert reader.mistakes == []


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE TABLE {ALONE}; INSERT INTO shop.alone VALUES (9, 250, 'a', 'x');"
        "ALTER TABLE shop.parts ATTACH PARTITION shop.alone FOR VALUES FROM (200) TO (300)",
        "TRUNCATE shop.parts_2",
        "ALTER TABLE shop.parts DETACH PARTITION shop.parts_1",
    ],
    ids=["attached", "truncated", "detached"],
)
async def test_rows_that_no_trigger_saw_come_or_go_are_a_reset(
    tail_database: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(tail, "VERIFY_EVERY", 0.0)
    async with tail_world(*tail_database) as world:
        await world.owner.execute(f"{INSERT} (1, 1, 'a', 'x'), (2, 101, 'a', 'x')")
        reader = await (await world.reader("parts")).join()
        assert isinstance(world.tail, SteppedTail)
        await world.tail.tick()
        async with world.owner.transaction():
            await world.owner.execute(statement)
            # What is written beside it must not be sent as a state of its own.
            await world.owner.execute(f"{INSERT} (6, 150, 'a', 'y')")
        await world.tail.tick()
        assert await reader.read() == ["reset"]
        assert reader.mistakes == []
