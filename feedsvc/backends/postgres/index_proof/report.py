"""A whole proof of a database's indexes, with what is wrong with them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg

from feedsvc.backends.postgres.index_proof.catalogue import CatalogueQuery, read_catalogue
from feedsvc.backends.postgres.index_proof.existing import existing_indexes, needless
from feedsvc.backends.postgres.index_proof.findings import (
    plan_findings,
    proof_findings,
    undrawn_findings,
)
from feedsvc.backends.postgres.index_proof.proof import (
    IndexProof,
    ProofSession,
    QueryPlan,
    drawn,
    planned,
    proven,
)
from feedsvc.backends.postgres.index_proof.statements import seen_statements
from feedsvc.backends.postgres.migrations.lines import Territory

_LARGE: Final = (Path(__file__).parent / "large_tables.sql").read_text(encoding="utf-8")
_LARGE_PAGES: Final = 1_000  # 8 MiB: under it, reading a whole table is what the planner should do


@dataclass(frozen=True, slots=True)
class ProofReport:
    """The indexes with their proofs, the catalogue's plans, and faults, a sentence each."""

    proofs: tuple[IndexProof, ...]
    plans: tuple[QueryPlan, ...]
    findings: tuple[str, ...]

    @property
    def proven(self) -> int:
        """The number of indexes that a query uses."""
        return sum(bool(proof.gains) for proof in self.proofs)


async def prove_line(connection: asyncpg.Connection, territory: Territory) -> ProofReport:
    """Prove the indexes of a line by its catalogue, with the rows of its largest tenant.

    Needs a login that row-level security hides nothing from, and that may act as the line's role.
    Raises CatalogueError and asyncpg's errors.
    """
    sql = territory.largest_tenant.read_text(encoding="utf-8")
    tenant: str | None = await connection.fetchval(sql)
    settings = {"feedsvc.tenant": tenant or "", "feedsvc.client": ""}
    session = ProofSession(connection, territory.role, settings, run=True)
    queries = read_catalogue(territory.catalogue)
    return await prove(session, queries, [territory.schema], tenant=tenant)


async def prove(
    session: ProofSession,
    queries: Sequence[CatalogueQuery],
    schemas: Collection[str],
    tables: Collection[str] | None = None,
    tenant: str | None = None,
) -> ProofReport:
    """Prove the indexes of the schemas, or of these tables of theirs, by the queries.

    `tenant` is the first parameter of a query's `draw`. Raises what `proven` raises.
    """
    return await _proof(session, queries, schemas, tables, tenant)


async def prove_tables(
    session: ProofSession, queries: Sequence[CatalogueQuery], tables: Collection[str]
) -> ProofReport:
    """Prove the indexes of these tables (`schema.name`), which others read besides the queries.

    So an index is useless only if the server has never scanned it and its statements, from
    pg_stat_statements, are known; they are part of the proof where they are. Raises as `prove`.
    """
    seen = await seen_statements(session.connection)
    schemas = {table.partition(".")[0] for table in tables}
    report = await _proof(session, [*queries, *(seen or ())], schemas, tables, None)
    idle = [proof for proof in report.proofs if not proof.index.scans]
    undrawn = {*undrawn_findings(queries, {plan.query.name: () for plan in report.plans})}
    unknown = {*proof_findings(report.proofs)} - {*proof_findings(idle if seen else ())}
    kept = [each for each in report.findings if each not in undrawn | unknown]
    return replace(report, findings=tuple(kept))


async def _proof(
    session: ProofSession,
    queries: Sequence[CatalogueQuery],
    schemas: Collection[str],
    tables: Collection[str] | None,
    tenant: str | None,
) -> ProofReport:
    connection = session.connection
    indexes = await existing_indexes(connection, schemas, tables)
    rows = await connection.fetch(_LARGE, list(schemas), _LARGE_PAGES)
    large = {row["name"] for row in rows}
    arguments = await drawn(connection, queries, tenant)
    plans = await planned(session, queries, arguments, large)
    proofs = await proven(session, indexes, plans)
    findings = [
        *undrawn_findings(queries, arguments),
        *plan_findings(indexes, plans, large),
        *needless(indexes),
        *proof_findings(proofs),
    ]
    return ProofReport(tuple(proofs), tuple(plans), tuple(findings))
