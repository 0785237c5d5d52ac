"""Plans and findings of the statements that took the most time, read one at a time."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.advice import seen
from feedsvc.backends.postgres.advice.documents import proposal_document
from feedsvc.backends.postgres.advice.model import Proposal, StatementAdvice, WorkloadStatement
from feedsvc.backends.postgres.advice.seen import SeenStatements, seen_statements
from feedsvc.backends.postgres.advice.upkeep import analyses
from feedsvc.core.problems import Problem
from feedsvc.datasets.dataset import Dataset
from feedsvc.operations.performance.plan_reader import PlanReader, judgement
from feedsvc.operations.performance.replacement import ENDPOINTS, replacement
from feedsvc.operations.performance.slow_plans import SlowPlans
from feedsvc.operations.performance.stored_statements import own_statement
from feedsvc.operations.performance.tracker import ReportRange, Tracker

_MOST_PLANNED: Final = 20
_MOST_SHOWN: Final = 100
_KEPT: Final = 300.0  # seconds for which a plan is as good as new
_UPKEEP_KEPT: Final = 60.0  # seconds
_SEEN_KEPT: Final = 15.0  # seconds, for to read pg_stat_statements is to read a file
_PATIENCE: Final = 5.0  # seconds for all plans of one report
_CLOSE: Final = 1.0
_NAMELESS: Final = "Its text is not known: it is many statements, or of another declaration."
_BY_INDEX: Final = frozenset({"sequential-scan", "filtered-rows", "spilling-sort"})
ELSEWHERE: Final = "Indexes are tried, and proposed, by `feedsvc advise` alone."
_LOST: Final = (Problem, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class QueryAdvisor:
    """The statements of a range with plan, findings and score.

    `owner_url` is for pg_stat_statements alone, where the service's login may not read it: texts
    of others are never planned with an owner's rights.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        reader: PlanReader,
        slow: SlowPlans,
        owner_url: str | None,
    ) -> None:
        self._datasets = datasets
        self._reader = reader
        self._slow = slow
        self._owner_url = owner_url
        self._plans: dict[str, tuple[float, StatementAdvice]] = {}
        self._seen: tuple[float, SeenStatements] | None = None
        self._proposed: tuple[float, tuple[Proposal, ...]] | None = None
        self._settings: tuple[Proposal, ...] | None = None
        self._lock = asyncio.Lock()

    async def report(self, tracker: Tracker, wanted: ReportRange) -> dict[str, Any]:
        """The report, JSON's values. Raises Problem where there are no figures."""
        made = await tracker.statements(wanted)
        lacking = [made["lacking"]] if made["lacking"] else []
        own = [own_statement(row, self._datasets) for row in made["statements"][:_MOST_SHOWN]]
        async with self._lock:
            others = await self._others()
            listed = sorted([*own, *others.statements], key=lambda each: -each.total_ms)
            listed = listed[:_MOST_SHOWN]
            if others.lacking is not None:
                lacking.append(others.lacking)
            await self._read(listed[:_MOST_PLANNED], lacking)
            if any(may_lack_index(found) for _, found in self._plans.values()):
                lacking.append(ELSEWHERE)
            proposals = (*await self._upkeep(lacking), *await self._of_logins(lacking))
        span = {name: made[name] for name in ("range", "from", "to")}
        return {
            **span,
            "lacking": lacking,
            "statements": [self._shown(each) for each in listed],
            "proposals": [proposal_document(each) for each in proposals],
            "slow": await self._slow.all_workers(),
            "repeated": [
                shown
                for each in made["repeated"]
                if (shown := repeated(each, self._datasets)) is not None
            ],
        }

    async def _others(self) -> SeenStatements:
        """Others' statements, by the service's login or else by the owner's."""
        if self._seen is not None and time.monotonic() - self._seen[0] < _SEEN_KEPT:
            return self._seen[1]
        try:
            found, login = await self._reader.seen()
            if found.lacking == seen.FORBIDDEN and self._owner_url is not None:
                found = await _seen_by_owner(self._owner_url, login)
        except _LOST:
            return SeenStatements((), seen.BUSY)
        self._seen = time.monotonic(), found
        return found

    async def _upkeep(self, lacking: list[str]) -> tuple[Proposal, ...]:
        """Proposals of the whole database, as good as new for a minute."""
        if self._proposed is not None and time.monotonic() - self._proposed[0] < _UPKEEP_KEPT:
            return self._proposed[1]
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await self._reader.upkeep()
        except _LOST:
            found = "PostgreSQL did not answer in time what indexes cover others."
        if isinstance(found, str):
            lacking.append(found)
            return ()
        self._proposed = time.monotonic(), found
        return found

    async def _of_logins(self, lacking: list[str]) -> tuple[Proposal, ...]:
        """Settings of logins, looked for whenever a plan was read."""
        if self._settings is None:
            try:
                async with asyncio.timeout(_PATIENCE):
                    read = [found for _, found in self._plans.values()]
                    self._settings = await self._reader.settings(read)
            except _LOST:
                lacking.append("PostgreSQL did not answer in time what settings would do.")
                return ()
        return self._settings

    async def _read(self, listed: list[WorkloadStatement], lacking: list[str]) -> None:
        """Read plans that are missing or old."""
        try:
            async with asyncio.timeout(_PATIENCE):
                for each in listed:
                    if each.sql and not self._is_fresh(each):
                        self._plans[each.name] = time.monotonic(), await self._reader.read(each)
                        self._settings = None
        except _LOST:
            lacking.append("Not all plans could be read.")
        names = {each.name for each in listed}
        self._plans = {name: kept for name, kept in self._plans.items() if name in names}

    def _is_fresh(self, wanted: WorkloadStatement) -> bool:
        kept = self._plans.get(wanted.name)
        return kept is not None and time.monotonic() - kept[0] < _KEPT

    def _shown(self, each: WorkloadStatement) -> dict[str, Any]:
        kept = self._plans.get(each.name)
        return {
            "name": each.name,
            "source": each.source,
            "statement": each.sql or None,
            "calls": each.calls,
            "total_ms": round(each.total_ms, 3),
            "mean_ms": None if each.mean_ms is None else round(each.mean_ms, 3),
            "p95_ms": each.p95_ms,
            "rows": each.rows,
            **judgement(None if kept is None else kept[1]),
            **({} if each.sql else {"unplanned": _NAMELESS}),
            "proposals": [
                proposal_document(each) for each in analyses([] if kept is None else [kept[1]])
            ],
        }


