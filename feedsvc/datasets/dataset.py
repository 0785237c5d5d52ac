"""Datasets: what is declared in TOML, and what it comes to on a real relation.

A `Declaration` is what the operator wrote. `catalog` holds it against the database and makes a
`Dataset` of it, which is all that a request needs to know of a relation.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from feedsvc.core.principal import Role
from feedsvc.datasets import values
from feedsvc.datasets.tags import Template, text_of
from feedsvc.settings.pools import PoolName

Op: TypeAlias = Literal["eq", "ne", "lt", "lte", "gt", "gte", "in", "prefix", "is"]
SourceName: TypeAlias = Literal["auto", "copy", "cursor", "projection"]

KEY_ORDER: Final = "key"
"""The order that every dataset has, and that holds where none is asked for."""

# A parameter of this name is never a filter; `limit.eq=5` is how a column of that name is meant.
RESERVED: Final = frozenset(
    {"columns", "limit", "order", "after", "export", "ticket"}
    | {"format", "frames", "progress", "last_event_id"}
    | {"since", "live", "wait", "seen", "digest"}
    | {"header", "bom", "delimiter", "guard", "decimal", "datetime", "tz", "quote"}
)

_OrderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
_Tag = Annotated[str, AfterValidator(lambda text: Template.parse(text).text)]
_Columns = Annotated[tuple[str, ...], Field(min_length=1)]
_IDENTIFIER: Final = r'(?:"(?:[^"]|"")+"|[^".\s]+)'
_RELATION: Final = re.compile(rf"({_IDENTIFIER})\.({_IDENTIFIER})")
_BARE: Final = re.compile(_IDENTIFIER)


def _is_relation(text: str) -> str:
    relation_parts(text)
    return text


_RelationName = Annotated[str, AfterValidator(_is_relation)]


class Refreshed(BaseModel):
    """The times at which a materialized view is refreshed, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # From one refresh to the next that a change of its tables brings about.
    after: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    # The longest time without a refresh, whether anything has changed or not.
    every: Annotated[float, Field(ge=1, le=604_800)] = 3_600.0
    # A function without parameters that is called in place of REFRESH.
    by: _RelationName | None = None


class Declaration(BaseModel):
    """One dataset as `datasets.toml` has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # schema.name; a name alone is looked for on the login's search path.
    relation: str
    # The primary key where it is left out, without the tenant's column.
    key: _Columns = ()
    title: str = ""
    columns: _Columns | None = None
    orders: dict[_OrderName, _Columns] = {}
    filters: dict[str, tuple[Op, ...]] = {}
    # The column that a token's tenant is held to. A relation without one has `shared = true`.
    tenant: str | None = None
    shared: bool = False
    # The column that a token narrowed to one client is held to. Where there is none, such a
    # token reads nothing, or with `shared_with_clients = true` all that its tenant has.
    client: str | None = None
    shared_with_clients: bool = False
    roles: tuple[Role, ...] = ("member", "admin")
    pool: PoolName = "bulk"
    # Which way an export's rows come: decided for each query, or always the one that is named.
    source: SourceName = "auto"
    # How many connections at most a long export that comes by COPY is read by, all of them in one
    # snapshot, while its pool has nothing else to do.
    ranges: Annotated[int, Field(ge=1, le=4)] = 1
    # Whether exports may be read from a standby, and so be as old as `database.replica_lag` says.
    replica: bool = False
    # Whether first pages are cached at all, how long one is as good as new, and for how long
    # after that it may be shown while a new one is read, or while PostgreSQL is away.
    cache: bool = True
    fresh: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    stale: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    # What a change throws out of the cache.
    tags: tuple[_Tag, ...] = ()
    # Other tables whose changes show in the rows, each with the tags that a change of it fills
    # in; without any, every page of the dataset is thrown out.
    watch: dict[_RelationName, tuple[_Tag, ...]] = {}
    # The tables whose rows have a view's key, each with the view's columns and what they are called
    # there; those that the view takes from the table as they are need not be named.
    key_from: dict[_RelationName, dict[str, str]] = {}
    # The materialized views among what the rows come from, which the service refreshes.
    refreshed: dict[_RelationName, Refreshed] = {}
    # The name of a downloaded file, without its ending; the dataset's own name if left out.
    filename: str | None = None
    # Columns of a view that are never NULL: a view's catalog entry can't tell.
    not_null: tuple[str, ...] = ()

    def relation_parts(self) -> tuple[str, str]:
        """Schema and name as the catalog has them. Raises ValueError where it is not both."""
        return relation_parts(self.relation)

    def refreshed_parts(self) -> list[tuple[str, str]]:
        """Schema and name of each materialized view that is refreshed."""
        return [relation_parts(relation) for relation in self.refreshed]

    def templates(self, name: str) -> tuple[Template, ...]:
        """The tags of a dataset of this name: the name itself, its tenant's, those declared.

        No template can name a column that has a brace in its name.
        """
        declared, tenant = [Template.parse(text) for text in self.tags], self.tenant
        can_be_named = tenant is not None and not {"{", "}"} & {*tenant}
        if can_be_named and all(t.columns != (tenant,) for t in declared):
            declared.insert(0, Template.parse(f"{name}:{{{tenant}}}"))
        return tuple(dict.fromkeys((Template.parse(name), *declared)))


def relation_parts(relation: str) -> tuple[str, str]:
    """Schema and name of what is written schema.name. Raises ValueError where it is not both."""
    parts = _RELATION.fullmatch(relation)
    if parts is None:
        raise ValueError('a relation is written schema.name, or "Schema"."Name"')
    schema, name = (_unquoted(part) for part in parts.groups())
    return schema, name


def named_parts(relation: str) -> tuple[str | None, str]:
    """Schema, None where there is none, and name. Raises ValueError for anything else."""
    if _BARE.fullmatch(relation):
        return None, _unquoted(relation)
    return relation_parts(relation)


def _unquoted(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier


class DatasetsError(Exception):
    """The datasets file can't be read; each line of the message names a key and its mistake."""


