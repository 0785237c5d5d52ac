"""Every value of every type arrives as PostgreSQL's `row_to_json` has it, in each format.

Values are made as texts, cast by PostgreSQL, and read back over HTTP. The CSV is held against the
contract's rule for a cell, against Python's reader, and against PostgreSQL's own COPY FROM.
"""

import csv
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import NewDatabase
from tests.integration.feeds.foreign import oracle
from tests.integration.feeds.foreign import wide as wide_table
from tests.integration.feeds.foreign.values import AS_TYPED, NESTED, SCALAR, TYPES
from tests.support.drawn import share
from tests.support.servers import as_login
from tests.support.service import bearer, serving
from tests.support.sources import COPY_AT_ONCE, SOURCES

COLUMNS = {kind: f"c{number}" for number, kind in enumerate(TYPES)}
DATASET = """
[wide-{source}]
relation = "public.wide"
key = ["id"]
shared = true
source = "{source}"
"""
MORE = """
CREATE TEMPORARY TABLE back (LIKE wide);
GRANT SELECT ON wide TO PUBLIC;
"""
ROWS = 25  # values of one request: most of a test's time is the requests'
EXAMPLES = settings(
    max_examples=share(16),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Wide:
    """A table with a column of each type, its superuser, and a client of a service on it."""

    superuser: asyncpg.Connection
    http: aiohttp.ClientSession
    # Whose turn it is: datasets of the one table, each by a source of its own.
    turn: Iterator[str] = field(default_factory=lambda: cycle(f"wide-{name}" for name in SOURCES))

    async def body(self, form: str, columns: Sequence[str]) -> str:
        parameters = {"format": form, "columns": ",".join(columns)}
        if form == "csv":
            parameters["guard"] = "off"
        url = f"/v1/feeds/{next(self.turn)}"
        async with self.http.get(url, params=parameters, headers=bearer()) as answer:
            assert answer.status == 200
            return await answer.text()

    async def assert_sent_whole(self, columns: Sequence[str]) -> str:
        """Every format says what PostgreSQL says; returns the CSV."""
        expected = await oracle.objects(self.superuser, "wide", columns, "id")
        cells = await oracle.cells(self.superuser, "wide", columns, "id")
        bodies = {form: await self.body(form, columns) for form in oracle.FORMATS}
        for form, body in bodies.items():
            oracle.assert_body(form, body, columns, expected, cells)
        read = csv.reader(io.StringIO(bodies["csv"], newline=""), strict=True)
        assert list(read)[1:] == [[cell or "" for cell in row] for row in cells]
        return bodies["csv"]


@pytest.fixture(scope="module")
async def wide(
    new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Wide]:
    declared = tmp_path_factory.mktemp("wide") / "datasets.toml"
    declared.write_text("".join(DATASET.format(source=source) for source in SOURCES))
    async with new_database() as url:
        superuser = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
        await superuser.execute(wide_table.schema(COLUMNS) + MORE)
        with serving(as_login(url), datasets=Path(declared), settings=COPY_AT_ONCE) as running:
            async with aiohttp.ClientSession(running.url) as http:
                yield Wide(superuser, http)
        await superuser.close()


@pytest.mark.parametrize(
    "kinds",
    [*wide_table.together(SCALAR), *wide_table.together(NESTED)],
    ids=", ".join,
)
@EXAMPLES
@given(data=st.data())
async def test_a_value_is_sent_as_postgresql_writes_it(
    wide: Wide, kinds: Sequence[str], data: st.DataObject
) -> None:
    values = {
        kind: data.draw(st.lists(st.none() | TYPES[kind], min_size=1, max_size=ROWS))
        for kind in kinds
    }
    await wide_table.fill(wide.superuser, COLUMNS, values)
    columns = ("id", *(COLUMNS[kind] for kind in kinds))
    text = await wide.assert_sent_whole(columns)
    if kinds[0] in SCALAR:
        as_sent = {COLUMNS[kind] for kind in AS_TYPED.intersection(kinds)}
        await assert_copied_back(wide.superuser, text, columns, as_sent)


@EXAMPLES
@given(values=st.fixed_dictionaries({kind: st.none() | TYPES[kind] for kind in TYPES}))
async def test_values_of_all_types_stand_beside_each_other(
    wide: Wide, values: dict[str, str | None]
) -> None:
    casts = ", ".join(f"${number}::text::{kind}" for number, kind in enumerate(TYPES, start=1))
    given = [values[kind] for kind in TYPES]
    await wide.superuser.execute("DELETE FROM wide")
    await wide.superuser.execute(f"INSERT INTO wide SELECT 1, {casts}", *given)
    await wide.assert_sent_whole(("id", *COLUMNS.values()))


async def assert_copied_back(
    superuser: asyncpg.Connection, text: str, columns: Sequence[str], as_sent: AbstractSet[str]
) -> None:
    """COPY FROM makes the same rows of the CSV; `as_sent` are sent with blanks for line breaks."""
    await superuser.execute("TRUNCATE back")
    await superuser.copy_to_table(
        "back", source=io.BytesIO(text.encode()), format="csv", header=True, columns=columns
    )
    compared = ", ".join(
        f"translate({column}::text, E'\\n\\r', '  ')" if column in as_sent else f"{column}::text"
        for column in columns
    )
    sent, copied = f"SELECT {compared} FROM wide", f"SELECT {compared} FROM back"
    differing = await superuser.fetch(
        f"({sent} EXCEPT {copied}) UNION ALL ({copied} EXCEPT {sent})"
    )
    assert differing == []
