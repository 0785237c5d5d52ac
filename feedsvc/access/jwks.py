"""Keys that an issuer publishes, fetched before they are needed and kept while it is away."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import aiohttp
import orjson

from feedsvc.access import keys
from feedsvc.access.keys import VerificationKey
from feedsvc.settings import Auth

logger = logging.getLogger(__name__)

_LARGEST: Final = 1_048_576  # bytes
_FIRST_PAUSE: Final = 1.0  # seconds, doubled with each failure, up to the refresh interval


class JwksError(Exception):
    """The URL gave no usable keys; the message has the reason."""


class PublishedKeys:
    """The keys behind `auth.jwks_url`. The last good ones stay while the URL is down."""

    def __init__(
        self, url: str, settings: Auth, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._clock = clock
        self._settings = settings
        self.keys: tuple[VerificationKey, ...] = ()
        self.version = 0
        """Changes with the keys, so that what was verified with the old ones can be forgotten."""
        self._fetching: asyncio.Task[bool] | None = None
        self._last_look = -float("inf")
        self._fetched_at = clock()

    async def run(self) -> None:
        """Keep the keys fresh until it is cancelled."""
        pause = _FIRST_PAUSE
        try:
            while True:
                well = await asyncio.shield(self._fetching or self._begin())
                pause = self._settings.jwks_refresh if well else pause
                await asyncio.sleep(min(pause, self._settings.jwks_refresh))
                pause = _FIRST_PAUSE if well else pause * 2
        finally:
            if self._fetching is not None:
                self._fetching.cancel()

    async def look_again(self) -> None:
        """Fetch for a token with an unknown key, or wait for the fetch that is under way.

        One begins at most once a minute, so made-up key ids cause no more requests to the issuer.
        """
        is_soon = self._clock() - self._last_look < self._settings.jwks_cooldown
        if self._fetching is not None or not is_soon:
            await asyncio.shield(self._fetching or self._begin())

    def age(self) -> float:
        """Seconds since the keys were last fetched, or since the start where they never were."""
        return self._clock() - self._fetched_at

    async def fetch(self) -> tuple[VerificationKey, ...]:
        """The present keys of the URL. Raises JwksError."""
        timeout = aiohttp.ClientTimeout(total=self._settings.jwks_timeout)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.get(self._url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise JwksError(f"auth.jwks_url answered {response.status}")
                return keys.from_jwks(orjson.loads(await _body(response)), secrets=False)
        except TimeoutError:
            raise JwksError("auth.jwks_url did not answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise JwksError(f"auth.jwks_url: {error}") from None

    def _begin(self) -> asyncio.Task[bool]:
        """Begin the only fetch: of two, the older answer could come last and replace the newer."""
        self._fetching = asyncio.create_task(self._refresh())
        self._fetching.add_done_callback(self._fetched)
        return self._fetching

    async def _refresh(self) -> bool:
        self._last_look = self._clock()
        try:
            fetched = await self.fetch()
        except JwksError as error:
            kept = f"the {len(self.keys)} keys from before stay" if self.keys else "there are none"
            logger.warning("%s; %s", error, kept)
            return False
        self._fetched_at = self._clock()
        if _identity(fetched) != _identity(self.keys):
            self.keys = fetched
            self.version += 1
            logger.info("auth.jwks_url has %d keys now", len(fetched))
        return True

    def _fetched(self, _task: asyncio.Task[bool]) -> None:
        self._fetching = None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _LARGEST:
            raise JwksError(f"auth.jwks_url answered with more than {_LARGEST} bytes")
    return bytes(body)


def _identity(fetched: tuple[VerificationKey, ...]) -> list[tuple[object, ...]]:
    return [(key.algorithm, key.kid, key.verifying) for key in fetched]
