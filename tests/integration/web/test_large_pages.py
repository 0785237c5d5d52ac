"""Pages whose rows exceed 4 MiB are streamed, without ETag and Link, as docs/feeds.md says."""

import json
from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import pytest

from tests.support.cache_figures import until_all_read_log
from tests.support.servers import with_database, world_of_its_own
from tests.support.service import bearer, serving

# Two of them are less than 4 MiB, three are more.
NOTES = 1_900_000
CLIENTS = "/v1/feeds/clients?columns=id,notes"


@pytest.fixture(scope="module", params=["true", "false"], ids=["cached", "uncached"])
async def http(
    request: pytest.FixtureRequest, admin_url: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """A service on a world of which every client has long notes, with a cache and without."""
    async with world_of_its_own(admin_url) as url:
        admin = await asyncpg.connect(with_database(admin_url, url.rpartition("/")[2]))
        await admin.execute(
            "UPDATE wedding.clients SET notes = repeat('x', $1) WHERE id IN"
            " (SELECT id FROM wedding.clients WHERE tenant_id = 'rosewood' ORDER BY id LIMIT 4)",
            NOTES,
        )
        await admin.close()
        with serving(url, settings={"FEEDSVC_CACHE__ENABLED": request.param}) as running:
            if request.param == "true":
                await until_all_read_log(running.url, 1, bearer(role="admin"))
            async with aiohttp.ClientSession(running.url) as session:
                yield session


@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
@pytest.mark.parametrize("_time", ["first", "second"])
async def test_a_page_beyond_4_mib_is_streamed_without_etag_and_link(
    http: aiohttp.ClientSession, form: str, _time: str
) -> None:
    async with http.get(f"{CLIENTS}&limit=3&format={form}", headers=bearer()) as answer:
        body = await answer.read()
    assert answer.status == 200
    assert "ETag" not in answer.headers
    assert "Link" not in answer.headers
    assert answer.headers["Transfer-Encoding"] == "chunked"
    status = answer.headers["Cache-Status"]
    assert status.endswith(("detail=large", "detail=off"))
    assert body.count(b"x" * NOTES) == 3


async def test_one_below_is_a_page(http: aiohttp.ClientSession) -> None:
    async with http.get(f"{CLIENTS}&limit=2", headers=bearer()) as answer:
        rows = json.loads(await answer.read())
    assert [len(row["notes"]) for row in rows] == [NOTES, NOTES]
    assert "ETag" in answer.headers
    assert 'rel="next"' in answer.headers["Link"]


async def test_only_an_enabled_cache_reports_a_page_too_large(
    http: aiohttp.ClientSession, request: pytest.FixtureRequest
) -> None:
    async with http.get(f"{CLIENTS}&limit=3", headers=bearer()) as answer:
        await answer.read()
    detail = "large" if "uncached" not in request.node.name else "off"
    assert answer.headers["Cache-Status"] == f"feedsvc; fwd=bypass; detail={detail}"
