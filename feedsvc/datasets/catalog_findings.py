"""Mistakes of a declaration, as its table or view in PostgreSQL's catalog shows them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from feedsvc.core.finding import Finding
from feedsvc.datasets.dataset import (
    KEY_ORDER,
    RESERVED,
    Column,
    Declaration,
    OrderColumn,
    order_columns,
    quote_identifier,
)
from feedsvc.datasets.relation import Index, Relation
from feedsvc.datasets.secret_columns import secret_looking
from streams import encoder

_PARTITIONED: Final = "p"
_VIEW_KINDS: Final = frozenset("vf")
_UNCONSTRAINED_KINDS: Final = frozenset("vfm")


def declared_orders(
    declaration: Declaration, columns: Mapping[str, Column]
) -> dict[str, tuple[OrderColumn, ...]]:
    """The columns of each order, the key's own order included."""
    named = {KEY_ORDER: (), **declaration.orders}
    return {name: order_columns(order, declaration.key, columns) for name, order in named.items()}


def catalog_findings(
    name: str, declaration: Declaration, relation: Relation | None
) -> Iterator[Finding]:
    """The mistakes of one declaration; those that need its columns once all of them exist."""
    if relation is None:
        yield _relation_missing(name, declaration)
        return
    if relation.owned:
        what = f"the service's login owns {declaration.relation}, or may act as its owner"
        yield Finding("error", f"{name}.relation", what)
    if relation.unreadable >= relation.columns.keys():
        return  # feedsvc.read_rights says so once, and not of each column
    unknown = list(_unknown_columns(name, declaration, relation))
    yield from unknown
    if unknown:
        return
    yield from _comparison_findings(name, declaration, relation)
    yield from _tenant_findings(name, declaration, relation)
    yield from _key_findings(name, declaration, relation)
    yield from _order_findings(name, declaration, relation)
    yield from _filter_findings(name, declaration, relation)
    yield from _secret_findings(name, declaration, relation)
    yield from _source_findings(name, declaration, relation)


def _relation_missing(name: str, declaration: Declaration) -> Finding:
    try:
        declaration.relation_parts()
    except ValueError as error:
        return Finding("error", f"{name}.relation", str(error))
    what = f"there is no table or view {declaration.relation} that the login can see"
    return Finding("error", f"{name}.relation", what)


def _compared(declaration: Declaration) -> list[tuple[str, Iterable[str]]]:
    """The columns that are compared with values, by the key that names them."""
    return [
        ("key", declaration.key),
        ("tenant", [declaration.tenant] if declaration.tenant else ()),
        ("client", [declaration.client] if declaration.client else ()),
        ("filters", declaration.filters),
        *(
            (f"orders.{order}", [part.removeprefix("-") for part in parts])
            for order, parts in declaration.orders.items()
        ),
    ]


def _comparison_findings(
    name: str, declaration: Declaration, relation: Relation
) -> Iterator[Finding]:
    """Columns that PostgreSQL would silently compare as another type."""
    for key, columns in _compared(declaration):
        for column in relation.incomparable.intersection(columns):
            what = (
                f"{column!r} can't be compared: the operators of {relation.columns[column].type} "
                "are not on the login's search_path; set it with ALTER ROLE … SET search_path"
            )
            yield Finding("error", f"{name}.{key}", what)


def _unknown_columns(name: str, declaration: Declaration, relation: Relation) -> Iterator[Finding]:
    mentioned: list[tuple[str, Iterable[str]]] = [
        ("columns", declaration.columns or ()),
        *_compared(declaration),
        ("not_null", declaration.not_null),
    ]
    for key, columns in mentioned:
        seen: set[str] = set()
        for column in columns:
            place = f"{name}.{key}"
            if column not in relation.columns:
                known = ", ".join(relation.columns)
                what = f"{declaration.relation} has no column {column!r}; it has {known}"
                yield Finding("error", place, what)
            elif column in relation.unreadable:
                what = f"the service's login may not read {column!r}"
                grant = f"SELECT ({quote_identifier(column)}) ON {_quoted(declaration)}"
                yield Finding("error", place, what, (f"GRANT {grant} TO {relation.login}",))
            elif column in seen:
                yield Finding("error", place, f"{column!r} is listed twice")
            seen.add(column)


