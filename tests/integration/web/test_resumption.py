"""An EventSource whose stream was cut comes back by its ticket, and no other client does."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import aiohttp
import pytest
from yarl import URL

from tests.support import sse
from tests.support.service import Running, bearer, serving

FEED = "/v1/feeds/clients"
QUERY = "format=sse&columns=id&limit=600&progress=60"
MOST = 12


@pytest.fixture(scope="module")
def served(world_url: str) -> Iterator[Running]:
    """Two workers, neither of which keeps anything: a reconnect may meet the other one."""
    settings = {"FEEDSVC_AUTH__LEEWAY": "0"}
    with serving(world_url, settings=settings, arguments=["--workers=2"]) as running:
        yield running


@pytest.fixture
async def http(served: Running) -> AsyncIterator[aiohttp.ClientSession]:
    """Without a jar: each test says which cookies are sent; each request on its own connection."""
    connector = aiohttp.TCPConnector(force_close=True)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(served.url, connector=connector, cookie_jar=jar) as session:
        yield session


async def address(http: aiohttp.ClientSession, query: str = QUERY, lifetime: float = 3_600) -> URL:
    """The address of a feed with a new ticket."""
    headers = bearer(lifetime=lifetime)
    async with http.post("/v1/tickets", json={"path": FEED}, headers=headers) as answer:
        ticket = (await answer.json())["ticket"]
    return URL(f"{FEED}?{query}&ticket={ticket}", encoded=True)


async def asked(
    http: aiohttp.ClientSession, url: URL, **headers: str
) -> tuple[int, list[str], bytes]:
    """Status, cookies that are set, and body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.get(url, headers=named) as answer:
        return answer.status, answer.headers.getall("Set-Cookie", []), await answer.read()


def ids(body: bytes) -> list[int]:
    return [
        row["id"] for event in sse.parse(body).of_type("rows") for row in json.loads(event.data)
    ]


@pytest.mark.parametrize("limit", [50, 600], ids=["page", "stream"])
async def test_the_cookie_lets_the_same_address_in_again(
    http: aiohttp.ClientSession, limit: int
) -> None:
    url = await address(http, f"format=sse&columns=id&limit={limit}")
    status, (cookie,), body = await asked(http, url)
    assert status == 200
    pair, *attributes = cookie.split("; ")
    assert set(attributes) >= {f"Path={FEED}", "HttpOnly", "SameSite=Strict"}
    (age,) = [int(part[8:]) for part in attributes if part.startswith("Max-Age=")]
    assert 3_000 < age <= 3_600
    whole = ids(body)
    assert len(whole) == limit
    for cut in (0, limit // 2, limit - 2):
        again = {"Cookie": pair, "Last_Event_ID": str(whole[cut])}
        status, cookies, body = await asked(http, url, **again)
        assert (status, cookies) == (200, [])
        assert (whole[: cut + 1] + ids(body))[:limit] == whole
    status, _, _ = await asked(http, url, Cookie=pair, Last_Event_ID="end")
    assert status == 204, "an EventSource stops"


async def test_nothing_but_the_same_address_with_its_cookie_is_let_in(
    http: aiohttp.ClientSession,
) -> None:
    url, other = await address(http), await address(http)
    _, (cookie,), _ = await asked(http, url)
    _, (theirs,), _ = await asked(http, other)
    pair, foreign = cookie.partition(";")[0], theirs.partition(";")[0]
    name, _, value = pair.partition("=")
    events = {"Accept": "text/event-stream", "Last_Event_ID": "1"}
    for what, target, given in (
        ("no cookie", url, ""),
        ("another ticket's cookie", url, foreign),
        ("another ticket's value", url, f"{name}={foreign.partition('=')[2]}"),
        ("a changed value", url, f"{name}={'A' if value[0] != 'A' else 'B'}{value[1:]}"),
        ("a short value", url, f"{name}=AAAA"),
        ("no value", url, f"{name}="),
        ("another query", URL(f"{url}&order=newest", encoded=True), pair),
        ("another path", URL(str(url).replace("clients", "budgets"), encoded=True), pair),
        ("no ticket", URL(f"{FEED}?{QUERY}", encoded=True), pair),
    ):
        status, cookies, _ = await asked(http, target, Cookie=given, **events)
        assert (status, cookies) == (401, []), what
    assert (await asked(http, url, Cookie=f"a=b; {foreign}; {pair}", **events))[0] == 200


@pytest.mark.parametrize("query", ["format=csv&columns=id", "format=ndjson", "limit=3", "format=x"])
async def test_only_events_set_a_cookie(http: aiohttp.ClientSession, query: str) -> None:
    url = await address(http, query)
    assert (await asked(http, url))[1] == []
    assert (await asked(http, url))[0] == 401


async def test_behind_tls_the_cookie_is_for_tls_alone(http: aiohttp.ClientSession) -> None:
    _, (cookie,), _ = await asked(http, await address(http), X_Forwarded_Proto="https")
    assert cookie.endswith("; Secure")
    _, (cookie,), _ = await asked(http, await address(http))
    assert "Secure" not in cookie


async def test_the_cookie_is_good_until_the_tokens_end(http: aiohttp.ClientSession) -> None:
    began = time.time()
    url = await address(http, lifetime=15)
    _, (cookie,), _ = await asked(http, url)
    pair = {"Cookie": cookie.partition(";")[0], "Last_Event_ID": "1"}
    async with asyncio.timeout(60):
        status = 200
        while status == 200:
            with suppress(aiohttp.ClientPayloadError):  # the end falls into a stream
                status, cookies, body = await asked(http, url, **pair)
            await asyncio.sleep(1)  # each of them reads the whole feed
    assert time.time() >= began + 14
    assert (status, cookies) == (401, [])
    assert json.loads(body)["type"] == "/problems/token-expired"


async def test_a_browser_never_has_so_many_that_a_request_grows_too_long(
    http: aiohttp.ClientSession,
) -> None:
    jar: dict[str, str] = {}
    for _ in range(MOST + 5):
        sent = "; ".join(f"{name}={value}" for name, value in jar.items())
        status, cookies, _ = await asked(http, await address(http), Cookie=sent)
        assert status == 200
        for cookie in cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0;" in cookie:
                del jar[name]
            else:
                jar[name] = value
        assert len(jar) <= MOST
    assert len(jar) == MOST
