"""The PostgreSQL behind these tests, and databases of their own on it."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import asyncpg
import pytest

from feedsvc.embedded import start_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class NewDatabase(Protocol):
    """Makes a fresh empty database, and drops it at the end."""

    def __call__(self) -> AbstractAsyncContextManager[str]: ...


@pytest.fixture(scope="session")
def admin_url() -> Iterator[str]:
    """A superuser's DSN: the server of FEEDSVC_TEST_ADMIN_URL, or one started for the session."""
    if named := os.environ.get("FEEDSVC_TEST_ADMIN_URL"):
        yield named
        return
    with _throw_away_server() as url:
        yield url


@pytest.fixture
def own_server() -> Iterator[str]:
    """A superuser's DSN of a server that no other test uses, for what a whole cluster shares."""
    with _throw_away_server() as url:
        yield url


@contextmanager
def _throw_away_server() -> Iterator[str]:
    # Not mkdtemp, whose folders the account that PostgreSQL runs as can't enter.
    folder = Path(tempfile.gettempdir(), f"feedsvc-tests-{uuid.uuid4().hex}")
    try:
        with start_postgres(folder) as server:
            yield server.url()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(admin_url: str) -> NewDatabase:
    @asynccontextmanager
    async def make() -> AsyncIterator[str]:
        name = f"test_{uuid.uuid4().hex}"
        admin = await asyncpg.connect(admin_url)
        try:
            await admin.execute(f"CREATE DATABASE {name}")
            yield urlsplit(admin_url)._replace(path=f"/{name}").geturl()
        finally:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            await admin.close()

    return make


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[str]:
    """The superuser's DSN of a fresh empty database."""
    async with new_database() as dsn:
        yield dsn
