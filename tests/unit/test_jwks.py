"""Keys from an issuer's URL, over a real socket: rotated, slow, broken, away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from feedsvc.access.jwks import JwksError, PublishedKeys
from feedsvc.access.keys import from_jwks
from feedsvc.access.tokens import Tokens
from feedsvc.core.problems import Unauthorized, Unavailable
from feedsvc.settings import Auth
from tests.support.issuer import EC, RSA, Issuer, bearer, jwk, publishing
from tests.support.ports import reserved_port

NEW = rsa.generate_private_key(65_537, 2_048)


def settings(url: str, **more: Any) -> Auth:
    return Auth(**{"jwks_url": url, "algorithms": ("RS256", "ES256"), **more})


@asynccontextmanager
async def verifying(
    issuer: Issuer, clock: Callable[[], float] = time.monotonic, **more: Any
) -> AsyncIterator[Tokens]:
    """Tokens whose keys are kept fresh, as the service does it."""
    tokens = Tokens(settings(issuer.url, **more), clock)
    assert tokens.published is not None
    running = asyncio.create_task(tokens.published.run())
    try:
        yield tokens
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def soon(what: Any) -> None:
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.01)


async def test_tokens_of_published_keys_are_good() -> None:
    async with publishing(jwk(RSA, "a"), jwk(EC, "b")) as issuer, verifying(issuer) as tokens:
        await soon(lambda: tokens.fault is None)
        assert (await tokens.authenticate(bearer("RS256", RSA, "a"))).tenant == "rosewood"
        assert (await tokens.authenticate(bearer("ES256", EC))).tenant == "rosewood"
        with pytest.raises(Unauthorized):
            await tokens.authenticate(bearer("RS256", NEW, "a"))
        assert issuer.asked == 1


async def test_a_published_key_of_an_algorithm_that_is_not_listed_is_no_key() -> None:
    async with publishing(jwk(RSA, "a"), jwk(EC, "b")) as issuer:
        tokens = Tokens(Auth(jwks_url=issuer.url, algorithms=("RS256",), jwks_cooldown=600))
        assert tokens.published is not None
        await tokens.published.look_again()
        assert (await tokens.authenticate(bearer("RS256", RSA, "a"))).tenant == "rosewood"
        for kid in ("b", None):
            with pytest.raises(Unauthorized):
                await tokens.authenticate(bearer("ES256", EC, kid))


async def test_a_new_key_is_looked_for_at_once_but_once_in_a_while() -> None:
    now = 1_000.0
    async with publishing(jwk(RSA, "a")) as issuer, verifying(issuer, lambda: now) as tokens:
        await soon(lambda: tokens.fault is None)
        with pytest.raises(Unauthorized):  # the start's own fetch was just now
            await tokens.authenticate(bearer("RS256", NEW, "new"))
        assert issuer.asked == 1
        now += 60.0
        issuer.keys = [jwk(NEW, "new")]
        asked = [tokens.authenticate(bearer("RS256", NEW, "new")) for _ in range(50)]
        assert {p.tenant for p in await asyncio.gather(*asked)} == {"rosewood"}
        assert issuer.asked == 2
        for number in range(50):
            with pytest.raises(Unauthorized):
                await tokens.authenticate(bearer("RS256", RSA, f"made up {number}"))
        assert issuer.asked == 2


async def test_what_was_verified_with_a_key_that_is_gone_is_forgotten() -> None:
    async with (
        publishing(jwk(RSA, "a")) as issuer,
        verifying(issuer, jwks_refresh=0.1) as tokens,
    ):
        await soon(lambda: tokens.fault is None)
        # The same text, or it would not be found again whatever the keys are.
        verified = bearer("RS256", RSA, "a")
        await tokens.authenticate(verified)
        issuer.keys = [jwk(NEW, "a")]
        await soon(lambda: tokens.published and tokens.published.version == 2)
        with pytest.raises(Unauthorized):
            await tokens.authenticate(verified)


async def test_one_caller_who_leaves_does_not_end_the_fetch_for_the_others() -> None:
    now = 1_000.0
    async with publishing(jwk(RSA, "a")) as issuer, verifying(issuer, lambda: now) as tokens:
        await soon(lambda: tokens.fault is None)
        now += 60.0
        issuer.keys, issuer.delay = [jwk(NEW, "new")], 0.2
        first, second = (
            asyncio.create_task(tokens.authenticate(bearer("RS256", NEW, "new"))) for _ in range(2)
        )
        await soon(lambda: issuer.asked == 2)
        first.cancel()
        assert (await second).tenant == "rosewood"
        assert first.cancelled()


@pytest.mark.parametrize("fixed", [None, "a fixed secret beside the URL, which is long enough"])
async def test_a_token_waits_for_the_fetch_of_the_start(fixed: str | None) -> None:
    more: dict[str, Any] = {"key": fixed, "algorithms": ("RS256", "HS256")} if fixed else {}
    async with publishing(jwk(RSA, "a")) as issuer:
        issuer.delay = 0.2
        async with verifying(issuer, jwks_timeout=60, **more) as tokens:
            await soon(lambda: issuer.asked == 1)
            assert (await tokens.authenticate(bearer("RS256", RSA, "a"))).tenant == "rosewood"
            assert issuer.asked == 1


async def test_a_token_of_a_new_key_waits_for_the_periodic_fetch() -> None:
    async with (
        publishing(jwk(RSA, "a")) as issuer,
        verifying(issuer, jwks_refresh=0.1, jwks_timeout=60) as tokens,
    ):
        await soon(lambda: tokens.fault is None)
        asked = issuer.asked
        issuer.keys, issuer.delay = [jwk(NEW, "new")], 0.2
        await soon(lambda: issuer.asked > asked)
        assert (await tokens.authenticate(bearer("RS256", NEW, "new"))).tenant == "rosewood"


class HeldFetches:
    """Keys whose fetches are answered when the test says so; `begun` are those under way."""

    def __init__(self) -> None:
        url = "https://issuer.invalid"
        self.published = PublishedKeys(url, settings(url))
        self.answers = [asyncio.Future[Any]() for _ in range(2)]
        self.begun: list[asyncio.Future[Any]] = []
        self.published.fetch = self._fetch  # type: ignore[method-assign]

    async def both_begun(self) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
        """A look for a token's sake, and then the task that keeps the keys fresh."""
        looking = asyncio.create_task(self.published.look_again())
        await soon(lambda: self.begun)
        running = asyncio.create_task(self.published.run())
        await turns_of_the_loop()
        return looking, running

    async def _fetch(self) -> Any:
        self.begun.append(self.answers[len(self.begun)])
        return await self.begun[-1]


