"""Live feeds over HTTP: snapshot, changes, resumption, several feeds, what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support import logged_shop, sse
from tests.support.live_copy import LiveCopy, StreamEndedError
from tests.support.live_shop import (
    ADMIN_TOKEN,
    DATASETS,
    MEMBER,
    OWN,
    SCHEMA,
    LiveShop,
    ids,
)
from tests.support.live_watchers import clients
from tests.support.logged_shop import opened, prepare
from tests.support.service import bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

DEADLINE: Final = 60.0
either_way = pytest.mark.either_way("started")


@pytest.fixture(scope="module")
async def made(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("live") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file, SCHEMA, DATASETS)
        yield url, file


@pytest.fixture(scope="module")
async def direct(made: tuple[str, Path]) -> AsyncIterator[LiveShop]:
    async with opened(LiveShop, *made) as shop:
        yield shop


@pytest.fixture(scope="module")
async def pooled(made: tuple[str, Path]) -> AsyncIterator[LiveShop]:
    async with logged_shop.pooled(LiveShop, *made) as shop:
        yield shop


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> LiveShop:
    shop: LiveShop = request.getfixturevalue(getattr(request, "param", "direct"))
    return shop


@pytest.fixture
async def shop(started: LiveShop) -> LiveShop:
    """The shop with a few rows."""
    await started.owner.execute(
        "DELETE FROM shop.orders; DELETE FROM shop.notes;"
        "INSERT INTO shop.orders VALUES (1, 'a', 1, 'open', false), (2, 'a', 2, 'done', false),"
        " (3, 'a', 1, 'open', true), (4, 'b', 1, 'open', false);"
        "INSERT INTO shop.notes VALUES ('2026-05-30', 'a', 'x,y', '{\"n\": 1.50}')"
    )
    return started


@either_way
async def test_a_snapshot_then_a_sync_then_what_changes(shop: LiveShop) -> None:
    copy = shop.copy()
    async with copy.connected():
        await copy.until_in(lambda: copy.is_synced)
        assert [event.type for event in copy.events] == ["open", "rows", "sync"]
        assert ids(copy) == {1: "open", 2: "done"}
        assert all(event.last_id for event in copy.events)
        await shop.owner.execute("UPDATE shop.orders SET status = 'paid' WHERE id = 1")
        await copy.until_in(lambda: ids(copy).get(1) == "paid")
        await shop.owner.execute("INSERT INTO shop.orders VALUES (9, 'a', 1, 'new', false)")
        await copy.until_in(lambda: 9 in ids(copy))
        await shop.owner.execute(
            "UPDATE shop.orders SET status = 'x' WHERE id IN (3, 4);"  # not the reader's
            "UPDATE shop.orders SET secret = true WHERE id = 9;"
            "DELETE FROM shop.orders WHERE id = 2"
        )
        await copy.until_in(lambda: ids(copy) == {1: "paid"})
        await shop.owner.execute("UPDATE shop.orders SET tenant = 'b' WHERE id = 1")
        await copy.until_in(lambda: not copy.rows)
    assert copy.told == {("", f"[{n}]") for n in (1, 2, 9)}
    assert {event.type for event in copy.events[3:]} <= {"change", "sync"}


@either_way
async def test_it_goes_on_from_the_last_id_without_a_snapshot(shop: LiveShop) -> None:
    copy = shop.copy()
    await copy.until(lambda: copy.is_synced)
    await shop.owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 1")
    await copy.until(lambda: ids(copy)[1] == "x")
    assert copy.snapshots == 1
    assert copy.connections == 2
    since = shop.copy(since=copy.cursor)
    since.feeds = {"": dict(copy.rows)}
    await shop.owner.execute("DELETE FROM shop.orders WHERE id = 2")
    await since.until(lambda: ids(since) == {1: "x"})
    assert since.snapshots == 0
    # What it asks for when it comes back begins with the former cursor all the same.
    since.told.clear()
    await shop.owner.execute("INSERT INTO shop.orders VALUES (9, 'a', 1, 'new', false)")
    await since.until(lambda: 9 in ids(since))
    assert since.told == {("", "[9]")}


async def test_many_who_open_a_feed_at_once_are_read_for_together(shop: LiveShop) -> None:
    copies = [shop.copy(status="open") for _ in range(30)]
    async with asyncio.TaskGroup() as group:
        opening = [
            group.create_task(copy.until(partial(getattr, copy, "is_synced"))) for copy in copies
        ]
        while not all(task.done() for task in opening):
            await shop.owner.execute("SELECT pg_current_xact_id()")  # no two snapshots are the same
    assert all(ids(copy) == {1: "open"} for copy in copies)
    opened = [json.loads(copy.events[0].data) for copy in copies]
    assert len({each["export"] for each in opened}) == 30
    assert len({each["cursor"] for each in opened}) < 10


async def test_one_feed_of_filters_and_columns(shop: LiveShop) -> None:
    copy = shop.copy(ADMIN_TOKEN, status="open", columns="status,id")
    async with copy.connected():
        await copy.until_in(lambda: copy.is_synced)
        assert ids(copy) == {1: "open", 3: "open"}
        assert list(next(iter(copy.rows.values()))) == ["status", "id"]
        await shop.owner.execute("UPDATE shop.orders SET status = 'done' WHERE id = 3")
        await shop.owner.execute("UPDATE shop.orders SET status = 'open' WHERE id = 2")
        await copy.until_in(lambda: ids(copy) == {1: "open", 2: "open"})


@either_way
async def test_several_feeds_in_one_stream_at_one_state(shop: LiveShop) -> None:
    keys = {"orders": ("id",), "notes": ("day", "part")}
    given = [("feed", "notes"), ("feed", "orders"), ("orders.status.in", "open,x")]
    copy = LiveCopy(shop.http, "/v1/live", MEMBER, keys, given)  # type: ignore[arg-type]
    async with copy.connected():
        await copy.until_in(lambda: copy.is_synced)
        assert [event.type for event in copy.events].count("sync") == 1
        assert {name: len(rows) for name, rows in copy.feeds.items()} == {"notes": 1, "orders": 1}
        async with shop.owner.transaction():
            await shop.owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 2")
            await shop.owner.execute("UPDATE shop.notes SET body = '[3]'")
        # Both belong to one transaction: no state is between them. A heartbeat may come before.
        await copy.until_in(lambda: copy.events[-1].type == "change" and ":" not in copy.last_id)
        assert next(iter(copy.feeds["notes"].values()))["body"] == [3]
        assert copy.feeds["orders"]["[2]"]["status"] == "x"
    await shop.owner.execute("DELETE FROM shop.notes")
    await copy.until(lambda: not copy.feeds["notes"])
    assert copy.snapshots == 1


LATER: Final = {
    "orders": "INSERT INTO shop.orders VALUES (9999, 'a', 1, 'later', false)",
    "notes": "INSERT INTO shop.notes VALUES ('2026-06-01', 'a', 'later', '1')",
}
IN_TRANSACTION: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'feedsvc bulk' AND xact_start IS NOT NULL"
)


@pytest.mark.parametrize("feeds", [["orders"], ["orders", "notes"]])
async def test_what_a_later_transaction_has_read_is_of_no_state_before_its_own(
    shop: LiveShop, feeds: list[str]
) -> None:
    """Of a snapshot that was parked, or of the second feed, the first cursor is no state."""
    await shop.owner.execute(
        "INSERT INTO shop.orders"
        " SELECT n, 'a', 1, repeat('x', 9000), false FROM generate_series(100, 300) AS n"
    )
    keys = {"orders": ("id",), "notes": ("day", "part")}
    given = [("feed", name) for name in feeds]
    late = LiveCopy(shop.http, "/v1/live", MEMBER, keys, given)  # type: ignore[arg-type]
    if feeds == ["orders"]:
        late = shop.copy()
    others = replace(late, feeds={}, events=[], told=set())
    async with others.connected(), clients(shop.service.url, kernel_takes=4_096) as small:
        await others.until_in(lambda: others.is_synced)  # so that there are events to go on with
        late.http = small
        async with late.connected():
            await late.next()
            async with asyncio.timeout(DEADLINE):
                while await shop.owner.fetchval(IN_TRANSACTION):
                    await asyncio.sleep(0.02)
            await shop.owner.execute(LATER[feeds[-1]])
            await late.until_in(lambda: late.is_synced)
    assert "later" in str(list(late.feeds.values()))
    path = f"/v1/feeds/{feeds[-1]}?since={late.cursor}"
    async with shop.http.get(path, headers=MEMBER) as response:
        (sync,) = (await response.text()).splitlines()
    assert json.loads(sync)["sync"]["upserts"] == 0


async def test_what_has_no_meaning_is_refused_by_name(shop: LiveShop) -> None:
    refused = [
        ("/v1/feeds/orders?live=1&format=json", "format"),
        ("/v1/feeds/orders?live=1&limit=3", "limit"),
        ("/v1/feeds/orders?live=1&order=key", "order"),
        ("/v1/feeds/orders?live=1&after=1", "after"),
        ("/v1/feeds/orders?live=2", "live"),
        ("/v1/feeds/orders?live=1&since=x", "since"),
        ("/v1/feeds/orders?live=1&since=x:9", "since"),
        ("/v1/feeds/offers?live=1", "live"),
        ("/v1/live", "feed"),
        ("/v1/live?feed=orders&feed=orders", "feed"),
        ("/v1/live?feed=orders&columns=id", "columns"),
        ("/v1/live?feed=orders&orders.limit=1", "orders.limit"),
        ("/v1/live?feed=orders&orders.status.gt=1", "orders.status.gt"),
        ("/v1/live?feed=orders&notes.columns=day", "notes.columns"),
    ]
    for path, parameter in refused:
        problem = await shop.refused(path)
        assert (problem["http"], problem.get("parameter")) == (400, parameter), (path, problem)
    assert (await shop.refused("/v1/live?feed=nothing"))["http"] == 404


async def test_readers_are_kept_apart(shop: LiveShop) -> None:
    """Two tenants, a narrowed client, an admin: none is sent what another one sees."""
    readers = {
        "member": shop.copy(),
        "admin": shop.copy(ADMIN_TOKEN),
        "client": shop.copy(bearer("a", client="1")),
        "other": shop.copy(bearer("b")),
    }
    tasks = [asyncio.create_task(r.until(lambda: False)) for r in readers.values()]
    try:
        async with asyncio.timeout(DEADLINE):
            while not all(reader.is_synced for reader in readers.values()):
                await asyncio.sleep(0.02)
        for n in range(20, 60):
            tenant, client, secret = "ab"[n % 2], n % 3, n % 5 == 0
            await shop.owner.execute(
                f"INSERT INTO shop.orders VALUES ({n}, '{tenant}', {client}, 'n', {secret})"
            )
            await shop.owner.execute(f"UPDATE shop.orders SET status = 'm' WHERE id = {n}")
            await shop.owner.execute(f"DELETE FROM shop.orders WHERE id = {n} AND {n % 7} = 0")
        expected = {
            "member": {n for n in range(20, 60) if n % 2 == 0 and n % 5 and n % 7},
            "admin": {n for n in range(20, 60) if n % 2 == 0 and n % 7},
            "client": {n for n in range(20, 60) if n % 2 == 0 and n % 5 and n % 3 == 1 and n % 7},
            "other": {n for n in range(20, 60) if n % 2 == 1 and n % 5 and n % 7},
        }
        async with asyncio.timeout(DEADLINE):
            while any(
                {n for n in ids(readers[name]) if n >= 20} != expected[name] for name in readers
            ):
                await asyncio.sleep(0.02)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    told = {name: {int(key[1:-1]) for _, key in r.told} for name, r in readers.items()}
    seen = {name: {n for n in numbers if n >= 20} for name, numbers in told.items()}
    assert all(n % 2 == 0 for name in ("member", "admin", "client") for n in seen[name])
    assert all(n % 2 == 1 for n in seen["other"])
    assert all(n % 5 for name in ("member", "client", "other") for n in seen[name])
    assert all(n % 3 == 1 for n in seen["client"])


async def test_a_truncated_table_is_a_reset_and_then_the_new_state(shop: LiveShop) -> None:
    copy = shop.copy()
    async with copy.connected():
        await copy.until_in(lambda: copy.is_synced)
        since = shop.copy(since=copy.cursor)
        await shop.owner.execute("TRUNCATE shop.orders")
        await copy.until_in(lambda: bool(copy.reset_reasons))
        assert copy.reset_reasons == ["truncated"]
        assert len(copy.rows) == 2  # until there is something in their place
        with pytest.raises(StreamEndedError):
            await copy.next()
    await shop.owner.execute("INSERT INTO shop.orders VALUES (7, 'a', 1, 'new', false)")
    await copy.until(lambda: ids(copy) == {7: "new"})
    assert copy.snapshots == 2
    async with shop.http.get(since.path, params=since.given, headers=MEMBER) as response:
        answer = sse.parse(await response.read())
    assert [event.type for event in answer.events] == ["reset"]
    assert (answer.retry or 0) >= 500
    # Behind it the address that has the former cursor is asked for all rows.
    await since.until(lambda: ids(since) == {7: "new"})
    assert (since.snapshots, since.reset_reasons) == (1, ["truncated"])


LIVE_BACKENDS: Final = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'feedsvc live'"
)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (f"ALTER POLICY readers ON shop.orders USING ({OWN})", "rights"),
        ("ALTER TABLE shop.orders ADD COLUMN more int", "schema"),
        ("DELETE FROM feedsvc.log_epoch", "epoch"),  # as a crash does
    ],
)
async def test_what_no_row_shows_is_a_reset_without_any_write(
    shop: LiveShop, statement: str, reason: str
) -> None:
    copy, several = (
        shop.copy(),
        LiveCopy(shop.http, "/v1/live", MEMBER, {"orders": ("id",)}, {"feed": "orders"}),
    )
    async with copy.connected(), several.connected():
        await copy.until_in(lambda: copy.is_synced)
        await several.until_in(lambda: several.is_synced)
        # Behind the first look, which reads rights and schema in any case.
        await shop.owner.execute("UPDATE shop.orders SET status = 'first' WHERE id = 1")
        await copy.until_in(lambda: ids(copy)[1] == "first")
        await several.until_in(lambda: several.feeds["orders"]["[1]"]["status"] == "first")
        await shop.owner.execute(statement)
        await copy.until_in(lambda: bool(copy.reset_reasons))
        await several.until_in(lambda: bool(several.reset_reasons))
    assert copy.reset_reasons == several.reset_reasons == [reason]
    await copy.until(lambda: copy.is_synced)
    assert copy.snapshots == 2


async def test_a_frozen_backend_of_the_tail_is_left_behind(shop: LiveShop) -> None:
    copy = shop.copy()
    async with copy.connected():
        await copy.until_in(lambda: copy.is_synced)
        frozen = [row["pid"] for row in await shop.owner.fetch(LIVE_BACKENDS)]
        assert frozen
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            await shop.owner.execute("UPDATE shop.orders SET status = 'seen' WHERE id = 1")
            await copy.until_in(lambda: ids(copy)[1] == "seen")
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
    assert copy.connections == 1


async def live_health(shop: LiveShop) -> dict[str, Any]:
    async with shop.http.get("/api/performance/health", headers=ADMIN_TOKEN) as response:
        found: dict[str, Any] = json.loads(await response.text())
    (live,) = [check for check in found["checks"] if check["name"] == "live"]
    return dict(live)


async def test_a_log_that_cannot_be_read_for_a_while_is_shown_and_loses_nothing(
    shop: LiveShop,
) -> None:
    copy = shop.copy()
    async with copy.connected():
        await copy.until_in(lambda: copy.is_synced)
        await shop.owner.execute("REVOKE SELECT ON feedsvc.log FROM feedsvc_service")
        try:
            await shop.owner.execute("UPDATE shop.orders SET status = 'kept' WHERE id = 1")
            async with asyncio.timeout(DEADLINE):
                while (await live_health(shop))["state"] != "degraded":
                    await asyncio.sleep(0.1)
                while not await gauge(shop, "feedsvc_live_failing_seconds"):
                    await asyncio.sleep(0.1)
            assert await gauge(shop, "feedsvc_live_cohorts") >= 1
            assert await gauge(shop, "feedsvc_live_subscribers_limit") == 10_000
        finally:
            await shop.owner.execute("GRANT SELECT ON feedsvc.log TO feedsvc_service")
        await copy.until_in(lambda: ids(copy)[1] == "kept")
        async with asyncio.timeout(DEADLINE):
            while (await live_health(shop))["state"] != "ok":
                await asyncio.sleep(0.1)
    assert copy.connections == 1


async def gauge(shop: LiveShop, name: str) -> float:
    """A gauge of the service's only worker."""
    async with shop.http.get("/metrics", headers=ADMIN_TOKEN) as response:
        lines = (await response.text()).splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return float(value)
