"""The PostgreSQL behind these tests, and databases of their own on it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.servers import LOG_TEMPLATE, copied_database, copied_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class NewDatabase(Protocol):
    """Makes a fresh database, empty or a template's copy, and drops it at the end."""

    def __call__(
        self, template: str = "template1", *, script: str = ""
    ) -> AbstractAsyncContextManager[str]: ...


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
    return partial(copied_database, admin_url)


@pytest.fixture(scope="module")
async def log_database(new_database: NewDatabase) -> AsyncIterator[str]:
    """The superuser's DSN of a database with a change log that a module's tests share."""
    async with new_database(LOG_TEMPLATE) as dsn:
        yield dsn


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[str]:
    """The superuser's DSN of a fresh empty database."""
    async with new_database() as dsn:
        yield dsn
