"""Deltas over HTTP: cursors of exports, frames and events, waiting, resets with their reasons."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest

from tests.support import forked, logged_shop, sse
from tests.support.logged_shop import LoggedShop, opened, prepare
from tests.support.servers import LOGIN, as_login
from tests.support.service import KEY, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from multidict import CIMultiDictProxy

    from tests.integration.conftest import NewDatabase

DEADLINE: Final = 60.0
either_way = pytest.mark.either_way("started")
OWN: Final = "tenant = (SELECT current_setting('feedsvc.tenant', true))"
ADMIN: Final = "(SELECT current_setting('feedsvc.role', true)) = 'admin'"
SCHEMA: Final = f"""
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id bigint PRIMARY KEY, tenant text NOT NULL, status text, secret bool);
CREATE TABLE shop.notes (
    day date, tenant text NOT NULL, part text, body jsonb, PRIMARY KEY (day, part)
);
CREATE TABLE shop.parts (id int PRIMARY KEY, tenant text NOT NULL, at int) PARTITION BY RANGE (id);
CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100);
CREATE TABLE shop.parts_2 PARTITION OF shop.parts FOR VALUES FROM (100) TO (200);
CREATE TABLE shop.offers (id bigint PRIMARY KEY, tenant text NOT NULL, until timestamptz);
CREATE TABLE shop.whole (id bigint PRIMARY KEY, tenant text NOT NULL, secret bool);
CREATE TABLE shop.staff (who text, tenant text);
CREATE TABLE shop.papers (id bigint PRIMARY KEY, tenant text NOT NULL, who text);
CREATE VIEW shop.seen WITH (security_invoker) AS SELECT id, tenant FROM shop.orders;
CREATE VIEW shop.current WITH (security_invoker) AS
    SELECT id AS number, tenant, status FROM shop.orders WHERE status <> 'void';
CREATE VIEW shop.counted WITH (security_invoker) AS
    SELECT tenant, count(*) AS orders FROM shop.orders GROUP BY tenant;
CREATE FUNCTION shop.is_open(shop.whole) RETURNS bool LANGUAGE sql IMMUTABLE
    AS 'SELECT NOT $1.secret';
CREATE POLICY readers ON shop.orders USING ({OWN} AND (NOT secret OR {ADMIN}));
CREATE POLICY readers ON shop.notes USING ({OWN});
CREATE POLICY readers ON shop.parts USING ({OWN});
CREATE POLICY readers ON shop.offers USING ({OWN} AND until > now());
CREATE POLICY readers ON shop.whole USING ({OWN} AND shop.is_open(whole));
CREATE POLICY readers ON shop.papers USING ({OWN} AND EXISTS (
    SELECT FROM shop.staff s WHERE s.who = papers.who AND s.tenant = papers.tenant));
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.offers ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.whole ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop.papers ENABLE ROW LEVEL SECURITY;
GRANT USAGE ON SCHEMA shop TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {LOGIN};
"""
DATASETS: Final = """
[orders]
relation = "shop.orders"
tenant = "tenant"
columns = ["id", "status"]
filters = {status = ["eq"]}
[notes]
relation = "shop.notes"
tenant = "tenant"
[parts]
relation = "shop.parts"
key = ["id"]
tenant = "tenant"
[offers]
relation = "shop.offers"
tenant = "tenant"
[whole]
relation = "shop.whole"
tenant = "tenant"
columns = ["id"]
[papers]
relation = "shop.papers"
tenant = "tenant"
columns = ["id"]
[seen]
relation = "shop.seen"
key = ["id"]
tenant = "tenant"
not_null = ["id"]
[current]
relation = "shop.current"
key = ["number"]
tenant = "tenant"
not_null = ["number"]
key_from = {"shop.orders" = {}}
[counted]
relation = "shop.counted"
key = ["tenant"]
tenant = "tenant"
not_null = ["tenant"]
key_from = {"shop.orders" = {}}
[misnamed]
relation = "shop.current"
key = ["number"]
tenant = "tenant"
not_null = ["number"]
key_from = {"shop.orders" = {number = "status"}}
"""
MEMBER, ADMIN_TOKEN = bearer("a"), bearer("a", "admin")
FRAMES: Final = {"Accept": "application/x-ndjson"}


class Shop(LoggedShop):
    """The shop, and its feeds as this file asks for them."""

    async def get(
        self, feed: str, who: Mapping[str, str] = MEMBER, **given: str
    ) -> tuple[int, str, CIMultiDictProxy[str]]:
        """Status, body and headers."""
        path = feed if feed.startswith("/") else f"/v1/feeds/{feed}"
        async with self.http.get(path, params=given, headers=who) as response:
            return response.status, await response.text(), response.headers

    async def cursor(
        self, feed: str = "orders", who: Mapping[str, str] = MEMBER, **given: str
    ) -> str:
        """The cursor of an export."""
        status, body, _ = await self.get(feed, who, format="ndjson", frames="1", **given)
        assert status == 200, body
        return str(json.loads(body.splitlines()[-1])["end"]["cursor"])

    async def delta(
        self, since: str, feed: str = "orders", who: Mapping[str, str] = MEMBER, **given: str
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The frames of a delta, and its `sync`."""
        status, body, _ = await self.get(feed, who, since=since, **given)
        assert status == 200, body
        *frames, last = map(json.loads, body.splitlines())
        return frames, last["sync"]

    async def last_query(self) -> str:
        """What the service's connections have asked last."""
        rows = await self.owner.fetch(
            "SELECT query FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'feedsvc %'"
        )
        return "\n".join(row[0] for row in rows)

    async def reset(
        self, since: str, feed: str = "orders", who: Mapping[str, str] = MEMBER, **given: str
    ) -> str:
        """The reason of a reset, whose new export can be had."""
        status, body, _ = await self.get(feed, who, since=since, **given)
        problem = json.loads(body)
        assert (status, problem.get("type")) == (409, "/problems/reset"), body
        async with self.http.get(problem["fresh"], headers=who) as response:
            assert response.status == 200
            assert json.loads((await response.text()).splitlines()[-1])["end"]["cursor"]
        return str(problem["reason"])


