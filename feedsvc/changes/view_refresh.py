"""Refreshes of materialized views, beside the requests: those that are due, one at a time of all.

Any worker of any instance may do it. `feedsvc.refresh_due` puts a try on record before it begins,
and `feedsvc.refresh` lets one session refresh; so workers take turns for the sake of queries alone.
Each turn has a session of its own, apart from the change log's: one that is locked out, or hangs,
holds up nothing else.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import asyncpg

from feedsvc.backends.postgres.own_schema import WriteSession, write_session
from feedsvc.backends.postgres.servers import Servers
from feedsvc.changes.log_turns import UpkeepTurn, UpkeepTurns
from feedsvc.changes.refreshes import RefreshedView
from feedsvc.core.logs import redacted
from feedsvc.settings import Changes

logger = logging.getLogger(__name__)

_FILE: Final = "view-refresh.turn"
_SHORTEST: Final = 1.0  # seconds
_LONGEST: Final = 15.0
_TURNS: Final = 4  # within the shortest `after`
_DEADLINE: Final = 10.0  # seconds for what is no refresh
_PAUSE: Final = 1.0  # seconds between two tries while another session refreshes
_SPREAD: Final = 0.5  # seconds by which workers look one after the other
_FAULTS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError)
_LOCK_TIMEOUT: Final = "5s"  # longer than an autovacuum takes to give way
_DUE: Final = "SELECT feedsvc.refresh_due() AS relation"
_REFRESH: Final = "SELECT feedsvc.refresh($1) AS is_done"
_FAILED: Final = "SELECT feedsvc.refresh_failed($1, $2)"


class ViewRefresh:
    """One worker's part in it. `folder` is shared by the workers of an instance."""

    def __init__(
        self,
        servers: Servers,
        views: Sequence[RefreshedView],
        settings: Changes,
        folder: Path | None,
    ) -> None:
        self._servers = servers
        self._timeout = settings.refresh_timeout
        self.pause = _pause(views)
        """Seconds between two turns."""
        self.turns = UpkeepTurns(folder, file=_FILE)

    async def run(self) -> NoReturn:
        """Take turns until cancelled."""
        while True:
            await self.turns.until_due(_SPREAD)
            await self.look()

    async def look(self) -> None:
        """Refresh what is due, if it is this worker's turn. Raises nothing but a cancellation."""
        turns, last = self.turns, self.turns.last()
        now = turns.clock()
        if last.due > now:
            return
        turn = UpkeepTurn(due=now + self.pause, at=now, fault=last.fault)
        turns.note(turn)
        try:
            fault = await self._refresh_due()
        except _FAULTS as error:
            fault = f"views are not refreshed: {redacted(error)}"
        if fault is not None and fault != last.fault:
            logger.warning("changes: %s", fault)
        elif fault is None and last.fault is not None:
            logger.info("changes: views are refreshed again")
        turn.fault = fault
        turns.note(turn)

    async def _refresh_due(self) -> str | None:
        """Refresh all views that are due; the last fault. Raises asyncpg's errors."""
        fault = None
        given = {
            "default_transaction_isolation": "read committed",
            "lock_timeout": _LOCK_TIMEOUT,
            "statement_timeout": f"{self._timeout * 1_000:.0f}",
        }
        async with write_session(self._servers, "feedsvc refresh", given) as session:
            await _end_with_its_client(session)
            while (relation := await _due(session)) is not None:
                if (failure := await self._failure(session, relation)) is not None:
                    fault = failure
        return fault

    async def _failure(self, session: WriteSession, relation: str) -> str | None:
        """Refresh one view, and record why that failed; the sentence of it."""
        try:
            if await self._is_refreshed(session, relation):
                return None
            why = "another session was refreshing views all the time"
        except asyncpg.PostgresError as error:
            why = redacted(error)
        async with asyncio.timeout(_DEADLINE):
            await session.row(_FAILED, relation, why)
        return f"{relation} could not be refreshed: {why}"

    async def _is_refreshed(self, session: WriteSession, relation: str) -> bool:
        """Refresh one view as soon as no other session refreshes one; false if that never was.

        It counts as tried since it was found due, so it would be late if it were left. The wait
        takes as long as one refresh may at most, and nothing of the time of this one. Meanwhile
        the session holds no lock, and other workers' turns go on.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout + _DEADLINE
        while True:
            async with asyncio.timeout(self._timeout + _DEADLINE):
                row = await session.row(_REFRESH, relation)
            if row is not None and row["is_done"]:
                return True
            if loop.time() >= until:
                return False
            await asyncio.sleep(_PAUSE)


def _pause(views: Sequence[RefreshedView]) -> float:
    shortest = min((view.after for view in views), default=_LONGEST)
    return min(max(shortest / _TURNS, _SHORTEST), _LONGEST)


async def _due(session: WriteSession) -> str | None:
    async with asyncio.timeout(_DEADLINE):
        row = await session.row(_DUE)
    assert row is not None  # noqa: S101 - a query without FROM has one
    relation: str | None = row["relation"]
    return relation


async def _end_with_its_client(session: WriteSession) -> None:
    """Let a refresh end within seconds of this process, where the server's system can tell.

    A pooler ends what it runs for a client that is gone.
    """
    if session.is_pooled:
        return
    try:
        async with asyncio.timeout(_DEADLINE):
            await session.row("SELECT set_config('client_connection_check_interval', '2s', false)")
    except asyncpg.PostgresError:
        return
