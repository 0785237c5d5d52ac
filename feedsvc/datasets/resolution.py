"""Declarations completed from the database: a relation's schema, and a key that is left out."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.core.finding import Finding
from feedsvc.datasets.dataset import Declaration, named_parts

_SQL: Final = (files("feedsvc.datasets") / "resolution.sql").read_text()


async def resolved(
    connection: asyncpg.Connection, declarations: Mapping[str, Declaration]
) -> tuple[dict[str, Declaration], list[Finding]]:
    """The declarations with schema and key, and why the others have none.

    A relation with a schema that does not exist is kept where it has a key: the catalog reports it.
    """
    findings: list[Finding] = []
    wanted: list[tuple[str, tuple[str | None, str]]] = []
    for name, declaration in declarations.items():
        try:
            wanted.append((name, named_parts(declaration.relation)))
        except ValueError as error:
            findings.append(Finding("error", f"{name}.relation", str(error)))
    schemas, names = ([parts[n] for _, parts in wanted] for n in (0, 1))
    rows = await connection.fetch(_SQL, schemas, names)
    found = {wanted[row["ordinal"] - 1][0]: row for row in rows}
    complete: dict[str, Declaration] = {}
    for name, (schema, _) in wanted:
        declaration, row = declarations[name], found.get(name)
        mistakes = list(_findings(name, declaration, row, schema))
        findings += mistakes
        if not mistakes:
            complete[name] = _completed(declaration, row, schema)
    return complete, findings


def _completed(
    declaration: Declaration, row: asyncpg.Record | None, schema: str | None
) -> Declaration:
    if row is None:
        return declaration
    changed: dict[str, object] = {} if schema is not None else {"relation": row["relation"]}
    if not declaration.key:
        changed["key"] = _default_key(declaration, row)
    return declaration.model_copy(update=changed) if changed else declaration


def _default_key(declaration: Declaration, row: asyncpg.Record) -> tuple[str, ...]:
    """The primary key; it is unique within a tenant, so without the tenant's column."""
    primary = tuple(row["primary_key"])
    within = tuple(column for column in primary if column != declaration.tenant)
    return within or primary


def _findings(
    name: str, declaration: Declaration, row: asyncpg.Record | None, schema: str | None
) -> Iterator[Finding]:
    place, relation = f"{name}.relation", declaration.relation
    if row is None and (schema is None or not declaration.key):
        where = "on the login's search_path" if schema is None else "that the login can see"
        more = "; write schema.name" if schema is None else ""
        yield Finding("error", place, f"there is no table or view {relation} {where}{more}")
    elif row is not None and not declaration.key and not row["primary_key"]:
        has_none = "has no primary key" if row["is_table"] else "is a view"
        what = f"{relation} {has_none}: name the columns that tell one row from another"
        yield Finding("error", f"{name}.key", what)
