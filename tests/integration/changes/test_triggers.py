"""What the triggers tell, held against what was changed, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest

from feedsvc.changes import triggers
from feedsvc.datasets.dataset import Declaration
from feedsvc.datasets.tags import all_under, exactly
from tests.support.servers import copied_postgres

CHANNEL = "feedsvc_changes"
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


@dataclass
class Told:
    """Everything that was told, in order: transaction and items."""

    heard: list[tuple[int, set[str]]] = field(default_factory=list)
    longest: int = 0

    def hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        text = str(payload)
        self.longest = max(self.longest, len(text.encode()))
        xid, *items = text.split(" ")
        self.heard.append((int(xid), set(items)))


@asynccontextmanager
async def telling(connection: asyncpg.Connection) -> AsyncIterator[set[str]]:
    """What the block's statements tell, once it has ended."""
    told, items = Told(), set[str]()
    await connection.add_listener(CHANNEL, told.hear)
    try:
        yield items
        await connection.execute("SELECT 1")
        await asyncio.sleep(0)
        items.update(*(more for _, more in told.heard))
        assert told.longest < 8_000
    finally:
        await connection.remove_listener(CHANNEL, told.hear)


def of_person(owner: str | None, *ids: int) -> set[str]:
    tags = {"people", *(f"person:{i}" for i in ids)} | ({f"people:{owner}"} if owner else set())
    return set(map(exactly, tags))


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(database)
    try:
        await opened.execute(TABLES)
        await triggers.install(opened, await triggers.plan(opened, DECLARED))
        yield opened
    finally:
        await opened.close()


async def test_each_kind_of_write_tells_old_and_new(connection: asyncpg.Connection) -> None:
    async with telling(connection) as told:
        await connection.execute(
            f"INSERT INTO {PERSON} VALUES (1, 'it''s', 'x', 'y'), (2, NULL, NULL, NULL)"
        )
    assert told == of_person("it's", 1, 2)
    async with telling(connection) as told:
        await connection.execute(f"UPDATE {PERSON} SET \"Owner's\" = 'été' WHERE id = 1")
    assert told == of_person("it's", 1) | of_person("été", 1)
    async with telling(connection) as told:
        await connection.execute(
            f"INSERT INTO {PERSON} VALUES (1), (3) ON CONFLICT (id) DO UPDATE SET tag = 'z'"
        )
    assert told == of_person("été", 1, 3)
    async with telling(connection) as told:
        await connection.copy_records_to_table(
            "tag", schema_name="Odd 'Place", records=[(4, "a", None, None)]
        )
    assert told == of_person("a", 4)
    async with telling(connection) as told:
        await connection.execute(f"WITH gone AS (DELETE FROM {PERSON} WHERE id = 4) SELECT 1")
    assert told == of_person("a", 4)
    async with telling(connection) as told:
        await connection.execute(f"TRUNCATE {PERSON}")
    assert told == {all_under("people")}


async def test_what_changes_nothing_tells_nothing(connection: asyncpg.Connection) -> None:
    async with telling(connection) as told:
        await connection.execute(f"DELETE FROM {PERSON}; UPDATE public.stamps SET owner = 'x'")
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"INSERT INTO {PERSON} VALUES (9, 'a')")
        await transaction.rollback()
    assert told == set()


async def test_a_large_write_is_told_of_whole_tenants(connection: asyncpg.Connection) -> None:
    async with telling(connection) as told:
        await connection.execute(
            f"INSERT INTO {PERSON} SELECT i, 'owner ' || i % 3 FROM generate_series(1, 20000) i"
        )
    owners = {f"people:owner {i}" for i in range(3)}
    assert told == {exactly(tag) for tag in owners | {"people"}} | set(map(all_under, owners))
    async with telling(connection) as told:
        await connection.execute(f'UPDATE {PERSON} SET "Owner\'s" = id::text')
    assert told == {exactly("people"), all_under("people")}
    async with telling(connection) as told:
        await connection.execute(f"UPDATE {PERSON} SET tag = 'x' WHERE id <= 900")
    assert told == set().union(*(of_person(str(i), i) for i in range(1, 901)))


async def test_a_view_is_told_of_by_what_is_behind_it(connection: asyncpg.Connection) -> None:
    async with telling(connection) as told:
        await connection.execute("INSERT INTO public.letters VALUES (1, 'a')")
    assert told == {all_under("seen")}
    async with telling(connection) as told:
        await connection.execute("INSERT INTO public.stamps VALUES (1, 'a'), (1, 'b')")
    assert told == {all_under("seen:a"), all_under("seen:b")}


