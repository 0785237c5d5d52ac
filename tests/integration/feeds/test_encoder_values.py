"""Of every type, at its edges and at random, the encoder makes the bytes that PostgreSQL makes."""

import random
import struct
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedsvc.datasets.catalog import resolve
from feedsvc.datasets.dataset import Column, Dataset, Declaration
from streams.csv_record import PLAIN_CSV
from tests.integration.feeds.foreign import wide as wide_table
from tests.integration.feeds.foreign.values import LABELS, TEXT, TYPES, arrays
from tests.support import csv_rule
from tests.support.drawn import DRAWN, share
from tests.support.encoding import (
    STYLES,
    Form,
    Source,
    distribution_postgres,
    needs_encoder,
    some_forms,
)
from tests.support.servers import copied_database

pytestmark = needs_encoder

RUNNABLE: Final = (
    *("=", "@", "\t", "\r", "\n", "＝1", "＋1", "－1", "＠x", "＜", "ｆ", "\uff0c", "-", "+"),
    *("+44 (0) 20/7946-09.58", "+1,2", "-1;2", "+1\n", "-1\t", "+٣", "--1", "-a", "'=1"),
    *("x" * 7, "x" * 8, "x" * 9, 'x"', 'xxxxxxx"', 'xxxxxxxx"', "xxxxxxx,", "xxxxxxxx;", '"' * 20),
    *csv_rule.CELLS,
    *("é" * 4, "\x1f" * 9, "\\" * 17, "\x7f\x80", "a\u2028" * 5, "n" * 5000, '"\n' * 3000),
)
NUMBERS: Final = st.sampled_from(
    [
        *("0.0001", "-0.00010000", "1e-16383", "9" * 131072, "10000", "99999999", "1e131071"),
        *("0." + "0" * 16382 + "1", "123456789.000010000", "-0.5", "1e4", "1e8", "12e3"),
    ]
)
TOUCHY: Final[Mapping[str, st.SearchStrategy[str]]] = {
    "text": st.sampled_from(RUNNABLE) | TEXT,
    "numeric": NUMBERS | TYPES["numeric"],
    "inet": st.sampled_from(
        [
            *("::", "::1", "::1.2.3.4", "::ffff:1.2.3.4", "::ffff:0:1.2.3.4", "1::", "1:0:0:1::1"),
            *("1:0:0:1:1:0:0:1", "0:0:1:1:1:1:0:0", "1:0:0:0:1:0:0:0", "1:1:0:0:1:0:0:0"),
            *(
                "::2:1",
                "0:0:1::",
                "1:0:1:0:1:0:1:0",
                "2001:db8::1/0",
                "::fffe:1.2.3.4",
                "::0.0.0.1",
            ),
            *("0.0.0.0/0", "255.255.255.255/32", "10.0.0.1/31", "::ffff:0:0", "::1:0", "::1:2:0"),
        ]
    )
    | TYPES["inet"],
    "cidr": st.sampled_from(["1.2.3.4", "10/8", "::ffff:1.2.3.4", "::/128", "0/0", "fe80::/10"]),
    '"char"': st.sampled_from(
        ["", "\\200", "\\377", "=", "+", "\\", '"', ",", "\t", "\x01", "\x7f"]
    ),
    "interval": st.sampled_from(
        [
            *("-00:00:00.1", "1 mon -1 day", "-1 year 1 mon", "-1 day 00:00:01", "1 day -00:00:01"),
            *(
                "2562047788:00:54.775807",
                "-9223372036854775808 us",
                "11 mons",
                "-11 mons",
                "12 mons",
            ),
            *(
                "-178956970 years -8 mons",
                "2147483647 days",
                "-2147483648 days 1 sec",
                "1 day 1 sec",
            ),
        ]
    )
    | TYPES["interval"],
}
MORE_ARRAYS: Final = {
    f"{kind}[]": arrays(TOUCHY.get(kind, TYPES[kind]))
    for kind in (
        *("smallint", "bigint", "oid", "real", "double precision", "varchar", "char(7)", "name"),
        *("uuid", "date", "time", "timetz", "timestamp", "interval", "inet", "cidr", "macaddr"),
        *("macaddr8", '"char"', "labelled", "document", "bit(5)"),
    )
}
# Types with a cast to json of their own, by which row_to_json shows them.
CAST: Final = {
    "mood": st.sampled_from(["fine", "so, so"]),
    "mood[]": arrays(st.sampled_from(["fine", "so, so"])),
}
VALUES: Final = {**TYPES, **TOUCHY, **MORE_ARRAYS, **CAST}
COLUMNS: Final = {kind: f"c{number}" for number, kind in enumerate(VALUES)}
EXAMPLES: Final = settings(
    max_examples=share(20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
ROWS: Final = 40
# With a point, a comma and quotes.
NUMERIC_FORMS: Final = (Form("json"), *(Form("csv", style) for style in (PLAIN_CSV, *STYLES[:2])))


@dataclass(frozen=True)
class Wide:
    """A table with a column of each type."""

    connection: asyncpg.Connection
    dataset: Dataset

    async def fill(self, values: Mapping[str, Sequence[str | None]]) -> None:
        await wide_table.fill(self.connection, COLUMNS, values)

    def source(self, *columns: str, relation: str = "wide") -> Source:
        chosen = [self.dataset.columns[column] for column in columns]
        return Source(self.connection, relation, chosen, self.dataset.key)


@pytest.fixture(scope="module", params=[18, 15])
def server(request: pytest.FixtureRequest, admin_url: str) -> Iterator[str]:
    if request.param == 18:
        yield admin_url
    else:
        with distribution_postgres(request.param) as url:
            yield url


@pytest.fixture(scope="module")
async def wide(server: str) -> AsyncIterator[Wide]:
    async with copied_database(server) as url:
        role = url.rpartition("/")[2]
        superuser = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
        await superuser.execute(wide_table.schema(COLUMNS))
        login = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
        await login.execute(f"CREATE ROLE {role}; GRANT ALL ON wide TO {role}; SET ROLE {role}")
        declared = Declaration(relation="public.wide", key=("id",), shared=True)
        datasets, findings = await resolve(login, {"wide": declared})
        assert not findings
        yield Wide(superuser, datasets["wide"])
        await login.close()
        await superuser.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await superuser.close()


@pytest.mark.parametrize("kinds", wide_table.together(VALUES), ids=", ".join)
@EXAMPLES
@given(data=st.data())
async def test_a_value_is_written_as_postgresql_writes_it(
    wide: Wide, kinds: Sequence[str], data: st.DataObject
) -> None:
    values = {
        kind: data.draw(st.lists(st.none() | VALUES[kind], min_size=1, max_size=ROWS))
        for kind in kinds
    }
    dice = data.draw(st.randoms(use_true_random=False))
    await wide.fill(values)
    columns = ("id", *(COLUMNS[kind] for kind in kinds))[dice.randint(0, 1) :]
    await wide.source(*columns).assert_alike(some_forms(dice), dice)


@EXAMPLES
@given(
    values=st.fixed_dictionaries({kind: st.none() | VALUES[kind] for kind in VALUES}),
    dice=st.randoms(use_true_random=False),
)
async def test_values_of_all_types_stand_beside_each_other(
    wide: Wide, values: dict[str, str | None], dice: random.Random
) -> None:
    casts = ", ".join(f"${number}::text::{kind}" for number, kind in enumerate(VALUES, start=1))
    await wide.connection.execute("TRUNCATE wide")
    await wide.connection.execute(
        f"INSERT INTO wide SELECT n, {casts} FROM generate_series(1, 2) AS n",
        *[values[kind] for kind in VALUES],
    )
    await wide.source("id", *COLUMNS.values()).assert_alike(some_forms(dice), dice)


async def test_what_is_an_infinite_interval_depends_on_the_server(wide: Wide) -> None:
    """PostgreSQL 17 took the largest and the smallest one for the infinities."""
    least, most = "-178956970 years -8 mons", "178956970 years 7 mons"
    least, most = f"{least} -2147483648 days", f"{most} 2147483647 days"
    ends = f"{most} 2562047788:00:54.775807", f"{least} -9223372036854775808 us"
    if wide.connection.get_server_version().major >= 17:
        ends = "infinity", "-infinity"
    await wide.fill({"interval": ends})
    await wide.source("id", COLUMNS["interval"]).assert_alike()
    await wide.fill({"interval[]": [f"{{{','.join(ends)}}}"]})
    await wide.source("id", COLUMNS["interval[]"]).assert_alike()


def _floats(width: int) -> list[float]:
    """Numbers of every magnitude: each power of two with its neighbours, and random bits."""
    size, letter, fraction = (8, "d", 52) if width == 64 else (4, "f", 23)
    dice = random.Random(20)
    exponents = range(2 ** (width - 1 - fraction))
    patterns = [(e << fraction) + step for e in exponents for step in (-1, 0, 1) if e or step >= 0]
    patterns += [*range(2_000), *(dice.getrandbits(width) for _ in range(share(60_000)))]
    return [struct.unpack(f">{letter}", bits.to_bytes(size, "big"))[0] for bits in patterns]


@DRAWN
@pytest.mark.parametrize(("kind", "width"), [("double precision", 64), ("real", 32)])
async def test_a_float_has_the_digits_that_postgresql_gives_it(
    wide: Wide, kind: str, width: int
) -> None:
    exact = [
        *(float(n * 10**e) for n in (1, 5, 123456789) for e in range(20)),
        *(n / 10**e for n in (1, 3, 25) for e in range(20)),
        *(float(2**e + 1) for e in range(60)),
    ]
    await wide.connection.execute("TRUNCATE wide")
    await wide.connection.execute(
        f"INSERT INTO wide (id, {COLUMNS[kind]}) SELECT n, v"
        f" FROM unnest($1::{kind}[]) WITH ORDINALITY AS given (v, n)",
        [*_floats(width), *exact],
    )
    await wide.source("id", COLUMNS[kind]).assert_alike(NUMERIC_FORMS)


async def test_every_day_of_some_years_is_written_as_postgresql_writes_it(wide: Wide) -> None:
    await wide.connection.execute("TRUNCATE wide")
    spans = [(-2451545, -2451000), (-731000, -730000), (-200, 1500), (2921000, 2923000)]
    for low, high in spans:
        await wide.connection.execute(
            f"INSERT INTO wide (id, {COLUMNS['date']}, {COLUMNS['timestamp']})"
            " SELECT n, '2000-01-01'::date + n,"
            " '2000-01-01'::timestamp + n * interval '1 day' + interval '0.000001 s'"
            " FROM generate_series($1::int, $2::int) AS n",
            low,
            high,
        )
    await wide.source("id", COLUMNS["date"], COLUMNS["timestamp"]).assert_alike()


async def test_any_column_can_be_read_for_its_token_alone(wide: Wide) -> None:
    """The key's text is there although the record has not got the column."""
    kinds = [kind for kind in VALUES if _can_be_key(wide.dataset.columns[COLUMNS[kind]])]
    assert len(kinds) > 20
    dice = random.Random(3)
    for kind in kinds:
        await wide.fill({kind: await _sample(wide, kind)})
        column = wide.dataset.columns[COLUMNS[kind]]
        key = [wide.dataset.columns["id"], column]
        for shown in (wide.dataset.key, [column]):
            source = Source(wide.connection, "wide", shown, key)
            await source.assert_alike(some_forms(dice))


def _can_be_key(column: Column) -> bool:
    return column.reader() is not None


async def _sample(wide: Wide, kind: str) -> list[str]:
    text = {
        "boolean": "t",
        "label": LABELS[0],
        "mood": "fine",
        "uuid": str(uuid.uuid4()),
        "bytea": "\\x00ff",
    }
    text |= {"date": "0044-03-15 BC", "time": "24:00", "inet": "10.1.2.3/8", "cidr": "::/0"}
    text |= {
        "timestamp": "infinity",
        "timestamptz": "2026-01-01 12:00+02",
        "macaddr": "08002b010203",
    }
    return [text.get(kind, "7")]
