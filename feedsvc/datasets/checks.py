"""Checks before the service answers: its login, and its datasets on the real relations."""

from collections.abc import Mapping
from typing import Final

import asyncpg

from feedsvc.backends.postgres import pool
from feedsvc.backends.postgres.login import login_findings
from feedsvc.backends.postgres.sessions import (
    NOT_KEPT,
    is_direct,
    is_pooled,
    is_pooled_by_transaction,
)
from feedsvc.core.finding import Finding
from feedsvc.datasets import catalog, row_security
from feedsvc.datasets.dataset import Dataset, Declaration, declarations
from feedsvc.datasets.read_rights import right_findings
from feedsvc.datasets.resolution import resolved
from feedsvc.datasets.tag_checks import tag_findings
from feedsvc.settings import Settings

_POOLED: Final = "a pooler hands out sessions by transaction"
_TAKEN: Final = (
    "the service can't tell its own sessions from others', so the repair of sessions is refused:"
    " name PostgreSQL itself",
    "a statement can't stay prepared, so each is parsed and planned anew, a round trip more: name"
    " PostgreSQL itself where small pages are many",
    "an export that reads on several connections could wait for itself, so each reads on one: name"
    " PostgreSQL itself where exports are large",
    "its limit of server connections bounds the pools as well: keep the sum of pools.*.size of all"
    " workers below it (PgBouncer's default_pool_size)",
    "migrations need an own session: let MIGRATION_DATABASE_URL name PostgreSQL itself",
)
"""Each: what, consequence, remedy."""
_UNTOLD: Final = (
    "a pooler stands between, and is taken for one of transactions: set it to"
    ' "session" if its sessions last (statements stay prepared then), or to "transaction"'
)
_SET_UP: Final = "run `feedsvc migrate up`, and GRANT feedsvc_service to it"
_MAY_ADD: Final = "select coalesce(has_table_privilege(to_regclass($1), 'insert'), false)"


async def inspect(
    connection: asyncpg.Connection, settings: Settings
) -> tuple[dict[str, Dataset], list[Finding]]:
    """The datasets, and every finding about them and about the login. Raises DatasetsError."""
    if unusable := await session_findings(connection, settings):
        return {}, unusable
    declared, unresolved = await resolved(connection, declarations(settings.datasets.file))
    datasets, findings = await inspected(connection, settings, declared)
    return datasets, [*unresolved, *findings]


async def session_findings(connection: asyncpg.Connection, settings: Settings) -> list[Finding]:
    """The faults that keep sessions of this database from use, whatever the datasets are."""
    if settings.database.pooler == "session" and await _is_split(connection, settings):
        return [Finding("error", "database.pooler", NOT_KEPT)]
    return []


async def _pooler_findings(connection: asyncpg.Connection, settings: Settings) -> list[Finding]:
    """The losses by a pooler between the service and PostgreSQL."""
    pooler = settings.database.pooler
    if not is_pooled(connection):
        return []
    if pooler == "auto" and not await _is_split(connection, settings):
        return [Finding("warning", "database.pooler", _UNTOLD)]
    return [Finding("warning", "database.url", f"{_POOLED}: {what}") for what in _TAKEN]


async def _is_split(connection: asyncpg.Connection, settings: Settings) -> bool:
    """Return whether a pooler was seen to hand out sessions by transaction."""
    if not is_pooled(connection) and await is_direct(connection):
        return False
    other = await pool.connect(settings.database, application_name="feedsvc start")
    try:
        return await is_pooled_by_transaction(connection, other)
    finally:
        other.terminate()


async def inspected(
    connection: asyncpg.Connection, settings: Settings, declared: Mapping[str, Declaration]
) -> tuple[dict[str, Dataset], list[Finding]]:
    """The same for declarations that have a schema and a key."""
    datasets, found = await catalog.resolve(connection, declared)
    findings = await _pooler_findings(connection, settings)
    findings += await login_findings(connection)
    findings += found
    findings += await tag_findings(connection, declared)
    findings += await row_security.relation_findings(connection, declared)
    findings += await right_findings(connection, declared)
    for wanted, place, table, what in (
        (settings.audit.enabled, "audit.enabled", "audit", "requests are not audited"),
        (settings.metrics.enabled, "metrics.enabled", "performance", "figures are not kept"),
    ):
        if wanted and not await connection.fetchval(_MAY_ADD, f"feedsvc.{table}"):
            why = f"the login can't write to feedsvc.{table}"
            text = f"{what}, for {why}: {_SET_UP}"
            kind = f"neither is kept, for the login can't write to the service's tables: {_SET_UP}"
            findings.append(Finding("warning", place, text, kind=kind))
    return datasets, findings
