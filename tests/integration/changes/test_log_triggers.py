"""Log rows of each kind of write, by any role, and the triggers that write them."""

import json
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.changes import log_functions, log_hash, log_triggers, triggers
from feedsvc.changes.log_plan import log_drift
from feedsvc.datasets.dataset import Column, Declaration
from feedsvc.feeds.sql.json_projection import scalar_text
from streams import tokens
from tests.integration.conftest import NewDatabase
from tests.support.log_world import LogRow, LogWorld, everyone_of, install, log_rows
from tests.support.servers import LOG_TEMPLATE

SHOP = """
    DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop;
    CREATE TABLE shop.orders (
        id bigint PRIMARY KEY, tenant text, client bigint, status text, doc json, hidden int
    );
    CREATE TABLE shop.members (tenant text, who text);
    CREATE VIEW shop.seen AS
        SELECT o.id, o.tenant FROM shop.orders o JOIN shop.members m USING (tenant);
    CREATE TABLE shop.parts (id bigint, tenant text, at int) PARTITION BY RANGE (at);
    CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100)
        PARTITION BY RANGE (at);
    CREATE TABLE shop.parts_1_1 PARTITION OF shop.parts_1 FOR VALUES FROM (0) TO (100);
    CREATE TABLE shop.parts_2 PARTITION OF shop.parts FOR VALUES FROM (100) TO (200);
    CREATE TABLE shop.base (id bigint, tenant text);
    CREATE TABLE shop.heir (more int) INHERITS (shop.base);
"""
ORDERS = Declaration(
    relation="shop.orders", key=("id",), tenant="tenant", client="client",
    columns=("id", "status", "doc"), tags=("client:{client}",),
)  # fmt: skip
DECLARED = {
    "orders": ORDERS,
    "seen": Declaration(relation="shop.seen", key=("id",), tenant="tenant",
                        watch={"shop.members": ("seen:{tenant}",)}),
    "parts": Declaration(relation="shop.parts", key=("id",), tenant="tenant"),
    "base": Declaration(relation="shop.base", key=("id",), tenant="tenant"),
}  # fmt: skip


