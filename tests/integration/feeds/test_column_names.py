"""A column may have any name: each alias, function, type and keyword of the SQL that is made.

Each name stands once in every place (in two or three of them in `make test`): as key, tenant,
order, filter, as a column that is shown, and as one that the dataset leaves out, of a composite
type and of others.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg
import pytest

from feedsvc.changes import triggers
from feedsvc.core.timing import Stages
from feedsvc.datasets.catalog import resolve
from feedsvc.datasets.dataset import declarations
from feedsvc.feeds import transaction
from feedsvc.feeds.sources import choice, parallel
from feedsvc.feeds.sql import statement
from streams import encoder
from streams.formats import FORMATS
from tests.integration.feeds.foreign import oracle
from tests.support import statements
from tests.support.drawn import DRAWN, share
from tests.support.servers import LOGIN, as_login
from tests.support.service import bearer, serving
from tests.support.sites import Site, sited
from tests.support.sources import without_encoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from feedsvc.datasets.dataset import SourceName

ROWS: Final = 8
EVERY: Final = 1 if share(4) == 4 else 3  # of the tables, so that a name has each third place
TENANT: Final = "rosewood"
# What the statements may come to use one day, and what PostgreSQL has of its own in every row.
ALWAYS: Final = (
    *("r", "t", "t0", "t1", "x", "row", "record", "json_agg", "to_jsonb", "row_to_json", "concat"),
    *("count", "new", "old", "told", "payload", "new_rows", "old_rows", "oid", "?column?"),
)
PLACES: Final = ("key", "tenant", "order", "filter", "shown", "hidden", "number", "void")
SCHEMA: Final = """
CREATE SCHEMA named;
CREATE TYPE named.payout AS (amount integer, "text" text, row_to_json text, secret text);
GRANT USAGE ON SCHEMA named TO PUBLIC;
CREATE FUNCTION named.tenant() RETURNS text LANGUAGE sql STABLE
    RETURN nullif(current_setting('feedsvc.tenant', true), '');
"""


@dataclass(frozen=True)
class Table:
    """A table whose columns are named after some words, one for each place."""

    number: int
    names: Mapping[str, str]

    @property
    def relation(self) -> str:
        return f"named.table_{self.number}"

    @property
    def shown(self) -> list[str]:
        return [self.names[p] for p in ("number", "order", "shown", "filter", "key")]

    def sql(self) -> str:
        key, tenant, order, kept, shown, hidden, number, void = (
            oracle.identifier(self.names[place]) for place in PLACES
        )
        return f"""
        CREATE TABLE {self.relation} (
            {hidden} named.payout, {void} json, {key} int NOT NULL, {shown} named.payout,
            {tenant} text NOT NULL, {order} text NOT NULL, {kept} text, {number} int,
            PRIMARY KEY ({tenant}, {key})
        );
        INSERT INTO {self.relation}
        SELECT ROW(n, 'x', 'y', 'hidden')::named.payout, '"hidden"'::json, n,
            ROW(n, NULL, 'z', 'seen')::named.payout, tenant, 'order ' || n % 3, 'kept ' || n % 2, -n
        FROM unnest(ARRAY['{TENANT}', 'other']) AS tenant, generate_series(1, {ROWS}) AS n;
        ALTER TABLE {self.relation} ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON {self.relation} USING ({tenant} = (SELECT named.tenant()));
        GRANT SELECT ON {self.relation} TO {LOGIN};
        """

    def toml(self) -> str:
        names = {place: toml_text(name) for place, name in self.names.items()}
        tag = f'tags = ["kept:{{{self.names["filter"]}}}"]' if self.can_be_tagged else ""
        return f"""
        [table-{self.number}]
        relation = "{self.relation}"
        key = [{names["key"]}]
        tenant = {names["tenant"]}
        columns = [{", ".join(map(toml_text, self.shown))}]
        ranges = 3
        {tag}
        [table-{self.number}.orders]
        other = [{names["order"]}]
        [table-{self.number}.filters]
        {names["filter"]} = ["eq"]
        """

    @property
    def can_be_tagged(self) -> bool:
        return re.fullmatch("[a-z_0-9]+", self.names["filter"]) is not None


def toml_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def tables_of(names: Sequence[str]) -> list[Table]:
    """As many tables as names, so that each of these has each place once."""
    turned = [[*names[n:], *names[:n]] for n in range(len(names))]
    return [
        Table(n, dict(zip(PLACES, turn[:: len(names) // len(PLACES)], strict=False)))
        for n, turn in enumerate(turned)
    ]


async def words_of(url: str, folder: Path) -> set[str]:
    """The words of the statements that are made for a table of plain names, in every way."""
    file = folder / "plain.toml"
    table = Table(0, {place: f"plain_{place}" for place in PLACES})
    file.write_text(table.toml())
    superuser = await asyncpg.connect(url)
    await superuser.execute(table.sql())
    planned = await triggers.plan(superuser, declarations(file))
    made = [body for each in planned.log.tables.values() for body in each.statements()]
    async with sited(as_login(url), file, 4) as site:
        with statements.kept() as sent:
            await read_in_every_way(site, "table-0", table)
        made += [each for each in sent if "table_0" in each]
    await superuser.execute(f"DROP TABLE {table.relation}")
    await superuser.close()
    assert any("row_to_json" in each for each in made)
    assert any("record_send" in each for each in made) or encoder.MISSING
    return {word for word in statements.words(made) if not word.startswith("plain_")}


def drawn(dice: random.Random) -> str:
    """A name as nobody would choose it: any characters, up to PostgreSQL's 63 bytes."""
    letters = "aZ ß\"'`.,;:{}()[]%$\\/*-+=<>?&#@~^|!_1\t\n💍\u202e\ufeff" + chr(
        dice.randint(1, 0xD7FF)
    )
    name = "".join(dice.choice(letters) for _ in range(dice.randint(1, 30)))
    # An order takes a minus in front for its direction.
    return name.encode()[:63].decode(errors="ignore").lstrip("-") or "x"


