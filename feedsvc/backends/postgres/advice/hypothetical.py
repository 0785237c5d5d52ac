"""The workbench of HypoPG: indexes that the planner alone sees, on the tables themselves.

They belong to the session, and nothing of them is in a table or in the catalog.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.explaining import generic_plan
from feedsvc.backends.postgres.advice.extensions import extension_schema
from feedsvc.backends.postgres.advice.model import Proof, WorkloadStatement
from feedsvc.backends.postgres.advice.workbench import Planned, used_designs
from feedsvc.backends.postgres.index_proof.plans import undone
from feedsvc.backends.postgres.index_proof.write_cost import pages_of_an_entry

_METHODS: Final = frozenset({"btree", "brin"})
"""Those that HypoPG has and that are ever proposed (hypo_newIndex in its hypopg_index.c)."""


@dataclass(slots=True)
class HypotheticalIndexes:
    """Hypothetical indexes of one session. Costs and sizes are those of the whole tables."""

    connection: asyncpg.Connection
    schema: str
    """The extension's, as an identifier.

    Others may have functions of the same names there, which only the types of arguments tell apart.
    """
    proof: Proof = "hypopg"
    _made: dict[IndexDesign, asyncpg.Record] = field(default_factory=dict)

    async def add(self, design: IndexDesign) -> bool:
        """Try a design; False for GIN and GiST, and for expressions.

        HypoPG takes those, but there are no statistics of an expression before its index is built.
        """
        if design.method not in _METHODS or design.has_expressions:
            return False
        sql = f"SELECT indexrelid, indexname FROM {self.schema}.hypopg_create_index($1::text)"  # noqa: S608 - a name of the catalog
        try:
            async with self.connection.transaction():
                made = await self.connection.fetchrow(sql, design.sql(concurrently=False))
        except asyncpg.PostgresError:
            return False
        if made is not None:
            self._made[design] = made
        return made is not None

    async def settle(self) -> None:
        """Nothing: HypoPG looks at statistics whenever a statement is planned."""

    @asynccontextmanager
    async def without(self, design: IndexDesign) -> AsyncIterator[None]:
        """The same without a design, for a block."""
        await self.remove(design)
        try:
            yield
        finally:
            await self.add(design)

    async def remove(self, design: IndexDesign) -> None:
        """Take a design away."""
        made = self._made.pop(design)
        drop = f"SELECT {self.schema}.hypopg_drop_index($1::oid)"
        await self.connection.fetchval(drop, made["indexrelid"])

    async def plan(self, statement: WorkloadStatement) -> Planned | None:
        """The statement's plan with all designs that are there; None if there is none."""
        top = await generic_plan(self.connection, statement)
        if top is None:
            return None
        designs = {made["indexname"]: design for design, made in self._made.items()}
        return Planned(top["Total Cost"], used_designs(top, designs))

    async def size(self, design: IndexDesign) -> int:
        """Bytes of the design, as HypoPG estimates them."""
        size = f"SELECT {self.schema}.hypopg_relation_size($1::oid)"
        found: int = await self.connection.fetchval(size, self._made[design]["indexrelid"])
        return found

    async def write_cost(self, design: IndexDesign) -> float | None:
        """Pages that a row's entry touches; None where the login may not read the rows."""
        try:
            return await pages_of_an_entry(self.connection, design.quoted, design.body)
        except asyncpg.PostgresError:
            return None

    def is_whole(self, design: IndexDesign) -> bool:
        """Return True: all rows are planned for."""
        return True


@asynccontextmanager
async def hypothetical_indexes(
    connection: asyncpg.Connection,
) -> AsyncIterator[HypotheticalIndexes | None]:
    """HypoPG's workbench; None where it isn't in this database, or not this login's to call.

    All in one transaction, in which a pooler keeps the session, and without a trace of it behind.
    """
    async with undone(connection):
        schema = await extension_schema(connection, "hypopg")
        if schema is None or not await _is_clear(connection, schema):
            yield None
            return
        try:
            async with undone(connection):
                yield HypotheticalIndexes(connection, schema)
        finally:
            await connection.execute(f"SELECT {schema}.hypopg_reset()")


async def _is_clear(connection: asyncpg.Connection, schema: str) -> bool:
    """Return whether HypoPG can be called, and has no index left from the session's last use."""
    try:
        async with connection.transaction():
            await connection.execute(
                f"SELECT {schema}.hypopg_reset(); SET LOCAL hypopg.enabled = on"
            )
    except asyncpg.PostgresError:
        return False
    return True
