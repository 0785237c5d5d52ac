"""Each part is really broken: the right state is told within two seconds, and repairs mend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import time
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import psutil
import pytest
from aiohttp import web

from feedsvc import triggers
from feedsvc.health.checks import CHECKS
from feedsvc.migrations import runner
from tests.support.patience import patience
from tests.support.redis_server import redis_running
from tests.support.servers import as_login
from tests.support.service import Running, bearer, serving
from tests.support.standby import frozen, primary_running, standby_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from feedsvc.embedded import PostgresServer
    from tests.support.redis_server import RunningRedis

LOGIN, PASSWORD = "reader", "a reader's"
BOUND = 1.0  # seconds that the standby may be behind
SOON = 2.0  # seconds within which a fault is told
ADMIN = bearer(role="admin")

SCHEMA = f"""
CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD.replace("'", "''")}';
CREATE SCHEMA app;
CREATE TABLE app.things (id int PRIMARY KEY, twin int NOT NULL);
INSERT INTO app.things SELECT n, n / 2 FROM generate_series(1, 2000) AS n;
ANALYZE app.things;
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS = '[things]\nrelation = "app.things"\nkey = ["id"]\nshared = true\nreplica = true\n'


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with primary_running(max_connections="40") as server:
        yield server


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("health") / "datasets.toml"
    file.write_text(DATASETS)
    return file


@pytest.fixture(scope="module")
async def prepared(primary: PostgresServer, datasets: Path) -> PostgresServer:
    admin = await asyncpg.connect(primary.url())
    await admin.execute(SCHEMA)
    await runner.up(primary.url(), "service")
    await triggers.install_for(admin, datasets)
    await admin.execute(f"GRANT feedsvc_service TO {LOGIN}")
    await admin.close()
    return primary


@pytest.fixture(scope="module")
def standby(prepared: PostgresServer) -> Iterator[PostgresServer]:
    with standby_of(prepared, max_connections="40") as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with redis_running() as server:
        yield server


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A file system of one megabyte, None for whoever may not mount one."""
    folder = tmp_path_factory.mktemp("small")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    yield folder if mounted.returncode == 0 else None
    if mounted.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)


def url_of(server: PostgresServer) -> str:
    return as_login(server.url(), LOGIN, PASSWORD)


@pytest.fixture(scope="module")
def settings(
    prepared: PostgresServer,
    standby: PostgresServer,
    redis: RunningRedis,
    small_disk: Path | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    folder = small_disk or tmp_path_factory.mktemp("large")
    return {
        "FEEDSVC_DATABASE__REPLICAS": url_of(standby),
        "FEEDSVC_DATABASE__REPLICA_LAG": str(BOUND),
        "MIGRATION_DATABASE_URL": prepared.url(),
        "REDIS_URL": redis.url,
        "FEEDSVC_HEALTH__DISKS": f'["{folder}"]',
        "FEEDSVC_HEALTH__DISK_FREE": "0.01",
        "FEEDSVC_HEALTH__LOOP_LAG": "0.5",
        "FEEDSVC_HEALTH__REPAIRS_PER_MINUTE": "6000",
        "FEEDSVC_POOLS__READ__IDLE_TIMEOUT": "1",
        "FEEDSVC_POOLS__BULK__IDLE_TIMEOUT": "1",
        "FEEDSVC_POOLS__ANALYTICS__IDLE_TIMEOUT": "1",
        "FEEDSVC_POOLS__WRITE__IDLE_TIMEOUT": "1",
    }


@pytest.fixture(scope="module")
def service(
    prepared: PostgresServer, datasets: Path, settings: dict[str, str]
) -> Iterator[Running]:
    with serving(url_of(prepared), datasets=datasets, settings=settings) as running:
        yield running


@pytest.fixture
async def http(service: Running) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a service that is well again."""
    async with aiohttp.ClientSession(service.url, headers=ADMIN) as session:
        await until(lambda: all_is_well(session), 30)
        yield session


