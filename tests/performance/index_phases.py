"""All index revisions of the demo's world up, proven and down again, with writers at work.

    make bench ARGS="--phases --rows 1000000"

prints what docs/migrations.md has: the time of each way, each write's own time from when it was
sent (`open_writers`), whether each query of the catalogue uses the same indexes as at 10,000 rows,
and the pages that a page of each feed touches. Exit 1 if a write took over a second, a plan differs
or the proof finds a fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from feedsvc.backends.postgres.index_proof.report import ProofReport, prove_line
from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.migrations.lines import TERRITORIES
from feedsvc.commands.demo import seeding
from feedsvc.commands.demo.embedded import cache_folder, start_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

_WEDDING: Final = TERRITORIES["wedding"]
_TABLES_ALONE: Final = "0004"
_SMALL: Final = 10_000
_MORE_PAGES: Final = 14
"""Pages that a page of a feed may touch beside one for each of its rows: levels of its index."""
_LIMIT: Final = re.compile(r"LIMIT (\d+)$")
_SETTINGS: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "max_wal_senders": "2",
    "max_connections": "400",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
}
"""As in production: a commit waits for the disk."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of the line beside writers: its seconds, and the writers' figures."""

    name: str
    seconds: float
    written: dict[str, float]


@contextmanager
def _folder_on_disk() -> Iterator[Path]:
    """A folder on a disk that the server's account may enter; tests' servers are in memory."""
    folders = cache_folder()
    folders.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="phases-", dir=folders) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder, "server")


@contextmanager
def _writing(dsn: str, rows: int) -> Iterator[dict[str, float]]:
    """Writers in a process of their own; their figures are there behind the block."""
    figures: dict[str, float] = {}
    command = (sys.executable, "-m", "tests.performance.open_writers", dsn, str(rows))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield figures
        out, _ = process.communicate()
        figures |= json.loads(out.splitlines()[-1])


def _ways(dsn: str, rows: int) -> Iterator[Way]:
    """Up from the tables alone, and down to them."""
    for name in ("up", "down"):
        with _writing(dsn, rows) as written:
            began = time.monotonic()
            if name == "up":
                asyncio.run(runner.up(dsn, "wedding"))
            else:
                asyncio.run(runner.down(dsn, "wedding", to=_TABLES_ALONE))
            seconds = time.monotonic() - began
        yield Way(name, seconds, written)


async def _seeded(dsn: str, rows: int) -> None:
    """The tables with data, and none of the indexes behind them."""
    await runner.up(dsn, "wedding")
    await seeding.seed(dsn, rows, 1)
    await runner.down(dsn, "wedding", to=_TABLES_ALONE)


async def _proof(dsn: str) -> ProofReport:
    """The proof of all indexes."""
    await runner.up(dsn, "wedding")
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("VACUUM (ANALYZE)")
        return await prove_line(connection, _WEDDING)
    finally:
        await connection.close()


def _used(report: ProofReport) -> dict[str, list[str]]:
    """The indexes that each query uses of the line's own."""
    return {each.query.name: sorted(each.plan.indexes) for each in report.plans}


def _pages_of_feeds(report: ProofReport) -> dict[str, tuple[int, int]]:
    """The pages that one page of each feed touches, and the rows that it may have."""
    return {
        each.query.name: (each.plan.pages, int(limited[1]))
        for each in report.plans
        if each.query.actor == "feed" and each.plan.pages is not None
        and (limited := _LIMIT.search(each.query.sql)) is not None
    }  # fmt: skip


def _differences(small: ProofReport, large: ProofReport) -> list[str]:
    """Queries that use other indexes at the second size."""
    used = _used(small)
    return [
        f"{name}: {', '.join(used[name])} and then {', '.join(others)}"
        for name, others in _used(large).items()
        if used.get(name) != others
    ]


def _growing(report: ProofReport) -> list[str]:
    """Pages of feeds that touch more than a constant number of the database's pages."""
    return [
        f"{name}: {pages} pages for {rows} rows"
        for name, (pages, rows) in _pages_of_feeds(report).items()
        if pages > rows + _MORE_PAGES
    ]


def _measured(rows: int) -> tuple[ProofReport, list[str]]:
    """The proof at a size, and what was wrong beside writers; prints the figures."""
    faults = []
    with _folder_on_disk() as folder, start_postgres(folder, settings=_SETTINGS) as server:
        dsn, began = server.url(), time.monotonic()
        asyncio.run(_seeded(dsn, rows))
        _tell(f"{rows:,} rows, seeded in {time.monotonic() - began:.0f} s")
        for way in _ways(dsn, rows):
            load = os.getloadavg()[0]
            _tell(f"{way.name}: {way.seconds:.1f} s, {json.dumps(way.written)}, load {load:.0f}")
            if way.written["over_1_s"]:
                faults.append(f"{way.name}: {way.written['over_1_s']} writes took over a second")
        report = asyncio.run(_proof(dsn))
    size = sum(each.index.bytes for each in report.proofs)
    _tell(f"{report.proven} indexes proven, of {size / 2**20:,.0f} MiB")
    _tell(f"pages: {json.dumps(_pages_of_feeds(report))}")
    return report, [*faults, *report.findings, *_growing(report)]


def main(rows: int) -> int:
    """Print the figures; 1 where one is not as it has to be."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the server ends
    small, faults = _measured(_SMALL)
    large, more = _measured(rows)
    faults += [*more, *_differences(small, large)]
    for fault in faults:
        _tell(f"fault: {fault}")
    return int(bool(faults))


def _tell(what: str) -> None:
    print(what, flush=True)
