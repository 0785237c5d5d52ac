"""Rights that a dataset's query needs: on its relation, and behind its views and policies."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.core.finding import Finding
from feedsvc.datasets.dataset import Declaration

_SQL: Final = (files("feedsvc.datasets") / "read_rights.sql").read_text()


@dataclass(frozen=True, slots=True)
class Read:
    """A relation that a dataset's query reads, and as which role; names are quoted as SQL has them.

    `is_always_empty` where row-level security lets this reader see no row, whatever there is;
    not `is_filled` is a materialized view without data, which PostgreSQL refuses to read.
    """

    ordinal: int
    is_itself: bool
    name: str
    schema: str
    reader: str
    as_login: bool
    may_read: bool
    may_enter: bool
    is_always_empty: bool
    is_filled: bool


async def relations_read(
    connection: asyncpg.Connection, declarations: Mapping[str, Declaration]
) -> dict[str, list[Read]]:
    """The relations that each dataset reads, its own first. Raises what asyncpg raises."""
    wanted = list(_places(declarations))
    schemas, names = ([parts[n] for _, parts in wanted] for n in (0, 1))
    found: dict[str, list[Read]] = {name: [] for name in declarations}
    for row in await connection.fetch(_SQL, schemas, names):
        read = Read(**row)
        found[wanted[read.ordinal - 1][0]].append(read)
    return found


async def right_findings(
    connection: asyncpg.Connection, declarations: Mapping[str, Declaration]
) -> list[Finding]:
    """Datasets whose queries PostgreSQL would refuse, or would answer with nothing for ever."""
    found = await relations_read(connection, declarations)
    return [
        finding
        for name, reads in found.items()
        for finding in _findings(name, reads, declarations[name])
    ]


def _places(
    declarations: Mapping[str, Declaration],
) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, declaration in declarations.items():
        try:
            yield name, declaration.relation_parts()
        except ValueError:
            continue  # the catalog's findings say so


def _findings(name: str, reads: list[Read], declaration: Declaration) -> Iterator[Finding]:
    place = f"{name}.relation"
    for read in reads:
        if not read.may_enter:
            what = f"the login may not use the schema {read.schema}"
            yield Finding("error", place, what, (usage_grant(read, read.reader),))
        if not read.may_read:
            who = (
                "the login" if read.as_login else f"{read.reader}, the role by which a view reads,"
            )
            behind = "" if read.is_itself else f", which is behind {declaration.relation}"
            what = f"{who} may not read {read.name}{behind}"
            yield Finding("error", place, what, (select_grant(read, read.reader),))
        if not read.is_filled:
            what = f"{read.name} is a materialized view without data, so each request is 503"
            refresh = f"REFRESH MATERIALIZED VIEW {read.name}"
            yield Finding("error", place, what, (refresh,), passes=True)
        # Those of one tenant's rows are looked at by feedsvc.protection.
        if read.is_always_empty and declaration.shared and declaration.tenant is None:
            who = "the login" if read.as_login else read.reader
            what = (
                f"{read.name} has row-level security and no policy by which {who} could read, so "
                "it is always empty: write one, or if all tenants may read all of its rows"
            )
            policy = f"CREATE POLICY readers ON {read.name} FOR SELECT TO {read.reader}"
            yield Finding("error", place, what, (f"{policy} USING (true)",))


def usage_grant(read: Read, role: str) -> str:
    """The statement that lets the role name what is in the relation's schema."""
    return f"GRANT USAGE ON SCHEMA {read.schema} TO {role}"


def select_grant(read: Read, role: str) -> str:
    """The statement that lets the role read the relation."""
    return f"GRANT SELECT ON {read.name} TO {role}"
