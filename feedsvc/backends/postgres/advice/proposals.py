"""Proposals over a whole workload: indexes to make, and indexes to drop."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.advice.candidates import BY_BYTES, candidates
from feedsvc.backends.postgres.advice.deparsed import quoted
from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.explaining import BARE, generic_plan
from feedsvc.backends.postgres.advice.hypothetical import hypothetical_indexes
from feedsvc.backends.postgres.advice.model import Proposal, WorkloadStatement
from feedsvc.backends.postgres.advice.needs import table_needs
from feedsvc.backends.postgres.advice.sample import MOST_ROWS, sampled_copy
from feedsvc.backends.postgres.advice.search import Chosen, Search
from feedsvc.backends.postgres.advice.tables import TableFacts, table_facts
from feedsvc.backends.postgres.advice.variants import LARGEST, for_the_largest
from feedsvc.backends.postgres.advice.workbench import Workbench
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

    They are tried by HypoPG where the database has it, and otherwise on a copy of the tables, made
    and undone, for which the connection is an owner's. Where neither may be done, no index is
    proposed.
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
    found: list[tuple[Proposal, IndexDesign | None]] = [(each, None) for each in _dropped(existing)]
    tried = _Tried()
    if designs:
        largest = [each async for each in for_the_largest(connection, planned, plans)]
        tried = await _tried(connection, [*planned, *largest], designs, facts, options)
    if tried.beyond:
        more = f"{len(tried.beyond)} more {'index' if len(tried.beyond) == 1 else 'indexes'}"
        lacking.append(f"{more}: beyond the budget")
    return Workload((*found, *tried.indexes), (*lacking, *tried.lacking), tried.is_tried)


@dataclass(frozen=True, slots=True)
class _Tried:
    """Indexes that were tried and are proposed."""

    indexes: tuple[tuple[Proposal, IndexDesign], ...] = ()
    beyond: tuple[IndexDesign, ...] = ()
    """Designs beyond the budget."""
    untried: tuple[IndexDesign, ...] = ()
    """All designs of the tables that have one which couldn't be tried."""
    lacking: tuple[str, ...] = ()
    is_tried: bool = True


async def _tried(
    connection: asyncpg.Connection,
    statements: Sequence[WorkloadStatement],
    designs: Sequence[IndexDesign],
    facts: Mapping[str, TableFacts],
    options: AdviceOptions,
) -> _Tried:
    """Indexes by HypoPG, where it is there; of what it can't try, by a copy."""
    found = _Tried(untried=tuple(designs), is_tried=False)
    async with hypothetical_indexes(connection) as hypopg:
        if hypopg is not None:
            chosen = await Search(hypopg, statements, options.budget).run(designs)
            tables = {design.table for design in chosen.untried}
            found = _Tried(
                await _indexes(chosen, hypopg),
                chosen.beyond_budget,
                tuple(design for design in designs if design.table in tables),
            )
    if not found.untried:
        return found
    try:
        return await _by_copy(connection, statements, found, facts, options)
    except asyncpg.InsufficientPrivilegeError:
        what = "GIN, GiST and expressions" if found.is_tried else "indexes"
        sentence = f"{what} can't be tried: the login may not make {options.scratch}"
        return replace(found, lacking=(sentence,))


async def _by_copy(
    connection: asyncpg.Connection,
    statements: Sequence[WorkloadStatement],
    found: _Tried,
    facts: Mapping[str, TableFacts],
    options: AdviceOptions,
) -> _Tried:
    """The same with indexes for the tables that have untried designs.

    These tables' designs are all tried anew, beside what was found for other tables: where a GIN
    does more for a statement, the btree goes that stood in for it.
    """
    tables = {design.table for design in found.untried}
    async with sampled_copy(
        connection, facts, statements, options.scratch, options.most_rows
    ) as copy:
        await copy.give([design for _, design in found.indexes if design.table not in tables])
        tables &= copy.fractions.keys()
        kept = tuple(each for each in found.indexes if each[1].table not in tables)
        budget = options.budget
        if budget is not None:
            budget = max(0, budget - sum(proposal.size_bytes or 0 for proposal, _ in kept))
        chosen = await Search(copy, statements, budget).run(found.untried)
        beyond = (design for design in found.beyond if design.table not in tables)
        return _Tried(
            (*kept, *await _indexes(chosen, copy)),
            (*beyond, *chosen.beyond_budget),
            lacking=tuple(dict.fromkeys(copy.lacking)),
        )


async def _indexes(chosen: Chosen, bench: Workbench) -> tuple[tuple[Proposal, IndexDesign], ...]:
    return tuple([(await _index(chosen, bench, design), design) for design in chosen.designs])


async def _index(chosen: Chosen, bench: Workbench, design: IndexDesign) -> Proposal:
    without = chosen.without[design]
    after = {name: chosen.after[name].cost for name in without}
    helps = _names(name for name in without if after[name] < without[name])
    return Proposal(
        kind="index",
        statement=design.sql(),
        proof=bench.proof,
        cost_before=_by_statement(without),
        cost_after=_by_statement(after),
        size_bytes=chosen.sizes[design],
        write_cost=await bench.write_cost(design),
        helps=helps,
        harms=_names(name for name in without if after[name] > without[name]),
        reason=f"statements that it helps: {len(helps)}"
        + ("" if bench.is_whole(design) else "; costs are those of a sample")
        + ("; for patterns that begin with text" if BY_BYTES in design.body else ""),
    )


def _by_statement(costs: Mapping[str, float]) -> dict[str, float]:
    """Costs by statement: for the largest tenant's rows, where these were planned as well."""
    found: dict[str, float] = {}
    for name in sorted(costs, key=lambda each: each.endswith(LARGEST)):
        found[name.removesuffix(LARGEST)] = costs[name]
    return found


def _names(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.removesuffix(LARGEST) for name in names))


def _dropped(existing: Sequence[ExistingIndex]) -> Iterator[Proposal]:
    """Indexes that another one stands in for."""
    by_name = {index.name: index for index in existing}
    for sentence in dict.fromkeys(needless(existing)):
        index = by_name[sentence.split(" ")[1]]
        schema, _, name = index.name.partition(".")
        text = f"DROP INDEX CONCURRENTLY {quoted(schema)}.{quoted(name)}"
        yield Proposal("drop", text, "unproven", {}, {}, index.bytes, None, (), (), sentence)


def _tables(node: Mapping[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield f"{node['Schema']}.{node['Relation Name']}"
    for child in node.get("Plans", ()):
        yield from _tables(child)
