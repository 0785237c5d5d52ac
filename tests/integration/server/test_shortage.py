"""Out of files, out of disk, a clock that is set: the service refuses what it must, and goes on."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import aiohttp
import psutil

from tests.support.drawn import DRAWN, share
from tests.support.forked import Forked
from tests.support.service import KEY, bearer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = "/v1/feeds/clients?limit=5"
PAST_THE_CACHE = {"Cache-Control": "no-cache"}

# The clock is off by what a file says, for all that asks Python for the time.
CLOCK = """
import datetime, pathlib, time
import jwt.api_jwt

_true = time.time

class Set(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)

time.time = lambda: _true() + float(pathlib.Path({file!r}).read_text() or 0)
jwt.api_jwt.datetime = Set
"""


def ask(connection: socket.socket, path: str, *fields: str) -> bytes:
    """Ask on a connection that there is already, and read what comes first."""
    lines = (f"GET {path} HTTP/1.1", "Host: x", *fields, "", "")
    connection.sendall("\r\n".join(lines).encode())
    return connection.recv(65_536)


async def settled_files(process: psutil.Process) -> int:
    """The number of its open files, once its connections in the background are there too."""
    async with asyncio.timeout(30):
        before = -1
        while (now := process.num_fds()) != before:
            before = now
            await asyncio.sleep(1)
    return now


async def until_answered(http: aiohttp.ClientSession) -> None:
    """Return once a page can be read."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with http.get(PAGE, headers=PAST_THE_CACHE) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass  # it takes no connection just yet
            await asyncio.sleep(0.1)


async def test_out_of_files(world_url: str) -> None:
    with serving(world_url) as service:
        process = psutil.Process(service.pid)
        most = await settled_files(process) + 5
        before = process.rlimit(resource.RLIMIT_NOFILE)
        process.rlimit(resource.RLIMIT_NOFILE, (most, before[1]))
        lines = len(service.log)
        crowd = [socket.create_connection(("127.0.0.1", service.port), 5) for _ in range(40)]
        await asyncio.sleep(3)
        # Who was let in is answered, with a 503 where that needs another file.
        assert ask(crowd[0], "/live").startswith(b"HTTP/1.1 200 ")
        token = f"Authorization: {bearer()['Authorization']}"
        refused = ask(crowd[0], PAGE, token, "Cache-Control: no-cache")
        # A connection that was there already needs no other file.
        assert refused.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 200 "))
        assert b" 200 " in refused[:16] or b"\r\nRetry-After: " in refused
        assert len(service.log) - lines < 20, "it is said again and again"
        assert not any("died" in line for line in service.log)
        for connection in crowd:
            connection.close()
        process.rlimit(resource.RLIMIT_NOFILE, before)
        async with aiohttp.ClientSession(service.url, headers=bearer()) as http:
            await until_answered(http)
            for _ in range(20):
                async with http.get(PAGE, headers=PAST_THE_CACHE) as answer:
                    assert answer.status == 200


@contextmanager
def logging_to(device: Path, database_url: str) -> Iterator[str]:
    """The URL of a service whose log goes there."""
    environment = {**os.environ, "DATABASE_URL": database_url, "FEEDSVC_AUTH__KEY": KEY}
    environment |= {"FEEDSVC_SERVER__PORT": "0", "PYTHONUNBUFFERED": "1"}
    read, write = os.pipe()
    with os.fdopen(read) as said, device.open("wb") as log:
        process = Forked(["serve"], environment, write, log.fileno())
        os.close(write)
        try:
            found = re.search(r"feedsvc serves (\S+)", said.readline())
            assert found is not None
            yield found[1]
        finally:
            process.terminate()
            assert process.wait(60) == 0


@DRAWN
async def test_a_log_on_a_full_disk(world_url: str, tmp_path: Path) -> None:
    """Each write fails; nobody's request does, and what can't be written is not kept for ever."""
    requests = share(4_000, 2)
    device = tmp_path / "full"
    device.symlink_to("/dev/full")
    with logging_to(device, world_url) as url:
        port = int(url.rpartition(":")[2])
        async with aiohttp.ClientSession(url, headers=bearer()) as http:
            before = None
            for number in range(requests):
                async with http.get(PAGE) as answer:
                    assert answer.status == 200
                    await answer.read()
                if number == requests // 4:
                    before = memory_of(port)
            async with http.get("/ready") as answer:
                assert answer.status == 200
            assert before is not None
            assert memory_of(port) - before < requests * (2 << 10)


def memory_of(port: int) -> int:
    """The memory of the process that listens there, in bytes."""
    listening = [
        found.pid
        for found in psutil.net_connections("tcp")
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port
    ]
    return int(psutil.Process(listening[0]).memory_info().rss)


async def test_a_clock_that_is_set(world_url: str, tmp_path: Path) -> None:
    """Tokens are judged by the clock, and nothing else is: no timer fires, nothing is cut off."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(file=str(offset)))
    token = bearer(lifetime=600)
    with serving(world_url, settings={"PYTHONPATH": str(tmp_path)}) as service:
        async with aiohttp.ClientSession(service.url, headers=token) as http:
            export = await http.get("/v1/feeds/clients?format=ndjson")
            first = await export.content.readline()
            for seconds, status in ((0, 200), (86_400, 401), (0, 200), (-86_400, 200), (0, 200)):
                offset.write_text(str(seconds))
                for path in (PAGE, "/v1/feeds"):
                    async with http.get(path) as answer:
                        assert answer.status == status, seconds
                async with http.get("/ready") as answer:
                    assert answer.status == 200
            rest = await export.read()
            assert first
            assert rest.endswith(b"}\n")
