"""Upkeep of the change log: seals, trims and new windows, by `feedsvc.log_maintain`.

Any worker of any instance may do it, and PostgreSQL lets one session at a time. The workers of an
instance take turns, each on a session that lasts for one: no pool, start or stop waits for it.
"""

import asyncio
import json
import logging
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import asyncpg

from feedsvc.backends.postgres.own_schema import write_session
from feedsvc.backends.postgres.servers import Servers
from feedsvc.changes.log_turns import UpkeepTurn, UpkeepTurns
from feedsvc.core.events import LogMaintained, Observers
from feedsvc.core.logs import redacted
from feedsvc.settings import Changes

logger = logging.getLogger(__name__)

RIGHTS: Final = (files("feedsvc.changes") / "log_rights.sql").read_text()
"""One row, `may`; none where the log is not set up."""
NOT_SET_UP: Final = (
    "the change log is not set up in this database: run `feedsvc migrate up` with an owner's login"
)
NO_RIGHT: Final = (
    "the service's login may not look after the change log: GRANT feedsvc_service to it"
)
_MAINTAIN: Final = (files("feedsvc.changes") / "log_maintain.sql").read_text()
_SHORTEST: Final = 1.0  # seconds
_LONGEST: Final = 60.0
_TURNS_A_WINDOW: Final = 6
_WINDOWS: Final = 6  # a retention, as log_maintain has it
_MOST_WINDOWS: Final = 8  # of bytes, as it has them
_DEADLINE: Final = 10.0  # seconds
_SPREAD: Final = 1.0  # seconds by which workers look one after the other


class Upkept(NamedTuple):
    """The outcome of one turn; `is_read`: the oldest window was read just then."""

    bytes: int | None
    trimmed: int
    is_read: bool
    epoch: str


def longest_pause(retention: float) -> float:
    """The seconds between two turns while the log is quiet: a sixth of a window, 1 to 60."""
    return min(max(retention / _WINDOWS / _TURNS_A_WINDOW, _SHORTEST), _LONGEST)


def pause_after(done: Upkept, last: UpkeepTurn, now: float, settings: Changes) -> float:
    """The seconds until the next turn: fewer where a trim was missed, or the log grows quickly."""
    longest = longest_pause(settings.retention)
    if done.is_read:
        return _SHORTEST
    if done.bytes is None or last.bytes is None or now <= last.at:
        return longest
    growth = (done.bytes - last.bytes) / (now - last.at)
    share = settings.max_bytes / _MOST_WINDOWS / _TURNS_A_WINDOW
    return longest if growth * longest <= share else max(share / growth, _SHORTEST)


class LogUpkeep:
    """One worker's part in it. `folder` is shared by the workers of an instance."""

    def __init__(
        self, servers: Servers, settings: Changes, observers: Observers, folder: Path | None
    ) -> None:
        self._servers = servers
        self._settings = settings
        self._observers = observers
        self.turns = UpkeepTurns(folder)

    async def run(self) -> NoReturn:
        """Take turns until cancelled."""
        while True:
            await self.turns.until_due(_SPREAD)
            await self.look()

    async def look(self) -> None:
        """Take the turn, if it is due. Raises nothing but a cancellation."""
        turns, last = self.turns, self.turns.last()
        now = turns.clock()
        if last.due > now:
            return
        turn = replace(last, due=now + longest_pause(self._settings.retention))
        turns.note(turn)
        try:
            async with asyncio.timeout(_DEADLINE):
                done = await self._maintain()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            done = f"the log is not looked after: {redacted(error)}"
        if isinstance(done, str):
            turn.fault = done
        else:
            self._observe(done, last)
            due = now + pause_after(done, last, now, self._settings)
            turn = UpkeepTurn(due, now, done.bytes or last.bytes, done.epoch)
        turns.note(turn)
        _log_turn(turn.fault, last.fault)

    async def _maintain(self) -> Upkept | str:
        """Maintain the log; why it can't be. Raises asyncpg's errors.

        One call trims one window: after an hour without upkeep there may be several to trim.
        """
        trimmed, most, row = 0, self._settings.max_bytes, None
        async with write_session(self._servers, "feedsvc log") as session:
            rights = await session.row(RIGHTS)
            if rights is None or not rights["may"]:
                return NOT_SET_UP if rights is None else NO_RIGHT
            for _ in range(_MOST_WINDOWS):
                row = await session.row(_MAINTAIN, self._settings.retention, most)
                assert row is not None  # noqa: S101 - a query without FROM has one
                done: dict[str, Any] = json.loads(row["done"])
                if done.get("trimmed") is None:
                    break
                trimmed += 1
        assert row is not None  # noqa: S101 - as above
        # A reader of the oldest window is soon gone; a writer may have been there for hours.
        is_read = str(done["blocked"]).startswith("the oldest window")
        return Upkept(done.get("bytes"), trimmed, is_read, row["epoch"])

    def _observe(self, done: Upkept, last: UpkeepTurn) -> None:
        is_new = last.epoch not in (None, done.epoch)
        if is_new:
            what = "changes: the log has a new epoch: PostgreSQL crashed, was promoted or restored"
            logger.warning(what)
        self._observers.publish(LogMaintained(done.trimmed, is_new))


def _log_turn(fault: str | None, before: str | None) -> None:
    """Log a fault once, and its end."""
    if fault is not None and fault != before:
        logger.warning("changes: %s", fault)
    elif fault is None and before is not None:
        logger.info("changes: the log is looked after again")
