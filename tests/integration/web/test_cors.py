"""Pages of other origins: the headers for those that may read, and for all."""

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest

from tests.support.raw import request, wire
from tests.support.service import Running, bearer, serving

ORIGIN = "https://app.example.com"
LOCAL = "http://localhost:5173"
STRANGER = "https://evil.example"
PAGE = "/v1/feeds/clients?limit=2"
STREAM = "/v1/feeds/clients?format=ndjson&id.lt=100000004"
EXPOSED = {
    "ETag", "Link", "Retry-After", "RateLimit", "RateLimit-Policy", "Server-Timing",
    "Cache-Status", "X-Request-ID", "Content-Disposition", "Feed-Export", "Feed-CSV-Guard",
    "WWW-Authenticate",
}  # fmt: skip
ALLOWED = {"Authorization", "Content-Type", "Last-Event-ID", "If-None-Match", "X-Request-ID"}
# One answer of every kind: pages, streams, one row, problems, and what needs no token.
ANSWERS = [
    (PAGE, 200),
    (STREAM, 200),
    (f"{STREAM}&limit=2000", 200),
    ("/v1/feeds/clients?format=csv", 200),
    ("/v1/feeds/clients?format=sse&id.lt=100000004", 200),
    ("/v1/feeds/clients/100000001", 200),
    ("/v1/feeds", 200),
    ("/v1/feeds/nowhere", 404),
    ("/nowhere", 404),
    ("/v1/feeds/clients?nope=1", 400),
    ("/live", 200),
    ("/problems/busy", 200),
]


@pytest.fixture(scope="module")
async def shop(world_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A service that two origins may read."""
    settings = {"FEEDSVC_CORS__ORIGINS": f"{ORIGIN},{LOCAL}", "FEEDSVC_CORS__MAX_AGE": "77"}
    with serving(world_url, settings=settings) as running:
        async with aiohttp.ClientSession(running.url) as session:
            yield session


@pytest.fixture(scope="module")
async def anyones(world_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A service that every origin may read."""
    with serving(world_url, settings={"FEEDSVC_CORS__ORIGINS": '["*"]'}) as running:
        async with aiohttp.ClientSession(running.url) as session:
            yield session


async def ask(
    http: aiohttp.ClientSession,
    path: str,
    origin: str | None,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> aiohttp.ClientResponse:
    sent = bearer() | dict(headers or {}) | ({} if origin is None else {"Origin": origin})
    async with http.request(method, path, headers=sent) as answer:
        await answer.read()
        return answer


async def ask_first(
    http: aiohttp.ClientSession, path: str, origin: str | None, method: str | None = "GET"
) -> aiohttp.ClientResponse:
    """A preflight, which carries no token."""
    sent = {} if method is None else {"Access-Control-Request-Method": method}
    sent |= {"Access-Control-Request-Headers": "authorization"}
    sent |= {} if origin is None else {"Origin": origin}
    async with http.options(path, headers=sent) as answer:
        await answer.read()
        return answer


def words(answer: aiohttp.ClientResponse, header: str) -> list[str]:
    return answer.headers.get(header, "").split(", ")


def cors_headers(answer: aiohttp.ClientResponse) -> set[str]:
    return {name for name in answer.headers if name.lower().startswith("access-control-")}


@pytest.mark.parametrize(("path", "status"), ANSWERS)
async def test_without_origins_there_is_no_cors(
    http: aiohttp.ClientSession, path: str, status: int
) -> None:
    answer = await ask(http, path, ORIGIN)
    assert answer.status == status
    assert cors_headers(answer) == set()
    assert "Origin" not in words(answer, "Vary")
    first = await ask_first(http, path, ORIGIN)
    assert first.status == (404 if path == "/nowhere" else 405)
    assert cors_headers(first) == set()


@pytest.mark.parametrize("origin", [ORIGIN, LOCAL])
@pytest.mark.parametrize(("path", "status"), ANSWERS)
async def test_a_listed_origin_may_read_every_answer(
    shop: aiohttp.ClientSession, path: str, status: int, origin: str
) -> None:
    answer = await ask(shop, path, origin)
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert set(words(answer, "Access-Control-Expose-Headers")) == EXPOSED
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert words(answer, "Vary").count("Origin") == 1


@pytest.mark.parametrize(
    "origin", [None, STRANGER, "null", f"{ORIGIN}:8443", "http://app.example.com", f"{ORIGIN}.evil"]
)
@pytest.mark.parametrize(("path", "status"), ANSWERS)
async def test_other_origins_get_no_cors_header(
    shop: aiohttp.ClientSession, path: str, status: int, origin: str | None
) -> None:
    answer = await ask(shop, path, origin)
    assert answer.status == status
    assert cors_headers(answer) == set()
    assert words(answer, "Vary").count("Origin") == 1  # or a cache would give this to the listed


async def test_vary_is_added_to_what_varies_already(shop: aiohttp.ClientSession) -> None:
    answer = await ask(shop, PAGE, ORIGIN)
    assert {"Accept", "Accept-Encoding", "Authorization", "Origin"} <= set(words(answer, "Vary"))


@pytest.mark.parametrize("origin", [STRANGER, "null"])
async def test_a_star_lets_every_origin_in(anyones: aiohttp.ClientSession, origin: str) -> None:
    assert (await ask(anyones, PAGE, origin)).headers["Access-Control-Allow-Origin"] == "*"
    first = await ask_first(anyones, PAGE, origin)
    assert (first.status, first.headers["Access-Control-Allow-Origin"]) == (204, "*")
    assert cors_headers(await ask(anyones, PAGE, None)) == set()


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/feeds", "GET, HEAD"),
        (PAGE, "GET, HEAD"),
        ("/v1/feeds/clients/1", "GET, HEAD"),
        ("/v1/tickets", "POST"),
        ("/live", "GET, HEAD"),
    ],
)
async def test_a_preflight_gets_the_routes_methods(
    shop: aiohttp.ClientSession, path: str, methods: str
) -> None:
    answer = await ask_first(shop, path, ORIGIN, methods.partition(", ")[0])
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Methods"] == methods
    assert set(words(answer, "Access-Control-Allow-Headers")) == ALLOWED
    assert answer.headers["Access-Control-Max-Age"] == "77"
    assert "Origin" in words(answer, "Vary")
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_a_preflight_of_nothing_is_not_found(shop: aiohttp.ClientSession) -> None:
    assert (await ask_first(shop, "/nowhere", ORIGIN)).status == 404


