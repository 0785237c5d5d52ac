"""The change log's last known state, for the check that looks at it and for metrics."""

import asyncio
from typing import Final

from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.changes.log_state import LogState, log_state
from feedsvc.core.process_stats import ChangeLogState
from feedsvc.settings import Changes

_DEADLINE: Final = 0.7  # seconds


class LogWatch:
    """Looks at the log on a connection of the pool for writing."""

    def __init__(self, pools: PoolSet, settings: Changes) -> None:
        self.last: ChangeLogState | None = None
        """The state at the last look; None before the first, and where there is no log."""
        self._pools = pools
        self._settings = settings

    async def look(self) -> LogState | str:
        """The state; a sentence where there is none. Raises as a lease and asyncpg do."""
        async with asyncio.timeout(_DEADLINE), self._pools["write"].lease() as connection:
            state = await log_state(connection, self._settings.retention)
        if isinstance(state, str):
            self.last = None
            return state
        before = 0 if self.last is None else self.last.bytes
        size = before if state.bytes is None else state.bytes
        blocked = (state.blocker.age or 0.0) if state.blocker else 0.0
        self.last = ChangeLogState(size, state.oldest, state.unsealed, blocked)
        return state
