"""Several workers, reported and repaired as one service."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from tests.support.processes import children
from tests.support.servers import LOGIN, as_login
from tests.support.service import NO_REDIS, Running, bearer, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


ADMIN = bearer(role="admin")
WORKERS = 3
# Few enough that one worker, with a place less than its pool for the sake of small requests, may
# get all of them: the kernel gives each to which worker it likes.
STREAMS = 4
SCHEMA = f"""
CREATE SCHEMA app;
CREATE VIEW app.endless AS
    SELECT n, pg_sleep(0.005) IS NULL AS awake FROM generate_series(1, 100000) AS n ORDER BY n;
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS = '[endless]\nrelation = "app.endless"\nkey = ["n"]\nshared = true\nnot_null = ["n"]\n'


@pytest.fixture(scope="module")
async def database(log_database: str) -> str:
    admin = await asyncpg.connect(log_database)
    await admin.execute(SCHEMA)
    await admin.close()
    return as_login(log_database)


@pytest.fixture
def service(database: str, tmp_path: Path) -> Iterator[Running]:
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(DATASETS)
    arguments = [f"--workers={WORKERS}"]
    # What workers think of each other is not to depend on how Redis is.
    # Nor on how busy the machine is, for which a worker is ill for ten seconds.
    settings = {**NO_REDIS, "FEEDSVC_HEALTH__LOOP_LAG": "60"}
    with serving(database, settings=settings, datasets=datasets, arguments=arguments) as running:
        yield running


def workers_of(service: Running) -> set[int]:
    return {*children(service.pid)}


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        await asyncio.sleep(0.05)


async def get(service: Running, path: str) -> Any:
    """On a connection of its own, so that any worker may answer."""
    async with aiohttp.request("GET", service.url + path, headers=ADMIN) as answer:
        assert answer.status == 200
        return await answer.json()


async def workers_check(service: Running) -> dict[str, Any]:
    reported = await get(service, "/api/performance/health")
    (found,) = [check for check in reported["checks"] if check["name"] == "workers"]
    return {**found, "worker": reported["worker"]}


async def all_well(service: Running) -> bool:
    return str((await workers_check(service))["what"]) == f"All {WORKERS} workers are well."


async def test_pools_are_those_of_all_workers(service: Running) -> None:
    streams = []
    async with aiohttp.ClientSession(service.url, headers=bearer()) as session:
        for _ in range(STREAMS):
            stream = await session.get("/v1/feeds/endless?format=ndjson")
            streams.append((stream, asyncio.create_task(read_on(stream))))
        bulk: dict[str, Any] = {}

        async def all_are_in_it() -> bool:
            # One that is late to answer is left out.
            pools = (await get(service, "/api/performance/pools"))["pools"]
            bulk.update(*(pool for pool in pools if pool["name"] == "bulk"))
            found = bulk["workers"], bulk["in_use"], bulk["in_use_by_exports"]
            return found == (WORKERS, STREAMS, STREAMS)

        await until(all_are_in_it, 60)
        assert bulk["waits"]["count"] == STREAMS
        assert bulk["size"] == 5, "each worker's, as in the settings"
        for stream, reading in streams:
            reading.cancel()
            stream.close()


async def read_on(stream: aiohttp.ClientResponse) -> None:
    async for _ in stream.content.iter_any():
        pass


async def test_workers_that_have_only_just_begun_are_not_called_ill(service: Running) -> None:
    await until(lambda: all_well(service), 60)
    reported = [line for line in service.log if "health: workers is" in line]
    assert not [line for line in reported if "is degraded (" in line]


async def test_a_worker_that_is_blocked_is_noticed_by_the_others(service: Running) -> None:
    await until(lambda: all_well(service), 60)
    victim = min(workers_of(service))
    os.kill(victim, signal.SIGSTOP)
    try:

        async def noticed() -> bool:
            found = await workers_check(service)
            return found["state"] == "degraded" and str(victim) in found["what"]

        await until(noticed, 60)
        repaired = await repair(service, ["log_reader"])
        assert {reported["worker"]: reported["outcome"] for reported in repaired} == {
            worker: "failed" if worker == victim else "done" for worker in workers_of(service)
        }
    finally:
        os.kill(victim, signal.SIGCONT)


async def test_a_worker_that_is_not_there_is_missed(service: Running) -> None:
    await until(lambda: all_well(service), 60)
    victims = list(workers_of(service))[:2]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)

    async def missed() -> bool:
        # The first of them may be back before anybody looks.
        what = (await workers_check(service))["what"]
        return re.search("Only [12] of 3 workers are there", what) is not None

    await until(missed, 60)
    await until(lambda: all_well(service), 60)


async def repair(service: Running, names: list[str], *, dry: bool = False) -> list[dict[str, Any]]:
    url = f"{service.url}/api/performance/health/repair"
    asked = {"repairs": names, "dry_run": dry}
    async with aiohttp.request("POST", url, json=asked, headers=ADMIN) as answer:
        assert answer.status == 200, await answer.text()
        return list((await answer.json())["repairs"])


async def test_every_worker_makes_a_repair_and_one_makes_those_of_the_database(
    service: Running,
) -> None:
    await until(lambda: all_well(service), 60)
    reported = await repair(service, ["connections", "sessions"], dry=True)
    workers = workers_of(service)
    assert {t["worker"] for t in reported if t["name"] == "connections"} == workers
    assert len([t for t in reported if t["name"] == "sessions"]) == 1
    assert len(reported) == WORKERS + 1


async def test_workers_that_hand_over_are_not_counted(service: Running) -> None:
    await until(lambda: all_well(service), 60)
    async with aiohttp.ClientSession(service.url, headers=bearer()) as session:
        stream = await session.get("/v1/feeds/endless?format=ndjson")
        reading = asyncio.create_task(read_on(stream))
        service.process.send_signal(signal.SIGHUP)

        async def one_is_finishing() -> bool:
            what = (await workers_check(service))["what"]
            return str(what) == "All 3 workers are well; 1 more only finish what they began."

        await until(one_is_finishing, 60)

        async def the_others_count() -> bool:
            """A worker that is late with its figures is left out of an answer."""
            pools = (await get(service, "/api/performance/pools"))["pools"]
            (bulk,) = [pool for pool in pools if pool["name"] == "bulk"]
            return (bulk["workers"], bulk["in_use"]) == (WORKERS, 0)

        # The one that finishes has a connection in use for as long as its client reads.
        await until(the_others_count, 30)
        reading.cancel()
        stream.close()
    await until(lambda: all_well(service), 60)
