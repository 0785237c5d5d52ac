"""Tokens on a running service: every fault is one 401, and an SSE stream ends with its token."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import asyncpg
import jwt
import pytest

from tests.support import sse
from tests.support.issuer import RSA, jwk, private_pem, publishing
from tests.support.issuer import bearer as signed_bearer
from tests.support.narrow import narrow_session
from tests.support.service import KEY, Running, bearer, serving

FEED = "/v1/feeds/clients"
LIFETIMES = (1.5, 6.0, 24.0)  # seconds of a token; the longer ones for a busy machine


@pytest.fixture(scope="module")
def strict(world_url: str) -> Iterator[Running]:
    """A service whose streams are easily stalled and whose tokens end on the second."""
    settings = {"FEEDSVC_AUTH__LEEWAY": "0", "FEEDSVC_SERVER__SEND_BUFFER": "16384"}
    with serving(world_url, settings=settings) as running:
        yield running


class ExpiredError(Exception):
    """The token had expired before its first request was answered."""


async def read_past_expiry(
    url: str, accept: str
) -> tuple[bytes, BaseException | None, dict[str, str]]:
    """A body that is read on once its token has expired, its error, and the token's header."""
    for lifetime in LIFETIMES:
        headers = bearer(lifetime=lifetime)
        with suppress(ExpiredError):
            found = await read_late(url, {**headers, "Accept": accept}, lifetime + 0.5)
            return *found, headers
    pytest.fail("each token expired before its first request was answered")


async def read_late(
    url: str, headers: dict[str, str], pause: float
) -> tuple[bytes, BaseException | None]:
    """A body whose reader sleeps behind its first bytes, and its error. Raises ExpiredError."""
    body = b""
    async with narrow_session(url) as http:
        try:
            async with http.get(FEED, headers=headers) as answer:
                if answer.status == 401:
                    raise ExpiredError
                assert answer.status == 200
                body += await answer.content.readany()
                await asyncio.sleep(pause)
                async for piece in answer.content.iter_any():
                    body += piece
        except aiohttp.ClientPayloadError as error:
            return body, error
    return body, None


async def test_an_sse_stream_ends_with_an_event_when_its_token_expires(strict: Running) -> None:
    accept = {"Accept": "text/event-stream"}
    body, error, headers = await read_past_expiry(strict.url, accept["Accept"])
    assert error is not None, "it ended as if it were whole"
    stream = sse.parse(body)
    assert not stream.of_type("end")
    problem = json.loads(stream.events[-1].data)
    assert stream.events[-1].type == "error"
    assert (problem["type"], problem["status"]) == ("/problems/token-expired", 401)

    rows = [row for event in stream.of_type("rows") for row in json.loads(event.data)]
    resume = {**bearer(), **accept, "Last-Event-ID": stream.events[-1].last_id}
    rest, error = await read_late(strict.url, resume, 0)
    assert error is None
    rows += [row for event in sse.parse(rest).of_type("rows") for row in json.loads(event.data)]
    async with aiohttp.ClientSession(strict.url) as http:
        async with http.get(FEED, headers=bearer()) as answer:
            assert rows == await answer.json()
        async with http.get(FEED, headers=headers) as answer:
            assert answer.status == 401


async def test_an_export_that_was_let_in_is_finished(strict: Running) -> None:
    body, error, _ = await read_past_expiry(strict.url, "application/x-ndjson")
    assert error is None
    assert body.count(b"\n") == 3_000


async def test_a_ticket_is_no_longer_good_than_the_token_it_was_bought_with(
    strict: Running,
) -> None:
    async with aiohttp.ClientSession(strict.url) as http:
        for lifetime in LIFETIMES:
            headers = bearer(lifetime=lifetime)
            async with http.post("/v1/tickets", json={"path": FEED}, headers=headers) as answer:
                if answer.status == 201:
                    ticket = (await answer.json())["ticket"]
                    break
        await asyncio.sleep(lifetime + 0.1)
        async with http.get(FEED, params={"ticket": ticket}) as answer:
            assert answer.status == 401