def _tenant_findings(name: str, declaration: Declaration, relation: Relation) -> Iterator[Finding]:
    if declaration.tenant is None and not declaration.shared:
        what = "name the column that holds the tenant, or set `shared = true`"
        yield Finding("error", f"{name}.tenant", what)
    for key, column in (("tenant", declaration.tenant), ("client", declaration.client)):
        if column is not None and relation.columns[column].reader() is None:
            what = f"{column!r} is of a type that can't be compared with a token's claim"
            yield Finding("error", f"{name}.{key}", what)


def _key_findings(name: str, declaration: Declaration, relation: Relation) -> Iterator[Finding]:
    yield from _ordered_findings(name, "key", declaration.key, declaration, relation)
    if relation.kind in _VIEW_KINDS:
        what = f"{declaration.relation} is a view, so nothing proves that the key is unique"
        kind = "these relations are views, so nothing proves that their keys are unique"
        yield Finding("warning", f"{name}.key", what, kind=kind)
    elif not _is_proven(declaration, relation):
        yield _unproven(name, declaration, relation)


def _is_proven(declaration: Declaration, relation: Relation) -> bool:
    """Return whether a unique index proves that the key tells one row of a tenant from another."""
    within = {*declaration.key, *([declaration.tenant] if declaration.tenant else [])}
    return any(i.unique and {c for c, _ in i.columns} <= within for i in relation.indexes)


def _unproven(name: str, declaration: Declaration, relation: Relation) -> Finding:
    """The index that would prove it, with the columns that a partitioned table's has to have."""
    place, listed = f"{name}.key", ", ".join(declaration.key)
    what = f"no unique index of {declaration.relation} proves that ({listed}) is unique"
    if relation.partitioned_by is None:
        what += ", nor can one, for the table is partitioned by an expression: serve a view of it"
        return Finding("error", place, what)
    known = dict.fromkeys([*([declaration.tenant] if declaration.tenant else []), *declaration.key])
    missing = [column for column in relation.partitioned_by if column not in known]
    if missing:
        key = json.dumps([*declaration.key, *missing], ensure_ascii=False)
        what += f"; a unique index needs the partition's column too, so write key = {key}"
    columns = ", ".join(quote_identifier(column) for column in (*known, *missing))
    statement = f"{_concurrently('CREATE UNIQUE INDEX', relation)} ON {_quoted(declaration)}"
    return Finding("error", place, what, (f"{statement} ({columns})",))


def _order_findings(name: str, declaration: Declaration, relation: Relation) -> Iterator[Finding]:
    for order, columns in declaration.orders.items():
        if order == KEY_ORDER:
            yield Finding("error", f"{name}.orders.{order}", "this order is built in")
        bare = [column.removeprefix("-") for column in columns]
        yield from _ordered_findings(name, f"orders.{order}", bare, declaration, relation)
    if relation.kind in _VIEW_KINDS:
        return
    for order, parts in declared_orders(declaration, relation.columns).items():
        if order == KEY_ORDER and not _is_proven(declaration, relation):
            continue  # the index that proves the key serves its order
        if not is_served(parts, declaration, relation):
            statement = _index_statement(declaration, relation, parts)
            what = "no index serves it, so each page sorts anew"
            kind = "no index serves these orders, so each page of them sorts anew"
            yield Finding("warning", f"{name}.orders.{order}", what, (statement,), kind)


def _ordered_findings(
    name: str,
    key: str,
    columns: Sequence[str],
    declaration: Declaration,
    relation: Relation,
) -> Iterator[Finding]:
    for column in columns:
        known = relation.columns[column]
        if known.reader() is None:
            what = f"{column!r} is {known.type}, a type that a token can't hold"
            yield Finding("error", f"{name}.{key}", what)
        vouched = declaration.not_null if relation.kind in _UNCONSTRAINED_KINDS else ()
        if known.nullable and column not in vouched:
            what = f"{column!r} may be NULL, which has no place in an order"
            if relation.kind in _UNCONSTRAINED_KINDS:
                what += "; if the view never gives one, list it in not_null"
            yield Finding("error", f"{name}.{key}", what)


