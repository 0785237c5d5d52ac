"""Each index of the demo's world is proven by a query, and each fault is found by its name."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from feedsvc.backends.postgres.advice.workload import seen_workload
from feedsvc.backends.postgres.index_proof.catalogue import (
    CatalogueError,
    CatalogueQuery,
    read_catalogue,
)
from feedsvc.backends.postgres.index_proof.existing import existing_indexes, needless
from feedsvc.backends.postgres.index_proof.findings import plan_findings
from feedsvc.backends.postgres.index_proof.plans import undone
from feedsvc.backends.postgres.index_proof.proof import ProofSession, drawn, planned
from feedsvc.backends.postgres.index_proof.report import prove, prove_line, prove_tables
from feedsvc.backends.postgres.migrations.lines import TERRITORIES
from feedsvc.backends.postgres.migrations.revisions import revisions
from feedsvc.commands import proof_text
from feedsvc.commands.dataset_catalogue import dataset_queries
from feedsvc.datasets.dataset import declarations
from tests.support.servers import DATASETS, copied_postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WEDDING = TERRITORIES["wedding"]
QUERIES = read_catalogue(WEDDING.catalogue)
TENANT = "rosewood"


@pytest.fixture
async def session(world_admin_url: str) -> AsyncIterator[ProofSession]:
    connection = await asyncpg.connect(world_admin_url)
    try:
        settings = {"feedsvc.tenant": TENANT, "feedsvc.client": ""}
        yield ProofSession(connection, WEDDING.role, settings, run=False)
    finally:
        await connection.close()


async def found(session: ProofSession, queries: list[CatalogueQuery]) -> list[str]:
    indexes = await existing_indexes(session.connection, ["wedding"])
    arguments = await drawn(session.connection, queries, TENANT)
    return [
        *plan_findings(indexes, await planned(session, queries, arguments, ()), ()),
        *needless(indexes),
    ]


async def test_every_index_is_proven(session: ProofSession) -> None:
    report = await prove_line(session.connection, WEDDING)
    assert report.findings == ()
    ours = {f"wedding.{each.index.name}" for each in revisions(WEDDING) if each.index is not None}
    proven = {proof.index.name for proof in report.proofs if proof.gains}
    assert ours <= proven
    assert len(proven) > 70
    assert all(plan.plan.pages is not None for plan in report.plans)
    document = json.loads(proof_text.as_json(report))
    assert len(document["indexes"]) == len(report.proofs)
    assert {query["name"] for query in document["queries"]} == {query.name for query in QUERIES}
    text, page = "\n".join(proof_text.lines(report)), proof_text.as_html(report)
    for proof in report.proofs:
        assert f"{proof.index.name}: " in text
        assert f"<td>{proof.index.name}</td>" in page


async def test_each_index_that_is_missing_is_named_with_its_queries(session: ProofSession) -> None:
    needed: dict[str, list[str]] = {}
    for query in QUERIES:
        for index in query.uses:
            needed.setdefault(index, []).append(query.name)
    assert len(needed) > 70
    indexes = await existing_indexes(session.connection, ["wedding"])
    arguments = await drawn(session.connection, QUERIES, TENANT)
    for index, names in needed.items():
        queries = [query for query in QUERIES if query.name in names]
        async with undone(session.connection):
            await session.connection.execute(f"DROP INDEX wedding.{index}")
            left = [each for each in indexes if each.name != f"wedding.{index}"]
            plans = await planned(session, queries, arguments, ())
            wanted = f"index {index} is missing: needed by {', '.join(names)}"
            assert wanted in list(plan_findings(left, plans, ()))


@asynccontextmanager
async def also(session: ProofSession, *statements: str) -> AsyncIterator[None]:
    async with undone(session.connection):
        for statement in statements:
            await session.connection.execute(statement)
        yield


async def test_a_useless_index_a_duplicate_and_a_prefix_are_named(session: ProofSession) -> None:
    async with also(
        session,
        "CREATE INDEX useless ON wedding.budgets (description)",
        "CREATE INDEX twice ON wedding.budgets (tenant_id, client_id, id)",
        "CREATE INDEX half ON wedding.payments (tenant_id, contract_id)",
        "CREATE UNIQUE INDEX unique_half ON wedding.payments (tenant_id, contract_id, id)",
        "CREATE INDEX other_order ON wedding.leads (tenant_id, created_at DESC)",
        "CREATE INDEX other_part ON wedding.leads (tenant_id) WHERE score > 50",
    ):
        budgets = [query for query in QUERIES if "wedding.budgets" in query.sql]
        report = await prove(session, budgets, ["wedding"], ["wedding.budgets"], TENANT)
        assert (
            "index wedding.useless is useless: no query of the catalogue uses it" in report.findings
        )
        assert "index wedding.twice is a duplicate of wedding.budgets_client" in report.findings
        structural = await found(session, [])
    assert structural == [
        "index wedding.twice is a duplicate of wedding.budgets_client",
        "index wedding.half is a prefix of wedding.payments_contract",
        "index wedding.half is a prefix of wedding.unique_half",
        "index wedding.payments_contract is a duplicate of wedding.unique_half",
    ]


async def test_a_query_that_scans_a_large_table_or_misses_its_tier_is_named(
    session: ProofSession,
) -> None:
    scan = CatalogueQuery(
        "all_of_it", "", "critical", "office", (), None, "SELECT * FROM wedding.clients"
    )
    running = replace(session, run=True)
    plans = await planned(running, [scan], {"all_of_it": ()}, {"wedding.clients"})
    findings = list(plan_findings([], plans, {"wedding.clients"}))
    pages = plans[0].plan.pages
    assert pages is not None
    assert pages > 100
    assert findings == [
        "query all_of_it reads all of wedding.clients",
        f"query all_of_it touches {pages} pages, where its tier critical allows 100",
    ]


async def test_an_index_that_another_is_preferred_to_is_named(session: ProofSession) -> None:
    query = next(query for query in QUERIES if query.name == "leads_by_age")
    assert await found(session, [replace(query, uses=("leads_email",))]) == [
        "index leads_email is not used: needed by leads_by_age"
    ]


async def test_a_query_without_rows_proves_nothing(session: ProofSession) -> None:
    async with also(session, "TRUNCATE wedding.measurements"):
        queries = [query for query in QUERIES if query.name == "measurements_of_a_page"]
        report = await prove(session, queries, ["wedding"], ["wedding.measurements"], TENANT)
    assert report.findings[0] == (
        "query measurements_of_a_page proves nothing: no row has its parameters"
    )


async def test_nothing_of_a_proof_is_left(session: ProofSession) -> None:
    before = await existing_indexes(session.connection, ["wedding"])
    queries = [query for query in QUERIES if query.name == "leads_by_age"]
    await prove(session, queries, ["wedding"], ["wedding.leads"], TENANT)
    assert [each.name for each in await existing_indexes(session.connection, ["wedding"])] == [
        each.name for each in before
    ]
    assert await session.connection.fetchval("SELECT current_setting('lock_timeout')") == "0"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("-- query: one\n-- about: x\n-- tier: critical\n-- as: feed\nSELECT 1;\n", "lacks uses"),
        (
            "-- query: one\n-- about: x\n-- tier: fast\n-- as: feed\n-- uses: a\nSELECT 1;\n",
            "no such tier",
        ),
        (
            "-- query: one\n-- about: x\n-- tier: critical\n-- as: feed\n-- uses: a\nSELECT 1;\n"
            * 2,
            "two queries one",
        ),
    ],
)
def test_a_mistake_of_the_catalogue_is_named(tmp_path: Path, text: str, mistake: str) -> None:
    (tmp_path / "one.sql").write_text(text)
    with pytest.raises(CatalogueError, match=mistake):
        read_catalogue(tmp_path)


async def test_a_database_of_ones_own_is_proven_by_its_datasets(session: ProofSession) -> None:
    declared = declarations(DATASETS)
    tables = {each.relation for each in declared.values()}
    queries = list(dataset_queries(declared))
    owners = ProofSession(session.connection, "feedsvc_tests", session.settings, run=False)
    report = await prove_tables(owners, queries, tables)
    assert report.findings == ()
    proven = {proof.index.name for proof in report.proofs if proof.gains}
    assert {"wedding.clients_newest", "wedding.budgets_updated", "wedding.vendors_trade"} <= proven
    async with also(session, "CREATE INDEX half ON wedding.tasks (tenant_id, client_id)"):
        report = await prove_tables(owners, queries, {"wedding.tasks"})
        assert report.findings == ("index wedding.half is a prefix of wedding.tasks_client",)


SHOP = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id bigint PRIMARY KEY, code text, note text);
    CREATE INDEX by_code ON shop.orders (code);
    CREATE INDEX by_note ON shop.orders (note);
    INSERT INTO shop.orders SELECT n, n, n FROM generate_series(1, 50000) AS n;
    ANALYZE shop.orders;
"""


