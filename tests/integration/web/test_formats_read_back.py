"""Feeds read back by independent readers: PostgreSQL's COPY, Python's csv, aiocsv, curl, json."""

import asyncio
import codecs
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import aiocsv
import aiohttp
import asyncpg
import pytest

from tests.support import sse
from tests.support.drawn import DRAWN, share
from tests.support.service import Running, bearer

KEYS = {
    "clients": "id",
    "budgets": "id",
    "analytics": "day, metric",
    "vendors": "id",
    "tasks": "id",
    "timeline": "id",
    "notifications": "id",
}
NESTED = {"preferences", "dimensions", "payload"}  # json and jsonb
# Line breaks between the tokens of a json value become blanks.
OWN_JSON = r"""
    SELECT translate(row_to_json(t)::text, E'\n\r', '  ') FROM wedding.{name} t
    WHERE tenant_id = 'rosewood' ORDER BY {key}
"""
DELIMITERS = {",": ",", ";": ";", "tab": "\t"}
# In `make test` a delimiter for each dataset.
COPIED = [
    (name, parameter)
    for place, name in enumerate(KEYS)
    for number, parameter in enumerate(DELIMITERS)
    if share(4) == 4 or place % len(DELIMITERS) == number
]
every_dataset = pytest.mark.parametrize("name", KEYS)


async def own_json(world: asyncpg.Connection, name: str) -> list[str]:
    """The rows as PostgreSQL itself writes them."""
    return [row[0] for row in await world.fetch(OWN_JSON.format(name=name, key=KEYS[name]))]


async def body(http: aiohttp.ClientSession, path: str) -> bytes:
    async with http.get(path, headers=bearer()) as answer:
        assert answer.status == 200
        return await answer.read()


def lossless(text: str) -> Any:
    """JSON whose numbers keep every digit."""
    return json.loads(text, parse_int=str, parse_float=str)


def records(text: bytes, delimiter: str = ",", encoding: str = "utf-8") -> list[list[str]]:
    file = io.StringIO(text.decode(encoding), newline="")
    return list(csv.reader(file, delimiter=delimiter, strict=True))


@pytest.mark.either_way
@every_dataset
async def test_ndjson_is_row_to_json_to_the_letter(
    http: aiohttp.ClientSession, world: asyncpg.Connection, name: str
) -> None:
    made = (await body(http, f"/v1/feeds/{name}?format=ndjson")).decode()
    assert made.split("\n") == [*await own_json(world, name), ""]


@pytest.mark.either_way
@every_dataset
async def test_json_is_row_to_json_row_for_row(
    http: aiohttp.ClientSession, world: asyncpg.Connection, name: str
) -> None:
    made = (await body(http, f"/v1/feeds/{name}?format=json")).decode()
    assert lossless(made) == list(map(lossless, await own_json(world, name)))


@pytest.mark.either_way
@every_dataset
async def test_sse_is_row_to_json_row_for_row(
    http: aiohttp.ClientSession, world: asyncpg.Connection, name: str
) -> None:
    events = sse.parse(await body(http, f"/v1/feeds/{name}?format=sse")).events
    assert [events[0].type, events[-1].type] == ["open", "end"]
    rows = [row for event in events if event.type == "rows" for row in lossless(event.data)]
    assert rows == list(map(lossless, await own_json(world, name)))
    assert json.loads(events[-1].data)["rows"] == len(rows)


@DRAWN
@pytest.mark.either_way
@pytest.mark.parametrize(("name", "parameter"), COPIED)
async def test_copy_reads_a_csv_back_as_the_very_table(
    http: aiohttp.ClientSession,
    world: asyncpg.Connection,
    name: str,
    parameter: str,
) -> None:
    """To COPY too, an empty field is NULL and a quoted empty one an empty string.

    Compared as jsonb, for the white space of a json may differ, and as text, for a JSON null
    is not NULL.
    """
    made = await body(http, f"/v1/feeds/{name}?format=csv&guard=off&delimiter={parameter}")
    await world.execute(f"CREATE TEMP TABLE back (LIKE wedding.{name})")
    await world.copy_to_table(
        "back", source=io.BytesIO(made), format="csv", header=True, delimiter=DELIMITERS[parameter]
    )
    rows = """
        SELECT to_jsonb(t)::text COLLATE "C", translate(t::text, E'\\n\\r', '  ') COLLATE "C"
        FROM {} t WHERE tenant_id = 'rosewood' ORDER BY 1, 2
    """
    back = await world.fetch(rows.format("back"))
    assert back == await world.fetch(rows.format(f"wedding.{name}"))
    assert len(back) == await world.fetchval("SELECT count(*) FROM back") > 0


