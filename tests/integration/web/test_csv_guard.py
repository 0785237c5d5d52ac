"""The CSV guard: by the contract's letter, and in the hands of a spreadsheet."""

import csv
import io
import json
import re
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg
import pytest

from tests.support import csv_rule
from tests.support.cells import SOURCES, body
from tests.support.csv_rule import CELLS
from tests.support.libreoffice import formulas, needs_libreoffice, opened

DELIMITERS = {",": ",", ";": ";", "tab": "\t"}
TYPED = ["-1", "-2.50", "-1e+300", "-infinity", "-infinity", "false"]
_RECORD = re.compile(rb'(?:"(?:[^"]|"")*"|[^"\r\n])*\r\n')
SOAK = pytest.mark.soak
every_source = pytest.mark.parametrize("name", SOURCES)
every_delimiter = pytest.mark.parametrize("parameter", DELIMITERS)


def records(text: bytes, delimiter: str = ",") -> list[list[str]]:
    return list(
        csv.reader(io.StringIO(text.decode(), newline=""), delimiter=delimiter, strict=True)
    )


@every_source
@every_delimiter
@pytest.mark.parametrize("guard", [True, False])
async def test_a_file_is_guarded_and_quoted_by_the_letter(
    cells: aiohttp.ClientSession, name: str, parameter: str, guard: bool
) -> None:
    delimiter = DELIMITERS[parameter]
    path = f"{name}?format=csv&columns=cell,short,id&delimiter={parameter}"
    made = await body(cells, path if guard else f"{path}&guard=off")
    expected = ["cell", "short", "id"], *([cell, cell, str(n)] for n, cell in enumerate(CELLS))
    lines = (
        delimiter.join(csv_rule.field(text, delimiter, guard=guard) for text in record) + "\r\n"
        for record in expected
    )
    assert made.decode() == "".join(lines)


@every_source
@every_delimiter
async def test_a_reader_gets_what_is_run_behind_an_apostrophe_and_all_else_as_it_is(
    cells: aiohttp.ClientSession, name: str, parameter: str
) -> None:
    made = await body(cells, f"{name}?format=csv&header=0&delimiter={parameter}")
    rows = records(made, DELIMITERS[parameter])
    assert [row[1] for row in rows] == [csv_rule.guarded(cell) for cell in CELLS]
    assert [row[2] for row in rows] == [csv_rule.guarded(cell) for cell in CELLS]
    assert all(row[3:] == TYPED for row in rows)


@every_delimiter
async def test_copy_reads_a_guarded_file_too(
    cells: aiohttp.ClientSession, world: asyncpg.Connection, parameter: str
) -> None:
    made = await body(cells, f"cells?format=csv&columns=id,cell&delimiter={parameter}")
    await world.execute("CREATE TEMP TABLE back (id int, cell text)")
    await world.copy_to_table(
        "back", source=io.BytesIO(made), format="csv", header=True, delimiter=DELIMITERS[parameter]
    )
    back = await world.fetch("SELECT cell FROM back ORDER BY id")
    await world.execute("DROP TABLE back")
    assert [row[0] for row in back] == [csv_rule.guarded(cell) for cell in CELLS]


async def test_without_its_guard_a_csv_is_lossless(cells: aiohttp.ClientSession) -> None:
    rows = records(await body(cells, "cells?format=csv&header=0&guard=off"))
    assert [row[1] for row in rows] == list(CELLS)


async def test_the_other_formats_guard_nothing(cells: aiohttp.ClientSession) -> None:
    rows = json.loads(await body(cells, "cells?columns=cell"))
    assert [row["cell"] for row in rows] == list(CELLS)


@every_source
async def test_names_of_columns_are_guarded_too(cells: aiohttp.ClientSession, name: str) -> None:
    made = await body(cells, f"{name}_headed?format=csv")
    assert made == b'id,\'=1+1,"a;=2", +b\r\n'
    assert await body(cells, f"{name}_headed?format=csv&guard=off") == b"id,=1+1,a;=2, +b\r\n"


async def test_columns_are_asked_for_by_their_own_names(cells: aiohttp.ClientSession) -> None:
    path = "cells_headed?format=csv&columns=%3D1%2B1,a%3B%3D2"
    assert await body(cells, path) == b'\'=1+1,"a;=2"\r\n'


@every_source
async def test_a_guarded_file_goes_on_behind_its_key_and_another_behind_its_texts(
    cells: aiohttp.ClientSession, name: str
) -> None:
    """The guard changes what a token is made of, where that is a text."""
    guarded = f"{name}?format=csv&columns=cell,id"
    by_key = [id_ for _, id_ in records(await body(cells, guarded))[1:]]
    assert await _broken(cells, guarded, by_key) == []
    by_text = f"{guarded}&order=cell"
    shown = records(await body(cells, by_text))[1:]
    assert await _broken(cells, by_text, [_token(*row) for row in shown]) != []
    lossless = f"{by_text}&guard=off"
    shown = records(await body(cells, lossless))[1:]
    assert await _broken(cells, lossless, [_token(*row) for row in shown]) == []


async def _broken(http: aiohttp.ClientSession, path: str, made: list[str]) -> list[str]:
    """The tokens behind which what follows is not the rest of the file."""
    whole = await body(http, path)
    ends = [match.end() for match in _RECORD.finditer(whole)]
    rests = [whole[end:] for end in ends[1:]]
    return [
        token
        for token, rest in [*zip(made, rests, strict=True)][::4]
        if await body(http, f"{path}&header=0&after={quote(token, safe='')}") != rest
    ]


def _token(*values: str) -> str:
    """A token made by hand of what a file shows."""
    return ",".join(quote(value, safe="") for value in values)


@needs_libreoffice
@every_delimiter
async def test_calc_runs_nothing_of_a_file_that_is_opened_with_its_own_delimiter(
    cells: aiohttp.ClientSession, tmp_path: Path, parameter: str
) -> None:
    """And a first cell behind a byte order mark only without the guard.

    Readers drop the mark that a file begins with, and what then comes first may be run.
    """
    made = await body(cells, f"cells?format=csv&columns=cell,id,short&delimiter={parameter}")
    first = CELLS.index("\ufeff=1") - 1
    path = f"cells?format=csv&header=0&columns=cell&limit=1&after={first}&delimiter={parameter}"
    marked = [await body(cells, path), await body(cells, f"{path}&guard=off")]
    rows, guarded, unguarded = opened([made, *marked], tmp_path, DELIMITERS[parameter])
    assert len(rows) >= len(CELLS)
    assert formulas(rows) == []
    assert formulas(guarded) == []
    assert formulas(unguarded) == ["of:=1"]


# All at once: each separator more begins more fields, none of which may be run.
@needs_libreoffice
@pytest.mark.parametrize("wrong", [";\t|", *(pytest.param(s, marks=SOAK) for s in ";\t|")])
async def test_calc_runs_nothing_of_a_column_that_is_opened_with_another_delimiter(
    cells: aiohttp.ClientSession, tmp_path: Path, wrong: str
) -> None:
    """The quotes hold a field together where they begin and end a line."""
    made = await body(cells, "cells?format=csv&columns=cell")
    (rows,) = opened([made], tmp_path, wrong)
    assert len(rows) >= len(CELLS)
    assert formulas(rows) == []