async def turns_of_the_loop() -> None:
    """Let everything run that waits for no other."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_keys_are_those_of_the_fetch_that_began_last() -> None:
    held = HeldFetches()
    looking, running = await held.both_begun()
    for kid, answer in (("newer", held.answers[1]), ("older", held.answers[0])):
        answer.set_result(from_jwks({"keys": [jwk(RSA, kid)]}, secrets=False))
        await turns_of_the_loop()
    await looking
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert held.published.keys == held.begun[-1].result()


async def test_a_fetch_ends_with_what_keeps_the_keys_fresh() -> None:
    held = HeldFetches()
    looking, running = await held.both_begun()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await turns_of_the_loop()
    assert all(answer.cancelled() for answer in held.begun)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


FAULTS: dict[str, dict[str, Any]] = {
    "an error": {"status": 500},
    "a redirect": {"status": 302},
    "no JSON": {"body": b"<html>"},
    "no keys": {"body": b'{"keys": []}'},
    "a key of no use": {"body": b'{"keys": [{"kty": "oct", "k": "' + b"A" * 64 + b'"}]}'},
    "two megabytes": {"body": b" " * 2_000_000 + b"{}"},
    "nothing for long": {"delay": 2.0},
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_last_good_keys_stay_while_the_url_is_broken(fault: str) -> None:
    async with (
        publishing(jwk(RSA, "a")) as issuer,
        verifying(issuer, jwks_refresh=0.1, jwks_timeout=0.3) as tokens,
    ):
        await soon(lambda: tokens.fault is None)
        for name, value in FAULTS[fault].items():
            setattr(issuer, name, value)
        asked = issuer.asked
        await soon(lambda: issuer.asked >= asked + 2)
        assert (await tokens.authenticate(bearer("RS256", RSA, "a"))).tenant == "rosewood"
        with pytest.raises(JwksError, match=r"auth\.jwks_url"):
            await PublishedKeys(issuer.url, settings(issuer.url, jwks_timeout=0.3)).fetch()


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


async def test_while_no_key_was_ever_fetched_the_service_is_not_ready_and_says_503(
    port: int,
) -> None:
    async with publishing(jwk(RSA, "a"), port=port) as issuer:
        gone = issuer.url
    now = 0.0
    tokens = Tokens(settings(gone, jwks_cooldown=60), lambda: now)
    assert tokens.fault is not None
    with pytest.raises(Unavailable):
        await tokens.authenticate(bearer("RS256", RSA, "a"))
    for header in (None, "Bearer x", bearer("RS256", RSA).replace("Bearer", "Basic")):
        with pytest.raises(Unauthorized):
            await tokens.authenticate(header)
    async with publishing(jwk(RSA, "a"), port=port):
        now = 61.0
        assert (await tokens.authenticate(bearer("RS256", RSA, "a"))).tenant == "rosewood"
        assert tokens.fault is None
