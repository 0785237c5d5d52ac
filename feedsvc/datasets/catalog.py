"""The datasets file, completed and checked by PostgreSQL's catalog."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, Final

import asyncpg

from feedsvc.core.finding import Finding
from feedsvc.datasets.catalog_findings import catalog_findings, declared_orders, is_served
from feedsvc.datasets.dataset import (
    Column,
    Dataset,
    Declaration,
    quote_identifier,
)
from feedsvc.datasets.relation import Index, Relation

_RELATIONS_SQL: Final = (files("feedsvc.datasets") / "catalog.sql").read_text()


async def resolve(
    connection: asyncpg.Connection,
    declarations: Mapping[str, Declaration],
    *,
    may_own: bool = False,
) -> tuple[dict[str, Dataset], list[Finding]]:
    """The datasets that can be served, and everything that is wrong with the declarations.

    With `may_own` the session is another one than the service's, which must own none of them.
    """
    datasets: dict[str, Dataset] = {}
    findings: list[Finding] = []
    relations = await _relations(connection, declarations)
    for name, declaration in declarations.items():
        relation = relations.get(name)
        if relation is not None and may_own:
            relation = replace(relation, owned=False)
        found = list(catalog_findings(name, declaration, relation))
        findings.extend(found)
        if relation is not None and not any(f.severity == "error" for f in found):
            datasets[name] = _dataset(name, declaration, relation)
    return datasets, findings


async def _relations(
    connection: asyncpg.Connection, declarations: Mapping[str, Declaration]
) -> dict[str, Relation]:
    wanted: list[tuple[str, tuple[str, str]]] = []
    for name, declaration in declarations.items():
        try:
            wanted.append((name, declaration.relation_parts()))
        except ValueError:
            continue  # _findings says so
    found = await relations(connection, [parts for _, parts in wanted])
    pairs = zip(wanted, found, strict=True)
    return {name: relation for (name, _), relation in pairs if relation is not None}


async def relations(
    connection: asyncpg.Connection, wanted: Sequence[tuple[str, str]]
) -> list[Relation | None]:
    """The relations of these schemas and names, None where there is none of them."""
    schemas, names = ([parts[n] for parts in wanted] for n in (0, 1))
    found: list[Relation | None] = [None] * len(wanted)
    for row in await connection.fetch(_RELATIONS_SQL, schemas, names):
        found[row["ordinal"] - 1] = _relation(dict(row))
    return found


def _relation(row: Mapping[str, Any]) -> Relation:
    plain = json.loads(row["columns"])
    columns = {
        c["name"]: Column(
            name=c["name"],
            type=c["type"],
            nullable=c["nullable"],
            base=c["base"],
            kind=c["kind"],
            # The internal one-byte "char" has a category of its own but is text all the same.
            category="S" if c["base"] == 'pg_catalog."char"' else c["category"],
            labels=tuple(c["labels"]),
            holds_json=c["holds_json"],
            one_text=c["one_text"],
            sent_as=c["sent_as"],
        )
        for c in plain
    }
    indexes = tuple(
        Index(i["unique"], i["sorts"], tuple((c["name"], c["descending"]) for c in i["columns"]))
        for i in json.loads(row["indexes"])
    )
    unreadable = frozenset(c["name"] for c in plain if not c["readable"])
    incomparable = frozenset(c["name"] for c in plain if not c["comparable"])
    by = None if row["partitioned_by_expression"] else tuple(row["partitioned_by"])
    kind, login, owned = row["relkind"], row["login"], row["owned"]
    return Relation(kind, login, owned, columns, unreadable, incomparable, indexes, by)


def _dataset(name: str, declaration: Declaration, relation: Relation) -> Dataset:
    everything = relation.columns
    shown = declaration.columns or tuple(c for c in everything if c not in relation.unreadable)
    orders = declared_orders(declaration, everything)
    return Dataset(
        name=name,
        title=declaration.title or name,
        relation=".".join(quote_identifier(part) for part in declaration.relation_parts()),
        columns={column: everything[column] for column in shown},
        all_columns=everything,
        key=tuple(everything[column] for column in declaration.key),
        orders=orders,
        served=frozenset(o for o in orders.values() if is_served(o, declaration, relation)),
        filters={c: ops or everything[c].ops() for c, ops in declaration.filters.items()},
        tenant=everything[declaration.tenant] if declaration.tenant else None,
        client=everything[declaration.client] if declaration.client else None,
        shared_with_clients=declaration.shared_with_clients,
        roles=declaration.roles,
        pool=declaration.pool,
        source=declaration.source,
        ranges=declaration.ranges,
        replica=declaration.replica,
        cache=declaration.cache,
        fresh=declaration.fresh,
        stale=declaration.stale,
        tags=declaration.templates(name),
        filename=declaration.filename or name,
        watches="watch" in declaration.model_fields_set,
        watched=tuple(declaration.watch),
        key_from=declaration.key_from,
    )
