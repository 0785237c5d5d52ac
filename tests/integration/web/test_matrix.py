"""Every route against every kind of caller: a new route without a decision here fails."""

import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
import asyncpg
import jwt
import pytest

from feedsvc.web.application import ROUTES
from feedsvc.web.routes import ProtectedRoute
from tests.support.service import KEY, REPOSITORY, Running, bearer, serving

OWN, OTHER = "rosewood", "atelier-blanc"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")

# Who asks.
KINDS = (
    "nobody", "malformed", "another key", "expired", "no tenant",
    "other tenant", "couple", "member", "admin", "operator", "narrowed operator",
    "ticket", "ticket for elsewhere", "couple's ticket",
)  # fmt: skip
OUTSIDERS = dict.fromkeys(KINDS[:5], 401)
EVERYBODY = dict.fromkeys(KINDS, 200)
# A ticket for another path lets nobody in, one for this path whoever bought it.
TICKETS = {"ticket": 200, "ticket for elsewhere": 401, "couple's ticket": 200}
INSIDERS = {**OUTSIDERS, **dict.fromkeys(KINDS[5:11], 200)}
# A tenant's admin is none of the service's operators, and neither is who sees one client alone.
OPERATORS = {
    **dict.fromkeys(KINDS, 403), **OUTSIDERS, "operator": 200, **dict.fromkeys(TICKETS, 401)
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A path of a route, and the status that each kind of caller gets."""

    path: str
    expected: dict[str, int]
    body: Any = None


# A key of OWN's first couple stands in the place of {key}.
DECISIONS: dict[tuple[str, str], list[Case]] = {
    ("GET", "/v1/feeds"): [Case("/v1/feeds", {**INSIDERS, **TICKETS})],
    ("GET", "/v1/feeds/{dataset}"): [
        Case("/v1/feeds/clients?limit=50", {**INSIDERS, **TICKETS}),
        Case("/v1/feeds/clients?columns=id", {**INSIDERS, **TICKETS}),
        Case("/v1/feeds/clients?format=sse&columns=id", {**INSIDERS, **TICKETS}),
        Case("/v1/feeds/clients?format=csv&limit=90", {**INSIDERS, **TICKETS}),
        # A supplier's own figures are no couple's business.
        Case(
            "/v1/feeds/analytics?limit=1",
            {
                **INSIDERS,
                **TICKETS,
                **dict.fromkeys(("couple", "couple's ticket", "narrowed operator"), 403),
            },
        ),
        Case("/v1/feeds/vendors?limit=1", {**INSIDERS, **TICKETS}),
        Case(
            "/v1/feeds/for_admins",
            {**dict.fromkeys(KINDS, 403), **OUTSIDERS, "admin": 200, "ticket for elsewhere": 401},
        ),
        # Whose feeds there are is nobody's secret from whoever has a token.
        Case(
            "/v1/feeds/nothing",
            {**dict.fromkeys(KINDS, 404), **OUTSIDERS, "ticket for elsewhere": 401},
        ),
    ],
    ("GET", "/v1/feeds/{dataset}/{key}"): [
        Case("/v1/feeds/clients/{key}", {**INSIDERS, **TICKETS, "other tenant": 404}),
    ],
    # One that may be followed has no end.
    ("GET", "/v1/live"): [
        Case(
            "/v1/live?feed=for_admins&nothing=1",
            {**dict.fromkeys(KINDS, 403), **OUTSIDERS, "admin": 400, "ticket for elsewhere": 401},
        ),
        Case(
            "/v1/live?feed=nothing",
            {**dict.fromkeys(KINDS, 404), **OUTSIDERS, "ticket for elsewhere": 401},
        ),
    ],
    ("POST", "/v1/tickets"): [
        Case(
            "/v1/tickets",
            {
                **{kind: 201 if status == 200 else status for kind, status in INSIDERS.items()},
                **dict.fromkeys(TICKETS, 401),
            },
            {"path": "/v1/feeds/clients"},
        )
    ],
    ("GET", "/api/performance/cache"): [Case("/api/performance/cache", OPERATORS)],
    ("POST", "/api/performance/cache/invalidate"): [
        Case("/api/performance/cache/invalidate", OPERATORS, {"tags": ["nothing"]})
    ],
    ("GET", "/api/performance/pools"): [Case("/api/performance/pools", OPERATORS)],
    ("GET", "/api/performance/health"): [Case("/api/performance/health", OPERATORS)],
    ("POST", "/api/performance/health/repair"): [
        Case(
            "/api/performance/health/repair",
            OPERATORS,
            {"repairs": ["breakers"], "dry_run": True},
        )
    ],
    ("GET", "/api/performance/queries"): [Case("/api/performance/queries", OPERATORS)],
    ("GET", "/api/performance/metrics"): [
        Case("/api/performance/metrics", OPERATORS),
        Case("/api/performance/metrics?range=24h&format=csv", OPERATORS),
    ],
    ("GET", "/api/performance/alerts"): [Case("/api/performance/alerts", OPERATORS)],
    ("POST", "/api/performance/alerts/silences"): [
        Case(
            "/api/performance/alerts/silences",
            {**OPERATORS, "operator": 201},
            {"alert": "slow", "for": "0s", "reason": "a test"},
        )
    ],
    ("GET", "/metrics"): [Case("/metrics", OPERATORS)],
    ("GET", "/problems/{name}"): [Case("/problems/unauthorized", EVERYBODY)],
    ("GET", "/openapi.json"): [Case("/openapi.json", EVERYBODY)],
    ("GET", "/docs"): [Case("/docs", EVERYBODY)],
    ("GET", "/live"): [Case("/live", EVERYBODY)],
    ("GET", "/ready"): [Case("/ready", EVERYBODY)],
}
# What HEAD answers is what GET would; of a row it does not look whether there is one.
for (_method, _route), _cases in list(DECISIONS.items()):
    if _method == "GET":
        DECISIONS["HEAD", _route] = [
            Case(case.path, {k: 200 if s == 404 and "{key}" in case.path else s
                             for k, s in case.expected.items()})
            for case in _cases
        ]  # fmt: skip


@pytest.fixture(scope="module")
def matrix(world_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The demo's datasets, and one that only admins may read."""
    file = tmp_path_factory.mktemp("matrix") / "datasets.toml"
    given = (REPOSITORY / "config" / "datasets.toml").read_text()
    own = '[for_admins]\nrelation = "wedding.clients"\nkey = ["id"]\n'
    own += 'tenant = "tenant_id"\nclient = "id"\nroles = ["admin"]\n'
    file.write_text(f"{given}\n{own}")
    with serving(world_url, datasets=file) as running:
        yield running


class Clients(NamedTuple):
    """The ids of OWN's clients, and of all others."""

    own: set[int]
    others: set[int]


@pytest.fixture(scope="module")
async def clients(world_admin_url: str) -> Clients:
    world = await asyncpg.connect(world_admin_url)
    own = set(await ids(world, f"tenant_id = '{OWN}'"))
    others = set(await ids(world, f"tenant_id <> '{OWN}'"))
    await world.close()
    return Clients(own, others)


@pytest.fixture(scope="module")
async def asking(matrix: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(matrix.url) as session:
        yield session


class Callers:
    """Every kind of caller, as headers and parameters."""

    def __init__(self, http: aiohttp.ClientSession, couple: str) -> None:
        self.http, self.couple = http, couple

    async def credentials(self, kind: str, path: str) -> tuple[dict[str, str], dict[str, str]]:
        """The headers and parameters with which this kind asks for the path."""
        if "ticket" in kind:
            buyer = bearer(OWN, client=self.couple) if "couple" in kind else bearer(OWN)
            good_for = "/v1/feeds/tasks" if "elsewhere" in kind else path
            return {}, {"ticket": await self._ticket(good_for, buyer)}
        claims = {"aud": "feedsvc", "exp": time.time() + 60, "tenant": OWN, "role": "admin"}
        without = {k: v for k, v in claims.items() if k != "tenant"}
        headers = {
            "nobody": {},
            "malformed": {"Authorization": "Bearer a.b.c"},
            "another key": {"Authorization": f"Bearer {jwt.encode(claims, KEY[::-1])}"},
            "expired": bearer(OWN, "admin", lifetime=-60),
            "no tenant": {"Authorization": f"Bearer {jwt.encode(without, KEY)}"},
            "other tenant": bearer(OTHER),
            "couple": bearer(OWN, client=self.couple),
            "member": bearer(OWN),
            "admin": bearer(OWN, "admin", operator=False),
            "operator": bearer(OWN, operator=True),
            "narrowed operator": bearer(OWN, client=self.couple, operator=True),
        }
        return headers[kind], {}

    async def _ticket(self, path: str, headers: dict[str, str]) -> str:
        is_feed = path.startswith("/v1/feeds") or path == "/v1/live"
        wanted = {"path": path if is_feed else "/v1/feeds"}
        async with self.http.post("/v1/tickets", json=wanted, headers=headers) as answer:
            return str((await answer.json())["ticket"])


def test_every_route_has_a_decision() -> None:
    routes = {(method, route.path.replace(":(?s:.*)", "")) for route in ROUTES
              for method in route.methods}  # fmt: skip
    missing = routes - set(DECISIONS)
    assert not missing, f"say in DECISIONS who may ask for {sorted(missing)}, and what they get"
    assert not set(DECISIONS) - routes, "a decision about a route that is no more"
    for cases in DECISIONS.values():
        for case in cases:
            assert set(case.expected) == set(KINDS), case.path


def test_what_is_open_is_known_to_be() -> None:
    """A route that is opened to all has to be listed here too."""
    is_open = {route.path for route in ROUTES if not isinstance(route, ProtectedRoute)}
    assert is_open == {"/problems/{name}", "/openapi.json", "/docs", "/live", "/ready"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "route"), DECISIONS)
async def test_each_kind_of_caller_gets_what_was_decided(
    asking: aiohttp.ClientSession, clients: Clients, method: str, route: str, kind: str
) -> None:
    own, others = clients
    couple = str(min(own))
    for case in DECISIONS[method, route]:
        path = case.path.replace("{key}", couple)
        headers, parameters = await Callers(asking, couple).credentials(kind, path.split("?")[0])
        async with asking.request(
            method, path, headers=headers, params=parameters, json=case.body
        ) as answer:
            body = await answer.read()
        assert answer.status == case.expected[kind], (path, body[:300])
        # Other feeds have numbers of their own.
        reported = body.replace(path.encode(), b"")  # a problem says what was asked
        seen = numbers(reported) if "clients" in path else set()
        if kind == "other tenant":
            assert not seen & own
        elif kind in ("couple", "couple's ticket", "narrowed operator"):
            assert not seen & (others | own - {int(couple)})
        elif case.expected[kind] in (200, 201):
            assert not seen & others
        else:
            assert not seen & (own | others)
        if method == "HEAD":
            assert body == b""


def numbers(body: bytes) -> set[int]:
    """Whatever could be a client's id."""
    return {int(found) for found in re.findall(rb"(?<!\d)\d{9}(?!\d)", body)}


async def ids(world: asyncpg.Connection, condition: str) -> list[int]:
    rows = await world.fetch(f"SELECT id FROM wedding.clients WHERE {condition}")
    return [row["id"] for row in rows]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_methods_that_a_route_does_not_offer_are_405(matrix: Running, route: Any) -> None:
    path = route.path.replace("{dataset}", "clients").replace("{name}", "internal")
    path = path.replace("{key:(?s:.*)}", "1")
    async with aiohttp.ClientSession(matrix.url) as http:
        for method in set(METHODS) - set(route.methods):
            async with http.request(method, path, headers=bearer(OWN, "admin")) as answer:
                assert answer.status == 405, method
                allowed = {item.strip() for item in answer.headers["Allow"].split(",")}
                assert allowed == set(route.methods)


async def test_a_tenant_that_the_request_names_is_never_honoured(
    matrix: Running, world: asyncpg.Connection
) -> None:
    others = set(await ids(world, f"tenant_id = '{OTHER}'"))
    (key,) = list(others)[:1]
    async with aiohttp.ClientSession(matrix.url) as http:
        for path, headers, status in (
            (f"/v1/feeds/clients?tenant_id={OTHER}", {}, 400),
            (f"/v1/feeds/clients?tenant={OTHER}", {}, 400),
            (f"/v1/feeds/clients?feedsvc.tenant={OTHER}", {}, 400),
            (f"/v1/feeds/{OTHER}/clients", {}, 404),
            (f"/{OTHER}/v1/feeds/clients", {}, 404),
            (f"/v1/feeds/clients/{key}", {}, 404),
            (f"/v1/feeds/clients?after={key - 1}&limit=5", {}, 200),
            ("/v1/feeds/clients?limit=500", {"X-Tenant": OTHER, "X-Tenant-Id": OTHER}, 200),
            ("/v1/feeds/clients?limit=500", {"Cookie": f"tenant={OTHER}"}, 200),
        ):
            async with http.get(path, headers={**bearer(OWN), **headers}) as answer:
                assert answer.status == status, path
                body = (await answer.read()).replace(path.encode(), b"")
                assert not others & numbers(body)
