"""Repairs by name, and dry runs that only report."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from tests.support.ailing import (
    ADMIN,
    LOGIN,
    becomes,
    component,
    repair,
    until,
    url_of,
)
from tests.support.service import Running, bearer, serving

if TYPE_CHECKING:
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer

DYING = "a pool whose connections die"
FILL_THE_LOG = """
    INSERT INTO feedsvc.log (xid, scope, feed, slot, op, key)
    SELECT '3', 1, 1, 7, 'u', repeat('k', 100) FROM generate_series(1, 20000)
"""


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
    await admin.execute(FILL_THE_LOG)
    # Else PostgreSQL may count these rows only after they have been analyzed.
    await admin.execute("SELECT pg_stat_force_next_flush()")

    async def is_found() -> bool:
        found = await component(http, "statistics")
        return bool(found.get("figures", {}).get("tables") == ["app.grown"])

    await until(is_found, 60)
    assert (await repair(http, "statistics", dry=True)) == ("would", "Would run ANALYZE app.grown")
    assert (await repair(http, "statistics"))[0] == "done"
    assert await admin.fetchval("SELECT reltuples FROM pg_class WHERE relname = 'grown'") == 60_000
    await becomes(http, "statistics", "ok")
    await admin.execute("DROP TABLE app.grown; TRUNCATE feedsvc.log_7")


async def test_dead_pool_connections_are_replaced(
    prepared: PostgresServer, datasets: Path, admin: asyncpg.Connection
) -> None:
    """As behind a firewall that forgot them: whoever got one would wait in vain."""
    # By a name of their own: the other service's end by themselves, even between list and signal.
    settings = {"FEEDSVC_POOLS__READ__APPLICATION_NAME": DYING}
    with serving(url_of(prepared), datasets=datasets, settings=settings) as running:
        async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
            await _dead_connections(http, admin)


async def _dead_connections(http: aiohttp.ClientSession, admin: asyncpg.Connection) -> None:
    page = "/v1/feeds/things?limit=5"
    past_the_cache = {"Cache-Control": "no-cache"}
    async with http.get(page, headers=past_the_cache) as answer:
        assert answer.status == 200

    async def are_idle() -> bool:
        """None is given back any more: a leased one is left alone."""
        return (await repair(http, "connections", dry=True))[0] == "would"

    await until(are_idle, 60)
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1"
    backends = [row["pid"] for row in await admin.fetch(sql, DYING)]
    assert backends
    for backend in backends:
        os.kill(backend, signal.SIGSTOP)
    try:
        outcome, what = await repair(http, "connections")
        assert (outcome, what.startswith("Ended ")) == ("done", True), what
        async with asyncio.timeout(60), http.get(page, headers=past_the_cache) as answer:
            assert answer.status == 200
    finally:
        for backend in backends:
            os.kill(backend, signal.SIGCONT)


async def test_no_repair_cuts_off_a_reader(http: aiohttp.ClientSession) -> None:
    streams = [await http.get("/v1/feeds/slow?format=ndjson") for _ in range(3)]
    firsts = [await stream.content.readline() for stream in streams]
    assert (await repair(http, "connections"))[0] in {"done", "nothing"}
    assert (await repair(http, "sessions"))[0] in {"done", "nothing"}
    assert (await repair(http, "log_reader"))[0] == "done"
    for first, stream in zip(firsts, streams, strict=True):
        lines = [first, *(await stream.read()).splitlines()]
        assert [json.loads(line)["n"] for line in lines] == [*range(1, 401)]


async def test_sessions_that_were_left_behind_are_ended(
    http: aiohttp.ClientSession, prepared: PostgresServer
) -> None:
    left = await asyncpg.connect(
        url_of(prepared), server_settings={"application_name": "feedsvc bulk"}
    )
    others = await asyncpg.connect(url_of(prepared), server_settings={"application_name": "psql"})

    async def is_left_behind() -> bool:
        """Return whether a repair would end it: idle for twice as long as the service keeps one."""
        outcome, what = await repair(http, "sessions", dry=True)
        return outcome == "would" and str(left.get_server_pid()) in what

    await until(is_left_behind, 30)
    assert await left.fetchval("SELECT 1") == 1, "a dry run ended it"
    await until(is_left_behind, 30)
    outcome, what = await repair(http, "sessions")
    assert (outcome, str(left.get_server_pid()) in what) == ("done", True)
    await until(lambda: ended(left), 60)
    left.terminate()  # asyncpg leaves the socket open where PostgreSQL has ended the session
    assert await others.fetchval("SELECT 1") == 1
    assert (await becomes(http, "primary", "ok"))["state"] == "ok", "it ended a session of its own"
    await others.close()


async def ended(connection: asyncpg.Connection) -> bool:
    return connection.is_closed()


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
    await until(lambda: admin.fetchrow(sql + " DESC", name), 60)

    async def all_are_written() -> bool:
        return len(await admin.fetch(sql, name)) >= len(statuses)

    await until(all_are_written, 60)
    rows = [tuple(row) for row in await admin.fetch(sql, name)]
    assert {row[0] for row in rows} == {"repairs=connections%2Cbreakers&dry_run=1"}
    assert [row[1] for row in rows] == statuses


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "repairs"),
        ({"repairs": []}, "repairs"),
        ({"repairs": "log_reader"}, "repairs"),
        ({"repairs": ["everything"]}, "repairs"),
        ({"repairs": [["log_reader"]]}, "repairs"),
        ({"repairs": ["log_reader"], "dry_run": 1}, "dry_run"),
        ({"repairs": ["log_reader"], "dryrun": True}, "dryrun"),
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
