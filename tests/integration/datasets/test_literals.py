"""Whatever a reader takes, PostgreSQL takes too, so no bad value costs a connection.

And takes for the same, whether it comes as a parameter or as a literal.

Values are made by each type's grammar, at its edges, and a keystroke away from it.
"""

import string
from collections.abc import Sequence

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedsvc.datasets.values import READERS
from feedsvc.feeds.sql.quoting import literal
from tests.support.drawn import share

# In a block of its own each, so that one refusal does not end the others; on 15 as on 18.
_JUDGE = """
    CREATE OR REPLACE FUNCTION pg_temp.refused(given text[], literals text[], kind text)
    RETURNS text[] LANGUAGE plpgsql AS $$
    DECLARE
        value text;
        as_literal text;
        is_same boolean;
        found text[] := '{}';
    BEGIN
        FOR value, as_literal IN SELECT * FROM unnest(given, literals) LOOP
            BEGIN
                EXECUTE format('SELECT ($1::text::pg_catalog.%1$I)::text'
                    ' = (%2$s::pg_catalog.%1$I)::text', kind, as_literal)
                    INTO STRICT is_same USING value;
                IF is_same IS NOT TRUE THEN
                    found := found || (value || ' is another as ' || as_literal);
                END IF;
            EXCEPTION WHEN data_exception OR program_limit_exceeded OR syntax_error THEN
                found := found || (value || ': ' || SQLERRM);
            END;
        END LOOP;
        RETURN found;
    END $$
"""

# Pieces of the grammars of dates and times.
_DAY = r"([0-9]{4,7}|58748(97|98)|29427[5-8]|471[345]|0000)-(0[0-9]|1[0-3])-([0-2][0-9]|3[012])"
_CLOCK = r"(2[345]|[01][0-9]):(00|59|60|[0-5][0-9])(:(00|59|60)(\.[0-9]{1,10})?)?"
_OFFSET = r"(Z|[ +-](0[0-9]|1[4-7])(:?(00|30|59|60))?)?"
_HEXTET = r"[0-9a-f]{1,4}"

# A little wider than the types' own.
GRAMMARS = {
    "bool": r"(true|false|t|f|yes|on|1|tr)",
    "int2": r"[+-]?0{0,3}(3276[5-9]|[0-9]{1,6})",
    "int4": r"[+-]?0{0,3}(214748364[5-9]|[0-9]{1,11})",
    "int8": r"[+-]?0{0,3}(922337203685477580[5-9]|[0-9]{1,21})",
    "oid": r"[+-]?(429496729[3-7]|[0-9]{1,11})",
    "float4": r"[+-]?(3\.4028235(67797[0-9]{1,12})?e38|7\.00649232162[0-9]{0,9}e-46|1e-?[0-9]{2})",
    "float8": r"[+-]?(1\.797693134862315[0-9]{1,6}e308|[0-9]?\.?[0-9]?e-32[0-9]|[0-9]*\.?[0-9]*)",
    "numeric": r"[+-]?([0-9]{1,99}(\.[0-9]{0,600})?|\.[0-9])(e-?(1[56][0-9]{3}|[0-9]))?|inf|nan",
    "uuid": r"\{?(urn:uuid:)?[0-9a-fA-F]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\}?",
    "date": rf"{_DAY}( BC)?|-?infinity",
    "time": _CLOCK,
    "timestamp": rf"{_DAY}([T ]({_CLOCK})?)?( BC)?",
    "timestamptz": rf"{_DAY}([T ]({_CLOCK})?{_OFFSET})?( BC)?",
    "inet": rf"([0-9]{{1,3}}(\.[0-9]{{1,3}}){{2,4}}|({_HEXTET}:){{1,7}}:?({_HEXTET}|192\.0\.2\.1)?)"
    r"(/[0-9]{1,3}|/255\.255\.0\.0|%eth0)?",
    "cidr": rf"((10|192)(\.0){{3}}|192\.0\.2\.(0|128)|({_HEXTET}:){{1,7}}:)"
    r"(/[0-9]{1,3}|/255\.255\.255\.0)?",
    "macaddr": r"[0-9a-fA-F]{2}([:-]?[0-9a-fA-F]{2}){5}",
    "bytea": r"\\[xX]([0-9a-fA-F]{2}){0,6}",
}