@pytest.fixture
async def admin(prepared: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(prepared.url())
    yield connection
    await connection.close()


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        await asyncio.sleep(0.02)


async def report(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.get("/api/performance/health") as answer:
        assert answer.status == 200
        return dict(await answer.json())


async def component(http: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    (found,) = [c for c in (await report(http))["checks"] if c["name"] == name]
    return dict(found)


async def all_is_well(http: aiohttp.ClientSession) -> bool:
    # What was wrong in an earlier test is remembered for a while by these.
    told = (await report(http))["checks"]
    return {c["name"] for c in told if c["state"] != "ok"} <= {"pools", "loop"}


async def becomes(
    http: aiohttp.ClientSession, name: str, state: str, seconds: float = SOON
) -> dict[str, Any]:
    """The component once it is in this state, which it must be soon."""
    found: dict[str, Any] = {}

    async def reached() -> bool:
        nonlocal found
        found = await component(http, name)
        return bool(found["state"] == state)

    await until(reached, patience(seconds))
    return found


async def repair(http: aiohttp.ClientSession, name: str, *, dry: bool = False) -> tuple[str, str]:
    asked = {"repairs": [name], "dry_run": dry}
    async with http.post("/api/performance/health/repair", json=asked) as answer:
        assert answer.status == 200, await answer.text()
        told = await answer.json()
    assert told["dry_run"] == dry
    (outcome,) = told["repairs"]
    assert outcome["name"] == name
    return outcome["outcome"], outcome["what"]


async def test_all_is_well_and_every_check_has_its_say(http: aiohttp.ClientSession) -> None:
    told = await report(http)
    assert [check["name"] for check in told["checks"]] == [check.name for check in CHECKS]
    for check in told["checks"]:
        assert check["what"].endswith(".")
        assert check["latency_ms"] >= 0
        assert check["runbook"].startswith("docs/runbook.md#health-")
    assert told["state"] in {"ok", "degraded"}


async def test_postgresql_stopped(
    http: aiohttp.ClientSession, service: Running, prepared: PostgresServer
) -> None:
    await asyncio.to_thread(prepared.stop, "immediate")
    try:
        found = await becomes(http, "primary", "down")
        assert "does not answer" in found["what"]
        assert (await report(http))["state"] == "down"
        await becomes(http, "listener", "degraded")
        await becomes(http, "replicas", "degraded", SOON + BOUND)
        assert "not known" in (await becomes(http, "transactions", "degraded"))["what"]
    finally:
        await asyncio.to_thread(prepared.start)
    await becomes(http, "primary", "ok")
    await becomes(http, "listener", "ok", 7)
    assert service.process.poll() is None


async def test_postgresql_frozen_and_the_listener_mended_after_it(
    http: aiohttp.ClientSession, prepared: PostgresServer
) -> None:
    with frozen(prepared):
        await becomes(http, "primary", "down")
        assert (await report(http))["state"] == "down"
        took = []
        for _ in range(40):
            began = time.perf_counter()
            await report(http)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.1)
        assert sorted(took)[20] < 0.05, "an answer waits for what is broken"
        # Long enough for the listener to try again only after a pause.
        await becomes(http, "listener", "degraded")
    await becomes(http, "primary", "ok")
    assert (await repair(http, "listener", dry=True))[0] == "would"
    assert (await repair(http, "listener"))[0] == "done"
    await becomes(http, "listener", "ok", 1)


async def test_postgresql_out_of_connections(
    http: aiohttp.ClientSession, prepared: PostgresServer
) -> None:
    taken: list[asyncpg.Connection] = []

    async def take_every_one() -> None:
        """Also those that the service gives up meanwhile."""
        while True:
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                taken.append(await asyncpg.connect(url_of(prepared)))
                continue
            await asyncio.sleep(0.05)

    taking = asyncio.create_task(take_every_one())
    try:
        found = await becomes(http, "connections", "down", 2 * SOON)
        assert found["figures"]["free"] <= 0
        assert found["repairs"] == ["sessions"]
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        for connection in taken:
            await connection.close()
    await becomes(http, "connections", "ok")


async def test_a_standby_that_lags(
    http: aiohttp.ClientSession, standby: PostgresServer, admin: asyncpg.Connection
) -> None:
    replayer = await asyncpg.connect(standby.url())
    await replayer.execute("SELECT pg_wal_replay_pause()")
    try:
        await admin.execute("UPDATE app.things SET twin = twin WHERE id = 1")
        found = await becomes(http, "replicas", "degraded", BOUND + SOON)
        assert "behind" in found["what"]
        assert (await report(http))["state"] == "degraded"
    finally:
        await replayer.execute("SELECT pg_wal_replay_resume()")
        await replayer.close()

    async def is_taken_back() -> bool:
        return "1 of 1 standbys" in (await repair(http, "breakers"))[1]

    await until(is_taken_back, patience(SOON))
    await becomes(http, "replicas", "ok")


async def test_redis_frozen_and_its_breaker_mended(
    http: aiohttp.ClientSession, redis: RunningRedis
) -> None:
    with redis.frozen():
        found = await becomes(http, "redis", "degraded")
        assert found["repairs"] == ["breakers"]
        assert (await report(http))["state"] == "degraded", "Redis is never vital"
        await asyncio.sleep(4)  # the pauses between looks are seconds by then
        assert "does not answer" in (await repair(http, "breakers"))[1]
    outcome, what = await repair(http, "breakers")
    assert (outcome, what.partition(";")[0]) == ("done", "Redis answers")
    await becomes(http, "redis", "ok", 1)


async def test_a_disk_that_is_full(http: aiohttp.ClientSession, small_disk: Path | None) -> None:
    if small_disk is None:
        pytest.skip("only root may mount a small file system to fill up")
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert "is full" in (await becomes(http, "disk", "down"))["what"]
    filler.unlink()
    await becomes(http, "disk", "ok")


async def test_a_blocked_event_loop(http: aiohttp.ClientSession, service: Running) -> None:
    os.kill(service.pid, signal.SIGSTOP)
    await asyncio.sleep(1.2)
    os.kill(service.pid, signal.SIGCONT)
    found = await becomes(http, "loop", "degraded")
    assert found["figures"]["worst_lag_ms"] > 900
    os.kill(service.pid, signal.SIGSTOP)
    await asyncio.sleep(4.5)
    os.kill(service.pid, signal.SIGCONT)
    await becomes(http, "loop", "down")
    assert (await report(http))["state"] == "degraded"
    await becomes(http, "loop", "ok", 12)


async def test_a_transaction_that_does_not_end(
    service: Running, prepared: PostgresServer, datasets: Path, settings: dict[str, str]
) -> None:
    del service
    own = {**settings, "FEEDSVC_HEALTH__OLDEST_TRANSACTION": "1"}
    with serving(url_of(prepared), datasets=datasets, settings=own) as running:
        writer = await asyncpg.connect(prepared.url())
        async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
            await becomes(http, "transactions", "ok")
            transaction = writer.transaction()
            await transaction.start()
            await writer.execute("UPDATE app.things SET twin = twin WHERE id = 2")
            found = await becomes(http, "transactions", "degraded", 1 + SOON)
            assert "has written and not ended" in found["what"]
            await transaction.rollback()
            await becomes(http, "transactions", "ok")
        await writer.close()


async def test_invalid_indexes_are_rebuilt(
    http: aiohttp.ClientSession, admin: asyncpg.Connection
) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await admin.execute("CREATE UNIQUE INDEX CONCURRENTLY twins ON app.things (twin)")
    # What a REINDEX CONCURRENTLY leaves that was ended in the middle.
    await admin.execute("CREATE INDEX fine ON app.things (twin)")
    await admin.execute("CREATE INDEX fine_ccnew ON app.things (twin)")
    await admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.fine_ccnew'::regclass"
    )
    found = await becomes(http, "indexes", "degraded")
    assert found["figures"]["invalid"] == ["app.fine_ccnew", "app.twins"]
    outcome, what = await repair(http, "indexes", dry=True)
    assert outcome == "would"
    assert "DROP INDEX CONCURRENTLY app.fine_ccnew; REINDEX INDEX CONCURRENTLY app.twins" in what
    assert (await component(http, "indexes"))["state"] == "degraded", "a dry run has done it"
    outcome, what = await repair(http, "indexes")
    assert (outcome, "UniqueViolationError" in what) == ("failed", True)
    await admin.execute("UPDATE app.things SET twin = id")
    assert (await repair(http, "indexes"))[0] == "done"
    await becomes(http, "indexes", "ok")
    valid = await admin.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'app.twins'::regclass"
    )
    assert valid
    assert await admin.fetchval("SELECT to_regclass('app.fine_ccnew')") is None
    assert (await repair(http, "indexes"))[0] == "nothing"
    await admin.execute("DROP INDEX app.twins, app.fine")


