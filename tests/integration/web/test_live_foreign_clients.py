"""Other people's clients of server-sent events follow a live feed through restarts."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import httpx
import httpx_sse
import pytest
import requests
import sseclient

from feedsvc.backends.postgres.snapshot import Snapshot
from tests.support.followers import Oracle, Reader, prepare
from tests.support.servers import as_login
from tests.support.service import bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

DEADLINE: Final = 90.0
WHO: Final = bearer("a")
PATH: Final = "/v1/feeds/orders?live=1&format=sse"
INSERT: Final = (
    "INSERT INTO shop.orders (number, tenant, level, status, name)"
    " VALUES ($1, 'a', 1, 'open', $2)"
    " ON CONFLICT (number) DO UPDATE SET name = excluded.name, status = excluded.status"
)
Told = tuple[str, str, str]


def by_httpx_sse(url: str, last_id: str) -> Iterator[Told]:
    headers = {**WHO, **({"Last-Event-ID": last_id} if last_id else {})}
    with (
        httpx.Client(timeout=DEADLINE) as client,
        httpx_sse.connect_sse(client, "GET", url + PATH, headers=headers) as source,
    ):
        for event in source.iter_sse():
            yield event.event, event.data, event.id


def by_sseclient_py(url: str, last_id: str) -> Iterator[Told]:
    headers = {**WHO, **({"Last-Event-ID": last_id} if last_id else {})}
    with requests.get(url + PATH, headers=headers, stream=True, timeout=DEADLINE) as answer:
        for event in sseclient.SSEClient(answer.iter_content(None)).events():
            yield event.event, event.data, event.id or last_id


class ForeignCopy(threading.Thread):
    """A copy of the feed, kept by one of these clients, which comes back when it is cut off."""

    def __init__(self, client: Callable[[str, str], Iterator[Told]]) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.url = ""
        self.rows: dict[int, Any] = {}
        self.last_id = ""
        self.is_done = threading.Event()
        self.snapshots = 0

    def run(self) -> None:
        while not self.is_done.is_set():
            try:
                for kind, data, ident in self.client(self.url, self.last_id):
                    self.last_id = ident or self.last_id
                    self._apply(kind, json.loads(data))
                    if self.is_done.is_set():
                        return
            except (httpx.HTTPError, requests.RequestException, httpx_sse.SSEError):
                pass
            time.sleep(0.05)  # the pause that an EventSource makes

    def _apply(self, kind: str, data: Any) -> None:
        if kind == "open":
            self.snapshots += data["after"] is None
        elif kind == "rows":
            self.rows.update((row["number"], row) for row in data)
        elif kind == "change":
            for change in data:
                if change["op"] == "upsert":
                    self.rows[change["row"]["number"]] = change["row"]
                else:
                    self.rows.pop(change["key"]["number"], None)


@pytest.fixture(scope="module")
async def world(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("foreign") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file)
        yield url, file


@pytest.mark.parametrize(
    ("changes", "restarts"), [(120, 1), pytest.param(1_000, 3, marks=pytest.mark.soak)]
)
async def test_they_follow_changes_through_restarts(
    world: tuple[str, Path], changes: int, restarts: int
) -> None:
    url, file = world
    owner = await asyncpg.connect(url)
    copies = [ForeignCopy(by_httpx_sse), ForeignCopy(by_sseclient_py)]
    settings = {"FEEDSVC_STREAMS__PING_INTERVAL": "0.3", "FEEDSVC_STREAMS__DRAIN_TIMEOUT": "0.2"}
    try:
        for restart in range(restarts + 1):
            with serving(as_login(url), datasets=file, settings=settings) as service:
                for copy in copies:
                    copy.url = service.url
                    if not copy.is_alive():
                        copy.start()
                for n in range(changes // (restarts + 1)):
                    await owner.execute(INSERT, n % 50, f"{restart} {n}")
                    if n % 7 == 0:
                        await owner.execute("DELETE FROM shop.orders WHERE number = $1", n % 30)
                if restart == restarts:
                    await _all_have(copies, owner)
            # While none serves, too.
            await owner.execute(INSERT, 1_000 + restart, "between")
    finally:
        for copy in copies:
            copy.is_done.set()
        await owner.close()
    assert [copy.snapshots for copy in copies] == [1, 1]


async def _all_have(copies: list[ForeignCopy], owner: asyncpg.Connection) -> None:
    """Wait until each copy is what the table shows."""
    text = await owner.fetchval("SELECT pg_current_snapshot()::text")
    rows = await Oracle(owner).rows(Snapshot.parse(text), Reader("a"))
    deadline = time.monotonic() + DEADLINE
    while any(copy.rows != rows for copy in copies) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert [copy.rows == rows for copy in copies] == [True, True]
