"""Repairs that take longer than a request: each goes on by itself, once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from feedsvc.core.logs import redacted
from feedsvc.operations.health.result import RepairResult

logger = logging.getLogger(__name__)

PATIENCE: Final = 2.0  # seconds until the answer is that it goes on


class Jobs:
    """The repairs under way, by name."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[RepairResult]] = {}

    async def run(self, name: str, work: Callable[[], Awaitable[RepairResult]]) -> RepairResult:
        """Start the work. Its outcome, or `started` where it takes longer than two seconds."""
        if name in self._running:
            return RepairResult("started", "It is under way already; its end will be in the log.")
        job = asyncio.create_task(self._job(name, work))
        self._running[name] = job
        job.add_done_callback(lambda _: self._running.pop(name))
        done, _ = await asyncio.wait({job}, timeout=PATIENCE)
        if done:
            return job.result()
        return RepairResult("started", "It goes on; its end will be in the log.")

    async def close(self) -> None:
        """Cancel what is under way."""
        jobs = list(self._running.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    @staticmethod
    async def _job(name: str, work: Callable[[], Awaitable[RepairResult]]) -> RepairResult:
        try:
            outcome = await work()
        except Exception as error:  # noqa: BLE001 - the request may have ended
            outcome = RepairResult("failed", f"It failed ({redacted(error)}).")
        log = logger.warning if outcome.outcome == "failed" else logger.info
        log("repair %s: %s: %s", name, outcome.outcome, outcome.what)
        return outcome
