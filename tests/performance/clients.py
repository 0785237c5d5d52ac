"""Clients that discard what they get, and answer how long they took in seconds."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_PATIENCE: Final = 600.0  # seconds for one download
_SETTLE: Final = 0.03  # seconds in which the server cancels the query of a client that has left
_CURL: Final = ("curl", "-q", "-sS", "--fail", "--fail-early", "--noproxy", "*")


@dataclass(frozen=True, slots=True)
class Feed:
    """A request."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80


def curl(feed: Feed, times: int = 1) -> float:
    """So many downloads after each other by one curl, its start included.

    Raises CalledProcessError for any other status than 200, and for a body without its end.
    """
    targets = ["-o", "/dev/null", feed.url] * times
    return _run([*_CURL, *_header_options(feed), *targets], {})


def count_lines(feed: Feed) -> int:
    """The number of the body's lines. Raises CalledProcessError as `curl` does."""
    command = [*_CURL, *_header_options(feed), feed.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = sum(1 for _ in process.stdout)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return lines


def psql(program: Path, database_url: str, sql: str) -> float:
    """One statement by one psql, its start included. Raises CalledProcessError."""
    command = [str(program), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database_url, "-c", sql]
    return _run(command, {"PGTZ": "UTC"})


def together(times: int, run: Callable[[], float]) -> float:
    """So many at once, until the last of them is done."""
    began = time.perf_counter()
    with ThreadPoolExecutor(times) as threads:
        for done in [threads.submit(run) for _ in range(times)]:
            done.result()
    return time.perf_counter() - began


def first_byte(feed: Feed) -> float:
    """From the request's last byte to the body's first, on a connection that is already there.

    The client then leaves, and waits until the server has noticed.
    """
    parts = urlsplit(feed.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=_PATIENCE) as connection:
        head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        fields = "".join(f"{name}: {value}\r\n" for name, value in feed.headers.items())
        began = time.perf_counter()
        connection.sendall(f"{head}{fields}\r\n".encode())
        received = b""
        while not received.partition(b"\r\n\r\n")[2]:
            chunk = connection.recv(65_536)
            assert chunk, f"the connection ended before a body: {received!r}"
            received += chunk
        seconds = time.perf_counter() - began
    assert received.startswith(b"HTTP/1.1 200 "), received
    time.sleep(_SETTLE)
    return seconds


def _header_options(feed: Feed) -> list[str]:
    return [part for name, value in feed.headers.items() for part in ("-H", f"{name}: {value}")]


def _run(command: list[str], environment: Mapping[str, str]) -> float:
    given = {**os.environ, **environment}
    began = time.perf_counter()
    with subprocess.Popen(command, env=given, stdout=subprocess.DEVNULL) as process:
        # Not wait(timeout), which looks again after up to 50 ms: a tenth of what is measured.
        overdue = threading.Timer(_PATIENCE, process.kill)
        overdue.start()
        try:
            status = process.wait()
        finally:
            overdue.cancel()
    seconds = time.perf_counter() - began
    if status:
        raise subprocess.CalledProcessError(status, command)
    return seconds
