"""Findings about the materialized views that datasets say are refreshed."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.changes.refreshes import RefreshedView, refreshed_views
from feedsvc.core.finding import Finding
from feedsvc.datasets.dataset import Declaration

_SQL: Final = (files("feedsvc.changes") / "refresh_findings.sql").read_text()


async def refresh_findings(
    connection: asyncpg.Connection, declared: Mapping[str, Declaration]
) -> list[Finding]:
    """The views that can't be refreshed as declared. Raises what asyncpg raises."""
    views = {view.relation: view for view in refreshed_views(declared)}
    rows = await connection.fetch(_SQL, list(views))
    return [
        Finding("warning", f"{name}.refreshed", what)
        for row in rows
        for what in _faults(views[row["relation"]], row)
        for name in views[row["relation"]].datasets
    ]


def _faults(view: RefreshedView, row: asyncpg.Record) -> Iterator[str]:
    if row["kind"] != "m":
        what = "there is no" if row["kind"] is None else "it is no materialized view:"
        yield f"{what} {view.relation}"
    elif view.by is None and not row["is_unique"]:
        yield (
            f"{view.relation} has no unique index of whole columns without a condition, by which it"
            " could be refreshed beside its readers: CREATE UNIQUE INDEX"
        )
    elif view.by is None and row["may"] is False:
        yield (
            f"feedsvc.refresh may not refresh {view.relation}, which is {row['owner']}'s: let `by`"
            " name a function of that owner's with SECURITY DEFINER, or GRANT MAINTAIN (PostgreSQL"
            " 17) to the login that migrates"
        )