def _filter_findings(name: str, declaration: Declaration, relation: Relation) -> Iterator[Finding]:
    for column, ops in declaration.filters.items():
        place = f"{name}.filters.{column}"
        if column in RESERVED and "eq" in ops:
            what = f"write the filter as `{column}.eq=`, for {column}= is a parameter"
            yield Finding("warning", place, what)
        known = relation.columns[column]
        senseless = [op for op in ops if op not in known.ops()]
        if senseless:
            what = f"{', '.join(senseless)} can't be used on {known.type}"
            yield Finding("error", place, what)


def _secret_findings(name: str, declaration: Declaration, relation: Relation) -> Iterator[Finding]:
    if not declaration.shared:
        return
    shown = declaration.columns or [c for c in relation.columns if c not in relation.unreadable]
    if named := secret_looking(shown):
        listed = ", ".join(map(repr, named))
        what = (
            f"{listed} may be secret, and shared = true shows every tenant: list the others alone"
        )
        yield Finding("warning", f"{name}.columns", what)


def is_served(parts: Sequence[OrderColumn], declaration: Declaration, relation: Relation) -> bool:
    return any(_serves(index, declaration.tenant, parts) for index in relation.indexes)


def _source_findings(name: str, declaration: Declaration, relation: Relation) -> Iterator[Finding]:
    place, forced = f"{name}.source", declaration.source
    if forced in {"copy", "cursor"} and encoder.MISSING is not None:
        what = f"{forced!r} needs the native encoder, which is missing: {encoder.MISSING}"
        yield Finding("warning", place, f"{what}; PostgreSQL itself encodes instead")
    if declaration.ranges > 1 and forced in {"cursor", "projection"}:
        what = f"only what comes by COPY is read by several connections, and {place} is {forced!r}"
        yield Finding("warning", f"{name}.ranges", what)
    if forced == "copy":
        for order, parts in declared_orders(declaration, relation.columns).items():
            if not is_served(parts, declaration, relation):
                what = f"'copy' sorts for each page of the order {order!r}; 'auto' would not"
                yield Finding("warning", place, what)


def _serves(index: Index, tenant: str | None, parts: Sequence[OrderColumn]) -> bool:
    """Return whether a scan of the index, in either direction, gives this order within a tenant."""
    if not index.sorts or (tenant is not None and index.columns[0][0] != tenant):
        return False
    columns = [column for column in index.columns if column[0] != tenant]
    varying = _varying(parts, tenant)
    if len(columns) < len(varying):
        return False
    pairs = list(zip(columns, varying, strict=False))
    names_match = all(name == part.column.name for (name, _), part in pairs)
    turns = {descending != part.descending for (_, descending), part in pairs}
    return names_match and len(turns) <= 1


def _varying(parts: Sequence[OrderColumn], tenant: str | None) -> list[OrderColumn]:
    """The parts of an order that tell one row of a tenant from another."""
    return [part for part in parts if part.column.name != tenant]


def _index_statement(
    declaration: Declaration, relation: Relation, parts: Sequence[OrderColumn]
) -> str:
    varying = _varying(parts, declaration.tenant)
    turn = all(part.descending for part in varying)
    columns = [quote_identifier(declaration.tenant)] if declaration.tenant else []
    columns += [
        quote_identifier(part.column.name) + " DESC" * (part.descending and not turn)
        for part in varying
    ]
    statement = _concurrently("CREATE INDEX", relation)
    return f"{statement} ON {_quoted(declaration)} ({', '.join(columns)})"


def _concurrently(statement: str, relation: Relation) -> str:
    # PostgreSQL can't make a partitioned table's index without a lock on it.
    return statement if relation.kind == _PARTITIONED else f"{statement} CONCURRENTLY"


def _quoted(declaration: Declaration) -> str:
    return ".".join(quote_identifier(part) for part in declaration.relation_parts())
