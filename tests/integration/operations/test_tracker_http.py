"""`/api/performance/metrics` as JSON, CSV and live events, of all workers together."""

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.conftest import NewDatabase
from tests.support import sse
from tests.support.servers import as_login, world_of_its_own
from tests.support.service import NO_REDIS, Running, bearer, serving

FEED = "/v1/feeds/clients"
PATH = "/api/performance/metrics"
ADMIN = bearer(role="admin")
PARTS = (
    "range", "from", "to", "lacking", "totals", "endpoints", "slowest", "problems", "database",
    "queries", "cache", "live", "pools", "system", "now",
)  # fmt: skip


@pytest.fixture(scope="module")
async def watched(admin_url: str) -> AsyncIterator[Running]:
    """Two workers, on a world that no other service tells of."""
    async with world_of_its_own(admin_url) as url:
        with serving(url, settings=NO_REDIS, arguments=["--workers=2"]) as running:
            yield running


@pytest.fixture
async def client(watched: Running) -> AsyncIterator[aiohttp.ClientSession]:
    """One that opens a connection for each request, so that both workers get some."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(watched.url, connector=connector) as session:
        yield session


async def report(client: aiohttp.ClientSession, wanted: str = "1h") -> dict[str, Any]:
    async with client.get(PATH, params={"range": wanted}, headers=ADMIN) as answer:
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())


async def test_any_worker_reports_for_all_with_each_request_once(
    client: aiohttp.ClientSession,
) -> None:
    for number in range(30):
        async with client.get(f"{FEED}?limit={number + 1}", headers=bearer()) as answer:
            await answer.read()
    for path in (f"{FEED}?limit=x", "/v1/feeds/nothing"):
        async with client.get(path, headers=bearer()) as answer:
            await answer.read()
    deadline = time.monotonic() + 60
    while True:  # until each has told the others
        found = await report(client)
        ended = found["totals"]["outcomes"]
        if ended["complete"] >= 30 and ended["refused"] >= 2:
            break
        assert time.monotonic() < deadline, found
        await asyncio.sleep(1)
    assert tuple(found) == PARTS
    assert found["lacking"] is None
    endpoints = {(e["method"], e["route"], e["dataset"]): e for e in found["endpoints"]}
    clients = endpoints["GET", "/v1/feeds/{dataset}", "clients"]
    assert clients["outcomes"]["complete"] == 30
    assert clients["outcomes"]["refused"] == 1
    assert clients["rows"] == sum(range(1, 31))
    assert 0 < clients["p50_ms"] <= clients["p95_ms"] <= clients["p99_ms"]
    assert found["problems"]["bad-parameter"] == 1
    cached = found["cache"]["datasets"]["clients"]
    assert cached["load"]["p50_ms"] > 0
    assert cached["hits"]["memory"] + cached["misses"] == 30
    assert found["cache"]["hits"] == cached["hits"]
    assert found["cache"]["redis"] == {"losses": 0, "away_s": 0}
    assert found["pools"]["read"]["leases"]["leased"] > 0
    assert found["now"]["workers"] == 2
    assert found["now"]["database_answers"] is True
    assert found["now"]["redis_answers"] is None
    assert found["system"]["peak_memory_bytes"] > 20e6
    assert found["now"]["memory_bytes"] > 1.5 * found["system"]["peak_memory_bytes"]


@pytest.mark.parametrize("wanted", ["1h", "24h", "7d"])
async def test_each_range(client: aiohttp.ClientSession, wanted: str) -> None:
    seconds = {"1h": 3_600, "24h": 86_400, "7d": 604_800}[wanted]
    found = await report(client, wanted)
    assert found["range"] == wanted
    assert seconds <= found["to"] - found["from"] < seconds + 3_600


async def test_as_csv(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/feeds/clients", params={"limit": "1"}, headers=bearer()) as page:
        assert page.status == 200
    for headers, parameters in (
        ({"Accept": "text/csv"}, {}),
        ({}, {"format": "csv"}),
    ):
        async with client.get(PATH, params=parameters, headers={**ADMIN, **headers}) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
            assert "feedsvc-1h.csv" in answer.headers["Content-Disposition"]
            reader = csv.DictReader(io.StringIO(await answer.text(), newline=""))
        columns = {"method", "route", "dataset", "count", "p95_ms", "first_byte_p99_ms"}
        assert columns <= set(reader.fieldnames or ())
        # A worker that had none of the requests has no row while a busy other one doesn't answer.
        async with asyncio.timeout(60):
            while not any(r["dataset"] == "clients" and int(r["count"]) > 0 for r in reader):
                await asyncio.sleep(0.1)
                async with client.get(
                    PATH, params=parameters, headers={**ADMIN, **headers}
                ) as more:
                    reader = csv.DictReader(io.StringIO(await more.text(), newline=""))


async def test_live_until_the_client_leaves(client: aiohttp.ClientSession) -> None:
    parameters = {"format": "sse", "interval": "1"}
    body = b""
    async with client.get(PATH, params=parameters, headers=ADMIN) as answer:
        assert answer.content_type == "text/event-stream"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        async with asyncio.timeout(60):
            while len(sse.parse(body).of_type("metrics")) < 3:
                body += await answer.content.readany()
    for event in sse.parse(body).of_type("metrics"):
        assert tuple(json.loads(event.data)) == PARTS


async def test_live_ends_with_its_token(client: aiohttp.ClientSession) -> None:
    for lifetime in (-3, 0, 10):  # and the leeway of 5 s; the longer ones for a busy machine
        headers = bearer(role="admin", lifetime=lifetime)
        async with client.get(PATH, params={"format": "sse"}, headers=headers) as answer:
            if answer.status == 401:
                continue
            assert answer.status == 200
            body = b""

            async def read() -> None:
                nonlocal body
                while piece := await answer.content.readany():
                    body += piece

            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(read(), 60)
            break
    else:
        pytest.fail("each token expired before its request was answered")
    assert json.loads(sse.parse(body).events[-1].data)["type"] == "/problems/token-expired"
    assert sse.parse(body).events[-1].type == "error"


@pytest.mark.parametrize(
    ("query", "headers", "status", "parameter"),
    [
        ("range=2h", {}, 400, "range"),
        ("range=1h&range=7d", {}, 400, "range"),
        ("format=xml", {}, 400, "format"),
        ("since=1", {}, 400, "since"),
        ("interval=5", {}, 400, "interval"),
        ("format=sse&interval=0", {}, 400, "interval"),
        ("format=sse&interval=nan", {}, 400, "interval"),
        ("format=sse&interval=61", {}, 400, "interval"),
        ("", {"Accept": "image/png"}, 406, None),
    ],
)
async def test_what_can_not_be_asked(
    client: aiohttp.ClientSession,
    query: str,
    headers: dict[str, str],
    status: int,
    parameter: str | None,
) -> None:
    async with client.get(f"{PATH}?{query}", headers={**ADMIN, **headers}) as answer:
        assert answer.status == status
        assert (await answer.json()).get("parameter") == parameter


@pytest.mark.parametrize("form", ["json", "csv", "sse"])
async def test_the_headers_alone(client: aiohttp.ClientSession, form: str) -> None:
    async with client.head(PATH, params={"format": form}, headers=ADMIN) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_live_ends_at_once_at_a_drain(world_url: str) -> None:
    with serving(world_url) as running:
        async with (
            aiohttp.ClientSession(running.url) as client,
            client.get(PATH, params={"format": "sse"}, headers=ADMIN) as answer,
        ):
            await answer.content.readany()
            running.terminate()
            async with asyncio.timeout(60):
                last = sse.parse(await answer.read())
        assert json.loads(last.events[-1].data)["type"] == "/problems/draining"
        assert last.retry is not None
        await asyncio.to_thread(running.process.wait, 60)


BARE = """
CREATE SCHEMA bare;
CREATE TABLE bare.things (id int PRIMARY KEY);
INSERT INTO bare.things SELECT generate_series(1, 10);
GRANT USAGE ON SCHEMA bare TO PUBLIC;
GRANT SELECT ON bare.things TO PUBLIC;
"""


async def test_a_database_that_was_never_migrated_is_served_and_says_why_it_has_no_past(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    datasets = tmp_path / "datasets.toml"
    datasets.write_text('[things]\nrelation = "bare.things"\nkey = ["id"]\nshared = true\n')
    async with new_database(script=BARE) as url:
        with serving(as_login(url), datasets=datasets) as running:
            async with aiohttp.ClientSession(running.url) as client:
                async with client.get("/v1/feeds/things", headers=bearer()) as answer:
                    assert (answer.status, len(await answer.json())) == (200, 10)
                async with client.get(PATH, headers=ADMIN) as answer:
                    reported = await answer.json()
                    assert (answer.status, reported["type"]) == (503, "/problems/not-set-up")
                    assert "Retry-After" in answer.headers
            warnings = [line for line in running.log if "feedsvc.performance" in line]
            assert len(warnings) == 1
            assert "feedsvc migrate up" in warnings[0]
