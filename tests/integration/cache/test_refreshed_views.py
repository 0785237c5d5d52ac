"""The dashboard's figures as feeds: refreshed, cached until they are, and watched by health."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import asyncpg
import pytest

from feedsvc.changes import triggers
from tests.support.ailing import ADMIN, component, until
from tests.support.cache_client import OTHER, OWN, get, until_log_is_read
from tests.support.servers import DATASETS, TEMPLATE, as_login
from tests.support.service import NO_REDIS, bearer, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

MONTHS = "/v1/feeds/month_figures?format=ndjson"
VIEW = "wedding.month_figures_kept"
LEAD = """
    INSERT INTO wedding.leads (tenant_id, email, name, source, score)
    VALUES ('rosewood', 'a@example.org', 'A', 'web', 1)
"""


@pytest.fixture
async def owner(new_database: NewDatabase) -> AsyncIterator[asyncpg.Connection]:
    async with new_database(TEMPLATE) as url:
        connection = await asyncpg.connect(url)
        yield connection
        await connection.close()


@pytest.fixture
async def client(owner: asyncpg.Connection, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS.read_text().replace("after = 60", "after = 1"))
    await triggers.install_for(owner, file)
    name = await owner.fetchval("SELECT current_database()")
    host, port = await owner.fetchrow("SELECT host(inet_server_addr()), inet_server_port()")  # type: ignore[misc]
    url = as_login(f"postgresql://{host}:{port}/{name}")
    with serving(url, datasets=file, settings=NO_REDIS) as running:
        async with aiohttp.ClientSession(running.url, headers=ADMIN) as session:
            await until_log_is_read(session)
            yield session


def leads(body: bytes) -> int:
    rows = [json.loads(line) for line in body.splitlines()]
    assert {row["tenant_id"] for row in rows} == {OWN}
    return sum(row["leads"] for row in rows)


async def test_figures_are_refreshed_cached_and_watched(
    client: aiohttp.ClientSession, owner: asyncpg.Connection
) -> None:
    _, page = await get(client, MONTHS)
    before = leads(page)
    await owner.execute(LEAD)

    async def shows_the_lead() -> bool:
        return leads((await get(client, MONTHS))[1]) == before + 1

    await until(shows_the_lead, 60)

    async def is_a_hit() -> bool:
        return "; hit;" in (await get(client, MONTHS))[0]

    await until(is_a_hit, 60)
    _, others = await get(client, MONTHS, OTHER)
    assert {json.loads(line)["tenant_id"] for line in others.splitlines()} == {OTHER}
    async with client.get(MONTHS, headers=bearer(client="100000001")) as refused:
        assert refused.status in (403, 404)

    async def is_well() -> bool:
        found = await component(client, "refreshes")
        view = found["figures"].get("views", {}).get(VIEW)
        return found["state"] == "ok" and view is not None and view["age_s"] is not None

    await until(is_well, 60)

    async def has_metrics() -> bool:
        async with client.get("/metrics") as answer:
            text = await answer.text()
        (line,) = [
            each for each in text.splitlines()
            if each.startswith("feedsvc_view_age_seconds{") and VIEW in each
        ]  # fmt: skip
        return float(line.rpartition(" ")[2]) > 0

    await until(has_metrics, 60)
    await owner.execute("DROP INDEX wedding.month_figures_key")
    await owner.execute(LEAD)

    async def is_named() -> bool:
        found = await component(client, "refreshes")
        return found["state"] == "degraded" and "SQLSTATE 55000" in found["what"]

    await until(is_named, 60)
    async with client.get("/ready") as ready:
        assert ready.status == 200
