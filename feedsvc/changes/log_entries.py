"""Entries of the change log, as its reader passes them on."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from feedsvc.backends.postgres.snapshot import Snapshot


class LogEntry(NamedTuple):
    """A row of the log without its keys; `op` as docs/changes.md lists them."""

    xid: int
    scope: int
    feed: int
    op: str
    tags: bytes


class LogSubscriber(Protocol):
    """A recipient of the log's entries. No method may wait."""

    def on_start(self) -> None:
        """Follow from the next `on_read` on: what its snapshot sees may have been missed."""
        ...

    def on_changes(self, entries: Sequence[LogEntry]) -> None:
        """Record what was committed."""
        ...

    def on_read(self, snapshot: Snapshot) -> None:
        """Count as passed on all that this snapshot sees."""
        ...

    def on_failure(self) -> None:
        """Count nothing as read until the next `on_read`."""
        ...
