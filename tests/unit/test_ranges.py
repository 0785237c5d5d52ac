"""Ranges in order: what is passed on, who has to wait, and what is void."""

import asyncio

import pytest

from feedsvc.backends.postgres.pool import Pool
from feedsvc.feeds.sources import ranges as module
from feedsvc.feeds.sources.ranges import KeyRange, Ranges
from feedsvc.feeds.sources.reader import Effort
from feedsvc.feeds.sources.source import Batch, batch_of
from feedsvc.settings import Database, PoolSettings


def rows(first: int, last: int) -> Batch:
    """The rows that stand at these numbers, a byte each."""
    records = [b"r"] * (last - first + 1)
    return batch_of(b"".join(records), len(records), [str(last)], lambda: records)


def begun(ranges: Ranges, last: int) -> KeyRange:
    """The range that ends at this number, ten rows after the one before, with a reader."""
    ranges.append(10, [str(last)])
    found = ranges.lacks_a_reader()
    assert found is not None
    found.is_read = True
    return found


async def ends(ranges: Ranges) -> list[str | None]:
    """The end of each batch, until the ranges are over."""
    found: list[str | None] = []
    async with asyncio.timeout(60):
        while (batch := await ranges.take()) is not None:
            found += batch.position
    return found


async def test_rows_are_passed_on_in_order_whichever_reader_is_first() -> None:
    ranges = Ranges(None, None, 5)
    first, second, third = (begun(ranges, last) for last in (10, 20, 30))
    ranges.close()
    ranges.add(third, rows(21, 30))
    ranges.add(second, rows(11, 15))
    taking = asyncio.create_task(ends(ranges))
    await asyncio.sleep(0)
    ranges.add(first, rows(1, 10))
    await asyncio.sleep(0)
    ranges.add(second, rows(16, 20))
    assert await taking == ["10", "15", "20", "30"]
    assert ranges.buffered == 0


async def test_a_range_that_is_left_is_the_next_one_for_another_reader() -> None:
    ranges = Ranges(None, None, 5)
    first, second = begun(ranges, 10), begun(ranges, 20)
    ranges.add(first, rows(1, 4))
    assert ranges.lacks_a_reader() is None
    ranges.leave(second)
    ranges.leave(first)
    assert ranges.lacks_a_reader() is first
    assert (first.position, first.missing) == (["4"], 6)


async def test_readers_ahead_wait_and_the_first_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AHEAD", 10)
    ranges = Ranges(None, None, 5)
    first, second = begun(ranges, 10), begun(ranges, 20)
    ranges.add(second, rows(11, 15))
    assert not ranges.is_full_for(second)
    ranges.add(first, rows(1, 5))
    assert ranges.is_full_for(second)
    assert ranges.is_full_for(first), "it has rows that were not taken yet"
    assert not ranges.may_grow
    await ranges.take()
    ranges.add(second, rows(16, 19))
    ranges.add(second, rows(20, 20))
    assert not ranges.is_full_for(second), "it is whole"
    assert not ranges.is_full_for(first)


async def test_behind_a_range_that_ends_elsewhere_everything_is_void() -> None:
    """Also what somebody was about to append just then."""
    ranges = Ranges(None, None, 5)
    first, second, third = (begun(ranges, last) for last in (10, 20, 30))
    ranges.add(third, rows(21, 25))
    with ranges.growing():
        ranges.add(first, rows(1, 10))
        ranges.add(second, rows(12, 21))
        ranges.append(10, ["40"])
    ranges.add(third, rows(26, 30))
    assert ranges.is_closed
    assert await ends(ranges) == ["10", "21"]
    assert ranges.buffered == 0


async def test_there_are_no_more_rows_than_a_limit_leaves() -> None:
    ranges = Ranges(None, 25, 5)
    begun(ranges, 10)
    assert ranges.admits(10)
    begun(ranges, 20)
    assert not ranges.admits(10)
    assert ranges.admits(5)


@pytest.mark.parametrize(
    ("ranges", "spent", "dear", "idle"),
    [
        (20, (0.1, 1.0, 1.0), False, False),
        (20, (0.9, 1.0, 1.0), True, False),
        (20, (0.1, 1.0, 9.0), False, True),
        (2, (0.9, 1.0, 9.0), False, False),
    ],
)
async def test_several_connections_are_judged_by_what_their_time_goes_to(
    ranges: int, spent: tuple[float, float, float], dear: bool, idle: bool
) -> None:
    pool = Pool("bulk", PoolSettings(), Database.model_validate({"url": "postgresql://nowhere"}))
    effort = Effort(pool, ranges, *spent)
    assert (effort.is_dear, effort.is_idle, effort.is_enough()) == (dear, idle, dear)
    effort.one_less()
    assert (effort.is_dear, effort.is_idle, effort.has_been_idle) == (False, False, True)
    assert (effort.is_enough(), effort.has_been_dear) == (dear, dear)


async def test_an_error_is_raised_where_rows_are_taken() -> None:
    ranges = Ranges(None, None, 5)
    begun(ranges, 10)
    taking = asyncio.create_task(ends(ranges))
    await asyncio.sleep(0)
    ranges.fail(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        await taking
