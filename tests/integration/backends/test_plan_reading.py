"""Each fault of a plan is found where it is planted, and not in the innocent one beside it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from feedsvc.backends.postgres.advice import estimates, masking
from feedsvc.backends.postgres.advice.explaining import explained, planning
from feedsvc.backends.postgres.advice.facts import PlanFacts
from feedsvc.backends.postgres.advice.model import StatementAdvice, WorkloadStatement
from feedsvc.backends.postgres.advice.plan_nodes import read_plan
from feedsvc.backends.postgres.advice.reading import read_statement
from tests.support.servers import LOGIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.integration.conftest import NewDatabase

SCRIPT = Path(__file__).with_name("plan_reading.sql").read_text(encoding="utf-8")
NO_BITMAPS = {"enable_bitmapscan": "off", "enable_seqscan": "off", "enable_sort": "off"}
ANALYZE = "ANALYZE shop.orders, shop.secured, shop.few, shop.blind, shop.grown"
ALL_VISIBLE = """
    SELECT relallvisible >= relpages FROM pg_class WHERE oid = 'shop.vacuumed'::regclass
"""
NOTHING: Mapping[str, str] = {}
SERIAL = {"max_parallel_workers_per_gather": "0"}


async def vacuum(connection: asyncpg.Connection) -> None:
    """Vacuum the table until all of it is known to be visible; an autovacuum may be in the way."""
    async with asyncio.timeout(60):
        while True:
            await connection.execute("VACUUM (ANALYZE) shop.vacuumed")
            if await connection.fetchval(ALL_VISIBLE):
                return
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def shop_url(new_database: NewDatabase) -> AsyncIterator[str]:
    async with new_database(script=SCRIPT) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(ANALYZE)
        await vacuum(connection)
        await connection.execute("INSERT INTO shop.grown SELECT * FROM shop.orders")
        await connection.close()
        yield url


@pytest.fixture
async def shop(shop_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(shop_url)
    yield connection
    await connection.close()


def statement(
    sql: str, settings: Mapping[str, str] = NOTHING, *, calls: int = 10, rows: int | None = None
) -> WorkloadStatement:
    given = {**SERIAL, "feedsvc.tenant": "", **settings}
    return WorkloadStatement("one", sql, "feedsvc", calls, 100.0, 10.0, None, rows, given, LOGIN)


async def read(shop: asyncpg.Connection, wanted: WorkloadStatement) -> StatementAdvice:
    found = await read_statement(shop, wanted, 30)
    assert found.unplanned is None
    assert found.plan is not None
    assert found.score is not None
    nodes = {node.path for node in found.plan.top.walk()}
    assert {finding.node for finding in found.findings} <= nodes
    assert (found.score < 100) == bool(found.findings)
    return found


async def codes(shop: asyncpg.Connection, wanted: WorkloadStatement) -> set[str]:
    return {finding.code for finding in (await read(shop, wanted)).findings}


PLANTED = [
    ("sequential-scan", statement("SELECT id FROM shop.orders WHERE amount = $1")),
    ("spilling-sort", statement("SELECT * FROM shop.orders ORDER BY note", {"work_mem": "1MB"})),
    (
        "spilling-hash",
        statement(
            "SELECT v.note FROM shop.orders o JOIN shop.vacuumed v ON o.place = v.place",
            {"work_mem": "1MB", "hash_mem_multiplier": "1", "enable_mergejoin": "off",
             "enable_nestloop": "off"},
        ),
    ),
    (
        "spilling-hash",
        statement(
            "SELECT note, count(*) FROM shop.orders GROUP BY note",
            {"work_mem": "1MB", "hash_mem_multiplier": "1", "enable_sort": "off"},
        ),
    ),
    ("misestimate", statement("SELECT id FROM shop.orders WHERE status = $1", rows=100_000)),
    (
        "nested-loop",
        statement("SELECT id FROM shop.orders JOIN shop.few ON place < lo"),
    ),
    ("heap-fetches", statement("SELECT place FROM shop.orders ORDER BY place", NO_BITMAPS)),
    (
        "filtered-rows",
        statement("SELECT id FROM shop.orders WHERE tenant = $1 AND amount = $2"),
    ),
    (
        "filtered-rows",
        statement(
            "SELECT id FROM shop.orders WHERE tenant = $1 AND amount = $2",
            {"enable_bitmapscan": "off", "enable_seqscan": "off"},
        ),
    ),
    (
        "filtered-rows",
        statement("SELECT id FROM shop.orders WHERE amount = $1 ORDER BY id", NO_BITMAPS),
    ),
    ("leaky-operator", statement("SELECT id FROM shop.secured WHERE amount = $1")),
    ("leaky-operator", statement("SELECT id FROM shop.secured WHERE note LIKE $1")),
    ("missing-statistics", statement("SELECT id FROM shop.fresh")),
    ("missing-statistics", statement("SELECT id FROM shop.blind WHERE status = $1")),
    ("old-statistics", statement("SELECT id FROM shop.grown")),
    (
        "function-not-inlined",
        statement("SELECT id FROM shop.orders WHERE shop.guarded(place) = $1"),
    ),
    ("function-not-inlined", statement("SELECT shop.in_steps(place) FROM shop.orders")),
]  # fmt: skip
INNOCENT = [
    ("sequential-scan", statement("SELECT id FROM shop.orders WHERE flag = $1")),
    ("sequential-scan", statement("SELECT id FROM shop.orders")),
    ("sequential-scan", statement("SELECT lo FROM shop.few WHERE hi = $1")),
    ("sequential-scan", statement("SELECT amount FROM shop.orders WHERE id = $1")),
    (
        "spilling-sort",
        statement("SELECT * FROM shop.orders ORDER BY note LIMIT $1", {"work_mem": "1MB"}),
    ),
    ("spilling-sort", statement("SELECT * FROM shop.few ORDER BY hi", {"work_mem": "1MB"})),
    (
        "spilling-hash",
        statement("SELECT status, count(*) FROM shop.orders GROUP BY status", {"work_mem": "1MB"}),
    ),
    (
        "spilling-hash",
        statement(
            "SELECT o.id FROM shop.orders o JOIN shop.few ON place = lo",
            {"work_mem": "1MB", "enable_mergejoin": "off", "enable_nestloop": "off"},
        ),
    ),
    ("misestimate", statement("SELECT id FROM shop.orders WHERE status = $1", rows=2_000)),
    ("misestimate", statement("SELECT id FROM shop.orders WHERE id = $1", rows=0)),
    ("misestimate", statement("SELECT id FROM shop.orders LIMIT $1", rows=10)),
    ("misestimate", statement("SELECT id FROM shop.orders WHERE flag", calls=1, rows=10_000)),
    (
        "nested-loop",
        statement("SELECT o.id FROM shop.few f JOIN shop.orders o ON o.id = f.lo"),
    ),
    (
        "heap-fetches",
        statement("SELECT place FROM shop.vacuumed ORDER BY place", NO_BITMAPS),
    ),
    ("filtered-rows", statement("SELECT id FROM shop.orders WHERE tenant = $1")),
    ("filtered-rows", statement("SELECT id FROM shop.orders WHERE tenant = $1 AND flag = $2")),
    (
        "filtered-rows",
        statement("SELECT id FROM shop.orders WHERE flag ORDER BY id LIMIT 10", NO_BITMAPS),
    ),
    ("leaky-operator", statement("SELECT id FROM shop.secured WHERE status = $1")),
    ("leaky-operator", statement("SELECT id FROM shop.vacuumed WHERE note LIKE $1")),
    ("leaky-operator", statement("SELECT id FROM shop.secured WHERE flag")),
    ("missing-statistics", statement("SELECT id FROM shop.orders WHERE status = $1")),
    ("missing-statistics", statement("SELECT id FROM shop.blind WHERE tenant = $1")),
    ("old-statistics", statement("SELECT id FROM shop.orders")),
    (
        "function-not-inlined",
        statement("SELECT id FROM shop.orders WHERE shop.doubled(place) = $1"),
    ),
    ("function-not-inlined", statement("SELECT shop.in_steps(place) FROM shop.orders WHERE id=7")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "wanted"), PLANTED)
async def test_a_planted_fault_is_found(
    shop: asyncpg.Connection, code: str, wanted: WorkloadStatement
) -> None:
    if code == "old-statistics":
        async with asyncio.timeout(60):  # the server's counts are written in the background
            while code not in await codes(shop, wanted):
                await asyncio.sleep(0.05)
    found = await read(shop, wanted)
    sentences = [each.sentence for each in found.findings if each.code == code]
    assert len(sentences) == 1, found.findings
    assert "shop." in sentences[0] or code in {"misestimate", "spilling-sort", "spilling-hash"}


@pytest.mark.parametrize(("code", "wanted"), INNOCENT)
async def test_an_innocent_plan_has_no_such_fault(
    shop: asyncpg.Connection, code: str, wanted: WorkloadStatement
) -> None:
    assert code not in await codes(shop, wanted)


async def test_compiling_is_a_fault_where_calls_are_short(shop: asyncpg.Connection) -> None:
    async with planning(shop, 30):
        plan = read_plan(await explained(shop, "SELECT count(*) FROM shop.orders"))
        if not await shop.fetchval("SELECT pg_jit_available()"):
            plan = replace(plan, jit=("Inlining", "Optimization", "Expressions", "Functions 20"))
        else:
            await shop.execute("SET LOCAL jit_above_cost = 0; SET LOCAL jit = on")
            plan = read_plan(await explained(shop, "SELECT count(*) FROM shop.orders"))
    wanted = statement("SELECT count(*) FROM shop.orders")
    facts = PlanFacts(replace(wanted, mean_ms=1.0), plan, {}, 4 << 20, 8 << 20, {}, {}, {})
    [finding] = estimates.compiled(facts)
    assert finding.code == "jit"
    assert not list(estimates.compiled(replace(facts, statement=replace(wanted, mean_ms=60e3))))
    assert not list(estimates.compiled(replace(facts, plan=replace(plan, jit=()))))


SECRET = "xyzzy-4711-secret"


async def test_no_value_is_in_what_is_read(shop: asyncpg.Connection) -> None:
    async with shop.transaction():
        await shop.execute(f"""
            CREATE TABLE shop.hidden (id bigint PRIMARY KEY, word text, place int);
            INSERT INTO shop.hidden SELECT n, '{SECRET}', 4711 FROM generate_series(1, 9000) AS n;
            CREATE INDEX hidden_part ON shop.hidden (id) WHERE word = '{SECRET}';
            ALTER TABLE shop.hidden ENABLE ROW LEVEL SECURITY;
            CREATE POLICY hides ON shop.hidden USING (word <> '{SECRET}' AND place <> 4711);
            CREATE VIEW shop.shown WITH (security_invoker) AS
            SELECT id, word || '{SECRET}' AS word, place + 4711 AS place FROM shop.hidden
            WHERE word LIKE E'{SECRET}\\'';
            GRANT SELECT ON shop.hidden, shop.shown TO {LOGIN};
        """)
        await shop.execute("ANALYZE shop.hidden")
        texts = [
            masking.statement(f"SELECT * FROM shop.shown WHERE word = '{SECRET}' -- {SECRET}"),
            masking.statement(f"SELECT 4711, $${SECRET}$$, * FROM shop.hidden /* {SECRET} */"),
            masking.statement(
                f"SELECT id FROM shop.hidden WHERE word IN ('{SECRET}', U&'{SECRET}')"
            ),
            masking.statement(f"SELECT '{SECRET}'::int FROM shop.hidden"),
        ]
        found = [await read_statement(shop, statement(text), 30) for text in texts]
    assert all(each.plan is not None for each in found)
    assert SECRET not in repr(found)
    assert "4711" not in repr(found)
    assert found[0].plan is not None
    assert any("?" in node.conditions.get("Filter", "") for node in found[0].plan.top.walk())


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("SELECT $1, 'it''s' FROM t LIMIT 10", "SELECT $1, $2 FROM t LIMIT $3"),
        (
            "SELECT a::numeric(10, 2) FROM t ORDER BY 1, 2",
            "SELECT a::numeric(10, 2) FROM t ORDER BY 1, 2",
        ),
        ("SELECT now() - interval $1", "SELECT now() - $1::interval"),
        ("SELECT now() - interval '2 days';", "SELECT now() - $1::interval"),
        (
            'SELECT "it\'s", a1 FROM t /* a /* b */ c */ WHERE x=5',
            'SELECT "it\'s", a1 FROM t WHERE x=$1',
        ),
        ("SELECT E'a\\'b', 'c\\' d' e", "SELECT $1, $2"),
        ("SELECT $a$ it's $b$ $a$, 1.5e-3, .5", "SELECT $1, $2, $3"),
        ("SELECT 'open", "SELECT $1"),
        ("SELECT $a$ open", "SELECT $1"),
        ('SELECT "open', "SELECT $1"),
    ],
)
def test_statements_are_masked(text: str, masked: str) -> None:
    assert " ".join(masking.statement(text).split()) == masked
