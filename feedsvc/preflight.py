"""What must hold before the service answers: its login, and its datasets on the real relations."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc import catalog
from feedsvc.catalog import Finding
from feedsvc.datasets import Dataset, declarations
from feedsvc.settings import Settings

_LOGIN_SQL: Final = (files("feedsvc") / "login.sql").read_text()


async def inspect(
    connection: asyncpg.Connection, settings: Settings
) -> tuple[dict[str, Dataset], list[Finding]]:
    """The datasets, and every finding about them and about the login. Raises DatasetsError."""
    declared = declarations(settings.datasets.file)
    login = await connection.fetchrow(_LOGIN_SQL)
    datasets, findings = await catalog.resolve(connection, declared)
    return datasets, [*_login_findings(login), *findings]


def _login_findings(login: asyncpg.Record | None) -> Iterator[Finding]:
    if login is None:
        return
    mistakes = {
        "superuser": "is a superuser, whom row-level security does not bind",
        "bypasses": "has BYPASSRLS, so row-level security does not bind it",
        "owns": "owns objects, and an owner is above row-level security",
    }
    for column, what in mistakes.items():
        if login[column]:
            mend = "give the service a login of its own that has nothing but SELECT"
            yield Finding("error", "database.url", f"{login['name']} {what}: {mend}")