async def test_an_owner_is_asked_for_where_there_is_none(
    service: Running, prepared: PostgresServer, datasets: Path, settings: dict[str, str]
) -> None:
    del service
    own = {name: value for name, value in settings.items() if name != "MIGRATION_DATABASE_URL"}
    admin = await asyncpg.connect(prepared.url())
    await admin.execute("CREATE INDEX broken ON app.things (twin)")
    await admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.broken'::regclass"
    )
    with serving(url_of(prepared), datasets=datasets, settings=own) as running:
        async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
            for dry in (True, False):
                outcome, what = await repair(http, "indexes", dry=dry)
                assert outcome == "refused"
                assert "MIGRATION_DATABASE_URL" in what
                assert "REINDEX INDEX CONCURRENTLY app.broken" in what
    await admin.execute("DROP INDEX app.broken")
    await admin.close()


async def test_statistics_are_refreshed(
    http: aiohttp.ClientSession, admin: asyncpg.Connection
) -> None:
    await admin.execute("CREATE TABLE app.grown (n int) WITH (autovacuum_enabled = false)")
    await admin.execute(f"GRANT SELECT ON app.grown TO {LOGIN}")
    await admin.execute("INSERT INTO app.grown SELECT generate_series(1, 60000)")
    # Else PostgreSQL may count these rows only after they have been analyzed.
    await admin.execute("SELECT pg_stat_force_next_flush()")
    found = await becomes(http, "statistics", "degraded", 3)
    assert found["figures"]["tables"] == ["app.grown"]
    assert (await repair(http, "statistics", dry=True)) == ("would", "Would run ANALYZE app.grown")
    assert (await repair(http, "statistics"))[0] == "done"
    assert await admin.fetchval("SELECT reltuples FROM pg_class WHERE relname = 'grown'") == 60_000
    await becomes(http, "statistics", "ok")
    await admin.execute("DROP TABLE app.grown")


