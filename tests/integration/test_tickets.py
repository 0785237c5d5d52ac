"""Tickets: one use, one path, and nobody can make or read one."""

import asyncio

import aiohttp
import asyncpg
import pytest

from tests.support.service import bearer

FEED = "/v1/feeds/clients"


async def _ticket(http: aiohttp.ClientSession, path: str = FEED) -> str:
    async with http.post("/v1/tickets", json={"path": path}, headers=bearer()) as answer:
        assert answer.status == 201
        issued = await answer.json()
        assert issued["expires_in"] == 30
        return str(issued["ticket"])


async def test_a_ticket_stands_for_its_holder_with_any_query(http: aiohttp.ClientSession) -> None:
    parameters = {"ticket": await _ticket(http), "limit": "3", "columns": "tenant_id"}
    async with http.get(FEED, params=parameters) as answer:
        assert await answer.json() == [{"tenant_id": "rosewood"}] * 3
        assert parameters["ticket"] not in answer.headers["Link"]


async def test_a_ticket_is_good_once_also_when_many_ask_at_once(
    http: aiohttp.ClientSession,
) -> None:
    ticket = await _ticket(http)

    async def ask() -> int:
        async with http.get(FEED, params={"ticket": ticket, "limit": "1"}) as answer:
            return answer.status

    statuses = await asyncio.gather(*(ask() for _ in range(8)))
    assert sorted(statuses) == [200, *[401] * 7]


async def test_a_ticket_is_for_its_path_alone(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/feeds/budgets", params={"ticket": await _ticket(http)}) as answer:
        assert answer.status == 401


async def test_an_expired_ticket_is_refused(
    http: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    ticket = await _ticket(http)
    await world.execute("UPDATE feedsvc.tickets SET expires_at = now() - interval '1 s'")
    async with http.get(FEED, params={"ticket": ticket, "limit": "1"}) as answer:
        assert answer.status == 401


async def test_only_a_digest_of_a_ticket_is_kept(
    http: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    ticket = await _ticket(http)
    kept = await world.fetch("SELECT t::text FROM feedsvc.tickets t")
    assert kept
    assert all(ticket not in row[0] for row in kept)


@pytest.mark.parametrize(
    "body",
    ["", "no json", "[]", "{}", '{"path": 1}', '{"path": "/live"}', '{"path": "/v1/feeds/a?b=c"}'],
)
async def test_a_body_that_names_no_feed_is_refused(http: aiohttp.ClientSession, body: str) -> None:
    async with http.post("/v1/tickets", data=body, headers=bearer()) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"


async def test_a_ticket_does_not_buy_another(http: aiohttp.ClientSession) -> None:
    path = {"ticket": await _ticket(http)}
    async with http.post("/v1/tickets", params=path, json={"path": FEED}) as answer:
        assert answer.status == 401
