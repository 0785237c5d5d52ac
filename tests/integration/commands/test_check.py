"""The console command as its user meets it: each mistake is a line that says what to mend."""

import json
import os
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.integration.conftest import NewDatabase
from tests.support.forked import feedsvc
from tests.support.servers import as_login
from tests.support.service import KEY

SCHEMA = """
    CREATE SCHEMA shop;
    CREATE TYPE shop.span AS (a int, b int);
    CREATE DOMAIN shop.sure AS int NOT NULL;
    CREATE TABLE shop.goods (
        tenant text NOT NULL, id bigint NOT NULL, name text, code text NOT NULL,
        at timestamptz NOT NULL, span shop.span NOT NULL, doc json NOT NULL, secret text NOT NULL,
        sure shop.sure, n int NOT NULL, UNIQUE (tenant, id)
    );
    CREATE UNIQUE INDEX ON shop.goods (code) WHERE n > 0;
    CREATE UNIQUE INDEX ON shop.goods (lower(code));
    CREATE INDEX ON shop.goods (tenant, n NULLS FIRST, id);
    CREATE INDEX ON shop.goods (tenant, code text_pattern_ops, id);
    CREATE TABLE shop.parted (tenant text, at date, id int, PRIMARY KEY (tenant, at, id))
        PARTITION BY RANGE (at);
    CREATE TABLE shop.owned (id int PRIMARY KEY);
    ALTER TABLE shop.goods ENABLE ROW LEVEL SECURITY;
    ALTER TABLE shop.parted ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON shop.goods USING (tenant = current_setting('feedsvc.tenant', true));
    CREATE POLICY own ON shop.parted USING (tenant = current_setting('feedsvc.tenant', true));
    CREATE VIEW shop.view WITH (security_invoker = true) AS
        SELECT g.tenant, g.id, g.code, o.sure FROM shop.goods g LEFT JOIN shop.goods o ON false;
    CREATE TABLE shop.kept_back (id int PRIMARY KEY);
    GRANT USAGE ON SCHEMA shop TO PUBLIC;
    GRANT SELECT (tenant, id, name, code, at, span, doc, sure, n) ON shop.goods TO PUBLIC;
    GRANT SELECT ON shop.parted, shop.view, shop.owned TO PUBLIC;
"""
GOOD = """
[goods]
relation = "shop.goods"
key = ["id"]
tenant = "tenant"
columns = ["id", "code"]
cache = false
"""
# Each dataset with one mistake, and the line that must name it.
MISTAKES = {
    "no-relation": ('relation = "shop.good"', "relation: there is no table or view shop.good"),
    "no-schema": ('relation = "goods"', "relation: there is no table or view goods on"),
    "no-name": ('relation = "a.b.c"', "relation: a relation is written schema.name"),
    "no-rights": ('relation = "shop.kept_back"', "relation: the login may not read shop.kept_back"),
    "no-column": ('columns = ["Code"]', "columns: shop.goods has no column 'Code'; it has tenant"),
    "twice": ('columns = ["id", "id"]', "columns: 'id' is listed twice"),
    "unreadable": ('columns = ["secret"]', "columns: the service's login may not read 'secret'"),
    "no-key": ('key = ["number"]', "key: shop.goods has no column 'number'"),
    "not-unique": ('key = ["n"]', "key: no unique index of shop.goods proves that (n) is unique"),
    "partly-unique": ('key = ["code"]', "key: no unique index of shop.goods proves that (code)"),
    "null-key": ('key = ["name"]', "key: 'name' may be NULL, which has no place in an order"),
    "composite-key": ('key = ["span"]', "key: 'span' is shop.span, a type that a token can't hold"),
    "no-tenant": ('tenant = "shop"', "tenant: shop.goods has no column 'shop'"),
    "nobodys": ("", "tenant: name the column that holds the tenant, or set `shared = true`"),
    "odd-tenant": ('tenant = "doc"', "tenant: 'doc' is of a type that can't be"),
    "no-client": ('client = "couple"', "client: shop.goods has no column 'couple'"),
    "no-filter": ("filters = {colour = []}", "filters: shop.goods has no column 'colour'"),
    "odd-filter": ('filters = {doc = ["eq"]}', "filters.doc: eq can't be used on json"),
    "odd-prefix": ('filters = {n = ["prefix"]}', "filters.n: prefix can't be used on integer"),
    "no-order": ('orders = {by = ["colour"]}', "orders.by: shop.goods has no column 'colour'"),
    "null-order": ('orders = {by = ["-name"]}', "orders.by: 'name' may be NULL"),
    "odd-order": ('orders = {by = ["doc"]}', "orders.by: 'doc' is json, a type that a token"),
    "key-order": ('orders = {key = ["n"]}', "orders.key: this order is built in"),
    "no-tag-column": ('tags = ["goods:{colour}"]', "tags: shop.goods has no column 'colour'; it h"),
    "no-watched": ('watch = {"shop.goodies" = []}', 'watch."shop.goodies": there is no table'),
    "no-watched-column": (
        'watch = {"shop.parted" = ["goods:{tenant}", "no:{colour}"]}',
        "watch.\"shop.parted\": shop.parted has no column 'colour'; it has tenant, at, id",
    ),
    "view-null": (
        'relation = "shop.view"\nnot_null = ["id"]\norders = {by = ["sure"]}',
        "orders.by: 'sure' may be NULL, which has no place in an order; if the view never",
    ),
}  # fmt: skip


