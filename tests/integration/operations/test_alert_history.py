"""The history of alerts in PostgreSQL."""

import asyncpg

from feedsvc.backends.postgres.pool import PoolSet
from feedsvc.core.identifiers import new_uuid
from feedsvc.operations.alerts.history import AlertHistory
from feedsvc.settings import Database, Settings
from tests.support.servers import with_database, world_of_its_own

DAYS = "UPDATE feedsvc.alerts SET at = now() - make_interval(days => $2) WHERE alert = $1"


async def test_events_are_kept_for_ninety_days(admin_url: str) -> None:
    async with world_of_its_own(admin_url) as url:
        pools = PoolSet(Settings(database=Database.model_validate({"url": url})))
        await pools.open()
        history = AlertHistory(pools["write"], "tests")
        names = {"old": 91, "kept": 89, "new": 0}
        try:
            await history.add([
                {"id": new_uuid(), "at": 0.0, "instance": "tests", "alert": name,
                 "event": "firing", "severity": "info", "value": 1.0}
                for name in names
            ])  # fmt: skip
            admin = await asyncpg.connect(with_database(admin_url, url.rpartition("/")[2]))
            await admin.executemany(DAYS, list(names.items()))
            await admin.close()
            await history.trim()
            assert [event["alert"] for event in await history.latest(10)] == ["new", "kept"]
        finally:
            await pools.close(1.0)
