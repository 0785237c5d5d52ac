"""SIGHUP: new settings, keys and datasets, and no request fails or is cut off for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import jwt
import psutil
import pytest

from tests.support import slow_world
from tests.support.ports import reserved_port
from tests.support.processes import children
from tests.support.servers import as_login
from tests.support.service import KEY, REPOSITORY, Running, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

OTHER_KEY = "another key of the tests' own, long enough as well"
TAKE_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
SOON = 30.0  # seconds that a reload may take on a busy machine


@pytest.fixture(scope="module")
async def database(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(script=slow_world.SCHEMA) as url:
        yield as_login(url)


@dataclass
class Site:
    """A service, and the files that it reads again when it is told to."""

    settings: Path
    datasets: Path
    key: Path
    service: Running = field(init=False)

    def write(self, settings: str = "", datasets: str = "", key: str = KEY) -> None:
        self.settings.write_text(f'{settings}\n[auth]\nkey_file = "{self.key}"\n')
        listed = slow_world.DATASETS
        self.datasets.write_text(listed + datasets)
        self.key.write_text(key)

    def reload(self) -> None:
        self.service.process.send_signal(signal.SIGHUP)

    def said(self, what: str) -> bool:
        return any(what in line for line in self.service.log)

    async def reloaded(self, times: int = 1) -> None:
        async def is_so() -> bool:
            return sum("reloaded: " in line for line in self.service.log) >= times

        await until(is_so, SOON)

    def workers(self) -> set[int]:
        return {*children(self.service.pid)}


@contextmanager
def running(folder: Path, database: str, workers: int | None, settings: str = "") -> Iterator[Site]:
    site = Site(folder / "own.toml", folder / "datasets.toml", folder / "key")
    site.write(settings)
    arguments = [f"--config={site.settings}"]
    arguments += [] if workers is None else [f"--workers={workers}"]
    # Of the key file alone: the environment would go before it.
    own = {"FEEDSVC_AUTH__KEY": ""}
    with serving(database, datasets=site.datasets, arguments=arguments, settings=own) as service:
        site.service = service
        yield site


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        await asyncio.sleep(0.02)


async def ask(site: Site, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Ask on a connection of its own."""
    url = site.service.url + path
    async with aiohttp.request("GET", url, headers=headers or bearer()) as answer:
        return answer.status, await answer.json(content_type=None)


def signed(key: str) -> dict[str, str]:
    claims = {"aud": "feedsvc", "exp": time.time() + 600, "tenant": "t", "role": "member"}
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm='HS256')}"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_settings_keys_and_datasets_are_read_anew(
    database: str, tmp_path: Path, workers: int
) -> None:
    """A wrong file is refused, streams go on to their end, and addresses stay until a restart.

    One service for all of it, for each reload starts its workers anew. Metrics are scraped on one
    connection meanwhile, for which no old worker stays.
    """
    with running(tmp_path, database, workers, "[metrics]\nport = 0\n") as site:
        before, metrics = site.workers(), metrics_url(site)
        await assert_wrong_files_are_refused(site)
        assert (await ask(site, "/v1/feeds/more?limit=1"))[0] == 404
        assert (await ask(site, "/v1/feeds", signed(OTHER_KEY)))[0] == 401
        scraping = asyncio.create_task(scrape(metrics))
        async with aiohttp.ClientSession(site.service.url, headers=bearer()) as session:
            answers = [await session.get("/v1/feeds/brief?format=ndjson") for _ in range(3)]
            firsts = [await answer.content.readline() for answer in answers]
            with reserved_port() as other:
                await assert_read_anew(site, metrics, other, workers)
            for first, answer in zip(firsts, answers, strict=True):
                lines = [first, *(await answer.read()).splitlines()]
                assert [json.loads(line)["n"] for line in lines] == [*range(1, 401)]

        async def only_new_ones() -> bool:
            return len(site.workers() - before) == workers == len(site.workers())

        await until(only_new_ones, SOON)
        await until(lambda: is_handed_over(site, workers), SOON)
        assert not scraping.done()
        scraping.cancel()
        assert site.service.process.poll() is None
        site.service.terminate()
        assert await asyncio.to_thread(site.service.process.wait, 60) == 0


def metrics_url(site: Site) -> str:
    line = next(reported for reported in site.service.log if "metrics: for anyone at " in reported)
    return line[line.index("http://") :].split()[0].strip('",}')


async def assert_wrong_files_are_refused(site: Site) -> None:
    """Each by one line, and the old workers go on."""
    before = site.workers()
    for settings, datasets, key, line in REFUSED:
        site.write(settings, datasets, key)
        site.reload()
        await until(partial(refused, site, line), SOON)
        assert sum(line in reported for reported in site.service.log) == 1, (
            "it is said once for all"
        )
        assert site.workers() == before
        assert (await ask(site, "/v1/feeds/quick?limit=5"))[0] == 200


