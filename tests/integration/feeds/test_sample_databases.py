"""Two databases that many know: each relation is PostgreSQL's own `row_to_json`, in every way.

Their tables' shapes are those of pagila and chinook; the rows are made here.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import pytest
from yarl import URL

from streams import tokens
from tests.integration.conftest import NewDatabase
from tests.integration.feeds.foreign import oracle
from tests.support.servers import LOGIN, as_login
from tests.support.service import bearer, serving
from tests.support.sources import without_encoder

FOREIGN: Final = Path(__file__).parent / "foreign"
WAYS: Final = ("auto", "copy", "cursor", "projection")
ROWS_BY_ADDRESS: Final = 20  # of each relation
KEYS: Final[Mapping[str, Sequence[str]]] = {
    "pagila.actor": ["actor_id"],
    "pagila.language": ["language_id"],
    "pagila.film": ["film_id"],
    "pagila.film_actor": ["actor_id", "film_id"],
    "pagila.staff": ["staff_id"],
    "pagila.customer": ["customer_id"],
    "pagila.rental": ["rental_id"],
    "pagila.payment": ["payment_date", "payment_id"],
    "pagila.film_list": ["fid"],
    "pagila.sales_by_day": ["day"],
    '"Chinook"."Artist"': ["ArtistId"],
    '"Chinook"."Album"': ["AlbumId"],
    '"Chinook"."Track"': ["TrackId"],
    '"Chinook"."Employee"': ["EmployeeId"],
    '"Chinook"."Invoice"': ["InvoiceId"],
    '"Chinook"."InvoiceLine"': ["InvoiceLineId"],
    '"Chinook"."PlaylistTrack"': ["PlaylistId", "TrackId"],
}
VIEWS: Final = {"pagila.film_list": ["fid"], "pagila.sales_by_day": ["day"]}
NAMES: Final = {relation: f"r{number}" for number, relation in enumerate(KEYS)}


@pytest.fixture(scope="module")
async def url(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database() as made:
        superuser = await asyncpg.connect(made)
        for name in ("pagila.sql", "chinook.sql"):
            await superuser.execute((FOREIGN / name).read_text())
        for schema in ("pagila", '"Chinook"'):
            await superuser.execute(f"GRANT USAGE ON SCHEMA {schema} TO {LOGIN}")
            await superuser.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {LOGIN}")
        await superuser.close()
        yield made


@pytest.fixture(scope="module", params=["encoder", "no encoder"])
def service_url(
    request: pytest.FixtureRequest, url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("samples")
    file = folder / "datasets.toml"
    file.write_text("\n".join(_declared(relation, way) for relation in KEYS for way in WAYS))
    settings = without_encoder(folder) if request.param == "no encoder" else {}
    settings |= {"FEEDSVC_STREAMS__COPY_AFTER": "0"}
    with serving(as_login(url), datasets=file, settings=settings) as running:
        yield running.url


def _declared(relation: str, way: str) -> str:
    key = f"key = {list(KEYS[relation])}"
    not_null = f"not_null = {VIEWS[relation]}" if relation in VIEWS else ""
    head = f"[{NAMES[relation]}_{way}]\nrelation = '{relation}'\n{key}\n{not_null}\n"
    return f'{head}shared = true\nsource = "{way}"\n'


@pytest.mark.parametrize("relation", KEYS)
async def test_a_relation_is_what_row_to_json_says(
    service_url: str, url: str, relation: str
) -> None:
    oracle_of = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    statement = await oracle_of.prepare(f"SELECT * FROM {relation} LIMIT 0")
    columns = [attribute.name for attribute in statement.get_attributes()]
    order = ", ".join(map(oracle.identifier, KEYS[relation]))
    source = (oracle_of, relation, columns, order)
    rows, cells = await oracle.objects(*source), await oracle.cells(*source)
    keys = await oracle.cells(oracle_of, relation, KEYS[relation], order)
    await oracle_of.close()
    assert rows
    async with aiohttp.ClientSession(service_url, headers=bearer()) as http:
        for way in WAYS:
            feed = f"/v1/feeds/{NAMES[relation]}_{way}"
            for form in oracle.FORMATS:
                for limit in (None, 7):
                    given = {"format": form} | ({"guard": "off"} if form == "csv" else {})
                    given |= {} if limit is None else {"limit": str(limit)}
                    async with http.get(feed, params=given) as answer:
                        body = await answer.text()
                        assert answer.status == 200, body
                    oracle.assert_body(form, body, columns, rows[:limit], cells[:limit])
            for parts, row in list(zip(keys, rows, strict=True))[:ROWS_BY_ADDRESS]:
                address = f"{feed}/{tokens.encode(part or '' for part in parts)}"
                async with http.get(URL(address, encoded=True)) as answer:
                    assert await answer.text() == row + "\n"
