"""Tables of bench.*: the first tenant's clients, again and again under new ids."""

from collections.abc import Sequence
from typing import Final

import asyncpg

# Secured as wedding.clients is (0003_access.up.sql), for that is part of what a row costs.
_MAKE: Final = """
    DROP TABLE IF EXISTS {relation};
    CREATE TABLE {relation} (LIKE wedding.clients);
    INSERT INTO {relation} (id, {columns})
    SELECT row_number() OVER (), {columns}
    FROM generate_series(1, {copies}),
        LATERAL (SELECT * FROM wedding.clients WHERE tenant_id = '{tenant}' ORDER BY id) AS c
    LIMIT {rows};
    ALTER TABLE {relation} ADD UNIQUE (tenant_id, id);
    ALTER TABLE {relation} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY own_tenant ON {relation} FOR SELECT TO wedding_reader USING (
        tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
        AND ((SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
             OR id::text = (SELECT current_setting('feedsvc.client', true)))
    );
    GRANT SELECT ON {relation} TO wedding_reader
"""
_SCHEMA: Final = """
    CREATE SCHEMA IF NOT EXISTS bench;
    GRANT USAGE ON SCHEMA bench TO wedding_reader;
    SET max_parallel_workers_per_gather = 0;
    SET maintenance_work_mem = '256MB'
"""
DEAR: Final = "bench.dear"
"""The rows of one of them, with columns that PostgreSQL has to work for."""

_MAKE_DEAR: Final = f"""
    CREATE VIEW {DEAR} WITH (security_invoker = true) AS
    SELECT *,
        encode(sha512(convert_to(coalesce(notes, '') || partner_one, 'UTF8')), 'hex') AS digest,
        regexp_replace(coalesce(notes, '') || partner_two, '[aeiou]+', '_', 'g') AS masked,
        upper(coalesce(venue, '') || partner_one) AS shouted
    FROM {{relation}};
    GRANT SELECT ON {DEAR} TO wedding_reader
"""
_COLUMNS: Final = """
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = 'wedding.clients'::regclass AND attnum > 0 AND attname <> 'id'
    AND NOT attisdropped
"""
_MADE_OF: Final = "SELECT obj_description(to_regclass($1), 'pg_class')"
_SEEDED: Final = (
    "SELECT format('rows %s, seed %s, version %s', rows, seed, version) FROM wedding.seeding"
)


def table(rows: int) -> str:
    """The name of the table with so many rows, and of its dataset."""
    return f"rows_{rows}"


async def make_tables(
    connection: asyncpg.Connection, tenant: str, sizes: Sequence[int], dear: int
) -> None:
    """Make what isn't there yet, or was made of other clients than there are now.

    `dear` is the size of the one that has dear columns, too.
    """
    await connection.execute(_SCHEMA)
    await connection.execute(f"DROP VIEW IF EXISTS {DEAR}")
    made_of = await connection.fetchval(_SEEDED)
    for rows in sizes:
        relation = f"bench.{table(rows)}"
        if await connection.fetchval(_MADE_OF, relation) != made_of:
            await _make(connection, relation, tenant, rows)
            await connection.execute(f"COMMENT ON TABLE {relation} IS '{made_of}'")
    await connection.execute(_MAKE_DEAR.format(relation=f"bench.{table(dear)}"))


async def _make(connection: asyncpg.Connection, relation: str, tenant: str, rows: int) -> None:
    columns = await connection.fetchval(_COLUMNS)
    clients = await connection.fetchval(
        "SELECT count(*) FROM wedding.clients WHERE tenant_id = $1", tenant
    )
    statements = _MAKE.format(
        relation=relation,
        columns=columns,
        tenant=tenant,
        rows=rows,
        copies=-(-rows // clients),
    )
    async with connection.transaction():
        await connection.execute(statements)
    await connection.execute(f"VACUUM (ANALYZE) {relation}")