async def test_dead_pool_connections_are_replaced(
    prepared: PostgresServer, datasets: Path, admin: asyncpg.Connection
) -> None:
    """As behind a firewall that forgot them: whoever got one would wait in vain."""
    with serving(url_of(prepared), datasets=datasets) as running:
        async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
            await _dead_connections(http, admin)


async def _dead_connections(http: aiohttp.ClientSession, admin: asyncpg.Connection) -> None:
    page = "/v1/feeds/things?limit=5"
    past_the_cache = {"Cache-Control": "no-cache"}
    async with http.get(page, headers=past_the_cache) as answer:
        assert answer.status == 200
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'feedsvc read'"
    backends = [row["pid"] for row in await admin.fetch(sql)]
    assert backends
    for backend in backends:
        os.kill(backend, signal.SIGSTOP)
    try:
        outcome, what = await repair(http, "connections")
        assert (outcome, what.startswith("Ended ")) == ("done", True)
        async with asyncio.timeout(5), http.get(page, headers=past_the_cache) as answer:
            assert answer.status == 200
    finally:
        for backend in backends:
            os.kill(backend, signal.SIGCONT)


async def test_sessions_that_were_left_behind_are_ended(
    http: aiohttp.ClientSession, prepared: PostgresServer
) -> None:
    left = await asyncpg.connect(
        url_of(prepared), server_settings={"application_name": "feedsvc bulk"}
    )
    others = await asyncpg.connect(url_of(prepared), server_settings={"application_name": "psql"})
    await asyncio.sleep(2.5)  # twice as long as the pools of this service keep one, and more
    outcome, what = await repair(http, "sessions", dry=True)
    assert (outcome, str(left.get_server_pid()) in what) == ("would", True)
    assert await left.fetchval("SELECT 1") == 1
    await asyncio.sleep(2.5)
    outcome, what = await repair(http, "sessions")
    assert (outcome, str(left.get_server_pid()) in what) == ("done", True)
    await until(lambda: ended(left), SOON)
    assert await others.fetchval("SELECT 1") == 1
    assert (await becomes(http, "primary", "ok"))["state"] == "ok", "it ended a session of its own"
    await others.close()


async def ended(connection: asyncpg.Connection) -> bool:
    return connection.is_closed()


