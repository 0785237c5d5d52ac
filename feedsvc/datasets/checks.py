"""Checks before the service answers: its login, and its datasets on the real relations."""

from collections.abc import Mapping
from typing import Final

import asyncpg

from feedsvc.backends.postgres import pool
from feedsvc.backends.postgres.login import login_findings
from feedsvc.backends.postgres.sessions import POOLED_BY_TRANSACTION
from feedsvc.core.finding import Finding
from feedsvc.datasets import catalog, row_security
from feedsvc.datasets.dataset import Dataset, Declaration, declarations
from feedsvc.datasets.read_rights import right_findings
from feedsvc.datasets.resolution import resolved
from feedsvc.datasets.tag_checks import tag_findings
from feedsvc.settings import Settings

_WHICH: Final = "select pg_backend_pid()"
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
    """Why sessions of this database can't be used, whatever the datasets are."""
    if await _is_pooled_by_transaction(connection, settings):
        return [Finding("error", "database.url", POOLED_BY_TRANSACTION)]
    return []


async def inspected(
    connection: asyncpg.Connection, settings: Settings, declared: Mapping[str, Declaration]
) -> tuple[dict[str, Dataset], list[Finding]]:
    """The same for declarations that have a schema and a key."""
    datasets, found = await catalog.resolve(connection, declared)
    findings = await login_findings(connection)
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


async def _is_pooled_by_transaction(connection: asyncpg.Connection, settings: Settings) -> bool:
    """Whether two sessions that are open at the same time are one and the same to PostgreSQL.

    A pooler in session mode gives another one while the first is open.
    """
    own = await connection.fetchval(_WHICH)
    if own == connection.get_server_pid():
        return False  # no pooler stands between
    other = await pool.connect(settings.database, application_name="feedsvc start")
    try:
        return bool(await other.fetchval(_WHICH) == own)
    finally:
        other.terminate()
