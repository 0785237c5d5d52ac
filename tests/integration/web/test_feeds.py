"""The feeds as an outsider meets them, held against PostgreSQL."""

import aiohttp
import asyncpg

from tests.support.service import bearer


async def test_an_uncut_ndjson_feed_is_row_to_json_line_by_line(
    http: aiohttp.ClientSession, world: asyncpg.Connection
) -> None:
    rows = await world.fetch(
        "SELECT row_to_json(c)::text FROM wedding.clients c"
        " WHERE tenant_id = 'rosewood' ORDER BY id"
    )
    async with http.get("/v1/feeds/clients?format=ndjson", headers=bearer()) as answer:
        assert answer.status == 200
        assert (await answer.text()).split("\n") == [*(row[0] for row in rows), ""]
