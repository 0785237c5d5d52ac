"""Extensions of the database."""

from typing import Final

import asyncpg

_SCHEMA: Final = (
    "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n"
    " ON n.oid = e.extnamespace WHERE e.extname = $1"
)


async def extension_schema(connection: asyncpg.Connection, name: str) -> str | None:
    """The schema of an extension, as an identifier; None where it is not in the database."""
    found: str | None = await connection.fetchval(_SCHEMA, name)
    return found
