"""The rights of the service's login: whether row-level security binds it."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.core.finding import Finding

LOGIN_PLACE: Final = "database.url"
_LOGIN_SQL: Final = (files("feedsvc.backends.postgres") / "login.sql").read_text()
# What each column of login.sql says of a role.
_LOGIN_FAULTS: Final[Mapping[str, str]] = {
    "superuser": "is a superuser, which row-level security does not bind",
    "bypasses": "has BYPASSRLS, so row-level security does not bind it",
    "replicates": "has REPLICATION, and a stream of the log has every tenant's rows in it",
    "makes_roles": "has CREATEROLE, and could make itself a role that is bound by nothing",
    "beside": "reads or writes files or runs programs of the server, beside row-level security",
    "owns": "owns objects, and an owner is above row-level security",
}


async def login_findings(connection: asyncpg.Connection) -> list[Finding]:
    """Roles of the login, also by SET ROLE, that row-level security does not bind."""
    findings: list[Finding] = []
    for role in await connection.fetch(_LOGIN_SQL):
        who = role["login"]
        if role["role"] != who:
            who += f" is a member of {role['role']}, which"
        for column, what in _LOGIN_FAULTS.items():
            if role[column]:
                mend = "give the service a login of its own that has nothing but SELECT"
                findings.append(Finding("error", LOGIN_PLACE, f"{who} {what}: {mend}"))
    return findings
