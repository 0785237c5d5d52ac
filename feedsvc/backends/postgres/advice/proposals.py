"""Proposals over a whole workload: indexes to make, indexes to drop, statistics to take."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.advice.candidates import BY_BYTES, candidates
from feedsvc.backends.postgres.advice.deparsed import quoted
from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.model import Proposal, WorkloadStatement
from feedsvc.backends.postgres.advice.needs import table_needs
from feedsvc.backends.postgres.advice.planner import BARE, generic_plan
from feedsvc.backends.postgres.advice.sample import MOST_ROWS, SampledCopy, sampled_copy
from feedsvc.backends.postgres.advice.search import Chosen, Search
from feedsvc.backends.postgres.advice.tables import TableFacts, table_facts
from feedsvc.backends.postgres.advice.variants import LARGEST, for_the_largest
from feedsvc.backends.postgres.index_proof.existing import (
    ExistingIndex,
    existing_indexes,
    needless,
)

_TRIGRAMS: Final = """
    SELECT quote_ident(n.nspname) || '.gin_trgm_ops'
    FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace
    WHERE o.opcname = 'gin_trgm_ops'
"""
_OLD: Final = 0.2  # of a table's rows that may have changed since ANALYZE
_FEW: Final = 1_000  # rows: so few changed ones tell the planner nothing wrong


@dataclass(frozen=True, slots=True)
class AdviceOptions:
    """The workbench and the bounds of what is proposed."""

    scratch: str = "feedsvc_advice"
    """Schema of the copy, as an identifier."""
    most_rows: int = MOST_ROWS
    """Rows of a table that the copy has at most."""
    budget: int | None = None
    """Bytes of all indexes that are proposed."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Proposals, each with the design of an index where it is one, and what could not be seen."""

    proposals: tuple[tuple[Proposal, IndexDesign | None], ...]
    lacking: tuple[str, ...]
    is_tried: bool = True
    """False where no index could be tried, so that none is proposed."""


async def proposals(
    connection: asyncpg.Connection, statements: Sequence[WorkloadStatement], options: AdviceOptions
) -> Workload:
    """Propose what would make these statements cheaper, all of them together.

    The connection is an owner's, for a copy of the tables is made, and undone. Where its login may
    make none, nothing is proven and no index is proposed.
    """
    bare = {each.name: await generic_plan(connection, each, switches=BARE) for each in statements}
    plans = {name: plan for name, plan in bare.items() if plan is not None}
    lacking = [f"{name} can't be planned" for name in bare if name not in plans]
    planned = [each for each in statements if each.name in plans]
    facts = await table_facts(
        connection, {name for plan in plans.values() for name in _tables(plan)}
    )
    lacking += [
        f"statistics of {name} are hidden from this login"
        for name, table in facts.items()
        if table.hides_statistics
    ]
    schemas = {name.partition(".")[0] for name in facts}
    existing = await existing_indexes(connection, schemas, list(facts))
    designs = candidates(
        [need for each in planned for need in table_needs(each, plans[each.name], facts)],
        facts,
        existing,
        trigrams=await connection.fetchval(_TRIGRAMS),
    )
    found: list[tuple[Proposal, IndexDesign | None]] = [
        (each, None) for each in (*_analyzed(facts), *_dropped(existing))
    ]
    is_tried = True
    if designs:
        largest = [each async for each in for_the_largest(connection, planned, plans)]
        try:
            async with sampled_copy(
                connection, facts, planned, options.scratch, options.most_rows
            ) as copy:
                chosen = await Search(copy, [*planned, *largest], options.budget).run(designs)
                found += [(each, design) async for design, each in _indexes(chosen, copy)]
                if chosen.beyond_budget:
                    left = len(chosen.beyond_budget)
                    more = f"{left} more {'index' if left == 1 else 'indexes'}"
                    lacking.append(f"{more}: beyond the budget")
                lacking += dict.fromkeys(copy.lacking)
        except asyncpg.InsufficientPrivilegeError:
            is_tried = False
            lacking.append(f"indexes can't be tried: the login may not make {options.scratch}")
    return Workload(tuple(found), tuple(lacking), is_tried)


async def _indexes(
    chosen: Chosen, copy: SampledCopy
) -> AsyncIterator[tuple[IndexDesign, Proposal]]:
    for design in chosen.designs:
        without = chosen.without[design]
        after = {name: chosen.after[name].cost for name in without}
        helps = _names(name for name in without if after[name] < without[name])
        is_whole = copy.fractions[design.table] == 1.0
        yield (
            design,
            Proposal(
                kind="index",
                statement=design.sql(),
                proof=copy.proof,
                cost_before=_by_statement(without),
                cost_after=_by_statement(after),
                size_bytes=chosen.sizes[design],
                write_cost=await copy.write_cost(design),
                helps=helps,
                harms=_names(name for name in without if after[name] > without[name]),
                reason=f"statements that it helps: {len(helps)}"
                + ("" if is_whole else "; costs are those of a sample")
                + ("; for patterns that begin with text" if BY_BYTES in design.body else ""),
            ),
        )


def _by_statement(costs: Mapping[str, float]) -> dict[str, float]:
    """Costs by statement: for the largest tenant's rows, where these were planned as well."""
    found: dict[str, float] = {}
    for name in sorted(costs, key=lambda each: each.endswith(LARGEST)):
        found[name.removesuffix(LARGEST)] = costs[name]
    return found


def _names(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.removesuffix(LARGEST) for name in names))


def _analyzed(facts: Mapping[str, TableFacts]) -> Iterator[Proposal]:
    """ANALYZE of tables without statistics, and of those that have changed much since."""
    for table in facts.values():
        has_any = any(each.n_distinct is not None for each in table.columns.values())
        if table.hides_statistics:
            continue
        is_old = table.modified > max(_OLD * table.rows, _FEW)
        if is_old or (not has_any and table.bytes):
            why = "much has changed since its last ANALYZE" if has_any else "it has no statistics"
            yield _plain("analyze", f"ANALYZE {table.quoted}", f"{table.name}: {why}", None)


def _dropped(existing: Sequence[ExistingIndex]) -> Iterator[Proposal]:
    """Indexes that another one stands in for."""
    by_name = {index.name: index for index in existing}
    for sentence in dict.fromkeys(needless(existing)):
        index = by_name[sentence.split(" ")[1]]
        schema, _, name = index.name.partition(".")
        text = f"DROP INDEX CONCURRENTLY {quoted(schema)}.{quoted(name)}"
        yield _plain("drop", text, sentence, index.bytes)


def _plain(kind: Any, statement: str, reason: str, size: int | None) -> Proposal:
    return Proposal(kind, statement, "unproven", {}, {}, size, None, (), (), reason)


def _tables(node: Mapping[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield f"{node['Schema']}.{node['Relation Name']}"
    for child in node.get("Plans", ()):
        yield from _tables(child)