@pytest.fixture(scope="module")
async def made(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[str, Path]]:
    file = tmp_path_factory.mktemp("deltas") / "datasets.toml"
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
        "INSERT INTO shop.orders VALUES (1, 'a', 'open', false), (2, 'a', 'done', false),"
        " (3, 'a', 'open', true), (4, 'b', 'open', false);"
        "INSERT INTO shop.notes VALUES ('2026-05-30', 'a', 'x,y', '{\"n\": 1.50}')"
    )
    return started


@either_way
async def test_an_export_names_its_state_and_a_delta_leads_from_it_to_the_next(shop: Shop) -> None:
    _, body, _ = await shop.get("orders", format="ndjson", frames="1")
    cursor = json.loads(body.splitlines()[-1])["end"]["cursor"]
    assert (await shop.delta(cursor))[0] == []
    await shop.owner.execute(
        "UPDATE shop.orders SET status = 'paid' WHERE id = 1;"
        "UPDATE shop.orders SET status = 'sent' WHERE id = 1;"
        "DELETE FROM shop.orders WHERE id = 2;"
        "INSERT INTO shop.orders VALUES (5, 'a', 'new', false);"
        "UPDATE shop.orders SET status = 'x' WHERE id IN (3, 4)"
    )
    status, body, headers = await shop.get("orders", since=cursor)
    *frames, last = map(json.loads, body.splitlines())
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert headers["Content-Type"] == "application/x-ndjson"
    assert sorted(map(str, frames)) == sorted(
        map(str, [{"upsert": {"id": 1, "status": "sent"}}, {"upsert": {"id": 5, "status": "new"}},
                  {"delete": {"id": 2}}])
    )  # fmt: skip
    assert (last["sync"]["upserts"], last["sync"]["deletes"]) == (2, 1)
    frames, sync = await shop.delta(last["sync"]["cursor"])
    assert (frames, sync["upserts"], sync["deletes"]) == ([], 0, 0)