async def test_the_extensions_own_statements_prove_an_index() -> None:
    """They have PostgreSQL's own marks for values, and are others' besides SELECTs."""
    with copied_postgres({"shared_preload_libraries": "pg_stat_statements"}) as server:
        connection = await asyncpg.connect(server.url())
        try:
            await connection.execute(f"{SHOP} CREATE EXTENSION pg_stat_statements")
            for number in range(3):
                await connection.fetch(
                    f"SELECT id FROM shop.orders WHERE code = '{number}' LIMIT 5"
                )
            await connection.fetch("SELECT id FROM shop.orders WHERE code = ANY ($1)", ["1", "2"])
            await connection.execute("UPDATE shop.orders SET code = 'x' WHERE note = '7'")
            await connection.execute("SELECT pg_stat_force_next_flush()")
            session = ProofSession(connection, None, {}, run=False)
            report = await prove_tables(session, [], {"shop.orders"})
            proven = {
                proof.index.name: [gain.cost_without > gain.cost for gain in proof.gains]
                for proof in report.proofs
            }
            assert len(proven["shop.by_code"]) >= 2
            assert all(proven["shop.by_code"])
            # Whatever was scanned is needed, though no SELECT has shown for what.
            assert proven["shop.by_note"] == []
            assert report.findings == ()
            assert any("$1" in plan.query.sql for plan in report.plans)
            own = await connection.fetchval("SELECT current_user")
            assert await seen_workload(connection)
            assert await seen_workload(connection, own) == []
        finally:
            await connection.close()