async def test_a_clock_that_is_wrong(
    service: Running, prepared: PostgresServer, datasets: Path, tmp_path: Path
) -> None:
    """Also one that is set while the service runs."""
    del service
    offset = tmp_path / "offset"
    offset.write_text("5")
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time\n"
        "_true = time.time\n"
        f"time.time = lambda: _true() + float(pathlib.Path({str(offset)!r}).read_text() or 0)\n"
    )
    settings = {"PYTHONPATH": str(tmp_path)}
    with serving(url_of(prepared), datasets=datasets, settings=settings) as running:
        headers = bearer(role="admin", lifetime=10_000)
        async with aiohttp.ClientSession(running.url, headers=headers) as http:
            await until(lambda: says(http, "clock", "are 5.0 s apart"), SOON)
            assert (await component(http, "clock"))["state"] == "degraded"
            offset.write_text("0")
            await until(lambda: says(http, "clock", "was set by -5.0 s"), SOON)
            assert (await report(http))["state"] == "degraded"


async def says(http: aiohttp.ClientSession, name: str, what: str) -> bool:
    return what in (await component(http, name))["what"]


async def test_a_process_that_runs_out_of_files(prepared: PostgresServer, datasets: Path) -> None:
    with serving(url_of(prepared), datasets=datasets) as running:
        process = psutil.Process(running.pid)
        async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
            await becomes(http, "files", "ok")
            most = process.num_fds() + 4
            process.rlimit(resource.RLIMIT_NOFILE, (most, most))
            assert str(most) in (await becomes(http, "files", "degraded"))["what"]


async def test_an_address_of_the_settings(
    service: Running, prepared: PostgresServer, datasets: Path, settings: dict[str, str]
) -> None:
    del service
    answers = 200

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=answers)

    app = web.Application()
    app.router.add_get("/up", answer)
    site_runner = web.AppRunner(app)
    await site_runner.setup()
    site = web.TCPSite(site_runner, "127.0.0.1", 0)
    await site.start()
    port = site_runner.addresses[0][1]
    given = f'{{"billing": {{"url": "http://127.0.0.1:{port}/up", "every": 0.2}}}}'
    own = {**settings, "FEEDSVC_HEALTH__HTTP": given}
    with serving(url_of(prepared), datasets=datasets, settings=own) as running:
        async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
            await becomes(http, "http.billing", "ok")
            answers = 500
            assert "answers 500" in (await becomes(http, "http.billing", "down"))["what"]
            assert (await report(http))["state"] == "degraded"
            answers = 200
            await becomes(http, "http.billing", "ok")
            await site_runner.cleanup()
            assert "does not answer" in (await becomes(http, "http.billing", "down"))["what"]


async def test_repairs_are_written_down_and_bounded(
    prepared: PostgresServer, datasets: Path, admin: asyncpg.Connection, service: Running
) -> None:
    del service
    with serving(url_of(prepared), datasets=datasets) as running:
        async with aiohttp.ClientSession(running.url) as http:
            await _written_down(http, admin)


async def _written_down(http: aiohttp.ClientSession, admin: asyncpg.Connection) -> None:
    name = f"repairs-{uuid.uuid4().hex[:8]}"
    headers = bearer(role="admin", subject=name)
    asked = {"repairs": ["breakers", "connections"], "dry_run": True}
    statuses = []
    for _ in range(12):
        async with http.post(
            "/api/performance/health/repair", json=asked, headers=headers
        ) as answer:
            statuses.append(answer.status)
            if answer.status == 429:
                assert int(answer.headers["Retry-After"]) > 0
    assert statuses[-1] == 429
    sql = "SELECT query, status, result FROM feedsvc.audit WHERE subject = $1 ORDER BY at"
    await until(lambda: admin.fetchrow(sql + " DESC", name), 5)
    await asyncio.sleep(1)
    rows = [tuple(row) for row in await admin.fetch(sql, name)]
    assert {row[0] for row in rows} == {"repairs=connections%2Cbreakers&dry_run=1"}
    assert [row[1] for row in rows] == statuses


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "repairs"),
        ({"repairs": []}, "repairs"),
        ({"repairs": "listener"}, "repairs"),
        ({"repairs": ["everything"]}, "repairs"),
        ({"repairs": [["listener"]]}, "repairs"),
        ({"repairs": ["listener"], "dry_run": 1}, "dry_run"),
        ({"repairs": ["listener"], "dryrun": True}, "dryrun"),
    ],
)
async def test_what_is_no_request_for_repairs_names_what_to_change(
    service: Running, body: dict[str, Any], parameter: str
) -> None:
    url = f"{service.url}/api/performance/health/repair"
    async with (
        aiohttp.ClientSession(headers=ADMIN) as http,
        http.post(url, json=body) as answer,
    ):
        problem = await answer.json()
        assert (answer.status, problem["parameter"]) == (400, parameter)
