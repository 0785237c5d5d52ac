"""Tables and views as PostgreSQL's catalog describes them."""

from collections.abc import Mapping
from dataclasses import dataclass

from feedsvc.datasets.dataset import Column


@dataclass(frozen=True, slots=True)
class Index:
    """A btree index over plain columns, each with whether it descends.

    `sorts` is false where its collations, operators or place of NULLs are not those of ORDER BY.
    """

    unique: bool
    sorts: bool
    columns: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view as the catalog has it. `kind` is `pg_class.relkind`.

    `login` is whose rights these are, quoted. `partitioned_by` are the columns that decide into
    which partition a row goes, at any depth; None where an expression does.
    """

    kind: str
    login: str
    owned: bool
    columns: Mapping[str, Column]
    unreadable: frozenset[str]
    incomparable: frozenset[str]
    indexes: tuple[Index, ...]
    partitioned_by: tuple[str, ...] | None