@pytest.mark.parametrize(
    ("origin", "method"), [(None, None), (None, "GET"), (ORIGIN, None), (STRANGER, "GET")]
)
async def test_options_are_otherwise_refused(
    shop: aiohttp.ClientSession, origin: str | None, method: str | None
) -> None:
    answer = await ask_first(shop, PAGE, origin, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert "Access-Control-Allow-Methods" not in answer.headers


async def test_an_origin_without_a_token_may_read_why(shop: aiohttp.ClientSession) -> None:
    answer = await ask(shop, PAGE, ORIGIN, headers={"Authorization": "Bearer x"})
    assert answer.status == 401
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


def assert_protected(headers: Mapping[str, str], style: str = "") -> None:
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Server"] == "feedsvc"
    policy = "default-src 'none'; frame-ancestors 'none'"
    assert headers["Content-Security-Policy"] == policy + style


@pytest.mark.parametrize(("path", "status"), ANSWERS[:-1])
@pytest.mark.parametrize("origin", [None, ORIGIN])
async def test_every_answer_forbids_a_browser_to_interpret_it(
    shop: aiohttp.ClientSession, path: str, status: int, origin: str | None
) -> None:
    for method in ("GET", "HEAD"):
        answer = await ask(shop, path, origin, method)
        assert answer.status == status
        assert_protected(answer.headers)


async def test_what_has_not_changed_is_protected_too(shop: aiohttp.ClientSession) -> None:
    tag = (await ask(shop, PAGE, ORIGIN)).headers["ETag"]
    answer = await ask(shop, PAGE, ORIGIN, headers={"If-None-Match": tag})
    assert answer.status == 304
    assert_protected(answer.headers)
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert_protected((await ask_first(shop, PAGE, ORIGIN)).headers)


async def test_a_problems_page_may_have_its_own_style_and_no_other(
    http: aiohttp.ClientSession,
) -> None:
    async with http.get("/problems/busy") as answer:
        (style,) = re.findall("<style>(.*?)</style>", await answer.text(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert_protected(answer.headers, f"; style-src 'sha256-{digest}'")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (request(f"/{'x' * 20_000}"), 414),
        (request("/live", f"X-Long: {'x' * 20_000}"), 431),
        (request("/live", f"Authorization: {'x' * 20_000}"), 401),
    ],
)
async def test_what_no_handler_has_seen_is_protected_too(
    service: Running, sent: bytes, status: int
) -> None:
    async with wire(service) as client:
        await client.send(sent)
        answer = await client.answer()
        assert answer.status == status
        assert_protected(answer.headers)
