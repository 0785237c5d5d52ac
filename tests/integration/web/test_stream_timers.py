"""Streams as time goes by: pings, and an end that `export_timeout` sets."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support import sse
from tests.support.raw import request, wire
from tests.support.servers import LOGIN, as_login
from tests.support.service import NO_REDIS, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

TOKEN = f"Authorization: {bearer()['Authorization']}"
SCHEMA = f"""
CREATE SCHEMA slow;
CREATE VIEW slow.sleepy AS
    SELECT n, pg_sleep(CASE WHEN n > 3000 THEN 1 ELSE 0 END) IS NULL AS awake
    FROM generate_series(1, 3003) AS n ORDER BY n;
CREATE VIEW slow.endless AS
    SELECT n, pg_sleep(0.005) IS NULL AS awake FROM generate_series(1, 1000000) AS n ORDER BY n;
GRANT USAGE ON SCHEMA slow TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA slow TO {LOGIN};
"""
DATASETS = "".join(
    f'[{name}]\nrelation = "slow.{name}"\nkey = ["n"]\nshared = true\nnot_null = ["n"]\n'
    for name in ("sleepy", "endless")
)


@pytest.fixture(scope="module")
async def slow(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(script=SCHEMA) as url:
        yield as_login(url)


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS)
    return file


async def test_a_quiet_event_stream_is_pinged(slow: str, datasets: Path) -> None:
    settings = {**NO_REDIS, "FEEDSVC_STREAMS__PING_INTERVAL": "0.2"}
    with serving(slow, datasets=datasets, settings=settings) as service:
        url = f"{service.url}/v1/feeds/sleepy?format=sse&progress=60"
        async with aiohttp.request("GET", url, headers=bearer()) as answer:
            body = await answer.read()
    assert b": ping\n\n" in body
    assert json.loads(sse.parse(body).events[-1].data)["rows"] == 3_003


@pytest.mark.parametrize("form", ["sse", "ndjson&frames=1", "json"])
async def test_an_export_may_take_so_long(slow: str, datasets: Path, form: str) -> None:
    settings = {**NO_REDIS, "FEEDSVC_STREAMS__EXPORT_TIMEOUT": "1.5"}
    with serving(slow, datasets=datasets, settings=settings) as service:
        url, body = f"{service.url}/v1/feeds/endless?format={form}", bytearray()
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.request("GET", url, headers=bearer(), timeout=timeout) as answer:
            assert answer.headers["X-Accel-Buffering"] == "no"
            with pytest.raises(aiohttp.ClientPayloadError):
                await _read_into(body, answer)
    assert form == "json" or b"/problems/timeout" in body[-1_000:]


async def _read_into(body: bytearray, answer: aiohttp.ClientResponse) -> None:
    async for piece in answer.content.iter_any():
        body += piece


async def test_an_idle_connection_ends_after_its_timeout(slow: str, datasets: Path) -> None:
    settings = {**NO_REDIS, "FEEDSVC_SERVER__KEEPALIVE_TIMEOUT": "0.5"}
    with serving(slow, datasets=datasets, settings=settings) as service:
        async with wire(service) as client:
            for _ in range(2):
                await client.send(request("/live"))
                assert (await client.answer()).status == 200
                answered = time.monotonic()
            assert await client.is_closed_within(60)
            assert time.monotonic() - answered > 0.4
