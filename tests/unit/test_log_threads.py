"""Lines of the log from threads beside those of the event loop: each is written once."""

import asyncio
import io
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from feedsvc.core import logs
from feedsvc.core.logs import Line, Lines

MANY = 5_000


@pytest.fixture
def switching() -> Iterator[None]:
    """Switch threads as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Yielding(io.StringIO):
    """A stream that lets other threads run before it writes."""

    def write(self, text: str) -> int:
        time.sleep(0)
        return super().write(text)


def line(message: str, level: int = 20) -> Line:
    return Line(time.time(), level, "feedsvc.tests", message, {})


async def test_a_thread_leaves_the_timers_of_the_loop_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`TimerHandle.cancel` counts in the loop, and is for the loop's own thread."""
    cancelling: list[int] = []
    cancel = asyncio.TimerHandle.cancel

    def recorded(handle: asyncio.TimerHandle) -> None:
        cancelling.append(threading.get_ident())
        cancel(handle)

    monkeypatch.setattr(asyncio.TimerHandle, "cancel", recorded)
    stream = io.StringIO()
    lines = Lines(stream, json=True)
    lines.add(line("of the loop"))

    def log() -> None:
        lines.add(line("of a thread"))
        lines.flush()

    thread = threading.Thread(target=log)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.01)
    assert set(cancelling) <= {threading.get_ident()}
    assert [json.loads(each)["message"] for each in stream.getvalue().splitlines()] == [
        "of the loop", "of a thread",
    ]  # fmt: skip
    lines.add(line("after it"))
    async with asyncio.timeout(30):
        while "after it" not in stream.getvalue():
            await asyncio.sleep(0.01)


async def test_each_line_is_written_once_while_threads_and_the_loop_log(
    switching: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del switching
    monkeypatch.setattr(logs, "_MOST_WAITING", 3)
    stream = Yielding()
    lines = Lines(stream, json=True)

    def log(name: str) -> None:
        for number in range(MANY):
            lines.add(line(f"{name} {number}"))

    threads = [threading.Thread(target=log, args=(f"thread {which}",)) for which in range(2)]
    for thread in threads:
        thread.start()
    for number in range(MANY):
        lines.add(line(f"loop {number}"))
        if number % 100 == 0:
            await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    lines.flush()
    written = [json.loads(each)["message"] for each in stream.getvalue().splitlines()]
    names = ("thread 0", "thread 1", "loop")
    assert Counter(written) == Counter(f"{name} {n}" for name in names for n in range(MANY))
    for name in names:
        own = [message for message in written if message.startswith(name)]
        assert own == [f"{name} {number}" for number in range(MANY)], "in their order"


def test_a_line_without_a_loop_is_written_at_once_also_after_a_loop_has_ended() -> None:
    stream = io.StringIO()
    lines = Lines(stream, json=True)

    async def log() -> None:
        lines.add(line("of the loop"))

    asyncio.run(log())
    lines.add(line("after it"))
    assert len(stream.getvalue().splitlines()) == 2
