"""A feed's length costs no memory: a million rows in each format, through one service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import asyncpg
import pytest

from tests.support.servers import LOGIN, as_login
from tests.support.service import Running, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import NewDatabase

ROWS = 1_000_000
MOST_GROWTH = 16 * 1024 * 1024
TAIL = 4_096  # bytes; more than the last frame of a feed

SCHEMA = f"""
CREATE SCHEMA long;
CREATE TABLE long.rows AS
    SELECT n, n % 97 = 0 AS odd, 'row ' || n AS title FROM generate_series(1, {ROWS}) AS n;
ALTER TABLE long.rows ADD PRIMARY KEY (n);
GRANT USAGE ON SCHEMA long TO {LOGIN};
GRANT SELECT ON long.rows TO {LOGIN};
"""
DATASETS = "".join(
    f'[{name}]\nrelation = "long.rows"\nkey = ["n"]\nshared = true\nsource = "{source}"\n{more}'
    for name, source, more in (
        ("rows", "copy", ""),
        ("ranged", "copy", "ranges = 4\n"),
        ("sent", "cursor", ""),
        ("projected", "projection", ""),
    )
)


class Read(NamedTuple):
    """The sum of a body, of which only the end was kept."""

    coding: str | None
    line_ends: int
    tail: bytes


@pytest.fixture(scope="module")
async def service(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    datasets: Path = tmp_path_factory.mktemp("memory") / "datasets.toml"
    datasets.write_text(DATASETS)
    async with new_database() as url:
        admin = await asyncpg.connect(url)
        await admin.execute(SCHEMA)
        await admin.execute("VACUUM (ANALYZE) long.rows")
        await admin.close()
        with serving(as_login(url), datasets=datasets) as running:
            yield running


async def read(service: Running, dataset: str, query: str, coding: str) -> Read:
    """Read a feed as fast as it comes."""
    headers = {**bearer(), "Accept-Encoding": coding}
    url = f"{service.url}/v1/feeds/{dataset}?{query}"
    async with aiohttp.request("GET", url, headers=headers) as answer:
        assert answer.status == 200
        line_ends, tail = 0, b""
        async for chunk in answer.content.iter_any():
            line_ends += chunk.count(b"\n")
            tail = (tail + chunk)[-TAIL:]
        return Read(answer.headers.get("Content-Encoding"), line_ends, tail)


def resident(pid: int, line: str) -> int:
    """Bytes of memory by a line of /proc/PID/status: VmRSS now, VmHWM at the most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(entry.split()[1]) for entry in status.splitlines() if line in entry) * 1024


# A source's pages, an encoding and a coding are each in one of the others as well.
PRODUCT = [
    pytest.param(
        *(dataset, "format=ndjson", coding, ROWS, f'"title":"row {ROWS}"}}\n'.encode()),
        marks=pytest.mark.soak,
    )
    for dataset, coding in (("rows", "identity"), ("ranged", "identity"), ("rows", "gzip"))
]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
@pytest.mark.parametrize(
    ("dataset", "query", "coding", "line_ends", "end"),
    [
        (
            "rows",
            "format=json",
            "identity",
            ROWS + 2,
            b"}\n]\n",
        ),  # each bracket has a line of its own
        ("rows", "format=csv", "identity", ROWS + 1, f"{ROWS},false,row {ROWS}\r\n".encode()),
        ("ranged", "format=ndjson", "gzip", ROWS, f'"title":"row {ROWS}"}}\n'.encode()),
        ("sent", "format=ndjson", "identity", ROWS, f'"title":"row {ROWS}"}}\n'.encode()),
        ("projected", "format=ndjson", "identity", ROWS, f'"title":"row {ROWS}"}}\n'.encode()),
        (
            "rows",
            "format=ndjson&frames=1&progress=0.1",
            "identity",
            ROWS + 1,
            f'"rows":{ROWS},'.encode(),
        ),
        (
            "rows",
            "format=sse",
            "identity",
            0,
            f'event: end\nid: end\ndata: {{"rows":{ROWS},'.encode(),
        ),
        *PRODUCT,
    ],
)
async def test_a_million_rows_grow_the_service_by_less_than_16_mib(
    service: Running, dataset: str, query: str, coding: str, line_ends: int, end: bytes
) -> None:
    await read(service, dataset, f"{query}&limit=5000", coding)  # what is made once has been made
    Path(f"/proc/{service.pid}/clear_refs").write_text("5")  # forgets the peak so far
    before = resident(service.pid, "VmRSS")
    body = await read(service, dataset, query, coding)
    grown = resident(service.pid, "VmHWM") - before
    assert (body.coding or "identity") == coding
    assert body.line_ends >= line_ends
    assert end in body.tail
    assert grown < MOST_GROWTH
