"""A client that asks for one and the same page again and again, over connections that it keeps.

Run as a process of its own, so that its work is the other core's: the request as bytes on standard
input, the number of answers that were whole and right on standard output.
"""

import argparse
import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

from tests.performance.clients import Feed
from tests.support.service import REPOSITORY

CONNECTIONS: Final = 32
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_GRACE: Final = 30.0  # seconds beyond a run's length until it is given up


class WrongAnswerError(Exception):
    """An answer that is not the expected page."""


def requests_per_second(feed: Feed, seconds: float) -> float:
    """Whole and equal answers of this page in a second, to a process of its own.

    Raises CalledProcessError where one was anything else.
    """
    command = [sys.executable, "-m", "tests.performance.load", feed.url, "--seconds", str(seconds)]
    ran = subprocess.run(
        command,
        cwd=REPOSITORY,
        input=request_of(feed),
        stdout=subprocess.PIPE,
        check=True,
        timeout=seconds + _GRACE,
    )
    return int(ran.stdout) / seconds


def request_of(feed: Feed) -> bytes:
    """The request for the page, as bytes."""
    parts = urlsplit(feed.url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    fields = "".join(f"{name}: {value}\r\n" for name, value in feed.headers.items())
    return f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{fields}\r\n".encode()


class _Connection(asyncio.Protocol):
    """Asks, takes the answer, and asks again."""

    def __init__(self, request: bytes, answered: Callable[[bytes], None]) -> None:
        self._request = request
        self._answered = answered
        self._received: list[bytes] = []
        self._missing = 0
        self._transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_exception(exc or WrongAnswerError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._received.append(data)
            self._missing -= len(data)
        elif not self._begin(data):
            return
        if self._missing <= 0 and self._transport is not None:
            body, self._received = b"".join(self._received), []
            self._missing = 0
            self._answered(body)
            self._transport.write(self._request)

    def _begin(self, data: bytes) -> bool:
        """Take an answer's beginning. False while its head is not whole."""
        data = b"".join((*self._received, data))
        head, end, body = data.partition(b"\r\n\r\n")
        self._received = [body if end else data]
        if not end:
            return False
        length = _LENGTH.search(head + b"\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or length is None:
            self.lost.set_exception(WrongAnswerError(head.decode("latin-1")))
            return False
        self._missing = int(length[1]) - len(body)
        return True


class _Count:
    """Counts answers, all of which must be like the first."""

    def __init__(self) -> None:
        self.right = 0
        self.wrong = False
        self._expected: bytes | None = None

    def add(self, body: bytes) -> None:
        self._expected = self._expected or body
        self.wrong |= body != self._expected
        self.right += 1


async def _measured(host: str, port: int, request: bytes, seconds: float, warm_up: float) -> int:
    loop, count = asyncio.get_running_loop(), _Count()
    lost = []
    for _ in range(CONNECTIONS):
        _, protocol = await loop.create_connection(
            lambda: _Connection(request, count.add), host, port
        )
        lost.append(protocol.lost)
    await asyncio.wait(lost, timeout=warm_up, return_when=asyncio.FIRST_COMPLETED)
    before = count.right
    done, _ = await asyncio.wait(lost, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for future in done:
        future.result()
    if count.wrong:
        raise WrongAnswerError("two answers differ")
    return count.right - before


def main() -> None:
    """Measures, and prints the count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    options = parser.parse_args()
    request = sys.stdin.buffer.read()
    host, port = Feed(options.url).address
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(_measured(host, port, request, options.seconds, options.warm_up)))


if __name__ == "__main__":
    main()
