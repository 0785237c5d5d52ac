"""A service with a table of cells: text that may be run, beside columns that can't be."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg

from tests.support import servers
from tests.support.csv_rule import CELLS
from tests.support.service import Running, bearer, serving

SOURCES = ("cells", "projected")
"""Two datasets over the one table: by the usual way, and as PostgreSQL itself encodes."""

# amount, ratio, price, whole, at, local, day, note
AMOUNTS = (
    ("1234.50", "0.25", "1.5", "7", "2026-05-30 15:30:00.999999+00", "2026-05-30 17:30:00.5",
     "2026-05-30", "a;b"),
    ("-0.05", "-1e-7", "-2.5e20", "-9", "2026-12-31 23:59:59+00", "2026-01-01", "0044-03-15 BC",
     "=1"),
    ("NaN", "NaN", "Infinity", "0", "infinity", "-infinity", "infinity", ""),
    ("-Infinity", "-Infinity", "NaN", "1", "-infinity", "infinity", "-infinity", None),
    ("3", None, None, None, "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00.7 BC", None, "1,5"),
    ("1e20", "1e300", "0.1", "2", "294276-12-31 23:59:59.9+00", "294276-12-31 23:59:59.9",
     "10000-01-01", "x"),
    ("0.000", "2", "3", "4", "4714-11-24 00:00:00+00 BC", "4714-11-24 00:00:00 BC", "2000-02-29",
     "'"),
    ("1.10", "0.5", "0.5", "5", "2026-03-29 01:00:00+00", "2026-03-29 02:30:00", "2026-03-29", "y"),
)  # fmt: skip

_DATASET = """
[{name}]
relation = "{schema}.cells"
columns = ["id", "cell", "short", "whole", "amount", "real", "day", "at", "yes"]
key = ["id"]
orders = {{ cell = ["cell"] }}
shared = true
source = "{source}"

[{name}_amounts]
relation = "{schema}.amounts"
key = ["id"]
orders = {{ at = ["at"], amount = ["amount"] }}
tags = []
shared = true
source = "{source}"

[{name}_headed]
relation = "{schema}.headed"
key = ["id"]
shared = true
source = "{source}"
"""


@asynccontextmanager
async def cells_served(
    admin_url: str, folder: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """The service, with a row for each of `CELLS`; `headed` has a column that is a formula."""
    schema = f"cells_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(admin_url)
    await admin.execute(f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {schema}.cells (
            id int PRIMARY KEY, cell text NOT NULL, short varchar(60) NOT NULL,
            whole int NOT NULL, amount numeric NOT NULL, real float8 NOT NULL,
            day date NOT NULL, at timestamptz NOT NULL, yes boolean NOT NULL
        );
        CREATE TABLE {schema}.amounts (
            id int PRIMARY KEY, amount numeric NOT NULL, ratio float8, price real, whole bigint,
            at timestamptz NOT NULL, local timestamp, day date, clock time, note text,
            list numeric[], doc jsonb, cash money
        );
        CREATE INDEX ON {schema}.amounts (at, id);
        CREATE INDEX ON {schema}.amounts (amount, id);
        CREATE TABLE {schema}.headed (id int PRIMARY KEY, "=1+1" int, "a;=2" int, " +b" int);
        GRANT USAGE ON SCHEMA {schema} TO {servers.LOGIN};
        GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {servers.LOGIN};
    """)
    await admin.executemany(
        f"INSERT INTO {schema}.cells VALUES ($1, $2, $2::text, -1, -2.50, '-1e300',"
        " '-infinity', '-infinity', false)",
        list(enumerate(CELLS)),
    )
    await admin.executemany(
        f"INSERT INTO {schema}.amounts SELECT ($1::text[])[1]::int, ($1::text[])[2]::numeric,"
        " ($1::text[])[3]::float8, ($1::text[])[4]::real, ($1::text[])[5]::bigint,"
        " ($1::text[])[6]::timestamptz, ($1::text[])[7]::timestamp, ($1::text[])[8]::date,"
        " '17:30', ($1::text[])[9], '{1.5,-2.25}', '{\"a\": 1.5}', '-1234.5'",
        [([str(number), *row],) for number, row in enumerate(AMOUNTS)],
    )
    declared = folder / "datasets.toml"
    declared.write_text(
        "".join(
            _DATASET.format(name=name, schema=schema, source=source)
            for name, source in zip(SOURCES, ("auto", "projection"), strict=True)
        )
    )
    try:
        with serving(servers.as_login(admin_url), datasets=declared, settings=settings) as running:
            yield running
    finally:
        await admin.execute(f"DROP SCHEMA {schema} CASCADE")
        await admin.close()


async def body(http: aiohttp.ClientSession, path: str) -> bytes:
    """The whole body of a feed."""
    async with http.get(f"/v1/feeds/{path}", headers=bearer()) as answer:
        assert answer.status == 200
        return await answer.read()
