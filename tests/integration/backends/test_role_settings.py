"""Settings are proposed where they are the cure, and do what is said of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import asyncpg
import orjson
import pytest

from feedsvc.backends.postgres.advice import role_settings
from feedsvc.backends.postgres.advice.model import (
    PlanFinding,
    PlanNode,
    Proposal,
    ReadPlan,
    StatementAdvice,
    WorkloadStatement,
)
from feedsvc.backends.postgres.advice.reading import read_statement
from feedsvc.backends.postgres.advice.role_settings import setting_proposals
from feedsvc.backends.postgres.index_proof.plans import undone
from tests.support.servers import LOGIN, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import NewDatabase

ODD: Final = "Odd one"
WORLD: Final = """
    CREATE TABLE notes AS SELECT n AS id, n % 1000 AS kind, 'note of ' || n AS note
    FROM generate_series(1, 70000) AS n;
    ANALYZE notes;
"""
SORT: Final = "SELECT * FROM notes ORDER BY note"
GROUP: Final = "SELECT note, count(*) FROM notes WHERE id < 20000 GROUP BY note"
INNOCENT: Final = "SELECT * FROM notes WHERE kind = $1 ORDER BY note"


@pytest.fixture(scope="module")
async def notes(new_database: NewDatabase) -> AsyncIterator[asyncpg.Connection]:
    serial = {"work_mem": "256kB", "max_parallel_workers_per_gather": "0", "enable_sort": "on"}
    async with new_database(script=WORLD) as url, connected(url, **serial) as connection:
        yield connection


async def proposed(
    connection: asyncpg.Connection, *texts: str, login: str | None = None, **settings: str
) -> tuple[Proposal, ...]:
    statements = [
        WorkloadStatement(sql, sql, "feedsvc", 0, 0.0, 0.0, None, None, settings, login=login)
        for sql in texts
    ]
    read = [await read_statement(connection, each, 30) for each in statements]
    return await setting_proposals(connection, read, LOGIN)


async def files(connection: asyncpg.Connection, sql: str, name: str, value: str) -> int:
    """KiB of files that a statement writes with a setting."""
    async with undone(connection):
        await connection.execute("SELECT set_config($1, $2, true)", name, value)
        found = orjson.loads(
            await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
        )
    return int(found[0]["Plan"]["Temp Written Blocks"])


async def test_a_sort_in_files_has_the_memory_that_it_takes(notes: asyncpg.Connection) -> None:
    [found] = await proposed(notes, SORT, INNOCENT)
    assert found.kind == "setting"
    assert found.statement == f"ALTER ROLE {LOGIN} SET work_mem = '8MB'"
    assert found.helps == (SORT,)
    assert found.harms == ()
    assert found.cost_before.keys() == {SORT}
    assert found.cost_after[SORT] < found.cost_before[SORT]
    assert await files(notes, SORT, "work_mem", "4MB") > 0
    assert await files(notes, SORT, "work_mem", "8MB") == 0


async def test_hash_tables_alone_have_a_larger_share(notes: asyncpg.Connection) -> None:
    small = {"work_mem": "1MB", "hash_mem_multiplier": "1", "enable_sort": "off"}
    [found] = await proposed(notes, GROUP, login=ODD, **small)
    assert found.statement == f"ALTER ROLE \"{ODD}\" SET hash_mem_multiplier = '4'"
    assert found.helps == (GROUP,)
    assert found.cost_after[GROUP] < found.cost_before[GROUP]


async def test_less_memory_is_never_proposed(
    notes: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the planner would go another way then, that no finding is of."""
    node = PlanNode("0", "Result", None, None, None, 1, 8, 0, 1, {}, (), (), None, None)
    statement = WorkloadStatement("one", "SELECT 1", "feedsvc", 1, 1.0, 1.0, None, 1)
    spills = StatementAdvice(
        statement, ReadPlan(node, {}, ()), (PlanFinding("spilling-hash", "It is so.", "0"),), 50
    )

    async def read(_: asyncpg.Connection, wanted: WorkloadStatement) -> StatementAdvice:
        is_less = wanted.settings.get("hash_mem_multiplier") == "4"
        return replace(spills, findings=()) if is_less else spills

    monkeypatch.setattr(role_settings, "read_statement", read)
    assert len(await setting_proposals(notes, [spills], LOGIN)) == 1
    async with undone(notes):
        await notes.execute(f"ALTER ROLE {LOGIN} SET hash_mem_multiplier = 5")
        assert await setting_proposals(notes, [spills], LOGIN) == ()


async def test_a_login_that_has_the_setting_needs_it_no_more(notes: asyncpg.Connection) -> None:
    async with undone(notes):
        await notes.execute(f"ALTER ROLE {LOGIN} SET work_mem = '8MB'")
        assert await proposed(notes, SORT) == ()
        [other] = await proposed(notes, SORT, login=ODD)
        assert other.statement.startswith(f'ALTER ROLE "{ODD}"')


def compiled(name: str, cost: float, *, hurts: bool) -> StatementAdvice:
    node = PlanNode("0", "Result", None, None, None, 1, 8, 0, cost, {}, (), (), None, None)
    statement = WorkloadStatement(name, "SELECT 1", "feedsvc", 1, 1.0, 1.0, None, 1)
    findings = (PlanFinding("jit", "It is slow.", "0"),) if hurts else ()
    return StatementAdvice(statement, ReadPlan(node, {}, ("Functions 9",)), findings, 50)


async def test_what_is_compiled_in_vain_is_compiled_no_more(
    notes: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurt, cheap = compiled("hurt", 123_456, hurts=True), compiled("cheap", 110_000, hurts=False)
    costly, known = compiled("costly", 9e6, hurts=False), {"hurt": hurt}

    async def read(_: asyncpg.Connection, wanted: WorkloadStatement) -> StatementAdvice:
        found, given = known[wanted.name], wanted.settings
        assert found.plan is not None
        above = float(given.get("jit_above_cost", "1e5"))
        is_compiled = given.get("jit") != "off" and found.plan.cost > above
        plan = found.plan if is_compiled else replace(found.plan, jit=())
        return replace(found, plan=plan, findings=found.findings if is_compiled else ())

    monkeypatch.setattr(role_settings, "read_statement", read)
    [found] = await setting_proposals(notes, [hurt, cheap, costly], LOGIN)
    assert found.statement == f"ALTER ROLE {LOGIN} SET jit_above_cost = '200000'"
    assert (found.helps, found.harms) == (("hurt",), ("cheap",))
    [found] = await setting_proposals(notes, [hurt], LOGIN)
    assert found.statement == f"ALTER ROLE {LOGIN} SET jit = 'off'"
    assert await setting_proposals(notes, [cheap, costly], LOGIN) == ()