async def assert_read_anew(site: Site, metrics: str, other: int, workers: int) -> None:
    """All that a reload changes is changed, and where the service listens is not."""
    more = '[more]\nrelation = "slow.quick"\nkey = ["n"]\nshared = true\n'
    elsewhere = f'[metrics]\nport = {other}\n[server]\nhost = "127.0.0.9"\n'
    site.write(f"{elsewhere}[streams]\npage_size = 20", more, OTHER_KEY)
    site.reload()
    await site.reloaded()
    await until(lambda: all_hand_over(site, workers), 60.0)
    for _ in range(10):
        status, rows = await ask(site, "/v1/feeds/more?limit=20", signed(OTHER_KEY))
        assert (status, len(rows)) == (200, 20)
        url = site.service.url + "/v1/feeds/quick?limit=21"
        async with aiohttp.request("GET", url, headers=signed(OTHER_KEY)) as answer:
            assert "ETag" not in answer.headers, "a page has 20 rows by now"
            await answer.read()
        assert (await ask(site, "/v1/feeds", bearer()))[0] == 401
    async with aiohttp.request("GET", metrics) as answer:
        assert answer.status == 200
    for address in (("127.0.0.9", site.service.port), ("127.0.0.1", other)):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


async def all_hand_over(site: Site, workers: int) -> bool:
    """Return whether no old worker accepts connections; the order may lie unread till then."""
    return sum("handing over: no new" in line for line in site.service.log) == workers


async def count_is(site: Site, workers: int) -> bool:
    return len(site.workers()) == workers


async def scrape(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientConnectionError):
                async with session.get(url) as answer:
                    assert (answer.status, len(await answer.read()) > 100) == (200, True)
            await asyncio.sleep(0.02)


async def is_handed_over(site: Site, workers: int) -> bool:
    """Return whether the one process that served at first, if it did, has ended its drain."""
    return workers > 1 or site.said("drained")


REFUSED = [
    ("[streams]\npage_sice = 20", "", KEY, "streams.page_sice: there is no such setting"),
    ("", '[more]\nrelation = "slow.nothing"\nkey = ["n"]\nshared = true\n', KEY,
     "more.relation: there is no table or view slow.nothing"),
    ("", "[more]\nrelation = 1\n", KEY, "datasets.toml: more.relation"),
    ("", "", "short", "auth.key_file"),
]  # fmt: skip


async def refused(site: Site, line: str) -> bool:
    return any("reload refused" in reported and line in reported for reported in site.service.log)


class Load:
    """Short requests on connections kept for as long as the service says; none is retried."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered = 0
        self.failures: list[str] = []
        self._over = False

    def __enter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(n)) for n in range(8)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True

    async def was_heavy(self) -> bool:
        return self.answered > 300

    async def finished(self) -> None:
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        path = f"/v1/feeds/quick?limit={10 + number}" if number % 2 else "/v1/feeds/quick/7"
        token = bearer(subject=str(number))["Authorization"]
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
        while not self._over:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                while not self._over:
                    writer.write(head)
                    closes = await self._answer(reader)
                    if closes:
                        break
                    await asyncio.sleep(0.02)
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))
            finally:
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bool:
        """Read an answer, and return whether the connection ends with it."""
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(answer.split()[1])
        length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if status == 200:
            self.answered += 1
        else:
            self.failures.append(str(status))
        return b"connection: close" in answer


@pytest.mark.parametrize(("workers", "reloads"), [(1, 2), (2, 1)])
async def test_rolling_replacement_under_load_fails_no_request(
    database: str, tmp_path: Path, workers: int, reloads: int
) -> None:
    """And what is cut, for it has no end, says where to go on.

    A single process becomes a supervisor by its first reload, and is one in its second.
    """
    settings = "[streams]\nhandover_timeout = 1\n[pools.bulk]\nsize = 20\n"
    with running(tmp_path, database, workers, settings) as site:
        readers = [EndlessReader(site) for _ in range(2)]
        streams = [asyncio.create_task(reader.read()) for reader in readers]
        with Load(site.service.port) as load:
            for times in range(1, reloads + 1):
                await asyncio.sleep(0.5)
                workers_before = site.workers()
                site.reload()
                await site.reloaded(times)
                await until(lambda: gone(workers_before), SOON)  # noqa: B023 - awaited before the next
                assert len(site.workers()) == workers
            await until(load.was_heavy, SOON)
        await load.finished()
        assert load.failures == []
        for reader, stream in zip(readers, streams, strict=True):
            # What it has to read before the cut may be megabytes.
            await until(lambda: reader.was_cut(stream), SOON)  # noqa: B023 - awaited before the next
            reader.is_over = True
            await stream


async def gone(workers: set[int]) -> bool:
    return not any(psutil.pid_exists(worker) for worker in workers)


class EndlessReader:
    """A client of a stream without an end, which goes on wherever it is cut."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cuts = 0
        self.is_over = False
        self._read: list[int] = []

    async def was_cut(self, stream: asyncio.Task[None]) -> bool:
        """Return whether it was, while it reads; raises the error that has ended it."""
        if stream.done():
            stream.result()
        return self.cuts > 0

    async def read(self) -> None:
        """Read until it is over; the parts must make the whole."""
        while not self.is_over:
            after = f"&after={self._read[-1]}" if self._read else ""
            url = f"{self.site.service.url}/v1/feeds/endless?format=ndjson&frames=1{after}"
            async with aiohttp.request("GET", url, headers=bearer()) as answer:
                if answer.status == 503:  # accepted by a worker just before it began to drain
                    assert (await answer.json())["type"] == "/problems/draining"
                    continue
                assert answer.status == 200, await answer.text()
                try:
                    await self._read_part(answer)
                except aiohttp.ClientPayloadError:
                    self.cuts += 1
        assert self._read == [*range(1, len(self._read) + 1)], "the parts do not make the whole"

    async def _read_part(self, answer: aiohttp.ClientResponse) -> None:
        async for line in answer.content:
            frame = json.loads(line)
            if "row" in frame:
                self._read.append(frame["row"]["n"])
            if "error" in frame:
                assert frame["error"]["type"] == "/problems/draining"
                assert frame["error"]["after"] == str(self._read[-1])
            if self.is_over:
                return
        raise AssertionError("a stream without an end has ended properly")


