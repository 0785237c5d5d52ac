"""Faults of a migrated line, by the catalog."""

from pathlib import Path
from typing import Final

from asyncpg import Connection

from feedsvc.backends.postgres.migrations.lines import Territory

_SQL: Final = (Path(__file__).parent / "findings.sql").read_text(encoding="utf-8")


async def catalog_findings(connection: Connection, territory: Territory) -> list[str]:
    """One sentence for each fault, in a stable order."""
    rows = await connection.fetch(
        _SQL, territory.schema, territory.role, sorted(territory.open_tables)
    )
    return [row["finding"] for row in rows]
