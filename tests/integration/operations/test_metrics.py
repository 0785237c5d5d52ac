"""Metrics for Prometheus: all workers together, the same series whatever is asked."""

import asyncio
import json
import os
import random
import re
import signal
import socket
import string
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg
import pytest

from tests.integration.commands.test_check import environment
from tests.support.exposed import Exposed, exposed, parse
from tests.support.forked import feedsvc
from tests.support.narrow import narrow_session
from tests.support.processes import children
from tests.support.raw import request, wire
from tests.support.service import Running, bearer, serving

FEED = "/v1/feeds/clients"
CANARY = "kanarienvogel"
COUNTS = "feedsvc_stage_seconds_count"


@pytest.fixture(scope="module")
def watched(world_url: str) -> Iterator[Running]:
    """Two workers, and a port for anyone."""
    settings = {"FEEDSVC_METRICS__PORT": "0", "FEEDSVC_METRICS__SHED_ABOVE": "0"}
    with serving(world_url, settings=settings, arguments=["--workers=2"]) as running:
        yield running


@pytest.fixture
async def client(watched: Running) -> AsyncIterator[aiohttp.ClientSession]:
    """One that opens a connection for each request, so that both workers get some."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(watched.url, connector=connector) as session:
        yield session


async def until(
    client: aiohttp.ClientSession, holds: Callable[[Exposed], bool], seconds: float = 120
) -> Exposed:
    """The exposition, once this holds of it."""
    deadline = time.monotonic() + seconds
    while True:
        now = await exposed(client)
        if holds(now):
            return now
        assert time.monotonic() < deadline, now.text
        await asyncio.sleep(0.2)


def own_port(running: Running) -> str:
    (url,) = re.findall(r"for anyone at (http://[^\s\"]+)", "".join(running.log))
    return str(url)


async def test_requests_are_counted_once_by_all_workers_together(
    client: aiohttp.ClientSession,
) -> None:
    before = await exposed(client)
    for number in range(40):
        async with client.get(f"{FEED}?limit={number + 1}", headers=bearer()) as answer:
            await answer.read()
    for path, headers, status in (
        (f"{FEED}?limit=x", bearer(), 400),
        (FEED, {"Authorization": "Bearer forged"}, 401),
        ("/nowhere", {}, 404),
    ):
        async with client.get(path, headers=headers) as answer:
            assert answer.status == status

    def grown(now: Exposed, name: str, **labels: str) -> float:
        return now.total(name, **labels) - before.total(name, **labels)

    route = {"route": "/v1/feeds/{dataset}"}
    complete = {**route, "dataset": "clients", "format": "json", "outcome": "complete"}
    # The last one may have come to another worker, whose figures are seen at another time.
    unknown = {"route": "unknown", "outcome": "refused"}
    now = await until(
        client,
        lambda n: (
            grown(n, "feedsvc_requests_total", **complete) >= 40
            and grown(n, "feedsvc_requests_total", **route, outcome="refused") >= 2
            and grown(n, "feedsvc_requests_total", **unknown) >= 1
            # Histograms are written behind the counters.
            and grown(n, "feedsvc_request_seconds_count", **route) >= 42
            and grown(n, "feedsvc_first_byte_seconds_count", **route) >= 42
        ),
    )
    assert grown(now, "feedsvc_requests_total", **complete) == 40
    assert grown(now, "feedsvc_rows_total", dataset="clients", format="json") == sum(range(1, 41))
    assert grown(now, "feedsvc_requests_total", **route, outcome="refused") == 2
    assert grown(now, "feedsvc_requests_total", **unknown) == 1
    for problem in ("bad-parameter", "unauthorized", "not-found"):
        assert grown(now, "feedsvc_problems_total", problem=problem) == 1
    for name in ("request_seconds", "first_byte_seconds"):
        assert grown(now, f"feedsvc_{name}_count", **route) == 42
        assert grown(now, f"feedsvc_{name}_sum", **route) > 0
    assert grown(now, "feedsvc_stage_seconds_count", dataset="clients", stage="auth") >= 40
    assert now.total("feedsvc_workers") == 2
    assert now.total("feedsvc_database_up") == 1
    assert now.total("feedsvc_memory_bytes") > 50e6, "two processes are larger than that"


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_the_whole_way_of_a_stream_is_timed(
    watched: Running, client: aiohttp.ClientSession, coding: str
) -> None:
    """To the histograms and the log, for the most of it comes when the head has left."""
    before = await exposed(client)
    name = f"timed-{coding}-{watched.port}"
    headers = {**bearer(), "Accept-Encoding": coding, "X-Request-ID": name}
    async with client.get(f"{FEED}?format=ndjson", headers=headers) as answer:
        await answer.content.readany()
        await asyncio.sleep(0.7)  # while the service waits for us
        await answer.read()
    stages = {"auth", "limits", "cache", "pool", "db", "encode", "write"}

    def seen(now: Exposed) -> set[str]:
        counted = (
            (stage, now.total(COUNTS, dataset="clients", stage=stage)
             - before.total(COUNTS, dataset="clients", stage=stage))
            for stage in stages
        )  # fmt: skip
        return {stage for stage, count in counted if count}

    await until(client, lambda now: seen(now) == stages)
    async with asyncio.timeout(60):
        while not (lines := [line for line in watched.log if name in line and "access" in line]):
            await asyncio.sleep(0.05)
    (line,) = map(json.loads, lines)
    assert line["stages_us"].keys() == stages
    assert sum(line["stages_us"].values()) > 0.8 * line["us"]
    assert line["first_byte_us"] < line["us"]


async def test_openmetrics_where_accept_asks_for_it(client: aiohttp.ClientSession) -> None:
    headers = bearer(role="admin")
    for accept, kind in (
        ("application/openmetrics-text; version=1.0.0; q=0.5, text/plain; q=0.2", "openmetrics"),
        ("application/json", "text/plain"),
        ("*/*", "text/plain"),
    ):
        async with client.get("/metrics", headers={**headers, "Accept": accept}) as answer:
            text = await answer.text()
            assert (answer.status, kind in answer.headers["Content-Type"]) == (200, True)
            assert text.endswith("# EOF\n") == (kind == "openmetrics")
            assert parse(text).total("feedsvc_workers") == 2


async def test_its_own_port_asks_for_no_token_and_has_nothing_else(watched: Running) -> None:
    url = own_port(watched)
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as answer:
            assert answer.status == 200
            assert "X-Content-Type-Options" in answer.headers
            assert parse(await answer.text()).total("feedsvc_workers") == 2
        async with session.head(url) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        for path in ("/", "/v1/feeds", "/live"):
            async with session.get(url.replace("/metrics", path)) as answer:
                assert answer.status == 404
        async with session.post(url) as answer:
            assert answer.status == 405


def test_a_port_that_is_taken_stops_the_start_by_name(world_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = environment(world_url, FEEDSVC_METRICS__PORT=str(taken.getsockname()[1]))
        done = feedsvc("serve", env=env)
    assert done.returncode == 1
    assert "metrics.port: can't listen on 127.0.0.1:" in done.stderr


async def test_the_series_are_the_same_after_a_fuzz_run(
    watched: Running, client: aiohttp.ClientSession
) -> None:
    before = await exposed(client)
    chance = random.Random(7)
    names = ("clients", "budgets", "analytics", "nothing", CANARY)
    for number in range(400):
        word = CANARY + "".join(chance.choices(string.printable, k=6))
        path = chance.choice(
            (
                f"/v1/feeds/{chance.choice(names)}",
                f"/v1/feeds/{quote(word, safe='')}",
                f"/v1/feeds/{chance.choice(names)}/{quote(word, safe='')}",
                f"/{quote(word, safe='')}",
                "/v1/tickets",
                "/metrics",
            )
        )
        parameters = {
            chance.choice(("limit", "format", "order", CANARY, "id", "export")): chance.choice(
                ("1", "csv", "sse", "ndjson", "json", word, "-1", "key")
            )
        }
        headers = chance.choice(
            (
                bearer(f"{CANARY}-{number}", subject=word),
                bearer(),
                bearer(client=str(number)),
                bearer(role="admin"),
                {"Authorization": f"Bearer {CANARY}"},
                {},
            )
        )
        headers = {**headers, "X-Request-ID": f"{CANARY}-{number}", "Accept": "*/*"}
        method = chance.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT", "PROPFIND"))
        async with client.request(method, path, params=parameters, headers=headers) as answer:
            await answer.read()
    async with wire(watched) as raw:
        await raw.send(request(f"/{CANARY}", "Host: y", method=CANARY))
        assert (await raw.answer()).status == 400
    least = before.total("feedsvc_requests_total") + 400
    after = await until(client, lambda now: now.total("feedsvc_requests_total") >= least)
    assert after.series == before.series
    assert len(before.series) < 6_000
    for secret in (CANARY, "rosewood", "127.0.0.1"):
        assert secret not in after.text.lower()


async def test_a_worker_that_dies_takes_no_count_with_it_and_leaves_no_file(
    world_url: str,
) -> None:
    with serving(world_url, arguments=["--workers=2"]) as running:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(running.url, connector=connector) as client:
            for _ in range(30):
                async with client.get(f"{FEED}?limit=1", headers=bearer()) as answer:
                    await answer.read()
            labels = {"route": "/v1/feeds/{dataset}", "outcome": "complete"}

            def counted(now: Exposed) -> float:
                return now.total("feedsvc_requests_total", **labels)

            before = await until(client, lambda now: counted(now) == 30)
            folder = folder_of(running)
            files = of_workers(folder)
            for _ in range(2):
                victim = children(running.pid)[0]
                os.kill(victim, signal.SIGKILL)
                async with asyncio.timeout(60):
                    while victim in (now := children(running.pid)) or len(now) != 2:
                        await asyncio.sleep(0.05)
                await until_workers(client, 2)
            after = await exposed(client)
            assert counted(after) == 30
            assert after.series == before.series
            assert of_workers(folder) == files
    assert not folder.exists()


def of_workers(folder: Path) -> set[str]:
    """Files of one worker each, but for those that are being written, and sockets."""
    return {file.name for file in folder.glob("*_*") if file.suffix not in (".new", ".sock")}


async def until_workers(client: aiohttp.ClientSession, number: int) -> None:
    """Wait until so many report themselves; a connection to a dying one may break."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if (await exposed(client)).total("feedsvc_workers") == number:
                return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise AssertionError(f"there are not {number} workers")


