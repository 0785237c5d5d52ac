"""The lives of a database, and which of them may be read.

A promotion, and a restore, begins a new timeline. A server that is still on a lower one than was
seen is an old primary that came back: what it holds is out of date, and its transaction numbers
say nothing of the new one's. Workers of one service share what they saw in a small file, so that
one that begins while the new primary is away does not believe the old one.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from feedsvc.core.shared_file import write_whole

logger = logging.getLogger(__name__)

_FILE: Final = "lineage.json"
_FORGOTTEN: Final = 3.0  # seconds without a sign of one cluster after which another may follow it


class Origin(NamedTuple):
    """A cluster, a database in it, and one of its lives: the timeline, None of a standby."""

    cluster: int
    database: int
    timeline: int | None

    def __str__(self) -> str:
        """The same text as cache/origin.sql makes."""
        place = f"{self.cluster}/{self.database}"
        return place if self.timeline is None else f"{place}/{self.timeline:08X}"


class OldPrimaryError(ConnectionError):
    """The server is not the primary that was seen before, but an older one, or another database."""


class Lineage:
    """The newest life that was seen; `folder` is the workers' own, where they share it."""

    def __init__(
        self, folder: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.newest: Origin | None = None
        self._seen_at = -float("inf")
        self._file = None if folder is None else folder / _FILE
        self._clock = clock

    def check(self, origin: Origin) -> bool:
        """Return whether the life is newer than all before. Raises OldPrimaryError."""
        newest = self.newest
        if origin.timeline is None:
            return False
        if newest is not None and self._is_past(origin, newest):
            if origin.cluster != newest.cluster:
                raise OldPrimaryError("it is another database's server than the one in use")
            raise OldPrimaryError(
                f"it is an old primary, on timeline {origin.timeline}, while timeline"
                f" {newest.timeline} was seen"
            )
        is_newer = newest is None or origin[::2] != newest[::2]
        self.newest, self._seen_at = origin, self._clock()
        if is_newer:
            logger.info("database: timeline %s of cluster %s", origin.timeline, origin.cluster)
            self.catch_up()
            if self.newest == origin:
                self._share(origin)
        return is_newer

    def is_past(self, origin: Origin) -> bool:
        """Return whether the life is over, so that nothing may be read of it."""
        return self.newest is not None and self._is_past(origin, self.newest)

    def _is_past(self, origin: Origin, newest: Origin) -> bool:
        if origin.timeline is None:
            return False
        if origin.cluster != newest.cluster:
            return self._clock() - self._seen_at <= _FORGOTTEN
        return origin.timeline < (newest.timeline or 0)

    def catch_up(self) -> None:
        """Take over another worker's observation."""
        if self._file is None:
            return
        try:
            seen = Origin(*json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return  # nothing was seen yet
        newest = self.newest
        if newest is None or _is_newer_life(seen, newest):
            self.newest = seen

    def _share(self, origin: Origin) -> None:
        if self._file is None:
            return
        try:
            write_whole(self._file, json.dumps(origin).encode())
        except OSError as error:
            logger.warning("other workers do not learn of the timeline: %s", error)


def _is_newer_life(one: Origin, other: Origin) -> bool:
    return one.cluster == other.cluster and (one.timeline or 0) > (other.timeline or 0)