@either_way
async def test_the_same_as_events(shop: Shop) -> None:
    _, body, _ = await shop.get("orders", format="sse")
    events = sse.parse(body.encode()).events
    cursors = [json.loads(event.data)["cursor"] for event in (events[0], events[-1])]
    assert cursors[0] == cursors[1] is not None
    await shop.owner.execute("DELETE FROM shop.orders WHERE id = 1")
    await shop.owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 2")
    _, body, headers = await shop.get("orders", format="sse", since=cursors[0])
    assert headers["Content-Type"] == "text/event-stream"
    change, sync = sse.parse(body.encode()).events
    assert (change.type, json.loads(change.data)) == (
        "change",
        [{"op": "upsert", "row": {"id": 2, "status": "x"}}, {"op": "delete", "key": {"id": 1}}],
    )
    assert (sync.type, sync.last_id) == ("sync", json.loads(sync.data)["cursor"])
    # What the browser does by itself.
    again = {**MEMBER, "Last-Event-ID": sync.last_id}
    _, body, _ = await shop.get("orders", again, format="sse", since=cursors[0])
    (sync,) = sse.parse(body.encode()).events
    assert json.loads(sync.data)["upserts"] == 0


async def test_a_page_and_the_rest_of_an_export_are_no_states(shop: Shop) -> None:
    for name, value in (("limit", "2"), ("after", "1")):
        given = {"format": "ndjson", "frames": "1", name: value}
        _, body, _ = await shop.get("orders", MEMBER, **given)
        assert json.loads(body.splitlines()[-1])["end"]["cursor"] is None


@either_way
async def test_who_leaves_a_readers_sight_or_filter_is_a_delete(shop: Shop) -> None:
    member, admin = await shop.cursor(), await shop.cursor(who=ADMIN_TOKEN)
    filtered = await shop.cursor(status="open")
    await shop.owner.execute("UPDATE shop.orders SET secret = true WHERE id = 1")
    assert (await shop.delta(member))[0] == [{"delete": {"id": 1}}]
    assert (await shop.delta(admin, who=ADMIN_TOKEN))[0] == [
        {"upsert": {"id": 1, "status": "open"}}
    ]
    await shop.owner.execute("UPDATE shop.orders SET secret = false, status = 'done' WHERE id = 1")
    assert (await shop.delta(filtered, status="open"))[0] == [{"delete": {"id": 1}}]
    await shop.owner.execute("DELETE FROM shop.orders WHERE id = 3")
    assert (await shop.delta(member))[0] == [{"upsert": {"id": 1, "status": "done"}}]
    await shop.owner.execute("UPDATE shop.orders SET tenant = 'b' WHERE id = 1")
    assert (await shop.delta(member))[0] == [{"delete": {"id": 1}}]


@either_way
async def test_one_cursor_brings_several_feeds_to_one_state(shop: Shop) -> None:
    cursor = await shop.cursor("orders")
    await shop.owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 1")
    await shop.owner.execute("UPDATE shop.notes SET part = 'ä %', body = '[]'")
    frames, sync = await shop.delta(cursor, "notes")
    assert {"delete": {"day": "2026-05-30", "part": "x,y"}} in frames
    row = {"day": "2026-05-30", "tenant": "a", "part": "ä %", "body": []}
    assert ({"upsert": row} in frames, sync["upserts"], sync["deletes"]) == (True, 1, 1)
    assert len((await shop.delta(cursor, "orders"))[0]) == 1
    assert (await shop.delta(sync["cursor"], "orders"))[0] == []


@either_way
async def test_a_digest_proves_the_copy(shop: Shop) -> None:
    cursor = await shop.cursor()
    await shop.owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 1")
    _, sync = await shop.delta(cursor, digest="1")
    _, body, _ = await shop.get("orders", format="ndjson")
    lines = body.encode().splitlines()
    total = sum(int.from_bytes(hashlib.sha256(line).digest()[:8], "big") for line in lines)
    assert (sync["rows"], sync["digest"]) == (len(lines), total % 2**64)


@either_way
async def test_it_waits_for_a_change_that_the_caller_sees(shop: Shop) -> None:
    cursor = await shop.cursor()
    waiting = asyncio.create_task(shop.delta(cursor, wait="30"))
    for statement in (
        "UPDATE shop.orders SET status = 'x' WHERE id = 4",  # another tenant's
        "UPDATE shop.orders SET status = 'x' WHERE id = 3",  # for admins
        "UPDATE shop.notes SET body = '[2]'",
    ):
        await shop.owner.execute(statement)
        await asyncio.sleep(0.1)  # so that each is looked at by itself; the answer's rows decide
    await shop.owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 1")
    async with asyncio.timeout(DEADLINE):
        frames, _ = await waiting
    assert frames == [{"upsert": {"id": 1, "status": "x"}}]


