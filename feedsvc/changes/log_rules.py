"""The rules by which a table's rows are logged: feeds with numbers, columns with their types."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from feedsvc.datasets.dataset import Declaration, relation_parts
from feedsvc.datasets.tags import Template, text_of

_RESERVED_SCOPES: Final = (0, 1)


@dataclass(frozen=True, slots=True)
class LogColumn:
    """A table's column: its base type's name and category in `pg_type`.

    `one_text` is false under a collation by which equal texts may differ.
    """

    name: str
    kind: str
    category: str
    one_text: bool
    nullable: bool

    @property
    def has_one_text(self) -> bool:
        """Return whether equal values are always written alike."""
        return self.one_text and text_of(self.kind, self.category) is not None


def columns_of(catalog: str) -> dict[str, LogColumn]:
    """The columns of a table, from the JSON object of `triggers.sql`."""
    return {
        name: LogColumn(name, c["kind"], c["category"], c["one_text"], c["nullable"])
        for name, c in json.loads(catalog).items()
    }


@dataclass(frozen=True, slots=True)
class LogFeed:
    """A dataset in the log: the columns that its log rows are made of.

    `tenant` is None where every reader reads all log rows; `old` are the columns that tell who
    could see a former row; `published` those whose change is logged.
    """

    dataset: str
    relation: tuple[str, str]
    key: tuple[str, ...]
    tenant: str | None
    narrow: tuple[Template, ...]
    old: tuple[str, ...]
    published: tuple[str, ...]
    place: int | None = None
    whole: "LogFeed | None" = None
    is_wide: bool = False

    @property
    def number(self) -> int:
        """The number in `log_feeds.feed`, of all that a log row's meaning depends on."""
        if self.whole is not None:
            return self.whole.number
        meaning = (self.dataset, self.relation, self.key, self.tenant, self.narrow, self.old)
        digest = hashlib.sha256(repr(meaning).encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1 or 1


@dataclass(frozen=True, slots=True)
class LogRule:
    """A table's log rows for one feed: of its `own` rows with their keys, else of `scopes`.

    Each of `scopes` is the template of a tenant's scope, or of a tag. `everyone` is the feed's.
    """

    feed: LogFeed
    everyone: int
    own: bool
    scopes: tuple[tuple[Template, bool], ...] = ()


def feed_of(
    name: str,
    declaration: Declaration,
    columns: Mapping[str, LogColumn],
    policy_columns: Sequence[str],
) -> LogFeed:
    """The feed of a declared dataset that is complete, over a table or view of these columns."""
    tenant = columns.get(declaration.tenant or "")
    is_split = tenant is not None and tenant.has_one_text
    templates = [t for t in declaration.templates(name) if set(t.columns) <= columns.keys()]
    held_to = {declaration.tenant} - {None}
    old = dict.fromkeys(policy_columns)
    if declaration.client is not None and not declaration.shared_with_clients:
        old[declaration.client] = None
    known = {*declaration.key, *(held_to if is_split else ())}
    if not is_split and tenant is not None:
        old[tenant.name] = None
    return LogFeed(
        dataset=name,
        relation=declaration.relation_parts(),
        key=declaration.key,
        tenant=declaration.tenant if is_split else None,
        narrow=tuple(t for t in templates if not set(t.columns) <= held_to),
        old=tuple(column for column in old if column in columns and column not in known),
        published=_published(declaration, columns, templates, policy_columns),
    )


def _published(
    declaration: Declaration,
    columns: Mapping[str, LogColumn],
    templates: Iterable[Template],
    policy_columns: Iterable[str],
) -> tuple[str, ...]:
    """The columns whose change may change an answer, in the table's order."""
    if declaration.columns is None:
        return tuple(columns)
    named = {
        *declaration.columns, *declaration.key, *declaration.filters, *policy_columns,
        *(c.removeprefix("-") for order in declaration.orders.values() for c in order),
        *(c for template in templates for c in template.columns),
        declaration.tenant, declaration.client,
    }  # fmt: skip
    return tuple(column for column in columns if column in named)


def watched_scopes(
    name: str, declaration: Declaration, origin: str, columns: Mapping[str, LogColumn]
) -> tuple[tuple[Template, bool], ...]:
    """The templates that a table behind a dataset fills in, each with whether it is the tenant's.

    None where it does not say, or can't: all of the feed is concerned then.
    """
    watched = {".".join(relation_parts(w)): tags for w, tags in declaration.watch.items()}
    templates = tuple(map(Template.parse, watched.get(origin, ())))
    if not all(c in columns and columns[c].has_one_text for t in templates for c in t.columns):
        return ()
    tenants = [
        [text for text, _ in t.parts()]
        for t in declaration.templates(name)
        if t.columns == (declaration.tenant,)
    ]
    if any(not t.columns for t in templates):
        return ()
    return tuple(
        (t, len(t.columns) == 1 and [text for text, _ in t.parts()] in tenants) for t in templates
    )


class Seeds:
    """The numbers `everyone` of feeds: those in the database, and new ones at random."""

    def __init__(self, known: Mapping[int, int], state: str = "") -> None:
        self._known = dict(known)
        self.entered = frozenset(known)
        """The feeds that the database has."""
        self.state = state
        """From where on each of them is logged, for comparison."""

    @classmethod
    async def read(cls, connection: asyncpg.Connection) -> "Seeds | None":
        """Those of this database, None where it has no log. Raises what asyncpg raises."""
        if await connection.fetchval("SELECT to_regclass('feedsvc.log_feeds') IS NULL"):
            return None
        rows = await connection.fetch(
            "SELECT feed, everyone, since::text AS since FROM feedsvc.log_feeds ORDER BY feed"
        )
        return cls({row["feed"]: row["everyone"] for row in rows}, repr([tuple(r) for r in rows]))

    def of(self, feed: LogFeed) -> int:
        """The scope of what concerns all readers of the feed."""
        while (found := self._known.get(feed.number)) is None or found in _RESERVED_SCOPES:
            self._known[feed.number] = secrets.randbits(64) - (1 << 63)
        return found
