"""Plans of statements, read one at a time by a connection that no request waits for."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import asyncpg

from feedsvc.backends.postgres.advice.documents import plan_document
from feedsvc.backends.postgres.advice.model import Proposal, StatementAdvice, WorkloadStatement
from feedsvc.backends.postgres.advice.reading import read_statement
from feedsvc.backends.postgres.advice.role_settings import setting_proposals
from feedsvc.backends.postgres.advice.seen import SeenStatements, seen_statements
from feedsvc.backends.postgres.advice.upkeep import upkeep_proposals
from feedsvc.backends.postgres.pool import Pool

SETTINGS: Final[Mapping[str, str]] = {
    "feedsvc.tenant": "", "feedsvc.role": "", "feedsvc.client": ""
}  # fmt: skip
"""Settings of row-level security, by which no policy lets a row through."""
_UNREAD: Final[Mapping[str, Any]] = {
    "score": None, "cost": None, "findings": [], "plan": None, "unplanned": "Not planned yet.",
}  # fmt: skip


class PlanReader:
    """Plans, findings and others' statements. `pool` has one connection, which is for this alone.

    What it raises: Problem where there is no connection, and asyncpg's and OS's errors.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, statement: WorkloadStatement) -> StatementAdvice:
        """The statement's plan with findings and score."""
        async with self._pool.lease() as connection:
            return await read_statement(cast("asyncpg.Connection", connection), statement)

    async def upkeep(self) -> tuple[Proposal, ...] | str:
        """Proposals of the whole database, or a sentence where they can't be had."""
        async with self._pool.lease() as connection:
            return await upkeep_proposals(cast("asyncpg.Connection", connection))

    async def settings(self, read: Iterable[StatementAdvice]) -> tuple[Proposal, ...]:
        """Settings for the logins of statements that were read."""
        async with self._pool.lease() as connection:
            login: str = await connection.fetchval("SELECT session_user")
            return await setting_proposals(cast("asyncpg.Connection", connection), read, login)

    async def seen(self) -> tuple[SeenStatements, str]:
        """Statements of other logins, and the name of the service's login."""
        async with self._pool.lease() as connection:
            login: str = await connection.fetchval("SELECT current_user")
            return await seen_statements(cast("asyncpg.Connection", connection), login), login


def judgement(found: StatementAdvice | None) -> dict[str, Any]:
    """A plan with score, cost and findings, JSON's values; None for what was not read."""
    return dict(_UNREAD) if found is None else plan_document(found)
