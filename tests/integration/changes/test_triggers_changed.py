"""Triggers that fire in another mode end caching: said in health, metrics and alerts."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from feedsvc.changes import triggers
from tests.integration.cache.test_cache_faults import look_again
from tests.support.ailing import ADMIN, component
from tests.support.cache_client import figures, until_log_is_read
from tests.support.exposed import exposed
from tests.support.servers import DATASETS, with_database, world_of_its_own
from tests.support.service import serving

RULES = """
[triggers-changed]
figure = "health"
check = "triggers"
threshold = 0
clear_for = "0s"
severity = "warning"
todo = "Run feedsvc migrate triggers."
"""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 60
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.1)


async def test_triggers_that_were_disabled_and_enabled_in_another_mode(
    admin_url: str, tmp_path: Path
) -> None:
    """`DISABLE TRIGGER USER` and back leaves ORIGIN where ALWAYS and REPLICA were."""
    rules = tmp_path / "alerts.toml"
    rules.write_text(RULES)
    settings = {"FEEDSVC_ALERTS__FILE": str(rules), "FEEDSVC_ALERTS__INTERVAL": "0.2"}
    async with world_of_its_own(admin_url) as url:
        owner = await asyncpg.connect(with_database(admin_url, url.rpartition("/")[2]))
        serves = serving(url, settings=settings)
        running = await asyncio.to_thread(serves.__enter__)
        try:
            async with aiohttp.ClientSession(running.url, headers=ADMIN) as http:
                await until_log_is_read(http)
                assert await is_well(http)
                await owner.execute("ALTER TABLE wedding.vendors DISABLE TRIGGER USER")
                await owner.execute("ALTER TABLE wedding.vendors ENABLE TRIGGER USER")
                await look_again(http, owner)
                await until(lambda: is_reported(http))
                reported = await component(http, "triggers")
                assert reported["figures"]["untold"].keys() == {"vendors"}
                assert "of wedding.vendors is enabled as ORIGIN, not enabled as" in reported["what"]
                assert "run `feedsvc migrate triggers`" in reported["what"]
                assert (await figures(http))["datasets"]["vendors"]["kept_out"] is not None
                assert (await alert(http))["check"] == "triggers"
                await triggers.install_for(owner, DATASETS)
                await look_again(http, owner)
                await until(lambda: is_well(http))
        finally:
            await asyncio.to_thread(serves.__exit__, None, None, None)
            await owner.close()


async def alert(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.get("/api/performance/alerts") as answer:
        (found,) = (await answer.json())["alerts"]
    return dict(found)


async def is_reported(http: aiohttp.ClientSession) -> bool:
    """Return whether health, metrics and alerts say that vendors are no longer cached."""
    now = await exposed(http)
    return (
        (await component(http, "triggers"))["state"] == "degraded"
        and now.total("feedsvc_health_state", check="triggers") == 1
        and now.total("feedsvc_dataset_kept_out", reason="triggers") == 1
        and now.total("feedsvc_dataset_kept_out", reason="triggers", dataset="vendors") == 1
        and (await alert(http))["state"] == "firing"
    )


async def is_well(http: aiohttp.ClientSession) -> bool:
    now = await exposed(http)
    return (
        (await component(http, "triggers"))["state"] == "ok"
        and now.total("feedsvc_dataset_kept_out", reason="triggers") == 0
        and (await alert(http))["state"] == "ok"
    )
