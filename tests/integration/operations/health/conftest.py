"""A primary, a standby, a Redis and a small disk, and a service on them, for each file."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import aiohttp
import asyncpg
import pytest

from tests.support.ailing import (
    ADMIN,
    BOUND,
    DATASETS,
    LOGIN,
    SCHEMA,
    all_is_well,
    until,
    url_of,
)
from tests.support.redis_server import redis_running
from tests.support.service import Running, serving
from tests.support.standby import Replicated, replicated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from feedsvc.commands.demo.embedded import PostgresServer
    from tests.support.redis_server import RunningRedis


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("health") / "datasets.toml"
    file.write_text(DATASETS)
    return file


@pytest.fixture(scope="module")
async def servers(datasets: Path) -> AsyncIterator[Replicated]:
    async with replicated(
        SCHEMA, datasets, LOGIN, max_connections="40", max_prepared_transactions="1"
    ) as both:
        yield both


@pytest.fixture(scope="module")
def prepared(servers: Replicated) -> PostgresServer:
    return servers.primary


@pytest.fixture(scope="module")
def standby(servers: Replicated) -> PostgresServer:
    return servers.standby


@pytest.fixture(scope="module")
def redis() -> Iterator[RunningRedis]:
    with redis_running() as server:
        yield server


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A file system of one megabyte, None for whoever may not mount one."""
    folder = tmp_path_factory.mktemp("small")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    yield folder if mounted.returncode == 0 else None
    if mounted.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def settings(
    prepared: PostgresServer,
    standby: PostgresServer,
    redis: RunningRedis,
    small_disk: Path | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    folder = small_disk or tmp_path_factory.mktemp("large")
    return {
        "FEEDSVC_DATABASE__REPLICAS": url_of(standby),
        "FEEDSVC_DATABASE__REPLICA_LAG": str(BOUND),
        "MIGRATION_DATABASE_URL": prepared.url(),
        "REDIS_URL": redis.url,
        "FEEDSVC_HEALTH__DISKS": f'["{folder}"]',
        "FEEDSVC_HEALTH__DISK_FREE": "0.01",
        "FEEDSVC_HEALTH__LOOP_LAG": "0.5",
        "FEEDSVC_HEALTH__REPAIRS_PER_MINUTE": "6000",
        "FEEDSVC_POOLS__READ__IDLE_TIMEOUT": "1",
        "FEEDSVC_POOLS__BULK__IDLE_TIMEOUT": "1",
        "FEEDSVC_POOLS__ANALYTICS__IDLE_TIMEOUT": "1",
        "FEEDSVC_POOLS__WRITE__IDLE_TIMEOUT": "1",
    }


@pytest.fixture(scope="module")
def service(
    prepared: PostgresServer, datasets: Path, settings: dict[str, str]
) -> Iterator[Running]:
    with serving(url_of(prepared), datasets=datasets, settings=settings) as running:
        yield running


@pytest.fixture
async def http(service: Running) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a service that is well again."""
    async with aiohttp.ClientSession(service.url, headers=ADMIN) as session:
        await until(lambda: all_is_well(session), 30)
        yield session


@pytest.fixture
async def admin(prepared: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(prepared.url())
    yield connection
    await connection.close()