EDGES = {
    "bool": ["true", "F"],
    "int2": ["-32768", "32767"],
    "int4": ["-2147483648", "2147483647"],
    "int8": ["-9223372036854775808", "9223372036854775807", "+" + "0" * 21 + "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "float4": ["3.4028235e38", "-3.40282356e38", "1e-45", "7.01e-46", "NaN", "-inf"],
    "float8": ["1.7976931348623157e308", "5e-324", "4.9406564584124654e-324", "0e-999999"],
    "numeric": ["9" * 16_000, "1e16000", "1e-16000", "-Infinity", "nAn", "." + "1" * 15_999],
    "uuid": ["00000000-0000-0000-0000-000000000000", "F" * 32],
    "date": ["4714-11-24 BC", "5874897-12-31", "0001-01-01", "0000001-01-01", "-Infinity"],
    "time": ["24:00:00", "23:59:59.999999999", "00:00"],
    "timestamp": ["4714-11-24T00:00 BC", "294276-12-31T23:59:59.999999", "2026-05-30", "infinity"],
    "timestamptz": ["4713-01-01T00:00+15:59 BC", "294276-12-30T23:59:59.9-15:59", "2026-05-30"],
    "inet": ["0.0.0.0/0", "::/0", "::ffff:192.0.2.1/128", "1:2:3:4:5:6:7::", "192.0.2.7/24"],
    "cidr": ["0.0.0.0/0", "::/0", "192.0.2.128/25", "2001:db8::/32"],
    "macaddr": ["00:00:00:00:00:00", "FF:ff:FF:ff:FF:ff"],
    "bytea": ["\\x", "\\xdeadBEEF"],
}  # fmt: skip

HARMLESS = {*string.ascii_letters, *string.digits, *" +.:_-\\"}
KEYSTROKES = "0159 +-.:/,_eExXTZn%\\\t\n\u0661\u2212\u00a0'\""


@st.composite
def candidates(draw: st.DrawFn, kind: str) -> str:
    """A text by the type's grammar or at its edge, often with one wrong keystroke."""
    value: str = draw(st.from_regex(GRAMMARS[kind], fullmatch=True) | st.sampled_from(EDGES[kind]))
    if draw(st.booleans()):
        return value
    at: int = draw(st.integers(0, len(value)))
    typed: str = draw(st.sampled_from(["", *KEYSTROKES]))
    replaced: int = draw(st.integers(0, 1))
    return value[:at] + typed + value[at + replaced :]


def taken(kind: str, values: Sequence[str]) -> list[str]:
    """The values that the reader takes, as it sends them."""
    sent = []
    for value in values:
        try:
            sent.append(READERS[kind](value))
        except ValueError:
            continue
    return sent


@pytest.fixture
async def judge(world: asyncpg.Connection) -> asyncpg.Connection:
    """A session of the oracle that can tell which texts PostgreSQL refuses, or takes for two."""
    await world.execute(_JUDGE)
    return world


async def refused(judge: asyncpg.Connection, kind: str, values: Sequence[str]) -> list[str]:
    found: list[str] = await judge.fetchval(
        "SELECT pg_temp.refused($1, $2, $3)", values, list(map(literal, values)), kind
    )
    return found


def test_every_reader_has_a_grammar_and_edges() -> None:
    assert set(GRAMMARS) == set(EDGES) == set(READERS)


@pytest.mark.parametrize("kind", READERS)
async def test_both_take_the_edges_of_a_type(judge: asyncpg.Connection, kind: str) -> None:
    sent = taken(kind, EDGES[kind])
    assert len(sent) == len(EDGES[kind])
    assert await refused(judge, kind, sent) == []


@pytest.mark.parametrize("kind", READERS)
@settings(
    max_examples=share(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
async def test_postgresql_takes_whatever_a_reader_takes(
    judge: asyncpg.Connection, kind: str, data: st.DataObject
) -> None:
    values = data.draw(st.lists(candidates(kind), min_size=8, max_size=40))
    assert await refused(judge, kind, taken(kind, values)) == []


async def test_the_judge_itself_refuses_what_is_no_value(judge: asyncpg.Connection) -> None:
    assert len(await refused(judge, "int8", ["1", "x", "9223372036854775808"])) == 2


@pytest.mark.parametrize("conforming", ["on", "off"])
@settings(
    max_examples=share(100),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.text("'\\\"Uu\n;-/*$E0")
)
async def test_a_literal_is_the_value_and_nothing_else(
    world: asyncpg.Connection, conforming: str, value: str
) -> None:
    written = literal(value)
    assert set(written[2:-1]) <= HARMLESS
    await world.execute(f"SET standard_conforming_strings = {conforming}")
    assert await world.fetchval(f"SELECT {written}::text") == value
