"""Tickets, which a browser sends instead of a token where it can't send a header.

A ticket is good once, for half a minute, for one path. It is kept in Redis, or in PostgreSQL where
there is none or it is away, so that any worker honours it; its first letter says where. What is
kept is its digest alone, so that a reader of the table can't use it, and in Redis under the
service's seal, so that a writer there can't make one.

A ticket proves by itself that the service has made it, for which path and until when: one that is
made up, or long over, costs a hash and asks neither Redis nor PostgreSQL.
"""

import binascii
import hashlib
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from importlib.resources import files
from typing import Any, Final

from cachetools import TTLCache

from feedsvc.access.service_key import MAC_SIZE, ServiceKey
from feedsvc.backends.postgres.own_schema import write_transaction
from feedsvc.backends.postgres.pool import Pool
from feedsvc.backends.redis.link import RedisAwayError, RedisLink
from feedsvc.core.principal import Principal
from feedsvc.core.problems import Unauthorized, Unavailable

LIFETIME: Final = 30
"""Seconds that a ticket is good for."""

_CLOCKS_APART: Final = 30  # seconds by which the clocks of instances may differ
_TIME_SIZE: Final = 5
_RANDOM_SIZE: Final = 20
_LENGTH: Final = 1 + 4 * -(-(_TIME_SIZE + _RANDOM_SIZE + MAC_SIZE) // 3) - 1
_MOST_SPENT: Final = 10_000
_FORGED: Final = "its ticket was not made by this service for this path, or is over"
_SPENT: Final = "its ticket was used, or is over"
_IN_REDIS, _IN_POSTGRES = "r", "p"
_TAKE: Final = (files("feedsvc.access") / "tickets.sql").read_text()
_KEEP: Final = (
    "insert into feedsvc.tickets (id, path, principal, expires_at) "
    "values ($1, $2, $3::text::jsonb, now() + make_interval(secs => $4))"
)
_FORGET: Final = "delete from feedsvc.tickets where expires_at < now()"


class Tickets:
    """Issue tickets, and redeem each once."""

    def __init__(self, pool: Pool, link: RedisLink | None, key: ServiceKey) -> None:
        self._pool = pool
        self._link = link
        self._of_tickets = key.seal("tickets")
        self._of_redis = key.seal("tickets in redis")
        self._spent: TTLCache[str, None] = TTLCache(_MOST_SPENT, LIFETIME + 2 * _CLOCKS_APART)

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
        if not self._is_ours(ticket, path):
            raise Unauthorized(_FORGED)
        digest = digest_of(ticket, path)
        if digest in self._spent:
            raise Unauthorized(_SPENT)
        if ticket[0] == _IN_POSTGRES:
            kept = await self._taken_from_postgres(digest, path)
        elif self._link is not None:
            kept = await self._taken_from_redis(self._link, digest)
        else:
            kept = None
        self._spent[digest] = None
        if kept is None:
            raise Unauthorized(_SPENT)
        return Principal(**kept)

    async def _issue_in_redis(self, link: RedisLink, path: str, principal: Principal) -> str:
        ticket = self._new(_IN_REDIS, path)
        digest = digest_of(ticket, path)
        kept = json.dumps(principal.plain()).encode()
        sealed = self._of_redis.mac(digest.encode(), kept) + kept
        await link.write("SET", f"{link.prefix}:ticket:{digest}", sealed, "EX", LIFETIME, "NX")
        return ticket

    async def _issue_in_postgres(self, path: str, principal: Principal) -> str:
        ticket = self._new(_IN_POSTGRES, path)
        digest, who = bytes.fromhex(digest_of(ticket, path)), json.dumps(principal.plain())
        async with write_transaction(self._pool) as connection:
            await connection.execute(_FORGET)
            await connection.execute(_KEEP, digest, path, who, float(LIFETIME))
        return ticket

    async def _taken_from_redis(self, link: RedisLink, digest: str) -> dict[str, Any] | None:
        try:
            sealed = await link.ask("GETDEL", f"{link.prefix}:ticket:{digest}")
        except RedisAwayError:
            what = "Where this ticket is kept can't be reached; ask for another."
            raise Unavailable(what) from None
        if not isinstance(sealed, bytes):
            return None
        mac, kept = sealed[:MAC_SIZE], sealed[MAC_SIZE:]
        # Another ticket's value has another digest, and what another program wrote has no seal.
        return json.loads(kept) if self._of_redis.fits(mac, digest.encode(), kept) else None

    async def _taken_from_postgres(self, digest: str, path: str) -> dict[str, Any] | None:
        async with write_transaction(self._pool) as connection:
            kept = await connection.fetchval(_TAKE, bytes.fromhex(digest), path)
        return None if kept is None else json.loads(kept)

    def _new(self, place: str, path: str) -> str:
        until = int(time.time() + LIFETIME).to_bytes(_TIME_SIZE, "big")
        body = until + secrets.token_bytes(_RANDOM_SIZE)
        mac = self._of_tickets.mac(place.encode(), body, _bytes(path))
        return place + urlsafe_b64encode(body + mac).rstrip(b"=").decode()

    def _is_ours(self, ticket: str, path: str) -> bool:
        """Return whether this service has made the ticket for this path, a moment ago."""
        if len(ticket) != _LENGTH or ticket[0] not in (_IN_REDIS, _IN_POSTGRES):
            return False
        try:
            decoded = urlsafe_b64decode(ticket[1:] + "=")
        except (binascii.Error, ValueError):
            return False
        body, mac = decoded[:-MAC_SIZE], decoded[-MAC_SIZE:]
        if not self._of_tickets.fits(mac, ticket[0].encode(), body, _bytes(path)):
            return False
        return int.from_bytes(body[:_TIME_SIZE], "big") + _CLOCKS_APART > time.time()


def digest_of(ticket: str, path: str) -> str:
    """A digest of a ticket and its path."""
    return hashlib.sha256(_bytes(f"{ticket}\0{path}")).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