def repeated(row: Mapping[str, Any], datasets: Mapping[str, Dataset]) -> dict[str, Any] | None:
    """The repetition with its endpoint and the request in its place; None of an unknown dataset."""
    dataset, pattern = datasets.get(row["dataset"]), row["pattern"]
    if dataset is None or pattern not in ENDPOINTS:
        return None  # as another release or another declaration counted it
    instead = replacement(pattern, dataset, row["column"] or "")
    proposal = {name: getattr(instead, name) for name in ("kind", "statement", "proof", "reason")}
    return {"method": "GET", "route": ENDPOINTS[pattern], **row, "proposals": [proposal]}


def may_lack_index(found: StatementAdvice) -> bool:
    """Return whether an index could cure a finding."""
    return any(each.code in _BY_INDEX for each in found.findings)


async def _seen_by_owner(url: str, login: str) -> SeenStatements:
    """Others' statements as a login of more rights sees them, in a read-only session."""
    connection = await asyncpg.connect(
        url,
        timeout=_PATIENCE,
        command_timeout=_PATIENCE,
        statement_cache_size=0,
        server_settings={
            "application_name": "feedsvc advice", "default_transaction_read_only": "on"
        },
    )  # fmt: skip
    try:
        return await seen_statements(connection, login)
    finally:
        try:
            await connection.close(timeout=_CLOSE)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()
