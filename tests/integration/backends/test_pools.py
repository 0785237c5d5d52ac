"""Connections by operation: waiting, refusals, and the report of both."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from tests.support.servers import LOGIN, as_login
from tests.support.service import Running, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

# A row every 5 ms, read on as the client takes them: none of these ends within a test.
SCHEMA = f"""
CREATE SCHEMA app;
CREATE VIEW app.endless AS
    SELECT n, pg_sleep(0.005) IS NULL AS awake FROM generate_series(1, 100000) AS n ORDER BY n;
CREATE VIEW app.late AS
    SELECT n, pg_sleep(0.25) IS NULL AS awake FROM generate_series(1, 1) AS n;
CREATE TABLE app.quick (n int PRIMARY KEY);
INSERT INTO app.quick SELECT generate_series(1, 1000);
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS = "".join(
    f'[{name}]\nrelation = "app.{relation}"\nkey = ["n"]\nshared = true\nnot_null = ["n"]\n'
    f'pool = "{pool}"\n'
    for name, relation, pool in (
        ("endless", "endless", "bulk"),
        ("quick", "quick", "bulk"),
        ("endless_read", "endless", "read"),
        ("quick_read", "quick", "read"),
    )
)
WAITS = 1.0  # seconds


@pytest.fixture(scope="module")
async def database(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(script=SCHEMA) as url:
        yield url


@pytest.fixture
def service(database: str, tmp_path: Path) -> Iterator[Running]:
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(DATASETS)
    settings = {
        "FEEDSVC_POOLS__BULK__SIZE": "3",
        "FEEDSVC_POOLS__BULK__ACQUIRE_TIMEOUT": str(WAITS),
        "FEEDSVC_POOLS__BULK__MOST_WAITING": "1",
        "FEEDSVC_POOLS__BULK__APPLICATION_NAME": "the exports",
        "FEEDSVC_POOLS__READ__SIZE": "3",
    }
    with serving(as_login(database), datasets=datasets, settings=settings) as running:
        yield running


@pytest.fixture
async def http(service: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url, headers=bearer()) as session:
        yield session


@asynccontextmanager
async def running(
    http: aiohttp.ClientSession, dataset: str, count: int
) -> AsyncIterator[list[aiohttp.ClientResponse]]:
    """So many exports without an end, each of which has got rows already, and which are read on."""
    answers = [
        await http.get(f"/v1/feeds/{dataset}?format=ndjson", headers=bearer()) for _ in range(count)
    ]
    assert [answer.status for answer in answers] == [200] * count
    reading = [asyncio.create_task(read_on(answer)) for answer in answers]
    try:
        yield answers
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for answer in answers:
            answer.close()


async def read_on(answer: aiohttp.ClientResponse) -> None:
    async for _ in answer.content.iter_any():
        pass


async def pools(http: aiohttp.ClientSession) -> dict[str, dict[str, Any]]:
    async with http.get("/api/performance/pools", headers=bearer(role="admin")) as answer:
        return {pool["name"]: pool for pool in (await answer.json())["pools"]}


async def refusal(http: aiohttp.ClientSession, path: str) -> tuple[str, int]:
    async with http.get(path) as answer:
        problem = await answer.json()
        assert (answer.status, problem["type"]) == (503, "/problems/busy")
        return problem["detail"], int(answer.headers["Retry-After"])


async def test_small_exports_do_not_wait_behind_large_ones(http: aiohttp.ClientSession) -> None:
    async with running(http, "endless", 2):
        for _ in range(10):
            async with http.get("/v1/feeds/quick?format=ndjson&limit=900") as answer:
                assert answer.status == 200
                assert (await answer.text()).count("\n") == 900
        detail, _ = await refusal(http, "/v1/feeds/quick?format=ndjson")
        assert detail.startswith("No connection came free in time")


async def test_pages_do_not_wait_behind_exports_of_the_same_pool(
    http: aiohttp.ClientSession,
) -> None:
    async with running(http, "endless_read", 2):
        for path in ("/v1/feeds/quick_read?limit=20", "/v1/feeds/quick_read/7"):
            async with http.get(path) as answer:
                assert answer.status == 200
        await refusal(http, "/v1/feeds/quick_read")


async def test_a_request_that_would_wait_in_vain_gets_503_at_once(
    http: aiohttp.ClientSession,
) -> None:
    for _ in range(10):
        async with http.get("/v1/feeds/quick") as answer:
            await answer.read()
    async with running(http, "endless", 2):
        await asyncio.sleep(2 * WAITS)
        detail, retry = await refusal(http, "/v1/feeds/quick")
        assert detail.startswith("It would take too long to wait")
        assert retry >= 2 * WAITS
        reported = await pools(http)
    assert reported["bulk"]["refused"] == {"full": 0, "own": 0, "vain": 1, "late": 0}


async def test_a_flood_of_refusals_is_counted_and_not_logged_one_by_one(
    http: aiohttp.ClientSession, service: Running
) -> None:
    async with running(http, "endless", 2):
        await asyncio.gather(*(refusal(http, "/v1/feeds/quick") for _ in range(60)))
    said = "requests were refused: Too many requests wait already for a connection of the bulk pool"
    assert 1 <= sum(said in line for line in service.log) <= 10


async def test_a_request_while_too_many_wait_gets_503_at_once(http: aiohttp.ClientSession) -> None:
    async with running(http, "endless", 2):
        both = await asyncio.gather(*(refusal(http, "/v1/feeds/quick") for _ in range(2)))
    details = sorted(detail for detail, _ in both)
    assert details[0].startswith("No connection came free in time")
    assert details[1].startswith("Too many requests wait already")


async def test_a_flood_of_one_principal_delays_no_other_one(database: str, tmp_path: Path) -> None:
    """With 30 pages in line, each of which takes a quarter of a second."""
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(
        DATASETS.replace('relation = "app.endless"', 'relation = "app.late"').replace(
            "shared = true", "shared = true\ncache = false"
        )
    )
    settings = {"FEEDSVC_POOLS__READ__SIZE": "4", "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "60"}
    page = "/v1/feeds/endless_read?limit=1"
    with serving(as_login(database), datasets=datasets, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as http:
            flood = [asyncio.create_task(status(http, page, "flood")) for _ in range(30)]
            await until_waiting(http, 20)
            assert (await pools(http))["read"]["in_use"] == 3, "it has more than its share"
            # It waits for no turn: the fourth connection is not the flood's to take.
            assert await status(http, "/v1/feeds/quick_read?limit=1", "other") == 200
            assert sum(task.done() for task in flood) < 20, "it waited behind the flood"
            assert set(await asyncio.gather(*flood)) == {200}


async def status(http: aiohttp.ClientSession, path: str, subject: str) -> int:
    async with http.get(path, headers=bearer(subject=subject)) as answer:
        await answer.read()
        return answer.status


async def until_waiting(http: aiohttp.ClientSession, count: int) -> None:
    async with asyncio.timeout(30):
        while (await pools(http))["read"]["waiting"] < count:
            await asyncio.sleep(0.01)


async def while_one_waits(http: aiohttp.ClientSession) -> tuple[dict[str, Any], int]:
    """The bulk pool's figures while a request waits, and the number of requests until then."""
    async with asyncio.timeout(60):
        refused, seen = 0, dict[str, Any]()
        while seen.get("waiting") != 1:
            waiting = asyncio.create_task(refusal(http, "/v1/feeds/quick"))
            seen = dict[str, Any]()
            while not waiting.done() and not seen.get("waiting"):
                seen = (await pools(http))["bulk"]
            await waiting
            refused += 1
    return seen, refused


async def test_the_report_of_the_pools(http: aiohttp.ClientSession, database: str) -> None:
    admin = await asyncpg.connect(database)
    async with running(http, "endless", 2):
        bulk, refused = await while_one_waits(http)
        assert (bulk["size"], bulk["reserve"], bulk["in_use"]) == (3, 1, 2)
        assert (bulk["in_use_by_exports"], bulk["open"]) == (2, 2)
        names = await admin.fetch(
            "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
        )
        assert sum(name[0] == "the exports" for name in names) == 2
    await admin.close()
    reported = await pools(http)
    assert set(reported) == {"read", "write", "analytics", "bulk"}
    bulk = reported["bulk"]
    assert bulk["waits"]["count"] == 2 + refused
    assert bulk["waits"]["max_ms"] >= WAITS * 1e3 * 0.9
    assert bulk["timeouts"]["acquire"] == WAITS
    assert bulk["suggestion"]["size"] is None, "nobody can tell after so short a while"
    assert "too short" in bulk["suggestion"]["why"]
