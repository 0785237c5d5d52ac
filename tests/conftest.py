"""What every test may use: databases with the demo's world, and services on them.

One PostgreSQL and one Redis (`--redis`) serve the whole run, all workers of pytest-xdist included:
whoever is not such a worker starts them, and their addresses reach them in the environment.
"""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import aiohttp
import asyncpg
import hypothesis
import pytest

from tests.support import redis_server, servers
from tests.support.forked import fork_server
from tests.support.service import Running, serving

# An example during which a full garbage collection falls takes longer than Hypothesis's 200 ms.
hypothesis.settings.register_profile(
    "feedsvc", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("feedsvc")

_STACK = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    config.stash[_STACK] = ExitStack()
    if not config.getoption("no_servers"):
        config.stash[_STACK].enter_context(fork_server())
        config.stash[_STACK].enter_context(servers.shared_postgres())
        config.stash[_STACK].enter_context(redis_server.shared_redis(config.getoption("redis")))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _STACK in config.stash:
        config.stash[_STACK].close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-servers", action="store_true", help="unit tests alone: start no server")
    parser.addoption(
        "--redis",
        choices=redis_server.KINDS,
        default=os.environ.get(redis_server.CHOSEN, "redis"),
        help="which Redis the services of the tests have",
    )


@pytest.fixture(scope="session")
def admin_url() -> str:
    """The superuser's URL of the run's PostgreSQL."""
    return os.environ[servers.ADMIN_URL]


@pytest.fixture(scope="session")
async def world_admin_url(admin_url: str) -> AsyncIterator[str]:
    """The superuser's URL of a database with the demo's world, this worker's own."""
    name = f"world_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(admin_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {servers.TEMPLATE} STRATEGY file_copy")
    try:
        yield servers.with_database(admin_url, name)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture(scope="session")
def world_url(world_admin_url: str) -> str:
    """The service's own login on the same database."""
    return servers.as_login(world_admin_url)


@pytest.fixture(scope="session")
def service(world_url: str) -> Iterator[Running]:
    """A service on the demo's world that tests share; whoever breaks things starts its own."""
    with serving(world_url) as running:
        yield running


@pytest.fixture(scope="session")
async def http(service: Running) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the shared service, whose requests are paths."""
    async with aiohttp.ClientSession(service.url) as session:
        yield session


@pytest.fixture
async def world(world_admin_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the demo's world: the oracle."""
    connection = await asyncpg.connect(world_admin_url, server_settings={"timezone": "UTC"})
    try:
        yield connection
    finally:
        await connection.close()
