"""Another trade's database, met for the first time: a shipyard, by its datasets file alone.

Its names, keys, tenants and types are nothing like the demo's. What the service sends of it is
held against PostgreSQL's own `row_to_json`, asked by a superuser with the tenant spelled out.
"""

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, get_args

import aiohttp
import asyncpg
import pytest
from yarl import URL

from feedsvc.datasets.dataset import Declaration, Op, declarations
from feedsvc.settings.pools import PoolName
from streams import tokens
from tests.integration.conftest import NewDatabase
from tests.integration.feeds.foreign import oracle
from tests.integration.feeds.foreign.oracle import identifier, literal
from tests.support.drawn import DRAWN, share
from tests.support.servers import as_login
from tests.support.service import REPOSITORY, bearer, serving

HERE = Path(__file__).parent / "foreign"
DATASETS = declarations(HERE / "datasets.toml")
ORDERS = [(name, order) for name, d in DATASETS.items() for order in ("key", *d.orders)]

YARD, OTHER_YARD, DOCK = (
    "11111111-1111-4111-8111-111111111111",
    "22222222-2222-4222-8222-222222222222",
    "7",
)
SQL_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
PAGE = 3


@pytest.fixture(scope="module")
async def shipyard(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database() as url:
        connection = await asyncpg.connect(url)
        await connection.execute((HERE / "schema.sql").read_text())
        await connection.close()
        yield url


@pytest.fixture(scope="module")
async def yard(shipyard: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a service on the shipyard."""
    with serving(as_login(shipyard), datasets=HERE / "datasets.toml") as running:
        async with aiohttp.ClientSession(running.url) as session:
            yield session


@pytest.fixture(scope="module")
async def superuser(shipyard: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(shipyard, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


def tenant_of(name: str) -> str:
    return DOCK if DATASETS[name].tenant == "Yard No" else YARD


def rows_of(name: str, *conditions: str) -> str:
    """A FROM clause with the tenant's rows."""
    declared = DATASETS[name]
    held = ["true", *conditions]
    if declared.tenant:
        held.append(f"{identifier(declared.tenant)} = {literal(tenant_of(name))}")
    return f"{declared.relation} WHERE {' AND '.join(held)}"


def order_columns(name: str, order: str) -> list[tuple[str, bool]]:
    """The order's columns, each with whether it descends; the key is always its last part."""
    declared = DATASETS[name]
    parts = [] if order == "key" else declared.orders[order]
    columns = [(part.removeprefix("-"), part.startswith("-")) for part in parts]
    last = columns[-1][1] if columns else False
    named = {column for column, _ in columns}
    return columns + [(column, last) for column in declared.key if column not in named]


def sql_order(name: str, order: str = "key") -> str:
    columns = order_columns(name, order)
    return ", ".join(identifier(c) + (" DESC" if descends else "") for c, descends in columns)


async def columns_of(superuser: asyncpg.Connection, name: str) -> Sequence[str]:
    declared = DATASETS[name]
    if declared.columns:
        return declared.columns
    rows = await superuser.fetch(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        declared.relation,
    )
    return [row[0] for row in rows]


async def fetched(
    yard: aiohttp.ClientSession, name: str, tenant: str | None = None, **parameters: str
) -> str:
    async with yard.get(
        f"/v1/feeds/{name}", params=parameters, headers=bearer(tenant or tenant_of(name))
    ) as answer:
        body = await answer.text()
        assert answer.status == 200, body
        return body


@pytest.mark.parametrize("form", oracle.FORMATS)
@pytest.mark.parametrize("name", DATASETS)
async def test_a_feed_is_what_postgresql_says(
    yard: aiohttp.ClientSession, superuser: asyncpg.Connection, name: str, form: str
) -> None:
    columns = await columns_of(superuser, name)
    source = (superuser, rows_of(name), columns, sql_order(name))
    expected, records = await oracle.objects(*source), await oracle.cells(*source)
    assert expected
    guard = {"guard": "off"} if form == "csv" else {}
    body = await fetched(yard, name, format=form, **guard)
    oracle.assert_body(form, body, columns, expected, records)


@pytest.mark.parametrize(("name", "order"), ORDERS)
async def test_pages_give_each_row_once_and_in_order(
    yard: aiohttp.ClientSession, superuser: asyncpg.Connection, name: str, order: str
) -> None:
    columns = await columns_of(superuser, name)
    expected = await oracle.objects(superuser, rows_of(name), columns, sql_order(name, order))
    url: URL | None = URL(f"/v1/feeds/{name}").with_query(
        {"order": order, "limit": str(PAGE), "format": "ndjson"}
    )
    received: list[str] = []
    while url is not None:
        async with yard.get(url, headers=bearer(tenant_of(name))) as answer:
            body = await answer.text()
            assert answer.status == 200, body
            page = oracle.lines(body)
            following = answer.links.get("next")
            assert len(page) == PAGE or following is None
            received += page
            assert len(received) <= len(expected), "pages without end"
            url = None if following is None else URL(str(following["url"])).relative()
    assert received == expected


@pytest.mark.parametrize(("name", "order"), ORDERS)
async def test_the_last_row_is_the_token_to_go_on_from(
    yard: aiohttp.ClientSession, superuser: asyncpg.Connection, name: str, order: str
) -> None:
    """A row gives its own token: its order columns as text, percent-encoded, joined."""
    columns = await columns_of(superuser, name)
    source = rows_of(name), columns, sql_order(name, order)
    expected = await oracle.objects(superuser, *source)
    names = [column for column, _ in order_columns(name, order)]
    held = await oracle.cells(superuser, source[0], names, source[2])
    for position, parts in enumerate(held, start=1):
        token = tokens.encode(part or "" for part in parts)
        body = await fetched(yard, name, format="ndjson", order=order, after=token)
        assert oracle.lines(body) == expected[position:], token


@pytest.mark.parametrize("name", DATASETS)
async def test_every_row_has_an_address(
    yard: aiohttp.ClientSession, superuser: asyncpg.Connection, name: str
) -> None:
    columns = await columns_of(superuser, name)
    rows = await oracle.objects(superuser, rows_of(name), columns, sql_order(name))
    keys = await oracle.cells(superuser, rows_of(name), DATASETS[name].key, sql_order(name))
    for key, row in zip(keys, rows, strict=True):
        address = URL(f"/v1/feeds/{name}/{tokens.encode(part or '' for part in key)}", encoded=True)
        async with yard.get(address, headers=bearer(tenant_of(name))) as answer:
            assert (answer.status, await answer.text()) == (200, row + "\n"), address


FILTERS = [(name, column) for name, declared in DATASETS.items() for column in declared.filters]


@DRAWN
@pytest.mark.parametrize(("name", "column"), FILTERS)
async def test_filters_are_those_of_plain_sql(
    yard: aiohttp.ClientSession, superuser: asyncpg.Connection, name: str, column: str
) -> None:
    """Each operator that the catalogue offers, with values that are there."""
    described = await catalogue(yard, name)
    columns, order = await columns_of(superuser, name), sql_order(name)
    [*found] = await oracle.cells(superuser, rows_of(name), [column], order)
    values = some(sorted({row[0] for row in found if row[0] is not None}))
    kind = next(c["type"] for c in described["columns"] if c["name"] == column)
    for op in described["filters"][column]:
        for value, condition in _conditions(identifier(column), op, kind, values):
            expected = await oracle.objects(superuser, rows_of(name, condition), columns, order)
            body = await fetched(yard, name, format="ndjson", **{f"{column}.{op}": value})
            assert oracle.lines(body) == expected, condition


def some(values: list[str]) -> list[str]:
    """In `make test` the first, the last and one between, by which each operator shows its edge."""
    return values if share(4) == 4 else [*values[:1], *values[len(values) // 2 :][:1], *values[-1:]]


def _conditions(column: str, op: Op, kind: str, values: list[str]) -> list[tuple[str, str]]:
    """Parameters of an operator, each with the same in SQL."""
    match op:
        case "is":
            return [("null", f"{column} IS NULL"), ("notnull", f"{column} IS NOT NULL")]
        case "in":
            listed = ",".join('"' + value.replace('"', '""') + '"' for value in values[::2])
            return [(listed, f"{column} IN ({', '.join(map(literal, values[::2]))})")]
        case "prefix":
            starts = {value[:2] for value in values} | {"%", "a_"}
            return [(s, f"left({column}::text, {len(s)}) = {literal(s)}") for s in sorted(starts)]
        case _:
            cast = f"::{kind}" if kind != "character(4)" else ""
            sql = f"{column} {SQL_OPERATORS[op]} "
            return [(value, f"{sql}{literal(value)}{cast}") for value in values]


async def catalogue(yard: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    async with yard.get("/v1/feeds", headers=bearer(YARD)) as answer:
        feeds = {feed["name"]: feed for feed in (await answer.json())["feeds"]}
    return dict(feeds[name])


@pytest.mark.parametrize("name", DATASETS)
async def test_the_catalogue_has_names_types_and_what_may_be_asked(
    yard: aiohttp.ClientSession, superuser: asyncpg.Connection, name: str
) -> None:
    declared, described = DATASETS[name], await catalogue(yard, name)
    types = {
        row["attname"]: row["type"]
        for row in await superuser.fetch(
            "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attnum > 0",
            declared.relation,
        )
    }
    columns = await columns_of(superuser, name)
    reported = {column["name"]: column["type"] for column in described["columns"]}
    assert list(reported.items()) == [(column, types[column]) for column in columns]
    assert described["key"] == list(declared.key)
    assert described["orders"] == {
        order: [column for column, _ in order_columns(name, order)]
        for order in ("key", *declared.orders)
    }
    assert list(described["filters"]) == list(declared.filters)
    assert all("is" in ops for ops in described["filters"].values())


async def test_a_columns_own_name_is_a_filter_even_where_a_parameter_has_it(
    yard: aiohttp.ClientSession,
) -> None:
    asked = {"format": "ndjson", "limit": "1", "columns": "limit,seq", "limit.eq": "5"}
    assert await fetched(yard, "work-orders", **asked) == '{"limit":5,"seq":1}\n'


async def test_a_column_with_a_comma_in_its_name_is_asked_for_in_quotes(
    yard: aiohttp.ClientSession,
) -> None:
    body = await fetched(yard, "work-orders", format="csv", limit="1", columns='seq,"x,y",a.b')
    assert body.split("\r\n")[0] == 'seq,"x,y",a.b'


@pytest.mark.parametrize(
    ("tenant", "name"),
    [
        ("7", "parts"),
        ("rosewood", "work-orders"),
        (f"urn:uuid:{YARD}", "parts"),
        (f"{YARD}'; --", "log"),
        (YARD, "berths"),
        ("1e3", "berths"),
        ("٧", "berths"),
        ("9223372036854775808", "berths"),
    ],
)
@pytest.mark.parametrize("path", ["", "/1"])
async def test_a_tenant_that_can_have_no_row_is_forbidden(
    yard: aiohttp.ClientSession, tenant: str, name: str, path: str
) -> None:
    async with yard.get(f"/v1/feeds/{name}{path}", headers=bearer(tenant)) as answer:
        assert answer.status == 403
        assert (await answer.json())["type"] == "/problems/forbidden"


@pytest.mark.parametrize("name", [name for name, d in DATASETS.items() if d.tenant == "Yard Id"])
async def test_a_tenant_without_rows_gets_none(yard: aiohttp.ClientSession, name: str) -> None:
    nobody = "33333333-3333-4333-8333-333333333333"
    assert await fetched(yard, name, tenant=nobody, format="ndjson") == ""


def test_the_code_names_none_of_the_demos_relations() -> None:
    """A dataset is declared, never coded: the demo's own code alone knows the demo's tables."""
    demo = declarations(REPOSITORY / "config" / "datasets.toml")
    pools = get_args(PoolName)  # `analytics` is a pool of the service's as well
    quoted = "|".join(name for name in demo if name not in pools)
    naming = re.compile(rf"""\bwedding\.\w|["'`]({quoted})["'`]|/feeds/({"|".join(demo)})\b""")
    package = REPOSITORY / "feedsvc"
    own = [package / "commands/demo", package / "backends/postgres/migrations/wedding"]
    assert all(folder.is_dir() for folder in own)
    found = [
        f"{file.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for package in ("feedsvc", "streams")
        for file in sorted((REPOSITORY / package).rglob("*"))
        if file.suffix in {".py", ".sql", ".html", ".js"}
        and not any(folder in file.parents for folder in own)
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if naming.search(line)
    ]
    assert found == []


def test_the_declarations_are_unlike_the_demos() -> None:
    """Guards the premise: what this file proves, it proves of names that need quoting."""
    assert all(_needs_quotes(declared) for declared in DATASETS.values())


def _needs_quotes(declared: Declaration) -> bool:
    return '"' in declared.relation
