"""The statements that `feedsvc advise` is on, from all places that know of some."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg

from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.advice.workload import of_catalogue, seen_workload
from feedsvc.backends.postgres.index_proof.catalogue import CatalogueQuery, read_catalogue
from feedsvc.commands.dataset_catalogue import dataset_queries
from feedsvc.datasets import catalog
from feedsvc.datasets.dataset import Dataset, declarations
from feedsvc.datasets.resolution import resolved
from feedsvc.operations.performance import report
from feedsvc.operations.performance.advisor import repeated
from feedsvc.operations.performance.stored_statements import own_statement, stored_figures


@dataclass(slots=True)
class AdvisedWorkload:
    """Statements with their figures, repeated requests, and sentences on what is not known."""

    statements: list[WorkloadStatement] = field(default_factory=list)
    repeated: list[dict[str, Any]] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WorkloadSources:
    """The datasets file, a catalogue's folder with the role of its feeds' queries, and figures.

    Figures are the service's own of the last so many `seconds`. `login` is its login, whose
    statements are counted by name where there are such figures.
    """

    file: Path | None
    catalogue: Path | None
    role: str | None
    seconds: int
    login: str | None

    async def read(self, connection: asyncpg.Connection) -> AdvisedWorkload:
        """All statements. Raises CatalogueError, DatasetsError, and what asyncpg raises."""
        found = AdvisedWorkload()
        queries: list[CatalogueQuery] = []
        if self.catalogue is not None:
            queries += read_catalogue(self.catalogue)
        datasets: Mapping[str, Dataset] = {}
        if self.file is not None:
            declared, _ = await resolved(connection, declarations(self.file))
            queries += dataset_queries(declared)
            datasets, _ = await catalog.resolve(connection, declared, may_own=True)
        found.statements += [of_catalogue(query, self.role) for query in queries]
        is_own = await self._add_own(connection, datasets, found)
        seen = await seen_workload(connection, self.login if is_own else None)
        found.statements += seen or ()
        if seen is None:
            found.lacking.append("pg_stat_statements is not there, or not for this login")
        return found

    async def _add_own(
        self,
        connection: asyncpg.Connection,
        datasets: Mapping[str, Dataset],
        found: AdvisedWorkload,
    ) -> bool:
        """Add what the service has counted; whether there was anything."""
        figures = await stored_figures(connection, self.seconds)
        if figures is None:
            found.lacking.append("figures of the service are not there, or not for this login")
            return False
        own = [own_statement(row, datasets) for row in report.statements(figures)]
        found.statements += [replace(each, role=self.role) for each in own if each.sql]
        shown = (repeated(row, datasets) for row in report.repeated(figures))
        found.repeated += [each for each in shown if each is not None]
        if not own:
            found.lacking.append("the service has counted no statement in that time")
        return bool(own)
