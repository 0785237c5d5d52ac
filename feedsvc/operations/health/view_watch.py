"""The last known state of the materialized views that are refreshed, for health and metrics."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final, NamedTuple

from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.changes.refreshes import RefreshedView
from feedsvc.core.process_stats import ViewState

_SQL: Final = (files("feedsvc.operations.health") / "views.sql").read_text()
_DEADLINE: Final = 0.7  # seconds


class EnteredView(NamedTuple):
    """A view as `feedsvc.refreshes` has it. Ages are seconds, None before the first time.

    `failures` counts the tries since the last refresh, the one under way too; `every` is the
    longest time without a refresh.
    """

    relation: str
    age: float | None
    seconds: float | None
    tried: float | None
    failures: int
    fault: str | None
    every: float


class ViewWatch:
    """Looks at the views on a connection of the pool for writing; never if there are none."""

    def __init__(self, pools: PoolSet, views: Sequence[RefreshedView]) -> None:
        self.names = tuple(view.relation for view in views)
        self._pools = pools
        self._seen: Sequence[EnteredView] = ()
        self._looked_at = 0.0
        self._made_at = time.monotonic()

    @property
    def watched_for(self) -> float:
        """Seconds since this worker began to look at them, and to refresh them."""
        return time.monotonic() - self._made_at

    async def look(self) -> Sequence[EnteredView]:
        """The views that are entered. Raises as a lease and asyncpg do."""
        async with asyncio.timeout(_DEADLINE), self._pools["write"].lease() as connection:
            rows = await connection.fetch(_SQL, list(self.names))
        self._seen = [EnteredView(*row) for row in rows]
        self._looked_at = time.monotonic()
        return self._seen

    def states(self) -> Mapping[str, ViewState]:
        """The state of each view that has been refreshed, by its name, as of the last look."""
        since = time.monotonic() - self._looked_at
        return {
            view.relation: ViewState(view.age + since, view.seconds or 0.0, view.failures)
            for view in self._seen
            if view.age is not None
        }
