"""Live feeds with PostgreSQL: from a commit to sockets, one change for all, a worker's death.

The clients are a process of their own, and the kernel says when bytes have arrived at them. Seconds
of the processor are the service's alone, or PostgreSQL's.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import asyncpg
import psutil

from feedsvc.changes import triggers
from tests.performance.first_pages import WITHOUT_LIMIT
from tests.performance.processes import ended
from tests.performance.processor import seconds_of
from tests.performance.table import Line, Target
from tests.performance.world import Service, World
from tests.support.service import REPOSITORY, bearer, serving

_SUBSCRIBERS: Final = 5_000
_SCOPES: Final = 50
_CHANGES_A_SECOND: Final = 100
_QUICK: Final = 100_000  # clients of the tenant; with fewer, a tenth of the subscribers
_SECONDS: Final = 10.0
_PATIENCE: Final = 900.0
_PAGES: Final = 300
_READS: Final = re.compile(
    r'feedsvc_(live_reads_total |pool_leases_total{.*pool="(read|bulk)".*outcome="leased")'
)
_WRITTEN_WITHIN: Final = 3.0  # seconds, in which workers write their figures
_SETTINGS: Final = {
    **WITHOUT_LIMIT,
    "FEEDSVC_LIMITS__MEMBER__STREAMS": "20000",
    "FEEDSVC_SERVER__CONNECTIONS_PER_ADDRESS": "20000",
}
_MAKE: Final = """
DROP SCHEMA IF EXISTS bench_live CASCADE;
CREATE SCHEMA bench_live;
CREATE TABLE bench_live.rows (id int PRIMARY KEY, tenant text NOT NULL, at float8, note text);
INSERT INTO bench_live.rows
    SELECT n, 't' || n % 50, 0, repeat('x', 100) FROM generate_series(0, 499) n;
CREATE POLICY readers ON bench_live.rows
    USING (tenant = (SELECT current_setting('feedsvc.tenant', true)));
ALTER TABLE bench_live.rows ENABLE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA bench_live TO PUBLIC;
GRANT SELECT ON bench_live.rows TO PUBLIC;
"""
_DATASET: Final = """
[live_rows]
relation = "bench_live.rows"
tenant = "tenant"
"""
_CHANGE: Final = "UPDATE bench_live.rows SET at = $1 WHERE id = $2"


def live_load(world: World, _service: Service, _rounds: int) -> list[Line]:
    """Subscribers in scopes, beside a writer; one change for all of them; a worker's death."""
    count = _SUBSCRIBERS if world.sizes.clients >= _QUICK else _SUBSCRIBERS // 10
    with TemporaryDirectory(prefix="feedsvc-live-") as folder:
        file = Path(folder, "datasets.toml")
        file.write_text(_DATASET)
        asyncio.run(_make(world.admin_url, file))
        return [
            *_beside_a_writer(world, file, count),
            _for_all(world, file, count),
            *_behind_a_death(world, file, count),
        ]


async def _make(url: str, datasets: Path) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_MAKE)
        await triggers.install_for(connection, datasets)
    finally:
        await connection.close()


def _beside_a_writer(world: World, file: Path, count: int) -> list[Line]:
    with _served(world, file, 1) as (url, pid), _crowd(url, count, _SCOPES, pid) as crowd:
        write = _Writer(world.admin_url)
        write.run(2.0)
        crowd.lags()
        before = _seconds(pid)
        spent = seconds_of([world.postmaster], lambda: write.run(_SECONDS))
        own = (_seconds(pid) - before) / _SECONDS
        lags = crowd.lags()
    alone = seconds_of([world.postmaster], lambda: write.run(_SECONDS))
    cuts = quantiles(lags, n=100)
    subject = f"{count:,} subscribers, {_SCOPES} scopes, {_CHANGES_A_SECOND} changes a second"
    detail = f"of {len(lags):,} arrivals"
    share = (spent - alone) / _SECONDS
    return [
        crowd.opened,
        Line(f"{subject}: p50", [cuts[49] * 1e3], detail, Target(35.0), "ms"),
        Line(f"{subject}: p99", [cuts[98] * 1e3], detail, Target(100.0), "ms"),
        Line("  the service's processor", [own], f"{own * 1e6 * _SECONDS / len(lags):.0f} us each"),
        Line("  PostgreSQL's processor", [share], f"{alone / _SECONDS:.2f} without", Target(0.25)),
    ]


def _for_all(world: World, file: Path, count: int) -> Line:
    """One change that all see: the time until the last of them has it."""
    last: list[float] = []
    with _served(world, file, 1) as (url, pid), _crowd(url, count, 1, pid) as crowd:
        write = _Writer(world.admin_url)
        write.once()
        crowd.arrivals(count)
        before = _seconds(pid)
        for _ in range(10):
            write.once()
            last.append(max(crowd.arrivals(count)) * 1e3)
        spent = (_seconds(pid) - before) * 1e3 / 10
    subject = f"one change for {count:,}, last byte"
    return Line(subject, last, f"{spent:.0f} ms of processor", Target(150.0), "ms")


