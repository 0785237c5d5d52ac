"""Random requests against a plain SELECT: exactly its rows, in its order, or a 400 that says why.

A request is put together of parts that are right or wrong. If all are right the answer must be
200 with what PostgreSQL gives; a wrong one must be refused by name. The SELECT is made here, from
the contract: keyset continuation, for one, is the rank of a row among the rows of all tenants.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp
import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedsvc.datasets.dataset import Declaration, declarations
from streams import tokens
from tests.integration.feeds.foreign import oracle
from tests.integration.feeds.foreign.oracle import identifier, literal
from tests.support.drawn import DRAWN, share
from tests.support.service import REPOSITORY, bearer, serving
from tests.support.sources import COPY_AT_ONCE, SOURCES, by_source

DATASETS = declarations(REPOSITORY / "config" / "datasets.toml")
TENANTS: Final = ("rosewood", "atelier-blanc", "zephyr", "no-such-tenant")
# A request takes as long as its rows do, and what is drawn for it may be much.
UNHURRIED: Final = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
SQL_OPERATORS: Final = {
    "eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=",
}  # fmt: skip
# What no value of a type can be. Of text everything is a value but NUL and half a surrogate.
GARBAGE: Final[Mapping[str, Sequence[str]]] = {
    "bigint": ["", "1e3", "x", "9223372036854775808", "1.0", " 1", "١", "0x1", "1;--"],
    "integer": ["", "1e3", "2147483648", "NaN", "1\n"],
    "smallint": ["", "32768", "-", "1,5"],
    "numeric(12,2)": ["", "1,5", "$5", "1_0", "e5"],
    "numeric(2,1)": ["", "--1", "1e", "0x1"],
    "double precision": ["", "1e999", "1,5", "inf inity"],
    "uuid": ["", "1", "urn:uuid:00000000-0000-0000-0000-000000000000", "g" * 36],
    "date": ["", "2026-02-30", "2026-13-01", "today", "30.05.2026", "2026-05-30T00:00"],
    "timestamp with time zone": ["", "2026-05-30T25:00", "now", "2026-02-29", "1780000000"],
    "boolean": ["", "yes", "1", "maybe"],
    "text": ["\0"],
    "character(3)": ["\0"],
    "jsonb": ["{}"],
    "json": ["{}"],
    "wedding.client_status": ["", "Booked", "booked ", "unknown", "booked\0"],
}


@dataclass(frozen=True)
class Table:
    """A dataset with some of its rows, as texts, to make requests of."""

    name: str
    declared: Declaration
    types: Mapping[str, str]
    rows: Sequence[Mapping[str, str | None]]

    def order(self, name: str) -> list[tuple[str, bool]]:
        """An order's columns, each with whether it descends; the key comes last."""
        parts = [] if name == "key" else self.declared.orders[name]
        columns = [(part.removeprefix("-"), part.startswith("-")) for part in parts]
        named = {column for column, _ in columns}
        down = bool(columns) and columns[-1][1]
        return columns + [(column, down) for column in self.declared.key if column not in named]


@dataclass
class Asked:
    """A request, and the same in SQL. `wrong` names the parameters that must be refused."""

    table: Table
    tenant: str
    parameters: dict[str, str]
    columns: Sequence[str]
    order: list[tuple[str, bool]]
    conditions: list[str]
    behind: Sequence[str] | None
    limit: int | None
    wrong: set[str]