@every_dataset
async def test_a_csv_cell_is_the_json_scalar_without_its_quotes(
    http: aiohttp.ClientSession, world: asyncpg.Connection, name: str
) -> None:
    header, *cells = records(await body(http, f"/v1/feeds/{name}?format=csv&guard=off"))
    rows = list(map(lossless, await own_json(world, name)))
    assert header == list(rows[0])
    for record, row in zip(cells, rows, strict=True):
        for cell, (column, value) in zip(record, row.items(), strict=True):
            if column in NESTED and cell:
                assert lossless(cell) == value
            elif isinstance(value, bool):
                assert cell == str(value).lower()
            else:
                assert cell == (value or "")


class _Decoded:
    """A reader for aiocsv: a body that arrives in pieces, decoded on the way."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    async def read(self, size: int) -> str:
        """Some text, empty at the end alone."""
        while piece := await self._content.read(size):
            if text := self._decoder.decode(piece):
                return text
        return ""


async def test_aiocsv_reads_what_pythons_own_reader_reads(http: aiohttp.ClientSession) -> None:
    path = "/v1/feeds/clients?format=csv&guard=off"
    async with http.get(path, headers=bearer()) as answer:
        read = [row async for row in aiocsv.AsyncReader(_Decoded(answer.content), strict=True)]
    assert read == records(await body(http, path))


@pytest.mark.parametrize(("parameter", "delimiter"), [(";", ";"), ("tab", "\t")])
async def test_another_delimiter_changes_no_cell(
    http: aiohttp.ClientSession, parameter: str, delimiter: str
) -> None:
    usual = records(await body(http, "/v1/feeds/clients?format=csv"))
    other = await body(http, f"/v1/feeds/clients?format=csv&delimiter={parameter}")
    assert records(other, delimiter) == usual


async def test_a_byte_order_mark_comes_first_and_once(http: aiohttp.ClientSession) -> None:
    usual = await body(http, "/v1/feeds/clients?format=csv")
    assert await body(http, "/v1/feeds/clients?format=csv&bom=1") == codecs.BOM_UTF8 + usual


@pytest.mark.parametrize(("parameter", "delimiter"), [(",", ","), (";", ";"), ("tab", "\t")])
async def test_a_field_is_quoted_exactly_when_it_must_be(
    http: aiohttp.ClientSession, world: asyncpg.Connection, parameter: str, delimiter: str
) -> None:
    def field(value: str | None) -> str:
        if value == "" or set(value or "") & {delimiter, '"', "\r", "\n"}:
            return '"' + (value or "").replace('"', '""') + '"'
        return value or ""

    names = ("notes", "venue", "email", "id")
    rows = [lossless(row) for row in await own_json(world, "clients")]
    lines = [names, *([field(row[name]) for name in names] for row in rows)]
    path = f"/v1/feeds/clients?format=csv&guard=off&columns={','.join(names)}"
    made = await body(http, f"{path}&delimiter={parameter}")
    assert made.decode() == "".join(delimiter.join(line) + "\r\n" for line in lines)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("options", [(), ("--compressed",), ("--http1.1", "--tr-encoding")])
@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
async def test_curl_downloads_the_same(
    service: Running,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    form: str,
    options: tuple[str, ...],
) -> None:
    path, file = f"/v1/feeds/clients?format={form}", tmp_path / "body"
    (header,) = (f"{name}: {value}" for name, value in bearer().items())
    process = await asyncio.create_subprocess_exec(
        "curl", "-sSf", *options, "-H", header, "-o", str(file), service.url + path
    )
    assert await process.wait() == 0
    assert file.read_bytes() == await body(http, path)
