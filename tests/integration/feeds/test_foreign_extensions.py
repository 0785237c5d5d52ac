"""Types of extensions: citext as a key, hstore as an object, in a schema of their own."""

from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import pytest

from tests.integration.conftest import NewDatabase
from tests.integration.feeds.foreign import oracle
from tests.integration.feeds.test_foreign_schema import HERE
from tests.support.servers import LOGIN, as_login
from tests.support.service import Running, bearer, serving

NEEDED = {"citext", "hstore"}
COLUMNS = ("name", "marks", "aliases")


@pytest.fixture(scope="module")
async def crew(new_database: NewDatabase) -> AsyncIterator[str]:
    """The superuser's DSN of a database with the extensions."""
    async with new_database() as url:
        connection = await asyncpg.connect(url)
        offered = await connection.fetch("SELECT name FROM pg_available_extensions")
        if not {row["name"] for row in offered} >= NEEDED:
            pytest.skip("this PostgreSQL comes without citext or hstore")
        await connection.execute((HERE / "extensions.sql").read_text())
        await connection.close()
        yield url


@pytest.fixture(scope="module")
async def ships(crew: str) -> AsyncIterator[Running]:
    """A service whose login has the extensions' schema on its search_path."""
    connection = await asyncpg.connect(crew)
    database = crew.rpartition("/")[2]
    await connection.execute(
        f'ALTER ROLE {LOGIN} IN DATABASE {database} SET search_path = public, "Add Ons"'
    )
    await connection.close()
    with serving(as_login(crew), datasets=HERE / "extensions.toml") as running:
        yield running


async def test_operators_that_the_login_can_not_see_are_a_mistake(crew: str) -> None:
    """PostgreSQL would compare citext as text and sort it as citext: pages would lose rows."""
    connection = await asyncpg.connect(crew)
    database = crew.rpartition("/")[2]
    await connection.execute(f"ALTER ROLE {LOGIN} IN DATABASE {database} RESET search_path")
    await connection.close()
    with (
        pytest.raises(AssertionError, match="did not start") as caught,
        serving(as_login(crew), datasets=HERE / "extensions.toml"),
    ):
        pass
    for key in ("crew.key", "crew.orders.down", "crew.filters"):
        assert f"error: {key}: 'name' can't be compared" in str(caught.value)


@pytest.mark.parametrize("order", ["key", "down"])
@pytest.mark.parametrize("form", oracle.FORMATS)
async def test_they_are_sent_as_postgresql_says(
    crew: str, ships: Running, form: str, order: str
) -> None:
    superuser = await asyncpg.connect(crew)
    await superuser.execute('SET search_path = public, "Add Ons"')
    source = superuser, "crew", COLUMNS, "name" + " DESC" * (order == "down")
    expected, records = await oracle.objects(*source), await oracle.cells(*source)
    await superuser.close()
    guard = {"guard": "off"} if form == "csv" else {}
    parameters = {"format": form, "order": order, **guard}
    async with (
        aiohttp.ClientSession(ships.url) as http,
        http.get("/v1/feeds/crew", params=parameters, headers=bearer()) as answer,
    ):
        oracle.assert_body(form, await answer.text(), COLUMNS, expected, records)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("name=BERTA", ["Berta"]),
        ("name.in=ANNA,EMIL", ["anna", "emil"]),
        ("name.gt=BERTA", ["cäsar", "Dora", "emil"]),
        ("after=ANNA", ["Berta", "cäsar", "Dora", "emil"]),
        ("order=down&after=dora", ["cäsar", "Berta", "anna"]),
        ("marks.is=null", ["cäsar"]),
    ],
)
async def test_they_compare_as_their_type_does(
    ships: Running, asked: str, names: list[str]
) -> None:
    url = f"/v1/feeds/crew?format=csv&header=0&columns=name&{asked}"
    async with aiohttp.ClientSession(ships.url) as http, http.get(url, headers=bearer()) as answer:
        assert (await answer.text()).split("\r\n") == [*names, ""]
