"""The state of the change log in PostgreSQL: its size, its windows, and what holds them up."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.backends.postgres.pool import AnyConnection
from feedsvc.changes.log_upkeep import NO_RIGHT, NOT_SET_UP, RIGHTS

_STATE: Final = (files("feedsvc.changes") / "log_state.sql").read_text()


@dataclass(frozen=True, slots=True)
class LogHolder:
    """A transaction with a lock on the log: of a session, or a prepared one (`gid`).

    `age` is in seconds, None where it is hidden from this login; `mode` is the lock's.
    """

    pid: int | None
    name: str
    gid: str | None
    age: float | None
    mode: str | None = None

    def __str__(self) -> str:
        for_so_long = "" if self.age is None else f" of {self.age:.0f} s"
        if self.gid is not None:
            return f"the prepared transaction {_literal(self.gid)}{for_so_long}"
        named = f" ({self.name})" if self.name else ""
        return f"a transaction{for_so_long} of session {self.pid}{named}"

    @property
    def remedy(self) -> str:
        """SQL that ends it."""
        if self.gid is not None:
            return f"COMMIT PREPARED or ROLLBACK PREPARED {_literal(self.gid)}"
        return f"SELECT pg_terminate_backend({self.pid})"


@dataclass(frozen=True, slots=True)
class LogState:
    """Sizes are bytes, ages seconds.

    `bytes` is None while a partition is locked, `overdue` is how long ago the oldest window should
    have been trimmed, negative before that. `blocker` keeps a window that is over from being sealed
    or trimmed, `locker` keeps writers waiting.
    """

    bytes: int | None
    windows: int
    unsealed: int
    oldest: float
    overdue: float
    blocker: LogHolder | None
    locker: LogHolder | None


async def log_state(connection: AnyConnection, retention: float) -> LogState | str:
    """The state of the log; a sentence where it can't be seen. Raises what asyncpg raises."""
    may = await connection.fetchval(RIGHTS)
    if not may:
        return NOT_SET_UP if may is None else NO_RIGHT
    row = await connection.fetchrow(_STATE, retention)
    assert row is not None  # noqa: S101 - a query without FROM has one
    return LogState(
        row["bytes"], row["windows"], row["unsealed"], row["oldest"] or 0.0,
        row["overdue"] if row["overdue"] is not None else -retention,
        _holder(row, "blocker"), _holder(row, "locker"),
    )  # fmt: skip


def _holder(row: asyncpg.Record, which: str) -> LogHolder | None:
    pid, name, gid, age = (row[f"{which}_{part}"] for part in ("pid", "name", "gid", "age"))
    if pid is None and gid is None:
        return None
    mode = row["locker_mode"] if which == "locker" else None
    return LogHolder(pid, name or "", gid, age, mode)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
