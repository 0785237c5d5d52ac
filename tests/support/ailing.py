"""A service whose parts are broken on purpose: its health report, and repairs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.servers import as_login
from tests.support.service import bearer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from feedsvc.commands.demo.embedded import PostgresServer

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
CREATE VIEW app.slow AS
    SELECT n, pg_sleep(0.005) IS NULL AS awake FROM generate_series(1, 400) AS n ORDER BY n;
GRANT USAGE ON SCHEMA app TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA app TO {LOGIN};
"""
DATASETS = '[things]\nrelation = "app.things"\nkey = ["id"]\nshared = true\nreplica = true\n'
DATASETS += '[slow]\nrelation = "app.slow"\nkey = ["n"]\nshared = true\nnot_null = ["n"]\n'


def url_of(server: PostgresServer) -> str:
    return as_login(server.url(), LOGIN, PASSWORD)


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
    reported = (await report(http))["checks"]
    return {c["name"] for c in reported if c["state"] != "ok"} <= {"pools", "loop"}


async def becomes(
    http: aiohttp.ClientSession, name: str, state: str, seconds: float = SOON
) -> dict[str, Any]:
    """The component once it is in this state, which it must be soon."""
    found: dict[str, Any] = {}

    async def reached() -> bool:
        nonlocal found
        found = await component(http, name)
        return bool(found["state"] == state)

    await until(reached, max(60.0, seconds))
    return found


async def repair(http: aiohttp.ClientSession, name: str, *, dry: bool = False) -> tuple[str, str]:
    asked = {"repairs": [name], "dry_run": dry}
    async with http.post("/api/performance/health/repair", json=asked) as answer:
        assert answer.status == 200, await answer.text()
        reported = await answer.json()
    assert reported["dry_run"] == dry
    (outcome,) = reported["repairs"]
    assert outcome["name"] == name
    return outcome["outcome"], outcome["what"]


async def says(http: aiohttp.ClientSession, name: str, what: str) -> bool:
    return what in (await component(http, name))["what"]