async def test_workers_that_die_are_replaced_and_none_outlives_its_supervisor(
    database: str, tmp_path: Path
) -> None:
    """After a `kill -9` of the supervisor the port is free, and the next start is clean."""
    with running(tmp_path, database, 2) as site:
        before = site.workers()
        for victim in before:
            os.kill(victim, signal.SIGKILL)

        async def two_others() -> bool:
            return len(site.workers() - before) == 2

        await until(two_others, SOON)
        await until(lambda: answers(site), SOON)
        assert sum("a new one starts" in line for line in site.service.log) == 2
        await assert_none_outlives(site)
    settings = {"FEEDSVC_SERVER__PORT": str(site.service.port)}
    with serving(database, datasets=site.datasets, settings=settings) as service:
        assert service.port == site.service.port


async def assert_none_outlives(site: Site) -> None:
    """Workers end after the streams that run when their supervisor is killed."""
    workers = site.workers()
    connection = http.client.HTTPConnection("127.0.0.1", site.service.port)
    connection.request("GET", "/v1/feeds/brief?format=ndjson", headers=bearer())
    answer = connection.getresponse()
    site.service.process.kill()
    body = await asyncio.to_thread(answer.read)
    assert len(body.splitlines()) == 400, "a stream that ran was cut off"
    await until(lambda: gone(workers), SOON)
    connection.close()


async def answers(site: Site) -> bool:
    with suppress(aiohttp.ClientError, TimeoutError):
        return (await ask(site, "/v1/feeds/quick?limit=5"))[0] == 200
    return False


async def test_the_number_of_workers_follows_the_settings(database: str, tmp_path: Path) -> None:
    with running(tmp_path, database, None, "[server]\nworkers = 1\n") as site:
        assert site.workers() == set()
        for times, workers in ((1, 2), (2, 1), (3, 2)):
            site.write(f"[server]\nworkers = {workers}\n")
            site.reload()
            await site.reloaded(times)
            await until(lambda: count_is(site, workers), SOON)  # noqa: B023 - awaited before the next


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stop_in_the_middle_of_a_reload_ends_everything(
    database: str, tmp_path: Path, workers: int
) -> None:
    with running(tmp_path, database, workers) as site:
        site.reload()
        await asyncio.sleep(0.3)
        everybody = site.workers()
        site.service.terminate()
        assert await asyncio.to_thread(site.service.process.wait, 20) == 0
        await until(lambda: gone(everybody), SOON)


async def test_a_terminal_that_is_closed_ends_the_service(database: str, tmp_path: Path) -> None:
    """It is no request to reload."""
    site = Site(tmp_path / "own.toml", tmp_path / "datasets.toml", tmp_path / "key")
    site.write()
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "feedsvc", "serve", f"--config={site.settings}"]
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_THE_TERMINAL, *command],
        cwd=REPOSITORY,
        env={
            **os.environ, "DATABASE_URL": database, "FEEDSVC_SERVER__PORT": "0",
            "FEEDSVC_AUTH__KEY": KEY, "FEEDSVC_DATASETS__FILE": str(site.datasets),
        },
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )  # fmt: skip
    os.close(its)
    said = b""
    while b"feedsvc serves" not in said:
        said += await asyncio.to_thread(os.read, ours, 4096)
    os.close(ours)
    assert await asyncio.to_thread(process.wait, 60) == 0
