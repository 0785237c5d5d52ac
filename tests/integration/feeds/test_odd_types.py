"""A table of 96 columns of odd types: each feed is PostgreSQL's own `row_to_json`, in every way.

Types over types: domains over domains, arrays and ranges of both, composites of all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp
import asyncpg
import pytest

from streams.formats import FORMATS
from tests.integration.feeds.foreign import oracle
from tests.support.servers import LOGIN, as_login
from tests.support.service import bearer, serving
from tests.support.sources import without_encoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

TYPES: Final = """
CREATE SCHEMA odd;
CREATE TYPE odd.mood AS ENUM ('sad, "very"', '=happy', '');
CREATE DOMAIN odd.d1 AS numeric(12, 4);
CREATE DOMAIN odd.d2 AS odd.d1 CHECK (VALUE > -1e7);
CREATE DOMAIN odd.words AS text[];
CREATE DOMAIN odd.sheet AS json;
CREATE DOMAIN odd.moody AS odd.mood;
CREATE TYPE odd.pair AS (a odd.d2, "b c" odd.words, json json, at timestamptz);
CREATE TYPE odd.nest AS (p odd.pair, ps odd.pair[], m odd.moody);
CREATE TYPE odd.floats AS RANGE (subtype = float8, subtype_diff = float8mi);
"""
# Two values of each type; every second row has NULL beside them.
VALUES: Final = {
    "bit(3)": ("101", "000"),
    "bit varying": ("1", ""),
    "money": ("-1,234.56", "0"),
    "regconfig": ("english", "simple"),
    "pg_lsn": ("16/B374D848", "0/0"),
    "txid_snapshot": ("10:20:10,14", "1:1:"),
    "pg_snapshot": ("10:20:10,14", "1:1:"),
    "xid": ("4294967295", "0"),
    "xid8": ("18446744073709551615", "0"),
    "cid": ("7", "0"),
    "tid": ("(1,2)", "(0,0)"),
    "oid": ("4294967295", "0"),
    "regclass": ("pg_class", "0"),
    "regproc": ("textsend", "0"),
    "regtype": ("int4[]", "0"),
    "regnamespace": ("odd", "0"),
    "int2vector": ("1 2 -3", ""),
    "oidvector": ("1 4294967295", ""),
    '"char"': ("x", ""),
    "name": ('na"me', ""),
    "char(5)": ("ab", ""),
    "varchar(4)": ("=1,2", ""),
    "interval": ("178000000 years", "-1 mon +1 day -00:00:00.000001"),
    "interval day to second(2)": ("3 days 04:05:06.789", "0"),
    "time(3)": ("24:00", "00:00:00.1"),
    "timetz": ("12:00:00.5+05:30", "00:00-15:59:59"),
    "timestamp(0)": ("infinity", "4714-11-24 00:00 BC"),
    "timestamptz(3)": ("-infinity", "294276-12-31 23:59:59.999+00"),
    "date": ("infinity", "0044-03-15 BC"),
    "numeric": ("NaN", "1e-300"),
    "numeric(5,-2)": ("123456", "0"),
    "real": ("-Infinity", "1e-45"),
    "double precision": ("NaN", "-0"),
    "bytea": ("\\x00ff22", "\\x"),
    "uuid": ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "inet": ("10.0.0.1/8", "::1"),
    "cidr": ("10.0.0.0/8", "::/0"),
    "macaddr": ("08:00:2b:01:02:03", "00:00:00:00:00:00"),
    "macaddr8": ("08:00:2b:01:02:03:04:05", "00:00:00:00:00:00:00:00"),
    "point": ("(Infinity,NaN)", "(0,-0)"),
    "line": ("{1,2,3}", "{0,1,0}"),
    "lseg": ("[(0,0),(1,1)]", "[(0,0),(0,0)]"),
    "box": ("(1,1),(0,0)", "(0,0),(0,0)"),
    "path": ("[(0,0),(1,1)]", "((0,0))"),
    "polygon": ("((0,0),(1,1),(1,0))", "((0,0))"),
    "circle": ("<(0,0),5>", "<(1,2),0>"),
    "tsvector": ("a:1A fat:2 'q u'''", ""),
    "tsquery": ("fat & !rat:*", ""),
    "jsonpath": ('$.a[*] ? (@ > 1 && @.b == "x")', "strict $"),
    "json": ('{"a":\n[1.10, null]}', '" x "'),
    "jsonb": ('{"a": [1.10, null, "\\n"]}', "{}"),
    "int4range": ("[1,5)", "empty"),
    "int8range": ("(,9223372036854775807)", "empty"),
    "numrange": ("[1.50,NaN]", "(,)"),
    "tsrange": ("[2026-01-01,infinity)", "empty"),
    "tstzrange": ("(,2026-01-01 00:00+01]", "empty"),
    "daterange": ("[2026-01-01,)", "empty"),
    "int4multirange": ("{[1,2),[5,9)}", "{}"),
    "datemultirange": ("{[2026-01-01,2026-02-01)}", "{}"),
    "odd.floats": ("[0.1,1e300)", "empty"),
    "odd.mood": ('sad, "very"', ""),
    "odd.moody": ("=happy", ""),
    "odd.d1": ("1.5", "-3"),
    "odd.d2": ("0", "1.2345"),
    "odd.words": ('{a,NULL,"q\\"",""}', "{}"),
    "odd.sheet": ("[1,\r\n 2]", "null"),
    "odd.pair": ('(1.5,"{a,b}","{\n}",infinity)', "(,,,)"),
    "odd.nest": ('("(1,{x},1,)","{}","=happy")', "(,,)"),
}
ARRAYS: Final = (
    *("bit varying", "money", "pg_lsn", "xid8", '"char"', "name", "interval", "timetz", "date"),
    *("numeric", "real", "bytea", "uuid", "inet", "macaddr", "point", "circle", "tsvector", "json"),
    *("jsonb", "int4range", "int4multirange", "odd.floats", "odd.mood", "odd.d2", "odd.pair"),
    *("jsonpath", "regtype"),
)
COLUMNS: Final = [*VALUES, *(f"{kind}[]" for kind in ARRAYS)]


def script() -> str:
    declared = [f"{oracle.identifier(f'{n} {kind}')} {kind}" for n, kind in enumerate(COLUMNS)]
    columns = ", ".join(declared)
    rows = []
    for number in range(1, 7):
        values = []
        for position, kind in enumerate(COLUMNS):
            plain = kind.removesuffix("[]")
            value = oracle.literal(VALUES[plain][number % 2])
            if (number + position) % 5 == 0:
                value = "NULL"
            if kind.endswith("[]"):
                value = f"ARRAY[{value}::{plain}, NULL]::{kind}"
            values.append(value)
        rows.append(f"({number}, {', '.join(values)})")
    return f"""
    {TYPES}
    CREATE TABLE odd.types (id int PRIMARY KEY, {columns});
    INSERT INTO odd.types VALUES {", ".join(rows)};
    GRANT USAGE ON SCHEMA odd TO {LOGIN};
    GRANT SELECT ON odd.types TO {LOGIN};
    """


@pytest.fixture(scope="module")
async def url(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(script=script()) as made:
        yield made


@pytest.fixture(scope="module", params=["encoder", "no encoder"])
def service_url(
    request: pytest.FixtureRequest, url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("odd")
    file = folder / "datasets.toml"
    ways = ("auto", "copy", "cursor", "projection")
    file.write_text(
        "\n".join(
            f'[{way}]\nrelation = "odd.types"\nkey = ["id"]\nshared = true\nsource = "{way}"'
            for way in ways
        )
    )
    settings = without_encoder(folder) if request.param == "no encoder" else {}
    settings |= {"FEEDSVC_STREAMS__COPY_AFTER": "0"}
    with serving(as_login(url), datasets=file, settings=settings) as running:
        yield running.url


def test_they_are_ninety_six() -> None:
    assert len(COLUMNS) == 96


async def test_each_row_is_row_to_jsons_in_every_format_and_path(
    service_url: str, url: str
) -> None:
    oracle_of = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    columns = ["id", *(f"{n} {kind}" for n, kind in enumerate(COLUMNS))]
    source = (oracle_of, "odd.types", columns, "id")
    rows, cells = await oracle.objects(*source), await oracle.cells(*source)
    async with aiohttp.ClientSession(service_url, headers=bearer()) as http:
        for way in ("auto", "copy", "cursor", "projection"):
            for form in FORMATS:
                for more in ({}, {"limit": "6"}):
                    guard = {"guard": "off"} if form == "csv" else {}
                    given = {"format": form, **guard, **more}
                    async with http.get(f"/v1/feeds/{way}", params=given) as answer:
                        body = await answer.text()
                        assert answer.status == 200, body
                    oracle.assert_body(form, body, columns, rows, cells)
            for number, row in enumerate(rows, 1):
                async with http.get(f"/v1/feeds/{way}/{number}") as answer:
                    assert await answer.text() == row + "\n"
    await oracle_of.close()
