"""SQL for a login of the service's own: what it needs for its datasets, and nothing above that."""

import secrets
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Final

import asyncpg

from feedsvc.datasets.dataset import Declaration
from feedsvc.datasets.read_rights import relations_read, select_grant, usage_grant

_NAME: Final = "feeds"
_ROLES: Final = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, 'fe')"
_GROUP: Final = "feedsvc_service"


async def login_sql(
    connection: asyncpg.Connection, declarations: Mapping[str, Declaration]
) -> list[str]:
    """Statements to be run by a superuser on this database; the password is made here, once."""
    taken = {row["rolname"] for row in await connection.fetch(_ROLES)}
    names = (_NAME if n == 1 else f"{_NAME}{n}" for n in count(1))
    role = next(name for name in names if name not in taken)
    password = secrets.token_urlsafe(24)
    grants = [
        *await _grants(connection, declarations, role),
        *([f"GRANT {_GROUP} TO {role}"] if _GROUP in taken else []),
    ]
    return [f"CREATE ROLE {role} LOGIN PASSWORD '{password}'", *dict.fromkeys(grants)]


async def _grants(
    connection: asyncpg.Connection, declarations: Mapping[str, Declaration], role: str
) -> Iterator[str]:
    read = await relations_read(connection, declarations)
    mine = [each for reads in read.values() for each in reads if each.as_login]
    entered = (usage_grant(each, role) for each in mine if each.is_itself)
    selected = (select_grant(each, role) for each in mine)
    return iter([*entered, *selected])
