"""A service with a table of cells: text that may be run, beside columns that can't be."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from tests.support import servers
from tests.support.csv_rule import CELLS
from tests.support.service import Running, serving

SOURCES = ("cells", "projected")
"""Two datasets over the one table: by the usual way, and as PostgreSQL itself encodes."""

_DATASET = """
[{name}]
relation = "{schema}.cells"
columns = ["id", "cell", "short", "whole", "amount", "real", "day", "at", "yes"]
key = ["id"]
orders = {{ at = ["at"], amount = ["amount"] }}
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
        CREATE TABLE {schema}.headed (id int PRIMARY KEY, "=1+1" int, "a;=2" int, " +b" int);
        CREATE INDEX ON {schema}.cells (at, id);
        CREATE INDEX ON {schema}.cells (amount, id);
        GRANT USAGE ON SCHEMA {schema} TO {servers.LOGIN};
        GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {servers.LOGIN};
    """)
    await admin.executemany(
        f"INSERT INTO {schema}.cells VALUES ($1, $2, $2::text, -1, -2.50, '-1e300',"
        " '-infinity', '-infinity', false)",
        list(enumerate(CELLS)),
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