@pytest.fixture(scope="module")
async def oracle_world(world_admin_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(world_admin_url, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


@pytest.fixture(scope="module", params=SOURCES)
async def by_its_source(
    request: pytest.FixtureRequest, world_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[aiohttp.ClientSession]:
    """Ask a service whose streams all come by one source, from their first row on."""
    file = tmp_path_factory.mktemp("oracle") / "datasets.toml"
    file.write_text(by_source((REPOSITORY / "config" / "datasets.toml").read_text(), request.param))
    with serving(world_url, datasets=file, settings=COPY_AT_ONCE) as service:
        async with aiohttp.ClientSession(
            service.url, headers={"Cache-Control": "no-cache"}
        ) as session:
            yield session


@pytest.fixture(scope="module")
async def tables(oracle_world: asyncpg.Connection) -> Sequence[Table]:
    found = []
    for name, declared in DATASETS.items():
        if declared.refreshed:
            continue  # their views show the oracle, who has no tenant, no row
        attributes = await oracle_world.fetch(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
            declared.relation,
        )
        types = {row[0]: row[1] for row in attributes}
        key = ", ".join(declared.key)
        rows = f"{declared.relation} WHERE tenant_id IN ('rosewood', 'zephyr')"
        cells = await oracle.cells(oracle_world, rows, list(types), f"md5(({key})::text) LIMIT 40")
        records = [dict(zip(types, row, strict=True)) for row in cells]
        found.append(Table(name, declared, types, records))
    return found


@st.composite
def requests(draw: st.DrawFn, tables: Sequence[Table]) -> Asked:
    table = draw(st.sampled_from(tables))
    form = draw(st.sampled_from(oracle.FORMATS))
    order_name = draw(st.sampled_from(["key", *table.declared.orders]))
    asked = Asked(
        table=table,
        tenant=draw(st.sampled_from(TENANTS)),
        parameters={"format": form, "order": order_name},
        columns=list(table.types),
        order=table.order(order_name),
        conditions=[],
        behind=None,
        limit=draw(st.none() | st.sampled_from([0, 1, 2, 7, 500, 501, 2**63 - 1])),
        wrong=set(),
    )
    if form == "csv":
        asked.parameters["guard"] = "off"
    if asked.limit is not None:
        asked.parameters["limit"] = str(asked.limit)
    if draw(st.booleans()):
        asked.columns = draw(st.lists(st.sampled_from(asked.columns), min_size=1, unique=True))
        asked.parameters["columns"] = ",".join(asked.columns)
    for _ in range(draw(st.integers(0, 3))):
        _add_filter(draw, asked)
    if draw(st.booleans()):
        _go_on(draw, asked)
    if draw(st.integers(0, 9)) == 0:
        _spoil(draw, asked)
    return asked


def _add_filter(draw: st.DrawFn, asked: Asked) -> None:
    table = asked.table
    column = draw(st.sampled_from(list(table.declared.filters)))
    op = draw(st.sampled_from(table.declared.filters[column]))
    name = column if op == "eq" and draw(st.booleans()) else f"{column}.{op}"
    if {name, f"{column}.{op}", column} & asked.parameters.keys():
        return
    values = sorted({row[column] for row in table.rows} - {None}, key=str)
    sql = identifier(column)
    if op == "is":
        word = draw(st.sampled_from(["null", "notnull", "NULL", ""]))
        asked.parameters[name] = word
        asked.conditions.append(f"{sql} IS {'NOT ' * (word == 'notnull')}NULL")
        asked.wrong |= {name} if word in {"NULL", ""} else set()
        return
    if draw(st.integers(0, 7)) == 0:
        asked.parameters[name] = draw(st.sampled_from(GARBAGE[table.types[column]]))
        asked.wrong.add(name)
        return
    chosen = [str(v) for v in draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))]
    if op == "in":
        asked.parameters[name] = ",".join('"' + v.replace('"', '""') + '"' for v in chosen)
        asked.conditions.append(f"{sql} IN ({', '.join(map(literal, chosen))})")
    elif op == "prefix":
        start = chosen[0][: draw(st.integers(0, 3))]
        asked.parameters[name] = start
        asked.conditions.append(f"left({sql}, {len(start)}) = {literal(start)}")
    else:
        asked.parameters[name] = chosen[0]
        asked.conditions.append(f"{sql} {SQL_OPERATORS[op]} {literal(chosen[0])}")


def _go_on(draw: st.DrawFn, asked: Asked) -> None:
    """Start behind a row, of whichever tenant, or behind what no row can be."""
    row = draw(st.sampled_from(asked.table.rows))
    parts = [str(row[column]) for column, _ in asked.order]
    asked.behind = parts
    fault = draw(st.sampled_from([None] * 6 + ["short", "long", "percent", "garbage"]))
    if fault == "garbage":
        column, _ = asked.order[-1]
        parts = [*parts[:-1], draw(st.sampled_from(GARBAGE[asked.table.types[column]]))]
    token = tokens.encode(parts)
    token = {"long": f"{token},1", "short": tokens.encode(parts[:-1]), "percent": f"{token}%"}.get(
        str(fault), token
    )
    asked.parameters["after"] = token
    # Of a key of one part nothing is left, which is a text all the same, and may be one.
    asked.wrong |= {"after"} if fault else set()


def _spoil(draw: st.DrawFn, asked: Asked) -> None:
    """Add one parameter that there isn't, or that can't be so."""
    first = next(iter(asked.table.declared.filters))
    name, value = draw(
        st.sampled_from(
            [
                *(("order", word) for word in ("by", "key; --")),
                *(("limit", word) for word in ("-1", "1e9", "", "NaN", str(2**70))),
                *(("columns", word) for word in ("id,id;", "", "*")),
                *((name, "1") for name in ("offset", "limit.eq", "tenant_id", "", "é")),
                *((name, "1") for name in (f"{first}.like", f'"{first}"', f"{first};--")),
                *(("export", "x"), ("bom", "2"), ("guard", "maybe"), ("after", "\0")),
            ]
        )
    )
    asked.parameters[name] = value
    asked.wrong.add(name)


async def expected_rows(world: asyncpg.Connection, asked: Asked) -> tuple[list[str], list[Any]]:
    """The rows of a SELECT, as JSON and as cells."""
    relation = asked.table.declared.relation
    order = ", ".join(f"{identifier(c)}{' DESC' * down}" for c, down in asked.order)
    conditions = [f"tenant_id = {literal(asked.tenant)}", *asked.conditions]
    source = relation
    if asked.behind is not None:
        source = f"(SELECT *, rank() OVER (ORDER BY {order}) AS its_rank FROM {relation}) AS ranked"
        conditions.append(f"its_rank > {await _place(world, relation, order, asked)}")
    limit = "" if asked.limit is None else f" LIMIT {asked.limit}"
    rows = f"{source} WHERE {' AND '.join(conditions)}"
    taken = world, rows, asked.columns, order + limit
    return await oracle.objects(*taken), await oracle.cells(*taken)


async def _place(world: asyncpg.Connection, relation: str, order: str, asked: Asked) -> int:
    held = zip(asked.order, asked.behind or (), strict=True)
    same = " AND ".join(f"{identifier(column)} = {literal(part)}" for (column, _), part in held)
    place: int = await world.fetchval(
        f"SELECT min(its_rank) FROM (SELECT *, rank() OVER (ORDER BY {order}) AS its_rank"
        f" FROM {relation}) AS ranked WHERE {same}"
    )
    return place


@DRAWN
@settings(UNHURRIED, max_examples=share(120))
@given(data=st.data())
async def test_an_answer_is_the_selects_rows_or_a_named_refusal(
    http: aiohttp.ClientSession,
    oracle_world: asyncpg.Connection,
    tables: Sequence[Table],
    data: st.DataObject,
) -> None:
    await assert_rows_or_refusal(http, oracle_world, data.draw(requests(tables)))


@DRAWN
@settings(UNHURRIED, max_examples=share(60))
@given(data=st.data())
async def test_so_it_is_by_every_source(
    by_its_source: aiohttp.ClientSession,
    oracle_world: asyncpg.Connection,
    tables: Sequence[Table],
    data: st.DataObject,
) -> None:
    await assert_rows_or_refusal(by_its_source, oracle_world, data.draw(requests(tables)))


async def assert_rows_or_refusal(
    http: aiohttp.ClientSession, oracle_world: asyncpg.Connection, asked: Asked
) -> None:
    async with http.get(
        f"/v1/feeds/{asked.table.name}", params=asked.parameters, headers=bearer(asked.tenant)
    ) as answer:
        body = await answer.text()
    if asked.wrong:
        assert answer.status == 400, body
        problem = json.loads(body)
        assert problem["type"] == "/problems/bad-parameter"
        assert problem["parameter"] in asked.wrong
        return
    assert answer.status == 200, body
    rows, cells = await expected_rows(oracle_world, asked)
    oracle.assert_body(asked.parameters["format"], body, asked.columns, rows, cells)
    if asked.limit in {1, 2, 7, 500}:
        whole, _ = await expected_rows(oracle_world, replace(asked, limit=None))
        assert ("next" in answer.links) == (len(whole) > len(rows))


@DRAWN
@settings(max_examples=share(100))
@given(
    name=st.sampled_from(list(DATASETS)),
    parameters=st.dictionaries(
        st.sampled_from(["columns", "limit", "order", "after", "format", "id", "export", "id.in"])
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        min_size=1,
        max_size=4,
    ),
)
async def test_no_text_in_a_query_breaks_the_service(
    http: aiohttp.ClientSession, name: str, parameters: dict[str, str]
) -> None:
    """Whatever it is, it is understood or refused by name: never a 5xx."""
    url = f"/v1/feeds/{name}"
    async with http.get(url, params={"limit": "1"} | parameters, headers=bearer()) as answer:
        assert answer.status in {200, 400}
        if answer.status == 400:
            problem = await answer.json()
            assert problem["parameter"] in {name.replace("\0", "") for name in parameters}