@pytest.fixture(scope="module")
async def url(log_database: str) -> str:
    superuser = await asyncpg.connect(log_database)
    await superuser.execute(SCHEMA)
    await superuser.close()
    return log_database


@pytest.fixture(scope="module")
async def tables(url: str, tmp_path_factory: pytest.TempPathFactory) -> list[Table]:
    found = await words_of(url, tmp_path_factory.mktemp("plain"))
    names = {*found, *ALWAYS}
    dice = random.Random(15)
    names.update(drawn(dice) for _ in range(16))
    names -= {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"}  # no column can have these
    made = tables_of(sorted(names))[::EVERY]
    superuser = await asyncpg.connect(url)
    for table in made:
        await superuser.execute(table.sql())
    await superuser.execute("ANALYZE")
    await superuser.close()
    return made


@pytest.fixture(scope="module")
async def file(tables: list[Table], url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("named") / "datasets.toml"
    made.write_text("\n".join(table.toml() for table in tables))
    superuser = await asyncpg.connect(url)
    _, findings = await resolve(superuser, declarations(made))
    assert not [f for f in findings if f.severity == "error" and "owns" not in f.what]
    await triggers.install_for(superuser, made)
    for table in tables:  # whose triggers tell of it
        order, key = (oracle.identifier(table.names[p]) for p in ("order", "key"))
        await superuser.execute(f"UPDATE {table.relation} SET {order} = {order} WHERE {key} = 1")
    await superuser.close()
    return made


async def expected(superuser: asyncpg.Connection, table: Table, order: str = "key") -> list[str]:
    """The tenant's rows as PostgreSQL has them."""
    by = ", ".join(oracle.identifier(table.names[p]) for p in dict.fromkeys((order, "key")))
    rows = f"{table.relation} WHERE {oracle.identifier(table.names['tenant'])} = '{TENANT}'"
    return await oracle.objects(superuser, rows, table.shown, by)


WAYS: Final[Sequence[tuple[SourceName, int]]] = (
    *(("projection", 1), ("cursor", 1), ("copy", 1), ("copy", 3)),
)


async def read_in_every_way(site: Site, name: str, table: Table) -> dict[str, list[str]]:
    """The rows by every source and in a row's own way, in the order of the key and another."""
    found: dict[str, list[str]] = {}
    kept = {f"{table.names['filter']}.eq": "kept 1", "order": "other"}
    for source, most in WAYS if encoder.MISSING is None else WAYS[:1]:
        asked = Site(site.pool, site.datasets, site.who, most)
        for order in ("key", "other"):
            read = await asked.read(asked.query(name, source, order=order))
            found[f"{source} {most} {order}"] = [record.decode() for record in read.records]
        for more in ({"after": "order 1,1"}, {"format": "csv", "limit": "3"}):
            await asked.read(asked.query(name, source, **more, **kept))
    dataset = site.datasets[name]
    wanted = statement.one_row(dataset, tuple(dataset.columns.values()), ("5",), site.who)
    async with transaction.reading(site.pool, site.who, Stages()) as reading:
        row = await reading.connection.fetchval(wanted.sql, *wanted.arguments)
    found["one row"] = [row.decode()]
    return found


@DRAWN
async def test_every_source_sends_the_row_whatever_its_columns_are_called(
    tables: list[Table], file: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice.candidate, "__defaults__", (0,))
    monkeypatch.setattr(parallel.ParallelCopy, "_range_rows", lambda *_: 2)
    monkeypatch.setattr(parallel, "SURELY_LONG", 0)
    superuser = await asyncpg.connect(url)
    async with sited(as_login(url), file, 4) as site:
        for table in tables:
            rows = {order: await expected(superuser, table, order) for order in ("key", "order")}
            found = await read_in_every_way(site, f"table-{table.number}", table)
            for way, records in found.items():
                wanted = (
                    rows["key"][4:5]
                    if way == "one row"
                    else (rows["order" if way.endswith("other") else "key"])
                )
                assert records == wanted, (way, table.names)
    await superuser.close()


@pytest.fixture(scope="module", params=["encoder", "no encoder"])
def service_url(
    request: pytest.FixtureRequest, file: Path, url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """The URL of a service with the encoder, and of one without; and the first of its tables."""
    folder = tmp_path_factory.mktemp("service")
    settings = without_encoder(folder) if request.param == "no encoder" else {}
    with serving(as_login(url), datasets=file, settings=settings) as running:
        yield running.url, int(request.param == "no encoder")


@DRAWN
async def test_every_format_and_path_shows_the_row_whatever_its_columns_are_called(
    tables: list[Table], service_url: tuple[str, int], url: str
) -> None:
    """Of all tables; in `make test` either service has every other one."""
    address, first = service_url
    every = 1 if share(2, 2) == 2 else 2
    superuser = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    async with aiohttp.ClientSession(address, headers=bearer(TENANT)) as session:
        for table in tables[first % every :: every]:
            await assert_shown(session, superuser, table)
    await superuser.close()


async def assert_shown(
    session: aiohttp.ClientSession, superuser: asyncpg.Connection, table: Table
) -> None:
    path, rows = f"/v1/feeds/table-{table.number}", await expected(superuser, table)
    ordered = await expected(superuser, table, "order")
    where = f"{table.relation} WHERE {oracle.identifier(table.names['tenant'])} = '{TENANT}'"
    by = oracle.identifier(table.names["key"])
    cells = await oracle.cells(superuser, where, table.shown, by)
    odd = [row for row in rows if row.count("kept 1")]
    name = f"{table.names['filter']}.eq"

    async def body(path: str, **parameters: str) -> str:
        async with session.get(path, params=parameters) as answer:
            text = await answer.text()
            assert answer.status == 200, (table.names, parameters, text)
            return text

    # Pages in each format, and a stream in one of them; in `make test` two formats of a table.
    turned = [*FORMATS, *FORMATS][table.number // (2 * EVERY) % 4 :]
    for most, forms in ((4, turned[1 : 1 + share(4, 2)]), (1000, turned[:1])):
        for form in forms:
            guard = {"guard": "off"} if form == "csv" else {}
            shown = await body(path, format=form, limit=str(most), **guard)
            oracle.assert_body(form, shown, table.shown, rows[:most], cells[:most])
    assert oracle.lines(await body(path, format="ndjson", order="other")) == ordered
    behind = await body(path, format="ndjson", after="3", limit="2")
    assert oracle.lines(behind) == rows[3:5]
    assert oracle.lines(await body(path, format="ndjson", **{name: "kept 1"})) == odd
    assert await body(f"{path}/2") == rows[1] + "\n"