async def test_it_answers_when_nothing_comes(shop: Shop) -> None:
    cursor = await shop.cursor()
    frames, sync = await shop.delta(cursor, wait="0.3")
    assert (frames, sync["upserts"], sync["deletes"]) == ([], 0, 0)


PINGED: Final = {"FEEDSVC_STREAMS__PING_INTERVAL": "0.1"}


@pytest.fixture(scope="module")
async def pinging(made: tuple[str, Path]) -> AsyncIterator[Shop]:
    async with opened(Shop, *made, PINGED) as shop:
        yield shop


@pytest.mark.parametrize("started", ["pinging"], indirect=True)
@pytest.mark.parametrize("end", ["change", "reset", "time"])
async def test_a_delta_that_waits_shows_that_it_is_there(shop: Shop, end: str) -> None:
    """A proxy cuts what is silent; what comes at last is as without pings."""
    owner, cursor = shop.owner, await shop.cursor()
    given = {"since": cursor, "format": "sse", "wait": "30" if end in ("change", "reset") else "1"}
    async with shop.http.get("/v1/feeds/orders", params=given, headers=MEMBER) as response:
        assert response.status == 200
        for _ in range(2):
            assert await response.content.readuntil(b"\n\n") == b": ping\n\n"
        if end == "change":
            await owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 1")
        elif end == "reset":
            await owner.execute("TRUNCATE shop.orders")
        body = await response.read()
    events = [event.type for event in sse.parse(body).events]
    last = {"change": ["change", "sync"], "reset": ["reset"], "time": ["sync"]}
    assert events == last[end]


@pytest.mark.parametrize("started", ["pinging"], indirect=True)
async def test_a_wait_that_fails_behind_pings_is_broken_off(shop: Shop) -> None:
    given = f"since={await shop.cursor()}&format=sse&wait=1&seen=9999999999"
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.service.port)
    fields = f"Host: x\r\nAuthorization: {MEMBER['Authorization']}\r\n"
    writer.write(f"GET /v1/feeds/orders?{given} HTTP/1.1\r\n{fields}\r\n".encode())
    async with asyncio.timeout(DEADLINE):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b": ping\n\n" in answer
    assert b"event: error\n" in answer
    assert b"/problems/busy" in answer
    assert not answer.endswith(b"0\r\n\r\n")


async def test_who_waits_holds_no_connection(shop: Shop) -> None:
    cursor = await shop.cursor()
    waiting = [asyncio.create_task(shop.delta(cursor, wait="30")) for _ in range(20)]
    in_transaction = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE state LIKE 'idle in%' AND datname = current_database()"
    )
    async with asyncio.timeout(DEADLINE):
        while await shop.owner.fetchval(in_transaction):
            await asyncio.sleep(0.05)
    assert (await shop.delta(cursor))[0] == []
    assert not any(task.done() for task in waiting)
    await shop.owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 1")
    async with asyncio.timeout(DEADLINE):
        assert all(frames for frames, _ in await asyncio.gather(*waiting))


async def test_a_stop_answers_who_waits(made: tuple[str, Path]) -> None:
    async with opened(Shop, *made) as shop:
        cursor = await shop.cursor()
        waiting = asyncio.create_task(shop.delta(cursor, wait="30"))
        async with asyncio.timeout(DEADLINE):
            while "select (logged.feed, logged.scope" not in await shop.last_query():
                await asyncio.sleep(0.02)
            shop.service.terminate()
            frames, sync = await waiting
        assert (frames, bool(sync["cursor"])) == ([], True)


