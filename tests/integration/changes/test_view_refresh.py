"""Materialized views are refreshed after changes, and whatever goes wrong holds up nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest
from pydantic import SecretStr

from feedsvc.backends.postgres.own_schema import WriteSession, write_session
from feedsvc.backends.postgres.servers import Servers
from feedsvc.changes import triggers, view_refresh
from feedsvc.changes.refresh_findings import refresh_findings
from feedsvc.changes.refreshes import refreshed_views
from feedsvc.changes.view_refresh import ViewRefresh
from feedsvc.datasets.dataset import Declaration, Refreshed
from feedsvc.settings import Changes, Database
from tests.support import pgbouncer
from tests.support.ailing import until
from tests.support.servers import LOG_TEMPLATE, as_login

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

SHOP: Final = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id int, region int, amount numeric NOT NULL, PRIMARY KEY (id, region))
        PARTITION BY LIST (region);
    CREATE TABLE shop.north PARTITION OF shop.orders FOR VALUES IN (1);
    CREATE TABLE shop.south (LIKE shop.orders INCLUDING ALL);
    CREATE TABLE shop.vendors (id int PRIMARY KEY);
    CREATE VIEW shop.some AS SELECT * FROM shop.orders WHERE amount > 0;
    CREATE MATERIALIZED VIEW shop.sums AS SELECT region, sum(amount) FROM shop.some GROUP BY region;
    CREATE UNIQUE INDEX sums_key ON shop.sums (region);
    CREATE MATERIALIZED VIEW shop."Total" AS SELECT 1 AS id, sum(sum) FROM shop.sums;
    CREATE UNIQUE INDEX total_key ON shop."Total" (id);
"""
SUMS: Final = "shop.sums"
TOTAL: Final = 'shop."Total"'
DUE: Final = "SELECT feedsvc.refresh_due()"
LONG_AGO: Final = (
    "UPDATE feedsvc.refreshes SET refreshed_at = refreshed_at - interval '1 day',"
    " tried_at = tried_at - interval '1 day'"
)
LOGGED: Final = """
    SELECT f.dataset, l.xid::text FROM feedsvc.log l JOIN feedsvc.log_feeds f USING (feed)
    WHERE l.op = 'w' AND l.scope = f.everyone ORDER BY l.xid
"""


def declared(**more: object) -> dict[str, Declaration]:
    often = {"after": 60, "every": 600_000, **more}
    return {
        "sums": Declaration.model_validate(
            {"relation": SUMS, "key": ["region"], "shared": True, "refreshed": {SUMS: often}}
        ),
        "totals": Declaration.model_validate(
            {"relation": TOTAL, "key": ["id"], "shared": True, "refreshed": {TOTAL: often}}
        ),
    }


