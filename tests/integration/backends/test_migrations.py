"""Both lines of migrations on an empty database, and what they leave alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from feedsvc.backends.postgres.migrations import session
from feedsvc.backends.postgres.migrations.errors import MigrationBusyError, UnknownRevisionError
from feedsvc.backends.postgres.migrations.lines import TERRITORIES, MigrationLine
from feedsvc.backends.postgres.migrations.revisions import revisions
from feedsvc.backends.postgres.migrations.runner import down, status, up, verify
from tests.support.drawn import DRAWN, share
from tests.support.servers import connected

if TYPE_CHECKING:
    pass

LINES: tuple[MigrationLine, ...] = ("service", "wedding")

# Whatever belongs to nobody's extension or to PostgreSQL itself.
OBJECTS = """
    SELECT pg_describe_object(classid, objid, 0) || coalesce(' of ' || nspname, '') AS object
    FROM (SELECT 'pg_class'::regclass AS classid, oid AS objid, relnamespace FROM pg_class
          UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type
          UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc
          UNION ALL SELECT 'pg_namespace'::regclass, oid, oid FROM pg_namespace) AS o
    JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname !~ '^(pg_|information_schema$)'
    ORDER BY object
"""


async def execute(dsn: str, sql: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute(sql)


async def objects(dsn: str) -> list[str]:
    async with connected(dsn) as connection:
        return [row["object"] for row in await connection.fetch(OBJECTS)]


@pytest.mark.parametrize("line", LINES)
async def test_up_down_and_up_again(database: str, line: MigrationLine) -> None:
    empty = await objects(database)
    before = await status(database, line)
    assert before.current is None
    assert before.pending[-1] == before.head
    assert await verify(database, line) == [f"no revision applied, the head is {before.head}"]

    after = await up(database, line)
    assert (after.current, after.pending) == (after.head, ())
    full = await objects(database)
    assert await verify(database, line) == []

    assert await down(database, line) == before
    assert await objects(database) == empty
    assert await up(database, line) == await status(database, line) == after
    assert await objects(database) == full


@pytest.mark.parametrize("line", LINES)
async def test_up_and_down_say_nothing_when_there_is_nothing_to_do(
    database: str, line: MigrationLine
) -> None:
    empty = await objects(database)
    await down(database, line)
    assert await objects(database) == empty
    assert await up(database, line) == await up(database, line)


@pytest.mark.parametrize("line", LINES)
async def test_several_at_once_do_not_collide(database: str, line: MigrationLine) -> None:
    answers = await asyncio.gather(*(up(database, line) for _ in range(4)))
    assert {answer.current for answer in answers} == {answers[0].head}
    assert await verify(database, line) == []


async def test_both_lines_at_once(database: str) -> None:
    await asyncio.gather(*(up(database, line) for line in LINES))
    assert [await verify(database, line) for line in LINES] == [[], []]


async def test_waiting_for_another_ends_at_the_deadline(database: str) -> None:
    async with connected(database) as other:
        await other.execute("SELECT pg_advisory_lock($1)", TERRITORIES["service"].lock)
        with pytest.raises(MigrationBusyError):
            await up(database, "service", wait=0.2)
    assert (await up(database, "service")).pending == ()


@DRAWN
async def test_databases_of_one_server_share_roles_without_collision(own_server: str) -> None:
    names = [f"shared_{number}" for number in range(4)]
    for name in names:
        await execute(own_server, f"CREATE DATABASE {name}")
    dsns = [f"{own_server.rpartition('/')[0]}/{name}" for name in names]

    async def cycle(dsn: str, line: MigrationLine) -> None:
        for _ in range(share(8, 8)):
            await up(dsn, line)
            assert await verify(dsn, line) == []
            await down(dsn, line)

    await asyncio.gather(*(cycle(dsn, line) for dsn in dsns for line in LINES))

    async with connected(own_server) as connection:
        roles = "SELECT rolname FROM pg_roles WHERE rolname = ANY ($1) ORDER BY rolname"
        ours = [territory.role for territory in TERRITORIES.values()]
        assert await connection.fetch(roles, ours) == []
        await up(dsns[0], "service")
        await up(dsns[1], "service")
        await down(dsns[0], "service")
        assert len(await connection.fetch(roles, ours)) == 1, (
            "the other database still grants to it"
        )
        await down(dsns[1], "service")
        assert await connection.fetch(roles, ours) == []
        await connection.execute("CREATE ROLE feedsvc_service NOLOGIN")
        await up(dsns[0], "service")
        await down(dsns[0], "service")
        assert len(await connection.fetch(roles, ours)) == 1, "an operator made it"


async def test_a_role_that_another_database_is_granting_to_stays(
    own_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOCK_MS", 200)
    await execute(own_server, "CREATE DATABASE reverted")
    reverted = f"{own_server.rpartition('/')[0]}/reverted"
    await up(reverted, "service")
    role = TERRITORIES["service"].role
    async with connected(own_server) as other, other.transaction():
        await other.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
        assert (await down(reverted, "service")).current is None
    async with connected(own_server) as connection:
        assert await connection.fetchval("SELECT to_regrole($1) IS NOT NULL", role)
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_service_leaves_what_is_the_operators_alone(database: str) -> None:
    await execute(
        database,
        """
        CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
        CREATE TABLE public.alembic_version (version_num text); CREATE SCHEMA feedsvc;
        INSERT INTO public.alembic_version VALUES ('theirs');
        CREATE VIEW feedsvc.own AS SELECT 1 AS one;
        """,
    )
    theirs = await objects(database)
    await up(database, "service")
    assert set(theirs) < set(await objects(database))
    await down(database, "service")
    assert await objects(database) == theirs
    async with connected(database) as connection:
        assert await connection.fetchval("TABLE public.alembic_version") == "theirs"
        granted = "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'feedsvc'"
        assert "feedsvc_service" not in (await connection.fetchval(granted) or "")


async def test_a_schema_that_others_use_stays(database: str) -> None:
    await up(database, "service")
    await execute(database, "CREATE TABLE feedsvc.theirs (id int)")
    await down(database, "service")
    assert "table feedsvc.theirs of feedsvc" in await objects(database)


async def test_the_services_login_uses_tickets_and_owns_nothing(database: str) -> None:
    await up(database, "service")
    async with connected(database) as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE feedsvc_service")
        await connection.execute(
            "INSERT INTO feedsvc.tickets VALUES (sha256('t'), '/v1/feeds/x', '{}', now())"
        )
        used = "DELETE FROM feedsvc.tickets WHERE id = sha256('t') RETURNING path"
        assert await connection.fetchval(used) == "/v1/feeds/x"
        assert await connection.fetchval("SELECT version_num FROM feedsvc.alembic_version")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE feedsvc.mine (id int)")


async def test_verify_finds_what_is_wrong(database: str) -> None:
    await up(database, "wedding")
    await execute(
        database,
        """
        CREATE TABLE wedding.forgotten (id int);
        CREATE TABLE wedding.half (id int); ALTER TABLE wedding.half ENABLE ROW LEVEL SECURITY;
        CREATE INDEX broken ON wedding.half (id);
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'wedding.broken'::regclass;
        """,
    )
    *_, before, head = revisions(TERRITORIES["wedding"])
    await execute(database, f"UPDATE wedding.alembic_version SET version_num = '{before.number}'")
    assert await verify(database, "wedding") == [
        f"revision {head.number} is pending",
        "index wedding.broken on wedding.half is invalid: DROP INDEX it and build it again",
        "table wedding.forgotten has no policy for wedding_reader",
        "table wedding.forgotten has no row-level security",
        "table wedding.half does not force row-level security on its owner",
        "table wedding.half has no policy for wedding_reader",
    ]


async def test_up_goes_on_where_an_older_release_has_stopped(database: str) -> None:
    await up(database, "service")
    full = await objects(database)
    later = revisions(TERRITORIES["service"])[4:]
    for revision in reversed(later):
        await execute(database, revision.down.read_text())
    await execute(database, "UPDATE feedsvc.alembic_version SET version_num = '0004'")
    assert (await status(database, "service")).pending == tuple(
        revision.number for revision in later
    )
    await up(database, "service")
    assert await objects(database) == full
    assert await verify(database, "service") == []


def test_each_revision_has_both_of_its_files_and_a_number_of_its_own() -> None:
    for territory in TERRITORIES.values():
        known = revisions(territory)
        assert [revision.number for revision in known] == [f"{n + 1:04}" for n in range(len(known))]
        assert all(revision.up.is_file() and revision.down.is_file() for revision in known)
        assert len([*(territory.folder / "versions").glob("*.sql")]) == 2 * len(known)


async def test_a_newer_releases_database_is_refused(database: str) -> None:
    await up(database, "service")
    await execute(database, "UPDATE feedsvc.alembic_version SET version_num = '9999'")
    with pytest.raises(UnknownRevisionError, match="9999"):
        await up(database, "service")
    with pytest.raises(UnknownRevisionError, match="9999"):
        await status(database, "service")
    assert "9999" in (await verify(database, "service"))[0]


async def test_a_revision_that_fails_leaves_nothing_behind(database: str) -> None:
    await execute(database, "CREATE SCHEMA wedding; CREATE TABLE wedding.tasks (id int)")
    before = await objects(database)
    with pytest.raises(asyncpg.DuplicateTableError):
        await up(database, "wedding")
    assert [o for o in await objects(database) if "alembic_version" not in o] == before
    assert (await status(database, "wedding")).current is None
