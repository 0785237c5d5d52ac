"""CSV for spreadsheets of other countries: decimal commas, their timestamps, every field quoted."""

import csv
import io
import re
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from tests.support.cells import AMOUNTS, SOURCES, body
from tests.support.libreoffice import GERMAN, needs_libreoffice, opened
from tests.support.service import bearer

STYLE = "format=csv&delimiter=;&decimal=comma&datetime=excel"
every_source = pytest.mark.parametrize("name", SOURCES)


async def columns(http: aiohttp.ClientSession, name: str, asked: str, style: str) -> list[str]:
    """The lines of these columns."""
    made = await body(http, f"{name}_amounts?{style}&header=0&columns={asked}")
    return made.decode().split("\r\n")[:-1]


@every_source
async def test_numbers_have_a_decimal_comma_and_nothing_else_has(
    cells: aiohttp.ClientSession, name: str
) -> None:
    assert await columns(cells, name, "amount,ratio,price,whole", STYLE) == [
        "1234,50;0,25;1,5;7",
        "-0,05;-1e-07;-2,5e+20;-9",
        "NaN;NaN;Infinity;0",
        "-Infinity;-Infinity;NaN;1",
        "3;;;",
        "100000000000000000000;1e+300;0,1;2",
        "0,000;2;3;4",
        "1,10;0,5;0,5;5",
    ]
    others = "day,clock,note,list,doc,cash"
    plain = await columns(cells, name, others, "format=csv&delimiter=;")
    assert await columns(cells, name, others, STYLE) == plain
    assert plain[1] == """0044-03-15 BC;17:30:00;'=1;"[1.5,-2.25]";"{""a"": 1.5}";-$1,234.50"""


@every_source
async def test_timestamps_have_no_offset_and_no_fractions(
    cells: aiohttp.ClientSession, name: str
) -> None:
    assert await columns(cells, name, "at,local", f"{STYLE}&tz=Europe/Berlin") == [
        "2026-05-30 17:30:00;2026-05-30 17:30:00",
        "2027-01-01 00:59:59;2026-01-01 00:00:00",
        "infinity;-infinity",
        "-infinity;infinity",
        "0044-03-15 12:53:28 BC;0044-03-15 12:00:00 BC",
        "294276-12-31T23:59:59.9+00:00;294276-12-31 23:59:59",
        "4714-11-24T00:00:00+00:00 BC;4714-11-24 00:00:00 BC",
        "2026-03-29 03:00:00;2026-03-29 02:30:00",
    ]


@every_source
async def test_without_a_zone_it_is_utc(cells: aiohttp.ClientSession, name: str) -> None:
    style = "format=csv&datetime=excel"
    made = await columns(cells, name, "at", style)
    assert [made[0], made[1], made[7]] == [
        "2026-05-30 15:30:00",
        "2026-12-31 23:59:59",
        "2026-03-29 01:00:00",
    ]
    assert made == await columns(cells, name, "at", f"{style}&tz=UTC")
    other = await columns(cells, name, "at", f"{style}&tz=Asia/Kolkata")
    assert other[0] == "2026-05-30 21:00:00"


@every_source
@pytest.mark.parametrize("guard", ["on", "off"])
async def test_every_field_is_quoted(cells: aiohttp.ClientSession, name: str, guard: str) -> None:
    style = f"format=csv&guard={guard}"
    made = (await body(cells, f"{name}_amounts?{style}&quote=all")).decode()
    field = r'"(?:[^"]|"")*"'
    assert re.fullmatch(rf"(?:{field}(?:,{field}){{12}}\r\n){{{len(AMOUNTS) + 1}}}", made)
    usual = (await body(cells, f"{name}_amounts?{style}")).decode()
    assert list(csv.reader(io.StringIO(made, newline=""))) == list(
        csv.reader(io.StringIO(usual, newline=""))
    )


