"""What must hold before the service answers: its login, and its datasets on the real relations."""

from typing import Final

import asyncpg

from feedsvc import catalog, protection
from feedsvc.catalog import Finding
from feedsvc.datasets import Dataset, declarations
from feedsvc.settings import Settings

_AUDIT_SQL: Final = (
    "select coalesce(has_table_privilege(to_regclass('feedsvc.audit'), 'insert'), false)"
)


async def inspect(
    connection: asyncpg.Connection, settings: Settings
) -> tuple[dict[str, Dataset], list[Finding]]:
    """The datasets, and every finding about them and about the login. Raises DatasetsError."""
    declared = declarations(settings.datasets.file)
    datasets, found = await catalog.resolve(connection, declared)
    findings = await protection.login_findings(connection)
    findings += found
    findings += await protection.relation_findings(connection, declared)
    if settings.audit.enabled and not await connection.fetchval(_AUDIT_SQL):
        what = (
            "nobody writes down who reads what, for the login can't write to feedsvc.audit: "
            "run `feedsvc migrate up`, and GRANT feedsvc_service to it"
        )
        findings.append(Finding("warning", "audit.enabled", what))
    return datasets, findings
