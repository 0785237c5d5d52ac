"""The tier in Redis, which all workers share, and who of them reads a page from PostgreSQL."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Final

from feedsvc.backends.redis.link import LinkState, RedisAwayError, RedisLink
from feedsvc.cache.envelope import PageKey

CLAIM_SECONDS: Final = 2.0
"""The seconds for which a claim outlives a worker that died with it."""

_CLAIM: Final = (files("feedsvc.cache") / "claim.lua").read_text()
_RENEW: Final = (files("feedsvc.cache") / "renew.lua").read_text()


class Claim:
    """This worker's right to read one page."""

    def __init__(self, name: str, owner: str, found: bytes | None) -> None:
        self.name = name
        self.owner = owner
        self.found = found
        """The envelope that was there when the claim was made."""
        self.is_over = False


class RedisStore:
    """Envelopes in Redis. Every method raises RedisAwayError where Redis is of no use."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    @property
    def state(self) -> LinkState:
        """The state of Redis."""
        return self._link.state

    @property
    def refusals(self) -> int:
        """The number of questions that Redis refused."""
        return self._link.refusals

    async def get(self, key: PageKey) -> bytes | None:
        """The envelope under this key."""
        return _bytes(await self._link.ask("GET", self._name(key)))

    async def put(self, key: PageKey, envelope: bytes, seconds: float) -> None:
        """Keep the envelope for so many seconds."""
        lifetime = max(1, round(seconds * 1_000))
        await self._link.write("SET", self._name(key), envelope, "PX", lifetime)

    async def claim(self, key: PageKey) -> Claim | bytes | None:
        """A claim to read the page; if another worker has it, the envelope that there is.

        A cancellation waits for the answer, as long as the link does, and gives the claim up.
        """
        asking = asyncio.create_task(self._claim(self._name(key)))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # Redis may have made the claim, and a release must not overtake it on another lane.
            with suppress(RedisAwayError):
                if isinstance(claimed := await asking, Claim):
                    await self._renew(claimed, 0.0)
            raise

    @asynccontextmanager
    async def holding(self, claim: Claim) -> AsyncIterator[None]:
        """Hold the claim while the block runs, and release it behind it."""
        keeping = asyncio.create_task(self._keep(claim))
        try:
            yield
        finally:
            claim.is_over = True
            keeping.cancel()
            with suppress(RedisAwayError):
                await self._renew(claim, 0.0)

    async def _claim(self, name: str) -> Claim | bytes | None:
        owner, lasts = uuid.uuid4().hex, round(CLAIM_SECONDS * 1_000)
        answer = await self._link.write("EVAL", _CLAIM, 2, name, f"{name}:claim", owner, lasts)
        if not isinstance(answer, list) or len(answer) != 2:
            return None
        found = _bytes(answer[1])
        return Claim(f"{name}:claim", owner, found) if answer[0] == 1 else found

    async def _keep(self, claim: Claim) -> None:
        while not claim.is_over:
            await asyncio.sleep(CLAIM_SECONDS / 3)
            with suppress(RedisAwayError):
                await self._renew(claim, CLAIM_SECONDS)

    async def _renew(self, claim: Claim, seconds: float) -> None:
        lasts = round(seconds * 1_000)
        await self._link.ask("EVAL", _RENEW, 1, claim.name, claim.owner, lasts)

    def _name(self, key: PageKey) -> str:
        digest = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:40]
        return f"{self._link.prefix}:page:{{{digest}}}"


def _bytes(answer: object) -> bytes | None:
    return answer if isinstance(answer, bytes) else None