@every_source
@pytest.mark.parametrize("order", ["at", "amount", "key"])
async def test_tokens_are_as_without_and_a_file_goes_on_behind_them(
    cells: aiohttp.ClientSession, name: str, order: str
) -> None:
    path = f"{name}_amounts?{STYLE}&tz=Asia/Tokyo&quote=all&order={order}"
    whole = await body(cells, path)
    lines = whole.splitlines(keepends=True)
    rows = await _tokens(cells, f"{name}_amounts?format=json&order={order}", order)
    assert len(rows) == len(lines) - 1
    for at, token in enumerate(rows):
        rest = await body(cells, f"{path}&header=0&after={quote(token, safe='')}")
        assert b"".join(lines[: at + 2]) + rest == whole


async def _tokens(http: aiohttp.ClientSession, path: str, order: str) -> list[str]:
    """The tokens of rows in order, made by hand of what another format shows."""
    async with http.get(f"/v1/feeds/{path}", headers=bearer()) as answer:
        rows = await answer.json()
    names = ["id"] if order == "key" else [order, "id"]
    return [",".join(quote(_text(row, name), safe="") for name in names) for row in rows]


def _text(row: dict[str, object], name: str) -> str:
    if name == "amount":  # to the digit, which Python's float would lose
        return AMOUNTS[int(str(row["id"]))][0]
    return str(row[name])


@every_source
async def test_pages_are_cached_and_tagged_by_their_style_and_lead_on(
    cells: aiohttp.ClientSession, name: str
) -> None:
    paths = [
        f"/v1/feeds/{name}_amounts?{style}&limit=3"
        for style in (
            "format=csv&delimiter=;",
            STYLE,
            f"{STYLE}&tz=Asia/Tokyo",
            f"{STYLE}&quote=all",
        )
    ]
    first = [await _page(cells, path) for path in paths]
    assert [await _page(cells, path) for path in paths] == first
    assert len({made for made, _, _ in first}) == len({tag for _, tag, _ in first}) == len(paths)
    for path, (made, _, link) in zip(paths, first, strict=True):
        pages, following = made, link
        while following is not None:
            following = following if "header=0" in following else f"{following}&header=0"
            more, _, following = await _page(cells, following)
            pages += more
        assert pages == await body(cells, path.removeprefix("/v1/feeds/").partition("&limit")[0])


async def _page(http: aiohttp.ClientSession, path: str) -> tuple[bytes, str, str | None]:
    """A page's body, ETag, and the address of the next one."""
    async with http.get(path, headers=bearer()) as answer:
        assert answer.status == 200
        assert answer.headers["Feed-CSV-Guard"] == "on"
        found = re.search("<(.*)>", answer.headers.get("Link", ""))
        return await answer.read(), answer.headers["ETag"], found[1] if found else None


async def test_a_zone_that_there_is_not_is_refused_with_what_is_allowed(
    cells: aiohttp.ClientSession,
) -> None:
    async with cells.get(
        "/v1/feeds/cells_amounts?format=csv&datetime=excel&tz=Berlin", headers=bearer()
    ) as answer:
        problem = await answer.json()
    assert answer.status == 400
    assert problem["parameter"] == "tz"
    assert "Europe/Berlin" in problem["allowed"][0]


@needs_libreoffice
async def test_calc_reads_german_amounts_as_numbers_and_timestamps_as_dates(
    cells: aiohttp.ClientSession, tmp_path: Path
) -> None:
    asked = "columns=amount,ratio,at,note&tz=Europe/Berlin&bom=1"
    styled = await body(cells, f"cells_amounts?{STYLE}&{asked}")
    usual = await body(cells, "cells_amounts?format=csv&delimiter=;&columns=amount")
    rows, unstyled = opened([styled, usual], tmp_path, ";", GERMAN)
    amount, ratio, at, note = rows[1][:4]
    assert (amount.kind, float(amount.value)) == ("float", 1234.5)
    assert (ratio.kind, float(ratio.value)) == ("float", 0.25)
    assert (at.kind, at.value) == ("date", "2026-05-30T17:30:00")
    assert (note.kind, note.value) == ("string", "a;b")
    assert unstyled[1][0].kind != "float"
