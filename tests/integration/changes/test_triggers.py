"""Pages that writes put out of date, by way of triggers and log, on a real PostgreSQL."""

from collections.abc import AsyncIterator, Mapping

import asyncpg
import pytest

from feedsvc.cache.items import FollowedFeed, items_of
from feedsvc.changes import triggers
from feedsvc.changes.log_entries import LogEntry
from feedsvc.datasets.dataset import Declaration
from tests.support.log_world import log_rows

PEOPLE = Declaration(
    relation="\"Odd 'Place\".\"tag\"", key=("id",), tenant="Owner's",
    tags=("people", "people:{Owner's}", "person:{id}"),
)  # fmt: skip
SEEN = Declaration(
    relation="public.seen", key=("id",), tenant="owner", tags=("seen:{owner}",),
    watch={"public.stamps": ("seen:{owner}",)},
)  # fmt: skip
PARTS = Declaration(relation="public.parts", key=("id",), tenant="owner")
DECLARED: Mapping[str, Declaration] = {"people": PEOPLE, "seen": SEEN, "parts": PARTS}
TABLES = """
    CREATE SCHEMA "Odd 'Place";
    CREATE TABLE "Odd 'Place"."tag" (id bigint PRIMARY KEY, "Owner's" text, tag text, told text);
    CREATE TABLE public.letters (id bigint PRIMARY KEY, owner text);
    CREATE TABLE public.stamps (letter bigint, owner text);
    CREATE VIEW public.seen AS
        SELECT l.id, l.owner, count(s.*) AS stamps
        FROM public.letters l LEFT JOIN public.stamps s ON s.letter = l.id GROUP BY 1, 2;
    CREATE TABLE public.parts (id bigint, owner text) PARTITION BY RANGE (id);
    CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM (0) TO (100);
"""
PERSON = '"Odd \'Place"."tag"'


def page(name: str, **pinned: object) -> str:
    """A page by its dataset and the values that its rows share."""
    values = " ".join(f"{column}={value}" for column, value in pinned.items())
    return f"{name} {values}"


PAGES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    **{
        page("people", owner=owner, id=number or ""): (
            "people", {"Owner's": owner, **({"id": number} if number else {})}
        )
        for owner in ("it's", "été", "a", "b", "c", "d", "owner 1", "7")
        for number in ("", "1", "2", "3", "4", "5", "900")
    },
    **{page(name, owner=o): (name, {"owner": o}) for name in ("seen", "parts") for o in "ab"},
    **{page("part", owner=o): ("part", {"owner": o}) for o in "ab"},
    **{page("heir", owner=o): ("heir", {"owner": o}) for o in "ab"},
    **{page("letters", owner=o): ("letters", {"owner": o}) for o in "ab"},
}  # fmt: skip


async def put_out(
    connection: asyncpg.Connection,
    *statements: str,
    declared: Mapping[str, Declaration] = DECLARED,
) -> set[str]:
    """The pages that the statements put out of date."""
    await connection.execute("TRUNCATE feedsvc.log")
    for statement in statements:
        await connection.execute(statement)
    rows = await log_rows(connection)
    entries = [LogEntry(r.xid, r.scope, r.feed, r.op, r.tags or b"") for r in rows]
    written = {item for entry in entries for item in items_of(entry)}
    feeds = (await triggers.plan(connection, declared)).log.feeds
    found = set()
    for named, (name, pinned) in PAGES.items():
        if name in feeds:
            followed = FollowedFeed(*feeds[name], "utf-8")
            carried = followed.items(declared[name].templates(name), pinned)
            assert carried is not None
            if not written.isdisjoint(carried):
                found.add(named)
    return found


def of(owner: str, *ids: int) -> set[str]:
    """Pages of people: the owner's, and those of the ids."""
    return {page("people", owner=owner, id=number) for number in ("", *ids)}


