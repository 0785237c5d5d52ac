"""The change log in a service's health and metrics: what keeps it, and what locks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import asyncpg
import pytest

from tests.support.ailing import ADMIN, DATASETS, LOGIN, PASSWORD, SCHEMA, becomes, says, until
from tests.support.servers import as_login, with_database, world_of_its_own
from tests.support.service import NO_REDIS, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.conftest import NewDatabase

ROW = """
    INSERT INTO feedsvc.log (xid, scope, feed, slot, op)
    VALUES (pg_current_xact_id(), 7, 1, feedsvc.log_slot(), 'u')
"""
QUICK = {**NO_REDIS, "FEEDSVC_CHANGES__RETENTION": "1"}


@pytest.fixture
async def world(world_admin_url: str) -> AsyncIterator[tuple[str, str]]:
    """The service's login and the owner's on one database."""
    async with world_of_its_own(world_admin_url) as url:
        yield url, with_database(world_admin_url, url.rpartition("/")[2])


async def test_a_transaction_that_keeps_the_log_is_reported_until_it_ends(
    world: tuple[str, str],
) -> None:
    writer = await asyncpg.connect(world[1], server_settings={"application_name": "a batch"})
    try:
        with serving(world[0], settings=QUICK) as running:
            async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
                found = await becomes(http, "changes", "ok")
                assert found["figures"]["windows"] >= 1
                await writer.execute(f"BEGIN; {ROW}")
                found = await becomes(http, "changes", "degraded")
                assert "more than changes.retention" in found["what"]
                assert f"SELECT pg_terminate_backend({writer.get_server_pid()})" in found["what"]
                assert "(a batch)" in found["what"]
                assert found["figures"]["blocked_s"] > 0
                await writer.execute("COMMIT")
                await becomes(http, "changes", "ok")
                await writer.execute("BEGIN; LOCK TABLE feedsvc.log IN SHARE MODE")
                found = await becomes(http, "changes", "degraded")
                assert "Writers of the served tables wait" in found["what"]
                await writer.execute("COMMIT")
                await becomes(http, "changes", "ok")

                async def is_counted() -> bool:
                    async with http.get("/metrics") as answer:
                        lines = (await answer.text()).splitlines()
                    reported = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
                    return (
                        float(reported["feedsvc_changes_trims_total"]) >= 1
                        and float(reported["feedsvc_changes_log_bytes"]) > 8_192
                        and float(reported["feedsvc_changes_log_oldest_seconds"]) > 0
                    )

                await until(is_counted, 60)
    finally:
        await writer.close()


async def test_a_database_without_the_log_is_reported(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    file = tmp_path / "datasets.toml"
    file.write_text(DATASETS)
    async with new_database() as url:
        owner = await asyncpg.connect(url)
        try:
            await owner.execute(SCHEMA)
            login = as_login(url, LOGIN, PASSWORD)
            with serving(login, datasets=file, settings=NO_REDIS) as running:
                async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
                    await until(lambda: says(http, "changes", "`feedsvc migrate up`"), 60)
                    await becomes(http, "changes", "degraded")
        finally:
            await owner.execute(f"DROP OWNED BY {LOGIN}; DROP ROLE {LOGIN}")
            await owner.close()
