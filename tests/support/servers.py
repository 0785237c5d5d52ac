"""The servers behind the tests: one PostgreSQL for the whole run, with the demo's world in it."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from feedsvc.backends.postgres.migrations import runner
from feedsvc.backends.postgres.migrations.lines import TERRITORIES
from feedsvc.changes import triggers
from feedsvc.commands.demo import seeding
from feedsvc.commands.demo.embedded import PostgresServer, cache_folder, start_postgres
from feedsvc.commands.demo.embedded.account import server_account
from feedsvc.commands.demo.embedded.binaries import find_postgres
from feedsvc.commands.demo.embedded.cluster import ClusterFolder

ADMIN_URL = "FEEDSVC_TEST_ADMIN_URL"
CLUSTER = "FEEDSVC_TEST_CLUSTER"
DATASETS = Path(__file__).parents[2] / "config" / "datasets.toml"
TEMPLATE = "wedding_template"  # with the demo's world
LOG_TEMPLATE = "log_template"  # with the service's own tables, the change log among them
ROWS = 3_000
SEED = 7
_MEMORY: Final = "/dev/shm"
_ROOM: Final = 6 << 30
_FOLDERS: Final = "feedsvc-tests-"
_FIRST_WITH_ROUNDS: Final = 16
LOGIN, PASSWORD = "feedsvc_tests", "a password of the tests' own"


@contextmanager
def throw_away_folder() -> Iterator[Path]:
    """A folder that the servers' account may enter, unlike pytest's own; in memory if it may be.

    Its name has the number of the process that removes it.
    """
    folder = Path(quickest_folder(), f"{_FOLDERS}{os.getpid()}-{uuid.uuid4().hex}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def quickest_folder() -> str:
    """The folder where files cost least: a database has hundreds of them."""
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return tempfile.gettempdir()
    is_small = found.f_bavail * found.f_frsize < _ROOM
    # Some containers' holds little, or runs nothing.
    return tempfile.gettempdir() if is_small or found.f_flag & os.ST_NOEXEC else _MEMORY


def _remove_stale_folders() -> None:
    """Remove what a run that was killed has left in memory."""
    for folder in Path(quickest_folder()).glob(f"{_FOLDERS}*-*"):
        owner = folder.name.removeprefix(_FOLDERS).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def shared_postgres() -> Iterator[str]:
    """The superuser's URL of a server with the template, named in the environment too."""
    if named := os.environ.get(ADMIN_URL):
        asyncio.run(prepare(named))
        yield named
        return
    _remove_stale_folders()
    settings = {
        "max_connections": "600", "shared_buffers": "128MB", "max_prepared_transactions": "32"
    }  # fmt: skip
    with initialized_cluster(), copied_postgres(settings) as server:
        os.environ[ADMIN_URL] = server.url()
        asyncio.run(prepare(server.url()))
        try:
            yield server.url()
        finally:
            del os.environ[ADMIN_URL]


@contextmanager
def initialized_cluster() -> Iterator[None]:
    """A cluster as initdb leaves it, to be copied: that takes a twentieth of initdb's time."""
    account = server_account()
    with throw_away_folder() as folder:
        account.make_folder(folder)
        binaries = find_postgres(account, cache_folder())
        ClusterFolder(folder.resolve(), binaries, account).create()
        with start_postgres(folder) as server:
            asyncio.run(_make_logins_cheap(server))
        os.environ[CLUSTER] = str(folder)
        try:
            yield
        finally:
            del os.environ[CLUSTER]


async def _make_logins_cheap(server: PostgresServer) -> None:
    """Prove passwords by one round of hashing, not 4,096: a service logs in a dozen times."""
    admin = await asyncpg.connect(server.url())
    if server.cluster.binaries.major >= _FIRST_WITH_ROUNDS:
        await admin.execute("ALTER SYSTEM SET scram_iterations = 1")
        await admin.execute("SET scram_iterations = 1")
    await admin.execute(f"ALTER ROLE {server.user} PASSWORD '{server.password}'")
    await admin.close()


def copy_cluster(folder: Path) -> None:
    """Copy the run's cluster into `folder`; without one, leave it to initdb."""
    if (made := os.environ.get(CLUSTER)) is None:
        return
    server_account().make_folder(folder)
    parts = [f"{made}/data", f"{made}/superuser-password"]
    subprocess.run(["cp", "-a", *parts, folder], check=True, timeout=60)  # -a keeps their owners


@contextmanager
def copied_postgres(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """A server of a test's own, on a copy of the run's cluster, of the same identifier."""
    with throw_away_folder() as folder:
        copy_cluster(folder)
        with start_postgres(folder, settings=settings) as server:
            yield server


@asynccontextmanager
async def connected(url: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection with these settings, closed when the block ends."""
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def copied_database(
    admin_url: str, template: str = "template1", options: str = "", *, script: str = ""
) -> AsyncIterator[str]:
    """The superuser's URL of a new database that ran a script, dropped when the block ends."""
    name = f"test_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(
            f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy {options}"
        )
        url = with_database(admin_url, name)
        if script:
            async with connected(url) as superuser:
                await superuser.execute(script)
        yield url
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()


@asynccontextmanager
async def world_of_its_own(admin_url: str) -> AsyncIterator[str]:
    """The service's login on a new database with the demo's world, for tests that break things."""
    async with copied_database(admin_url, TEMPLATE) as url:
        yield as_login(url)


def with_database(url: str, name: str) -> str:
    """The same server's URL for another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def as_login(url: str, login: str = LOGIN, password: str = PASSWORD) -> str:
    """The same database's URL for another login."""
    parts = urlsplit(url)
    quoted = password.replace(" ", "%20")
    return parts._replace(netloc=f"{login}:{quoted}@{parts.hostname}:{parts.port}").geturl()


async def prepare(admin_url: str) -> None:
    """Make the template databases and the service's login, as `feedsvc demo` does."""
    admin = await asyncpg.connect(admin_url)
    try:
        url, log_url = (with_database(admin_url, name) for name in (TEMPLATE, LOG_TEMPLATE))
        for name in (TEMPLATE, LOG_TEMPLATE):
            await admin.execute(f"DROP DATABASE IF EXISTS {name}")
            await admin.execute(f"CREATE DATABASE {name}")
        for line in TERRITORIES:
            await runner.up(url, line)
        await runner.up(log_url, "service")
        await seeding.seed(url, ROWS, SEED)
        world = await asyncpg.connect(url)
        await triggers.install_for(world, DATASETS)
        await world.close()
        if not await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", LOGIN):
            password = PASSWORD.replace("'", "''")
            await admin.execute(f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{password}'")
        for territory in TERRITORIES.values():
            await admin.execute(f"GRANT {territory.role} TO {LOGIN}")
    finally:
        await admin.close()