@pytest.fixture(scope="module")
async def shop(log_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The owner's connection to a database with a log."""
    connection = await asyncpg.connect(log_database)
    yield connection
    await connection.close()


@pytest.fixture
async def owner(shop: asyncpg.Connection) -> asyncpg.Connection:
    """The same, with new tables and their triggers, and an empty log."""
    await shop.execute(SHOP)
    await install(shop, DECLARED)
    await shop.execute("TRUNCATE feedsvc.log")
    return shop


async def logged(owner: asyncpg.Connection, dataset: str, *statements: str) -> list[LogRow]:
    """The rows that the statements leave in the log for a dataset."""
    await owner.execute("TRUNCATE feedsvc.log")
    for statement in statements:
        await owner.execute(statement)
    feed = await owner.fetchval("SELECT feed FROM feedsvc.log_feeds WHERE dataset = $1", dataset)
    return [row for row in await log_rows(owner) if row.feed == feed]


async def scopes(owner: asyncpg.Connection, dataset: str) -> dict[int, str | None]:
    """The names of a dataset's scopes, of the tenants that occur."""
    everyone = await everyone_of(owner, dataset)
    named: dict[int, str | None] = {log_hash.scope(t, everyone): t for t in ("a", "b", "c", "ä")}
    return {**named, everyone: "*", log_hash.NO_TENANT: None}


async def entries(
    owner: asyncpg.Connection, dataset: str, *statements: str
) -> set[tuple[str | None, str, str]]:
    """The same as scopes' names, operations and keys."""
    names = await scopes(owner, dataset)
    rows = await logged(owner, dataset, *statements)
    return {(names[r.scope], r.op, key) for r in rows for key in (r.keys or ("",))}


MODES = {"rows": 1 << 40, "statements": -1}


@pytest.fixture(params=MODES)
async def either(
    shop: asyncpg.Connection, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> asyncpg.Connection:
    """The owner, with the triggers of rows alone in use, or with those of statements."""
    monkeypatch.setattr(log_triggers, "FEW_ROWS", MODES[request.param])
    await shop.execute(SHOP)
    await install(shop, DECLARED)
    await shop.execute("TRUNCATE feedsvc.log")
    return shop


INSERT = "INSERT INTO shop.orders VALUES (1, 'a', 7, 'new', '{}', 0)"


async def test_each_kind_of_write(either: asyncpg.Connection) -> None:
    owner = either
    assert await entries(owner, "orders", INSERT) == {("a", "u", "1")}
    shown = "UPDATE shop.orders SET status = 'paid'"
    assert await entries(owner, "orders", shown) == {("a", "u", "1")}
    key = "UPDATE shop.orders SET id = 2"
    assert await entries(owner, "orders", key) == {("a", "u", "2"), ("a", "g", "1")}
    moved = "UPDATE shop.orders SET tenant = 'b'"
    assert await entries(owner, "orders", moved) == {("b", "u", "2"), ("a", "g", "2")}
    none = "UPDATE shop.orders SET tenant = NULL"
    assert await entries(owner, "orders", none) == {(None, "u", "2"), ("b", "g", "2")}
    assert await entries(owner, "orders", "DELETE FROM shop.orders") == {(None, "g", "2")}
    assert await entries(owner, "orders", "TRUNCATE shop.orders") == {("*", "t", "")}
    copied = "COPY shop.orders (id, tenant) FROM PROGRAM 'printf \"5\\ta\\n6\\tb\\n\"'"
    assert await entries(owner, "orders", copied) == {("a", "u", "5"), ("b", "u", "6")}
    values = "INSERT INTO shop.orders VALUES (5, 'a'), (8, 'c')"
    upsert = f"{values} ON CONFLICT (id) DO UPDATE SET client = 9"
    assert await entries(owner, "orders", upsert) == {("a", "u", "5"), ("c", "u", "8")}


async def test_what_changes_nothing_that_is_shown(either: asyncpg.Connection) -> None:
    owner = either
    await owner.execute(INSERT)
    await owner.execute("INSERT INTO shop.orders VALUES (2, NULL, NULL, NULL, '[1]', NULL)")
    for silent in (
        "UPDATE shop.orders SET hidden = 5",
        "UPDATE shop.orders SET status = status, doc = doc",
        "UPDATE shop.orders SET status = 'x' WHERE false",
        "DELETE FROM shop.orders WHERE false",
        "BEGIN; UPDATE shop.orders SET status = 'x'; ROLLBACK",
    ):
        assert await entries(owner, "orders", silent) == set(), silent
    one = "UPDATE shop.orders SET doc = CASE id WHEN 2 THEN '[1] ' ELSE doc::text END::json"
    assert await entries(owner, "orders", one) == {(None, "u", "2")}, (
        "another text of the same JSON"
    )


async def test_tags_and_former_columns(either: asyncpg.Connection) -> None:
    owner = either
    (row,) = await logged(owner, "orders", INSERT)
    assert (row.tags, row.old) == (log_hash.tag("client:7"), None)
    (row,) = await logged(owner, "orders", "UPDATE shop.orders SET client = 8")
    assert row.tags is not None
    assert {row.tags[:4], row.tags[4:]} == {log_hash.tag("client:7"), log_hash.tag("client:8")}
    assert json.loads(row.old or "") == [[7]]
    (row,) = await logged(owner, "orders", "UPDATE shop.orders SET status = 'paid'")
    assert row.tags == log_hash.tag("client:8"), "a tag that stays is there once"
    columns = "SELECT old_columns FROM feedsvc.log_feeds WHERE dataset = 'orders'"
    assert await owner.fetchval(columns) == ["client"]
    (row,) = await logged(owner, "orders", "DELETE FROM shop.orders")
    assert (row.tags, json.loads(row.old or "")) == (log_hash.tag("client:8"), [[8]])


async def test_policies_say_which_former_columns_are_kept(owner: asyncpg.Connection) -> None:
    await owner.execute(
        "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON shop.orders FOR SELECT USING (status <> 'draft' AND tenant = 'a')"
    )
    await install(owner, DECLARED)
    columns = "SELECT old_columns FROM feedsvc.log_feeds WHERE dataset = 'orders'"
    assert await owner.fetchval(columns) == ["status", "client"]
    await owner.execute(INSERT)
    (row,) = await logged(owner, "orders", "UPDATE shop.orders SET status = 'draft'")
    assert json.loads(row.old or "") == [["new", 7]]


async def test_many_rows_share_rows_of_the_log(
    shop: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_functions, "MOST_KEYS", 2_000)
    monkeypatch.setattr(log_triggers, "FEW_ROWS", 100)
    await shop.execute(SHOP)
    await install(shop, DECLARED)
    names = await scopes(shop, "orders")
    many = "INSERT INTO shop.orders SELECT i, 'a', i, 'new' FROM generate_series({}, {}) i"
    rows = await logged(shop, "orders", many.format(1, 1_500))
    packed = [row for row in rows if row.op == "m"]
    assert {key for row in packed for key in row.keys} == {str(i) for i in range(1, 1_501)}
    assert {(names[row.scope], row.tags, row.old) for row in packed} == {("a", None, None)}
    assert len(rows) < 200, "64 keys to a row, and of the first hundred one each"
    rows = await logged(shop, "orders", "DELETE FROM shop.orders WHERE id <= 200")
    gone = [row for row in rows if len(row.keys) > 1]
    assert {row.op for row in gone} == {"g"}
    for row in gone:
        assert json.loads(row.old or "") == [[int(key)] for key in row.keys]
        assert row.tags is not None
        tags = {row.tags[i : i + 4] for i in range(0, len(row.tags), 4)}
        assert tags == {log_hash.tag(f"client:{key}") for key in row.keys}
    rows = await logged(shop, "orders", many.format(3_000, 5_500))
    assert [names[r.scope] for r in rows if r.op == "o"] == ["a"]
    moved = "UPDATE shop.orders SET tenant = 'b'"
    rows = await logged(shop, "orders", moved)
    assert {names[r.scope] for r in rows if r.op == "o"} == {"a", "b"}
    own = "UPDATE shop.orders SET tenant = id::text"
    rows = await logged(shop, "orders", own)
    assert [names[r.scope] for r in rows if r.op == "o"] == ["*"], "more scopes than are named"


async def test_what_is_behind_a_view_concerns_its_tenants(either: asyncpg.Connection) -> None:
    owner = either
    member = "INSERT INTO shop.members VALUES ('a', 'x'), ('b', 'y')"
    assert await entries(owner, "seen", member) == {("a", "w", ""), ("b", "w", "")}
    moved = "UPDATE shop.members SET tenant = 'c' WHERE tenant = 'b'"
    assert await entries(owner, "seen", moved) == {("b", "w", ""), ("c", "w", "")}
    nobody = "INSERT INTO shop.members VALUES (NULL, 'x')"
    assert await entries(owner, "seen", nobody) == {("*", "w", "")}
    assert await entries(owner, "seen", INSERT) == {("*", "w", "")}
    assert await entries(owner, "seen", "TRUNCATE shop.members") == {("*", "w", "")}


async def test_partitions_at_every_level(owner: asyncpg.Connection) -> None:
    for table in ("parts", "parts_1", "parts_1_1"):
        one = f"INSERT INTO shop.{table} VALUES (1, 'a', 5)"
        assert await entries(owner, "parts", one) == {("a", "u", "1")}
        assert await entries(owner, "parts", f"DELETE FROM shop.{table}") == {("a", "g", "1")}
        assert await entries(owner, "parts", f"TRUNCATE shop.{table}") == {("*", "t", "")}
    await owner.execute("INSERT INTO shop.parts VALUES (1, 'a', 5)")
    moved = "UPDATE shop.parts SET at = 150"
    assert await entries(owner, "parts", moved) == {("a", "u", "1"), ("a", "g", "1")}
    new = "CREATE TABLE shop.parts_3 PARTITION OF shop.parts FOR VALUES FROM (200) TO (300)"
    await owner.execute(new)
    one = "INSERT INTO shop.parts VALUES (9, 'b', 250)"
    assert await entries(owner, "parts", one) == {("b", "u", "9")}, "a new partition has copies"


async def test_tables_that_inherit(owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO shop.heir VALUES (1, 'a', 0)")
    update = "UPDATE shop.base SET tenant = 'b'"
    assert await entries(owner, "base", update) == {("b", "u", "1"), ("a", "g", "1")}
    assert await entries(owner, "base", "DELETE FROM shop.heir") == {("b", "g", "1")}


async def test_foreign_keys_that_cascade(either: asyncpg.Connection) -> None:
    owner = either
    await owner.execute(
        "CREATE TABLE shop.clients (id bigint PRIMARY KEY); INSERT INTO shop.clients VALUES (7);"
        "ALTER TABLE shop.orders ADD FOREIGN KEY (client) REFERENCES shop.clients"
        " ON DELETE CASCADE;"
        f"{INSERT}"
    )
    gone = "DELETE FROM shop.clients"
    assert await entries(owner, "orders", gone) == {("a", "g", "1")}


async def test_the_top_transactions_number_is_logged(owner: asyncpg.Connection) -> None:
    # Before it has a number: its own snapshot would not list that among those under way.
    before = Snapshot.parse(await owner.fetchval("SELECT pg_current_snapshot()::text"))
    async with owner.transaction():
        xid = await owner.fetchval("SELECT pg_current_xact_id()::text::bigint")
        async with owner.transaction():
            await owner.execute(INSERT)
    assert {row.xid for row in await log_rows(owner)} == {xid}
    assert not before.sees(xid)


async def test_a_writer_needs_no_right_and_can_lend_no_name(either: asyncpg.Connection) -> None:
    """Functions, operators and types of the writer's own are not those of the triggers."""
    owner = either
    await owner.execute(
        "CREATE ROLE log_writer; GRANT ALL ON SCHEMA shop TO log_writer;"
        "GRANT ALL ON shop.orders TO log_writer; CREATE SCHEMA evil AUTHORIZATION log_writer;"
    )
    try:
        async with owner.transaction():
            both = "LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.caught"
            made = "; ".join(f"CREATE OPERATOR evil.{name} ({both})" for name in ("=", "<=", ">"))
            await owner.execute(
                """
                SET LOCAL ROLE log_writer;
                CREATE FUNCTION evil.caught(anyelement, anyelement) RETURNS boolean LANGUAGE plpgsql
                    AS $$ BEGIN RAISE EXCEPTION 'caught as %', current_user; END $$;
                CREATE FUNCTION evil.caught(bigint, bigint) RETURNS boolean LANGUAGE plpgsql
                    AS $$ BEGIN RAISE EXCEPTION 'caught as %', current_user; END $$;
                OPERATORS
                CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
                CREATE FUNCTION evil.hashtext(text) RETURNS int RETURN 1 / 0;
                CREATE DOMAIN evil.text AS int; CREATE DOMAIN evil.int8 AS bit;
                CREATE DOMAIN evil.bytea AS int;
                CREATE TEMP TABLE new_rows (oops int); CREATE TEMP TABLE log (oops int);
                SET LOCAL search_path = evil, pg_temp, pg_catalog;
                SET LOCAL datestyle = 'SQL, DMY'; SET LOCAL standard_conforming_strings = off;
            """.replace("OPERATORS", f"{made};")
            )
            await owner.execute(INSERT)
            await owner.execute("UPDATE shop.orders SET id = 2, tenant = 'b'")
            await owner.execute("DELETE FROM shop.orders")
            await owner.execute("RESET ROLE; SET LOCAL search_path = pg_catalog")
            rows = await log_rows(owner)
            assert sorted((r.op, *r.keys) for r in rows if r.op != "w") == [
                ("g", "1"), ("g", "2"), ("u", "1"), ("u", "2"),
            ]  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with owner.transaction():
                    await owner.execute(
                        "SET LOCAL ROLE log_writer; CREATE TABLE evil.t (LIKE shop.orders);"
                        "CREATE TRIGGER t AFTER INSERT ON evil.t FOR EACH ROW EXECUTE FUNCTION "
                        f"feedsvc.{await a_function(owner)}()"
                    )
    finally:
        await owner.execute("DROP OWNED BY log_writer CASCADE; DROP ROLE log_writer")


async def a_function(owner: asyncpg.Connection) -> str:
    named = "SELECT proname FROM pg_proc WHERE proname LIKE 'logs\\_%\\_insert' LIMIT 1"
    return str(await owner.fetchval(named))


KEYS: Sequence[tuple[str, Sequence[str]]] = [
    ("bigint", ("1", "-5")), ("uuid", ("7d3c2a52-4c0e-4b34-8a0a-0e4c0a9c7a01",)),
    ("text", ("", "a b", "ä,%", "A-z_.~", "\\x'\"", "\n")), ("numeric", ("1.50", "-0.001", "NaN")),
    ("date", ("2026-05-30", "0044-03-15 BC", "infinity")), ("boolean", ("true", "false")),
    ("timestamptz", ("2026-05-30 17:30:00.25+02", "infinity", "0044-03-15 12:00+00 BC")),
    ("timestamp", ("2026-05-30 17:30:00.25", "294276-12-31 23:59:59")),
    ("double precision", ("0.1", "1e300", "NaN", "-Infinity")), ("real", ("0.1",)),
    ("time", ("17:30",)), ("interval", ("1 day 2 hours",)), ("bytea", ("\\x00ff",)),
    ("inet", ("192.0.2.1/24",)), ("shop.mood", ("so so",)), ("varchar(9)", ("a/b",)),
    ("char(4)", ("ab",)), ("text[]", ('{a,"b c"}',)), ("money", ("1.5",)), ("oid", ("7",)),
]  # fmt: skip


@pytest.mark.parametrize("few", MODES.values(), ids=MODES)
async def test_keys_are_the_feeds_tokens_whatever_the_writers_settings(
    shop: asyncpg.Connection, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_triggers, "FEW_ROWS", few)
    made = ["DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop",
            "CREATE TYPE shop.mood AS ENUM ('so so')"]  # fmt: skip
    made += [
        f"CREATE TABLE shop.k{i} (k {kind} NOT NULL, tenant text, n int DEFAULT 5 NOT NULL)"
        for i, (kind, _) in enumerate(KEYS)
    ]
    await shop.execute("; ".join(made))
    declared = {
        f"k{i}": Declaration(relation=f"shop.k{i}", key=("k", "n"), tenant="tenant")
        for i in range(len(KEYS))
    }
    await install(shop, declared)
    odd = (
        "SET datestyle = 'German'; SET timezone = 'Asia/Tokyo'; SET extra_float_digits = -9;"
        "SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'"
    )
    for i, (kind, values) in enumerate(KEYS):
        listed = ", ".join(f"($v${value}$v$)" for value in values)
        insert = f"{odd}; INSERT INTO shop.k{i} (k) VALUES {listed}; RESET ALL"
        rows = await logged(shop, f"k{i}", insert)
        named = await shop.fetchrow(
            "SELECT typname::text, typcategory::text FROM pg_type WHERE oid = $1::text::regtype",
            kind,
        )
        assert named is not None
        column = Column("k", kind, False, "", *named)
        await shop.execute("SET timezone = 'UTC'")
        texts = await shop.fetch(f"SELECT {scalar_text(column)} FROM shop.k{i} AS t")
        expected = {tokens.encode((row[0], "5")) for row in texts}
        assert {key for row in rows for key in row.keys} == expected, kind


async def test_triggers_come_and_go_with_the_file(owner: asyncpg.Connection) -> None:
    planned = await triggers.plan(owner, DECLARED)
    assert await log_drift(owner, planned.log) == {}
    assert await install(owner, DECLARED) == []
    since = await owner.fetch("SELECT feed, since::text FROM feedsvc.log_feeds ORDER BY 1")
    await owner.execute("SELECT pg_current_xact_id()")
    assert await install(owner, DECLARED) == []
    assert await owner.fetch("SELECT feed, since::text FROM feedsvc.log_feeds ORDER BY 1") == since
    mark = planned.log.tables["shop", "orders"].mark
    for drift in (
        "ALTER TABLE shop.orders DISABLE TRIGGER USER",
        "ALTER TABLE shop.orders ENABLE TRIGGER USER",
        f"DROP TRIGGER feedsvc_log_update_many_{mark} ON shop.orders",
        "ALTER TABLE shop.parts_1_1 DISABLE TRIGGER ALL",
        "CREATE TABLE shop.parts_4 PARTITION OF shop.parts FOR VALUES FROM (400) TO (500)",
        "ALTER TABLE shop.orders ADD more int; DROP TABLE shop.heir",
    ):
        await owner.execute(drift)
        found = await log_drift(owner, (await triggers.plan(owner, DECLARED)).log)
        assert found, drift
        assert "run `feedsvc migrate triggers`" in next(iter(found.values()))
        assert await install(owner, DECLARED) != []
        assert await log_drift(owner, (await triggers.plan(owner, DECLARED)).log) == {}, drift
    few = {"orders": ORDERS}
    await install(owner, few)
    left = (
        "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'feedsvc\\_log%'"
    )
    assert [row[0] for row in await owner.fetch(left)] == ["shop.orders"]
    script = (await triggers.plan(owner, DECLARED)).sql()
    await triggers.remove(owner)
    assert await owner.fetch(left) == []
    assert await owner.fetchval("SELECT count(*) FROM pg_proc WHERE proname LIKE 'logs\\_%'") == 0
    assert await owner.fetchval("SELECT count(*) FROM feedsvc.log_feeds") == 0
    for _ in range(2):
        await owner.execute(script)
    assert await log_drift(owner, (await triggers.plan(owner, DECLARED)).log) == {}
    await triggers.remove(owner)


async def test_a_feed_is_logged_since_its_triggers_are_there(
    owner: asyncpg.Connection, new_database: NewDatabase
) -> None:
    before = Snapshot.parse(await owner.fetchval("SELECT pg_current_snapshot()::text"))
    await owner.execute(INSERT)
    changed = {**DECLARED, "orders": ORDERS.model_copy(update={"tags": ("x:{status}",)})}
    await install(owner, changed)
    text = await owner.fetchval(
        "SELECT since::text FROM feedsvc.log_feeds WHERE dataset = 'orders'"
    )
    assert not before.covers(Snapshot.parse(text))
    after = Snapshot.parse(await owner.fetchval("SELECT pg_current_snapshot()::text"))
    assert after.covers(Snapshot.parse(text))
    async with new_database(LOG_TEMPLATE) as url:
        other = await asyncpg.connect(url)
        try:
            role = f"log_owner_{await other.fetchval('SELECT pg_backend_pid()')}"
            await other.execute(
                f"CREATE ROLE {role}; CREATE SCHEMA shop AUTHORIZATION {role};"
                f"GRANT ALL ON SCHEMA feedsvc TO {role}; GRANT ALL ON feedsvc.log_feeds TO {role};"
                f"SET ROLE {role}; CREATE TABLE shop.orders (id bigint, tenant text)"
            )
            declared = {"o": Declaration(relation="shop.orders", key=("id",), tenant="tenant")}
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"feedsvc\.log"):
                await install(other, declared)
            await other.execute(f"RESET ROLE; DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
        finally:
            await other.close()


async def test_names_that_the_functions_use_themselves(owner: asyncpg.Connection) -> None:
    for seed in range(10):
        world = LogWorld.drawn(seed, f"odd-{seed}")
        async with owner.transaction():
            await owner.execute(world.ddl())
            await install(owner, world.declared)
            await owner.execute(f"INSERT INTO {world.table} VALUES (1, 'x', 'a', 3, '{{}}', 0)")
            await owner.execute(f"UPDATE {world.table} SET {world.tenant} = 'b'")
            rows = [row for row in await log_rows(owner) if row.keys == ("1,x",)]
            assert len(rows) == 3, world
            await owner.execute(f"DROP TABLE {world.table} CASCADE; TRUNCATE feedsvc.log")
