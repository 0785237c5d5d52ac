"""The outbox: a batch of unknown fate is sent again as it was, and what is full drops by a rule."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from feedsvc.backends.postgres import outbox
from feedsvc.backends.postgres.outbox import Outbox, OutboxTable
from feedsvc.core.problems import NotSetUp, Unavailable

MISSING = NotSetUp("The tables are not set up.", 60)
AWAY = Unavailable("It is away.", 1)


class Table:
    """Batches that PostgreSQL got, and the fault that it answers with then."""

    def __init__(self) -> None:
        self.got: list[tuple[Any, ...]] = []
        self.fault: Exception | None = None
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def execute(self, _sql: str, *values: object) -> None:
        """As a connection's."""
        self.got.append(values)
        self.asked.set()
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    made = Table()

    @asynccontextmanager
    async def writing(_pool: object) -> AsyncIterator[Table]:
        yield made

    monkeypatch.setattr(outbox, "write_transaction", writing)
    monkeypatch.setattr(outbox, "_EVERY", 0.001)
    monkeypatch.setattr(outbox, "_LOG_EVERY", 0.0)
    return made


class Packing:
    """Packs as the audit log does: each time with new ids."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, rows: Sequence[int]) -> tuple[int, list[int]]:
        self.times += 1
        return self.times, list(rows)


def made(**changes: Any) -> Outbox[int]:
    plain = {"subject": "numbers", "rows": "rows", "sql": "", "most": 5, "batch": 3}
    return Outbox(cast("Any", None), OutboxTable(**{**plain, "pack": Packing(), **changes}))


def fill(box: Outbox[int], count: int) -> list[bool]:
    return [box.add(number) for number in range(count)]


async def test_a_batch_that_may_have_arrived_is_sent_again_as_it_was(table: Table) -> None:
    box = made()
    fill(box, 2)
    table.fault = AWAY
    assert not await box.write()
    box.add(2)
    assert not await box.write()
    table.fault = None
    assert await box.write()
    assert table.got == [(1, [0, 1]), (1, [0, 1]), (1, [0, 1]), (2, [2])]
    assert not box.waiting


async def test_a_batch_whose_writing_is_cancelled_is_sent_again_by_the_close(table: Table) -> None:
    box = made()
    fill(box, 2)
    table.answers.clear()
    running = asyncio.create_task(box.run())
    await table.asked.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    table.answers.set()
    await box.close(30)
    assert table.got == [(1, [0, 1]), (1, [0, 1])]


async def test_a_full_outbox_drops_the_newest_row_and_reports_how_many(table: Table) -> None:
    box = made(on_dropped=lambda count: -count)
    assert fill(box, 8) == [True] * 5 + [False] * 3
    assert await box.write()
    assert [rows for _, rows in table.got] == [[0, 1, 2], [3, 4, -3]]
    assert box.dropped_ever == 3


async def test_a_full_outbox_drops_the_oldest_row_that_is_not_being_written(table: Table) -> None:
    box = made(newest=True)
    fill(box, 5)
    table.fault = AWAY
    assert not await box.write()
    assert [box.add(number) for number in (5, 6)] == [True, True]
    table.fault = None
    assert await box.write()
    assert [rows for _, rows in table.got] == [[0, 1, 2], [0, 1, 2], [5, 6]]


async def test_a_stop_waits_for_postgresql_no_longer_than_it_may(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    box = made()
    fill(box, 6)
    table.answers.clear()
    async with asyncio.timeout(30):
        await box.close(0.01)
    assert caplog.messages == ["numbers: 6 rows are lost: PostgreSQL did not take them"]
    table.answers.set()
    table.fault = MISSING
    async with asyncio.timeout(30):
        await box.close(3_600)  # a table that is missing is not waited for


async def test_a_missing_table_is_logged_once_until_there_is_one(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    """Every other fault is logged now and then, for it may end by itself."""
    box = made(most=20)
    logged = []
    with caplog.at_level(logging.WARNING):
        for each in (MISSING, MISSING, MISSING, AWAY, AWAY, MISSING, None, MISSING, MISSING):
            table.fault = each
            box.add(1)
            await box.write()
            logged.append(len([line for line in caplog.messages if "rows wait" in line]))
    assert logged == [1, 1, 1, 2, 3, 3, 3, 4, 4]
