"""Tickets: what a browser sends instead of a token where it can't send a header.

A ticket is good once, for half a minute, for one path. PostgreSQL keeps its digest alone, so
that any worker honours it and nobody who reads the table can use it.
"""

import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Final

import asyncpg

from feedsvc.auth.principal import Principal
from feedsvc.errors import Unauthorized, Unavailable
from feedsvc.faults import as_problems
from feedsvc.pools import Connection, Pool

LIFETIME: Final = 30
"""Seconds that a ticket is good for."""

_LONGEST: Final = 128
_TAKE: Final = (files("feedsvc") / "tickets.sql").read_text()
_KEEP: Final = (
    "insert into feedsvc.tickets (id, path, principal, expires_at) "
    "values ($1, $2, $3::text::jsonb, now() + make_interval(secs => $4))"
)
_FORGET: Final = "delete from feedsvc.tickets where expires_at < now()"


class Tickets:
    """Issues tickets and takes them back."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def issue(self, path: str, principal: Principal) -> str:
        """A ticket for this path in the principal's name. Raises Problem."""
        ticket = secrets.token_urlsafe(32)
        who = json.dumps(
            {
                "tenant": principal.tenant,
                "role": principal.role,
                "client": principal.client,
                "expires_at": principal.expires_at,
            }
        )
        async with self._writing() as connection:
            await connection.execute(_FORGET)
            await connection.execute(_KEEP, _digest(ticket), path, who, float(LIFETIME))
        return ticket

    async def redeem(self, ticket: str, path: str) -> Principal:
        """The principal in whose name the ticket was issued. Raises Unauthorized, and Problem."""
        if not ticket or len(ticket) > _LONGEST:
            raise Unauthorized
        async with self._writing() as connection:
            kept = await connection.fetchval(_TAKE, _digest(ticket), path)
        if kept is None:
            raise Unauthorized
        return Principal(**json.loads(kept))

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Connection]:
        with as_problems():
            try:
                async with self._pool.lease() as connection, connection.transaction():
                    await connection.execute("SET TRANSACTION READ WRITE")
                    yield connection
            except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
                raise Unavailable("Tickets are not set up in this database.", 60) from error


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).digest()