async def test_partitions_tell_however_they_are_written(connection: asyncpg.Connection) -> None:
    expected = {exactly("parts"), exactly("parts:a")}
    for table in ("parts", "parts_1"):
        async with telling(connection) as told:
            await connection.execute(f"INSERT INTO public.{table} VALUES (1, 'a')")
        assert told == expected


async def test_the_transactions_number_is_the_snapshots(connection: asyncpg.Connection) -> None:
    told = Told()
    await connection.add_listener(CHANNEL, told.hear)
    async with connection.transaction():
        xid = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
        async with connection.transaction():  # a savepoint
            await connection.execute(f"INSERT INTO {PERSON} VALUES (1, 'a')")
    await connection.execute("SELECT 1")
    await asyncio.sleep(0)
    assert {number for number, _ in told.heard} == {xid}
    await connection.remove_listener(CHANNEL, told.hear)


async def test_neither_the_writers_session_nor_its_rights_matter(
    connection: asyncpg.Connection,
) -> None:
    role = f"writer_{await connection.fetchval('SELECT pg_backend_pid()')}"
    await connection.execute(
        f'CREATE ROLE {role}; GRANT ALL ON SCHEMA "Odd \'Place" TO {role};'
        f"GRANT ALL ON {PERSON} TO {role}"
    )
    try:
        async with telling(connection) as told, connection.transaction():
            await connection.execute(
                f"SET LOCAL ROLE {role}; SET LOCAL search_path = nowhere;"
                f"SET LOCAL standard_conforming_strings = on; INSERT INTO {PERSON} VALUES (5, 'a')"
            )
        assert told == of_person("a", 5)
        async with telling(connection) as told, connection.transaction():
            await connection.execute(
                f"SET LOCAL session_replication_role = replica; DELETE FROM {PERSON}"
            )
        assert told == of_person("a", 5)
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


DRIFT = {
    f"DROP TRIGGER feedsvc_told_update ON {PERSON}": "people",
    f"ALTER TABLE {PERSON} DISABLE TRIGGER ALL": "people",
    "CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM (100) TO (200)": "parts",
    "DROP TRIGGER feedsvc_told_insert ON public.stamps": "seen",
}


@pytest.mark.parametrize("drift", DRIFT)
async def test_what_is_not_as_it_should_be_is_found_and_mended(
    connection: asyncpg.Connection, drift: str
) -> None:
    assert await triggers.untracked(connection, DECLARED) == {}
    await connection.execute(drift)
    assert set(await triggers.untracked(connection, DECLARED)) == {DRIFT[drift]}
    assert len(await triggers.install(connection, await triggers.plan(connection, DECLARED))) == 1
    assert await triggers.untracked(connection, DECLARED) == {}
    assert await triggers.install(connection, await triggers.plan(connection, DECLARED)) == []


async def test_other_tags_want_other_triggers(connection: asyncpg.Connection) -> None:
    renamed = {**DECLARED, "people": PEOPLE.model_copy(update={"tags": ("folk:{id}",)})}
    found = await triggers.untracked(connection, renamed)
    assert set(found) == {"people"}
    assert "feedsvc migrate triggers" in found["people"]


async def test_merge_tells_of_each_of_its_actions(connection: asyncpg.Connection) -> None:
    await connection.execute(f"INSERT INTO {PERSON} VALUES (1, 'a'), (2, 'b')")
    async with telling(connection) as told:
        await connection.execute(
            f"MERGE INTO {PERSON} p USING (VALUES (1), (2), (3)) AS n (id) ON n.id = p.id "
            "WHEN MATCHED AND n.id = 1 THEN UPDATE SET \"Owner's\" = 'c' "
            "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (n.id, 'd')"
        )
    assert told == of_person("a", 1) | of_person("c", 1) | of_person("b", 2) | of_person("d", 3)