@either_way
async def test_it_waits_for_the_writers_transaction(shop: Shop) -> None:
    cursor = await shop.cursor()
    writer = await asyncpg.connect(shop.url)
    try:
        await writer.execute("BEGIN; UPDATE shop.orders SET status = 'mine' WHERE id = 1")
        xid = str(await writer.fetchval("SELECT pg_current_xact_id()::text"))
        status, body, headers = await shop.get("orders", since=cursor, seen=xid, wait="0.2")
        assert (status, json.loads(body)["type"], "Retry-After" in headers) == (
            503, "/problems/busy", True,
        )  # fmt: skip
        waiting = asyncio.create_task(shop.delta(cursor, seen=xid))
        await shop.owner.execute("UPDATE shop.orders SET status = 'x' WHERE id = 2")
        await asyncio.sleep(0.1)  # so that it is looked at by itself; the answer's rows decide
        await writer.execute("COMMIT")
        async with asyncio.timeout(DEADLINE):
            frames, _ = await waiting
        assert {"upsert": {"id": 1, "status": "mine"}} in frames
    finally:
        await writer.close()


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"since": "CURSOR", "format": "json"}, "format"),
        ({"since": "CURSOR", "format": "csv"}, "format"),
        ({"since": "CURSOR", "limit": "5"}, "limit"),
        ({"since": "CURSOR", "after": "5"}, "after"),
        ({"since": "CURSOR", "wait": "31"}, "wait"),
        ({"since": "CURSOR", "seen": "x"}, "seen"),
        ({"since": "CURSOR", "digest": "2"}, "digest"),
        ({"since": "nonsense"}, "since"),
        ({"wait": "3"}, "wait"),
        ({"digest": "1"}, "digest"),
    ],
)
async def test_what_does_not_go_together_is_named(
    shop: Shop, given: dict[str, str], parameter: str
) -> None:
    cursor = await shop.cursor()
    given = {name: cursor if value == "CURSOR" else value for name, value in given.items()}
    status, body, _ = await shop.get("orders", MEMBER, **given)
    assert (status, json.loads(body)["parameter"]) == (400, parameter)


@either_way
async def test_a_view_is_followed_by_the_table_that_its_key_comes_from(shop: Shop) -> None:
    owner = shop.owner
    cursor, admins = await shop.cursor("current"), await shop.cursor("current", who=ADMIN_TOKEN)
    await owner.execute("UPDATE shop.orders SET status = 'sent' WHERE id = 1")
    await owner.execute("UPDATE shop.orders SET status = 'void' WHERE id IN (2, 3)")
    frames, sync = await shop.delta(cursor, "current")
    sent = {"upsert": {"number": 1, "tenant": "a", "status": "sent"}}
    assert (len(frames), sent in frames) == (2, True)
    assert {"delete": {"number": 2}} in frames  # and not 3, which was for admins
    deleted = [f["delete"] for f in (await shop.delta(admins, "current", ADMIN_TOKEN))[0][1:]]
    assert sorted(key["number"] for key in deleted) == [2, 3]
    await owner.execute("DELETE FROM shop.orders WHERE id = 2")
    assert (await shop.delta(sync["cursor"], "current"))[0] == []  # it was not there any more
    await owner.execute("UPDATE shop.orders SET secret = true WHERE id = 1")
    assert (await shop.delta(sync["cursor"], "current"))[0] == [{"delete": {"number": 1}}]
    waiting = asyncio.create_task(shop.delta(sync["cursor"], "current", wait="30"))
    assert (await waiting)[0]


async def test_a_view_of_which_former_rows_do_not_tell_begins_anew(shop: Shop) -> None:
    cursor = await shop.cursor("counted")
    await shop.owner.execute("DELETE FROM shop.orders WHERE id = 1")
    (frame,), sync = await shop.delta(cursor, "counted")
    assert frame == {"upsert": {"tenant": "a", "orders": 1}}
    await shop.owner.execute("DELETE FROM shop.orders WHERE tenant = 'a'")
    assert await shop.reset(sync["cursor"], "counted") == "rights"


async def test_a_changed_view_begins_anew(shop: Shop) -> None:
    column = "CREATE OR REPLACE VIEW shop.current WITH (security_invoker) AS SELECT {} AS number"
    rest = ", tenant, status FROM shop.orders WHERE status <> 'void'"
    for other, reason in (
        ("ALTER VIEW shop.current SET (security_invoker = false)", "rights"),
        (column.format("id + 0") + rest, "schema"),
    ):
        cursor = await shop.cursor("current")
        await shop.owner.execute(other)
        try:
            if reason == "rights":
                assert await shop.reset(cursor, "current") == reason
            else:  # the triggers log another key than the view has now
                status, body, _ = await shop.get("current", since=cursor)
                assert (status, "key_from" in json.loads(body)["detail"]) == (400, True)
        finally:
            await shop.owner.execute(column.format("id") + rest)


