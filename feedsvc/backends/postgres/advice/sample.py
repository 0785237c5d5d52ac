"""The workbench on a copy: structure, indexes, policies and a sample of the rows.

All of it is made in one transaction that is rolled back: whatever happens, nothing is left.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from feedsvc.backends.postgres.advice.deparsed import quoted
from feedsvc.backends.postgres.advice.designs import IndexDesign
from feedsvc.backends.postgres.advice.explaining import generic_plan
from feedsvc.backends.postgres.advice.model import Proof, WorkloadStatement
from feedsvc.backends.postgres.advice.renamed import renamed
from feedsvc.backends.postgres.advice.tables import TableFacts
from feedsvc.backends.postgres.advice.workbench import Planned, used_designs
from feedsvc.backends.postgres.index_proof.existing import existing_indexes
from feedsvc.backends.postgres.index_proof.plans import undone
from feedsvc.backends.postgres.index_proof.write_cost import pages_of_an_entry

_HERE: Final = Path(__file__).parent
_CONSTRAINTS: Final = (_HERE / "sample_constraints.sql").read_text(encoding="utf-8")
_VIEWS: Final = (_HERE / "sample_views.sql").read_text(encoding="utf-8")
_VISIBLE: Final = (_HERE / "sample_visible.sql").read_text(encoding="utf-8")
_VISIBLE_BEFORE: Final = "UPDATE pg_class SET relallvisible = $1 WHERE oid = $2::text::regclass"
_PAGES: Final = "SELECT relpages FROM pg_class WHERE oid = $1::text::regclass"
_WITH_RESTORE: Final = 18  # PostgreSQL's release
MOST_ROWS: Final = 50_000
_WHOLE: Final = 0.9


@dataclass(slots=True)
class SampledCopy:
    """A copy in a scratch schema. `fractions` has the part of each table's rows that it holds."""

    connection: asyncpg.Connection
    scratch: str
    """The schema, quoted where it must be."""
    search_path: str
    names: Mapping[tuple[str, str], str]
    fractions: Mapping[str, float]
    facts: Mapping[str, TableFacts]
    lacking: Sequence[str]
    proof: Proof = "sample"
    _designs: dict[str, IndexDesign] = field(default_factory=dict)

    async def add(self, design: IndexDesign) -> bool:
        """Build the design; False where its table isn't copied, or PostgreSQL refuses it."""
        is_there = await self._build(design)
        if is_there:
            self._designs[design.name] = design
        return is_there

    async def give(self, designs: Sequence[IndexDesign]) -> None:
        """Build indexes that are there for good, as if the tables had them."""
        for design in designs:
            if await self._build(design):
                table = self.facts[design.table]
                name = self.names[_parts(design.table)]
                await _make_visible(self.connection, self.scratch, name, table.visible)

    async def settle(self) -> None:
        """Take statistics of the expressions that designs have, and say again what is visible.

        CREATE INDEX counts the visible pages anew, and finds none of rows so young.
        """
        tables = {each.table for each in self._designs.values()}
        expressions = {each.table for each in self._designs.values() if each.has_expressions}
        for table in sorted(tables):
            name, visible = self.names[_parts(table)], self.facts[table].visible
            if table in expressions:
                await self.connection.execute(f"ANALYZE {name}")
            await _make_visible(self.connection, self.scratch, name, visible)

    @asynccontextmanager
    async def without(self, design: IndexDesign) -> AsyncIterator[None]:
        """The copy without a design, for a block."""
        async with undone(self.connection):
            await self._drop(design)
            yield

    async def remove(self, design: IndexDesign) -> None:
        """Drop a design."""
        await self._drop(design)
        del self._designs[design.name]

    async def plan(self, statement: WorkloadStatement) -> Planned | None:
        """The statement's plan on the copy; None if there is none, or it reads none of it."""
        top = await generic_plan(
            self.connection,
            statement,
            renamed(statement.sql, self.names),
            {"search_path": f"{self.scratch}, {self.search_path}"},
        )
        if top is None:
            return None
        return Planned(top["Total Cost"], used_designs(top, self._designs))

    async def size(self, design: IndexDesign) -> int:
        """Bytes of the design, in proportion to the rows of the whole table."""
        name = f"{self.scratch}.{quoted(design.name)}"
        found: int = await self.connection.fetchval(
            "SELECT pg_relation_size($1::text::regclass)", name
        )
        return round(found / self.fractions[design.table])

    async def write_cost(self, design: IndexDesign) -> float | None:
        """Pages that a row's entry touches, of the copy's rows."""
        table = self.names[_parts(design.table)]
        async with undone(self.connection):
            await self.connection.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
            return await pages_of_an_entry(self.connection, table, design.body)

    async def _build(self, design: IndexDesign) -> bool:
        if design.table not in self.fractions:
            return False
        try:
            async with self.connection.transaction():
                table = self.names[_parts(design.table)]
                await self.connection.execute(design.sql(concurrently=False, table=table))
        except asyncpg.PostgresError:
            return False
        return True

    def is_whole(self, design: IndexDesign) -> bool:
        """Return whether the copy has all rows of the design's table."""
        return self.fractions[design.table] == 1.0

    async def _drop(self, design: IndexDesign) -> None:
        await self.connection.execute(f"DROP INDEX {self.scratch}.{quoted(design.name)}")


