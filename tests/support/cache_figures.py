"""`GET /api/performance/cache` of every worker of a service, for each reports itself alone."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import aiohttp

_BETWEEN_LOOKS: Final = 0.01  # seconds
_PATIENCE: Final = 60.0  # seconds


async def reports(url: str, workers: int, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """One report of each worker. Raises AssertionError where one of them answers nobody."""
    reported: dict[int, dict[str, Any]] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            while len(reported) < workers:
                report = await _report(url, headers)
                reported[report["worker"]] = report
                # One that is at work takes all that comes meanwhile; of those that sleep, any.
                await asyncio.sleep(_BETWEEN_LOOKS)
    assert len(reported) == workers, f"of {workers} workers {len(reported)} answer"
    return list(reported.values())


async def until_all_read_log(url: str, workers: int, headers: Mapping[str, str]) -> None:
    """Return once each worker may use its cache. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while not all(report["log_read"] for report in await reports(url, workers, headers)):
            await asyncio.sleep(0.05)


async def cache_counts(url: str, workers: int, headers: Mapping[str, str]) -> Counter[str]:
    """The lookups of all workers together: `memory` and `redis` are hits, `mismatch` is a miss."""
    counts: Counter[str] = Counter()
    for report in await reports(url, workers, headers):
        for dataset in report["datasets"].values():
            counts.update(dataset["hits"])
            counts["mismatch"] += dataset["misses"].get("mismatch", 0)
    return counts


async def _report(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """One worker's figures, over a connection of its own, for it is the connection's worker."""
    async with (
        aiohttp.ClientSession(url) as session,
        session.get("/api/performance/cache", headers=headers) as answer,
    ):
        assert answer.status == 200
        report: dict[str, Any] = await answer.json()
        return report
