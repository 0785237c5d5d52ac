"""A million rows cost the service no more memory than a thousand."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support.servers import LOGIN, as_login
from tests.support.service import Running, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import NewDatabase

ROWS = 1_000_000
MOST_GROWTH = 16 * 1024 * 1024

SCHEMA = f"""
CREATE TABLE million (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO million SELECT n, 'row ' || n FROM generate_series(1, {ROWS}) AS n;
GRANT SELECT ON million TO {LOGIN};
"""
DATASETS = '[million]\nrelation = "public.million"\nkey = ["id"]\nshared = true\n'


@pytest.fixture(scope="module")
async def service(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    datasets: Path = tmp_path_factory.mktemp("memory") / "datasets.toml"
    datasets.write_text(DATASETS)
    async with new_database() as url:
        admin = await asyncpg.connect(url)
        await admin.execute(SCHEMA)
        await admin.close()
        with serving(as_login(url), datasets=datasets) as running:
            yield running


def resident(pid: int, line: str) -> int:
    """Bytes of memory by a line of /proc/PID/status: VmRSS now, VmHWM at the most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(entry.split()[1]) for entry in status.splitlines() if line in entry) * 1024


async def download(service: Running, query: str) -> int:
    """Streams a feed into nothing and counts its bytes."""
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{size_download}",
        "-H", f"Authorization: {bearer()['Authorization']}", f"{service.url}/v1/feeds/{query}",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    out, _ = await curl.communicate()
    assert curl.returncode == 0
    return int(out)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak")
@pytest.mark.parametrize(
    "query",
    [
        "million?format=json",
        "million?format=csv",
        "million?format=ndjson",
        "million?format=sse",
        "million?format=ndjson&frames=1&progress=0.1",
    ],
)
async def test_a_million_rows_cost_less_than_16_mib(service: Running, query: str) -> None:
    await download(service, f"{query}&limit=5000")
    Path(f"/proc/{service.pid}/clear_refs").write_text("5")  # forgets the peak so far
    before = resident(service.pid, "VmRSS")
    assert await download(service, query) > 15 * ROWS
    assert resident(service.pid, "VmHWM") - before < MOST_GROWTH
