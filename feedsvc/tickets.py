"""Tickets: what a browser sends instead of a token where it can't send a header.

A ticket is good once, for half a minute, for one path. It is kept in Redis, or in PostgreSQL where
there is none or it is away, so that any worker honours it; its first letter says where. What is
kept is its digest alone, so that nobody who can read there can use it.
"""

import hashlib
import json
import secrets
from importlib.resources import files
from typing import Final

from feedsvc.auth.principal import Principal
from feedsvc.errors import Unauthorized, Unavailable
from feedsvc.own_tables import writing
from feedsvc.pools import Pool
from feedsvc.redis_link import RedisAwayError, RedisLink

LIFETIME: Final = 30
"""Seconds that a ticket is good for."""

_LONGEST: Final = 128
_NO_TICKET: Final = "its ticket is none for this path, or was used, or is over"
_IN_REDIS, _IN_POSTGRES = "r", "p"
_TAKE: Final = (files("feedsvc") / "tickets.sql").read_text()
_KEEP: Final = (
    "insert into feedsvc.tickets (id, path, principal, expires_at) "
    "values ($1, $2, $3::text::jsonb, now() + make_interval(secs => $4))"
)
_FORGET: Final = "delete from feedsvc.tickets where expires_at < now()"


class Tickets:
    """Issues tickets and takes them back."""

    def __init__(self, pool: Pool, link: RedisLink | None) -> None:
        self._pool = pool
        self._link = link

    async def issue(self, path: str, principal: Principal) -> str:
        """A ticket for this path in the principal's name. Raises Problem."""
        if self._link is not None:
            try:
                return await self._issue_in_redis(self._link, path, principal)
            except RedisAwayError:
                # A new one: Redis may have kept the other after all, and each is good once.
                pass
        return await self._issue_in_postgres(path, principal)

    async def redeem(self, ticket: str, path: str) -> Principal:
        """The principal in whose name the ticket was issued. Raises Unauthorized, and Problem."""
        if len(ticket) > _LONGEST:
            raise Unauthorized(_NO_TICKET)
        match ticket[:1]:
            case "r" if self._link is not None:
                return await self._redeem_from_redis(self._link, ticket, path)
            case "p":
                return await self._redeem_from_postgres(ticket, path)
            case _:
                raise Unauthorized(_NO_TICKET)

    async def _issue_in_redis(self, link: RedisLink, path: str, principal: Principal) -> str:
        ticket = _new(_IN_REDIS)
        digest = _digest(ticket, path)
        kept = json.dumps({"ticket": digest, "principal": principal.plain()})
        key = f"{link.prefix}:ticket:{digest}"
        await link.write("SET", key, kept, "EX", LIFETIME, "NX")
        return ticket

    async def _issue_in_postgres(self, path: str, principal: Principal) -> str:
        ticket = _new(_IN_POSTGRES)
        digest, who = bytes.fromhex(_digest(ticket, path)), json.dumps(principal.plain())
        async with writing(self._pool) as connection:
            await connection.execute(_FORGET)
            await connection.execute(_KEEP, digest, path, who, float(LIFETIME))
        return ticket

    async def _redeem_from_redis(self, link: RedisLink, ticket: str, path: str) -> Principal:
        digest = _digest(ticket, path)
        try:
            kept = await link.ask("GETDEL", f"{link.prefix}:ticket:{digest}")
        except RedisAwayError:
            what = "Where this ticket is kept can't be reached; ask for another."
            raise Unavailable(what) from None
        try:
            found = json.loads(kept)
            # Whatever a cache answers is held against the question: another's ticket is no ticket.
            if found["ticket"] != digest:
                raise Unauthorized(_NO_TICKET)
            return Principal(**found["principal"])
        except (ValueError, TypeError, KeyError):
            raise Unauthorized(_NO_TICKET) from None

    async def _redeem_from_postgres(self, ticket: str, path: str) -> Principal:
        async with writing(self._pool) as connection:
            kept = await connection.fetchval(_TAKE, bytes.fromhex(_digest(ticket, path)), path)
        if kept is None:
            raise Unauthorized(_NO_TICKET)
        return Principal(**json.loads(kept))


def _new(place: str) -> str:
    return place + secrets.token_urlsafe(32)


def _digest(ticket: str, path: str) -> str:
    """A ticket is another one for another path; no path holds a NUL."""
    return hashlib.sha256(f"{ticket}\0{path}".encode("utf-8", "surrogateescape")).hexdigest()
