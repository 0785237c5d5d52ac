"""The feed according to PostgreSQL itself, and a body taken apart to be compared with it.

Nothing here knows how the service makes its SQL: rows are `row_to_json` of a plain SELECT, and a
CSV cell follows from the JSON of its column alone.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import asyncpg

NDJSON: Final = "ndjson"
FORMATS: Final = ("json", "csv", NDJSON, "sse")

_MADE_OF_JSON: Final = ("json", "jsonb")
_EVENT: Final = re.compile(
    r"(?:event: (?P<event>[a-z]+)\n)?(?:id: (?P<id>[^\r\n]*)\n)?data: (?P<data>[^\r\n]*)"
)


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


async def objects(
    connection: asyncpg.Connection, rows: str, columns: Sequence[str], order: str
) -> list[str]:
    """`row_to_json` of these columns of a FROM clause with its WHERE, raw line breaks as blanks."""
    shown = ", ".join(map(identifier, columns))
    found = await connection.fetch(
        f"SELECT translate(row_to_json(r.*)::text, E'\\n\\r', '  ')"
        f" FROM (SELECT {shown} FROM {rows} ORDER BY {order}) AS r"
    )
    return [row[0] for row in found]


async def cells(
    connection: asyncpg.Connection, rows: str, columns: Sequence[str], order: str
) -> list[list[str | None]]:
    """The text of each column's JSON, a scalar's without its quotes; NULL as None."""
    made_of_json = await _made_of_json(connection, rows, columns)
    values = ", ".join(
        f"translate(to_json({identifier(column)})::text, E'\\n\\r', '  ')" for column in columns
    )
    found = await connection.fetch(f"SELECT {values} FROM {rows} ORDER BY {order}")
    return [
        [
            value if value is None or is_json else unquoted(value)
            for value, is_json in zip(tuple(row), made_of_json, strict=True)
        ]
        for row in found
    ]


def unquoted(scalar: str) -> str:
    """A JSON string's content; any other JSON as it is."""
    return str(json.loads(scalar)) if scalar.startswith('"') else scalar


async def _made_of_json(
    connection: asyncpg.Connection, rows: str, columns: Sequence[str]
) -> list[bool]:
    """The columns that are json or jsonb, or a domain over one."""
    shown = ", ".join(map(identifier, columns))
    statement = await connection.prepare(f"SELECT {shown} FROM {rows} LIMIT 0")
    found = await connection.fetch(
        """
        WITH RECURSIVE base (position, oid) AS (
            SELECT position, oid FROM unnest($1::oid[]) WITH ORDINALITY AS declared (oid, position)
            UNION ALL
            SELECT position, typbasetype FROM base JOIN pg_type t USING (oid) WHERE typtype = 'd'
        )
        SELECT typname = ANY ($2::name[]) FROM base JOIN pg_type USING (oid)
        WHERE typtype <> 'd' ORDER BY position
        """,
        [attribute.type.oid for attribute in statement.get_attributes()],
        _MADE_OF_JSON,
    )
    return [row[0] for row in found]


def csv_text(header: Sequence[str], records: Iterable[Sequence[str | None]]) -> str:
    """A CSV body by the contract's rule: quoted exactly where it must be, NULL as nothing."""
    lines = (",".join(map(_csv_cell, record)) for record in (header, *records))
    return "".join(f"{line}\r\n" for line in lines)


def _csv_cell(value: str | None) -> str:
    if value is None:
        return ""
    if value == "" or any(special in value for special in ',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value


def parsed(text: str) -> Any:
    """JSON with its numbers to the digit, and objects as pairs, so that nothing is smoothed over.

    Raises ValueError for what only Python takes for JSON.
    """
    return json.loads(
        text,
        parse_float=_Number,
        parse_int=_Number,
        parse_constant=_no_constant,
        object_pairs_hook=_Object,
    )


class _Number(str):
    """A number as it was written, equal to no string."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is _Number and str.__eq__(self, other)

    __hash__ = str.__hash__


class _Object(tuple[tuple[str, Any], ...]):
    """An object's pairs, in order, equal to no array."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is _Object and tuple.__eq__(self, other)

    __hash__ = tuple.__hash__


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def lines(body: str) -> list[str]:
    """The lines of an NDJSON body, of which each must be ended."""
    *whole, rest = body.split("\n")
    assert rest == "", "the last line is not ended"
    return whole


def sse_rows(body: str) -> list[Any]:
    """The rows of an SSE body that must be well-formed and properly ended."""
    *blocks, rest = body.split("\n\n")
    assert rest == "", "the last event is not ended"
    rows: list[Any] = []
    kinds = []
    for block in blocks:
        event = _EVENT.fullmatch(block)
        assert event is not None, block
        kinds.append(event["event"])
        if event["event"] == "rows":
            rows.extend(parsed(event["data"]))
    assert kinds[0] == "open"
    assert kinds[-1] == "end"
    assert set(kinds[1:-1]) <= {"rows", "progress"}
    return rows


def assert_body(
    form: str,
    body: str,
    columns: Sequence[str],
    expected: Sequence[str],
    records: Sequence[Sequence[str | None]],
) -> None:
    """The body holds exactly these rows: NDJSON and CSV byte for byte, the others as values."""
    match form:
        case "ndjson":
            assert lines(body) == list(expected)
        case "csv":
            assert body == csv_text(columns, records)
        case "json":
            assert parsed(body) == [parsed(row) for row in expected]
        case _:
            assert sse_rows(body) == [parsed(row) for row in expected]
