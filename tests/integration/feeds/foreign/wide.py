"""A table with a column of each type."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import asyncpg

from tests.integration.feeds.foreign import oracle
from tests.integration.feeds.foreign.values import LABELS
from tests.support.drawn import share

TOGETHER: Final = 6


def schema(columns: Mapping[str, str]) -> str:
    """The statements that make the types and the table `wide`; its columns are named by type."""
    labels = ", ".join(map(oracle.literal, LABELS))
    listed = ", ".join(f"{column} {kind}" for kind, column in columns.items())
    return f"""
        CREATE TYPE label AS ENUM ({labels});
        CREATE TYPE pair AS (number integer, "a ""note"" here" text, doc json);
        CREATE TYPE mood AS ENUM ('fine', 'so, so');
        CREATE FUNCTION shown(mood) RETURNS json LANGUAGE sql IMMUTABLE
            RETURN json_build_object('mood', $1::text);
        CREATE CAST (mood AS json) WITH FUNCTION shown(mood);
        CREATE DOMAIN labelled AS text CHECK (VALUE <> 'forbidden');
        CREATE DOMAIN document AS json;
        CREATE TABLE wide (id bigint PRIMARY KEY, {listed});
    """


def together(kinds: Iterable[str]) -> list[tuple[str, ...]]:
    """The types in groups of which the values are sent at once; in `make soak` each by itself.

    Neighbours, which are much alike, come into different groups.
    """
    listed = tuple(kinds)
    groups = -(-len(listed) // (TOGETHER if share(4) < 4 else 1))
    return [listed[n::groups] for n in range(groups)]


async def fill(
    connection: asyncpg.Connection,
    columns: Mapping[str, str],
    values: Mapping[str, Sequence[str | None]],
) -> None:
    """Replace the table's rows by those with the values of each type, given as text.

    The columns of shorter lists are NULL in the last rows.
    """
    named = ", ".join(columns[kind] for kind in values)
    given = ", ".join(f"v{number}" for number, _ in enumerate(values))
    cast = ", ".join(f"v{number}::{kind}" for number, kind in enumerate(values))
    lists = ", ".join(f"${number}::text[]" for number, _ in enumerate(values, start=1))
    await connection.execute("TRUNCATE wide")
    await connection.execute(
        f"INSERT INTO wide (id, {named}) SELECT n, {cast}"
        f" FROM unnest({lists}) WITH ORDINALITY AS given ({given}, n)",
        *values.values(),
    )
