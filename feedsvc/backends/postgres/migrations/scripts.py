"""The .sql files beside the revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg
    from alembic.operations import Operations


def run_script(op: Operations, script: Path) -> None:
    """Runs a file of several statements within the revision's transaction.

    Raises asyncpg.PostgresError with PostgreSQL's own words.
    """
    sql = script.read_text(encoding="utf-8")
    bound = op.get_bind()
    # SQLAlchemy's asyncpg adapter begins its transaction with the first statement it sees itself;
    # the script below goes round it, because a prepared statement can't hold several.
    bound.exec_driver_sql("SELECT 1")

    async def execute(connection: asyncpg.Connection) -> None:
        await connection.execute(sql)

    adapted = bound.connection.dbapi_connection
    if adapted is None:
        raise RuntimeError("the migration's connection was taken away")
    adapted.run_async(execute)
