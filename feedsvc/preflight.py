"""What must hold before the service answers: its login, and its datasets on the real relations."""

from typing import Final

import asyncpg

from feedsvc import catalog, protection
from feedsvc.datasets import Dataset, declarations
from feedsvc.findings import Finding
from feedsvc.read_rights import right_findings
from feedsvc.settings import Settings
from feedsvc.tag_findings import tag_findings

_MAY_ADD: Final = "select coalesce(has_table_privilege(to_regclass($1), 'insert'), false)"


async def inspect(
    connection: asyncpg.Connection, settings: Settings
) -> tuple[dict[str, Dataset], list[Finding]]:
    """The datasets, and every finding about them and about the login. Raises DatasetsError."""
    declared = declarations(settings.datasets.file)
    datasets, found = await catalog.resolve(connection, declared)
    findings = await protection.login_findings(connection)
    findings += found
    findings += await tag_findings(connection, declared)
    findings += await protection.relation_findings(connection, declared)
    findings += await right_findings(connection, declared)
    for wanted, place, table, what in (
        (settings.audit.enabled, "audit.enabled", "audit", "nobody writes down who reads what"),
        (settings.metrics.enabled, "metrics.enabled", "performance", "figures are not kept"),
    ):
        if wanted and not await connection.fetchval(_MAY_ADD, f"feedsvc.{table}"):
            why = f"the login can't write to feedsvc.{table}"
            todo = "run `feedsvc migrate up`, and GRANT feedsvc_service to it"
            findings.append(Finding("warning", place, f"{what}, for {why}: {todo}"))
    return datasets, findings
