"""`check` says how to mend what it refuses: SQL that runs as it is printed, in one run for all."""

import io
import os
import re
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

import asyncpg
import pytest

from feedsvc.commands.check import write_report
from tests.integration.commands.test_check import environment, pasted
from tests.integration.conftest import NewDatabase
from tests.support.forked import feedsvc
from tests.support.servers import as_login
from tests.support.service import REPOSITORY

OWN = "USING (tenant = (SELECT nullif(current_setting('feedsvc.tenant', true), '')))"
SCHEMA = f"""
    CREATE SCHEMA "Shop";
    CREATE TABLE "Shop".goods (tenant text NOT NULL, id int NOT NULL, "Code" text NOT NULL);
    CREATE TABLE "Shop".parted (tenant text NOT NULL, id int NOT NULL, at date NOT NULL)
        PARTITION BY RANGE (at);
    CREATE TABLE "Shop".parts PARTITION OF "Shop".parted
        FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY HASH (id);
    CREATE TABLE "Shop".by_tenant (tenant text NOT NULL, id int NOT NULL)
        PARTITION BY LIST (tenant);
    CREATE TABLE "Shop".odd (tenant text NOT NULL, id int NOT NULL) PARTITION BY LIST (lower(tenant));
    CREATE TABLE "Shop".keyed (tenant text, id int, PRIMARY KEY (tenant, id));
    ALTER TABLE "Shop".goods ENABLE ROW LEVEL SECURITY;
    ALTER TABLE "Shop".parted ENABLE ROW LEVEL SECURITY;
    ALTER TABLE "Shop".by_tenant ENABLE ROW LEVEL SECURITY;
    ALTER TABLE "Shop".odd ENABLE ROW LEVEL SECURITY;
    ALTER TABLE "Shop".keyed ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON "Shop".goods {OWN}; CREATE POLICY own ON "Shop".parted {OWN};
    CREATE POLICY own ON "Shop".by_tenant {OWN}; CREATE POLICY own ON "Shop".odd {OWN};
    CREATE POLICY own ON "Shop".keyed {OWN};
    CREATE VIEW "Shop".twins WITH (security_invoker = true) AS
        SELECT k.* FROM "Shop".keyed k, generate_series(1, 2);
    CREATE VIEW "Shop".single WITH (security_invoker = true) AS SELECT * FROM "Shop".keyed;
    CREATE TABLE "Shop".rates (id int PRIMARY KEY, currency text, "apiKey" text, pwd_hash text);
    INSERT INTO "Shop".keyed SELECT t, n FROM unnest('{{acme,other}}'::text[]) t, generate_series(1, 9) n;
"""  # noqa: E501
GOODS = '[goods]\nrelation = "\\"Shop\\".goods"\nkey = ["id"]\ntenant = "tenant"\ncache = false\n'


class Shop:
    """A database of its own, a login for the service, and a datasets file."""

    def __init__(self, url: str, role: str, file: Path) -> None:
        self.url, self.role, self.file = url, role, file

    def check(
        self, toml: str, *tenants: str, url: str | None = None, **variables: str
    ) -> tuple[int, str]:
        """The exit status and output of `check` on these datasets, without a process for it."""
        self.file.write_text(toml)
        login = url or as_login(self.url, self.role, "x")
        env = environment(login, FEEDSVC_DATASETS__FILE=str(self.file), **variables)
        lines: list[str] = []
        errors = io.StringIO()
        with (
            mock.patch.dict(os.environ, env, clear=True),
            redirect_stderr(errors),
            # The loop of this thread belongs to the tests.
            ThreadPoolExecutor(1) as thread,
        ):
            config = REPOSITORY / "config" / "feedsvc.toml"
            well = thread.submit(write_report, config, tenants, lines.append).result()
        return int(not well), "".join(f"{line}\n" for line in lines) + errors.getvalue()

    async def has(self, sql: str) -> None:
        connection = await asyncpg.connect(self.url)
        await connection.execute(sql.format(role=self.role))
        await connection.close()


