"""A table with a column of each type."""

from collections.abc import Mapping, Sequence

import asyncpg

from tests.integration.feeds.foreign import oracle
from tests.integration.feeds.foreign.values import LABELS


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


async def fill(
    connection: asyncpg.Connection, column: str, kind: str, values: Sequence[str | None]
) -> None:
    """Replace the table's rows by one for each value, given as text."""
    await connection.execute("TRUNCATE wide")
    await connection.execute(
        f"INSERT INTO wide (id, {column}) SELECT n, v::{kind}"
        " FROM unnest($1::text[]) WITH ORDINALITY AS given (v, n)",
        values,
    )
