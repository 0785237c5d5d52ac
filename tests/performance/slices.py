"""Processor time of a request, in slices of requests that several services answer in turn.

A slice is so short that whatever else the machine does meets all services alike, and the kernel
counts what a process ran, not how long it waited for a processor. So the figure of a loaded machine
is nearly that of an idle one, which cannot be said of answers in a second.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import uvloop

from tests.performance.clients import Feed
from tests.performance.load import request_of
from tests.performance.timing import Round

_SETTLE: Final = 0.06  # seconds in which what a slice left to be done in batches is done


@dataclass(frozen=True, slots=True)
class Answering:
    """A page, the process that answers requests for it, and how a slice asks for it."""

    feed: Feed
    pid: int
    connections: int = 32
    requests: int = 10
    """Of each connection."""


def seconds_each(contenders: Mapping[str, Answering], turns: int) -> list[Round]:
    """Seconds of processor for one request of each contender's slice, by turn.

    Raises AssertionError where an answer is anything but a page.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measured(contenders, turns))


async def _measured(contenders: Mapping[str, Answering], turns: int) -> list[Round]:
    clients = {name: _Client(answering) for name, answering in contenders.items()}
    try:
        for client in clients.values():
            await client.open()
            for _ in range(2):  # warms up, and does not count
                await client.slice()
        return [await _turn(clients, number) for number in range(turns)]
    finally:
        for client in clients.values():
            client.close()


async def _turn(clients: Mapping[str, "_Client"], number: int) -> Round:
    """One slice of each; every other turn goes backwards, so that none is always the first."""
    names = [*clients]
    if number % 2 == 0:
        names.reverse()
    return {name: await clients[name].slice() for name in names}


class _Client:
    """Connections that are kept, each of which asks for the page again and again."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._request = request_of(answering.feed)
        self._connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        """Connect."""
        host, port = self._answering.feed.address
        for _ in range(self._answering.connections):
            self._connections.append(await asyncio.open_connection(host, port))

    def close(self) -> None:
        """Disconnect."""
        for _, writer in self._connections:
            writer.close()

    async def slice(self) -> float:
        """The seconds of processor that one request took."""
        before = processor_time(self._answering.pid)
        await asyncio.gather(*(self._ask(*each) for each in self._connections))
        await asyncio.sleep(_SETTLE)
        spent = processor_time(self._answering.pid) - before
        return spent / (self._answering.connections * self._answering.requests)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self._answering.requests):
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200 "), head
            await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].split()[0]))


def processor_time(pid: int) -> float:
    """Seconds that the process ran, all of its threads together.

    By the scheduler's count in nanoseconds where there is one (Linux's `schedstat`).
    """
    ran = [_ran(path) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    if ran:
        return sum(ran)
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _ran(path: Path) -> float:
    with suppress(OSError):  # a thread that has ended meanwhile
        return int(path.read_text().split()[0]) / 1e9
    return 0.0


def differences(measured: Sequence[Round], name: str, against: str) -> list[float]:
    """The seconds by which one contender took longer than another, by turn."""
    return [each[name] - each[against] for each in measured]