@pytest.fixture
async def shop(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[Shop]:
    async with new_database() as url:
        shop = Shop(url, f"shop_{uuid.uuid4().hex}", tmp_path / "own.toml")
        connection = await asyncpg.connect(url)
        await connection.execute(SCHEMA)
        await connection.execute(f"CREATE ROLE {shop.role} LOGIN PASSWORD 'x'")
        try:
            yield shop
        finally:
            await connection.execute(f"DROP OWNED BY {shop.role}; DROP ROLE {shop.role}")
            await connection.close()


ALL = (
    'GRANT USAGE ON SCHEMA "Shop" TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA "Shop" TO {role}'
)


def declared(name: str, key: str = '["id"]', more: str = 'tenant = "tenant"') -> str:
    return f'[{name}]\nrelation = "\\"Shop\\".{name}"\nkey = {key}\ncache = false\n{more}\n'


async def test_grants_are_printed_and_may_be_pasted(shop: Shop) -> None:
    await shop.has('CREATE UNIQUE INDEX ON "Shop".goods (tenant, id)')
    status, said = shop.check(GOODS)
    assert status == 1
    assert f'  GRANT USAGE ON SCHEMA "Shop" TO {shop.role};' in said.splitlines()
    assert f'  GRANT SELECT ON "Shop".goods TO {shop.role};' in said.splitlines()
    await pasted(shop.url, said)
    assert shop.check(GOODS) == (0, "1 dataset can be served\n")


async def test_a_column_that_may_not_be_read_is_granted_by_name(shop: Shop) -> None:
    await shop.has(
        'CREATE UNIQUE INDEX ON "Shop".goods (tenant, id); GRANT USAGE ON SCHEMA "Shop" TO {role};'
        'GRANT SELECT (tenant, id) ON "Shop".goods TO {role}'
    )
    toml = GOODS + 'columns = ["id", "Code"]\n'
    status, said = shop.check(toml)
    assert (status, said.count("GRANT")) == (1, 1)
    await pasted(shop.url, said)
    assert shop.check(toml)[0] == 0


@pytest.mark.parametrize(
    ("name", "key", "mended"),
    [
        ("goods", '["Code"]', '["Code"]'),
        ("by_tenant", '["id"]', '["id"]'),
        ("parted", '["id"]', '["id", "at"]'),
        ("parted", '["at"]', '["at", "id"]'),
    ],
)
async def test_a_unique_index_is_suggested_with_the_partitions_column(
    shop: Shop, name: str, key: str, mended: str
) -> None:
    """At any depth, and where the key lacks such a column the key that has it."""
    await shop.has(ALL)
    status, said = shop.check(declared(name, key))
    assert status == 1
    assert said.count("CREATE") == 1, "the index that proves the key serves its order"
    if key != mended:
        assert f"write key = {mended}" in said
    await pasted(shop.url, said)
    assert shop.check(declared(name, mended)) == (0, "1 dataset can be served\n")


async def test_no_index_is_suggested_where_none_can_be_made(shop: Shop) -> None:
    await shop.has(ALL)
    status, said = shop.check(declared("odd"))
    assert (status, "CREATE" in said) == (1, False)
    assert "partitioned by an expression" in said


async def test_a_superuser_gets_the_sql_of_a_login_that_will_do(shop: Shop) -> None:
    toml = declared("keyed") + declared("single", more='tenant = "tenant"\nnot_null = ["id"]')
    status, said = shop.check(toml, url=shop.url)
    assert status == 1
    assert "is a superuser" in said
    made = re.search(r"  CREATE ROLE (\S+) LOGIN PASSWORD '([\w-]{32})';", said)
    assert made is not None, said
    try:
        await pasted(shop.url, said)
        login = as_login(shop.url, made[1], made[2])
        status, said = shop.check(toml, url=login)
        assert (status, said.splitlines()[-1]) == (0, "2 datasets can be served")
    finally:
        await shop.has(f"DROP OWNED BY {made[1]}; DROP ROLE {made[1]}")


async def test_key_and_schema_are_found_where_they_are_left_out(shop: Shop) -> None:
    await shop.has(ALL + '; ALTER ROLE {role} SET search_path = "Shop"')
    bare = '[keyed]\nrelation = "keyed"\ntenant = "tenant"\n'
    status, said = shop.check(bare + "cache = false\n")
    assert (status, said) == (0, "1 dataset can be served\n")
    status, said = shop.check(bare.replace('"keyed"', '"goods"'))
    assert status == 1
    assert "error: keyed.key: goods has no primary key" in said
    status, said = shop.check(bare.replace('"keyed"', '"single"'))
    assert "error: keyed.key: single is a view" in said
    status, said = shop.check(bare.replace('"keyed"', '"nothing"'))
    assert "error: keyed.relation: there is no table or view nothing on the login's" in said


async def test_warnings_of_one_kind_are_one_line(shop: Shop) -> None:
    await shop.has(ALL)
    views = "".join(
        f'[v{n}]\nrelation = "\\"Shop\\".single"\nkey = ["id"]\ntenant = "tenant"\n'
        'not_null = ["id"]\n'
        for n in range(3)
    )
    status, said = shop.check(views, FEEDSVC_AUDIT__ENABLED="true", FEEDSVC_METRICS__ENABLED="true")
    assert status == 0
    warnings = [line.removeprefix(f"{shop.file}: warning: ") for line in said.splitlines()[:-1]]
    assert [line.partition(": ")[0] for line in warnings] == [
        "v0.key, v1.key, v2.key",
        "audit.enabled, metrics.enabled",
        "v0.cache, v1.cache, v2.cache",
    ]


async def test_columns_that_look_secret_are_warned_of_where_all_tenants_see_them(
    shop: Shop,
) -> None:
    await shop.has(ALL)
    status, said = shop.check(declared("rates", more="shared = true"))
    assert status == 0
    assert "warning: rates.columns: 'apiKey', 'pwd_hash' may be secret" in said
    status, said = shop.check(declared("rates", more='shared = true\ncolumns = ["id", "currency"]'))
    assert said == "1 dataset can be served\n"


async def test_a_views_key_with_twins_is_an_error(shop: Shop) -> None:
    """--tenant, or the owner's login, decides whose rows are looked at."""
    await shop.has(ALL)
    twins = declared("twins", more='tenant = "tenant"\nnot_null = ["id"]')
    single = declared("single", more='tenant = "tenant"\nnot_null = ["id"]')
    what = "error: twins.key: (id) is not unique: of 18 rows 18 share theirs"
    status, said = shop.check(twins + single, "acme")
    assert (status, what in said, "single.key: (id)" in said) == (1, True, False)
    status, said = shop.check(twins + single, MIGRATION_DATABASE_URL=shop.url)
    assert (status, what in said, "single.key: (id)" in said) == (1, True, False)
    assert shop.check(twins)[0] == 0, "without a tenant there is no row to look at"
    assert shop.check(single, "acme", "other")[0] == 0


def test_mistakes_of_all_files_are_reported_in_one_run(tmp_path: Path) -> None:
    (tmp_path / "feedsvc.toml").write_text("[server]\nprot = 1\n")
    (tmp_path / "datasets.toml").write_text('[a]\nrelation = 5\n[b]\nrelation = "s.t"\n')
    (tmp_path / "alerts.toml").write_text('[x]\nfigure = "nothing"\n')
    env = environment("", FEEDSVC_AUTH__KEY="short")
    done = feedsvc("check", "--config", str(tmp_path / "feedsvc.toml"), env=env)
    assert done.returncode == 1
    for what in ("server.prot: there is no such", "datasets.toml: a.relation", "alerts.toml: x."):
        assert what in done.stderr, done.stderr
    (tmp_path / "feedsvc.toml").write_text("")
    done = feedsvc("check", "--config", str(tmp_path / "feedsvc.toml"), env=env)
    for what in ("auth.key has no", "database.url must", "datasets.toml: a.rel", "alerts.toml: x."):
        assert what in done.stderr, done.stderr


def test_in_an_empty_folder_it_says_how_to_begin(tmp_path: Path) -> None:
    done = feedsvc("check", env=environment(""), folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    for what in ("DATABASE_URL", "FEEDSVC_AUTH__KEY", "cat > datasets.toml", "feedsvc check"):
        assert what in done.stderr
