"""Readers of parameters: what they take, what they refuse, and what they make of it.

That PostgreSQL takes whatever they take is in tests/integration/datasets/test_literals.py.
"""

import pytest

from feedsvc.datasets import values as literals
from feedsvc.datasets.values import READERS

TAKEN = {
    "bool": ["true", "false", "t", "f", "TRUE", "False"],
    "int2": ["-32768", "32767", "0", "+1", "-0", "007"],
    "int4": ["-2147483648", "2147483647"],
    "int8": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "float4": ["0", "-0", "0e99", "3.4028234e38", "1.4e-45", "NaN", "-Infinity", "inf", ".5", "5."],
    "float8": ["1.7976931348623157e308", "5e-324", "0.1", "1e+9", "nan", "+infinity"],
    "numeric": ["0.1", "-.5", "1e400", "9" * 200, "NaN", "Infinity", "1e-16000"],
    "uuid": ["c0ffee00-0000-4000-8000-00000000000f", "C0FFEE00-0000-4000-8000-00000000000F"],
    "date": ["2024-02-29", "0001-01-01", "4714-11-24 BC", "0005-02-29 BC", "5874897-12-31",
             "infinity"],
    "time": ["17:30", "17:30:00", "00:00:00.000001", "24:00", "24:00:00.0"],
    "timestamp": ["4714-11-24T00:00 BC", "294276-12-31T23:59:59.999999", "2026-05-30",
                  "2026-05-30T17:30", "2026-05-30 17:30:00.5", "0044-03-15T12:00 BC"],
    "timestamptz": ["2026-05-30T17:30Z", "2026-05-30 17:30:00+05:30", "2026-05-30T17:30-0800"],
    "inet": ["192.0.2.1", "192.0.2.1/24", "::1", "2001:db8::/32", "::ffff:192.0.2.1", "0.0.0.0/0"],
    "cidr": ["192.0.2.0/24", "2001:db8::/32", "192.0.2.1"],
    "macaddr": ["08:00:2b:01:02:03", "FF:FF:FF:FF:FF:FF"],
    "bytea": ["\\x", "\\x00ff", "\\xDEADBEEF"],
}  # fmt: skip

REFUSED = {
    "bool": ["", "yes", "1", "tr", " true", "true\n"],
    "int2": ["-32769", "32768", "", "1.0", "1e2", " 1", "1\n", "1_000", "0x10", "١", "NaN", "--1"],
    "int4": ["-2147483649", "2147483648"],
    "int8": ["-9223372036854775809", "9223372036854775808", "1" * 41],
    "oid": ["-1", "4294967296", "010", "+010"],
    "float4": ["3.4028236e38", "1e-46", "1e39", "", "e5", ".", "1_0.0", "0x1p3", "1e", "infinit"],
    "float8": ["1.8e308", "1e309", "1e-400", "1,5", "1e9999999"],
    "numeric": ["", ".", "1e16001", "1" * 16_001, "1_000", "$5", "1 000", "١", "1e", "0x1F",
                "0." + "0" * 500 + "1e-15900"],
    "uuid": [
        "", "c0ffee00", "c0ffee00-0000-4000-8000-00000000000g", "0x" + "0" * 30,
        "c0ffee00_0000-4000-8000-00000000000", "+0ffee00-0000-4000-8000-00000000000f",
        "c0ffee00-0000-4000-8000-00000000000_", "c-0ffee00-0000-4000-8000-00000000000f",
    ],
    "date": ["2023-02-29", "2026-13-01", "2026-04-31", "0000-01-01", "4714-11-23 BC",
             "0004-02-29 BC", "5874898-01-01", "today", "26-05-30", "2026-5-30",
             "2026-05-30T00:00", "1 BC", ""],
    "time": ["24:00:01", "23:60", "23:59:60", "17", "17:30 PM", "17:30Z", "24:00:00.1", ""],
    "timestamp": ["2026-05-30T", "2026-05-30T17", "2026-05-30T17:30Z", "294277-01-01T00:00", "now",
                  "2026-05-30  17:30", "2026-02-29T00:00", "T17:30", "294276-12-31T24:00:00"],
    "timestamptz": ["2026-05-30T", "2026-05-30Z", "2026-05-30T+02", "2026-05-30T17:30+16",
                    "2026-05-30T17:30+05:60", "2026-05-30T17:30 UTC", "2026-05-30T17:30+", "epoch",
                    "294276-12-31T24:00:00Z"],
    "inet": ["", "192.0.2", "192.0.2.256", "192.0.2.1/33", "192.0.2.1/255.255.255.0", "::1/129",
             "192.0.2.1/0.0.0.255", "192.0.2.1/024", "fe80::1%eth0", "192.0.2.01", "1::2::3"],
    "cidr": ["192.0.2.1/24", "2001:db8::1/32", "192.0.2.0/255.255.255.0", "192.0.2.0/024"],
    "macaddr": ["", "08-00-2b-01-02-03", "08:00:2b:01:02", "08:00:2b:01:02:0g"],
    "bytea": ["", "x00", "\\x0", "\\x0g", "\\X00", "00", "\\x00 "],
}  # fmt: skip


def _cases(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(kind, value) for kind, values in table.items() for value in values]


def test_every_reader_has_cases() -> None:
    assert set(TAKEN) == set(REFUSED) == set(READERS)


@pytest.mark.parametrize(("kind", "value"), _cases(TAKEN))
def test_what_can_be_a_value_is_taken(kind: str, value: str) -> None:
    meant = {"t": "true", "f": "false"}.get(value, value)
    assert READERS[kind](value).lower() == meant.lower()


@pytest.mark.parametrize(("kind", "value"), _cases(REFUSED))
def test_what_can_be_no_value_is_refused_with_what_is_allowed(kind: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"^(an?|bytes|true|Six|one) .+|^true or false"):
        READERS[kind](value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("2026-05-30T17:30:00 02:00", "2026-05-30T17:30:00+02:00"),
        ("2026-05-30T17:30:00.25 00", "2026-05-30T17:30:00.25+00"),
        ("0044-03-15T12:00:00 01 BC", "0044-03-15T12:00:00+01 BC"),
    ],
)
def test_a_plus_that_is_not_percent_encoded_is_understood(given: str, meant: str) -> None:
    assert literals.timestamptz(given) == meant


def test_a_uuid_is_sent_in_its_usual_form() -> None:
    usual = "c0ffee00-0000-4000-8000-00000000000f"
    assert literals.uuid_text(usual.upper()) == literals.uuid_text(usual.replace("-", "")) == usual


@pytest.mark.parametrize("value", ["", "a\r\nb", "'; DROP TABLE x; --", "\ufffe", "👰🏽‍♀️"])
def test_any_text_is_taken_as_it_is(value: str) -> None:
    assert literals.text(value) == value


@pytest.mark.parametrize("value", ["a\0", "\ud800"])
def test_text_that_postgresql_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="text without"):
        literals.text(value)


def test_an_enum_takes_its_labels_alone() -> None:
    read = literals.label(["new", "it's, done"])
    assert read("it's, done") == "it's, done"
    with pytest.raises(ValueError, match="one of new, it's, done"):
        read("New")
