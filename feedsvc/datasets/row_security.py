"""Checks that row-level security really guards the datasets and binds the service's login."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Final

import asyncpg

from feedsvc.core.finding import Finding
from feedsvc.datasets.dataset import Declaration

_RELATIONS_SQL: Final = (files("feedsvc.datasets") / "row_security.sql").read_text()
_TABLES: Final = frozenset("rp")
_SEE: Final = "see docs/row-level-security.md"
_UNBOUND: Final = {"m": "a materialized view", "f": "a foreign table"}


@dataclass(frozen=True, slots=True)
class _Reached:
    """A relation that a dataset's query reaches; what its fields mean is in protection.sql."""

    ordinal: int
    asked_for: bool
    name: str
    kind: str
    as_its_reader: bool
    is_barrier: bool
    asks_who_reads: bool
    enabled: bool
    has_policy: bool
    lets_all_in: bool
    has_tenant: bool

    @property
    def is_guarded(self) -> bool:
        return self.enabled and self.has_policy


async def relation_findings(
    connection: asyncpg.Connection, declarations: Mapping[str, Declaration]
) -> list[Finding]:
    """The datasets of one tenant's rows that no policy would guard.

    A dataset declared as shared has the same rows for all tenants, by the operator's word.
    """
    names: list[str] = []
    wanted: list[tuple[str, str, str]] = []
    for name, declaration in declarations.items():
        if declaration.tenant is not None:
            try:
                wanted.append((*declaration.relation_parts(), declaration.tenant))
            except ValueError:
                continue  # the catalog's findings say so
            names.append(name)
    columns = [[parts[n] for parts in wanted] for n in range(3)]
    rows = [_Reached(**row) for row in await connection.fetch(_RELATIONS_SQL, *columns)]
    findings: list[Finding] = []
    for ordinal, reached in groupby(rows, lambda row: row.ordinal):
        place = f"{names[ordinal - 1]}.relation"
        asked_for, *behind = reached
        mistakes = [Finding("error", place, what) for what in _mistakes(asked_for, behind)]
        findings += mistakes or [
            Finding("warning", place, what) for what in _doubts(asked_for, behind)
        ]
    return findings


def _mistakes(relation: _Reached, behind: Sequence[_Reached]) -> Iterator[str]:
    if relation.kind in _TABLES:
        yield from _table_mistakes(relation)
    elif relation.kind in _UNBOUND:
        yield (
            f"{relation.name} is {_UNBOUND[relation.kind]}, which row-level security does not "
            f"bind: serve a view over it that has security_invoker and a condition; {_SEE}"
        )
    else:
        yield from _view_mistakes(relation, behind)


def _doubts(view: _Reached, behind: Sequence[_Reached]) -> Iterator[str]:
    """Doubts, which only the author of the view can settle."""
    if any(relation.asks_who_reads for relation in (view, *behind)):
        return
    for relation in behind:
        if relation.kind in _UNBOUND:
            yield (
                f"{relation.name}, behind {view.name}, is {_UNBOUND[relation.kind]}, and nothing "
                f"there asks for feedsvc.tenant: make sure that a join does; {_SEE}"
            )


def _table_mistakes(table: _Reached) -> Iterator[str]:
    if not table.enabled:
        yield (
            f"{table.name} has no row-level security: ALTER TABLE {table.name} "
            f"ENABLE ROW LEVEL SECURITY, and a policy; {_SEE}"
        )
    elif not table.has_policy:
        yield f"{table.name} has no policy by which the login could read: CREATE POLICY; {_SEE}"
    elif table.lets_all_in:
        yield f"a policy of {table.name} lets every tenant's rows through: USING (true); {_SEE}"


def _view_mistakes(view: _Reached, behind: Sequence[_Reached]) -> Iterator[str]:
    """A view reads as its owner, exempt from policies, unless it has security_invoker.

    One over materialized views alone, which no policy can bind, may: it holds the condition itself,
    as a barrier, and its reader needs no right to what is behind it.
    """
    views = [view, *(relation for relation in behind if relation.kind == "v")]
    bound = [each for each in behind if each.enabled or (each.kind in _TABLES and each.has_tenant)]
    for each in views:
        is_policy = each.is_barrier and each.asks_who_reads and not bound
        if not each.as_its_reader and not is_policy:
            yield (
                f"{each.name} reads as its owner, beside row-level security: "
                f"ALTER VIEW {each.name} SET (security_invoker = true); {_SEE}"
            )
    tables = [relation for relation in behind if relation.kind in _TABLES]
    for table in tables:
        if table.has_tenant or table.has_policy:
            yield from _table_mistakes(table)
    if not any(v.asks_who_reads for v in views) and not any(t.is_guarded for t in tables):
        yield (
            f"nothing behind {view.name} has a policy, and the view itself does not ask for "
            f"feedsvc.tenant; {_SEE}"
        )
