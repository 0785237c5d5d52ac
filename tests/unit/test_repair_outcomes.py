"""Outcomes of repairs that take longer than a request waits."""

import asyncio
import logging
from types import SimpleNamespace
from typing import cast

import pytest

from feedsvc.operations.health import jobs, repairs
from feedsvc.operations.health.context import HealthContext
from feedsvc.operations.health.jobs import Jobs
from feedsvc.operations.health.result import RepairResult
from feedsvc.settings import Settings

PARTS = cast("HealthContext", SimpleNamespace(settings=Settings()))


async def never(_parts: HealthContext, _dry: bool) -> RepairResult:
    await asyncio.Event().wait()
    raise AssertionError


async def at_once(_parts: HealthContext, _dry: bool) -> RepairResult:
    return RepairResult("done", "It is mended.")


async def test_a_repair_without_an_answer_ends_and_the_next_one_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = repairs.Repair("indexes", never), repairs.Repair("statistics", at_once)
    monkeypatch.setattr(repairs, "REPAIRS", both)
    monkeypatch.setattr(repairs, "DEADLINE", 0.05)
    async with asyncio.timeout(60):
        made = await repairs.Repairs(PARTS).run(["statistics", "indexes"], dry=False)
    assert [(one["name"], one["outcome"], one["what"]) for one in made] == [
        ("indexes", "failed", "No answer in time."),
        ("statistics", "done", "It is mended."),
    ]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PATIENCE", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fails", [False, True])
async def test_a_long_repair_is_started_once_and_the_log_says_how_it_ends(
    caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    caplog.set_level(logging.INFO, "feedsvc.operations.health.jobs")
    made, begun, may_end, ended = Jobs(), 0, asyncio.Event(), asyncio.Event()

    async def long() -> RepairResult:
        nonlocal begun
        begun += 1
        await may_end.wait()
        ended.set()
        if fails:
            raise OSError("the disk is full")
        return RepairResult("done", "Ran ANALYZE")

    assert (await made.run("statistics", long)).outcome == "started"
    again = await made.run("statistics", long)
    assert again == RepairResult("started", "It is under way already; its end will be in the log.")
    assert (begun, caplog.text) == (1, "")
    may_end.set()
    async with asyncio.timeout(60):
        while not caplog.text:
            await asyncio.sleep(0)
    assert ended.is_set()
    assert ("repair statistics: failed" if fails else "repair statistics: done") in caplog.text
    async with asyncio.timeout(60):
        while (anew := (await made.run("statistics", long)).outcome) == "started":
            await asyncio.sleep(0)
    assert (anew, begun) == ("failed" if fails else "done", 2)


@pytest.mark.usefixtures("impatient")
async def test_a_repair_under_way_ends_with_the_service() -> None:
    made, was_cancelled = Jobs(), asyncio.Event()

    async def long() -> RepairResult:
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()
        raise AssertionError

    assert (await made.run("indexes", long)).outcome == "started"
    await made.close()
    assert was_cancelled.is_set()
