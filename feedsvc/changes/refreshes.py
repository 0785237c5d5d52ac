"""The materialized views that the service refreshes, as they are entered in `feedsvc.refreshes`.

A materialized view has no triggers. So a refresh is known to the cache from the log, to which
`feedsvc.refresh` writes in the transaction of the refresh; and the counters of the tables behind
the view tell that one is due, for which no writer pays (docs/decisions/0292).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from feedsvc.changes.log_expressions import literal
from feedsvc.datasets.dataset import Declaration, quote_identifier, relation_parts

_SIMPLE: Final = re.compile(r"[a-z_][a-z0-9_]*")
# Without a view to enter, a login without a right to the table is no fault.
_THERE: Final = (
    "SELECT relation IS NOT NULL AND ($1 OR has_table_privilege(relation, 'SELECT'))"
    " FROM (SELECT to_regclass('feedsvc.refreshes')::oid AS relation) AS found"
)
# Not by to_regclass, which fails without USAGE of the schema, and the service's login needs none.
_EXISTING: Final = (
    "SELECT wanted.relation FROM unnest($1::text[]) AS wanted (relation) WHERE EXISTS ("
    "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE ARRAY[n.nspname, c.relname]::text[] = parse_ident(wanted.relation))"
)
_STANDING: Final = (
    "SELECT relation, datasets, after, every, by_function FROM feedsvc.refreshes ORDER BY relation"
)
_NOT_ENTERED: Final = "{} is not refreshed as declared; run `feedsvc migrate triggers`"
_NO_TABLE: Final = "{} is not refreshed: run `feedsvc migrate up`"


@dataclass(frozen=True, slots=True)
class RefreshedView:
    """A view that is refreshed, for these datasets; `by` is a function as SQL names it."""

    relation: str
    datasets: tuple[str, ...]
    after: float
    every: float
    by: str | None


@dataclass(frozen=True, slots=True)
class RefreshPlan:
    """The views that the datasets call for, and those that are entered, None without the table."""

    wanted: tuple[RefreshedView, ...] = ()
    standing: tuple[RefreshedView, ...] | None = None

    @property
    def state(self) -> str:
        """All that is entered, for comparison."""
        return repr(self.standing)

    def drift(self) -> dict[str, str]:
        """The datasets with a view that is not entered as declared, and why."""
        why = _NO_TABLE if self.standing is None else _NOT_ENTERED
        return {
            name: why.format(view.relation)
            for view in self.wanted
            if view not in (self.standing or ())
            for name in view.datasets
        }

    def statements(self) -> Iterator[str]:
        """SQL that enters the views, and removes those that no dataset names any more."""
        if self.standing is None:
            return
        names = ", ".join(literal(view.relation) for view in self.wanted)
        others = f" WHERE relation NOT IN ({names})" if names else ""
        yield f"DELETE FROM feedsvc.refreshes{others}"  # noqa: S608 - literals
        for view in self.wanted:
            datasets = ", ".join(map(literal, view.datasets))
            by = "NULL" if view.by is None else literal(view.by)
            yield (
                "INSERT INTO feedsvc.refreshes"  # noqa: S608 - literals
                " (relation, datasets, after, every, by_function) VALUES"
                f" ({literal(view.relation)}, ARRAY[{datasets}]::pg_catalog.text[],"
                f" {view.after!r}, {view.every!r}, {by}) ON CONFLICT (relation) DO UPDATE SET"
                " datasets = excluded.datasets, after = excluded.after, every = excluded.every,"
                " by_function = excluded.by_function"
            )


def refreshed_views(declared: Mapping[str, Declaration]) -> tuple[RefreshedView, ...]:
    """The views that datasets name, in the order of their names.

    Of one that several name, the shortest times hold, and the first function.
    """
    named: dict[str, list[tuple[str, Declaration, str]]] = {}
    for name, declaration in declared.items():
        for written in declaration.refreshed:
            relation = displayed(relation_parts(written))
            named.setdefault(relation, []).append((name, declaration, written))
    return tuple(_view(relation, named[relation]) for relation in sorted(named))


def _view(relation: str, uses: Sequence[tuple[str, Declaration, str]]) -> RefreshedView:
    given = [declaration.refreshed[written] for _, declaration, written in uses]
    by = next((each.by for each in given if each.by is not None), None)
    return RefreshedView(
        relation,
        tuple(sorted(name for name, _, _ in uses)),
        min(each.after for each in given),
        min(each.every for each in given),
        None if by is None else ".".join(map(quote_identifier, relation_parts(by))),
    )


def displayed(parts: tuple[str, str]) -> str:
    """A relation's name, quoted where it has to be."""
    return ".".join(p if _SIMPLE.fullmatch(p) else quote_identifier(p) for p in parts)


async def refresh_plan(
    connection: asyncpg.Connection, declared: Mapping[str, Declaration]
) -> RefreshPlan:
    """The plan for the views of these datasets that are there. Raises what asyncpg raises."""
    views = refreshed_views(declared)
    names = [view.relation for view in views]
    there = {row["relation"] for row in await connection.fetch(_EXISTING, names)}
    wanted = tuple(view for view in views if view.relation in there)
    return RefreshPlan(wanted, await _standing(connection, wanted))


async def install_refreshes(connection: asyncpg.Connection, plan: RefreshPlan) -> list[str]:
    """Enter the views in place of those that stand there; the names of those that changed.

    Raises what asyncpg raises.
    """
    standing = await _standing(connection, plan.wanted)
    if standing is None or standing == plan.wanted:
        return []
    for statement in RefreshPlan(plan.wanted, standing).statements():
        await connection.execute(statement)
    return [view.relation for view in sorted({*standing} ^ {*plan.wanted}, key=repr)]


async def _standing(
    connection: asyncpg.Connection, wanted: Sequence[RefreshedView]
) -> tuple[RefreshedView, ...] | None:
    """The views that stand there; None where there is no table, or no right and no need."""
    if not await connection.fetchval(_THERE, bool(wanted)):
        return None
    return tuple(
        RefreshedView(
            row["relation"], tuple(row["datasets"]), row["after"], row["every"], row["by_function"]
        )
        for row in await connection.fetch(_STANDING)
    )
