"""Looks at a log of many rows, of which nothing is analyzed: a few are read, by an index."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg
import pytest

from feedsvc.backends.postgres.sessions import SETTINGS
from feedsvc.changes import log_reader
from feedsvc.settings.pools import LogPool, ReadPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping


class Look(NamedTuple):
    """A statement over the log, its parameters, and the settings of the sessions that run it."""

    package: str
    file: str
    types: str
    values: str
    settings: Mapping[str, str]


LOOKS: Final = {
    "reader": Look(
        *("feedsvc.changes", "log_reader.sql", "text, int", "'{0}', 100001"),
        log_reader._SETTINGS,
    ),
    "tail": Look(
        *("feedsvc.feeds", "arrivals.sql", "text, integer[]", "'{0}', '{{1,2,3}}'"),
        LogPool().session(),
    ),
    **{
        f"keys in the {pool} pool": Look(
            *("feedsvc.feeds", "keys_written.sql"),
            *("integer, bigint[], text, bigint, bigint", "1, '{{1,2,0}}', '{0}', 100001, 100001"),
            settings,
        )
        for pool, settings in (("live", LogPool().session()), ("read", ReadPool().session()))
    },
}
FILL: Final = """
    INSERT INTO feedsvc.log (xid, scope, feed, slot, op, key)
    SELECT (n / 10 + 10)::text::xid8, n % 3, n % 5, n % 2 * 3, 'u', repeat('k', 9)
    FROM generate_series(1, 200000) AS n
"""
FILLED: Final = {"log_0", "log_3"}
WORKERS_ARE_FREE: Final = {
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "min_parallel_index_scan_size": "0",
}


@pytest.fixture(scope="module")
async def owner(log_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(log_database)
    await connection.execute(FILL)
    yield connection
    await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def is_forced(look: Look) -> bool:
    """Return whether the planner has no choice."""
    return look.settings.get("enable_seqscan") == "off"


async def plan_of(owner: asyncpg.Connection, look: Look, since: str) -> list[dict[str, Any]]:
    """The nodes of the plan that a session would have for a look since a snapshot."""
    sql = (files(look.package) / look.file).read_text()
    async with owner.transaction():
        for name, value in {**SETTINGS, **WORKERS_ARE_FREE, **look.settings}.items():
            if name not in {"application_name", "default_transaction_isolation"}:
                await owner.execute("SELECT set_config($1, $2, true)", name, value)
        await owner.execute(f"PREPARE look ({look.types}) AS {sql}")
        given = look.values.format(since)
        text = await owner.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE look ({given})")
        await owner.execute("DEALLOCATE look")
    return list(nodes(json.loads(text)[0]["Plan"]))


@pytest.mark.parametrize("since", ["40000:40000:", "30000:40000:30000,30007"])
@pytest.mark.parametrize("look", LOOKS)
async def test_a_look_reads_what_is_new_by_an_index(
    owner: asyncpg.Connection, look: str, since: str
) -> None:
    found = await plan_of(owner, LOOKS[look], since)
    of_the_log = [node for node in found if node.get("Relation Name") in FILLED]
    assert {node["Relation Name"] for node in of_the_log} == FILLED
    assert not [node for node in of_the_log if "Seq Scan" in node["Node Type"]]
    if not is_forced(LOOKS[look]):
        text = await owner.fetchval("EXPLAIN (FORMAT JSON) SELECT FROM feedsvc.log_0")
        of_all = json.loads(text)[0]["Plan"]["Total Cost"]
        assert all(node["Total Cost"] < of_all / 2 for node in of_the_log), "by a wide margin"
    if LOOKS[look].settings != ReadPool().session():
        assert not [node for node in found if "Gather" in node["Node Type"]]
