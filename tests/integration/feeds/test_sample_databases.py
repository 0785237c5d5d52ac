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
from tests.support.drawn import DRAWN, share
from tests.support.servers import LOGIN, as_login
from tests.support.service import bearer, serving
from tests.support.sources import without_encoder

FOREIGN: Final = Path(__file__).parent / "foreign"
WAYS: Final = ("auto", "copy", "cursor", "projection")
ROWS_BY_ADDRESS: Final = share(20)  # of each relation
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
) -> Iterator[tuple[str, Sequence[str]]]:
    """The URL of a service, and the ways to ask it: without the encoder all of them are one."""
    folder: Path = tmp_path_factory.mktemp("samples")
    file = folder / "datasets.toml"
    file.write_text("\n".join(_declared(relation, way) for relation in KEYS for way in WAYS))
    settings = without_encoder(folder) if request.param == "no encoder" else {}
    settings |= {"FEEDSVC_STREAMS__COPY_AFTER": "0"}
    with serving(as_login(url), datasets=file, settings=settings) as running:
        is_one = request.param == "no encoder" and share(4) < 4
        yield running.url, WAYS[:1] if is_one else WAYS


def _declared(relation: str, way: str) -> str:
    key = f"key = {list(KEYS[relation])}"
    not_null = f"not_null = {VIEWS[relation]}" if relation in VIEWS else ""
    head = f"[{NAMES[relation]}_{way}]\nrelation = '{relation}'\n{key}\n{not_null}\n"
    return f'{head}shared = true\nsource = "{way}"\n'


def asked(turn: int) -> Sequence[tuple[str, int | None]]:
    """Formats with limits: all, or in `make test` a stream and a page in the formats of a turn.

    Four ways have four turns, so that each relation is sent once in each format as a stream and
    as a page, and each way sends each format of relations of each kind.
    """
    if share(4) == 4:
        return [(form, limit) for form in oracle.FORMATS for limit in (None, 7)]
    forms = [oracle.FORMATS[(turn + step) % len(oracle.FORMATS)] for step in (0, 1)]
    return [(forms[0], None), (forms[1], 7)]


@DRAWN
@pytest.mark.parametrize("relation", KEYS)
async def test_a_relation_is_what_row_to_json_says(
    service_url: tuple[str, Sequence[str]], url: str, relation: str
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
    async with aiohttp.ClientSession(service_url[0], headers=bearer()) as http:
        for turn, way in enumerate(service_url[1], list(KEYS).index(relation)):
            feed = f"/v1/feeds/{NAMES[relation]}_{way}"
            for form, limit in asked(turn):
                given = {"format": form} | ({"guard": "off"} if form == "csv" else {})
                given |= {} if limit is None else {"limit": str(limit)}
                async with http.get(feed, params=given) as answer:
                    body = await answer.text()
                    assert answer.status == 200, body
                oracle.assert_body(form, body, columns, rows[:limit], cells[:limit])
            # A row by its address comes in one way, whichever its feed has.
            by_address = list(zip(keys, rows, strict=True))[:ROWS_BY_ADDRESS]
            for parts, row in by_address if way == WAYS[0] else ():
                address = f"{feed}/{tokens.encode(part or '' for part in parts)}"
                async with http.get(URL(address, encoded=True)) as answer:
                    assert await answer.text() == row + "\n"
