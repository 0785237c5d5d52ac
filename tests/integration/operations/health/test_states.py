"""Each part is really broken, and the right state is reported."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import time
from typing import TYPE_CHECKING

import aiohttp
import asyncpg
import psutil
import pytest
from aiohttp import web

from feedsvc.operations.health.checks import CHECKS
from tests.support.ailing import (
    ADMIN,
    BOUND,
    LOGIN,
    SOON,
    becomes,
    component,
    repair,
    report,
    says,
    until,
    url_of,
)
from tests.support.ports import reserved_port
from tests.support.service import Running, bearer, serving
from tests.support.standby import frozen

if TYPE_CHECKING:
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer
    from tests.support.redis_server import RunningRedis


async def test_all_is_well_and_every_check_has_its_say(http: aiohttp.ClientSession) -> None:
    reported = await report(http)
    assert [check["name"] for check in reported["checks"]] == [check.name for check in CHECKS]
    for check in reported["checks"]:
        assert check["what"].endswith(".")
        assert check["latency_ms"] >= 0
        assert check["runbook"].startswith("docs/runbook.md#health-")
    assert reported["state"] in {"ok", "degraded"}


async def test_postgresql_stopped(
    http: aiohttp.ClientSession, service: Running, prepared: PostgresServer
) -> None:
    await asyncio.to_thread(prepared.stop, "immediate")
    with reserved_port(prepared.port):
        try:
            found = await becomes(http, "primary", "down")
            assert "does not answer" in found["what"]
            assert (await report(http))["state"] == "down"
            await becomes(http, "log_reader", "degraded")
            await becomes(http, "replicas", "degraded", SOON + BOUND)
            assert "Unknown" in (await becomes(http, "transactions", "degraded"))["what"]
        finally:
            await asyncio.to_thread(prepared.start)
    await becomes(http, "primary", "ok")
    await becomes(http, "log_reader", "ok", 7)
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
        assert min(took) < 0.25, "an answer waits for what is broken"
        # Long enough for the listener to try again only after a pause.
        await becomes(http, "log_reader", "degraded")
    await becomes(http, "primary", "ok")
    assert (await repair(http, "log_reader", dry=True))[0] == "would"
    assert (await repair(http, "log_reader"))[0] == "done"
    await becomes(http, "log_reader", "ok", 1)


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
        # Not the first `degraded`: one that was not asked for a while is one by the clock alone.
        await until(lambda: says(http, "replicas", "behind"), 60)
        assert (await report(http))["state"] == "degraded"
    finally:
        await replayer.execute("SELECT pg_wal_replay_resume()")
        await replayer.close()

    async def is_taken_back() -> bool:
        return "1 of 1 standbys" in (await repair(http, "breakers"))[1]

    await until(is_taken_back, 60)
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
    # A machine that is busy may have it stand still for longer than that.
    await until(lambda: says(http, "loop", "was late by"), 60)
    found = await component(http, "loop")
    lag = found["figures"]["worst_lag_ms"]
    assert lag > 900
    assert found["state"] == ("down" if lag > 4_000 else "degraded")
    os.kill(service.pid, signal.SIGSTOP)
    await asyncio.sleep(4.5)
    os.kill(service.pid, signal.SIGCONT)
    await becomes(http, "loop", "down")
    assert (await report(http))["state"] == "degraded"
    await becomes(http, "loop", "ok", 12)


async def test_transactions_that_do_not_end(
    service: Running,
    admin: asyncpg.Connection,
    prepared: PostgresServer,
    datasets: Path,
    settings: dict[str, str],
) -> None:
    """One that has written, and one that is prepared and left open."""
    del service
    own = {**settings, "FEEDSVC_HEALTH__OLDEST_TRANSACTION": "1"}
    with serving(url_of(prepared), datasets=datasets, settings=own) as running:
        async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
            await becomes(http, "transactions", "ok")
            transaction = admin.transaction()
            await transaction.start()
            await admin.execute("UPDATE app.things SET twin = twin WHERE id = 2")
            found = await becomes(http, "transactions", "degraded", 1 + SOON)
            assert "has written and not ended" in found["what"]
            await transaction.rollback()
            await becomes(http, "transactions", "ok")
            await admin.execute("BEGIN; CREATE TABLE app.kept (a int); PREPARE TRANSACTION 'kept'")
            try:
                await becomes(http, "transactions", "degraded", 60)
                # It is as old as the transaction number that it holds, so either may be named.
                await until(lambda: says(http, "transactions", "is prepared"), 60)
            finally:
                await admin.execute("ROLLBACK PREPARED 'kept'")
            await becomes(http, "transactions", "ok", 60)


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
            await until(lambda: says(http, "clock", "are 5.0 s apart"), 60)
            assert (await component(http, "clock"))["state"] == "degraded"
            offset.write_text("0")
            await until(lambda: says(http, "clock", "was set by -5.0 s"), 60)
            assert (await report(http))["state"] == "degraded"


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


async def test_a_role_that_may_have_but_few_connections(
    http: aiohttp.ClientSession, admin: asyncpg.Connection
) -> None:
    """By the role's own limit, while the server has plenty."""
    own = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
    try:
        few = int(await admin.fetchval(own, LOGIN)) + 3
        await admin.execute(f"ALTER ROLE {LOGIN} CONNECTION LIMIT {few}")
        await becomes(http, "connections", "degraded", 60)
        await admin.execute(f"ALTER ROLE {LOGIN} CONNECTION LIMIT 1")
        found = await becomes(http, "connections", "down", 60)
        assert found["figures"]["most"] > found["figures"]["in_use"]
    finally:
        await admin.execute(f"ALTER ROLE {LOGIN} CONNECTION LIMIT -1")
    await becomes(http, "connections", "ok", 60)
