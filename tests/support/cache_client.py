"""A client that asks a service for cached pages, and for its cache's figures."""

import asyncio
from typing import Any

import aiohttp

from tests.support.service import bearer

OWN, OTHER = "rosewood", "atelier-blanc"
PAGE = "/v1/feeds/clients?limit=20&format=ndjson"


async def until_log_is_read(session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(60):
        while not (await figures(session))["log_read"]:
            await asyncio.sleep(0.05)


async def figures(session: aiohttp.ClientSession) -> Any:
    async with session.get("/api/performance/cache", headers=bearer(OWN, "admin")) as answer:
        assert answer.status == 200
        return await answer.json()


async def get(
    session: aiohttp.ClientSession,
    path: str,
    tenant: str = OWN,
    role: str = "member",
    client: str | None = None,
    **headers: str,
) -> tuple[str, bytes]:
    """Cache-Status and the body."""
    async with session.get(path, headers={**bearer(tenant, role, client), **headers}) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["Cache-Status"], await answer.read()


async def until_changes_apply(session: aiohttp.ClientSession) -> None:
    """Wait until all that is committed has been applied; throw out nothing of ours."""
    asked = session.post(
        "/api/performance/cache/invalidate",
        json={"tags": ["nothing of ours"]},
        headers=bearer(OWN, "admin"),
    )
    async with asked as answer:
        assert (await answer.json())["heard"] is True
