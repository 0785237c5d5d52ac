"""Dexter's rule (0.6.3): single columns, and pairs of those that a statement names.

Of each statement that costs 100 or more, the columns that its text names are tried: all single ones
first, then all ordered pairs within a table as well, together with those of other statements up to
500. An index is found if it halves the cost, and a pair only where single columns leave a cost of
over 100 which it halves again. Of several in one plan the best alone is found, if it halves the
cost by itself.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg

from feedsvc.backends.postgres.advice.deparsed import quoted
from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.model import WorkloadStatement
from feedsvc.backends.postgres.index_proof.plans import undone
from tests.performance.advisers.trials import Planner, built, used

Column: TypeAlias = tuple[str, str]
"""A table with its schema, and the column's name."""

MIN_COST: Final = 100.0
_LEFT: Final = 0.5
_DEAR: Final = 100.0
_BATCH: Final = 500
_SQL: Final = (Path(__file__).parent / "dexter.sql").read_text(encoding="utf-8")
_NAME: Final = r'(?:"(?:[^"]|"")+"|[A-Za-z_]\w*)'
_RELATION: Final = re.compile(rf"({_NAME})\.({_NAME})")
# What pg_query takes for something else than a column: texts, types, the names of a join and of
# what is set, aliases, functions.
_NO_COLUMN: Final = re.compile(
    rf"'(?:[^']|'')*'|::\s*[\w.]+|\bUSING\s*\([^)]*\)|\bSET\s+{_NAME}\s*=|\bAS\s+{_NAME}|\w+\s*\(",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or a view. `below` are the tables that a view reads."""

    name: str
    quoted: str
    columns: Sequence[str]
    below: Sequence[str]
    keys: Sequence[str]
    """Keys of each plain btree, as its definition has them."""


@dataclass(slots=True)
class _Query:
    statement: WorkloadStatement
    columns: list[Column]
    cost: float
    passes: list[tuple[float, list[IndexDesign]]] = field(default_factory=list)
    """The cost, and the tried indexes of the plan, with single columns and with pairs as well."""


@dataclass(slots=True)
class Dexter:
    """The adviser on a database. `plan` has statements' values or not, as its sources do."""

    connection: asyncpg.Connection
    plan: Planner
    min_cost: float = MIN_COST
    _relations: Mapping[str, Relation] = field(default_factory=dict)

    async def propose(self, statements: Sequence[WorkloadStatement]) -> list[IndexDesign]:
        """The indexes that it would find for these statements."""
        rows = await self.connection.fetch(_SQL)
        self._relations = {row["name"]: Relation(**row) for row in rows}
        queries = [query async for query in self._queries(statements)]
        for batch in _batches(sorted(queries, key=lambda each: each.columns)):
            await self._try(batch)
        kept = [design for query in queries for design in await self._kept(query)]
        leading = {(each.table, each.keys[:1]) for each in kept if len(each.keys) > 1}
        return [each for each in dict.fromkeys(kept) if (each.table, each.keys) not in leading]

    async def _queries(self, statements: Sequence[WorkloadStatement]) -> AsyncIterator[_Query]:
        for statement in statements:
            plan = await self.plan(statement)
            columns = columns_named(statement.sql, self._relations)
            if plan is not None and plan.cost >= self.min_cost and columns:
                yield _Query(statement, columns, plan.cost)

    async def _try(self, batch: Sequence[_Query]) -> None:
        """Plan a batch with all of its single columns, and once more with all pairs as well."""
        single = dict.fromkeys((column,) for query in batch for column in query.columns)
        pairs = dict.fromkeys(pair for query in batch for pair in _pairs(query))
        tried: dict[str, IndexDesign] = {}
        async with undone(self.connection):
            for candidates in (single, pairs):
                tried |= await built(self.connection, map(self._design, candidates))
                for query in batch:
                    query.passes.append(await self._pass(query, tried))

    async def _pass(
        self, query: _Query, tried: Mapping[str, IndexDesign]
    ) -> tuple[float, list[IndexDesign]]:
        plan = await self.plan(query.statement)
        assert plan is not None
        return plan.cost, used(plan, tried)

    def _design(self, columns: Sequence[Column]) -> IndexDesign:
        table = self._relations[columns[0][0]]
        return IndexDesign(
            table.name, table.quoted, "btree", tuple(quoted(name) for _, name in columns)
        )

    async def _kept(self, query: _Query) -> list[IndexDesign]:
        (cost, alone), (paired_cost, paired) = query.passes
        found = self._new(paired)
        is_pair = cost > _DEAR and paired_cost < cost * _LEFT and len(found) <= 1
        found = found if is_pair else self._new(alone)
        if not is_pair and cost >= query.cost * _LEFT:
            return []
        if len(found) <= 1:
            return found
        costs = {design: await self._cost_with(query, design) for design in found}
        best = min(found, key=lambda each: costs[each])
        return [best] if costs[best] < query.cost * _LEFT else []

    def _new(self, designs: Sequence[IndexDesign]) -> list[IndexDesign]:
        """Those that no plain btree begins with."""
        return [
            design
            for design in designs
            if not any(
                tuple(keys.split(", ")[: len(design.keys)]) == design.keys
                for keys in self._relations[design.table].keys
            )
        ]

    async def _cost_with(self, query: _Query, design: IndexDesign) -> float:
        async with undone(self.connection):
            cost, _ = await self._pass(query, await built(self.connection, [design]))
        return cost


def columns_named(sql: str, relations: Mapping[str, Relation]) -> list[Column]:
    """The columns that a statement names, of each of its tables that has one of that name.

    Of the tables below a view they are all. Tables are found by name and schema.
    """
    text = _NO_COLUMN.sub(" ", sql)
    named = {f"{_plain(schema)}.{_plain(name)}" for schema, name in _RELATION.findall(text)}
    found = [relations[name] for name in named & relations.keys()]
    text = _RELATION.sub(lambda each: " " if _is_table(each, relations) else each[0], text)
    words = {_plain(word) for word in re.findall(_NAME, text)}
    columns = {
        (table, column)
        for each in found
        for table in each.below or [each.name]
        for column in relations[table].columns
        if each.below or column in words
    }
    return sorted(columns)


def _is_table(found: re.Match[str], relations: Mapping[str, Relation]) -> bool:
    return f"{_plain(found[1])}.{_plain(found[2])}" in relations


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _pairs(query: _Query) -> Iterator[tuple[Column, Column]]:
    return (pair for pair in permutations(query.columns, 2) if pair[0][0] == pair[1][0])


def _batches(queries: Sequence[_Query]) -> Iterator[list[_Query]]:
    """Queries in the order given, until their candidates are 500 or more."""
    batch: list[_Query] = []
    candidates: set[tuple[Column, ...]] = set()
    for query in queries:
        batch.append(query)
        candidates |= {(column,) for column in query.columns} | set(_pairs(query))
        if len(candidates) >= _BATCH:
            yield batch
            batch, candidates = [], set()
    if batch:
        yield batch