def every(name: str, owner: str | None = None) -> set[str]:
    """All pages of a dataset, or of one of its tenants."""
    wanted = {"Owner's": owner} if name == "people" else {"owner": owner}
    return {
        named for named, (of_name, pinned) in PAGES.items()
        if of_name == name and (owner is None or wanted.items() <= pinned.items())
    }  # fmt: skip


@pytest.fixture(scope="module")
async def owner(log_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(log_database)
    yield connection
    await connection.close()


@pytest.fixture
async def connection(owner: asyncpg.Connection) -> asyncpg.Connection:
    """The owner's, with new tables and their triggers."""
    await owner.execute(
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public;"
        'DROP SCHEMA IF EXISTS "Odd \'Place" CASCADE'
    )
    await owner.execute(TABLES)
    await triggers.install(owner, await triggers.plan(owner, DECLARED))
    return owner


async def test_each_kind_of_write_puts_old_and_new_out(connection: asyncpg.Connection) -> None:
    insert = f"INSERT INTO {PERSON} VALUES (1, 'it''s', 'x', 'y'), (2, NULL, NULL, NULL)"
    assert await put_out(connection, insert) == of("it's", 1)
    moved = f"UPDATE {PERSON} SET \"Owner's\" = 'été' WHERE id = 1"
    assert await put_out(connection, moved) == of("it's", 1) | of("été", 1)
    upsert = (
        f"INSERT INTO {PERSON} VALUES (1, 'été'), (3, 'été')"
        " ON CONFLICT (id) DO UPDATE SET tag = 'z'"
    )
    assert await put_out(connection, upsert) == of("été", 1, 3)
    gone = f"WITH gone AS (DELETE FROM {PERSON} WHERE id = 3) SELECT 1"
    assert await put_out(connection, gone) == of("été", 3)
    assert await put_out(connection, f"TRUNCATE {PERSON}") == every("people")


async def test_what_changes_nothing_puts_nothing_out(connection: asyncpg.Connection) -> None:
    assert not await put_out(
        connection,
        f"DELETE FROM {PERSON}; UPDATE public.stamps SET owner = 'x'",
        f"BEGIN; INSERT INTO {PERSON} VALUES (9, 'a'); ROLLBACK",
    )


async def test_a_large_write_puts_whole_tenants_out(connection: asyncpg.Connection) -> None:
    many = (
        f"INSERT INTO {PERSON} SELECT i, 'owner ' || i % 3 FROM generate_series(1, 20000) i;"
        f"INSERT INTO {PERSON} SELECT i, 'owner 1' FROM generate_series(20001, 40000) i"
    )
    out = await put_out(connection, many)
    assert every("people", "owner 1") <= out
    assert not out & every("people", "a")
    few = f"UPDATE {PERSON} SET tag = 'x' WHERE id <= 900"
    assert await put_out(connection, few) >= of("owner 1", 1, 4)


async def test_a_view_is_put_out_by_what_is_behind_it(connection: asyncpg.Connection) -> None:
    letter = "INSERT INTO public.letters VALUES (1, 'a')"
    assert await put_out(connection, letter) == every("seen")
    stamp = "INSERT INTO public.stamps VALUES (1, 'a')"
    assert await put_out(connection, stamp) == every("seen", "a")
    nobody = "INSERT INTO public.stamps VALUES (1, NULL)"
    assert await put_out(connection, nobody) == every("seen")


async def test_a_watched_column_that_writes_its_values_in_its_own_way_puts_all_out(
    connection: asyncpg.Connection,
) -> None:
    """'7.0' is 7, but `seen:7.0` is not `seen:7`."""
    await connection.execute(
        "ALTER TABLE public.stamps ALTER owner TYPE numeric USING owner::numeric"
    )
    await triggers.install(connection, await triggers.plan(connection, DECLARED))
    assert await put_out(connection, "INSERT INTO public.stamps VALUES (1, 7.0)") == every("seen")


async def test_partitions_however_they_are_written(connection: asyncpg.Connection) -> None:
    for table in ("parts", "parts_1"):
        one = f"INSERT INTO public.{table} VALUES (1, 'a')"
        assert await put_out(connection, one) == every("parts", "a")


async def test_a_partition_and_an_heir_by_what_they_are_part_of(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        "CREATE TABLE public.base (id bigint);"
        "CREATE TABLE public.heir (owner text) INHERITS (public.base);"
        "CREATE VIEW public.part_of_it AS SELECT * FROM public.parts_1"
    )
    declared = {
        name: Declaration(relation=f"public.{relation}", key=("id",), tenant="owner")
        for name, relation in (("part", "parts_1"), ("seen", "part_of_it"), ("heir", "heir"))
    }
    await triggers.install(connection, await triggers.plan(connection, declared))
    for table in ("parts", "parts_1"):
        one = f"INSERT INTO public.{table} VALUES (1, 'a')"
        out = await put_out(connection, one, declared=declared)
        assert out == every("part", "a") | every("seen")
    heir = "INSERT INTO public.heir VALUES (1, 'a')"
    assert await put_out(connection, heir, declared=declared) == every("heir", "a")
    base = "UPDATE public.base SET id = 2"
    assert await put_out(connection, base, declared=declared) == every("heir", "a")


async def test_merge_puts_out_each_of_its_actions(connection: asyncpg.Connection) -> None:
    await connection.execute(f"INSERT INTO {PERSON} VALUES (1, 'a'), (2, 'b')")
    merge = (
        f"MERGE INTO {PERSON} p USING (VALUES (1), (2), (3)) AS n (id) ON n.id = p.id "
        "WHEN MATCHED AND n.id = 1 THEN UPDATE SET \"Owner's\" = 'c' "
        "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (n.id, 'd')"
    )
    expected = of("a", 1) | of("c", 1) | of("b", 2) | of("d", 3)
    assert await put_out(connection, merge) == expected


DRIFT = {
    f"ALTER TABLE {PERSON} DISABLE TRIGGER ALL": "people",
    "CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM (100) TO (200)": "parts",
    "ALTER TABLE public.stamps DISABLE TRIGGER USER": "seen",
    "DELETE FROM feedsvc.log_feeds WHERE dataset = 'parts'": "parts",
}


@pytest.mark.parametrize("drift", DRIFT)
async def test_what_is_not_as_it_should_be_is_found_and_mended(
    connection: asyncpg.Connection, drift: str
) -> None:
    assert await triggers.untracked(connection, DECLARED) == {}
    await connection.execute(drift)
    assert set(await triggers.untracked(connection, DECLARED)) == {DRIFT[drift]}
    mended = await triggers.install(connection, await triggers.plan(connection, DECLARED))
    assert mended
    assert await triggers.untracked(connection, DECLARED) == {}
    assert await triggers.install(connection, await triggers.plan(connection, DECLARED)) == []


async def test_other_tags_want_other_triggers(connection: asyncpg.Connection) -> None:
    renamed = {**DECLARED, "people": PEOPLE.model_copy(update={"tags": ("folk:{id}",)})}
    found = await triggers.untracked(connection, renamed)
    assert set(found) == {"people"}
    assert "feedsvc migrate triggers" in found["people"]


async def test_what_a_policy_reads_is_logged(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "CREATE TABLE public.members (owner text, who text);"
        "CREATE VIEW public.active AS SELECT owner FROM public.members;"
        "CREATE POLICY p ON public.letters FOR SELECT USING "
        "  (owner IN (SELECT a.owner FROM public.active a));"
        "CREATE POLICY w ON public.letters FOR INSERT WITH CHECK "
        "  (owner IN (SELECT s.owner FROM public.stamps s))"
    )
    letters = {"letters": Declaration(relation="public.letters", key=("id",), tenant="owner")}
    plan = await triggers.plan(connection, letters)
    assert set(plan.log.tables) == {("public", "letters")}, "no policy is in force"
    await connection.execute("ALTER TABLE public.letters ENABLE ROW LEVEL SECURITY")
    plan = await triggers.plan(connection, letters)
    assert set(plan.log.tables) == {("public", "letters"), ("public", "members")}
    await triggers.install(connection, plan)
    member = "INSERT INTO public.members VALUES ('a', 'b')"
    assert await put_out(connection, member, declared=letters) == every("letters")


FUNCTION = "CREATE FUNCTION public.f(t text) RETURNS boolean {} RETURN t = 'a'"


@pytest.mark.parametrize(
    "calls",
    [
        "CREATE POLICY p ON public.letters USING (public.f(owner));"
        "ALTER TABLE public.letters ENABLE ROW LEVEL SECURITY",
        "CREATE OR REPLACE VIEW public.seen AS SELECT id, owner, 1::bigint AS stamps "
        "FROM public.letters WHERE public.f(owner)",
    ],
    ids=["policy", "view"],
)
async def test_what_a_function_may_read_has_to_be_said(
    connection: asyncpg.Connection, calls: str
) -> None:
    await connection.execute(f"{FUNCTION.format('STABLE')}; {calls}")
    relation = "public.letters" if "POLICY" in calls else "public.seen"
    declared = {"d": Declaration(relation=relation, key=("id",), tenant="owner")}
    found = await triggers.untracked(connection, declared)
    assert "public.f() may read what no trigger logs: say in [d.watch]" in found["d"]
    for watch in ({}, {"public.stamps": ()}):
        said = {"d": Declaration(relation=relation, key=("id",), tenant="owner", watch=watch)}
        plan = await triggers.plan(connection, said)
        assert plan.impossible == {}
        assert (("public", "stamps") in plan.log.tables) is bool(watch)
    await connection.execute("ALTER FUNCTION public.f(text) IMMUTABLE")
    assert (await triggers.plan(connection, declared)).impossible == {}


async def test_whatever_changes_the_rows_without_a_trigger_shows_in_the_plans_state(
    connection: asyncpg.Connection,
) -> None:
    async def state() -> str:
        return (await triggers.plan(connection, DECLARED)).state

    trigger = await connection.fetchval(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = $1::regclass AND tgname LIKE '%insert%'",
        PERSON,
    )
    before = await state()
    await connection.execute(
        f"INSERT INTO {PERSON} VALUES (1, 'a'); CREATE INDEX ON {PERSON} (told);"
        f"TRUNCATE {PERSON}; ANALYZE {PERSON}"
    )
    assert await state() == before
    for change in (
        "CREATE POLICY p ON public.letters USING (true)",
        "ALTER POLICY p ON public.letters USING (false)",
        "ALTER TABLE public.letters ENABLE ROW LEVEL SECURITY",
        "CREATE OR REPLACE VIEW public.seen AS SELECT id, owner, 1::bigint AS stamps "
        "FROM public.letters JOIN public.stamps USING (owner)",
        "ALTER VIEW public.seen SET (security_invoker = true)",
        "ALTER TABLE public.parts DETACH PARTITION public.parts_1",
        f"ALTER TABLE {PERSON} DISABLE TRIGGER {trigger};"
        f"ALTER TABLE {PERSON} ENABLE TRIGGER {trigger}",
        "UPDATE feedsvc.log_feeds SET since = pg_current_snapshot()",
        "REVOKE SELECT ON public.letters FROM PUBLIC",
    ):
        await connection.execute(change)
        assert await state() != before, change
        before = await state()


async def test_what_no_trigger_can_log_is_not_cached(connection: asyncpg.Connection) -> None:
    made = "CREATE MATERIALIZED VIEW public.still AS SELECT * FROM public.letters"
    await connection.execute(made)
    declared = {
        "still": Declaration(relation="public.still", key=("id",), tenant="owner"),
        "gone": Declaration(relation="public.gone", key=("id",), tenant="owner"),
        "odd": PARTS.model_copy(update={"tags": ("odd:{nothing}",)}),
        "off": Declaration(relation="public.gone", key=("id",), tenant="owner", cache=False),
        "typo": SEEN.model_copy(update={"watch": {"public.stmaps": ()}}),
    }
    found = await triggers.untracked(connection, declared)
    assert set(found) == {"still", "gone", "odd", "typo"}
    assert found["typo"] == "there is no public.stmaps"
    assert await triggers.untracked(connection, {}) == {}


async def test_the_printed_script_makes_what_install_makes(connection: asyncpg.Connection) -> None:
    script = (await triggers.plan(connection, DECLARED)).sql()
    await triggers.remove(connection)
    assert set(await triggers.untracked(connection, DECLARED)) == set(DECLARED)
    left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'feedsvc\\_log\\_%'"
    assert await connection.fetchval(left) == 0
    await connection.execute(script)
    await connection.execute(script)
    assert await triggers.untracked(connection, DECLARED) == {}
    await triggers.install(connection, await triggers.plan(connection, {"parts": PARTS}))
    assert await connection.fetchval(left) == 8


async def test_no_name_gets_out_of_the_printed_scripts_comments(
    connection: asyncpg.Connection,
) -> None:
    odd = "odd\nDROP TABLE public.letters; --"
    await connection.execute(
        f'CREATE TABLE public."{odd}" (id int);CREATE MATERIALIZED VIEW public."m{odd}" AS SELECT 1'
    )
    declared = {
        name: Declaration(relation=f'public."{relation}"', key=("id",), shared=True)
        for name, relation in (("table", odd), ("still", f"m{odd}"))
    }
    await connection.execute((await triggers.plan(connection, declared)).sql())
    assert await connection.fetchval("SELECT to_regclass('public.letters')") is not None
    assert set(await triggers.untracked(connection, declared)) == {"still"}


async def test_a_column_that_a_tag_names_goes_after_the_tag(
    connection: asyncpg.Connection,
) -> None:
    """Before it, every write to the table fails; docs/cache.md says so."""
    people = {"people": PEOPLE}
    await triggers.install(connection, await triggers.plan(connection, people))
    await connection.execute(f"""ALTER TABLE {PERSON} DROP COLUMN "Owner's" """)
    write = f"INSERT INTO {PERSON} (id) VALUES (990)"
    with pytest.raises(asyncpg.UndefinedColumnError):
        await connection.execute(write)
    without = PEOPLE.model_copy(update={"tenant": None, "shared": True, "tags": ("person:{id}",)})
    planned = await triggers.plan(connection, {"people": without})
    assert planned.impossible == {}
    await triggers.install(connection, planned)
    assert await connection.execute(write) == "INSERT 0 1"


async def test_notifying_triggers_of_a_former_release_are_removed(
    connection: asyncpg.Connection,
) -> None:
    """They have taken most of a busy table's rate."""
    await connection.execute(f"""
        CREATE FUNCTION feedsvc.told_0123456789abcdef() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_notify('feedsvc_changes', '1 =a'); RETURN NULL; END $$;
        CREATE TRIGGER feedsvc_told_insert AFTER INSERT ON {PERSON}
            FOR EACH STATEMENT EXECUTE FUNCTION feedsvc.told_0123456789abcdef()
    """)
    left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'feedsvc\\_told%'"
    assert await connection.fetchval(left) == 1
    plan = await triggers.plan(connection, DECLARED)
    script = plan.sql()
    async with connection.transaction():
        await connection.execute("SAVEPOINT printed")
        await connection.execute(script.replace("BEGIN;", "", 1).replace("COMMIT;", ""))
        assert await connection.fetchval(left) == 0
        await connection.execute("ROLLBACK TO printed")
    assert await triggers.install(connection, plan) == []
    assert await connection.fetchval(left) == 0


async def test_without_a_log_nothing_is_cached_and_the_remedy_is_named(database: str) -> None:
    opened = await asyncpg.connect(database)
    try:
        await opened.execute(TABLES)
        found = await triggers.untracked(opened, DECLARED)
        assert set(found.values()) == {triggers.NO_LOG}
        assert set(found) == set(DECLARED)
    finally:
        await opened.close()
