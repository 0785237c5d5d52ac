"""The PostgreSQL behind these tests, and databases of their own on it."""

from __future__ import annotations

import uuid
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Protocol

import asyncpg
import pytest

from tests.support.servers import copied_postgres, with_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class NewDatabase(Protocol):
    """Makes a fresh empty database, and drops it at the end."""

    def __call__(self) -> AbstractAsyncContextManager[str]: ...


@pytest.fixture
def own_server() -> Iterator[str]:
    """A superuser's DSN of a server that no other test uses, for what a whole cluster shares."""
    with _throw_away_server() as url:
        yield url


@contextmanager
def _throw_away_server() -> Iterator[str]:
    with copied_postgres() as server:
        yield server.url()


@pytest.fixture(scope="session")
def new_database(admin_url: str) -> NewDatabase:
    @asynccontextmanager
    async def make() -> AsyncIterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        admin = await asyncpg.connect(admin_url)
        try:
            await admin.execute(f"CREATE DATABASE {name}")
            yield with_database(admin_url, name)
        finally:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await admin.close()

    return make


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[str]:
    """The superuser's DSN of a fresh empty database."""
    async with new_database() as dsn:
        yield dsn