@pytest.mark.parametrize("feed", ["seen", "offers", "misnamed"])
async def test_feeds_whose_changes_can_not_be_followed(shop: Shop, feed: str) -> None:
    cursor = await shop.cursor()
    status, body, _ = await shop.get(feed, since=cursor)
    assert (status, json.loads(body)["parameter"]) == (400, "since")
    _, body, _ = await shop.get(feed, format="ndjson", frames="1")
    assert json.loads(body.splitlines()[-1])["end"]["cursor"] is None


@either_way
async def test_another_query_and_another_reader_begin_anew(shop: Shop) -> None:
    cursor = await shop.cursor()
    assert await shop.reset(cursor, status="open") == "query"
    assert await shop.reset(cursor, columns="id") == "query"
    assert await shop.reset(cursor, who=ADMIN_TOKEN) == "rights"
    _, body, headers = await shop.get("orders", since=cursor, format="sse", status="open")
    (event,) = sse.parse(body.encode()).events
    assert (event.type, json.loads(event.data)["reason"]) == ("reset", "query")
    assert headers["Cache-Control"] == "no-store"


async def test_what_no_row_can_say_is_a_reset(shop: Shop) -> None:
    owner = shop.owner
    cursor = await shop.cursor("notes")
    await owner.execute("TRUNCATE shop.notes")
    assert await shop.reset(cursor, "notes") == "truncated"

    cursor = await shop.cursor("notes")
    await owner.execute(
        "INSERT INTO shop.notes SELECT '2026-01-01', 'a', n, NULL FROM generate_series(1, 100001) n"
    )
    assert await shop.reset(cursor, "notes") == "overflow"
    await owner.execute("TRUNCATE shop.notes")

    cursor = await shop.cursor("notes")
    await owner.execute(
        "INSERT INTO shop.notes SELECT '2026-01-01', 'a', n, NULL FROM generate_series(1, 2000) n"
    )
    assert await shop.reset(cursor, "notes") == "larger"

    cursor = await shop.cursor("papers")
    await owner.execute("INSERT INTO shop.staff VALUES ('me', 'a')")
    assert await shop.reset(cursor, "papers") == "rights"


async def test_a_policy_that_can_not_be_asked_of_former_rows_is_a_reset(shop: Shop) -> None:
    await shop.owner.execute("INSERT INTO shop.whole VALUES (1, 'a', false)")
    cursor = await shop.cursor("whole")
    await shop.owner.execute("INSERT INTO shop.whole VALUES (2, 'a', false)")
    assert (await shop.delta(cursor, "whole"))[0] == [{"upsert": {"id": 2}}]
    await shop.owner.execute("UPDATE shop.whole SET secret = true WHERE id = 1")
    assert await shop.reset(cursor, "whole") == "rights"


async def test_a_changed_function_of_a_policy_begins_anew(shop: Shop) -> None:
    cursor = await shop.cursor("whole")
    assert (await shop.delta(cursor, "whole"))[1]["cursor"]
    await shop.owner.execute(
        "CREATE OR REPLACE FUNCTION shop.is_open(shop.whole) RETURNS bool LANGUAGE sql IMMUTABLE"
        " AS 'SELECT $1.secret'"
    )
    assert await shop.reset(cursor, "whole") == "rights"


RIGHTS: Final = (
    "CREATE POLICY further ON shop.{} AS RESTRICTIVE USING (true)",
    "DROP POLICY further ON shop.{}",
    "ALTER POLICY readers ON shop.{} USING (" + OWN + ")",
)


@pytest.mark.parametrize("named", [True, False])
async def test_changed_policies_begin_anew(shop: Shop, named: bool) -> None:
    for statement in RIGHTS:
        cursor = await shop.cursor("notes" if named else "orders")
        await shop.owner.execute(statement.format("notes"))
        assert await shop.reset(cursor, "notes") == "rights"
        assert (await shop.delta(await shop.cursor("notes"), "notes"))[0] == []