async def test_one_partition_is_told_of_by_those_it_is_part_of(
    connection: asyncpg.Connection,
) -> None:
    """Who writes to a partitioned table fires the triggers of that one alone."""
    await connection.execute(
        "CREATE TABLE public.base (id bigint);"
        "CREATE TABLE public.heir (owner text) INHERITS (public.base);"
        "CREATE VIEW public.part_of_it AS SELECT * FROM public.parts_1"
    )
    part = Declaration(relation="public.parts_1", key=("id",), tenant="owner")
    seen = Declaration(relation="public.part_of_it", key=("id",), tenant="owner")
    heir = Declaration(relation="public.heir", key=("id",), tenant="owner")
    declared = {"part": part, "seen": seen, "heir": heir}
    await triggers.install(connection, await triggers.plan(connection, declared))
    for table in ("parts", "parts_1"):
        async with telling(connection) as told:
            await connection.execute(f"INSERT INTO public.{table} VALUES (1, 'a')")
        assert told == {exactly("part"), exactly("part:a"), all_under("seen")}
    async with telling(connection) as told:
        await connection.execute("INSERT INTO public.heir VALUES (1, 'a')")
    assert told == {exactly("heir"), exactly("heir:a")}
    async with telling(connection) as told:
        await connection.execute("UPDATE public.base SET id = 2")
    assert told == {all_under("heir")}, "the base has no owner to tell of"


async def test_what_a_policy_reads_is_told_of(connection: asyncpg.Connection) -> None:
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
    assert set(plan.tables) == {("public", "letters")}, "no policy is in force"
    await connection.execute("ALTER TABLE public.letters ENABLE ROW LEVEL SECURITY")
    plan = await triggers.plan(connection, letters)
    assert set(plan.tables) == {("public", "letters"), ("public", "members")}
    await triggers.install(connection, plan)
    async with telling(connection) as told:
        await connection.execute("INSERT INTO public.members VALUES ('a', 'b')")
    assert told == {all_under("letters")}


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
    assert "public.f() may read what nobody tells of: say in [d.watch]" in found["d"]
    for watch in ({}, {"public.stamps": ()}):
        said = {"d": Declaration(relation=relation, key=("id",), tenant="owner", watch=watch)}
        plan = await triggers.plan(connection, said)
        assert plan.impossible == {}
        assert (("public", "stamps") in plan.tables) is bool(watch)
    await connection.execute("ALTER FUNCTION public.f(text) IMMUTABLE")
    assert (await triggers.plan(connection, declared)).impossible == {}


async def test_a_watched_row_that_fills_in_no_tag_is_told_of_all_the_same(
    connection: asyncpg.Connection,
) -> None:
    async with telling(connection) as told:
        await connection.execute("INSERT INTO public.stamps VALUES (1, NULL)")
    assert told == {all_under("seen")}
    async with telling(connection) as told:
        await connection.execute("UPDATE public.stamps SET owner = 'b'")
    assert told == {all_under("seen"), all_under("seen:b")}


async def test_a_watched_column_that_writes_its_values_in_its_own_way_tells_of_all(
    connection: asyncpg.Connection,
) -> None:
    """'7.0' is 7, but `seen:7.0` is not `seen:7`."""
    await connection.execute(
        "ALTER TABLE public.stamps ALTER owner TYPE numeric USING owner::numeric"
    )
    await triggers.install(connection, await triggers.plan(connection, DECLARED))
    async with telling(connection) as told:
        await connection.execute("INSERT INTO public.stamps VALUES (1, 7.0)")
    assert told == {all_under("seen")}


async def test_whatever_changes_the_rows_without_a_trigger_shows_in_the_plans_state(
    connection: asyncpg.Connection,
) -> None:
    async def state() -> str:
        return (await triggers.plan(connection, DECLARED)).state

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
        f"ALTER TABLE {PERSON} DISABLE TRIGGER feedsvc_told_insert;"
        f"ALTER TABLE {PERSON} ENABLE ALWAYS TRIGGER feedsvc_told_insert",
        "REVOKE SELECT ON public.letters FROM PUBLIC",
    ):
        await connection.execute(change)
        assert await state() != before, change
        before = await state()


async def test_what_nobody_can_tell_of_is_not_cached(connection: asyncpg.Connection) -> None:
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
    left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'feedsvc_told%'"
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


async def test_a_transaction_that_told_can_not_be_prepared() -> None:
    """docs/cache.md says so; one that changed nothing that is told of still can."""
    settings = {"max_prepared_transactions": "2"}
    with copied_postgres(settings) as server:
        opened = await asyncpg.connect(server.url())
        try:
            await opened.execute(TABLES)
            await triggers.install(opened, await triggers.plan(opened, {"people": PEOPLE}))
            await opened.execute("BEGIN; INSERT INTO public.letters VALUES (1, 'a')")
            await opened.execute("PREPARE TRANSACTION 'silent'")
            await opened.execute("COMMIT PREPARED 'silent'")
            await opened.execute(f"BEGIN; INSERT INTO {PERSON} (id) VALUES (1)")
            with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
                await opened.execute("PREPARE TRANSACTION 'telling'")
        finally:
            await opened.close()
