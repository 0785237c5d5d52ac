"""Keys of views held against some of their rows: nothing in the catalog proves them unique."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import asyncpg

from feedsvc.core.finding import Finding
from feedsvc.datasets.dataset import Dataset, Declaration, quote_identifier

_ROWS: Final = 10_000
_TENANTS: Final = 3
_TIMEOUT: Final = "SET LOCAL statement_timeout = '5s'"
_SCOPE: Final = """
select set_config('feedsvc.tenant', $1, true), set_config('feedsvc.role', $2, true),
    set_config('feedsvc.client', '', true)
"""
_VIEWS: Final = """
select w.ordinal::int as ordinal
from unnest($1::text[], $2::text[]) with ordinality as w (nspname, relname, ordinal)
join pg_namespace n on n.nspname = w.nspname
join pg_class c on c.relnamespace = n.oid and c.relname = w.relname and c.relkind in ('v', 'f')
"""


async def views_among(
    connection: asyncpg.Connection,
    served: Mapping[str, Dataset],
    declared: Mapping[str, Declaration],
) -> dict[str, Dataset]:
    """The datasets whose relation is a view or a foreign table."""
    places = [(name, declared[name].relation_parts()) for name in served]
    schemas, names = ([parts[n] for _, parts in places] for n in (0, 1))
    rows = await connection.fetch(_VIEWS, schemas, names)
    found = [places[row["ordinal"] - 1][0] for row in rows]
    return {name: served[name] for name in found}


async def key_findings(
    login: asyncpg.Connection, views: Mapping[str, Dataset], tenants: Sequence[str]
) -> list[Finding]:
    """The views that showed two rows with one key, to one of these tenants or to all of them.

    A view that can't be read in time, or in this way, is passed over: its warning stands.
    """
    findings: list[Finding] = []
    for name, dataset in views.items():
        for tenant in tenants if dataset.tenant is not None else ("",):
            with suppress(asyncpg.PostgresError):
                if finding := await _looked_at(login, name, dataset, tenant):
                    findings.append(finding)
                    break
    return findings


async def some_tenants(owner: asyncpg.Connection, views: Mapping[str, Dataset]) -> tuple[str, ...]:
    """A few tenants that have rows, as read by a login that row-level security does not bind."""
    found: dict[str, None] = {}
    for dataset in views.values():
        if dataset.tenant is None:
            continue
        column = quote_identifier(dataset.tenant.name)
        rows = f"SELECT {column} FROM {dataset.relation} LIMIT {_ROWS}"  # noqa: S608 - quoted
        asked = f"SELECT DISTINCT {column}::text FROM ({rows}) AS sampled LIMIT {_TENANTS}"  # noqa: S608
        with suppress(asyncpg.PostgresError):
            async with owner.transaction(readonly=True):
                await owner.execute(_TIMEOUT)
                found |= dict.fromkeys(row[0] for row in await owner.fetch(asked) if row[0])
    return tuple(found)


async def _looked_at(
    login: asyncpg.Connection, name: str, dataset: Dataset, tenant: str
) -> Finding | None:
    columns = dict.fromkeys(column.name for column in dataset.key)
    if dataset.tenant is not None:
        columns[dataset.tenant.name] = None
    listed = ", ".join(map(quote_identifier, columns))
    rows = f"SELECT {listed} FROM {dataset.relation} LIMIT {_ROWS}"  # noqa: S608 - quoted
    groups = f"SELECT count(*) AS n FROM ({rows}) AS sampled GROUP BY {listed}"  # noqa: S608
    seen, alike = "coalesce(sum(n), 0)::int", "coalesce(sum(n) FILTER (WHERE n > 1), 0)::int"
    asked = f"SELECT {seen} AS seen, {alike} AS alike FROM ({groups}) AS keys"  # noqa: S608
    async with login.transaction(readonly=True):
        await login.execute(_TIMEOUT)
        await login.fetch(_SCOPE, tenant, dataset.roles[-1])
        row = await login.fetchrow(asked)
    if row is None or not row["alike"]:
        return None
    key = ", ".join(column.name for column in dataset.key)
    what = f"({key}) is not unique: of {row['seen']:,} rows {row['alike']:,} share theirs"
    return Finding("error", f"{name}.key", what)