def _behind_a_death(world: World, file: Path, count: int) -> list[Line]:
    """One of two workers is killed: when all are live again, and what that costs."""
    with _served(world, file, 2) as (url, pid), _crowd(url, count, _SCOPES, pid) as crowd:
        quiet = _pages(url, _PAGES)
        leases = _reads(url)
        workers = psutil.Process(pid).children(recursive=True)
        heaviest = max(workers, key=lambda each: each.memory_info().rss)
        port = urlsplit(url).port
        lost = sum(
            c.status == "ESTABLISHED" and c.laddr.port == port
            for c in heaviest.net_connections("tcp")
        )
        before = crowd.cut()
        heaviest.kill()
        began, meanwhile, took = time.monotonic(), list[float](), None
        while len(meanwhile) < _PAGES or took is None:
            meanwhile += _pages(url, 20)
            if took is None and crowd.cut() >= before + lost and crowd.live() >= count:
                took = time.monotonic() - began
            assert took is not None or time.monotonic() - began < _PATIENCE
        queries = (_reads(url) - leases) / _SCOPES
    slower = quantiles(meanwhile, n=100)[98] / quantiles(quiet, n=100)[98]
    return [
        Line(f"{lost:,} come back behind a worker's death", [took], f"of {count:,}",
             Target(10.0), "s"),
        Line("  reads a cohort", [queries], "pages among them", Target(3.0)),
        Line("  pages meanwhile : before, p99", [slower], f"of {len(meanwhile)}", Target(2.0)),
    ]  # fmt: skip


class _Writer:
    """Writes the present time into rows."""

    def __init__(self, url: str) -> None:
        self._url = url

    def once(self) -> None:
        """Write one row of the first scope."""
        asyncio.run(self._write([0.0]))

    def run(self, seconds: float) -> None:
        """Write rows of all scopes in turn, at an even pace."""
        pace = 1 / _CHANGES_A_SECOND
        asyncio.run(self._write([n * pace for n in range(int(seconds * _CHANGES_A_SECOND))]))

    async def _write(self, times: Sequence[float]) -> None:
        connection = await asyncpg.connect(self._url)
        began = time.monotonic()
        for number, at in enumerate(times):
            await asyncio.sleep(began + at - time.monotonic())
            await connection.execute(_CHANGE, time.time(), number % 500)
        await connection.close()


class _Crowd:
    """The followers' process."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.opened = Line("", [0.0], "")
        """How long it took until all were live."""

    def lags(self) -> list[float]:
        """Seconds from writing to arrival, of all since the last question."""
        return [float(each) for each in self._ask("report")]

    def arrivals(self, count: int) -> list[float]:
        """The same of so many arrivals, which are waited for."""
        found, until = self.lags(), time.monotonic() + _PATIENCE
        while len(found) < count and time.monotonic() < until:
            time.sleep(0.05)
            found += self.lags()
        return found

    def live(self) -> int:
        """How many have caught up since they were last connected."""
        return int(self._ask("live"))

    def cut(self) -> int:
        """How many connections have ended."""
        return int(self._ask("cut"))

    def _ask(self, question: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{question}\n".encode())
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def _crowd(url: str, count: int, scopes: int, pid: int) -> Iterator[_Crowd]:
    """So many followers of a service, all of which are live."""
    spent = _seconds(pid)
    port = str(urlsplit(url).port)
    command = [sys.executable, "-m", "tests.performance.live_crowd", port, str(count), str(scopes)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process, ended(process):
        made, began = _Crowd(process), time.monotonic()
        while made.live() < count:
            assert time.monotonic() - began < _PATIENCE, "not all followers have begun"
            time.sleep(0.2)
        seconds, detail = time.monotonic() - began, f"{_seconds(pid) - spent:.1f} s of processor"
        made.opened = Line(f"{count:,} open a feed", [seconds], detail, unit="s")
        yield made


@contextmanager
def _served(world: World, file: Path, workers: int) -> Iterator[tuple[str, int]]:
    """The service's address, and the id of its first process."""
    arguments = [f"--workers={workers}"]
    with serving(
        world.service_url, datasets=file, settings=_SETTINGS, arguments=arguments
    ) as running:
        yield running.url, running.process.pid


def _pages(url: str, count: int) -> list[float]:
    """Seconds of a small page, so many times."""
    seconds = []
    asked = Request(f"{url}/v1/feeds/live_rows?limit=1", headers=bearer("t0"))
    for _ in range(count):
        began = time.perf_counter()
        with urlopen(asked, timeout=60) as answer:
            answer.read()
        seconds.append(time.perf_counter() - began)
    return seconds


def _reads(url: str) -> float:
    """Cohorts that were read so far: for those who come, and by the tails of all workers.

    The former are leases, of steps from one pool and of rows from another; pages add a few.
    """
    time.sleep(_WRITTEN_WITHIN)
    asked = Request(f"{url}/metrics", headers=bearer("t0", "admin"))
    with urlopen(asked, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if _READS.match(line))


def _seconds(pid: int) -> float:
    """Processor seconds of a process and its children so far."""
    parent = psutil.Process(pid)
    times = [each.cpu_times() for each in (parent, *parent.children(recursive=True))]
    return sum(each.user + each.system for each in times)
