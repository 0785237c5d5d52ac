"""What came from the cache while the readers read."""

from collections import Counter
from typing import Any, Final

import aiohttp

from tests.support.canaries.readers import SETTINGS
from tests.support.canaries.world import Caller, tenant_name

_WORKERS: Final = int(SETTINGS["FEEDSVC_SERVER__WORKERS"])
_MOST_LOOKS: Final = 200


async def cache_counts(url: str) -> Counter[str]:
    """The lookups of all workers together: `memory` and `redis` are hits, `mismatch` is a miss.

    Raises AssertionError where not every worker was met.
    """
    told: dict[float, dict[str, Any]] = {}
    for _ in range(_MOST_LOOKS):
        report = await _report(url)
        told[report["since"]] = report
        if len(told) == _WORKERS:
            break
    assert len(told) == _WORKERS, "a worker answers nobody"
    counts: Counter[str] = Counter()
    for report in told.values():
        for dataset in report["datasets"].values():
            counts.update(dataset["hits"])
            counts["mismatch"] += dataset["misses"].get("mismatch", 0)
    return counts


async def _report(url: str) -> dict[str, Any]:
    """One worker's figures, over a connection of its own."""
    headers = Caller(tenant_name(0), "admin").headers
    async with (
        aiohttp.ClientSession(url) as session,
        session.get("/api/performance/cache", headers=headers) as answer,
    ):
        assert answer.status == 200
        report: dict[str, Any] = await answer.json()
        return report
