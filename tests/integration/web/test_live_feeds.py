"""Live feeds over HTTP: snapshot, changes, resumption, several feeds, what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support import logged_shop
from tests.support.live_copy import LiveCopy, StreamEndedError
from tests.support.logged_shop import LoggedShop, opened, prepare
from tests.support.servers import LOGIN
from tests.support.service import bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

DEADLINE: Final = 60.0
either_way = pytest.mark.either_way("started")
OWN: Final = "tenant = (SELECT current_setting('feedsvc.tenant', true))"
ADMIN: Final = "(SELECT current_setting('feedsvc.role', true)) = 'admin'"
SCHEMA: Final = f"""
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, tenant text NOT NULL, client bigint, status text, secret bool
);
CREATE TABLE shop.notes (
    day date, tenant text NOT NULL, part text, body jsonb, PRIMARY KEY (day, part)
);
CREATE TABLE shop.offers (id bigint PRIMARY KEY, tenant text NOT NULL, until timestamptz);
CREATE POLICY readers ON shop.orders USING ({OWN} AND (NOT secret OR {ADMIN}));
CREATE POLICY readers ON shop.notes USING ({OWN});
CREATE POLICY readers ON shop.offers USING ({OWN} AND until > now());
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.offers ENABLE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA shop TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {LOGIN};
"""
DATASETS: Final = """
[orders]
relation = "shop.orders"
tenant = "tenant"
client = "client"
columns = ["id", "status"]
filters = {status = ["eq", "in"]}
[notes]
relation = "shop.notes"
tenant = "tenant"
[offers]
relation = "shop.offers"
tenant = "tenant"
"""
MEMBER, ADMIN_TOKEN = bearer("a"), bearer("a", "admin")


class Shop(LoggedShop):
    """The shop, and its feeds as this file asks for them."""

    def copy(self, who: Mapping[str, str] = MEMBER, feed: str = "orders", **given: str) -> LiveCopy:
        keys = {"": ("day", "part") if feed == "notes" else ("id",)}
        asked = {"live": "1", "format": "sse", **given}
        return LiveCopy(self.http, f"/v1/feeds/{feed}", who, keys, asked)

    async def refused(self, path: str, who: Mapping[str, str] = MEMBER) -> dict[str, Any]:
        async with self.http.get(path, headers=who) as response:
            return {"http": response.status, **json.loads(await response.text())}


@pytest.fixture(scope="module")
async def made(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("live") / "datasets.toml"
    async with new_database() as url:
        await prepare(url, file, SCHEMA, DATASETS)
        yield url, file


@pytest.fixture(scope="module")
async def direct(made: tuple[str, Path]) -> AsyncIterator[Shop]:
    async with opened(Shop, *made) as shop:
        yield shop


@pytest.fixture(scope="module")
async def pooled(made: tuple[str, Path]) -> AsyncIterator[Shop]:
    async with logged_shop.pooled(Shop, *made) as shop:
        yield shop


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Shop:
    shop: Shop = request.getfixturevalue(getattr(request, "param", "direct"))
    return shop


@pytest.fixture
async def shop(started: Shop) -> Shop:
    """The shop with a few rows."""
    await started.owner.execute(
        "DELETE FROM shop.orders; DELETE FROM shop.notes;"
        "INSERT INTO shop.orders VALUES (1, 'a', 1, 'open', false), (2, 'a', 2, 'done', false),"
        " (3, 'a', 1, 'open', true), (4, 'b', 1, 'open', false);"
        "INSERT INTO shop.notes VALUES ('2026-05-30', 'a', 'x,y', '{\"n\": 1.50}')"
    )
    return started


def ids(copy: LiveCopy) -> dict[int, str]:
    """The status of each order."""
    return {row["id"]: row["status"] for row in copy.rows.values()}


@either_way
async def test_a_snapshot_then_a_sync_then_what_changes(shop: Shop) -> None:
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
async def test_it_goes_on_from_the_last_id_without_a_snapshot(shop: Shop) -> None:
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


async def test_many_who_open_a_feed_at_once_are_read_for_together(shop: Shop) -> None:
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


async def test_one_feed_of_filters_and_columns(shop: Shop) -> None:
    copy = shop.copy(ADMIN_TOKEN, status="open", columns="status,id")
    async with copy.connected():
        await copy.until_in(lambda: copy.is_synced)
        assert ids(copy) == {1: "open", 3: "open"}
        assert list(next(iter(copy.rows.values()))) == ["status", "id"]
        await shop.owner.execute("UPDATE shop.orders SET status = 'done' WHERE id = 3")
        await shop.owner.execute("UPDATE shop.orders SET status = 'open' WHERE id = 2")
        await copy.until_in(lambda: ids(copy) == {1: "open", 2: "open"})


@either_way
async def test_several_feeds_in_one_stream_at_one_state(shop: Shop) -> None:
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
        before = copy.last_id
        # Both belong to one transaction: no state is between them.
        await copy.until_in(lambda: copy.last_id not in {before, f"{before}:step"})
        assert next(iter(copy.feeds["notes"].values()))["body"] == [3]
        assert copy.feeds["orders"]["[2]"]["status"] == "x"
    await shop.owner.execute("DELETE FROM shop.notes")
    await copy.until(lambda: not copy.feeds["notes"])
    assert copy.snapshots == 1


async def test_what_has_no_meaning_is_refused_by_name(shop: Shop) -> None:
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


async def test_readers_are_kept_apart(shop: Shop) -> None:
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


async def test_a_truncated_table_is_a_reset_and_then_the_new_state(shop: Shop) -> None:
    copy = shop.copy()
    async with copy.connected():
        await copy.until_in(lambda: copy.is_synced)
        await shop.owner.execute("TRUNCATE shop.orders")
        await copy.until_in(lambda: bool(copy.reset_reasons))
        assert copy.reset_reasons == ["truncated"]
        assert len(copy.rows) == 2  # until there is something in their place
        with pytest.raises(StreamEndedError):
            await copy.next()
    await shop.owner.execute("INSERT INTO shop.orders VALUES (7, 'a', 1, 'new', false)")
    await copy.until(lambda: ids(copy) == {7: "new"})
    assert copy.snapshots == 2


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
    shop: Shop, statement: str, reason: str
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


async def test_a_frozen_backend_of_the_tail_is_left_behind(shop: Shop) -> None:
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


async def live_health(shop: Shop) -> dict[str, Any]:
    async with shop.http.get("/api/performance/health", headers=ADMIN_TOKEN) as response:
        found: dict[str, Any] = json.loads(await response.text())
    (live,) = [check for check in found["checks"] if check["name"] == "live"]
    return dict(live)


async def test_a_log_that_cannot_be_read_for_a_while_is_shown_and_loses_nothing(shop: Shop) -> None:
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


async def gauge(shop: Shop, name: str) -> float:
    """A gauge of the service's only worker."""
    async with shop.http.get("/metrics", headers=ADMIN_TOKEN) as response:
        lines = (await response.text()).splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return float(value)
