"""Of whole databases, the demo's and foreign ones, the encoder makes the projection's bytes."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from feedsvc.datasets.catalog import resolve
from feedsvc.datasets.dataset import Dataset, declarations
from tests.support import servers
from tests.support.encoding import Source, distribution_postgres, needs_encoder
from tests.support.servers import LOGIN, as_login, with_database

pytestmark = needs_encoder

FOREIGN = Path(__file__).parent / "foreign"
YARDS = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


@pytest.fixture(scope="module", params=[18, 15])
def server(request: pytest.FixtureRequest, admin_url: str) -> Iterator[str]:
    """The superuser's URL of a server with the demo's world and the service's login."""
    if request.param == 18:
        yield admin_url
    else:
        with distribution_postgres(request.param) as url:
            asyncio.run(servers.prepare(url))
            yield url


@asynccontextmanager
async def reading(
    server: str, template: str, script: Path | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """The service's login on a fresh copy of the template, after the superuser's script."""
    name, admin = f"read_{uuid.uuid4().hex}", await asyncpg.connect(server)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    url = with_database(server, name)
    if script is not None:
        superuser = await asyncpg.connect(url)
        await superuser.execute(script.read_text())
        await superuser.execute(
            f'ALTER ROLE {LOGIN} IN DATABASE {name} SET search_path = public, "Add Ons"'
        )
        await superuser.close()
    login = await asyncpg.connect(as_login(url), server_settings={"timezone": "UTC"})
    try:
        yield login
    finally:
        await login.close()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def assert_all_alike(
    login: asyncpg.Connection, file: Path, tenants: Mapping[str | None, tuple[str, ...]]
) -> None:
    """Every dataset of the file, in each of its orders, for each tenant of its tenant's column."""
    datasets, findings = await resolve(login, declarations(file))
    assert not [finding for finding in findings if finding.severity == "error"]
    assert datasets
    for dataset in datasets.values():
        column = None if dataset.tenant is None else dataset.tenant.name
        for tenant in tenants[column]:
            await login.execute("SELECT set_config('feedsvc.tenant', $1, false)", tenant)
            await login.execute("SELECT set_config('feedsvc.role', 'admin', false)")
            await assert_alike(login, dataset)


async def assert_alike(login: asyncpg.Connection, dataset: Dataset) -> None:
    assert await login.fetchval(f"SELECT count(*) FROM {dataset.relation}") > 0
    dice = random.Random(dataset.name)
    for order in dataset.orders.values():
        by = [part.column for part in order]
        everything = list(dataset.columns.values())
        some = dice.sample(everything, dice.randint(1, len(everything)))
        for columns in (everything, some):
            await Source(login, dataset.relation, columns, by).assert_alike(chunks=dice)


async def test_the_demo(server: str) -> None:
    async with reading(server, servers.TEMPLATE) as login:
        await assert_all_alike(login, servers.DATASETS, {"tenant_id": ("rosewood",)})


async def test_the_shipyard(server: str) -> None:
    tenants = {"Yard Id": YARDS, "Yard No": ("7", "-9223372036854775808"), None: ("any",)}
    async with reading(server, "template1", FOREIGN / "schema.sql") as login:
        await assert_all_alike(login, FOREIGN / "datasets.toml", tenants)


async def test_types_of_extensions(server: str) -> None:
    admin = await asyncpg.connect(server)
    offered = {row[0] for row in await admin.fetch("SELECT name FROM pg_available_extensions")}
    await admin.close()
    if not offered >= {"citext", "hstore"}:
        pytest.skip("this PostgreSQL comes without citext or hstore")
    async with reading(server, "template1", FOREIGN / "extensions.sql") as login:
        await assert_all_alike(login, FOREIGN / "extensions.toml", {None: ("any",)})