def bad_tokens() -> dict[str, str]:
    good = {"aud": "feedsvc", "exp": time.time() + 600, "tenant": "rosewood", "role": "member"}
    return {
        "none": "",
        "alg=none": jwt.encode(good, "", "none"),
        "an algorithm that is not listed": jwt.encode(good, private_pem(RSA), "RS256"),
        "crit": jwt.encode(good, KEY, "HS256", headers={"crit": ["x"], "x": 1}),
        "another key": jwt.encode(good, KEY[::-1], "HS256"),
        "expired, another key": jwt.encode({**good, "exp": 1}, KEY[::-1], "HS256"),
        "no aud": jwt.encode({k: v for k, v in good.items() if k != "aud"}, KEY, "HS256"),
        "no tenant": jwt.encode({k: v for k, v in good.items() if k != "tenant"}, KEY, "HS256"),
        "10 KB": jwt.encode({**good, "filler": "x" * 7_500}, KEY[::-1], "HS256"),
    }


async def test_every_fault_is_the_same_401_and_takes_no_connection(
    world_url: str, world: asyncpg.Connection
) -> None:
    answers: dict[str, tuple[object, ...]] = {}
    with serving(world_url) as fresh:
        async with aiohttp.ClientSession(fresh.url) as http:
            for what, token in bad_tokens().items():
                headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "same"}
                async with http.get(FEED, headers=headers) as answer:
                    body = await answer.read()
                kept = {k: v for k, v in answer.headers.items() if k != "Date"}
                answers[what] = (answer.status, body, tuple(sorted(kept.items())))
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'feedsvc bulk'"
        sql += " AND datname = current_database() AND backend_start > now() - interval '1 s'"
        assert await world.fetchval(sql) == 0
    assert len(set(answers.values())) == 1
    assert answers["none"][0] == 401


async def test_an_app_learns_that_its_token_expired_and_the_log_why_another_was_refused(
    world_url: str,
) -> None:
    good = jwt.decode(bearer()["Authorization"][7:], KEY, ["HS256"], audience="feedsvc")
    refused = {
        "expired": bearer(lifetime=-60)["Authorization"][7:],
        "narrowed-to-nothing": jwt.encode({**good, "client": None}, KEY, "HS256"),
        "another-key": jwt.encode(good, KEY[::-1], "HS256"),
    }
    types = {}
    with serving(world_url) as running:
        async with aiohttp.ClientSession(running.url) as http:
            for name, given in refused.items():
                headers = {"Authorization": f"Bearer {given}", "X-Request-ID": name}
                async with http.get(FEED, headers=headers) as answer:
                    assert answer.status == 401
                    types[name] = (await answer.json())["type"].rpartition("/")[2]
    assert types == {
        "expired": "token-expired",
        "narrowed-to-nothing": "unauthorized",
        "another-key": "unauthorized",
    }
    lines = [json.loads(line) for line in running.log if line.startswith("{")]
    reasons = {line["request_id"]: line.get("reason") for line in lines if "request_id" in line}
    assert {name: reasons[name] for name in refused} == {
        "expired": "it has expired",
        "narrowed-to-nothing": "the claim client is no text, or empty",
        "another-key": "its signature is not that of a key that is known",
    }
    assert not any(given in "".join(running.log) for given in refused.values())


async def test_a_service_with_published_keys_only(world_url: str) -> None:
    """`/ready` waits for the first keys; HS256 stays out."""
    async with publishing() as issuer:
        settings = {
            "FEEDSVC_AUTH__KEY": "",
            "FEEDSVC_AUTH__JWKS_URL": issuer.url,
            "FEEDSVC_AUTH__ALGORITHMS": '["RS256"]',
            "FEEDSVC_AUTH__JWKS_REFRESH": "0.2",
        }
        with serving(world_url, settings=settings) as running:
            async with aiohttp.ClientSession(running.url) as http:
                async with http.get("/ready") as answer:
                    assert answer.status == 503
                    assert "key" in (await answer.json())["reason"]
                headers = {"Authorization": signed_bearer("RS256", RSA, "a")}
                async with http.get(FEED + "?limit=1", headers=headers) as answer:
                    assert answer.status == 503
                issuer.keys = [jwk(RSA, "a")]
                async with asyncio.timeout(60):
                    while (await http.get("/ready")).status != 200:
                        await asyncio.sleep(0.05)
                async with http.get(FEED + "?limit=1", headers=headers) as answer:
                    assert answer.status == 200
                async with http.get(FEED + "?limit=1", headers=bearer()) as answer:
                    assert answer.status == 401
