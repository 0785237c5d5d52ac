"""EventSources that know nothing but the events, a browser's own and npm's, through restarts."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import asyncpg
import psutil
import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from tests.integration.web.test_eventsource import chromium, with_eventsource
from tests.support.followers import Oracle, Reader, prepare
from tests.support.front import fronted
from tests.support.servers import as_login
from tests.support.service import Running, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

DEADLINE: Final = 240.0
WHO: Final = bearer("a")
FEED: Final = "/v1/feeds/orders"
LAST: Final = 9_999
"""The number of the row behind which a client reports what it has."""
FOLLOW: Final = """
let rows = new Map(), staged = null, snapshots = 0;
const on = (name, take) => feed.addEventListener(name, event => {
  if (event.data) take(JSON.parse(event.data)); // EventSource has an "open" of its own
});
on("open", ({ after }) => { if (after === null) { staged = new Map(); snapshots += 1; } });
on("rows", list => list.forEach(row => (staged ?? rows).set(row.number, row)));
on("change", list => {
  const held = staged ?? rows;
  for (const { row, key } of list) row ? held.set(row.number, row) : held.delete(key.number);
});
on("sync", () => {
  [rows, staged] = [staged ?? rows, null];
  if (rows.has(9999)) report({ rows: [...rows.values()], snapshots });
});
feed.addEventListener("error", () => { if (feed.readyState === 2) report({ closed: true }); });
"""
PAGE: Final = """<!doctype html><meta charset="utf-8"><script>
const feed = new EventSource(ADDRESS);
feed.addEventListener("open", () => fetch("/read", { method: "POST" }), { once: true });
const report = what => fetch("/report", { method: "POST", body: JSON.stringify(what) });
FOLLOW</script>"""
SCRIPT: Final = """
import { EventSource } from "eventsource";
const [address, token] = process.argv.slice(2);
const feed = new EventSource(address, {
  fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, Authorization: token } }),
});
const report = what => { console.log(JSON.stringify(what)); process.exit(0); };
FOLLOW"""
INSERT: Final = (
    "INSERT INTO shop.orders (number, tenant, level, status, name) VALUES ($1, 'a', 1, 'open', $2)"
    " ON CONFLICT (number) DO UPDATE SET name = excluded.name"
)


@asynccontextmanager
async def by_browser(service: Running, folder: Path) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """The browser's, on a page of the feed's own origin, whose cookie brings it back."""
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium on PATH")
    async with (
        aiohttp.ClientSession(service.url) as http,
        http.post("/v1/tickets", json={"path": FEED}, headers=WHO) as answer,
    ):
        ticket = (await answer.json())["ticket"]
    target = json.dumps(f"{FEED}?live=1&format=sse&ticket={ticket}")
    page = PAGE.replace("ADDRESS", target).replace("FOLLOW", FOLLOW)
    async with (
        fronted(service.url, page) as front,
        chromium(f"{front.url}/page", folder / "profile"),
    ):
        async with asyncio.timeout(DEADLINE):
            while not front.feeds:
                await asyncio.sleep(0.05)
        yield front.reports.get


@asynccontextmanager
async def by_npm(service: Running, folder: Path) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """npm's package, which sends a token."""
    script = with_eventsource() / "live.mjs"
    script.write_text(SCRIPT.replace("FOLLOW", FOLLOW))
    process = await asyncio.create_subprocess_exec(
        "node", str(script), f"{service.url}{FEED}?live=1&format=sse", WHO["Authorization"],
        stdout=subprocess.PIPE,
    )  # fmt: skip

    async def reported() -> Any:
        out, _ = await process.communicate()
        return json.loads(out)

    try:
        yield reported
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def restart(service: Running, number: int) -> None:
    """New workers: the old ones leave in peace, or die."""
    if number % 2 == 0:
        service.process.send_signal(signal.SIGHUP)
    else:
        for worker in psutil.Process(service.pid).children():
            worker.kill()


@pytest.mark.parametrize("client", [by_browser, by_npm])
@pytest.mark.parametrize(
    ("changes", "restarts"), [(100, 1), pytest.param(1_000, 3, marks=pytest.mark.soak)]
)
async def test_they_follow_changes_through_restarts(
    new_database: NewDatabase, tmp_path: Path, client: Any, changes: int, restarts: int
) -> None:
    file = tmp_path / "datasets.toml"
    settings = {"FEEDSVC_STREAMS__DRAIN_TIMEOUT": "1", "FEEDSVC_STREAMS__PING_INTERVAL": "0.5"}
    async with new_database() as url:
        await prepare(url, file)
        owner = await asyncpg.connect(url)
        with serving(as_login(url), datasets=file, settings=settings) as service:
            async with client(service, tmp_path) as reported:
                for part in range(restarts + 1):
                    for n in range(changes // (restarts + 1)):
                        await owner.execute(INSERT, n % 50, f"{part} {n}")
                        if n % 7 == 0:
                            await owner.execute("DELETE FROM shop.orders WHERE number = $1", n % 30)
                        await asyncio.sleep(0.005)
                    if part < restarts:
                        restart(service, part)
                await owner.execute(INSERT, LAST, "the last one")
                async with asyncio.timeout(DEADLINE):
                    seen = await reported()
        text = await owner.fetchval("SELECT pg_current_snapshot()::text")
        expected = await Oracle(owner).rows(Snapshot.parse(text), Reader("a"))
        await owner.close()
    assert "closed" not in seen
    assert {row["number"]: row for row in seen["rows"]} == expected
    assert seen["snapshots"] <= 1