_NAME: Final = TypeAdapter(_OrderName)


def declarations(file: Path) -> dict[str, Declaration]:
    """The declarations of a datasets file. Raises DatasetsError."""
    found, mistakes = read(file)
    if mistakes:
        raise DatasetsError("\n".join(mistakes))
    return found


def read(file: Path) -> tuple[dict[str, Declaration], list[str]]:
    """The declarations that can be understood, and a line for each mistake in the others."""
    try:
        plain = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [f"{file}: {error.strerror}"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [f"{file}: {error}"]
    found: dict[str, Declaration] = {}
    mistakes: list[str] = []
    for name, given in plain.items():
        wrong = []
        try:
            _NAME.validate_python(name)
        except ValidationError as error:
            wrong += [_mistake(file, {**item, "loc": (name,)}) for item in error.errors()]
        try:
            found[name] = Declaration.model_validate(given)
        except ValidationError as error:
            for item in error.errors():
                wrong.append(_mistake(file, {**item, "loc": (name, *item["loc"])}))
        if wrong:
            found.pop(name, None)
        mistakes += wrong
    return found, mistakes


def _mistake(file: Path, item: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in item["loc"] if part != "[key]")
    what = "there is no such key" if item["type"] == "extra_forbidden" else item["msg"]
    return f"{file}: {place}: {what}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column and what is known of its type.

    `type` is what people read (`numeric(12,2)`); `base` is the quoted name of its base type, a
    domain's underneath, to cast a parameter to; `kind` is that type's name in `pg_type`;
    `category` its letter in `pg_type.typcategory`, `E` for an enum.
    """

    name: str
    type: str
    nullable: bool
    base: str
    kind: str
    category: str
    labels: tuple[str, ...] = ()
    # Whether JSON as it was typed, white space and all, may be inside: json, or what holds it.
    holds_json: bool = False
    # Whether values that are equal have the same text: not under a collation that says otherwise.
    one_text: bool = True
    # What streams.encoder may call it in PostgreSQL's binary form, None where only SQL can tell.
    sent_as: str | None = None

    @property
    def is_text(self) -> bool:
        """Return whether it is of a string type: text, varchar, citext, …"""
        return self.category == "S"

    def reader(self) -> values.ValueReader | None:
        """The reader of this column's parameters, None where its type can't be one."""
        if self.category == "E":
            return values.label(self.labels)
        if self.is_text:
            return values.TEXT_READERS.get(self.kind, values.text)
        return values.READERS.get(self.kind)

    def admits(self, value: str) -> bool:
        """Return whether the text can be a value of this column."""
        reader = self.reader()
        try:
            return reader is not None and reader(value) is not None
        except ValueError:
            return False

    @property
    def has_one_text(self) -> bool:
        """Return whether equal values are always written alike, so that a tag can hold them."""
        return self.one_text and text_of(self.kind, self.category) is not None

    def canonical(self, value: str) -> str | None:
        """A parameter's value as PostgreSQL writes it, None where equal values differ in text."""
        reading = text_of(self.kind, self.category) if self.one_text else None
        return None if reading is None else reading(value)

    def ops(self) -> tuple[Op, ...]:
        """The operators that make sense for this type."""
        if self.reader() is None:
            return ("is",)
        prefix: tuple[Op, ...] = ("prefix",) if self.is_text and self.kind != "char" else ()
        return ("eq", "ne", "lt", "lte", "gt", "gte", "in", *prefix, "is")


@dataclass(frozen=True, slots=True)
class OrderColumn:
    """One column of an order."""

    column: Column
    descending: bool


@dataclass(frozen=True, slots=True)
class Dataset:
    """A declaration, resolved against the catalog. `relation` is quoted and qualified.

    `tags` holds the dataset's own name first, which every page of it carries. `fresh` and `stale`
    are seconds. `served` are the orders that an index gives, within a tenant.
    """

    name: str
    title: str
    relation: str
    columns: Mapping[str, Column]
    all_columns: Mapping[str, Column]
    key: tuple[Column, ...]
    orders: Mapping[str, tuple[OrderColumn, ...]]
    served: frozenset[tuple[OrderColumn, ...]]
    filters: Mapping[str, tuple[Op, ...]]
    tenant: Column | None
    client: Column | None
    shared_with_clients: bool
    roles: tuple[Role, ...]
    pool: PoolName
    source: SourceName
    ranges: int
    replica: bool
    cache: bool
    fresh: float
    stale: float
    tags: tuple[Template, ...]
    filename: str
    # Whether the file names the tables behind a view or a policy that the catalog can't.
    watches: bool = False
    watched: tuple[str, ...] = ()
    # The tables that a view's key comes from, as the declaration has them.
    key_from: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def pinned(self, tenant: str, client: str | None) -> dict[str, str]:
        """The values that all rows of such a caller share, as PostgreSQL writes them.

        The client only together with the tenant: of a large write the tenants alone are logged.
        """
        held = [(self.tenant, tenant)]
        if client is not None and not self.shared_with_clients:
            held.append((self.client, client))
        pinned: dict[str, str] = {}
        for column, value in held:
            if column is None:
                continue
            text = column.canonical(value)
            if text is None:
                break
            pinned[column.name] = text
        return pinned

    def readable_by(self, role: str, client: str | None) -> bool:
        """Return whether the caller may ask for it; row-level security decides on the rows."""
        if role not in self.roles:
            return False
        return client is None or self.client is not None or self.shared_with_clients

    def admits(self, tenant: str, client: str | None) -> bool:
        """Return whether these can be values of the columns that they are held to."""
        pairs = ((self.tenant, tenant), (self.client, client))
        return all(
            column is None or value is None or column.admits(value) for column, value in pairs
        )


def quote_identifier(name: str) -> str:
    """The name as an SQL identifier (PostgreSQL's documentation, section 4.1.1)."""
    return '"' + name.replace('"', '""') + '"'


def order_columns(
    order: Sequence[str], key: Sequence[str], columns: Mapping[str, Column]
) -> tuple[OrderColumn, ...]:
    """An order with the key as its last part, which follows in the last column's direction.

    Raises KeyError for a column that there isn't.
    """
    parts = [OrderColumn(columns[name.removeprefix("-")], name.startswith("-")) for name in order]
    named = {part.column.name for part in parts}
    direction = parts[-1].descending if parts else False
    parts.extend(OrderColumn(columns[name], direction) for name in key if name not in named)
    return tuple(parts)