@pytest.mark.parametrize("named", [True, False])
async def test_changed_tables_begin_anew(shop: Shop, named: bool) -> None:
    for statement in (
        "ALTER TABLE shop.notes ALTER body TYPE json",
        "ALTER TABLE shop.notes ALTER body TYPE jsonb",
        "ALTER TABLE shop.notes ADD later int",
        "ALTER TABLE shop.notes DROP later",
        "ALTER TABLE shop.notes DISABLE TRIGGER USER; DELETE FROM shop.notes;"
        "ALTER TABLE shop.notes ENABLE TRIGGER USER",
    ):
        cursor = await shop.cursor("notes" if named else "orders")
        await shop.owner.execute(statement)
        assert await shop.reset(cursor, "notes") == "schema"


async def test_without_triggers_nothing_is_followed(shop: Shop) -> None:
    cursor = await shop.cursor("notes")
    await shop.owner.execute("ALTER TABLE shop.notes DISABLE TRIGGER USER")
    try:
        status, body, _ = await shop.get("notes", since=cursor)
        assert (status, "migrate triggers" in json.loads(body)["detail"]) == (400, True)
        _, body, _ = await shop.get("notes", format="ndjson", frames="1")
        assert json.loads(body.splitlines()[-1])["end"]["cursor"] is None
    finally:
        await shop.owner.execute("ALTER TABLE shop.notes ENABLE TRIGGER USER")


async def test_partitions_come_and_go_in_deltas_or_resets(shop: Shop) -> None:
    owner = shop.owner
    await owner.execute("INSERT INTO shop.parts VALUES (1, 'a', 1), (150, 'a', 1)")
    cursor = await shop.cursor("parts")
    await owner.execute("UPDATE shop.parts SET id = 120 WHERE id = 1")
    frames, _ = await shop.delta(cursor, "parts")
    moved = {"upsert": {"id": 120, "tenant": "a", "at": 1}}
    assert (len(frames), moved in frames, {"delete": {"id": 1}} in frames) == (2, True, True)
    assert await shop.reset(await shop.cursor("orders"), "parts") == "schema"
    for statement in (
        "CREATE TABLE shop.parts_3 (LIKE shop.parts);"
        "INSERT INTO shop.parts_3 VALUES (250, 'a', 1);"
        "ALTER TABLE shop.parts ATTACH PARTITION shop.parts_3 FOR VALUES FROM (200) TO (300)",
        "TRUNCATE shop.parts_3",
        "ALTER TABLE shop.parts DETACH PARTITION shop.parts_3",
        "DROP TABLE shop.parts_2",
    ):
        cursor = await shop.cursor("parts")
        await owner.execute(statement)
        assert await shop.reset(cursor, "parts") == "schema"
    cursor = await shop.cursor("parts")
    await owner.execute("TRUNCATE shop.parts_1")
    assert await shop.reset(cursor, "parts") == "truncated"


async def test_check_names_the_policies_that_are_in_the_way(shop: Shop) -> None:
    environment = {"DATABASE_URL": as_login(shop.url), "FEEDSVC_DATASETS__FILE": str(shop.file)}
    process, output = forked.start(
        ["check"], {**os.environ, **environment, "FEEDSVC_AUTH__KEY": KEY}
    )
    with output:
        lines = [line for line in output if re.search("`since`|deltas are|key_from", line)]
    process.wait(DEADLINE)
    assert [line.split(": ")[2] for line in lines] == [
        "offers", "whole", "counted", "misnamed.key_from",
    ], lines  # fmt: skip


async def test_resets_and_deltas_are_counted(shop: Shop) -> None:
    cursor = await shop.cursor()
    assert await shop.reset(cursor, status="open") == "query"
    await shop.owner.execute("UPDATE shop.orders SET status = 'x'")
    assert len((await shop.delta(cursor))[0]) == 2
    async with asyncio.timeout(DEADLINE):
        while True:
            _, body, _ = await shop.get("/metrics", ADMIN_TOKEN)
            counted = re.search(r'feedsvc_resets_total\{reason="query"\} ([0-9.]+)', body)
            changes = re.search(r'feedsvc_delta_changes_sum\{dataset="orders"\} ([0-9.]+)', body)
            if counted and changes and float(counted[1]) >= 1 and float(changes[1]) >= 2:
                return
            await asyncio.sleep(0.1)
