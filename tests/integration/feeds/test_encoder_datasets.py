"""Of whole databases, the demo's and foreign ones, the encoder makes the projection's bytes."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from feedsvc.datasets.catalog import resolve
from feedsvc.datasets.dataset import Dataset, declarations
from tests.support import servers
from tests.support.drawn import DRAWN, share
from tests.support.encoding import Source, distribution_postgres, needs_encoder, some_forms
from tests.support.servers import LOGIN, as_login, copied_database

pytestmark = [needs_encoder, DRAWN]

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
    async with copied_database(server, template) as url:
        if script is not None:
            superuser = await asyncpg.connect(url)
            await superuser.execute(script.read_text())
            database = url.rpartition("/")[2]
            await superuser.execute(
                f'ALTER ROLE {LOGIN} IN DATABASE {database} SET search_path = public, "Add Ons"'
            )
            await superuser.close()
        login = await asyncpg.connect(as_login(url), server_settings={"timezone": "UTC"})
        try:
            yield login
        finally:
            await login.close()


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
    for number, order in enumerate(dataset.orders.values()):
        by = [part.column for part in order]
        # All rows are encoded in one order; another differs in its tokens alone.
        relation = (
            dataset.relation if number == 0 or share(4) == 4 else f"{dataset.relation} LIMIT 200"
        )
        everything = list(dataset.columns.values())
        some = dice.sample(everything, dice.randint(1, len(everything)))
        for columns in (everything, some):
            source = Source(login, relation, columns, by)
            await source.assert_alike(some_forms(dice), dice)


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
