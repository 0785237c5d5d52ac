"""Fixtures for every test: databases with the demo's world, and services on them.

One PostgreSQL and one Redis (`--redis`) serve the whole run, all workers of pytest-xdist included:
the main process starts them, and their addresses reach the workers in the environment.
"""

import gc
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path

import aiohttp
import asyncpg
import hypothesis
import pytest

from tests.support import pgbouncer, redis_server, servers
from tests.support.drawn import DRAWN, share
from tests.support.forked import fork_server
from tests.support.service import Running, serving

hypothesis.settings.register_profile(
    "feedsvc",
    # One during which a full garbage collection falls takes longer than Hypothesis's 200 ms.
    deadline=None,
    max_examples=share(100),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("feedsvc")

_STACK = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # while all that is made is there to stay
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Begin with other files than the other workers, for the first to import one compiles it.

    In a fresh clone each would compile all of them, and pytest's assertions cost most of that.
    """
    if not hasattr(session.config, "workerinput"):
        return
    root = session.config.rootpath
    files = sorted(
        file for folder in session.config.args for file in Path(folder).rglob("test_*.py")
    )
    worker = int(session.config.workerinput["workerid"].removeprefix("gw"))
    first = worker * len(files) // session.config.workerinput["workercount"]
    for file in (*files[first:], *files[:first]):
        with suppress(Exception, pytest.skip.Exception):  # the collection reports it
            import_module(".".join(file.absolute().relative_to(root).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Collect from now on, but not look at thousands of tests again each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and hypothesis.is_hypothesis_test(item.obj):
            item.add_marker(DRAWN)


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
    async with servers.copied_database(admin_url, servers.TEMPLATE) as url:
        yield url


@pytest.fixture(scope="session")
def world_url(world_admin_url: str) -> str:
    """The service's own login on the same database."""
    return servers.as_login(world_admin_url)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `either_way` with each of the shared services, or of a file's own."""
    marked = metafunc.definition.get_closest_marker("either_way")
    fixture = marked.args[0] if marked is not None and marked.args else "service"
    if marked is not None and fixture in metafunc.fixturenames:
        ways = ["direct", pytest.param("pooled", marks=pgbouncer.needed)]
        metafunc.parametrize(fixture, ways, indirect=True)


@pytest.fixture(scope="session")
def service(request: pytest.FixtureRequest) -> Running:
    """A service on the demo's world that tests share; tests that break things start their own."""
    way = getattr(request, "param", "direct")
    running: Running = request.getfixturevalue(f"{way}_service")
    return running


@pytest.fixture(scope="session")
def direct_service(world_url: str) -> Iterator[Running]:
    """One that is connected to PostgreSQL itself."""
    with serving(world_url) as running:
        yield running


@pytest.fixture(scope="session")
async def pooled_service(world_url: str) -> AsyncIterator[Running]:
    """One behind a pooler of transactions, on whose every connection a neighbour left settings."""
    with pgbouncer.pooled_by_transaction(world_url) as url:
        await pgbouncer.leave_settings(url)
        with serving(url, settings=pgbouncer.PATIENT) as running:
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
