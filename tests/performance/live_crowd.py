"""Many followers of live feeds in a process of their own, which come back when they are cut off.

`python -m tests.performance.live_crowd PORT COUNT SCOPES`: follows `/v1/feeds/live_rows` with
tokens of so many tenants (`t0`, `t1`, …). A line of standard input is a question: `report` is
answered with the seconds from writing to arrival since the last one, `live` with how many have a
`sync` since their last connection, and `cut` with how many connections have ended. Ends with its
standard input.
"""

import json
import os
import random
import re
import selectors
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Final

from feedsvc.server.open_files import raise_limit
from tests.support.service import token

_AT_ONCE: Final = 200  # connections that are being made
_MOST_PAUSE: Final = 2.0  # seconds until a client comes back, at random
_READ: Final = 1 << 16
_WRITTEN: Final = re.compile(rb'"at":([0-9.]+)')
_IDS: Final = re.compile(rb"^id: (\S+)", re.MULTILINE)
# socket(7): the kernel's time of arrival, so that a reader that is late changes no figure.
_TIMESTAMP: Final = getattr(socket, "SO_TIMESTAMPNS", 35)
_PATH: Final = "/v1/feeds/live_rows?live=1&format=sse"


class Follower:
    """A connection, the last id that it got, and whether it has caught up."""

    def __init__(self, head: str) -> None:
        self.head = head
        self.last_id = b""
        self.is_live = False
        self.socket = socket.socket()

    def connect(self, port: int) -> socket.socket:
        """Begin anew from the last id."""
        self.is_live = False
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        self.socket.connect(("127.0.0.1", port))
        since = f"Last-Event-ID: {self.last_id.decode()}\r\n" if self.last_id else ""
        self.socket.sendall(f"{self.head}{since}\r\n".encode())
        self.socket.setblocking(False)
        return self.socket

    def take(self, lags: list[float]) -> bool:
        """Read what has arrived; False at the end."""
        try:
            data, notes, _, _ = self.socket.recvmsg(_READ, 64)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if ids := _IDS.findall(data):
            self.last_id = ids[-1]
        if written := _WRITTEN.findall(data):
            arrived = _arrived(notes)
            lags.extend(arrived - float(at) for at in written[-1:] if self.is_live)
        self.is_live = self.is_live or b"event: sync" in data
        return bool(data)


class Crowd:
    """The followers."""

    def __init__(self, port: int, count: int, scopes: int) -> None:
        self._port = port
        self._lags: list[float] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        heads = [_head(f"t{scope}") for scope in range(scopes)]
        self._followers = [Follower(heads[n % scopes]) for n in range(count)]
        self._waiting = deque(self._followers)
        self._begun: set[Follower] = set()
        self._later: list[tuple[float, Follower]] = []
        self._cut = 0

    def run(self) -> None:
        """Follow until the standard input ends."""
        while True:
            self._connect_some()
            for key, _ in self._selector.select(0.05 if self._later else None):
                if key.fileobj is sys.stdin:
                    if not (line := os.read(key.fd, 64)):
                        return
                    self._answer(line.strip())
                elif not key.data.take(self._lags):
                    self._selector.unregister(key.data.socket)
                    key.data.socket.close()
                    self._cut += 1
                    key.data.is_live = False
                    pause = random.uniform(0.2, _MOST_PAUSE)
                    self._later.append((time.monotonic() + pause, key.data))
                elif key.data.is_live:
                    self._begun.discard(key.data)

    def _connect_some(self) -> None:
        now = time.monotonic()
        self._waiting.extend(each for at, each in self._later if at <= now)
        self._later = [(at, each) for at, each in self._later if at > now]
        while self._waiting and len(self._begun) < _AT_ONCE:
            follower = self._waiting.popleft()
            with suppress(OSError):
                self._selector.register(
                    follower.connect(self._port), selectors.EVENT_READ, follower
                )
                self._begun.add(follower)
                continue
            self._later.append((now + 0.2, follower))

    def _answer(self, question: bytes) -> None:
        if question == b"live":
            answer: object = sum(each.is_live for each in self._followers)
        elif question == b"cut":
            answer = self._cut
        else:
            answer, self._lags = self._lags, []
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _head(tenant: str) -> str:
    """The head of a request, up to its last header."""
    signed = token(tenant, subject="crowd", lifetime=86_400)
    return f"GET {_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {signed}\r\n"


def _arrived(notes: list[tuple[int, int, bytes]]) -> float:
    """The Unix time at which the newest bytes arrived."""
    for level, kind, data in notes:
        if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMP):
            seconds, nanoseconds = struct.unpack("ll", data)
            return float(seconds + nanoseconds / 1e9)
    return time.time()


if __name__ == "__main__":
    raise_limit()
    Crowd(*map(int, sys.argv[1:4])).run()