def folder_of(running: Running) -> Path:
    """The folder that the service shares with its workers: it holds a lock there."""
    for link in Path(f"/proc/{running.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            if (file := link.readlink()).name == "lock":
                return file.parent
    raise AssertionError("no folder is locked")


async def test_while_the_loop_is_late_one_in_so_many_has_its_stages_timed(world_url: str) -> None:
    """Later than a microsecond it always is."""
    settings = {"FEEDSVC_METRICS__SHED_ABOVE": "0.000001", "FEEDSVC_METRICS__SHED_TO": "7"}
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as http:
            await until(http, lambda now: now.total("feedsvc_stages_sampled") == 7, 60)
    assert any("stages of 1 in 7 are timed" in line for line in running.log)


async def test_what_is_off_says_so(world_url: str) -> None:
    settings = {"FEEDSVC_METRICS__ENABLED": "false"}
    with serving(world_url, settings=settings) as running:
        async with (
            aiohttp.ClientSession(running.url) as http,
            http.get("/metrics", headers=bearer(role="admin")) as answer,
        ):
            assert answer.status == 503
            assert "metrics.enabled" in (await answer.json())["detail"]
        async with (
            aiohttp.ClientSession(running.url) as http,
            http.get(f"{FEED}?limit=1", headers=bearer()) as answer,
        ):
            assert answer.status == 200


@pytest.fixture(scope="module")
def fragile(world_url: str) -> Iterator[Running]:
    """A service with little of everything."""
    settings = {
        "FEEDSVC_SERVER__SEND_BUFFER": "16384",
        "FEEDSVC_POOLS__READ__SIZE": "1",
        "FEEDSVC_POOLS__READ__ACQUIRE_TIMEOUT": "0.5",
    }
    with serving(world_url, settings=settings) as running:
        yield running


Happening = Callable[[Running, aiohttp.ClientSession, asyncpg.Connection], Awaitable[None]]


END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"


READS = "application_name = 'feedsvc bulk' AND query ~ 'clients'"


async def break_a_stream(
    running: Running, _: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    async with narrow_session(running.url) as narrow:
        while True:
            async with narrow.get(f"{FEED}?format=ndjson", headers=bearer()) as answer:
                await answer.content.readany()
                if not await world.fetch(f"{END} AND {READS}"):  # it is parked already
                    await answer.read()
                    continue
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()
                return


async def stall_a_stream(running: Running, http: aiohttp.ClientSession, _: object) -> None:
    authorization = f"Authorization: {bearer()['Authorization']}"
    async with wire(running, receive_buffer=4_096) as raw:
        before = (await exposed(http)).total("feedsvc_parked_streams_total")
        await raw.send(request(f"{FEED}?format=ndjson", authorization))
        await until(http, lambda now: now.total("feedsvc_parked_streams_total") > before)
        await raw.answer(has_body=False)
        assert await raw.rows_of_a_stream() > 1_000


async def end_the_listener(
    _: Running, _http: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    assert await world.fetch(f"{END} AND application_name = 'feedsvc changes'")


async def use_up_a_pool(_: Running, http: aiohttp.ClientSession, world: asyncpg.Connection) -> None:
    """Ten ask a pool of one for what is not in the cache."""

    async def ask(number: int) -> None:
        path = f"{FEED}?limit={number}&order=newest"
        async with http.get(path, headers={**bearer(), "Cache-Control": "no-cache"}) as answer:
            await answer.read()

    async with world.transaction():
        await world.execute("LOCK TABLE wedding.clients")
        busy = {"pool": "read", "outcome": "busy"}
        before = (await exposed(http)).total("feedsvc_pool_leases_total", **busy)
        asking = [asyncio.create_task(ask(number)) for number in range(10)]
        await until(http, lambda now: now.total("feedsvc_pool_leases_total", **busy) > before)
    await asyncio.gather(*asking)


@pytest.mark.parametrize(
    ("happens", "counts"),
    [
        (
            break_a_stream,
            [
                ("feedsvc_requests_total", {"outcome": "broken", "dataset": "clients"}),
                ("feedsvc_database_faults_total", {"problem": "database-unavailable"}),
            ],
        ),
        (
            stall_a_stream,
            [
                ("feedsvc_parked_streams_total", {"dataset": "clients"}),
                ("feedsvc_stage_seconds_sum", {"stage": "write", "dataset": "clients"}),
            ],
        ),
        (end_the_listener, [("feedsvc_log_reader_losses_total", {})]),
        (
            use_up_a_pool,
            [
                ("feedsvc_pool_leases_total", {"pool": "read", "outcome": "busy"}),
                ("feedsvc_problems_total", {"problem": "busy"}),
                ("feedsvc_pool_wait_seconds_sum", {"pool": "read"}),
            ],
        ),
    ],
    ids=["a broken stream", "a stalled one", "a lost listener", "a pool used up"],
)
async def test_what_goes_wrong_is_counted(
    fragile: Running,
    world: asyncpg.Connection,
    happens: Happening,
    counts: list[tuple[str, dict[str, str]]],
) -> None:
    async with aiohttp.ClientSession(fragile.url) as http:
        before = await exposed(http)
        await happens(fragile, http, world)

        def all_counted(now: Exposed) -> bool:
            return all(now.total(n, **x) > before.total(n, **x) for n, x in counts)

        await until(http, all_counted)
    assert not [line for line in fragile.log if "an observer failed" in line]
