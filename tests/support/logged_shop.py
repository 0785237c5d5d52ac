"""Services over tables whose changes are logged: connected to PostgreSQL, and behind a pooler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import asyncpg

from feedsvc.backends.postgres.migrations import runner
from feedsvc.datasets.dataset import declarations
from tests.support import pgbouncer
from tests.support.log_world import install
from tests.support.servers import as_login
from tests.support.service import Running, serving


@dataclass
class LoggedShop:
    """A service, a client of it, and the tables' owner. Files about it have their own, with more.

    `url` is the superuser's of its database, and `file` that of the datasets.
    """

    service: Running
    http: aiohttp.ClientSession
    owner: asyncpg.Connection
    url: str
    file: Path


OneShop = TypeVar("OneShop", bound=LoggedShop)


async def prepare(url: str, file: Path, schema: str, datasets: str) -> None:
    """Make the tables, their log and the datasets file in a fresh database."""
    file.write_text(datasets)
    await runner.up(url, "service")
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(schema)
        await install(owner, declarations(file))
    finally:
        await owner.close()


@asynccontextmanager
async def opened(
    kind: type[OneShop],
    url: str,
    file: Path,
    settings: dict[str, str] | None = None,
    *,
    login: str | None = None,
) -> AsyncIterator[OneShop]:
    """A service with these settings, connected by `login`, else to PostgreSQL itself."""
    owner = await asyncpg.connect(url)
    try:
        with serving(login or as_login(url), datasets=file, settings=settings) as service:
            async with aiohttp.ClientSession(service.url) as http:
                yield kind(service, http, owner, url, file)
    finally:
        await owner.close()


@asynccontextmanager
async def pooled(kind: type[OneShop], url: str, file: Path) -> AsyncIterator[OneShop]:
    """The same behind a pooler of transactions, where a neighbour left its settings."""
    with pgbouncer.pooled_by_transaction(as_login(url)) as login:
        await pgbouncer.leave_settings(login)
        async with opened(kind, url, file, pgbouncer.PATIENT, login=login) as shop:
            yield shop
