"""The servers behind the tests: one PostgreSQL for the whole run, with the demo's world in it."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
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
TEMPLATE = "wedding_template"
ROWS = 3_000
SEED = 7
LOGIN, PASSWORD = "feedsvc_tests", "a password of the tests' own"


@contextmanager
def throw_away_folder() -> Iterator[Path]:
    """A folder that the servers' account may enter, unlike pytest's own."""
    folder = Path(tempfile.gettempdir(), f"feedsvc-tests-{uuid.uuid4().hex}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def shared_postgres() -> Iterator[str]:
    """The superuser's URL of a server with the template, named in the environment too."""
    if named := os.environ.get(ADMIN_URL):
        asyncio.run(prepare(named))
        yield named
        return
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
        os.environ[CLUSTER] = str(folder)
        try:
            yield
        finally:
            del os.environ[CLUSTER]


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
async def world_of_its_own(admin_url: str) -> AsyncIterator[str]:
    """The service's login on a new database with the demo's world, for whoever breaks things."""
    name = f"own_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(admin_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    try:
        yield as_login(with_database(admin_url, name))
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


def with_database(url: str, name: str) -> str:
    """The same server's URL for another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def as_login(url: str, login: str = LOGIN, password: str = PASSWORD) -> str:
    """The same database's URL for another login."""
    parts = urlsplit(url)
    quoted = password.replace(" ", "%20")
    return parts._replace(netloc=f"{login}:{quoted}@{parts.hostname}:{parts.port}").geturl()


async def prepare(admin_url: str) -> None:
    """Makes the template database and the service's login, as `feedsvc demo` does."""
    admin = await asyncpg.connect(admin_url)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {TEMPLATE}")
        await admin.execute(f"CREATE DATABASE {TEMPLATE}")
        url = with_database(admin_url, TEMPLATE)
        for line in TERRITORIES:
            await runner.up(url, line)
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
