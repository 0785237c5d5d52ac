"""PostgreSQL's types with texts of their values, at their edges and at random, for hypothesis."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hypothesis import strategies as st

Texts = st.SearchStrategy[str]

ANY_TEXT: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
AWKWARD: Final = (
    *("", " ", "NULL", "null", "\\N", "\\.", '"', "'", '""', ",", ";", "{}", "[]", "\\", "\\\\"),
    *("\t", "\r", "\n", "\r\n", "a\rb", "\x01", "\x1f", "\x7f", "\x85", "\u2028", "\u2029"),
    *("\ufeff", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff", "💍", "e\u0301", "\u202e"),
    *("=1+1", "@x", "-1+1", "%00", "\\u0000", "</script>", "data: x\n\n", "0" * 2000),
    "\n\nevent: end\nid: end\ndata: {}\n\n",
)
TEXT: Final = st.sampled_from(AWKWARD) | ANY_TEXT

DIGITS: Final = st.text("0123456789", min_size=1, max_size=1000)
BLANKS: Final = st.text(" \t\r\n", max_size=3)


def integers(bits: int) -> Texts:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.sampled_from([low, -1, 0, 1, high]).map(str) | st.integers(low, high).map(str)


@st.composite
def numerics(draw: st.DrawFn) -> str:
    edges = ["NaN", "Infinity", "-Infinity", "0", "-0", "0.000", "1e-1000", "-1e999", "1" * 1000]
    number = f"{draw(st.sampled_from(['', '-']))}{draw(DIGITS)}"
    whole = draw(st.booleans())
    return draw(st.sampled_from([*edges, number if whole else f"{number}.{draw(DIGITS)}"]))


def floats(width: int) -> Texts:
    edges = [
        "NaN",
        "Infinity",
        "-Infinity",
        "0",
        "-0",
        "1e-45" if width == 32 else "5e-324",
        "1e15",
    ]
    sized = st.floats(width=32) if width == 32 else st.floats()
    return st.sampled_from(edges) | sized.map(repr)


@st.composite
def dates(draw: st.DrawFn, last_year: int = 5_874_897) -> str:
    edges = ["infinity", "-infinity", "4714-11-24 BC", "0001-12-31 BC", "0001-01-01", "2000-02-29"]
    year, era = draw(st.integers(1, last_year)), ""
    if year <= 4713 and draw(st.booleans()):
        era = " BC"
    day = f"{year:04}-{draw(st.integers(1, 12)):02}-{draw(st.integers(1, 28)):02}{era}"
    return draw(st.sampled_from([*edges, day, day]))


@st.composite
def times(draw: st.DrawFn) -> str:
    clock = [draw(st.integers(0, most)) for most in (23, 59, 59, 999_999)]
    given = "{:02}:{:02}:{:02}.{:06}".format(*clock)
    return draw(st.sampled_from(["24:00:00", "00:00:00", "23:59:59.999999", given, given]))


OFFSETS: Final = st.sampled_from(["+00", "-00:00:01", "+05:30", "-15:59", "+15:59:59", "+14"])


@st.composite
def timestamps(draw: st.DrawFn, *, zoned: bool = False) -> str:
    day = draw(dates(last_year=294_275))
    first, last = "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999"
    if day.endswith("infinity"):
        return day
    if day.startswith("4714"):
        return draw(st.sampled_from([first, last]))
    date, _, era = day.partition(" ")
    offset = draw(OFFSETS) if zoned else ""
    return f"{date} {draw(times())}{offset} {era}".strip()


@st.composite
def intervals(draw: st.DrawFn) -> str:
    units = ("years", "mons", "days", "hours", "mins", "secs")
    counts = [draw(st.integers(-99_999, 99_999)) for _ in units]
    given = " ".join(f"{n} {unit}" for n, unit in zip(counts, units, strict=True))
    edges = ["0", "178000000 years", "-1 mon +1 day -00:00:00.000001", "1 year 2 mons"]
    return draw(st.sampled_from([*edges, given, given]))


SCALARS: Final[Sequence[Texts]] = (
    st.sampled_from(["null", "true", "0.10", "-0", "1e400", "12345678901234567890.0", '""']),
    ANY_TEXT.map(json.dumps),
    ANY_TEXT.map(lambda text: json.dumps(text, ensure_ascii=False)),
)
LETTERED: Final = st.sampled_from(['"\\u0000"', '"\\ud800"', '"\\/\\b"', '"\\uD83D\\uDC8D"'])


def json_texts(*scalars: Texts) -> Texts:
    """JSON as somebody might have typed it, white space and doubled keys and all."""

    def deeper(inner: Texts) -> Texts:
        items = st.lists(inner, max_size=3)
        pairs = st.lists(st.tuples(SCALARS[1], BLANKS, inner).map(_pair), max_size=3)
        return items.map(lambda i: f"[{','.join(i)}]") | pairs.map(lambda p: f"{{{','.join(p)}}}")

    def spaced(inner: Texts) -> Texts:
        return st.tuples(BLANKS, inner, BLANKS).map("".join)

    return spaced(
        st.recursive(spaced(st.one_of(scalars)), lambda i: spaced(deeper(i)), max_leaves=6)
    )


def _pair(parts: tuple[str, str, str]) -> str:
    key, blanks, value = parts
    return f"{key}{blanks}:{value}"


def arrays(items: Texts) -> Texts:
    """One or two dimensions, empty ones, and NULLs among the items."""
    row = st.lists(st.none() | items, max_size=4)
    square = st.integers(1, 2).flatmap(
        lambda n: st.lists(
            st.lists(st.none() | items, min_size=n, max_size=n), min_size=1, max_size=2
        )
    )
    return row.map(_array) | square.map(lambda rows: "{" + ",".join(map(_array, rows)) + "}")


def _array(items: Sequence[str | None]) -> str:
    return "{" + ",".join("NULL" if item is None else _quoted(item) for item in items) + "}"


def _quoted(item: str) -> str:
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def ranges(draw: st.DrawFn, values: Texts, key: Callable[[str], object]) -> str:
    ends = sorted([draw(values), draw(values)], key=key)  # type: ignore[arg-type]
    given = draw(st.sampled_from("[(")) + ",".join(map(_quoted, ends)) + draw(st.sampled_from("])"))
    return draw(st.sampled_from(["empty", "(,)", given, given]))


HEX: Final = st.binary(max_size=40).map(bytes.hex)
SHORT_NUMBERS: Final = st.integers(-999, 999).map(str)
POINTS: Final = st.tuples(SHORT_NUMBERS, SHORT_NUMBERS).map(lambda p: f"({p[0]},{p[1]})")
WORDS: Final = TEXT.map(lambda text: text[:500] or "x").map(
    lambda text: "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
)
LABELS: Final = ("a, b", 'say "x"', "=1+1", "", "Ü\n")

# What JSON shows as an object or an array comes back from CSV as JSON text, no longer as itself.
NESTED: Final[Mapping[str, Texts]] = {
    "integer[]": arrays(integers(32)),
    "numeric[]": arrays(numerics()),
    "text[]": arrays(TEXT),
    "boolean[]": arrays(st.sampled_from("tf")),
    "json[]": arrays(json_texts(*SCALARS, LETTERED)),
    "jsonb[]": arrays(json_texts(*SCALARS)),
    "timestamptz[]": arrays(timestamps(zoned=True)),
    "bytea[]": arrays(HEX.map(lambda digits: f"\\x{digits}")),
    "label[]": arrays(st.sampled_from(LABELS)),
    "pair": st.tuples(integers(32), TEXT, json_texts(*SCALARS, LETTERED)).map(
        lambda parts: f"({','.join(map(_quoted, parts))})"
    ),
}
SCALAR: Final[Mapping[str, Texts]] = {
    "boolean": st.sampled_from(["t", "f"]),
    "smallint": integers(16),
    "integer": integers(32),
    "bigint": integers(64),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "numeric": numerics(),
    "numeric(20,5)": st.decimals(-(10**14), 10**14, allow_nan=False, places=5).map(str),
    "real": floats(32),
    "double precision": floats(64),
    "text": TEXT,
    "varchar": TEXT,
    "char(7)": ANY_TEXT.map(lambda text: text[:7]),
    '"char"': st.characters(min_codepoint=1, max_codepoint=127),
    "name": ANY_TEXT.map(lambda text: text[:15]),
    "label": st.sampled_from(LABELS),
    "labelled": TEXT,
    "bytea": HEX.map(lambda digits: f"\\x{digits}"),
    "date": dates(),
    "time": times(),
    "timetz": st.tuples(times(), OFFSETS).map("".join),
    "timestamp": timestamps(),
    "timestamptz": timestamps(zoned=True),
    "interval": intervals(),
    "uuid": st.uuids().map(str),
    "json": json_texts(*SCALARS, LETTERED),
    "document": json_texts(*SCALARS, LETTERED),
    "jsonb": json_texts(*SCALARS),
    "inet": st.tuples(st.ip_addresses(), st.integers(0, 32)).map(lambda p: f"{p[0]}/{p[1]}"),
    "cidr": st.sampled_from(["0.0.0.0/0", "::/0", "::1/128", "10.0.0.0/8", "2001:db8::/32"]),
    "macaddr": st.binary(min_size=6, max_size=6).map(bytes.hex),
    "macaddr8": st.binary(min_size=8, max_size=8).map(bytes.hex),
    "bit(5)": st.text("01", min_size=5, max_size=5),
    "bit varying": st.text("01", max_size=70),
    "point": st.tuples(floats(64), floats(64)).map(lambda p: f"({p[0]},{p[1]})"),
    "box": st.tuples(POINTS, POINTS).map(",".join),
    "polygon": st.lists(POINTS, min_size=1, max_size=4).map(lambda p: f"({','.join(p)})"),
    "circle": st.tuples(POINTS, st.integers(0, 99)).map(lambda p: f"<{p[0]},{p[1]}>"),
    "tsvector": st.lists(WORDS, max_size=4).map(" ".join),
    "tsquery": st.sampled_from(["", "a", "a & !b", "(a | b:A) & c:*", "'x ''y' <-> z"]),
    "pg_lsn": st.tuples(*[st.integers(0, 2**32 - 1)] * 2).map(lambda p: f"{p[0]:X}/{p[1]:X}"),
    "int4range": ranges(st.integers(-99, 99).map(str), int),
    "numrange": ranges(st.decimals(-99, 99, places=3).map(str), float),
    "daterange": ranges(st.dates().map(str), str),
    "tstzrange": ranges(st.datetimes().map(str), str),
    "int8multirange": st.lists(ranges(SHORT_NUMBERS, int), max_size=3).map(
        lambda parts: f"{{{','.join(p for p in parts if p != 'empty')}}}"
    ),
}
TYPES: Final = {**SCALAR, **NESTED}

# Kept by PostgreSQL as somebody typed it, line breaks and all.
AS_TYPED: Final = frozenset({"json", "document"})