@asynccontextmanager
async def sampled_copy(
    connection: asyncpg.Connection,
    facts: Mapping[str, TableFacts],
    statements: Sequence[WorkloadStatement],
    scratch: str,
    most_rows: int = MOST_ROWS,
) -> AsyncIterator[SampledCopy]:
    """A copy of these tables, with at most `most_rows` of each.

    `scratch` is the schema as an identifier; it is made unless it is there. Raises
    asyncpg.InsufficientPrivilegeError where the login may make neither schema nor tables.
    """
    async with undone(connection):
        path = await connection.fetchval("SELECT current_setting('search_path')")
        await connection.execute("SET LOCAL search_path = pg_catalog; SET LOCAL row_security = off")
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", scratch):
            await connection.execute(f"CREATE SCHEMA {scratch}")
        maker = _Maker(connection, scratch, most_rows, facts)
        for table in facts.values():
            await maker.copy(table)
        await maker.finish([each for each in facts if each in maker.fractions], statements)
        await connection.execute("SET LOCAL row_security = on")
        yield SampledCopy(
            connection, scratch, path, maker.names, maker.fractions, facts, maker.lacking
        )


@dataclass(slots=True)
class _Maker:
    connection: asyncpg.Connection
    scratch: str
    most_rows: int
    facts: Mapping[str, TableFacts]
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    fractions: dict[str, float] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)

    async def copy(self, table: TableFacts) -> None:
        """Copy a table with its sample."""
        if not table.takes_indexes:
            return
        name = f"{self.scratch}.{table.quoted.removeprefix(_schema(table.quoted) + '.')}"
        share = min(self.most_rows / max(table.rows, 1), 1.0)
        share = 1.0 if share > _WHOLE else share
        how = "" if share == 1.0 else f" TABLESAMPLE SYSTEM ({share * 100}) REPEATABLE (1)"
        try:
            async with self.connection.transaction():
                await self.connection.execute(
                    f"CREATE UNLOGGED TABLE {name} (LIKE {table.quoted} INCLUDING STATISTICS)"
                )
                await self.connection.execute(
                    f"INSERT INTO {name} SELECT * FROM {table.quoted}{how}"  # noqa: S608 - names of the catalog
                )
        except asyncpg.PostgresError as error:
            self.lacking.append(f"{table.name} can't be copied: {type(error).__name__}")
            return
        self.names[_parts(table.name)] = name
        self.fractions[table.name] = share

    async def finish(self, tables: Sequence[str], statements: Sequence[WorkloadStatement]) -> None:
        """Give the copies indexes, statistics, policies and views."""
        facts: dict[str, dict[str, Any]] = {}
        for row in await self.connection.fetch(_CONSTRAINTS, tables):
            facts[row["table_name"]] = dict(row.items())
        of_keys = {name for row in facts.values() for name in row["key_indexes"]}
        for table in tables:
            for key in facts[table]["keys"]:
                await self._quietly(f"ALTER TABLE {self.names[_parts(table)]} ADD {key}")
        schemas = {_parts(table)[0] for table in tables}
        for index in await existing_indexes(self.connection, schemas, tables):
            if index.name not in of_keys:
                await self._quietly(renamed(index.definition, self.names))
        await self._analyze(tables, facts)
        for row in await self.connection.fetch(_VIEWS, sorted(schemas)):
            if any(row["name"] in each.sql for each in statements):
                await self._view(row)
        for role in sorted({each.role for each in statements if each.role is not None}):
            await self._quietly(f"GRANT USAGE ON SCHEMA {self.scratch} TO {role}")
            await self._quietly(f"GRANT SELECT ON ALL TABLES IN SCHEMA {self.scratch} TO {role}")

    async def _analyze(self, tables: Sequence[str], facts: Mapping[str, Mapping[str, Any]]) -> None:
        for table in tables:
            await self.connection.execute(f"ANALYZE {self.names[_parts(table)]}")
            if not await self._see(table):
                self.lacking.append(f"no index-only scan of {table} is seen: no right to say so")
            for statement in _secured(self.names[_parts(table)], facts[table], self.names):
                await self._quietly(statement)

    async def _see(self, table: str) -> bool:
        name, visible = self.names[_parts(table)], self.facts[table].visible
        return await _make_visible(self.connection, self.scratch, name, visible)

    async def _view(self, row: asyncpg.Record) -> None:
        name = f"{self.scratch}.{row['quoted_name']}"
        options = f" WITH ({row['options']})" if row["options"] else ""
        body = renamed(row["definition"], self.names)
        if await self._quietly(f"CREATE VIEW {name}{options} AS {body}"):
            self.names[row["schema"], row["name"]] = name

    async def _quietly(self, statement: str) -> bool:
        """Run what the copy may do without."""
        try:
            async with self.connection.transaction():
                await self.connection.execute(statement)
        except asyncpg.PostgresError as error:
            self.lacking.append(f"the copy lacks a part of the original: {type(error).__name__}")
            return False
        return True


