"""One message of all instances that share a cause, agreed on through PostgreSQL.

The first instance of a group for which an alert fires opens an incident and sends; the last one for
which it is over closes it and sends. The next instance takes over what a
dead one has claimed and not sent.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.resources import files
from typing import Final, Literal, NamedTuple, TypeAlias

import asyncpg

from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.json_object import Json
from feedsvc.operations.alerts.board import Owed

Verdict: TypeAlias = Literal["send", "hold", "drop"]
"""`hold`: ask again later, since another instance is sending, or the alert still fires there."""

_LEASE: Final = timedelta(seconds=180)
"""The time that an instance counts after its last renewal, which comes with every look."""
_MEMBERS, _JOIN, _OPEN, _INCIDENT, _DELIVERED, _CLOSE, _LEAVE = (
    (files("feedsvc.operations.alerts") / f"group_{name}.sql").read_text()
    for name in ("members", "join", "open", "incident", "delivered", "close", "leave")
)
_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended($1, 0))"


class _Incident(NamedTuple):
    sender: str
    delivered: bool


class Due(NamedTuple):
    """The alerts that still fire here, and the facts that are to be recorded late, by alert."""

    firing: Collection[str]
    owed: Mapping[str, Owed]


class Group:
    """This instance's part in its group. Every method raises Problem."""

    def __init__(self, pool: Pool, name: str, instance: str) -> None:
        self._pool = pool
        self.name = name
        self._instance = instance

    async def judge(
        self,
        message: Json,
        owed: Owed | None = None,
        closing: Callable[[], Awaitable[object]] | None = None,
    ) -> Verdict:
        """Decide whether this instance sends the message.

        `owed` is what the group does not know of this alert yet. `closing` is awaited before the
        end of an incident is committed, since the tables do not say which instance is to send it.
        """
        alert = str(message["alert"])
        async with self._locked() as connection:
            if owed is not None:
                await self._settle(connection, alert, owed)
            if message["event"] == "firing":
                return await self._firing(connection, alert)
            verdict = await self._resolved(connection, alert)
            if verdict == "send" and closing is not None:
                await closing()
            return verdict

    async def delivered(self, alert: str) -> None:
        """Mark the incident as delivered, so that no instance sends it again."""
        async with write_transaction(self._pool) as connection:
            await self._settle(connection, alert, "delivered")

    async def renew(self, read: Callable[[], Due]) -> Due:
        """Renew what still fires here, and settle what is owed. Returns what was due.

        `read` is called behind the lock: of an alert that another transaction has ended meanwhile
        this instance would become a member again.
        """
        async with self._locked() as connection:
            due = read()
            for alert, owed in due.owed.items():
                await self._settle(connection, alert, owed)
            if due.firing:
                await connection.execute(_JOIN, self.name, sorted(due.firing), self._instance)
            return due

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[Connection]:
        async with write_transaction(self._pool) as connection:
            await connection.execute(_LOCK, f"feedsvc alerts {self.name}")
            yield connection

    async def _settle(self, connection: Connection, alert: str, owed: Owed) -> None:
        if owed == "over":
            await self._resolved(connection, alert)
        else:
            await connection.execute(_DELIVERED, self.name, alert, self._instance)

    async def _firing(self, connection: Connection, alert: str) -> Verdict:
        members = await self._members(connection, alert)
        incident = await self._incident(connection, alert)
        await connection.execute(_JOIN, self.name, [alert], self._instance)
        # One without any member was left open by instances that are gone.
        if incident is None or not members or _is_left(incident, members):
            await connection.execute(_OPEN, self.name, alert, self._instance)
            return "send"
        if incident.delivered:
            return "drop"
        return "send" if incident.sender == self._instance else "hold"

    async def _resolved(self, connection: Connection, alert: str) -> Verdict:
        await connection.execute(_LEAVE, self.name, alert, self._instance)
        if await self._members(connection, alert):
            return "hold"
        was_known = await connection.fetchval(_CLOSE, self.name, alert)
        return "send" if was_known else "drop"

    async def _members(self, connection: Connection, alert: str) -> set[str]:
        rows = await connection.fetch(_MEMBERS, self.name, alert, _LEASE)
        return {row["instance"] for row in rows}

    async def _incident(self, connection: Connection, alert: str) -> _Incident | None:
        row: asyncpg.Record | None = await connection.fetchrow(_INCIDENT, self.name, alert)
        return None if row is None else _Incident(row["sender"], row["delivered"])


def _is_left(incident: _Incident, members: Collection[str]) -> bool:
    """Return whether its sender is gone before it was delivered."""
    return not incident.delivered and incident.sender not in members