async def test_statements_that_the_server_has_seen_prove_too(own_server: str) -> None:
    connection = await asyncpg.connect(own_server)
    try:
        await connection.execute(
            f"{SHOP} CREATE TABLE pg_stat_statements (dbid oid, userid oid, queryid bigint,"
            " query text, total_exec_time float8, calls bigint DEFAULT 1,"
            " mean_exec_time float8 DEFAULT 1, rows bigint DEFAULT 1);"
            " INSERT INTO pg_stat_statements SELECT oid, login, n, q, n FROM pg_database,"
            " generate_series(10, 11) AS login,"
            " (VALUES (1, 'SELECT id FROM shop.orders WHERE code = $1 LIMIT $2'),"
            " (2, 'SELECT $1 FROM gone'), (3, 'SELECT 1; DROP TABLE shop.orders')) AS v (n, q)"
            " WHERE datname = current_database()"
        )
        report = await prove_tables(
            ProofSession(connection, None, {}, run=False), [], {"shop.orders"}
        )
        assert [plan.query.name for plan in report.plans] == ["statement 1"]
        assert report.findings == (
            "index shop.by_note is useless: no query of the catalogue uses it",
        )
        assert await connection.fetchval("SELECT count(*) FROM shop.orders") == 50_000
        seen = await seen_workload(connection)
        assert seen is not None
        assert {each.name: (each.calls, each.total_ms, each.mean_ms) for each in seen} == {
            "statement 1": (2, 2.0, 1.0), "statement 2": (2, 4.0, 2.0), "statement 3": (2, 6.0, 3.0)
        }  # fmt: skip
        assert len(seen) == 3
    finally:
        await connection.close()
