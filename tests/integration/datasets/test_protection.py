"""`check`, and the start: no dataset that row-level security does not guard, no login beside it."""

import re
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from feedsvc.datasets import checks
from feedsvc.settings import Audit, Datasets, Settings
from tests.integration.commands.test_check import environment
from tests.integration.conftest import NewDatabase
from tests.support.forked import feedsvc
from tests.support.servers import LOGIN, as_login

OWN = "USING (tenant = (SELECT nullif(current_setting('feedsvc.tenant', true), '')))"
GUARD = "ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
INVOKER = "WITH (security_invoker = true)"

# What is done to a table t (tenant, id), and what `check` says of the relation that is served.
WELL = {
    "a policy for everybody": (f"{GUARD} CREATE POLICY p ON t {OWN}", "t"),
    "a policy for a group of the login's": (
        f"{GUARD} CREATE POLICY p ON t FOR SELECT TO {{group}} {OWN}",
        "t",
    ),
    "an open policy behind a restrictive one": (
        f"{GUARD} CREATE POLICY p ON t USING (true); CREATE POLICY q ON t AS RESTRICTIVE {OWN}",
        "t",
    ),
    "a partitioned table": (
        "DROP TABLE t; CREATE TABLE t (tenant text, id int, PRIMARY KEY (tenant, id))"
        f" PARTITION BY LIST (tenant); {GUARD} CREATE POLICY p ON t {OWN}",
        "t",
    ),
    "a view as its reader": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE VIEW v {INVOKER} AS SELECT * FROM t",
        "v",
    ),
    "a view of a view, beside a table of no tenant's": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE TABLE rates (currency text);"
        f"CREATE VIEW w WITH (security_invoker) AS SELECT * FROM t;"
        f"CREATE VIEW v WITH (security_invoker = on) AS SELECT w.* FROM w LEFT JOIN rates ON true",
        "v",
    ),
    "a materialized view behind one that asks who reads": (
        f"CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE VIEW v {INVOKER} AS"
        " SELECT * FROM m WHERE tenant = current_setting('feedsvc.tenant', true)",
        "v",
    ),
    "a materialized view behind a barrier that asks who reads, as its owner": (
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE TABLE ages (at timestamptz);"
        " CREATE VIEW v WITH (security_barrier) AS SELECT m.*, (SELECT max(at) FROM ages) FROM m"
        " WHERE tenant = current_setting('feedsvc.tenant', true)",
        "v",
    ),
    "a view that writes elsewhere": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE TABLE inbox (tenant text, id int);"
        f"CREATE VIEW v {INVOKER} AS SELECT * FROM t; CREATE RULE r AS ON INSERT TO v"
        " DO INSTEAD INSERT INTO inbox VALUES (new.tenant, new.id)",
        "v",
    ),
    "a materialized view joined to what a policy guards": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE MATERIALIZED VIEW m AS SELECT * FROM t;"
        f"CREATE VIEW v {INVOKER} AS SELECT m.* FROM m JOIN t USING (tenant, id)",
        "v",
    ),
}
FAULTY = {
    "an open policy behind one that restricts nothing": (
        f"{GUARD} CREATE POLICY p ON t USING (true);"
        "CREATE POLICY q ON t AS RESTRICTIVE USING (true)",
        "t",
        "lets every tenant's rows through",
    ),
    "a materialized view behind one that only names the setting": (
        f"CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE VIEW v {INVOKER} AS"
        " SELECT *, 'feedsvc.tenant' AS note FROM m",
        "v",
        "nothing behind",
    ),
    "a materialized view behind no barrier, as its owner": (
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE VIEW v AS"
        " SELECT * FROM m WHERE tenant = current_setting('feedsvc.tenant', true)",
        "v",
        "v reads as its owner",
    ),
    "a table beside a materialized view behind a barrier, as its owner": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE MATERIALIZED VIEW m AS SELECT * FROM t;"
        " CREATE VIEW v WITH (security_barrier) AS SELECT m.* FROM m JOIN t USING (tenant, id)"
        " WHERE tenant = current_setting('feedsvc.tenant', true)",
        "v",
        "v reads as its owner",
    ),
    "no row-level security": ("SELECT", "t", "t has no row-level security: ALTER TABLE"),
    "a policy that is not in force": (
        f"CREATE POLICY p ON t {OWN}",
        "t",
        "t has no row-level security",
    ),
    "no policy": (GUARD, "t", "t has no policy by which the login could read"),
    "a policy for others": (
        f"{GUARD} CREATE POLICY p ON t TO {{stranger}} {OWN}",
        "t",
        "t has no policy by which the login could read",
    ),
    "a policy for writing": (
        f"{GUARD} CREATE POLICY p ON t FOR DELETE {OWN}",
        "t",
        "t has no policy by which the login could read",
    ),
    "a restrictive policy alone": (
        f"{GUARD} CREATE POLICY p ON t AS RESTRICTIVE {OWN}",
        "t",
        "t has no policy by which the login could read",
    ),
    "an open policy": (
        f"{GUARD} CREATE POLICY p ON t USING (true); CREATE POLICY q ON t {OWN}",
        "t",
        "lets every tenant's rows through",
    ),
    "a view as its owner": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE VIEW v AS SELECT * FROM t",
        "v",
        "v reads as its owner, beside row-level security: ALTER VIEW",
    ),
    "a view that was told not to": (
        f"{GUARD} CREATE POLICY p ON t {OWN};"
        "CREATE VIEW v WITH (security_invoker = false) AS SELECT * FROM t",
        "v",
        "v reads as its owner",
    ),
    "a view of a view as its owner": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE VIEW w AS SELECT * FROM t;"
        f"CREATE VIEW v {INVOKER} AS SELECT * FROM w",
        "v",
        "w reads as its owner",
    ),
    "a view of a table without a policy": (
        f"CREATE VIEW v {INVOKER} AS SELECT * FROM t",
        "v",
        "t has no row-level security",
    ),
    "a view that hides an unguarded table beside a guarded one": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE TABLE u (tenant text, id int);"
        f"CREATE VIEW v {INVOKER} AS SELECT t.* FROM t JOIN u USING (tenant, id)",
        "v",
        "u has no row-level security",
    ),
    "a materialized view": (
        f"{GUARD} CREATE POLICY p ON t {OWN}; CREATE MATERIALIZED VIEW v AS SELECT * FROM t",
        "v",
        "v is a materialized view, which row-level security does not bind",
    ),
    "a materialized view behind one that asks nothing": (
        f"CREATE MATERIALIZED VIEW m AS SELECT * FROM t;CREATE VIEW v {INVOKER} AS SELECT * FROM m",
        "v",
        "nothing behind",
    ),
}


