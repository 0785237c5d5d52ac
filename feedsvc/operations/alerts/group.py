"""One message of all instances that share a cause, agreed on through PostgreSQL.

The first instance of a group for which an alert fires opens an incident and sends; the last one for
which it is over closes it and sends. The next instance takes over what a
dead one has claimed and not sent.
"""

from collections.abc import Collection
from datetime import timedelta
from importlib.resources import files
from typing import Final, Literal, NamedTuple, TypeAlias

import asyncpg

from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Connection, Pool
from feedsvc.core.json_object import Json

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


class Group:
    """This instance's part in its group. Every method raises Problem."""

    def __init__(self, pool: Pool, name: str, instance: str) -> None:
        self._pool = pool
        self.name = name
        self._instance = instance

    async def judge(self, message: Json) -> Verdict:
        """Decide whether this instance sends the message."""
        alert = str(message["alert"])
        async with write_transaction(self._pool) as connection:
            await connection.execute(_LOCK, f"feedsvc alerts {self.name}")
            if message["event"] == "firing":
                return await self._firing(connection, alert)
            return await self._resolved(connection, alert)

    async def delivered(self, alert: str) -> None:
        """Mark the incident as delivered, so that no instance sends it again."""
        async with write_transaction(self._pool) as connection:
            await connection.execute(_DELIVERED, self.name, alert, self._instance)

    async def renew(self, alerts: Collection[str]) -> None:
        """Renew these alerts, which still fire here."""
        if alerts:
            async with write_transaction(self._pool) as connection:
                await connection.execute(_JOIN, self.name, sorted(alerts), self._instance)

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
