"""The options of an export."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from feedsvc.backends.postgres.pool import Connection
from feedsvc.backends.postgres.snapshot import Snapshot
from feedsvc.core.principal import Principal
from feedsvc.feeds.page import Page
from feedsvc.feeds.page_collector import PageCollector
from feedsvc.feeds.query import FeedQuery
from feedsvc.feeds.sources import choice
from feedsvc.feeds.sources.source import Source
from feedsvc.feeds.transaction import Moment

Verify: TypeAlias = Callable[[Page, Snapshot], Coroutine[Any, Any, bool]]
"""True if a page is as this later snapshot would have it."""
MakeCursor: TypeAlias = Callable[[Connection, Moment], Awaitable[str | None]]
"""A cursor of the state that a transaction reads, None where changes can't be followed."""
SourceFactory: TypeAlias = Callable[[FeedQuery, Principal], Source]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of an export.

    `chunk_bytes`: the size of a chunk of rows. `first_page`: a page whose rows are sent already;
    `verify`: whether it is what the export's snapshot would have given. `on_first_page`:
    collects the rows that the export itself begins with. `source_factory`: makes the source of the
    rows. `count_timeout`: the seconds for counting the rows, where the format shows how many there
    are; at 0 they are not counted. `cursor`: makes a cursor of the first snapshot.
    """

    chunk_bytes: int
    first_page: Page | None = None
    verify: Verify | None = None
    on_first_page: PageCollector | None = None
    source_factory: SourceFactory = choice.candidate
    count_timeout: float = 0.0
    cursor: MakeCursor | None = None