# The tests' own login, which every service of this run uses at the same time, is in `group` and
# must never gain anything by it; `role` is who gains, and `between` hands on to it.
ROLES = ("group", "between", "stranger", "role")


class Place:
    """A database of its own, with a table t in a schema of its own, and logins to try."""

    def __init__(self, url: str, admin: asyncpg.Connection, file: Path) -> None:
        self.url, self.admin, self.file = url, admin, file
        suffix = uuid.uuid4().hex
        self.roles = {name: f"{name}_{suffix}" for name in ROLES}

    async def has(self, sql: str) -> None:
        """Run SQL in which each of ROLES stands in braces."""
        await self.admin.execute(sql.format(**self.roles))

    def command(
        self, command: str, login: tuple[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """A command's run on this database."""
        url = as_login(self.url, *login) if login else as_login(self.url)
        return feedsvc(command, env=environment(url, FEEDSVC_DATASETS__FILE=str(self.file)))

    async def findings(self) -> list[str]:
        """The findings that `check` would print, without a process for each."""
        settings = Settings(datasets=Datasets(file=self.file), audit=Audit(enabled=False))
        login = await asyncpg.connect(as_login(self.url))
        try:
            _, found = await checks.inspect(login, settings)
        finally:
            await login.close()
        return [str(finding) for finding in found]

    def serves(self, relation: str, tenant: str = 'tenant = "tenant"') -> None:
        """Declares the relation."""
        self.file.write_text(
            f'[d]\nrelation = "s.{relation}"\nkey = ["id"]\nnot_null = ["id", "tenant"]\n{tenant}\n'
        )


@pytest.fixture
async def place(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[Place]:
    async with new_database() as url:
        admin = await asyncpg.connect(url, server_settings={"search_path": "s"})
        place = Place(url, admin, tmp_path / "own.toml")
        await place.has(
            f"""
            CREATE SCHEMA s; CREATE TABLE t (tenant text, id int, PRIMARY KEY (tenant, id));
            CREATE ROLE {{group}}; CREATE ROLE {{between}}; CREATE ROLE {{stranger}};
            GRANT {{group}} TO {LOGIN};
            CREATE ROLE {{role}} LOGIN PASSWORD 'x';
            GRANT USAGE ON SCHEMA s TO PUBLIC;
            ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO PUBLIC;
            GRANT SELECT ON t TO PUBLIC
            """
        )
        try:
            yield place
        finally:
            # Roles are the whole server's, and what depends on them is this database's.
            await place.has("DROP OWNED BY {group}, {between}, {stranger}, {role}")
            await place.has("DROP ROLE {group}, {between}, {stranger}, {role}")
            await admin.close()


@pytest.mark.parametrize("what", WELL)
async def test_check_lets_what_is_guarded_pass(place: Place, what: str) -> None:
    sql, relation = WELL[what]
    await place.has(sql)
    place.serves(relation)
    found = await place.findings()
    assert not [line for line in found if line.startswith("error")]
    doubted = "materialized view joined" in what
    assert any("make sure that a join does" in line for line in found) is doubted


@pytest.mark.parametrize("what", FAULTY)
async def test_check_finds_what_is_not_guarded(place: Place, what: str) -> None:
    sql, relation, said = FAULTY[what]
    await place.has(sql)
    place.serves(relation)
    errors = [line for line in await place.findings() if line.startswith("error: d.relation: ")]
    assert any(said in line for line in errors), errors
    assert all("docs/row-level-security.md" in line for line in errors)


async def test_a_login_that_could_not_is_let_pass(place: Place) -> None:
    await place.has(f"{GUARD} CREATE POLICY p ON t {OWN}")
    place.serves("t")
    assert place.command("check", (place.roles["role"], "x")).returncode == 0


async def test_large_objects_of_the_logins_own_refuse_no_start(place: Place) -> None:
    """Every login may make one, as a tool that was pointed at the wrong database does."""
    await place.has(f"{GUARD} CREATE POLICY p ON t {OWN}")
    place.serves("t")
    login = await asyncpg.connect(as_login(place.url, place.roles["role"], "x"))
    await login.execute("SELECT lo_create(0)")
    await login.close()
    assert place.command("check", (place.roles["role"], "x")).returncode == 0


async def test_what_is_declared_as_shared_needs_no_policy(place: Place) -> None:
    await place.has("CREATE UNIQUE INDEX ON t (id)")
    place.serves("t", "shared = true")
    assert place.command("check").returncode == 0


READ_BY_NOBODY = {
    "shared, without a policy": (
        f"{GUARD} CREATE UNIQUE INDEX ON t (id)",
        "t",
        "s.t has row-level security and no policy by which the login could read, so it is always",
    ),
    "shared, with a policy for others": (
        f"{GUARD} CREATE UNIQUE INDEX ON t (id); CREATE POLICY p ON t TO {{stranger}} USING (true)",
        "t",
        "s.t has row-level security and no policy",
    ),
    "shared, behind a view": (
        f"{GUARD} CREATE VIEW v {INVOKER} AS SELECT * FROM t",
        "v",
        "s.t has row-level security and no policy",
    ),
    "shared, behind a view whose owner it holds": (
        f"{GUARD} CREATE VIEW v AS SELECT * FROM t;"
        "ALTER VIEW v OWNER TO {stranger}; GRANT SELECT ON t TO {stranger}",
        "v",
        "s.t has row-level security and no policy by which stranger_",
    ),
    "shared, behind another table's policy": (
        f"{GUARD} CREATE TABLE u (tenant text, id int PRIMARY KEY);"
        "ALTER TABLE u ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON u USING (EXISTS (SELECT FROM t WHERE t.id = u.id))",
        "u",
        "s.t has row-level security and no policy",
    ),
    "a table behind a view that may not be read": (
        f"CREATE VIEW v {INVOKER} AS SELECT * FROM t; REVOKE SELECT ON t FROM PUBLIC",
        "v",
        "the login may not read s.t, which is behind s.v",
    ),
    "a column behind a view that may not be read": (
        f"CREATE VIEW v {INVOKER} AS SELECT * FROM t; REVOKE SELECT ON t FROM PUBLIC;"
        "GRANT SELECT (id) ON t TO PUBLIC",
        "v",
        "the login may not read s.t, which is behind s.v",
    ),
    "a table that a view's owner may not read": (
        "CREATE VIEW v AS SELECT * FROM t; ALTER VIEW v OWNER TO {stranger};"
        "REVOKE SELECT ON t FROM PUBLIC",
        "v",
        "the role by which a view reads, may not read s.t, which is behind s.v",
    ),
    "a schema that may not be used": (
        "CREATE UNIQUE INDEX ON t (id); REVOKE USAGE ON SCHEMA s FROM PUBLIC",
        "t",
        "the login may not use the schema s",
    ),
}


@pytest.mark.parametrize("what", READ_BY_NOBODY)
async def test_check_finds_what_would_be_refused_or_empty_for_ever(place: Place, what: str) -> None:
    """Each is mended by the SQL that is printed with it."""
    sql, relation, said = READ_BY_NOBODY[what]
    await place.has(sql)
    place.serves(relation, "shared = true")
    found = await place.findings()
    errors = [line for line in found if line.startswith("error: d.relation: ")]
    assert len(errors) == 1, found
    assert said in errors[0]
    statement = re.search(r"(?:GRANT|CREATE POLICY) .*", errors[0])
    assert statement is not None, errors
    await place.admin.execute(statement[0])
    assert not [line for line in await place.findings() if line.startswith("error")]


READ_BY_ALL = {
    "a view as an owner whom no policy holds": (
        f"{GUARD} CREATE VIEW v AS SELECT * FROM t; REVOKE SELECT ON t FROM PUBLIC",
        "v",
    ),
    "a view of some columns": (
        f"CREATE VIEW v {INVOKER} AS SELECT id FROM t; REVOKE SELECT ON t FROM PUBLIC;"
        "GRANT SELECT (id) ON t TO PUBLIC",
        "v",
    ),
    "a policy that lets all in": (
        f"{GUARD} CREATE UNIQUE INDEX ON t (id); CREATE POLICY p ON t USING (true)",
        "t",
    ),
}


@pytest.mark.parametrize("what", READ_BY_ALL)
async def test_check_lets_what_can_be_read_pass(place: Place, what: str) -> None:
    sql, relation = READ_BY_ALL[what]
    await place.has(sql)
    place.file.write_text(f'[d]\nrelation = "s.{relation}"\nkey = ["id"]\nshared = true\n')
    if relation == "v":
        with place.file.open("a") as file:
            file.write('not_null = ["id"]\n')
    assert not [line for line in await place.findings() if line.startswith("error")]


async def test_the_service_refuses_to_start_on_either(place: Place) -> None:
    place.serves("t")
    done = place.command("serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert "d.relation: s.t has no row-level security" in done.stderr
    await place.has(f"{GUARD} CREATE POLICY p ON t {OWN}; ALTER ROLE {{role}} BYPASSRLS")
    done = place.command("serve", (place.roles["role"], "x"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "has BYPASSRLS" in done.stderr


LOGINS = {
    "a member of who owns something else": (
        "CREATE TABLE u (); ALTER TABLE u OWNER TO {stranger}; GRANT {stranger} TO {role}",
        "owns objects, and an owner is above",
    ),
    "writing the server's files": (
        "GRANT pg_write_server_files TO {role}",
        "reads or writes files",
    ),
    "REPLICATION": ("ALTER ROLE {role} REPLICATION", "has REPLICATION"),
    "CREATEROLE": ("ALTER ROLE {role} CREATEROLE", "has CREATEROLE"),
    "a member of who bypasses": (
        "ALTER ROLE {stranger} BYPASSRLS; GRANT {stranger} TO {between}; GRANT {between} TO {role}",
        "is a member of stranger_",
    ),
    "a member without inheriting": (
        "ALTER ROLE {stranger} BYPASSRLS; ALTER ROLE {role} NOINHERIT; GRANT {stranger} TO {role}",
        "has BYPASSRLS",
    ),
    "a member of a superuser": (
        "ALTER ROLE {stranger} SUPERUSER; GRANT {stranger} TO {role}",
        "is a superuser",
    ),
    "the server's files": ("GRANT pg_read_server_files TO {role}", "reads or writes files"),
    "the server's programs": ("GRANT pg_execute_server_program TO {role}", "or runs programs"),
    "a member of the relation's owner": (
        "ALTER TABLE t OWNER TO {stranger}; GRANT {stranger} TO {role};ALTER ROLE {role} NOINHERIT",
        "or may act as its owner",
    ),
}


@pytest.mark.parametrize("what", LOGINS)
async def test_a_login_that_could_bypass_it_is_refused(place: Place, what: str) -> None:
    sql, said = LOGINS[what]
    await place.has(f"{GUARD} CREATE POLICY p ON t {OWN}")
    place.serves("t")
    await place.has(sql)
    done = place.command("check", (place.roles["role"], "x"))
    assert done.returncode == 1
    assert said in done.stdout
    await place.has("ALTER TABLE t OWNER TO CURRENT_USER")


async def test_a_database_without_the_audit_log_is_warned_of(place: Place) -> None:
    await place.has(f"{GUARD} CREATE POLICY p ON t {OWN}")
    place.serves("t")
    env = environment(as_login(place.url), FEEDSVC_DATASETS__FILE=str(place.file))
    del env["FEEDSVC_AUDIT__ENABLED"]
    done = feedsvc("check", env=env)
    assert done.returncode == 0
    assert "warning: audit.enabled: requests are not audited" in done.stdout