async def _make_visible(
    connection: asyncpg.Connection, scratch: str, name: str, fraction: float
) -> bool:
    """Say that as large a part of the copy's pages is visible to all as of the table's."""
    pages = await connection.fetchval(_PAGES, name)
    visible = round(fraction * pages)
    try:
        async with connection.transaction():
            if connection.get_server_version().major >= _WITH_RESTORE:
                parts = (_plain(scratch), _plain(name.removeprefix(f"{scratch}.")), visible)
                await connection.fetchval(_VISIBLE, *parts)
            else:
                await connection.execute(_VISIBLE_BEFORE, visible, name)
    except asyncpg.PostgresError:
        return False
    return True


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _secured(
    name: str, row: Mapping[str, Any], names: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    for policy in row["policies"]:
        policy_name, _, rest = policy.partition(" AS ")
        yield f"CREATE POLICY {policy_name} ON {name} AS {renamed(rest, names)}"
    if row["is_secured"]:
        yield f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"
    if row["is_forced"]:
        yield f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY"


def _parts(table: str) -> tuple[str, str]:
    schema, _, name = table.partition(".")
    return schema, name


def _schema(quoted: str) -> str:
    """The schema of a quoted name."""
    if not quoted.startswith('"'):
        return quoted.partition(".")[0]
    return quoted[: quoted.index('".') + 1]
