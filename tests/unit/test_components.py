"""Parts that are opened in order, run beside the requests, and closed in reverse."""

import asyncio
from collections.abc import Callable

import pytest

from feedsvc.server.components import Component, ComponentStep, opened


class _Recorded:
    """Components that note each of their steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def part(
        self, name: str, fails: str | None = None, hangs: str | None = None, **options: float
    ) -> Component:
        """A component of all three steps, one of which may fail or hang."""

        def step(kind: str) -> ComponentStep:
            async def do() -> None:
                self.steps.append(f"{kind} {name}")
                if kind == fails:
                    raise OSError(f"{kind} of {name}")
                if kind == hangs:
                    await asyncio.Event().wait()

            return do

        async def run() -> None:
            self.steps.append(f"run {name}")
            try:
                await asyncio.Event().wait()
            finally:
                self.steps.append(f"end {name}")

        return Component(name, step("open"), run, step("close"), **options)


@pytest.fixture
def recorded() -> _Recorded:
    """Components that share one list of steps."""
    return _Recorded()


async def test_parts_close_in_reverse_once_all_that_runs_has_ended(recorded: _Recorded) -> None:
    async with opened([recorded.part("a"), Component("bare"), recorded.part("b")]):
        await asyncio.sleep(0)
        assert recorded.steps == ["open a", "open b", "run a", "run b"]
    assert sorted(recorded.steps[4:6]) == ["end a", "end b"]
    assert recorded.steps[6:] == ["close b", "close a"]


async def test_a_failing_open_closes_what_is_open_and_runs_nothing(recorded: _Recorded) -> None:
    parts = [recorded.part("a"), recorded.part("b", fails="open"), recorded.part("c")]
    with pytest.raises(OSError, match="open of b"):
        async with opened(parts):
            pass
    assert recorded.steps == ["open a", "open b", "close a"]


@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        ({"fails": "close"}, "b could not be closed"),
        ({"hangs": "close", "close_within": 0.01}, "b was not closed within 0.01 s"),
    ],
)
async def test_a_part_that_does_not_close_keeps_none_behind_it_open(
    recorded: _Recorded,
    caplog: pytest.LogCaptureFixture,
    trouble: dict[str, str | float],
    line: str,
) -> None:
    made: Callable[..., Component] = recorded.part
    async with opened([recorded.part("a"), made("b", **trouble), recorded.part("c")]):
        pass
    assert recorded.steps[-3:] == ["close c", "close b", "close a"]
    assert [r.getMessage() for r in caplog.records] == [line]


async def test_a_task_that_ends_by_itself_is_logged_by_its_parts_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        raise ValueError("no more")

    async with opened([Component("audit log", run=run)]):
        async with asyncio.timeout(30):
            while not caplog.records:
                await asyncio.sleep(0)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "CRITICAL",
        "the background task of audit log ended",
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