def mistaken(name: str) -> str:
    """A dataset that is right but for one thing."""
    wrong, _ = MISTAKES[name]
    right = {"relation": '"shop.goods"', "key": '["id"]'}
    if name not in {"nobodys", "no-rights"}:
        right["tenant"] = '"tenant"'
    if name == "no-rights":
        right["shared"] = "true"
    named = set(re.findall(r"^(\w+) =", wrong, re.MULTILINE))
    kept = [f"{key} = {value}" for key, value in right.items() if key not in named]
    return "\n".join([f"[{name}]", *kept, wrong, ""])


def environment(database_url: str, **variables: str) -> dict[str, str]:
    plain = {name: v for name, v in os.environ.items() if not name.startswith("FEEDSVC_")}
    plain |= {"DATABASE_URL": database_url, "FEEDSVC_AUTH__KEY": KEY, "FEEDSVC_SERVER__PORT": "0"}
    plain |= {"FEEDSVC_DATABASE__STARTUP_TIMEOUT": "1", "FEEDSVC_AUDIT__ENABLED": "false"}
    plain |= {"FEEDSVC_METRICS__ENABLED": "false"}
    return plain | variables


async def pasted(url: str, output: str) -> None:
    """Run the statements that `check` printed, as somebody who pastes them would."""
    connection = await asyncpg.connect(url)
    try:
        for line in output.splitlines():
            if line.startswith("  "):
                await connection.execute(line)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def shop(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(script=SCHEMA) as url:
        yield url


@pytest.fixture(scope="module")
def shop_url(shop: str) -> str:
    return as_login(shop)


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    """A file for a test to write its declarations to."""
    return tmp_path / "own.toml"


@pytest.fixture(scope="module")
def refused(shop_url: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The output of `check` about all the mistakes at once."""
    file = tmp_path_factory.mktemp("mistaken") / "own.toml"
    file.write_text("\n".join(map(mistaken, MISTAKES)) + GOOD)
    done = feedsvc("check", env=environment(shop_url, FEEDSVC_DATASETS__FILE=str(file)))
    assert done.returncode == 1
    assert done.stderr == ""
    return [line.removeprefix(f"{file}: ") for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", MISTAKES)
def test_check_names_the_key_of_each_mistake(refused: list[str], name: str) -> None:
    _, what = MISTAKES[name]
    assert any(line.startswith(f"error: {name}.{what}") for line in refused), refused


def test_check_finds_no_mistake_where_there_is_none(refused: list[str]) -> None:
    assert not any(line.startswith("error: goods.") for line in refused)


def test_serve_refuses_what_check_refuses(shop_url: str, datasets: Path) -> None:
    datasets.write_text(mistaken("not-unique") + mistaken("null-order"))
    done = feedsvc("serve", env=environment(shop_url, FEEDSVC_DATASETS__FILE=str(datasets)))
    assert done.returncode == 1
    assert done.stdout == ""
    for name in ("not-unique", "null-order"):
        assert MISTAKES[name][1] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_setting_under_its_former_name_is_warned_of_once(
    shop_url: str, datasets: Path, command: str
) -> None:
    datasets.write_text(mistaken("not-unique"))  # so that `serve` ends by itself
    variables = {"FEEDSVC_DATASETS__FILE": str(datasets), "FEEDSVC_LIMITS__COUPLE__BURST": "9"}
    done = feedsvc(command, env=environment(shop_url, **variables))
    advice = "FEEDSVC_LIMITS__COUPLE__BURST is now FEEDSVC_LIMITS__CLIENT__BURST: rename it"
    assert (done.stdout + done.stderr).count(advice) == 1


def test_check_names_every_key_that_a_datasets_file_can_not_have(
    shop_url: str, datasets: Path
) -> None:
    datasets.write_text(
        """
        Goods = {}
        [goods]
        relation = 1
        orderz = {by = ["n"]}
        key = []
        pool = "huge"
        filters = {n = ["eq", "like"]}
        orders = {By = ["n"]}
        """
    )
    done = feedsvc("check", env=environment(shop_url, FEEDSVC_DATASETS__FILE=str(datasets)))
    assert (done.returncode, done.stdout) == (1, "")
    places = [line.removeprefix(f"feedsvc: {datasets}: ") for line in done.stderr.splitlines()]
    assert sorted(place.partition(": ")[0] for place in places) == [
        "Goods", "Goods.relation", "goods.filters.n.1", "goods.key",
        "goods.orders.By", "goods.orderz", "goods.pool", "goods.relation",
    ]  # fmt: skip
    assert "goods.orderz: there is no such key" in places


@pytest.mark.parametrize(("command", "toml"), [("check", None), ("serve", "[goods\n")])
def test_a_datasets_file_that_can_not_be_read(
    shop_url: str, datasets: Path, toml: str | None, command: str
) -> None:
    if toml is not None:
        datasets.write_text(toml)
    done = feedsvc(command, env=environment(shop_url, FEEDSVC_DATASETS__FILE=str(datasets)))
    assert (done.returncode, done.stdout) == (1, "")
    # Behind a warning where there is no native encoder.
    assert re.search(rf"^feedsvc: {re.escape(str(datasets))}: .+\n\Z", done.stderr, re.MULTILINE)


TAGGED = """
[tagged]
relation = "shop.tagged"
key = ["id"]
tenant = "tenant"
tags = ["by:{price}/{price}", "by:{code}", "by:{id}", "by:{part}"]
[tagged.watch]
"shop.goods" = ["tagged:{tenant}", "at:{at}"]
"""


async def test_check_warns_of_tags_that_distinguish_nothing(
    shop: str, shop_url: str, datasets: Path
) -> None:
    """7.0 is 7.00, and a char(3) is padded."""
    connection = await asyncpg.connect(shop)
    await connection.execute(
        "CREATE DOMAIN shop.padded AS char(3);"
        "CREATE TABLE shop.tagged (tenant char(3) NOT NULL, id bigint, price numeric, code text,"
        " part shop.padded, UNIQUE (tenant, id)); GRANT SELECT ON shop.tagged TO PUBLIC"
    )
    try:
        datasets.write_text(TAGGED)
        done = feedsvc("check", env=environment(shop_url, FEEDSVC_DATASETS__FILE=str(datasets)))
        begins = f"{datasets}: warning: tagged."
        reported = [line.removeprefix(begins) for line in done.stdout.splitlines()]
        several = "may be written differently"
        for line in (
            f"tags: equal values of 'price' (numeric) {several}: pages are not distinguished by it",
            "tenant: equal values of 'tenant' (character(3)) "
            f"{several}: any tenant's change invalidates all tenants' pages",
            "watch.\"shop.goods\": equal values of 'at' (timestamp with time zone) "
            f"{several}: a change invalidates every page of tagged",
        ):
            assert reported.count(line) == 1, reported
        assert sum("'part'" in line and several in line for line in reported) == 1
        assert not any("'code'" in line and several in line for line in reported)
        datasets.write_text(TAGGED.replace("[tagged]", "[tagged]\ncache = false"))
        done = feedsvc("check", env=environment(shop_url, FEEDSVC_DATASETS__FILE=str(datasets)))
        assert several not in done.stdout, "where nothing is cached it makes no difference"
    finally:
        await connection.execute("DROP TABLE shop.tagged; DROP DOMAIN shop.padded")
        await connection.close()


ORDERS = {
    "up": (["at"], '"tenant", "at", "id"'),
    "down": (["-at"], '"tenant", "at", "id"'),
    "mixed": (["-at", "n"], '"tenant", "at" DESC, "n", "id"'),
    "nulls_last": (["n"], '"tenant", "n", "id"'),
    "collated": (["code"], '"tenant", "code", "id"'),
    "led_by_the_tenant": (["tenant", "sure"], '"tenant", "sure", "id"'),
}
PARTED = """
[parted]
relation = "shop.parted"
key = ["tenant", "at", "id"]
tenant = "tenant"
cache = false
[parted.orders]
mixed = ["id", "-at"]
"""


async def test_a_missing_index_is_a_warning_until_the_statement_that_is_printed_was_run(
    shop: str, shop_url: str, datasets: Path
) -> None:
    """Also where a like index has its NULLs or its collation in other places."""
    orders = "".join(f"{name} = {json.dumps(parts)}\n" for name, (parts, _) in ORDERS.items())
    datasets.write_text(f"{GOOD}[goods.orders]\n{orders}{PARTED}")
    env = environment(shop_url, FEEDSVC_DATASETS__FILE=str(datasets))
    warned = feedsvc("check", env=env)
    warning, *statements, count = warned.stdout.splitlines()
    places = [*(f"goods.orders.{name}" for name in ORDERS), "parted.orders.mixed"]
    assert warning == (
        f"{datasets}: warning: {', '.join(places)}: no index serves these orders, so each page "
        "of them sorts anew"
    )
    assert statements == [
        f'  CREATE INDEX CONCURRENTLY ON "shop"."goods" ({columns});'
        for columns in dict.fromkeys(columns for _, columns in ORDERS.values())
    ] + [
        # PostgreSQL makes a partitioned table's index in no other way.
        '  CREATE INDEX ON "shop"."parted" ("tenant", "id", "at" DESC);'
    ]
    assert (warned.returncode, count) == (0, "2 datasets can be served")
    await pasted(shop, warned.stdout)
    mended = feedsvc("check", env=env)
    assert (mended.returncode, mended.stdout) == (0, "2 datasets can be served\n")


def test_check_says_of_each_standby_why_it_would_not_be_read_from(
    shop: str, shop_url: str, datasets: Path
) -> None:
    datasets.write_text(GOOD)
    env = environment(shop_url, FEEDSVC_DATASETS__FILE=str(datasets))
    away = "postgresql://feedsvc@127.0.0.1:1/shop"
    warned = feedsvc("check", env={**env, "FEEDSVC_DATABASE__REPLICAS": away})
    warning = "warning: database.replicas: 127.0.0.1:1 is not read from: it does not answer"
    assert warning in warned.stdout
    assert warned.returncode == 0, warned.stdout
    for url, why in ((shop_url, "it is no standby"), (shop, "is a superuser")):
        done = feedsvc("check", env={**env, "FEEDSVC_DATABASE__REPLICAS": f"{away},{url}"})
        assert done.returncode == 1
        assert re.search(
            rf"error: database\.replicas: 127\.\S+ is not read from: .*{why}", done.stdout
        )


@pytest.mark.parametrize(
    ("rise", "mistakes"),
    [
        (
            "ALTER ROLE {role} SUPERUSER",
            ["{role} is a superuser, which row-level security does not bind"],
        ),
        (
            "ALTER ROLE {role} BYPASSRLS; GRANT {owner} TO {role};"
            "CREATE TABLE public.mine (); ALTER TABLE public.mine OWNER TO {role}",
            [
                "{role} has BYPASSRLS, so row-level security does not bind it",
                "{role} owns objects, and an owner is above row-level security",
                "goods.relation: the service's login owns shop.owned, or may act as its owner",
            ],
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "serve"])
async def test_a_login_above_row_level_security_is_refused(
    shop: str, datasets: Path, rise: str, mistakes: list[str], command: str
) -> None:
    names = {"role": f"risen_{uuid.uuid4().hex}", "owner": f"owner_{uuid.uuid4().hex}"}
    datasets.write_text('[goods]\nrelation = "shop.owned"\nkey = ["id"]\nshared = true\n')
    admin = await asyncpg.connect(shop)
    await admin.execute(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; CREATE ROLE {owner};"
        "ALTER TABLE shop.owned OWNER TO {owner}".format(**names)
    )
    try:
        await admin.execute(rise.format(**names))
        login = as_login(shop, names["role"], "x")
        done = feedsvc(command, env=environment(login, FEEDSVC_DATASETS__FILE=str(datasets)))
        said = done.stdout + done.stderr
        assert (done.returncode, "Traceback" in said) == (1, False)
        for mistake in mistakes:
            assert mistake.format(**names) in said
    finally:
        await admin.execute(
            "ALTER TABLE shop.owned OWNER TO CURRENT_USER; DROP TABLE IF EXISTS public.mine;"
            "DROP OWNED BY {role}, {owner}; DROP ROLE {role}, {owner}".format(**names)
        )
        await admin.close()


def test_a_start_says_once_that_it_waits_for_the_database() -> None:
    away = "postgresql://feedsvc:s3cret@127.0.0.1:1/shop"
    done = feedsvc("serve", env=environment(away))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("waiting up to 1 s for the database to answer") == 1
    assert "s3cret" not in done.stderr