@pytest.fixture
async def url(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(LOG_TEMPLATE, script=SHOP) as made:
        yield made


@pytest.fixture
async def owner(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    await entered(connection)
    yield connection
    await connection.close()


async def entered(connection: asyncpg.Connection, **more: object) -> list[str]:
    plan = await triggers.plan(connection, declared(**more))
    return await triggers.install(connection, plan)


async def counted(connection: asyncpg.Connection) -> None:
    """Send what this session has written to the counters, as it would within ten seconds."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT 1")


async def settled(connection: asyncpg.Connection) -> list[str]:
    """Refresh until nothing is due; the views that were."""
    await counted(connection)
    done = []
    while (due := await connection.fetchval(DUE)) is not None:
        assert await connection.fetchval("SELECT feedsvc.refresh($1)", due)
        await counted(connection)
        done.append(due)
    return done


async def after_a_day(connection: asyncpg.Connection) -> list[str]:
    """The views that are refreshed if a day has passed; `every` is a week."""
    await connection.execute(LONG_AGO)
    return await settled(connection)


async def test_what_a_view_reads_makes_its_refresh_due(owner: asyncpg.Connection) -> None:
    assert sorted(await settled(owner)) == [TOTAL, SUMS]
    await after_a_day(owner)  # its own counters came late
    assert await after_a_day(owner) == []
    for statement in (
        "INSERT INTO shop.orders VALUES (1, 1, 5), (2, 1, 6)",
        "UPDATE shop.north SET amount = 7 WHERE id = 1",
        "DELETE FROM shop.orders WHERE id = 2",
        "ALTER TABLE shop.orders ATTACH PARTITION shop.south FOR VALUES IN (2)",
        "TRUNCATE shop.orders",
        "TRUNCATE feedsvc.log_epoch; SELECT feedsvc.log_life()",
    ):
        await owner.execute(statement)
        assert SUMS in await after_a_day(owner), statement
        # One view reads the other one, whose refresh has changed it.
        assert SUMS not in await after_a_day(owner), statement
    await after_a_day(owner)
    await owner.execute("INSERT INTO shop.vendors VALUES (1)")
    assert await after_a_day(owner) == []


async def test_times_are_kept(owner: asyncpg.Connection) -> None:
    await entered(owner, after=6_000)
    await settled(owner)
    await owner.execute("INSERT INTO shop.orders VALUES (1, 1, 5)")
    assert await settled(owner) == []
    ago = "UPDATE feedsvc.refreshes SET refreshed_at = clock_timestamp() - interval '{} s'"
    await owner.execute(ago.format(5_500))
    assert await settled(owner) == []
    await owner.execute(ago.format(6_500))
    await owner.execute("UPDATE feedsvc.refreshes SET seconds = 1_750")
    assert await settled(owner) == []  # a refresh gets a fifth of the time at most
    await owner.execute("UPDATE feedsvc.refreshes SET seconds = 1_500")
    assert SUMS in await settled(owner)
    await owner.execute(ago.format(700_000))
    assert sorted(await settled(owner)) == [TOTAL, SUMS]  # `every`, whether anything has changed


async def test_a_refresh_is_logged_in_its_transaction_and_shows_what_was_there(
    owner: asyncpg.Connection,
) -> None:
    await settled(owner)
    await owner.execute("INSERT INTO shop.orders VALUES (1, 1, 5)")
    before = len(await owner.fetch(LOGGED))
    async with owner.transaction():
        assert await owner.fetchval("SELECT feedsvc.refresh($1)", "shop.sums")
        xid = await owner.fetchval("SELECT pg_current_xact_id()::text")
    assert [tuple(row) for row in (await owner.fetch(LOGGED))[before:]] == [("sums", xid)]
    assert await owner.fetchval("SELECT sum FROM shop.sums") == 5
    with pytest.raises(asyncpg.RaiseError, match=r"no dataset says that shop\.some is refreshed"):
        await owner.execute("SELECT feedsvc.refresh('shop.some')")


class Worker:
    """A worker's part."""

    def __init__(self, url: str, folder: Path | None = None, timeout: float = 600.0) -> None:
        servers = Servers(Database(url=SecretStr(url)))
        settings = Changes(refresh_timeout=timeout)
        self.refresh = ViewRefresh(servers, refreshed_views(declared()), settings, folder)

    async def look(self) -> str | None:
        """Take a turn as if it were due; the fault."""
        turns = self.refresh.turns
        last = turns.last()
        last.due = 0.0
        turns.note(last)
        await self.refresh.look()
        return turns.last().fault


async def views(connection: asyncpg.Connection) -> dict[str, tuple[int, str | None]]:
    rows = await connection.fetch("SELECT relation, failures, fault FROM feedsvc.refreshes")
    return {row["relation"]: (row["failures"], row["fault"]) for row in rows}


async def test_a_worker_refreshes_what_is_due_as_the_services_login(
    owner: asyncpg.Connection, url: str, tmp_path: Path
) -> None:
    one, other = (Worker(as_login(url), tmp_path) for _ in range(2))
    assert one.refresh.pause == 15.0
    one.refresh.pause = 3_600.0  # on a slow machine a look may take as long as a pause
    assert await one.look() is None
    assert await views(owner) == {SUMS: (0, None), TOTAL: (0, None)}
    at = await owner.fetchval("SELECT max(refreshed_at) FROM feedsvc.refreshes")
    await owner.execute(LONG_AGO)
    await other.refresh.look()  # it is not this one's turn
    assert await owner.fetchval("SELECT max(refreshed_at) FROM feedsvc.refreshes") < at


@pgbouncer.needed
async def test_a_pooler_of_transactions_changes_nothing(
    owner: asyncpg.Connection, url: str
) -> None:
    with pgbouncer.pooled_by_transaction(as_login(url)) as through:
        assert await Worker(through).look() is None
    assert await views(owner) == {SUMS: (0, None), TOTAL: (0, None)}


async def test_a_view_that_is_locked_or_hangs_is_left_for_later_and_named(
    owner: asyncpg.Connection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedsvc.changes.view_refresh._LOCK_TIMEOUT", "50ms")
    worker = Worker(as_login(url))
    async with owner.transaction():
        await owner.execute("LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE")
        fault = await worker.look()
    assert fault is not None
    assert "55P03" in fault
    found = await views(owner)
    assert found[SUMS] == (1, "LockNotAvailableError, SQLSTATE 55P03")
    assert found[TOTAL] == (0, None), "one that fails keeps no other one from its refresh"
    await owner.execute("CREATE FUNCTION shop.hangs() RETURNS void RETURN pg_sleep(600)")
    await entered(owner, by="shop.hangs")
    await owner.execute(LONG_AGO)
    hasty = Worker(as_login(url), timeout=2.0)
    fault = await hasty.look()
    assert fault is not None
    assert "57014" in fault
    found = await views(owner)
    assert found[SUMS] == (2, "QueryCanceledError, SQLSTATE 57014")
    assert await owner.fetchval(DUE) is None, "a failure is not tried again at once"
    await entered(owner)
    await owner.execute(LONG_AGO)
    assert await worker.look() is None
    assert await views(owner) == {SUMS: (0, None), TOTAL: (0, None)}


async def test_a_refresh_that_was_killed_is_on_record_and_tried_again_later(
    owner: asyncpg.Connection, url: str
) -> None:
    await owner.execute("CREATE FUNCTION shop.hangs() RETURNS void RETURN pg_sleep(600)")
    await entered(owner, by="shop.hangs")
    worker = Worker(as_login(url))
    looking = asyncio.create_task(worker.look())
    pid = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'SELECT feedsvc.refresh($1)%'"
    )

    async def runs() -> bool:
        return await owner.fetchval(f"{pid} AND wait_event = 'PgSleep'") is not None

    await until(runs, 60)
    assert await owner.fetchval(DUE) is None, "one at a time, of all"
    assert not await owner.fetchval("SELECT feedsvc.refresh('shop.sums')")
    await owner.execute(f"SELECT pg_terminate_backend(({pid} AND state = 'active'))")
    assert "not refreshed" in (await looking or "")
    await entered(owner)
    tried = {name for name, (failures, _) in (await views(owner)).items() if failures == 1}
    assert len(tried) == 1
    assert await settled(owner) == list({SUMS, TOTAL} - tried)
    await owner.execute(LONG_AGO)
    assert tried <= {*await settled(owner)}


async def test_a_view_that_was_due_as_another_session_began_is_refreshed_behind_it(
    owner: asyncpg.Connection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was noted as tried when it was found due, and would count as one that failed."""
    tried = asyncio.Event()
    row = WriteSession.row

    async def noticed(self: WriteSession, sql: str, *values: object) -> asyncpg.Record | None:
        answer = await row(self, sql, *values)
        tried.set()
        return answer

    other = Worker(as_login(url)).refresh
    async with write_session(other._servers, "feedsvc refresh") as session:
        mine, theirs = await owner.fetchval(DUE), await view_refresh._due(session)
        assert theirs is not None
        assert {mine, theirs} == {SUMS, TOTAL}
        monkeypatch.setattr(WriteSession, "row", noticed)
        async with owner.transaction():
            assert await owner.fetchval("SELECT feedsvc.refresh($1)", mine)
            refreshing = asyncio.create_task(other._failure(session, theirs))
            await asyncio.wait_for(tried.wait(), 60)
        assert await asyncio.wait_for(refreshing, 60) is None
    assert await views(owner) == {SUMS: (0, None), TOTAL: (0, None)}


async def test_views_are_entered_and_removed_with_the_triggers(
    owner: asyncpg.Connection,
) -> None:
    plan = await triggers.plan(owner, declared())
    assert plan.refreshes.drift() == {}
    assert await triggers.unlogged(owner, plan) == {}
    async with owner.transaction():
        # It needs no right to what is kept, not even to its schema.
        await owner.execute("SET LOCAL ROLE feedsvc_service")
        assert (await triggers.plan(owner, declared())).refreshes == plan.refreshes
        assert all("usage" not in f.what for f in await refresh_findings(owner, declared()))
    assert await entered(owner) == []
    changed = await triggers.plan(owner, declared(after=5))
    why = "is not refreshed as declared; run `feedsvc migrate triggers`"
    assert await triggers.unlogged(owner, changed) == {
        "sums": f"{SUMS} {why}", "totals": f"{TOTAL} {why}"
    }  # fmt: skip
    assert changed.state == plan.state
    script = changed.sql()
    await owner.execute(script)
    assert (await triggers.plan(owner, declared(after=5))).refreshes.drift() == {}
    without = {"sums": declared()["sums"].model_copy(update={"refreshed": {}})}
    kept_out = await triggers.unlogged(owner, await triggers.plan(owner, without))
    assert kept_out == {"sums": "no trigger can log changes to shop.sums"}
    await triggers.remove(owner)
    assert await views(owner) == {}


async def test_check_names_views_that_can_not_be_refreshed(owner: asyncpg.Connection) -> None:
    assert await refresh_findings(owner, declared()) == []
    await owner.execute("DROP INDEX shop.sums_key")
    await owner.execute(
        "CREATE ROLE view_owner; GRANT ALL ON SCHEMA shop TO view_owner;"
        ' ALTER MATERIALIZED VIEW shop."Total" OWNER TO view_owner;'
        " CREATE ROLE refresher; GRANT ALL ON SCHEMA feedsvc TO refresher;"
        " ALTER FUNCTION feedsvc.refresh(text) OWNER TO refresher"
    )
    try:
        both = await refresh_findings(owner, declared())
        found = {finding.place: finding.what for finding in both}
        assert found.keys() == {"sums.refreshed", "totals.refreshed"}
        assert "has no unique index" in found["sums.refreshed"]
        assert "which is view_owner's" in found["totals.refreshed"]
        by = declared(by="shop.hangs")
        assert await refresh_findings(owner, by) == []
        await owner.execute('DROP MATERIALIZED VIEW shop."Total"')
        (gone,) = await refresh_findings(owner, by)
        assert gone.what == 'there is no shop."Total"'
        plain = {"some": by["sums"].model_copy(update={"refreshed": {"shop.some": Refreshed()}})}
        (no_view,) = await refresh_findings(owner, plain)
        assert no_view.what == "it is no materialized view: shop.some"
    finally:
        await owner.execute(
            "REASSIGN OWNED BY refresher, view_owner TO CURRENT_USER;"
            " DROP OWNED BY refresher, view_owner; DROP ROLE refresher, view_owner"
        )
